package control_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/control"
)

func TestBadInputNamesWhatIsWrong(t *testing.T) {
	p := open(t, t.TempDir())
	header := http.Header{"Authorization": {"Bearer " + bootstrapToken}, "Content-Type": {"application/json"}}
	cases := []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/admin/v1/users", `{"name":"a","nmae":1}`, 422, "body.nmae"},
		{"POST", "/admin/v1/users", `{}`, 422, "required property name"},
		{"POST", "/admin/v1/users", `{"name":7}`, 422, "expected string"},
		{"POST", "/admin/v1/users", `{"name":"a"} trailing`, 400, ""},
		{"POST", "/admin/v1/users", ``, 400, "required"},
		{"POST", "/admin/v1/users", `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 413, ""},
		{"POST", "/admin/v1/upstreams", `{"name":"u","apiKey":["` + credential + `"]}`, 422, "expected string"},
		{"POST", "/admin/v1/upstreams", `{"apiKey":"` + credential + `"}`, 422, "required property name"},
		{"GET", "/admin/v1/usage?since=yesterday", ``, 422, "is not a time"},
		{"GET", "/admin/v1/usage?groupBy=colour", ``, 422, "groupBy"},
		{"GET", "/admin/v1/usage?sinse=1d", ``, 422, "sinse"},
		{"GET", "/admin/v1/usage?limit=0", ``, 422, "limit"},
		{"GET", "/admin/v1/nothing", ``, 404, "openapi.json"},
		{"PUT", "/admin/v1/users", ``, 404, "openapi.json"},
	}
	for _, c := range cases {
		status, body := p.raw(t, c.method, c.path, header, c.body)
		if status != c.status || !strings.Contains(string(body), c.says) || !strings.Contains(string(body), `"status":`) {
			t.Errorf("%s %s %.60s: %d %s", c.method, c.path, c.body, status, body)
		}
		if strings.Contains(string(body), credential) {
			t.Errorf("%s %s repeats the credential: %s", c.method, c.path, body)
		}
	}
}

func TestInternalErrorsStayInTheLog(t *testing.T) {
	var log bytes.Buffer
	p := open(t, t.TempDir(), func(o *control.Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	must[any](t)(nil, p.Close())
	_, err := p.socket.Status(t.Context())
	status(t, err, http.StatusInternalServerError, "its log says why")
	if !strings.Contains(log.String(), "closed") || strings.Contains(err.Error(), "closed") {
		t.Errorf("%s\n%v", log.String(), err)
	}
}

func TestMetrics(t *testing.T) {
	registry, folder := prometheus.NewRegistry(), t.TempDir()
	for range 2 { // a second one in the same process, after the first closed
		c := must[*control.Control](t)(control.Open(t.Context(), func() control.Options {
			o := options(t, folder)
			o.Registerer = registry
			return o
		}()))
		families, err := registry.Gather()
		if err != nil || len(families) != 3 || families[2].GetName() != "carpool_control_policy_version" || families[2].GetMetric()[0].GetGauge().GetValue() != 1 {
			t.Errorf("%v", families)
		}
		must[any](t)(nil, c.Close())
	}
}

func TestClientSaysWhatToDo(t *testing.T) {
	folder := t.TempDir()
	long := filepath.Join(folder, strings.Repeat("long/", 30))
	for socket, want := range map[string]string{
		filepath.Join(folder, "carpool.sock"): "no server is running with data folder " + folder + ": start it with carpool serve --data " + folder,
		filepath.Join(long, "carpool.sock"):   "no server is running with data folder",
	} {
		_, err := client(t, control.ClientOptions{Socket: socket}).Status(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client(t, control.ClientOptions{URL: "http://127.0.0.1:1"}).Status(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_, err := client(t, control.ClientOptions{URL: "https://carpool.invalid"}).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot reach the server at https://carpool.invalid: ") {
		t.Errorf("%v", err)
	}
	_, err = client(t, control.ClientOptions{URL: "http://127.0.0.1:1"}).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no server answers at http://127.0.0.1:1") {
		t.Errorf("%v", err)
	}
	for _, url := range []string{"", "localhost:8080", "ftp://example.com", "http://user:secret@example.com"} {
		if _, err := control.NewClient(control.ClientOptions{URL: url}); err == nil {
			t.Errorf("%q is no address", url)
		}
	}
}

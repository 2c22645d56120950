package control_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"sort"
	"strings"
	"testing"

	"carpool/internal/policy"
)

// document fetches the OpenAPI document.
func (p *plant) document(t *testing.T) []byte {
	t.Helper()
	status, body := p.raw(t, http.MethodGet, "/admin/v1/openapi.json", http.Header{"Authorization": {"Bearer " + bootstrapToken}}, "")
	if status != http.StatusOK {
		t.Fatalf("openapi.json: %d %s", status, body)
	}
	return body
}

func (p *plant) raw(t *testing.T, method, path string, header http.Header, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	return resp.StatusCode, data
}

type operation struct{ method, path string }

func (p *plant) operations(t *testing.T) []operation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(p.document(t), &doc); err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, methods := range doc.Paths {
		for method := range methods {
			all = append(all, operation{strings.ToUpper(method), strings.ReplaceAll(path, "{name}", "alice")})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].path+all[i].method < all[j].path+all[j].method })
	return all
}

func TestOpenAPIDocument(t *testing.T) {
	p := open(t, t.TempDir())
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, p.document(t), "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi.json", append(pretty.Bytes(), '\n'))
	for _, path := range []string{"/admin/v1/openapi.yaml", "/admin/v1/openapi-3.0.json"} {
		if status, _ := p.raw(t, http.MethodGet, path, http.Header{"X-Api-Key": {bootstrapToken}}, ""); status != http.StatusOK {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestEveryOperationNeedsAnAdministratorsToken(t *testing.T) {
	p := open(t, t.TempDir())
	p.startNode(t, "n1")
	must := must[any](t)
	applied, err := p.Apply(t.Context(), policy.Resources{
		Users: []policy.UserSpec{{Name: "alice"}}, Keys: []policy.KeySpec{{Name: "k", User: "alice"}},
	}, false)
	must(applied, err)
	developer := applied.Changes[1].Key
	token, err := p.socket.CreateToken(t.Context(), "ci")
	must(token, err)
	revoked, err := p.socket.CreateToken(t.Context(), "gone")
	must(revoked, err)
	must(nil, p.socket.DeleteToken(t.Context(), "gone"))

	operations := append(p.operations(t), operation{http.MethodGet, "/admin/v1/openapi.json"},
		operation{http.MethodGet, "/admin/v1/openapi.yaml"}, operation{http.MethodGet, "/admin/v1/docs"},
		operation{http.MethodGet, "/admin"}, operation{http.MethodOptions, "/admin/v1/users"}, operation{http.MethodGet, "/"})
	if len(operations) < 40 {
		t.Fatalf("only %d operations were found", len(operations))
	}
	denied := map[string]http.Header{
		"no token":          nil,
		"empty":             {"Authorization": {"Bearer "}, "X-Api-Key": {""}},
		"wrong token":       {"Authorization": {"Bearer cpa_0000000000_wrong"}},
		"wrong in the key":  {"X-Api-Key": {"cpa_0000000000_wrong"}},
		"developer's key":   {"Authorization": {"Bearer " + developer}},
		"developer's key 2": {"X-Api-Key": {developer}},
		"revoked":           {"Authorization": {"Bearer " + revoked.Secret}},
		"basic":             {"Authorization": {"Basic " + token.Secret}},
		"token id":          {"Authorization": {"Bearer " + token.ID}},
		"cookie":            {"Cookie": {"token=" + token.Secret}},
	}
	var shape []byte
	for name, header := range denied {
		for _, op := range operations {
			status, body := p.raw(t, op.method, op.path, header, "")
			if status != http.StatusUnauthorized {
				t.Errorf("%s %s with %s: %d", op.method, op.path, name, status)
			}
			if shape == nil {
				shape = body
			}
			if op.method != http.MethodHead && !bytes.Equal(body, shape) {
				t.Errorf("%s %s with %s tells more than others: %s", op.method, op.path, name, body)
			}
		}
	}
	admitted := map[string]http.Header{
		"token":            {"Authorization": {"Bearer " + token.Secret}},
		"lower case":       {"Authorization": {"bearer " + token.Secret}},
		"x-api-key":        {"X-Api-Key": {token.Secret}},
		"beside a foreign": {"X-Api-Key": {"foreign"}, "Authorization": {"Bearer " + token.Secret}},
		"bootstrap":        {"Authorization": {"Bearer " + bootstrapToken}},
	}
	for name, header := range admitted {
		for _, op := range operations {
			if op.method == http.MethodDelete { // they would remove what the others need
				continue
			}
			status, body := p.raw(t, op.method, op.path, header, "")
			if status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 500 {
				t.Errorf("%s %s with %s: %d %s", op.method, op.path, name, status, body)
			}
		}
	}
	for _, op := range operations { // the socket needs none
		if op.method == http.MethodGet && strings.HasPrefix(op.path, "/admin/v1/users") {
			if _, err := p.socket.Users(t.Context(), false); err != nil {
				t.Error(err)
			}
		}
	}
}

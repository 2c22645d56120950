package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

// TestCommandsExplainThemselves holds that every command has a summary, an example that begins with its own name or the
// program's, and flags with a metavariable and a text.
func TestCommandsExplainThemselves(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Hidden {
			return
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") || len(cmd.Short) > 75 {
			t.Errorf("%s: the summary is %q", cmd.CommandPath(), cmd.Short)
		}
		if !strings.Contains(cmd.Example, "carpool ") {
			t.Errorf("%s: the example is %q", cmd.CommandPath(), cmd.Example)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			name, usage := pflag.UnquoteUsage(f)
			if usage == "" || (f.Value.Type() != "bool" && name != strings.ToUpper(name)) {
				t.Errorf("%s --%s: %s %q", cmd.CommandPath(), f.Name, name, usage)
			}
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{}))
}

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		answer      string
		yes, person bool
		ok          bool
	}{
		{"y\n", false, true, true},
		{"YES\n", false, true, true},
		{"n\n", false, true, false},
		{"\n", false, true, false},
		{"", false, true, false},
		{"", true, true, true},
		{"", true, false, true},
		{"", false, false, false},
	} {
		var asked bytes.Buffer
		cmd := &cobra.Command{Use: "remove NAME"}
		cmd.SetContext(t.Context())
		a := &app{stdin: strings.NewReader(c.answer), stderr: &asked, interactive: c.person}
		err := a.confirm(cmd, c.yes, "Remove user %s?", "alice")
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if wantAsked := c.person && !c.yes; wantAsked != strings.HasPrefix(asked.String(), "Remove user alice? [y/N] ") {
			t.Errorf("%+v: asked %q", c, asked.String())
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"add", "list", "show", "set", "remove", "disable"}
	for name, want := range map[string]string{
		"ad": "add", "lsit": "list", "sohw": "show", "rem": "remove", "disabel": "disable", "xyzzy": "", "": "",
		strings.Repeat("x", 1000): "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest(%.20q) = %q; want %q", name, got, want)
		}
	}
}

func TestBaseURL(t *testing.T) {
	for _, c := range []struct {
		env  []string
		data string
		want string
	}{
		{nil, "", "http://127.0.0.1:8080"},
		{[]string{"CARPOOL_NODE_ENDPOINT=https://claude.example.com"}, "", "https://claude.example.com"},
		{[]string{"CARPOOL_SERVER_PORT=9000"}, "", "http://127.0.0.1:9000"},
		{[]string{"CARPOOL_URL=https://carpool.example.com", "CARPOOL_TOKEN=x"}, "", "https://carpool.example.com"},
		{[]string{"CARPOOL_URL=https://carpool.example.com", "CARPOOL_TOKEN=x"}, "dir", "http://127.0.0.1:8080"},
	} {
		if got := (&app{env: c.env, dataDir: c.data}).baseURL(); got != c.want {
			t.Errorf("%v: %s; want %s", c.env, got, c.want)
		}
	}
}

func TestPublishedAddress(t *testing.T) {
	dir := t.TempDir()
	a := &app{dataDir: dir}
	cfg, err := a.loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	withdraw, err := publishAddress(cfg, "http://127.0.0.1:43971")
	if err != nil {
		t.Fatal(err)
	}
	if got := a.baseURL(); got != "http://127.0.0.1:43971" {
		t.Errorf("while it serves: %s", got)
	}
	if err := withdraw(); err != nil {
		t.Fatal(err)
	}
	if got := a.baseURL(); got != "http://127.0.0.1:8080" {
		t.Errorf("afterwards: %s", got)
	}
}

// TestSim serves the simulator until it is interrupted, as Ctrl-C does.
func TestSim(t *testing.T) {
	defer goleak.VerifyNone(t)
	ctx, interrupt := context.WithCancel(t.Context())
	out, printed := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"sim", "--listen", "127.0.0.1:0", "--credential", "sk-ant-one"},
			&app{stdout: printed, stderr: io.Discard, now: time.Now})
	}()
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(string(line[:n]))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", "sk-ant-one")
	req.Header.Set("Anthropic-Version", "2023-06-01")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %v", resp.Status, err)
	}
	interrupt()
	if got := <-status; got != exitOK {
		t.Errorf("exit status %d", got)
	}
}

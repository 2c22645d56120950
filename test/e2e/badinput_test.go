package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBadRequests: each gets an error in the API's shape that says what is wrong, costs nothing and reaches no upstream.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	sim := startSim(t)
	g := startServe(t, sim.url, -1)
	const messages = `"max_tokens":1,"messages":[{"role":"user","content":"x"}]`
	for name, test := range map[string]struct {
		body   string
		status int
		kind   string
	}{
		"no body":             {``, 400, "invalid_request_error"},
		"no JSON":             {`hello`, 400, "invalid_request_error"},
		"cut off":             {`{"model":"claude-opus-5-5",` + messages, 400, "invalid_request_error"},
		"an array":            {`[]`, 400, "invalid_request_error"},
		"two values":          {`{"model":"claude-opus-5-5",` + messages + `} {}`, 400, "invalid_request_error"},
		"model twice":         {`{"model":"claude-opus-5-5",` + messages + `,"model":"claude-haiku-5-5"}`, 400, "invalid_request_error"},
		"model in other case": {`{"model":"claude-opus-5-5",` + messages + `,"Model":"claude-haiku-5-5"}`, 400, "invalid_request_error"},
		"model is missing":    {`{` + messages + `}`, 400, "invalid_request_error"},
		"model is a number":   {`{"model":7,` + messages + `}`, 400, "invalid_request_error"},
		"stream is a string":  {`{"model":"claude-opus-5-5","stream":"yes",` + messages + `}`, 400, "invalid_request_error"},
		"not UTF-8":           {"{\"model\":\"claude-opus-5-5\xff\"," + messages + `}`, 400, "invalid_request_error"},
		"an escaped key":      {`{"model":"claude-opus-5-5",` + messages + `,"\u006dodel":"claude-haiku-5-5"}`, 400, "invalid_request_error"},
		"too large":           {`{"model":"claude-opus-5-5","x":"` + strings.Repeat("x", 33<<20) + `",` + messages + `}`, 413, "request_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			r := g.raw(t, []byte(test.body))
			kind, message := apiError(t, r)
			if r.status != test.status || kind != test.kind || message == "" {
				t.Errorf("status %d, %s: %s", r.status, kind, message)
			}
		})
	}
	if list := sim.requests(0); len(list) != 0 {
		t.Errorf("%d bad requests reached the upstream", len(list))
	}
}

// TestBadStart: what keeps a server from starting is told in one line that names it.
func TestBadStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config, resources, database string
		want                        []string
	}{
		"unknown key":         {config: "server: {prot: 8080}", want: []string{"carpool.yml", "prot", "port"}},
		"no YAML":             {config: "server: [", want: []string{"carpool.yml"}},
		"a wrong type":        {config: "server: {port: many}", want: []string{"port"}},
		"no such zone":        {config: "timeZone: Mars/Olympus", want: []string{"timeZone", "Mars/Olympus"}},
		"no resources":        {config: "resources: nowhere.yml", want: []string{"nowhere.yml"}},
		"missing variable":    {resources: "upstreams:\n  - {name: main, apiKeyEnv: E2E_NOT_SET}\n", want: []string{"E2E_NOT_SET"}},
		"unknown upstream":    {resources: "routes:\n  - {name: r, upstreams: [nowhere]}\n", want: []string{"nowhere"}},
		"unreadable database": {database: "this is not a database, but long enough to look like a file of some kind\n", want: []string{"node.db"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := test.config + "\ndataDir: data\n"
			if !strings.Contains(config, "server:") {
				config += "server: {host: 127.0.0.1, port: 0}\nmetrics: {listen: main}\n"
			}
			if test.resources != "" {
				config += "resources: resources.yml\n"
				write(t, filepath.Join(dir, "resources.yml"), test.resources)
			}
			if test.database != "" {
				write(t, filepath.Join(dir, "data", "node.db"), strings.Repeat(test.database, 100))
			}
			write(t, filepath.Join(dir, "carpool.yml"), config)
			r := runProgram(t, callPatience, dir, plainEnv(dir), nil, binary, "serve", "--config", "carpool.yml")
			if r.code == 0 || r.stdout != "" {
				t.Errorf("exit status %d, standard output %q", r.code, r.stdout)
			}
			var said []string
			for _, line := range nonEmptyLines(r.stderr) {
				if strings.HasPrefix(line, "carpool: ") {
					said = append(said, line)
				}
			}
			if len(said) != 1 {
				t.Errorf("%d lines of complaint:\n%s", len(said), r.stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(strings.Join(said, "\n"), want) {
					t.Errorf("the complaint does not name %s:\n%s", want, r.stderr)
				}
			}
			if test.database != "" {
				if left, err := os.ReadFile(filepath.Join(dir, "data", "node.db")); err != nil || !strings.HasPrefix(string(left), test.database) {
					t.Errorf("the file was changed: %v", err)
				}
			}
		})
	}
}

// TestSampleConfigurations: the sample files of the first design are understood as they are.
func TestSampleConfigurations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"edge-node.yml", "production.json"} {
		file := filepath.Join(repository(t), "internal", "config", "testdata", name)
		r := runProgram(t, callPatience, dir, plainEnv(dir), nil, binary, "config", "check", file)
		if r.code != 0 || !strings.Contains(r.stdout, "claude-code-edge-01") {
			t.Errorf("%s: exit status %d\n%s%s", name, r.code, r.stdout, r.stderr)
		}
	}
}

// TestUnknownModel: a model that no route serves is the API's own 404, with the permitted ones in the message.
func TestUnknownModel(t *testing.T) {
	t.Parallel()
	sim, dir := startSim(t), t.TempDir()
	g := serveIn(t, dir, sim.url, -1)
	write(t, filepath.Join(dir, "only.yml"), "routes:\n  - {name: default, models: [claude-opus-5-5], upstreams: [main]}\n")
	g.must("apply", "-f", filepath.Join(dir, "only.yml"))
	r := g.messages(prompt("x"))
	if kind, message := apiError(t, r); r.status != http.StatusNotFound || kind != "not_found_error" || !strings.Contains(message, "claude-opus-5-5") {
		t.Errorf("status %d, %s: %s", r.status, kind, message)
	}
}

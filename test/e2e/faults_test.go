package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the generated tables of docs/behaviour.md")

// cell is one fault met in one way: by a stream or a plain request, on a route with one or two upstreams, of which the first
// has the fault.
type cell struct {
	fault     *fault
	id        string // also the model that is asked for, which leads to a route of its own
	stream    bool
	upstreams int
	sim       string // name of the first upstream's credential at the simulator

	got     response // to the request that met the fault
	cooling string   // why the first upstream was left alone after it; empty: it was not
	next    response // to a request afterwards, when the fault is over
	late    bool     // that came so late that an upstream may have been asked again already
}

func (c *cell) name() string {
	kind, upstreams := "plain", "one upstream"
	if c.stream {
		kind = "stream"
	}
	if c.upstreams == 2 {
		upstreams = "two upstreams"
	}
	return c.fault.name + ", " + kind + ", " + upstreams
}

func (c *cell) want() string {
	f := c.fault
	want := f.one
	if c.upstreams == 2 {
		want = f.two
	}
	if !c.stream && f.onePlain != "" {
		want = f.onePlain
		if c.upstreams == 2 {
			want = f.twoPlain
		}
	}
	return want
}

// cells is every fault in every way.
func cells() []*cell {
	var list []*cell
	for _, f := range faults() {
		for _, stream := range []bool{true, false} {
			for upstreams := 1; upstreams <= 2; upstreams++ {
				if !stream && f.streamOnly {
					continue
				}
				n := len(list) + 1
				list = append(list, &cell{fault: f, id: fmt.Sprintf("fault-%d", n), stream: stream, upstreams: upstreams, sim: fmt.Sprintf("credential-%d", n)})
			}
		}
	}
	return list
}

// slow reports whether an answer takes long by itself.
func (f *fault) slow() bool { return f.fault["delay_ms"] != nil || f.fault["stall_ms"] != nil }

// spare is the key of the credential of every second upstream, which has no fault.
const spare = "sk-ant-spare"

// faultRig is a gateway with a route for each cell, whose upstreams are known to nothing but this route.
func faultRig(t *testing.T, list []*cell) (*simulator, *gateway) {
	t.Helper()
	var args []string
	for _, c := range list {
		args = append(args, "--credential", "sk-ant-"+c.id)
	}
	sim := startSim(t, append(args, "--credential", spare)...)
	type object = map[string]any
	var upstreams, routes []object
	for _, c := range list {
		names := []string{c.id + "-first"}
		one := object{
			"name": names[0], "provider": "anthropic", "baseUrl": sim.url, "apiKey": "sk-ant-" + c.id,
			"models": object{c.id: "claude-sonnet-4-5"},
		}
		upstreams = append(upstreams, one)
		if c.upstreams == 2 {
			two := maps.Clone(one)
			two["name"], two["apiKey"], two["priority"] = c.id+"-second", spare, 1
			upstreams, names = append(upstreams, two), append(names, c.id+"-second")
		}
		routes = append(routes, object{"name": c.id, "models": []string{c.id}, "upstreams": names})
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "resources.json"), mustJSON(object{
		"upstreams": upstreams, "routes": routes,
		"users": []object{{"name": "alice"}}, "keys": []object{{"name": "alice-laptop", "user": "alice", "key": newKey("alice"), "limits": object{"inFlight": 0}}},
	}))
	write(t, filepath.Join(dir, "carpool.yml"), fmt.Sprintf(`server: {host: 127.0.0.1, port: 0, drainTimeout: 5s}
metrics: {listen: main}
log: {format: json}
dataDir: %q
resources: resources.json
`, filepath.Join(dir, "data")))
	p := start(t, dir, plainEnv(dir), binary, "serve", "--config", "carpool.yml")
	return sim, &gateway{t: t, proc: p, data: filepath.Join(dir, "data"), key: newKey("alice"), url: p.line(p.stderr, "its address", serving)}
}

// setFaults replaces the faults of a credential.
func (s *simulator) setFaults(t testing.TB, credential string, faults ...map[string]any) {
	t.Helper()
	if faults == nil {
		faults = []map[string]any{}
	}
	if r := call(t, http.MethodPut, s.url+"/__sim/credentials/"+credential+"/faults", nil, []byte(mustJSON(faults))); r.status != http.StatusOK {
		t.Fatalf("cannot set the faults %s: %s", mustJSON(faults), r.body)
	}
}

// ask sends the cell's request. mark comes back in the books.
func (c *cell) ask(t *testing.T, g *gateway, mark string) response {
	length, most := 4, 1024
	if c.fault.long {
		length, most = 150_000/len(multibyte)+1, 64_000
	}
	body := prompt(script(map[string]any{
		"text": strings.Repeat(multibyte, length), "events": 12, "usage": map[string]any{"input_tokens": 17, "output_tokens": 29},
	}) + strings.Repeat("x", c.fault.padding))
	body["model"], body["stream"], body["max_tokens"] = c.id, c.stream, most
	header := g.header()
	header.Set("X-Client-Request-Id", c.id+"-"+mark)
	header.Set("Accept-Encoding", "gzip, deflate")
	if c.fault.patience != "" {
		header.Set("X-Stainless-Timeout", c.fault.patience)
	}
	return postMessages(t, g.url, header, []byte(mustJSON(body)))
}

// postMessages sends a Messages request, of which the answer may break off anywhere; before its header the status is 0.
func postMessages(t *testing.T, base string, header http.Header, body []byte) response {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/v1/messages", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return response{err: err}
	}
	r.Header = header
	resp, err := client().Do(r)
	if err != nil {
		return response{header: http.Header{}, err: err}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, got, err}
}

// meet lets the cell's request meet its fault, and another one come afterwards.
func (c *cell) meet(t *testing.T, sim *simulator, g *gateway) {
	sim.setFaults(t, c.sim, c.fault.fault)
	c.got = c.ask(t, g, "fault")
	answered := time.Now()
	c.cooling = g.cooling(t, c.id+"-first")
	sim.setFaults(t, c.sim)
	c.next = c.ask(t, g, "next")
	c.late = time.Since(answered) > 2*time.Second // the shortest time of being left alone is 4
}

// cooling reads from the metrics why an upstream is left alone; empty: it is not.
func (g *gateway) cooling(t *testing.T, upstream string) string {
	t.Helper()
	r := call(t, http.MethodGet, g.url+"/metrics", nil, nil)
	for _, line := range nonEmptyLines(string(r.body)) {
		if strings.HasPrefix(line, "carpool_upstream_cooling{") && strings.Contains(line, fmt.Sprintf("upstream=%q", upstream)) {
			_, cause, _ := strings.Cut(line, `cause="`)
			cause, _, _ = strings.Cut(cause, `"`)
			return cause
		}
	}
	return ""
}

// TestFaultMatrix: every fault of an upstream has the outcome that the table states, for the client, in the books, and for what
// becomes of the upstream; and docs/behaviour.md says the same.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	list := cells()
	sim, g := faultRig(t, list)
	var all sync.WaitGroup
	places := make(chan struct{}, 8) // so that what is left alone for seconds still is when the next request comes
	for _, c := range list {
		all.Go(func() {
			if !c.fault.slow() {
				places <- struct{}{}
				defer func() { <-places }()
			}
			c.meet(t, sim, g)
		})
	}
	all.Wait()

	w := witness{sent: map[string]received{}, entries: map[string]faultEntry{}}
	for _, r := range sim.requests(0) {
		w.sent[r.RequestID] = r
	}
	var books struct {
		Rows []faultEntry `json:"rows"`
	}
	g.decode(&books, "usage", "--limit", "1000") // an answer that has ended is in the books
	for _, e := range books.Rows {
		if _, twice := w.entries[e.ClientRequestID]; twice {
			t.Errorf("two entries of %s", e.ClientRequestID)
		}
		w.entries[e.ClientRequestID] = e
	}
	for _, c := range list {
		t.Run(c.name(), func(t *testing.T) {
			got, want := w.client(t, c)+" | "+w.entry(c)+" | "+w.after(c), c.want()
			if c.late {
				got, _, _ = strings.Cut(got, ", next ")
				want, _, _ = strings.Cut(want, ", next ")
			}
			if got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
				for _, line := range nonEmptyLines(g.proc.stderr.String()) {
					if strings.Contains(line, fmt.Sprintf("%q", c.id)) {
						t.Log(line)
					}
				}
			}
		})
	}
	generated(t, "faults", faultTable())
}

// witness is what the simulator and the books know of the exchanges.
type witness struct {
	sent    map[string]received   // by the simulator's request id
	entries map[string]faultEntry // by the client's request id
}

// faultEntry is what an entry says of how an exchange went.
type faultEntry struct {
	ID              string `json:"id"`
	Outcome         string `json:"outcome"`
	Status          int    `json:"status"`
	Attempts        int    `json:"attempts"`
	Upstream        string `json:"upstream"`
	Estimated       bool   `json:"estimated"`
	InputTokens     int64  `json:"inputTokens"`
	OutputTokens    int64  `json:"outputTokens"`
	ClientRequestID string `json:"clientRequestId"`
}

// from tells whose words an answer has.
func (w witness) from(r response) (who string, sent received) {
	sent, ok := w.sent[r.header.Get("Request-Id")]
	switch {
	case !ok:
		return "Carpool", sent
	case sent.Credential == fmt.Sprintf("credential-%d", len(cells())+1):
		return "second", sent
	}
	return "first", sent
}

// client describes what the client got.
func (w witness) client(t *testing.T, c *cell) string {
	t.Helper()
	r := c.got
	who, sent := w.from(r)
	body := r.body
	if r.header.Get("Content-Encoding") == "gzip" && r.err == nil {
		body = gunzip(t, body)
	}
	hints := ""
	if after := r.header.Get("Retry-After"); after != "" {
		hints += ", retry-after " + after
	}
	if notAgain(r) {
		hints += ", not to be repeated"
	}
	stream := strings.HasPrefix(r.header.Get("Content-Type"), "text/event-stream")
	switch {
	case r.status == 0:
		return "a connection that breaks off before the header"
	case r.status != http.StatusOK:
		kind, _ := apiErrorOf(response{body: body})
		if who != "Carpool" && sum(r.body) != sent.ResponseSHA256 {
			who += " but CHANGED"
		}
		return fmt.Sprintf("%d %s from %s%s", r.status, kind, who, hints)
	case r.err != nil:
		return "200 that breaks off, from " + who
	case stream && bytes.Contains(body, []byte("event: error\n")):
		_, event, _ := bytes.Cut(body, []byte("event: error\n"))
		_, data, _ := bytes.Cut(event, []byte("data: "))
		kind, _ := apiErrorOf(response{body: bytes.TrimSpace(data)})
		return fmt.Sprintf("200 that ends with the event %s, from %s", kind, who)
	case stream && !bytes.Contains(body, []byte("event: message_stop\n")):
		return "200 without `message_stop`, as it came from " + who
	case !stream && !json.Valid(body):
		return "200 INCOMPLETE, from " + who
	}
	ping := []byte("event: ping\ndata: {\"type\": \"ping\"}\n\n")
	kept := bytes.ReplaceAll(r.body, ping, nil)
	switch {
	case len(kept) < len(r.body) && who == "Carpool": // the header was sent before there was an answer to name
		return "200 whole, after an early header and a ping"
	case sum(kept) != sent.ResponseSHA256:
		return "200 whole but CHANGED, from " + who
	case len(kept) < len(r.body):
		return "200 whole with a ping added, from " + who
	}
	return "200 whole from " + who
}

// notAgain reports whether an answer tells the client not to repeat the request.
func notAgain(r response) bool { return r.header.Get("X-Should-Retry") == "false" }

func gunzip(t *testing.T, body []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Error(err)
	}
	return plain
}

// apiErrorOf reads an error in the API's envelope; what is none is named so.
func apiErrorOf(r response) (kind, message string) {
	var e struct {
		Type  string                         `json:"type"`
		Error struct{ Type, Message string } `json:"error"`
	}
	if json.Unmarshal(r.body, &e) != nil || e.Type != "error" {
		return "NO API ERROR", ""
	}
	return e.Error.Type, e.Error.Message
}

// entry describes what the books say.
func (w witness) entry(c *cell) string {
	e, ok := w.entries[c.id+"-fault"]
	if !ok {
		return "NO ENTRY"
	}
	text := fmt.Sprintf("%s %d, %d", e.Outcome, e.Status, e.Attempts)
	if who, ok := strings.CutPrefix(e.Upstream, c.id+"-"); ok {
		text += " " + who
	}
	switch {
	case e.Estimated:
		text += ", estimated"
	case e.Outcome == "finished" && c.fault.fault["early"] == nil && (e.InputTokens < 17 || e.OutputTokens != 29):
		text += fmt.Sprintf(", WRONG: %d and %d tokens", e.InputTokens, e.OutputTokens)
	case e.Outcome != "finished" && e.InputTokens+e.OutputTokens > 0:
		text += ", counted"
	}
	return text
}

// after describes what became of the first upstream.
func (w witness) after(c *cell) string {
	state := "in use"
	if c.cooling != "" {
		state = "left alone: " + c.cooling
	}
	if c.next.status != http.StatusOK {
		kind, _ := apiErrorOf(c.next)
		if notAgain(c.next) {
			kind += ", not to be repeated"
		}
		return fmt.Sprintf("%s, next %d %s", state, c.next.status, kind)
	}
	who, _ := w.from(c.next)
	return state + ", next " + who
}

// generated compares a part of docs/behaviour.md with what it should be, or writes it.
func generated(t *testing.T, part, table string) {
	t.Helper()
	path := filepath.Join(repository(t), "docs", "behaviour.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	between := regexp.MustCompile(`(?s)(<!-- generated: ` + part + ` -->\n).*?(<!-- end -->)`)
	if !between.Match(page) {
		t.Fatalf("%s has no part %q", path, part)
	}
	next := between.ReplaceAll(page, []byte("${1}\n"+strings.ReplaceAll(table, "$", "$$")+"\n${2}"))
	switch {
	case bytes.Equal(page, next):
	case *update:
		write(t, path, string(next))
		if err := os.Chmod(path, 0o644); err != nil {
			t.Error(err)
		}
	default:
		t.Errorf("%s is not what its tests say; go test ./test/e2e -run %s -update writes it\n%s", path, t.Name(), changed(string(page), string(next)))
	}
}

// changed are the lines that one text has and the other has not.
func changed(before, after string) string {
	var b strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			_, _ = fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			_, _ = fmt.Fprintf(&b, "+ %s\n", line)
		}
	}
	return b.String()
}

// faultTable is the table for operators, made of what the tests hold.
func faultTable() string {
	var b strings.Builder
	row := func(cells ...string) { _, _ = fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row("The upstream", "Request", "Alone: the client gets", "Entry", "With a second: the client gets", "Entry", "The upstream afterwards")
	row(slices.Repeat([]string{"---"}, 7)...)
	for _, f := range faults() {
		kinds := "stream, plain"
		switch {
		case f.streamOnly:
			kinds = "stream"
		case f.onePlain != "":
			row(faultRow(f.name, "stream", f.one, f.two)...)
			row(faultRow("", "plain", f.onePlain, f.twoPlain)...)
			continue
		}
		row(faultRow(f.name, kinds, f.one, f.two)...)
	}
	return b.String()
}

func faultRow(name, kinds, one, two string) []string {
	first, second := strings.Split(one, " | "), strings.Split(two, " | ")
	state, next, _ := strings.Cut(first[2], ", next ")
	switch {
	case state == "in use":
		state = "goes on as before"
	case next == "first":
		state += "; asked when there is no other"
	default:
		state += "; not asked (" + next + ")"
	}
	return []string{name, kinds, first[0], first[1], second[0], second[1], state}
}

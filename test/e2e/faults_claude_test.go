package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// cliFault is a fault under the real CLI.
type cliFault struct {
	name  string
	fault object
	alone bool // a second upstream is of no use: the request itself is refused, or the answer has begun

	// either are outcomes between which version 1.0.59 wavers: an error event is final for it, unless the end of the stream is
	// read with it; then it asks again.
	either []string
}

func cliFaults() []cliFault {
	return []cliFault{
		{name: "400", fault: object{"status": 400, "message": "messages: something is wrong"}, alone: true},
		{name: "401", fault: object{"status": 401}},
		{name: "403", fault: object{"status": 403}},
		{name: "404", fault: object{"status": 404}},
		{name: "429, `retry-after: 2`", fault: object{"status": 429, "headers": object{"retry-after": "2"}}},
		{name: "529", fault: object{"status": 529}},
		{name: "502, a page of HTML", fault: object{"status": 502, "body": "html"}},
		{name: "resets the connection before the header", fault: object{"cut": "drop_reset"}},
		{name: "200, empty", fault: object{"status": 200, "body": "empty"}},
		{name: "200, begins with `event: error`, once", fault: object{"cut": "error", "times": 1}},
		{name: "200, `event: error` mid-stream, once", fault: object{"cut": "error", "at_event": 8, "times": 1}, alone: true, either: []string{
			"`Execution error` (exit 0, at once)", "the answer (exit 0, at once, 2 requests)",
		}},
		{name: "200, cut off after 300 bytes", fault: object{"cut": "abort", "at_byte": 300}},
		{name: "200, reset mid-stream", fault: object{"cut": "reset", "at_event": 8}},
		{name: "200, ended mid-stream", fault: object{"cut": "clean", "at_event": 8}},
	}
}

// cliRun is a CLI that meets a fault, on one of the ways to the upstream.
type cliRun struct {
	fault   cliFault
	version string
	way     int // index in ways
	user    string
	sim     string // the name of the credential that has the fault

	shown    string
	code     int
	requests int
	elapsed  time.Duration
}

const (
	direct = iota
	withOne
	withTwo
)

func cliRuns() []*cliRun {
	var list []*cliRun
	for _, f := range cliFaults() {
		for _, version := range claudeVersions() {
			for way := direct; way <= withTwo; way++ {
				n := len(list) + 1
				list = append(list, &cliRun{fault: f, version: version, way: way, user: fmt.Sprintf("user-%d", n), sim: fmt.Sprintf("credential-%d", n)})
			}
		}
	}
	return list
}

func (r *cliRun) name() string {
	return r.fault.name + ", " + r.version + ", " + []string{"direct", "one upstream", "two upstreams"}[r.way]
}

// cliRig is a gateway with a user for each run, who has a route of his own.
func cliRig(t *testing.T, list []*cliRun) (*simulator, *gateway) {
	t.Helper()
	var args []string
	for _, r := range list {
		args = append(args, "--credential", "sk-ant-"+r.user)
	}
	sim := startSim(t, append(args, "--credential", spare)...)
	upstreams := []object{{"name": "spare", "provider": "anthropic", "baseUrl": sim.url, "apiKey": spare, "priority": 1}}
	var routes, users, keys []object
	for _, r := range list {
		upstreams = append(upstreams, object{"name": r.user, "provider": "anthropic", "baseUrl": sim.url, "apiKey": "sk-ant-" + r.user})
		names := []string{r.user}
		if r.way == withTwo {
			names = append(names, "spare")
		}
		routes = append(routes, object{"name": r.user, "upstreams": names, "users": []string{r.user}})
		users = append(users, object{"name": r.user})
		keys = append(keys, object{"name": r.user, "user": r.user, "key": newKey(r.user)})
		sim.setFaults(t, r.sim, r.fault.fault)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "resources.json"), mustJSON(object{"upstreams": upstreams, "routes": routes, "users": users, "keys": keys}))
	write(t, filepath.Join(dir, "carpool.yml"), fmt.Sprintf(`server: {host: 127.0.0.1, port: 0, drainTimeout: 5s}
metrics: {listen: main}
log: {format: json}
dataDir: %q
resources: resources.json
`, filepath.Join(dir, "data")))
	p := start(t, dir, plainEnv(dir), binary, "serve", "--config", "carpool.yml")
	return sim, &gateway{t: t, proc: p, data: filepath.Join(dir, "data"), url: p.line(p.stderr, "its address", serving)}
}

// wellDone is what the CLI prints when all went well.
const wellDone = "This is the whole answer, to its last word."

// TestClaudeUnderFaults: a CLI behind Carpool is never worse off than one that talks to the same upstream directly, and well off
// where a second upstream could help; docs/behaviour.md says what it prints.
func TestClaudeUnderFaults(t *testing.T) {
	t.Parallel()
	list := cliRuns()
	sim, g := cliRig(t, list)
	begun := time.Now()
	var all sync.WaitGroup
	for _, r := range list {
		all.Go(func() {
			c := claude{
				version: r.version, url: g.url, token: newKey(r.user), prompt: script(object{"text": wellDone, "events": 12}), text: true,
				env: []string{quiet, "CLAUDE_CODE_MAX_RETRIES=2"}, // the default of ten takes three minutes
			}
			if r.way == direct {
				c.url, c.token = sim.url, "sk-ant-"+r.user
			}
			s := c.run(t)
			r.shown, r.code, r.elapsed = shownBy(s), s.code, s.elapsed
		})
	}
	all.Wait()
	t.Logf("%d runs in %v", len(list), time.Since(begun).Round(time.Second))

	requests := map[string]int{}
	for _, e := range g.books().Rows {
		requests[e.User]++
	}
	for _, r := range sim.requests(0) {
		if r.Method == http.MethodPost && strings.HasPrefix(r.Path, "/v1/messages") {
			requests[r.Credential]++
		}
	}
	for _, r := range list {
		r.requests = requests[r.user]
		if r.way == direct {
			r.requests = requests[r.sim]
		}
		t.Logf("%s: exit %d, %d requests, %v: %s", r.name(), r.code, r.requests, r.elapsed.Round(100*time.Millisecond), r.shown)
	}
	for three := range slices.Chunk(list, withTwo+1) {
		notWorse(t, three)
	}
	generated(t, "claude", claudeTable(list))
}

// notWorse compares the three ways to meet one fault with one version.
func notWorse(t *testing.T, three []*cliRun) {
	t.Helper()
	one, two := three[withOne], three[withTwo]
	well := func(r *cliRun) bool { return r.code == 0 && strings.Contains(r.shown, wellDone) }
	if d := three[direct]; well(d) && !well(one) && !one.wavers() || one.code > d.code || class(one.elapsed) > class(d.elapsed) {
		t.Errorf("%s is worse than direct: exit %d, %d requests, %v: %s", one.name(), one.code, one.requests, one.elapsed, one.shown)
	}
	if !well(two) && !one.fault.alone {
		t.Errorf("%s: exit %d, %d requests: %s", two.name(), two.code, two.requests, two.shown)
	}
	if two.code > one.code || class(two.elapsed) > class(one.elapsed) {
		t.Errorf("%s is worse than with one", two.name())
	}
}

// durationClass is how long something takes for a person.
type durationClass int

func class(d time.Duration) durationClass {
	switch {
	case d < 45*time.Second: // an idle machine takes a tenth of it, this one may be busy
		return 0
	case d < 90*time.Second:
		return 1
	}
	return 2
}

func (c durationClass) String() string { return []string{"at once", "seconds", "minutes"}[c] }

// shownBy is what a person sees, without what differs from run to run.
func shownBy(s session) string {
	text := strings.Join(strings.Fields(s.stdout+" "+s.stderr), " ")
	for pattern, with := range map[string]string{
		`127\.0\.0\.1:\d+`: "gateway.example.com", `req_[0-9A-Za-z]+|[0-9a-f]{8}-[0-9a-f-]{27}`: "…",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	return text
}

func claudeTable(list []*cliRun) string {
	var b strings.Builder
	row := func(cells ...string) { _, _ = fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row("The upstream", "CLI", "Direct", "Through Carpool, alone", "Through Carpool, with a second")
	row(slices.Repeat([]string{"---"}, 5)...)
	for three := range slices.Chunk(list, withTwo+1) {
		cells := []string{three[0].fault.name, three[0].version}
		if three[0].version != claudeVersions()[0] {
			cells[0] = ""
		}
		for _, r := range three {
			cell := r.describe()
			if r.wavers() {
				cell = strings.Join(r.fault.either, ", or ")
			}
			cells = append(cells, cell)
		}
		row(cells...)
	}
	return b.String()
}

// wavers reports whether the run ended in one of several ways that are all as they should be.
func (r *cliRun) wavers() bool {
	return r.version == claudeOld && slices.Contains(r.fault.either, r.describe())
}

func (r *cliRun) describe() string {
	text := "the answer"
	if !strings.HasPrefix(r.shown, wellDone) {
		const most = 160
		text = strings.ReplaceAll(r.shown, "|", `\|`)
		if letters := []rune(text); len(letters) > most {
			text = string(letters[:most]) + "…"
		}
		text = "`" + text + "`"
		if r.shown == "" {
			text = "nothing"
		}
	}
	times := ""
	switch {
	case r.requests == 2:
		times = ", 2 requests"
	case r.requests > 2:
		times = ", 3 or more requests"
	}
	return fmt.Sprintf("%s (exit %d, %s%s)", text, r.code, class(r.elapsed), times)
}

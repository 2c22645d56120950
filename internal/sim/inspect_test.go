package sim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"carpool/internal/sim"
)

func TestRecords(t *testing.T) {
	g := newRig(t, sim.Options{Keep: 3})
	body := prompt("x", streaming)
	res := g.must("POST", "/v1/messages?beta=true", body, "X-Novel", "1")
	g.must("GET", "/v1/nothing", "")
	g.until(func(c sim.Counters) bool { return c.Finished == 2 })
	var got struct {
		Requests []sim.Request `json:"requests"`
	}
	if err := json.Unmarshal(g.must("GET", "/__sim/requests", "", "x-api-key", "").body, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Requests) != 2 {
		t.Fatalf("got %+v", got)
	}
	r := got.Requests[0]
	sent, answered := sha256.Sum256([]byte(body)), sha256.Sum256(res.body)
	if r.Seq != 1 || r.Method != "POST" || r.Path != "/v1/messages" || r.Query != "beta=true" || r.Credential != "credential-1" ||
		r.BodyBytes != int64(len(body)) || r.BodySHA256 != hex.EncodeToString(sent[:]) || r.Model != "claude-sonnet-4-5" || !r.Stream ||
		!r.Finished || r.Status != 200 || r.ResponseSHA256 != hex.EncodeToString(answered[:]) || r.RequestID != res.header.Get("Request-Id") ||
		r.Header["X-Novel"][0] != "1" || r.Header["X-Api-Key"][0] != "credential-1" || r.ClientGone || !strings.Contains(string(r.Usage), "output_tokens") {
		t.Errorf("got %+v", r)
	}
	if strings.Contains(asJSON(t, got), sim.DefaultKey) {
		t.Error("the key is in the records")
	}
	c := g.sim.Counters()
	if c.ByPath["POST /v1/messages"] != 1 || c.ByPath["other"] != 1 || c.ByStatus[404] != 1 || c.ByCredential["credential-1"]["200"] != 1 ||
		c.BodyBytes != int64(len(body)) {
		t.Errorf("got %+v", c)
	}
	for range 5 {
		g.message(prompt("x"))
	}
	if list := g.sim.Requests(0); len(list) != 3 || list[2].Seq != 7 {
		t.Errorf("kept %d", len(list))
	}
	if list := g.sim.Requests(6); len(list) != 1 {
		t.Errorf("since 6: %d", len(list))
	}
	g.until(func(c sim.Counters) bool { return c.InFlight == 0 })
	if res := g.must("POST", "/__sim/reset", ""); res.status != 200 || g.sim.Counters().Requests != 0 || len(g.sim.Requests(0)) != 0 {
		t.Errorf("after the reset: %s", res.body)
	}
}

// A field need not be UTF-8; the record is JSON all the same.
func TestRecordsOfAnyBytes(t *testing.T) {
	g := newRig(t, sim.Options{})
	g.must("GET", "/v1/models", "", "X-Odd", "caf\xe9")
	var got struct {
		Requests []sim.Request `json:"requests"`
	}
	body := g.must("GET", "/__sim/requests", "").body
	if err := json.Unmarshal(body, &got); err != nil || len(got.Requests) != 1 || got.Requests[0].Header["X-Odd"][0] != "caf\uFFFD" {
		t.Errorf("%s: %v", body, err)
	}
}

func TestInspectionEndpoint(t *testing.T) {
	g := newRig(t, sim.Options{})
	if res := g.must("GET", "/__sim/", ""); string(res.body) != sim.Usage {
		t.Errorf("usage: %s", res.body)
	}
	res := g.must("PUT", "/__sim/credentials/credential-1/faults", `[{"status":529,"times":1}]`)
	if res.status != 200 || !strings.Contains(string(res.body), `"faults":[{"status":529,"times":1}]`) {
		t.Errorf("put: %d %s", res.status, res.body)
	}
	if got := []int{g.must("POST", "/v1/messages", prompt("x")).status, g.must("POST", "/v1/messages", prompt("x")).status}; fmt.Sprint(got) != "[529 200]" {
		t.Errorf("got %v", got)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"PUT", "/__sim/credentials/nobody/faults", `[]`, 404},
		{"PUT", "/__sim/credentials/credential-1/faults", `[{"satus":1}]`, 400},
		{"PUT", "/__sim/credentials/credential-1/faults", `[{"status":7}]`, 400},
		{"PUT", "/__sim/credentials/credential-1/faults", `{`, 400},
		{"GET", "/__sim/requests?since=x", ``, 400},
		{"GET", "/__sim/wait?finished=2", ``, 200},
		{"GET", "/__sim/wait?held=1&timeout_ms=1", ``, 408},
		{"POST", "/__sim/release?n=-1", ``, 400},
		{"GET", "/__sim/nothing", ``, 404},
		{"GET", "/__sim/credentials", ``, 200},
	} {
		if res := g.must(c.method, c.path, c.body); res.status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, res.status, res.body)
		}
	}
	if got := g.sim.Counters().Requests; got != 2 {
		t.Errorf("inspection was counted: %d", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, list := range map[string][]sim.Credential{
		"no key":    {{Name: "a"}},
		"same key":  {{Key: "k"}, {Key: "k"}},
		"same name": {{Name: "a", Key: "k"}, {Name: "a", Key: "l"}},
		"fault":     {{Key: "k", Faults: []sim.Fault{{Encoding: "zip"}}}},
	} {
		if _, err := sim.New(sim.Options{Credentials: list}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestParallel(t *testing.T) {
	g := newRig(t, sim.Options{})
	const n = 40
	errs := make(chan error, n)
	for i := range n {
		go func() {
			res, err := g.do(http.MethodPost, "/v1/messages", prompt(fmt.Sprintf("[[sim \"answer %d\"]]", i), streaming))
			if err == nil && !strings.Contains(string(res.body), fmt.Sprint("answer ", i)) {
				err = fmt.Errorf("got %s", res.body)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	g.until(func(c sim.Counters) bool { return c.Finished == n && c.InFlight == 0 })
	ids := map[string]bool{}
	for _, r := range g.sim.Requests(0) {
		ids[r.RequestID] = true
	}
	if len(ids) != n {
		t.Errorf("%d request ids", len(ids))
	}
}

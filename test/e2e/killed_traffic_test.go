package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// rate is how often a request comes.
const rate = 200 // a second

// kind is a kind of request in the mix.
type kind struct {
	name   string
	weight int
	stream bool
	step   object // what the simulator does
	long   bool   // the cached part of the prompt lives for an hour
	counts bool   // tokens, instead of asking for an answer

	// When the client goes away: after so many events, or after that time.
	events int
	after  time.Duration
}

// kinds are what clients do: answers of all lengths and speeds, and ends that are none.
func kinds() []kind {
	text := strings.Repeat("four", 12)
	slow := object{"text": text, "events": 40, "every_ms": 40}
	return []kind{
		{name: "message", weight: 25, step: object{"text": text}},
		{name: "late message", weight: 10, step: object{"text": text, "delay_ms": 300}, long: true},
		{name: "stream", weight: 22, stream: true, step: object{"text": text, "events": 10}},
		{name: "thoughtful stream", weight: 8, stream: true, step: object{"text": text, "think": text, "events": 20, "every_ms": 10}, long: true},
		{name: "slow stream", weight: 18, stream: true, step: slow},
		{name: "left amid a stream", weight: 4, stream: true, step: slow, events: 8},
		{name: "left before an answer", weight: 3, step: object{"text": text, "delay_ms": 400}, after: 100 * time.Millisecond},
		{name: "cut by the upstream", weight: 4, stream: true, step: object{"text": text, "events": 12, "cut": "abort", "at_event": 6}},
		{name: "refused by the upstream", weight: 2, step: object{"status": 400}},
		{name: "count", weight: 4, counts: true},
	}
}

// request is one that a client has sent.
type request struct {
	kind, user, model string

	status   int
	complete bool   // the client saw the whole answer
	refusal  string // type of the error that the client saw
}

// traffic is clients that send requests, whatever becomes of the ones before.
type traffic struct {
	t      testing.TB
	g      *gateway
	client *http.Client
	prefix string // of the requests' ids
	mix    []kind // each as often as it weighs

	clients sync.WaitGroup
	mu      sync.Mutex
	sent    map[string]*request // by the id that the client gave it
}

// startTraffic has clients send requests for as long as ctx lasts.
func startTraffic(ctx context.Context, t testing.TB, g *gateway, prefix string) *traffic {
	transport := &http.Transport{MaxIdleConnsPerHost: rate, DisableCompression: true}
	l := &traffic{t: t, g: g, client: &http.Client{Transport: transport, Timeout: callPatience}, prefix: prefix, sent: map[string]*request{}}
	for _, k := range kinds() {
		for range k.weight {
			l.mix = append(l.mix, k)
		}
	}
	l.clients.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			l.clients.Go(func() { l.ask(n) })
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return l
}

// end waits for all clients, and returns what they sent.
func (l *traffic) end() map[string]*request {
	l.clients.Wait()
	l.client.CloseIdleConnections()
	return l.sent
}

// ask sends a request and reads what comes.
func (l *traffic) ask(n int) {
	k := &l.mix[rand.IntN(len(l.mix))]
	who := &drivers()[rand.IntN(len(drivers()))]
	models := []string{"claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-5"}
	q, id := &request{kind: k.name, user: who.name, model: models[rand.IntN(len(models))]}, fmt.Sprintf("%s-%d", l.prefix, n)
	l.mu.Lock()
	l.sent[id] = q
	l.mu.Unlock()

	ctx, leave := context.WithCancel(context.Background())
	if k.after > 0 {
		ctx, leave = context.WithTimeout(context.Background(), k.after)
	}
	defer leave()
	path := "/v1/messages"
	if k.counts {
		path += "/count_tokens"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.g.url+path, strings.NewReader(k.body(q.model, n)))
	if err != nil {
		l.t.Error(err)
		return
	}
	r.Header = l.g.header()
	r.Header.Set("X-Api-Key", newKey(who.name))
	r.Header.Set("X-Client-Request-Id", id)
	resp, err := l.client.Do(r)
	if err != nil {
		return // it left, or the server died
	}
	defer resp.Body.Close()
	q.status = resp.StatusCode
	if k.stream && q.status == http.StatusOK {
		q.complete = readStream(resp.Body, k.events)
		return
	}
	body, err := io.ReadAll(resp.Body)
	var answer struct {
		Error struct{ Type string }
	}
	if err == nil && json.Unmarshal(body, &answer) == nil {
		q.complete, q.refusal = q.status == http.StatusOK, answer.Error.Type
	}
}

// readStream reads events up to the last one, or to the one after which the client leaves, and reports whether it saw the last.
func readStream(body io.Reader, leaveAfter int) bool {
	lines, events := bufio.NewScanner(body), 0
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("data: ")) {
			events++
		}
		switch {
		case lines.Text() == "event: message_stop":
			return true
		case leaveAfter > 0 && events == leaveAfter:
			return false
		}
	}
	return false
}

// body is a request of which all but the last message is cached, and was cached by an earlier one as likely as not.
func (k *kind) body(model string, n int) string {
	cache := object{"type": "ephemeral"}
	if k.long {
		cache["ttl"] = "1h"
	}
	instructions := fmt.Sprintf("Instructions %d. ", rand.IntN(200)) + strings.Repeat("Drive carefully. ", 50+n%100)
	said := fmt.Sprintf("Request %d: ", n) + strings.Repeat("please ", n%50)
	body := object{
		"model":    model,
		"system":   []any{object{"type": "text", "text": instructions, "cache_control": cache}},
		"messages": []any{object{"role": "user", "content": said + script(k.step)}},
	}
	if k.counts {
		body["messages"] = []any{object{"role": "user", "content": said}}
		return mustJSON(body)
	}
	body["max_tokens"], body["stream"] = 256, k.stream
	return mustJSON(body)
}

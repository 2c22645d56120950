package upstream

import (
	"testing"
	"time"
)

// TestAProbeThatFailsDifferently: the request that tries an upstream again ends its turn whatever comes of it, even when its
// failure is about something else than what the upstream was left alone for. Otherwise nobody would ever ask again.
func TestAProbeThatFailsDifferently(t *testing.T) {
	for first, failures := range map[string][2]int{"of the model, then the upstream": {529, 500}, "of the model, then a capability": {529, 501}, "of the upstream, then the model": {401, 529}} {
		t.Run(first, func(t *testing.T) {
			l := newLab(t, "a")
			l.fakes["a"].set(status(failures[0], "error"))
			l.do("")
			l.advance(time.Hour)
			l.fakes["a"].set(status(failures[1], "error"))
			l.do("")
			l.advance(time.Hour)
			l.fakes["a"].set(success)
			l.served("a", "")
		})
	}
}

// TestWhenToComeBack: of several upstreams at their limit the client is told the one that is ready first, and a long wait is not
// made to look short.
func TestWhenToComeBack(t *testing.T) {
	l := newLab(t, "a", "b")
	l.fakes["a"].set(status(429, "rate_limit_error", "Retry-After: 200"))
	l.fakes["b"].set(status(429, "rate_limit_error", "Retry-After: 100"))
	after := func(r Result) string {
		if own := r.Failure.Own; own != nil {
			for _, f := range own.Header {
				if f.Name == "retry-after" {
					return f.Value
				}
			}
		}
		return r.Failure.Head.Get("Retry-After")
	}
	r, _ := l.do("")
	if got := after(r); got != "100" {
		t.Errorf("both asked: retry-after %q", got)
	}
	l.advance(10 * time.Second)
	r, _ = l.do("")
	if got := after(r); got != "90" || l.asked("a") != 1 || l.asked("b") != 1 {
		t.Errorf("left alone: retry-after %q", got)
	}
	l.advance(60 * time.Second)
	r, _ = l.do("")
	if got := after(r); got != "30" {
		t.Errorf("later: retry-after %q", got)
	}

	l = newLab(t, "a", "b")
	l.fakes["a"].set(status(401, "authentication_error"))
	l.fakes["b"].set(status(429, "rate_limit_error", "Retry-After: 200"))
	l.do("")
	if r, _ = l.do(""); r.Failure.Status != 429 {
		t.Errorf("with a rejected credential beside it: status %d", r.Failure.Status)
	}
}

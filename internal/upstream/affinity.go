package upstream

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// AffinityTTL is how long a session stays bound to its upstream without a request: no prompt cache lives longer.
const AffinityTTL = time.Hour

// affinityMost bounds the sessions that are remembered.
const affinityMost = 100_000

// affinity remembers which upstream serves a session, because prompt caches belong to an organisation and are lost when a
// session moves.
type affinity struct {
	mu       sync.Mutex
	sessions map[affinityKey]binding
	swept    time.Time
}

type binding struct {
	upstream string
	used     time.Time
}

func newAffinity() *affinity { return &affinity{sessions: map[affinityKey]binding{}} }

// affinityKey is whose upstream it is.
type affinityKey struct{ route, session string }

// lookup returns the upstream of a session, or "".
func (a *affinity) lookup(route, session string, now time.Time) string {
	if session == "" {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.sessions[affinityKey{route, session}]
	if !ok || now.Sub(b.used) > AffinityTTL {
		return ""
	}
	return b.upstream
}

// bind notes which upstream served a session.
func (a *affinity) bind(route, session, upstream string, now time.Time) {
	if session == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	key := affinityKey{route, session}
	if _, known := a.sessions[key]; !known {
		key.session = strings.Clone(session) // it is a part of the request's head, which must not stay for its sake
	}
	a.sessions[key] = binding{upstream, now}
	if len(a.sessions) > affinityMost || now.Sub(a.swept) > AffinityTTL {
		a.sweep(now, key)
	}
}

// unbind forgets a session if it is bound to this upstream.
func (a *affinity) unbind(route, session, upstream string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if key := (affinityKey{route, session}); a.sessions[key].upstream == upstream {
		delete(a.sessions, key)
	}
}

// sweep forgets sessions that are over, and when there are still too many, some of the others but not keep: so many that the
// next sweep is far away.
func (a *affinity) sweep(now time.Time, keep affinityKey) {
	a.swept = now
	maps.DeleteFunc(a.sessions, func(_ affinityKey, b binding) bool { return now.Sub(b.used) > AffinityTTL })
	if len(a.sessions) <= affinityMost {
		return
	}
	for key := range a.sessions {
		if len(a.sessions) <= affinityMost/10*9 {
			return
		}
		if key != keep {
			delete(a.sessions, key)
		}
	}
}

package gateway

import "sync"

// habits remember how what requests use compares with what their size alone lets expect, by user and model.
type habits struct {
	mu         sync.Mutex
	young, old map[habit]ratio // the older half of what is remembered goes when the younger one is full
}

type habit struct{ user, model string }

// ratio is what was used of what was guessed, on average over the last requests.
type ratio struct{ tokens, dollars float64 }

const (
	halfOfHabits = 4096 // about a megabyte in all
	habitWeight  = 0.2  // of the latest request
)

func newHabits() *habits { return &habits{young: map[habit]ratio{}} }

// expect corrects a guess by what is remembered.
func (h *habits) expect(of habit, guess worth) worth {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, known := h.of(of)
	if !known {
		return guess
	}
	return worth{int64(float64(guess.tokens) * r.tokens), int64(float64(guess.dollars) * r.dollars)}
}

// learn takes an ended request in. One that used nothing failed, and says nothing of the next.
func (h *habits) learn(of habit, guess, used worth) {
	if used.tokens == 0 || guess.tokens == 0 {
		return
	}
	now := ratio{float64(used.tokens) / float64(guess.tokens), 1}
	if guess.dollars > 0 {
		now.dollars = float64(used.dollars) / float64(guess.dollars)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if before, known := h.of(of); known {
		now.tokens = before.tokens + habitWeight*(now.tokens-before.tokens)
		now.dollars = before.dollars + habitWeight*(now.dollars-before.dollars)
	}
	if len(h.young) >= halfOfHabits {
		h.old, h.young = h.young, map[habit]ratio{}
	}
	h.young[of] = now
}

// of returns what is remembered; mu is held.
func (h *habits) of(of habit) (r ratio, known bool) {
	if r, known = h.young[of]; !known {
		r, known = h.old[of]
	}
	return r, known
}

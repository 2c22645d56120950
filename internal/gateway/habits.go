package gateway

import (
	"math"
	"sync"
)

// habits remember how what requests use compares with what their size alone lets expect, by user and model.
type habits struct {
	mu         sync.Mutex
	young, old map[habit]ratio // the older half of what is remembered goes when the younger one is full
}

type habit struct{ user, model string }

// ratio is what was used of what was guessed, on average over the last requests. Prompts and answers have each their own: how long an answer
// is says nothing of the next prompt. A token of the output has one price, one of the prompt a dear or a cheap one.
type ratio struct{ prompt, promptDollars, output float64 }

const (
	halfOfHabits = 4096 // about a megabyte in all
	habitWeight  = 0.2  // of the latest request
)

func newHabits() *habits { return &habits{young: map[habit]ratio{}} }

// expect corrects a guess by what is remembered. Whatever that is, a request uses at most the tokens of most.
func (h *habits) expect(of habit, guess, most size) worth {
	h.mu.Lock()
	r, known := h.of(of)
	h.mu.Unlock()
	if !known {
		return guess.sum()
	}
	prompt := float64(most.prompt.tokens) / float64(guess.prompt.tokens)
	output := min(r.output, float64(most.output.tokens)/float64(guess.output.tokens))
	return size{
		worth{times(guess.prompt.tokens, min(r.prompt, prompt)), times(guess.prompt.dollars, min(r.promptDollars, prompt))},
		worth{times(guess.output.tokens, output), times(guess.output.dollars, output)},
	}.sum()
}

// times is n × by, at most what can be added up.
func times(n int64, by float64) int64 { return int64(min(math.Round(float64(n)*by), math.MaxInt64/4)) }

// learn takes an ended request in. One that used nothing failed, and says nothing of the next.
func (h *habits) learn(of habit, guess size, output int64, used worth) {
	if used.tokens == 0 || guess.prompt.tokens == 0 || guess.output.tokens == 0 {
		return
	}
	now := ratio{float64(used.tokens-output) / float64(guess.prompt.tokens), 1, float64(output) / float64(guess.output.tokens)}
	if guess.prompt.dollars > 0 {
		now.promptDollars = max(float64(used.dollars)-float64(guess.output.dollars)*now.output, 0) / float64(guess.prompt.dollars)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if before, known := h.of(of); known {
		now = before.towards(now)
	}
	h.keep(of, now)
}

// refused takes in that a request was refused because of what it was expected to use. Nothing would be learnt from it otherwise: an unusually
// long answer would keep its user out until the window ends.
func (h *habits) refused(of habit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, known := h.of(of); known {
		h.keep(of, r.towards(ratio{min(r.prompt, 1), min(r.promptDollars, 1), min(r.output, 1)}))
	}
}

func (r ratio) towards(now ratio) ratio {
	return ratio{
		r.prompt + habitWeight*(now.prompt-r.prompt),
		r.promptDollars + habitWeight*(now.promptDollars-r.promptDollars),
		r.output + habitWeight*(now.output-r.output),
	}
}

// keep remembers; mu is held.
func (h *habits) keep(of habit, r ratio) {
	if len(h.young) >= halfOfHabits {
		h.old, h.young = h.young, map[habit]ratio{}
	}
	h.young[of] = r
}

// of returns what is remembered; mu is held.
func (h *habits) of(of habit) (r ratio, known bool) {
	if r, known = h.young[of]; !known {
		r, known = h.old[of]
	}
	return r, known
}

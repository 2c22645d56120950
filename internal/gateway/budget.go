package gateway

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/price"
	"carpool/internal/quota"
	"carpool/internal/wire"
)

// spending is what an exchange with budgets knows of them: what it was expected to use.
type spending struct {
	guess  size
	prompt int64 // tokens that the prompt has at most; 0: no budget is strict
}

// worth is what a request uses, or may use.
type worth struct{ tokens, dollars int64 } // all classes; micro-dollars

// size is what a request uses, or may use, divided into what it sends and what it gets.
type size struct{ prompt, output worth }

func (s size) sum() worth {
	return worth{quota.Add(s.prompt.tokens, s.output.tokens), quota.Add(s.prompt.dollars, s.output.dollars)}
}

func (w worth) in(unit policy.Unit) int64 {
	if unit == policy.Dollars {
		return w.dollars
	}
	return w.tokens
}

// addedPrompt is about the most that the API adds to a prompt by itself, in tokens.
const addedPrompt = 4096

// maxOutput is how many tokens an answer has at most. Without max_tokens, which the API refuses, it is what the largest models can write.
func (x *exchange) maxOutput() int64 { return cmp.Or(x.peek.MaxTokens, 128_000) }

// claims returns what a request reserves of each of its caller's budgets, nil when there are none.
func (g *Gateway) claims(x *exchange, body *wire.Body) ([]ledger.Claim, error) {
	budgets := x.caller.Budgets
	if len(budgets) == 0 || x.path != pathMessages {
		return nil, nil
	}
	claims := make([]ledger.Claim, len(budgets))
	x.spending = &spending{guess: x.guess()}
	fair := g.habits.expect(x.habit(), x.spending.guess, size{
		prompt: worth{tokens: int64(x.peek.Bytes+len(x.snapshot.Settings.SystemPrompt)) + addedPrompt},
		output: worth{tokens: x.maxOutput()},
	})
	var most *worth
	for i, b := range budgets {
		expected := fair
		if b.Strict && !b.Soft {
			if most == nil {
				w, err := x.most(b.Budget, body)
				if err != nil {
					g.metrics.denials.WithLabelValues("budget_unbounded").Inc()
					return nil, err
				}
				most = &w
			}
			expected = *most
		}
		claims[i] = ledger.Claim{Account: b, Amount: expected.in(b.Unit)}
	}
	return claims, nil
}

// guess is what a request will use according to its size alone.
func (x *exchange) guess() size {
	uncached, cached := estimateInput(x.peek)
	bound := price.Bound{Prompt: uncached + cached, Fast: x.peek.Speed == "fast", ShortLife: true}
	prompt := worth{bound.Prompt, x.dearest(bound)}
	bound.Output = min(maxOutputReserve, x.maxOutput())
	return size{prompt, worth{bound.Output, x.dearest(bound) - prompt.dollars}}
}

// most is what a request can use at most. The error tells of a request whose body does not say that.
func (x *exchange) most(b *policy.Budget, body *wire.Body) (worth, error) {
	text, _ := body.Hold()
	extent := x.peek.Measure(text)
	body.Release()
	if extent.Unbounded != "" {
		return worth{}, anthropic.ErrPermission(strings.TrimSpace(fmt.Sprintf("Budget %s is strict, and nobody can say what this request will cost at most: it asks for %s. %s",
			b.Name, extent.Unbounded, x.whomToAsk(b))))
	}
	extent.Prompt += int64(len(x.snapshot.Settings.SystemPrompt))
	x.spending.prompt = extent.Prompt
	output := x.maxOutput()
	bound := price.Bound{
		Prompt: extent.Prompt, Output: output, Fast: x.peek.Speed == "fast", ShortLife: extent.ShortLife, GlobalGeo: extent.GlobalGeo,
	}
	return worth{quota.Add(extent.Prompt, output), x.dearest(bound)}, nil
}

// dearest is what a request within a bound costs at most on the upstreams that may serve it.
func (x *exchange) dearest(b price.Bound) (cost int64) {
	for _, u := range x.target.Upstreams {
		cost = max(cost, x.snapshot.Prices.UpperBound(x.request.Started, price.Request{
			Provider: price.Provider(u.Provider), Upstream: u.Name, Sent: policy.UpstreamModel(u, x.target.Model), Asked: x.peek.Model,
		}, b))
	}
	return cost
}

func (x *exchange) habit() habit { return habit{x.caller.User.Name, x.target.Model} }

// spent lets the habits learn from an exchange that has ended.
func (g *Gateway) spent(x *exchange) {
	if s := x.spending; s != nil {
		g.habits.learn(x.habit(), s.guess, quota.Clamp(x.entry.OutputTokens), worth{ledger.Spent(policy.Tokens, &x.entry), ledger.Spent(policy.Dollars, &x.entry)})
	}
}

func (x *exchange) whomToAsk(b *policy.Budget) string {
	if b.Message != "" {
		return b.Message
	}
	return x.snapshot.Settings.QuotaMessage
}

// overBudget says honestly which budget refuses, how much is left of it, and what brings more.
func (g *Gateway) overBudget(x *exchange, d *ledger.Denied) error {
	b := d.Budget
	amount := func(n int64) string { return policy.FormatAmount(n, b.Unit) }
	name := fmt.Sprintf("budget %s of %s", b.Name, d.Subject)
	switch wait := d.ResetsAt.Sub(g.now()); {
	case d.Temporary:
		g.metrics.denials.WithLabelValues("budget_busy").Inc()
		return anthropic.ErrRateLimit(fmt.Sprintf("What is left of %s, %s of %s, is held by requests that are running. Try again shortly.",
			name, amount(max(d.Limit-d.Used, 0)), amount(d.Limit)), 3)
	case wait <= time.Minute && d.Asked <= d.Limit && d.Limit > 0:
		g.metrics.denials.WithLabelValues("budget_busy").Inc()
		return anthropic.ErrRateLimit(fmt.Sprintf("Of %s, %s, %s are left; there will be more at %s.",
			name, amount(d.Limit), amount(max(d.Limit-d.Used, 0)), clockTime(d.ResetsAt)), int((wait+time.Second-1)/time.Second))
	}
	g.metrics.denials.WithLabelValues("budget").Inc()
	block := anthropic.QuotaBlock{
		Period: period(b), ResetsAt: d.ResetsAt, Now: g.now(), OperatorText: x.whomToAsk(b), Pool: b.Pool(),
		Detail: fmt.Sprintf("%s, %s: %s of %s used, %s left", name, b.Span, amount(d.Used), amount(d.Limit), amount(max(d.Limit-d.Used, 0))),
	}
	switch {
	case d.Limit > 0 && d.Asked > d.Limit:
		block.Detail += fmt.Sprintf("; this request can cost %s, more than all of it", amount(d.Asked))
		block.Never = true
	case d.Used < d.Limit:
		if !b.Strict {
			g.habits.refused(x.habit())
		}
		block.Detail += fmt.Sprintf("; this request needs up to %s", amount(d.Asked))
	}
	block.Never = block.Never || d.Limit == 0 || !d.ResetsAt.Before(never())
	return anthropic.ErrQuota(block)
}

// never is before the end of a lifetime and after every other one.
func never() time.Time { return time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC) }

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }

// period is the one of the client's words for a window that comes closest. It knows pools of a month only.
func period(b *policy.Budget) string {
	length := b.Span
	length.Rolling = true
	switch d := length.Duration(); {
	case d == 0 || b.Pool() || d > 14*24*time.Hour:
		return "monthly"
	case d > 24*time.Hour:
		return "weekly"
	}
	return "daily"
}

// tell puts into the head of an answer how full the fullest of the caller's budgets and windows of the quota was.
func (x *exchange) tell(head *wire.Head) {
	full, limited := x.place.Fullest()
	if !limited || x.path != pathMessages {
		return
	}
	var resets time.Time
	if full.ResetsAt.Before(never()) {
		resets = full.ResetsAt
	}
	for _, f := range anthropic.SpendHeaders(full.Share, full.Warn, resets) {
		head.Set(f.Name, f.Value)
	}
}

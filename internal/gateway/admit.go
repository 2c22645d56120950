package gateway

import (
	"context"
	"errors"
	"strings"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

// maxOutputReserve caps what a request reserves for its answer. Clients ask for far more than they use (the CLI for up to
// 128 000 tokens a turn); reserving it all would refuse work that fits. A quota may therefore be passed by what the
// answers in flight exceed this, and no more.
const maxOutputReserve = 4096

// bytesPerToken is a low guess, so that the estimate is rather too high.
const bytesPerToken = 3

// mediaTokens stands for all images and documents of a request, whose bytes say little about their tokens.
const mediaTokens = 3000

// estimateInput guesses the prompt's tokens by class before anything has counted them. What lies before the last cache
// breakpoint is taken to be read from or written to the cache. The guess is never more than [anthropic.Extent] has for the prompt.
func estimateInput(r *anthropic.Request) (uncached, cached int64) {
	uncached, cached = int64(r.Bytes-r.CachedPrefix), int64(r.CachedPrefix)
	if media := int64(r.Media); media > 0 { // it may lie on both sides of the breakpoint
		of := min(media, uncached)
		uncached, cached = uncached-of, cached-(media-of)
		uncached += min(mediaTokens, media) * bytesPerToken // what looks like media may be text, a token for a byte at most
	}
	return (uncached + bytesPerToken - 1) / bytesPerToken, (cached + bytesPerToken - 1) / bytesPerToken
}

// estimateInput is what the prompt is charged with where nobody has counted it. A strict budget has reserved at least that.
func (x *exchange) estimateInput() (uncached, cached int64) {
	uncached, cached = estimateInput(x.peek)
	if s := x.spending; s != nil && s.prompt > 0 {
		uncached = min(uncached, s.prompt)
		cached = min(cached, s.prompt-uncached)
	}
	return uncached, cached
}

// expectedTokens is what a request reserves, as the quota counts, with the plain input in it.
func expectedTokens(f policy.Formula, r *anthropic.Request) (input, reserve int64) {
	uncached, cached := estimateInput(r)
	output := int64(maxOutputReserve)
	if r.MaxTokens > 0 {
		output = min(output, r.MaxTokens)
	}
	// Whether a prefix is read or written is not known yet; the dearer of the two is taken.
	dear := f
	dear.CacheRead = max(f.CacheRead, f.CacheWrite)
	return uncached, dear.Tokens(uncached, output, cached, 0)
}

// admit takes the request's place in the quota and the budgets. The error is what the client is to see.
func (g *Gateway) admit(ctx context.Context, x *exchange, body *wire.Body) (*ledger.Exchange, error) {
	claims, err := g.claims(x, body)
	if err != nil {
		return nil, err
	}
	user, settings := x.caller.User, &x.snapshot.Settings
	opening := ledger.Opening{
		Entry: x.entry, Daily: user.Quota.Daily, Monthly: user.Quota.Monthly,
		Location: x.snapshot.Location, Formula: settings.Formula, Claims: claims,
	}
	if x.path == pathMessages { // counting tokens is free
		opening.InputEstimate, opening.Tokens = expectedTokens(settings.Formula, x.peek)
		x.chargeUnsettled(&opening.Entry)
	}
	open, err := g.ledger.Reserve(ctx, opening)
	var denied *ledger.Denied
	switch {
	case err == nil:
		return open, nil
	case errors.As(err, &denied):
		return nil, g.deny(x, denied)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, ledger.ErrUnavailable):
		return nil, anthropic.ErrUnwritable(err)
	}
	return nil, anthropic.ErrInternal(err)
}

// chargeUnsettled gives an opening the cost that it has if the process dies before the settlement: that of its prompt on the upstream that
// comes first, since nobody will know any more to which it went.
func (x *exchange) chargeUnsettled(e *ledger.Entry) {
	e.InputTokens, e.CacheReadTokens = x.estimateInput()
	if len(x.target.Upstreams) > 0 {
		u := x.target.Upstreams[0]
		e.Upstream, e.Provider, e.ModelSent = u.Name, u.Provider, policy.UpstreamModel(u, x.target.Model)
	}
	e.Charge(x.snapshot.Prices, e.Counts())
}

// deny says honestly why: a quota that is spent ends the client's work until the reset, one that is only held by requests
// in flight ends it for seconds.
func (g *Gateway) deny(x *exchange, d *ledger.Denied) error {
	if d.Budget != nil {
		return g.overBudget(x, d)
	}
	if d.Temporary {
		g.metrics.denials.WithLabelValues("quota_busy").Inc()
		return anthropic.ErrRateLimit("What is left of the "+string(d.Window)+" token quota is held by requests that are running. Try again shortly.", 3)
	}
	g.metrics.denials.WithLabelValues("quota").Inc()
	e := anthropic.ErrQuota(anthropic.QuotaBlock{
		Period: string(d.Window), Used: d.Used, Limit: d.Limit, ResetsAt: d.ResetsAt, Now: g.now(),
		OperatorText: x.snapshot.Settings.QuotaMessage,
	})
	if d.Limit == 0 { // no reset brings anything
		e.Message = strings.TrimSpace("token quota reached (" + string(d.Window) + "; the quota of user " + x.caller.User.Name + " is 0) " + x.snapshot.Settings.QuotaMessage)
	}
	return e
}

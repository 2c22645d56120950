package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

// cause is why an attempt did not serve an exchange, as far as another upstream could.
type cause string

const (
	causeConnect    cause = "connect"    // not reached: DNS, connection, TLS, reset before the header
	causeTimeout    cause = "timeout"    // no header in time
	causeServer     cause = "server"     // 5xx
	causeOverloaded cause = "overloaded" // 529
	causeRate       cause = "rate"       // 429 that passes by itself
	causeSpend      cause = "spend"      // the organisation's own limit
	causeCredential cause = "credential" // 401, 403
	causePayment    cause = "payment"    // 402
	causeModel      cause = "model"      // 404: this upstream does not have the model
	causeCapability cause = "capability" // 501
	causeBroken     cause = "broken"     // a success that broke off before its first byte, or that is none
	causeFull       cause = "full"       // our own cap on requests in flight
	causeCooling    cause = "cooling"    // not asked, because of what happened before
)

// outcome is one attempt that did not serve the exchange.
type outcome struct {
	cause   cause
	failure *Failure      // what the client gets if nothing better comes
	wait    time.Duration // how long the upstream asked to be left alone; 0: it did not say
	before  cause         // of causeCooling: what happened before

	forbidden bool // of causeCredential: 403, which may be about the request alone
}

// usefulness orders failures for the client: what tells it when to come back before what it can only repeat, and what an
// upstream really said before what the gateway makes up.
func (o *outcome) usefulness() int {
	ranks := map[cause]int{
		causeRate: 90, causeOverloaded: 80, causeServer: 70, causeTimeout: 60, causeModel: 50, causeCapability: 50,
		causeBroken: 40, causeConnect: 30, causeCredential: 20, causeSpend: 20, causePayment: 20, causeFull: 10,
	}
	rank := ranks[o.cause]
	if o.cause == causeCooling { // below everything that was said to this request
		rank = ranks[o.before] / 10
	}
	if o.failure != nil && o.failure.Own == nil {
		rank++
	}
	return rank
}

// unreached judges an attempt without an answer.
func unreached(upstream string, err error) *outcome {
	err = fmt.Errorf("upstream %q: %w", upstream, err)
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return &outcome{cause: causeTimeout, failure: own(anthropic.ErrUpstreamTimeout(err))}
	}
	return &outcome{cause: causeConnect, failure: own(anthropic.ErrUpstream(err))}
}

// describe is for the log.
func (o *outcome) describe() string {
	if o.failure.Own != nil {
		return o.failure.Own.Error()
	}
	return said(o.failure.Status, o.failure.Head, o.failure.Body)
}

func own(e *anthropic.Error) *Failure { return &Failure{Status: e.Status, Type: e.Type, Own: e} }

// failed judges an answer that is not a success. final is true when no other upstream could do better: the request itself
// is refused.
func failed(upstream string, status int, head wire.Head, body []byte, broken error, now time.Time) (o *outcome, final bool) {
	o = &outcome{failure: newFailure(upstream, status, head, body, broken), wait: retryAfter(head, now)}
	text := string(body[:min(len(body), 4<<10)])
	switch {
	case brokeOff(body, broken):
		o.cause = causeBroken
	case status == 401 || status == 403:
		o.cause, o.forbidden = causeCredential, status == 403
	case status == 402:
		o.cause = causePayment
	case status == 400 && strings.Contains(text, "You have reached your specified") && strings.Contains(text, "usage limits"),
		status == 429 && strings.Contains(text, "enforced_spend_limit_reached"):
		o.cause = causeSpend
		o.failure = own(spendLimit(upstream, said(status, head, body)))
	case status == 404:
		o.cause = causeModel
	case status == 429:
		o.cause = causeRate
	case status == 501:
		o.cause = causeCapability
	case status == anthropic.StatusOverloaded:
		o.cause = causeOverloaded
	case status >= 500 || status < 400 || status == 408:
		o.cause = causeServer
	default:
		return o, true
	}
	return o, false
}

// spendLimit stands for the message that the operator's own account is out of money: developers can do nothing about it
// and repeating is useless.
func spendLimit(upstream, text string) *anthropic.Error {
	e := anthropic.ErrLimitStore().WithCause(fmt.Errorf("upstream %q: its account has reached a spend limit: %s", upstream, text))
	e.Message = "The upstream account of this gateway has reached its own spend limit. Tell the operator of the gateway."
	e.Header = []anthropic.HeaderField{{Name: "x-should-retry", Value: "false"}}
	return e
}

// retryAfter reads how long an upstream wants to be left alone: retry-after in seconds or as a date (RFC 9110 §10.2.3), else the
// latest reset of an exhausted rate limit.
func retryAfter(head wire.Head, now time.Time) time.Duration {
	const most = 24 * time.Hour
	text := strings.TrimSpace(head.Get("Retry-After"))
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 {
		return time.Duration(min(s, most.Seconds()) * float64(time.Second))
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), most)
	}
	var wait time.Duration
	for _, limit := range rateLimits {
		if head.Get(limit+"remaining") != "0" {
			continue
		}
		if reset, err := time.Parse(time.RFC3339, head.Get(limit+"reset")); err == nil {
			wait = max(wait, reset.Sub(now))
		}
	}
	return min(wait, time.Hour)
}

// rateLimits are the families of headers by which the API tells what is left of a rate.
var rateLimits = [...]string{ //nolint:gochecknoglobals // a constant list
	"anthropic-ratelimit-requests-", "anthropic-ratelimit-tokens-", "anthropic-ratelimit-input-tokens-", "anthropic-ratelimit-output-tokens-",
}

// headroom reads what is left of the scarcest rate, from 0 to 1, and until when that holds. ok is false when the answer
// says nothing about rates.
func headroom(head wire.Head) (left float64, until time.Time, ok bool) {
	left = 1
	for _, family := range rateLimits {
		most := head.Get(family + "limit")
		if most == "" {
			continue
		}
		limit, err1 := strconv.ParseFloat(most, 64)
		remaining, err2 := strconv.ParseFloat(head.Get(family+"remaining"), 64)
		reset, err3 := time.Parse(time.RFC3339, head.Get(family+"reset"))
		if err1 != nil || err2 != nil || err3 != nil || limit <= 0 {
			continue
		}
		if share := remaining / limit; !ok || share < left {
			left, until, ok = min(max(share, 0), 1), reset, true
		}
	}
	return left, until, ok
}

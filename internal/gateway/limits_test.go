package gateway_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carpool/internal/policy"
)

// stopped is a clock that goes only when it is moved.
type stopped struct{ nanos atomic.Int64 }

func newStopped() *stopped {
	s := &stopped{}
	s.nanos.Store(time.Now().UnixNano())
	return s
}

func (s *stopped) now() time.Time       { return time.Unix(0, s.nanos.Load()) }
func (s *stopped) move(d time.Duration) { s.nanos.Add(int64(d)) }

// expected is what plainRequest is expected to need: its bytes at three a token, and its max_tokens.
var expected = int64((len(plainRequest)+2)/3 + 100)

// denied asserts a denial by a limit and returns its retry-after.
func denied(t *testing.T, got answer, says string) int {
	t.Helper()
	kind, message := errorOf(t, got)
	wait, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != 429 || kind != "rate_limit_error" || err != nil || wait < 1 || wait > 60 || !strings.Contains(message, says) {
		t.Errorf("want a denial that says %q: %d, retry-after %q, %s", says, got.status, got.header.Get("Retry-After"), got.body)
	}
	return wait
}

func TestOf200RequestsAtOnceExactlyTheAllowedPass(t *testing.T) {
	const most = 9
	for name, c := range map[string]struct {
		limits policy.LimitsSpec
		says   string
	}{
		"in flight":           {policy.LimitsSpec{InFlight: most}, "9 requests of %s are running already"},
		"requests per minute": {policy.LimitsSpec{RequestsPerMinute: most}, "The limit of %s is 9 requests a minute"},
		"tokens per minute":   {policy.LimitsSpec{TokensPerMinute: most*expected + 1}, "The limit of %s is "},
	} {
		for i, whose := range []string{"key alice-laptop", "user alice", "team platform"} {
			t.Run(name+" of the "+whose, func(t *testing.T) {
				release := make(chan struct{})
				r := newRigAt(t, func(w http.ResponseWriter, req *http.Request) {
					<-release
					answerPlain(w, req)
				}, func(d *policy.Document) {
					d.Teams = []policy.Team{{Name: "platform"}}
					*[]*policy.LimitsSpec{&d.Keys[0].Limits, &d.Users[0].Limits, &d.Teams[0].Limits}[i] = c.limits
				}, 0, newStopped().now)
				var passed atomic.Int64
				var refused sync.WaitGroup
				var clients sync.WaitGroup
				refused.Add(200 - most)
				for range 200 {
					clients.Go(func() {
						got := r.post(plainRequest)
						if got.status == 200 {
							passed.Add(1)
							return
						}
						denied(t, got, fmt.Sprintf(strings.ReplaceAll(c.says, "%s", "%[1]s"), whose))
						refused.Done()
					})
				}
				refused.Wait() // while the others are held
				close(release)
				clients.Wait()
				if passed.Load() != most || r.upstream.count() != most {
					t.Errorf("%d passed, %d reached the upstream, want %d", passed.Load(), r.upstream.count(), most)
				}
				r.entries(most)
			})
		}
	}
}

func TestTokensPerMinuteAreCorrectedWhenTheAnswerIsKnown(t *testing.T) {
	clock := newStopped()
	r := newRigAt(t, answerPlain, func(d *policy.Document) {
		d.Users[0].Limits.TokensPerMinute = 2*expected + 20
	}, 0, clock.now)
	// An answer uses 17 tokens of what was expected. Were that not given back, the third request would not fit.
	for i := range 9 {
		if got := r.post(plainRequest); got.status != 200 {
			t.Fatalf("request %d: %s", i+1, got.body)
		}
	}
	r.change(func(d *policy.Document) { d.Users[0].Limits.TokensPerMinute = 9*17 + expected })
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("after 9 answers of 17 tokens: %s", got.body)
	}
	r.change(func(d *policy.Document) { d.Users[0].Limits.TokensPerMinute = 10*17 + expected - 2 })
	wait := denied(t, r.post(plainRequest), "The limit of user alice is 299 tokens a minute, and this request needs about "+strconv.Itoa(int(expected)))
	clock.move(time.Duration(wait) * time.Second)
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("after the time named: %s", got.body)
	}
}

// A failure of the upstream costs nobody tokens.
func TestTokensOfAFailedRequestComeBack(t *testing.T) {
	r := newRigAt(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }, func(d *policy.Document) {
		d.Users[0].Limits.TokensPerMinute = expected
	}, 0, newStopped().now)
	for range 5 {
		if got := r.post(plainRequest); got.status != 400 {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
}

func TestARequestLargerThanTheWholeBucketIsPossible(t *testing.T) {
	clock := newStopped()
	r := newRigAt(t, answerPlain, func(d *policy.Document) { d.Users[0].Limits.TokensPerMinute = 34 }, 0, clock.now)
	if got := r.post(plainRequest); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if wait := denied(t, r.post(plainRequest), "needs about"); wait != 30 { // 17 of 34 are used
		t.Errorf("retry after %d seconds, want 30", wait)
	}
	clock.move(30 * time.Second)
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("with a full bucket: %d %s", got.status, got.body)
	}
}

func TestADenialByTheQuotaTakesNothingOfTheLimits(t *testing.T) {
	r := newRigAt(t, answerPlain, func(d *policy.Document) {
		d.Users[0].Quota.Daily = 1
		d.Users[0].Limits = policy.LimitsSpec{RequestsPerMinute: 1, TokensPerMinute: expected, InFlight: 1}
	}, 0, newStopped().now)
	for range 3 {
		if kind, _ := errorOf(t, r.post(plainRequest)); kind != "billing_error" {
			t.Errorf("want the quota to deny: %s", kind)
		}
	}
	r.change(func(d *policy.Document) { d.Users[0].Quota.Daily = policy.Unlimited })
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestCountingTokensIsNotLimited(t *testing.T) {
	r := newRigAt(t, answerPlain, func(d *policy.Document) {
		d.Keys[0].Limits = policy.LimitsSpec{RequestsPerMinute: 1, TokensPerMinute: expected, InFlight: 1}
	}, 0, newStopped().now)
	for range 3 {
		if got := r.do(r.request("POST", "/v1/messages/count_tokens", plainRequest)); got.status != 200 {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestAChangedLimitCountsForTheNextRequest(t *testing.T) {
	r := newRigAt(t, answerPlain, func(d *policy.Document) { d.Users[0].Limits.RequestsPerMinute = 1 }, 0, newStopped().now)
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	denied(t, r.post(plainRequest), "1 request a minute")
	r.change(func(d *policy.Document) { d.Users[0].Limits.RequestsPerMinute = 2 })
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("raised: %d %s", got.status, got.body)
	}
	denied(t, r.post(plainRequest), "2 requests a minute")
	r.change(func(d *policy.Document) { d.Users[0].Limits.RequestsPerMinute = 0 })
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("lifted: %d %s", got.status, got.body)
	}
	r.change(func(d *policy.Document) { d.Keys[0].Limits.TokensPerMinute = 1 })
	if got := r.post(plainRequest); got.status != 200 {
		t.Errorf("another limit begins with a full bucket: %d %s", got.status, got.body)
	}
	denied(t, r.post(plainRequest), "The limit of key alice-laptop is 1 tokens a minute")
}

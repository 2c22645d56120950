package quota_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"carpool/internal/quota"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestRate(t *testing.T) {
	r := quota.NewRate(3)
	for i := range 3 {
		if ok, _ := r.Allow(noon); !ok {
			t.Fatalf("request %d of 3 was refused", i+1)
		}
	}
	ok, wait := r.Allow(noon)
	if ok || wait != 20*time.Second {
		t.Fatalf("request 4 of 3: %v, wait %v", ok, wait)
	}
	if ok, _ := r.Allow(noon.Add(wait - 1)); ok {
		t.Error("admitted before the time named")
	}
	if ok, _ := r.Allow(noon.Add(wait)); !ok {
		t.Error("refused at the time named")
	}
	if r.Idle(noon.Add(wait)) || !r.Idle(noon.Add(wait+time.Minute)) {
		t.Error("a bucket is idle when it is full again")
	}
}

func TestRateUnlimited(t *testing.T) {
	var r quota.Rate
	for range 1000 {
		if ok, wait := r.Allow(noon); !ok || wait != 0 {
			t.Fatal("the zero rate refused a request")
		}
	}
	if r.PerMinute() != 0 || !r.Idle(noon) {
		t.Errorf("%+v", r)
	}
}

func TestRateChange(t *testing.T) {
	r := quota.NewRate(1)
	r.Allow(noon)
	r.SetPerMinute(noon, 60)
	if ok, wait := r.Allow(noon); !ok && wait > time.Second {
		t.Errorf("wait %v after the rate was raised", wait)
	}
	r.SetPerMinute(noon, 0)
	if ok, _ := r.Allow(noon); !ok {
		t.Error("refused without a rate")
	}
}

// What was taken stays taken, and nothing more: a raised rate is open at once for what it adds.
func TestRateChangeKeepsWhatWasTaken(t *testing.T) {
	r := quota.NewRate(10)
	for range 10 {
		r.Allow(noon)
	}
	r.SetPerMinute(noon, 15)
	for i := range 5 {
		if ok, wait := r.Allow(noon); !ok {
			t.Fatalf("request %d of the 5 added: wait %v", i+1, wait)
		}
	}
	if ok, _ := r.Allow(noon); ok {
		t.Error("more than 15 in a minute of 15")
	}
	r.SetPerMinute(noon, 5)
	if ok, wait := r.Allow(noon); ok || wait > 3*time.Minute {
		t.Errorf("after 15 of 5: %v, wait %v", ok, wait)
	}
	if ok, wait := r.Allow(noon.Add(2*time.Minute + 12*time.Second)); !ok {
		t.Errorf("10 units too many are back after two minutes, the eleventh after 12 seconds: wait %v", wait)
	}
}

func TestRateOfTokens(t *testing.T) {
	r := quota.NewRate(60_000)
	if ok, _ := r.Take(noon, 50_000); !ok {
		t.Fatal("refused with a full bucket")
	}
	if ok, wait := r.Take(noon, 20_000); ok || wait != 10*time.Second {
		t.Errorf("10 000 too many: %v, wait %v", ok, wait)
	}
	r.Correct(noon, -40_000) // it used 10 000
	if ok, _ := r.Take(noon, 50_000); !ok {
		t.Error("what was given back is not there")
	}
	if ok, wait := r.Take(noon, 1); ok || wait != time.Millisecond {
		t.Errorf("empty: %v, wait %v", ok, wait)
	}
	r.Correct(noon, 30_000) // it used more than expected
	if ok, wait := r.Take(noon, 1_000); ok || wait != 31*time.Second {
		t.Errorf("overdrawn by 30 000: %v, wait %v", ok, wait)
	}
	r.Correct(noon, -1_000_000)
	if !r.Idle(noon) {
		t.Error("a bucket holds no more than a minute's tokens")
	}
}

// A request that asks for more than the bucket holds must be possible: when nothing else was taken.
func TestRateMoreThanTheBucket(t *testing.T) {
	r := quota.NewRate(1_000)
	if ok, _ := r.Take(noon, 5_000); !ok {
		t.Fatal("refused with a full bucket")
	}
	ok, wait := r.Take(noon, 5_000)
	if ok || wait != 5*time.Minute {
		t.Fatalf("%v, wait %v", ok, wait)
	}
	if ok, _ := r.Take(noon.Add(wait-1), 5_000); ok {
		t.Error("admitted before the bucket was full")
	}
	if ok, _ := r.Take(noon.Add(wait), 5_000); !ok {
		t.Error("refused at the time named")
	}
	r = quota.NewRate(1)
	r.Take(noon, 1<<40)
	r.Correct(noon, 1<<40)
	if wait := r.Wait(noon, 1); wait > 10*time.Minute {
		t.Errorf("shut for %v", wait)
	}
}

// Over any time the tokens that settled do not exceed the bucket, its refill, and what was in flight beyond its estimate.
// What a large request did not use comes back, however small the bucket is.
func TestRateGivesBackAllOfALargeRequest(t *testing.T) {
	for _, perMinute := range []int64{1, 7, 1_000, 1_000_000} {
		r := quota.NewRate(perMinute)
		r.Take(noon, 100_000)
		r.Correct(noon, 1-100_000)
		ok, wait := r.Take(noon, perMinute)
		if ok || wait > time.Minute || perMinute > 1 && wait > 10*time.Second {
			t.Errorf("%d a minute, one used: %v, wait %v", perMinute, ok, wait)
		}
	}
}

func TestRateOfTokensInvariant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perMinute := rapid.Int64Range(1, 1_000_000).Draw(t, "perMinute")
		r, now := quota.NewRate(perMinute), noon
		var settled, beyond int64
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "gap")) * time.Millisecond)
			expected := rapid.Int64Range(0, 2*perMinute).Draw(t, "expected")
			used := rapid.Int64Range(0, 3*perMinute).Draw(t, "used")
			ok, wait := r.Take(now, expected)
			if ok == (wait > 0) || wait > 10*time.Minute {
				t.Fatalf("%v, wait %v", ok, wait)
			}
			if !ok {
				continue
			}
			r.Correct(now, used-expected)
			settled += used
			beyond = max(beyond, used, expected)
			// Times are whole nanoseconds per token, which favours the caller by less than 2 in 10 000 here.
			refill := float64(perMinute) * (1 + now.Sub(noon).Minutes()) * 1.0002
			if float64(settled) > refill+float64(beyond) {
				t.Fatalf("%d settled after %v at %d a minute", settled, now.Sub(noon), perMinute)
			}
		}
	})
}

func TestRateClockSetBack(t *testing.T) {
	r := quota.NewRate(2)
	r.Allow(noon)
	r.Allow(noon)
	back := noon.Add(-24 * time.Hour)
	_, wait := r.Allow(back)
	if wait > 30*time.Second {
		t.Errorf("locked out for %v", wait)
	}
	if ok, _ := r.Allow(back.Add(wait)); !ok {
		t.Error("refused at the time named")
	}
}

// A refusal names the exact time of the next admission, and no minute admits more than a full bucket and its refill.
func TestRateInvariant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perMinute := rapid.IntRange(1, 5000).Draw(t, "perMinute")
		r, now := quota.NewRate(int64(perMinute)), noon
		var admitted []time.Time
		for _, ms := range rapid.SliceOfN(rapid.IntRange(-50, 3000), 1, 300).Draw(t, "gaps") {
			now = now.Add(time.Duration(max(ms, 0)) * time.Millisecond)
			ok, wait := r.Allow(now)
			if !ok {
				early, late := r, r
				if ok, _ := early.Allow(now.Add(wait - 1)); ok {
					t.Fatalf("admitted before %v", wait)
				}
				if ok, _ := late.Allow(now.Add(wait)); !ok {
					t.Fatalf("refused after %v", wait)
				}
				continue
			}
			if wait != 0 {
				t.Fatalf("admitted, but wait %v", wait)
			}
			admitted = append(admitted, now)
			recent := 0
			for _, at := range admitted {
				if now.Sub(at) < time.Minute {
					recent++
				}
			}
			if recent > 2*perMinute {
				t.Fatalf("%d admitted in a minute of %d", recent, perMinute)
			}
		}
	})
}

func TestSlots(t *testing.T) {
	var s quota.Slots
	first, second, third := s.Acquire(2), s.Acquire(2), s.Acquire(2)
	if !first || !second || third || s.Held() != 2 {
		t.Fatalf("two of two slots: %d held", s.Held())
	}
	if s.Acquire(1) {
		t.Error("a lowered limit admitted a request")
	}
	if !s.Acquire(0) {
		t.Error("no limit refused a request")
	}
	for range 5 {
		s.Release()
	}
	if s.Held() != 0 || !s.Acquire(1) {
		t.Errorf("%d held after all were released", s.Held())
	}
}

func BenchmarkRate(b *testing.B) {
	r := quota.NewRate(60)
	b.ReportAllocs()
	for b.Loop() {
		r.Allow(noon)
	}
}

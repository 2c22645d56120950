package gateway

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// arriving is a request whose body arrives from a reader; deadlines are noted.
func arriving(body io.Reader, length int64, deadlines *[]time.Time) *web.Request {
	return &web.Request{Request: &wire.Request{
		ContentLength: length, Body: body,
		ReadDeadline: func(t time.Time) error { *deadlines = append(*deadlines, t); return nil },
	}}
}

func bodyGateway(l BodyLimits) *Gateway {
	now := time.Unix(1_000_000, 0)
	g := &Gateway{now: func() time.Time { return now }, metrics: newMetrics(prometheus.NewRegistry())}
	g.SetBodyLimits(l)
	return g
}

func TestReadBodyOfAnySize(t *testing.T) {
	t.Parallel()
	const limit = 300 << 10
	g := bodyGateway(BodyLimits{Size: limit, Timeout: time.Minute})
	for _, n := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, 100 << 10, firstRead * readGrowth, firstRead*readGrowth + 1, limit, limit + 1} {
		want := bytes.Repeat([]byte("abcdefg"), n/7+1)[:n]
		for _, length := range []int64{int64(n), -1} {
			for name, from := range map[string]io.Reader{"at once": bytes.NewReader(want), "bytewise": iotest.OneByteReader(bytes.NewReader(want))} {
				var deadlines []time.Time
				body, err := g.readBody(arriving(from, length, &deadlines))
				if n > limit {
					if shown, ok := errors.AsType[*anthropic.Error](err); !ok || shown.Status != 413 {
						t.Errorf("%d bytes, length %d, %s: %v", n, length, name, err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%d bytes, length %d, %s: %v", n, length, name, err)
				}
				got, _ := body.Hold()
				if !bytes.Equal(got, want) {
					t.Errorf("%d bytes, length %d, %s: %d bytes, %v", n, length, name, len(got), err)
				}
				if held := g.bodies.held.Load(); length >= 0 && held > max((length+1)*5/4, firstRead) {
					t.Errorf("%d bytes, %s: holds %d", n, name, held)
				}
				body.Release()
				body.Release()
				if held := g.bodies.held.Load(); held != 0 {
					t.Errorf("%d bytes, %s: holds %d after its release", n, name, held)
				}
				if last := deadlines[len(deadlines)-1]; !last.IsZero() {
					t.Errorf("the deadline stays at %v", last)
				}
			}
		}
	}
}

func TestSizesOfLentMemory(t *testing.T) {
	t.Parallel()
	last := -1
	for n := int64(1); n <= largestLent; n += 512 {
		size, class := sizeOf(n)
		if size < n || size > max(n*5/4, smallestLent) || class < last || class > last+1 || class >= len(new(bodies).lent) {
			t.Fatalf("%d bytes: size %d, class %d after %d", n, size, class, last)
		}
		if again, same := sizeOf(size); again != size || same != class {
			t.Fatalf("%d bytes: size %d of class %d is %d of class %d", n, size, class, again, same)
		}
		last = class
	}
}

// Bodies never share memory, whatever buffers they began in.
func TestBodiesDoNotShareMemory(t *testing.T) {
	t.Parallel()
	g := bodyGateway(BodyLimits{Size: 1 << 20, Timeout: time.Minute})
	var held [][]byte
	for i := range byte(20) {
		want := bytes.Repeat([]byte{i}, firstRead+int(i))
		var deadlines []time.Time
		got, err := g.readBody(arriving(bytes.NewReader(want), int64(len(want)), &deadlines))
		if err != nil {
			t.Fatal(err)
		}
		content, _ := got.Hold()
		held = append(held, content)
		if i%3 == 0 { // one that is gone makes room for others
			gone, err := g.readBody(arriving(bytes.NewReader(want), int64(len(want)), &deadlines))
			if err != nil {
				t.Fatal(err)
			}
			gone.Release()
		}
	}
	for i, got := range held {
		if !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, firstRead+i)) {
			t.Errorf("body %d was overwritten", i)
		}
	}
}

// A client earns time with what it sends: a large body over a slow line passes, a drip does not.
func TestPaceOfABody(t *testing.T) {
	t.Parallel()
	g := bodyGateway(BodyLimits{Size: 8 << 20, Timeout: 10 * time.Second})
	for _, test := range []struct {
		size  int
		least time.Duration
		most  time.Duration
	}{{100, 10 * time.Second, 10 * time.Second}, {4 << 20, 10*time.Second + 250*time.Second, 10*time.Second + 257*time.Second}} {
		var deadlines []time.Time
		if _, err := g.readBody(arriving(iotest.HalfReader(bytes.NewReader(make([]byte, test.size))), int64(test.size), &deadlines)); err != nil {
			t.Fatal(err)
		}
		last := deadlines[len(deadlines)-2].Sub(g.now()) // before it was lifted
		if last < test.least || last > test.most {
			t.Errorf("%d bytes: %v", test.size, last)
		}
	}
}

// However little memory there is, one body of the largest size is served, and what is larger is said to be too large.
func TestLargestBodyAlwaysFits(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1000, 20_000, 9 << 20, 32 << 20, 40 << 20} {
		g := bodyGateway(BodyLimits{Size: size, Timeout: time.Minute, Memory: 1})
		for _, announced := range []bool{true, false} {
			for n, status := range map[int64]int{size: 0, size + 1: 413} {
				var deadlines []time.Time
				length := n
				if !announced {
					length = -1
				}
				body, err := g.readBody(arriving(bytes.NewReader(make([]byte, n)), length, &deadlines))
				if shown, _ := errors.AsType[*anthropic.Error](err); status != 0 && (shown == nil || shown.Status != status) || status == 0 && err != nil {
					t.Errorf("%d bytes of at most %d, announced %v: %v", n, size, announced, err)
				}
				if body != nil {
					body.Release()
				}
			}
		}
		if held := g.bodies.held.Load(); held != 0 {
			t.Errorf("%d bytes stay held", held)
		}
	}
}

func TestBodyMemoryIsCounted(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	g := bodyGateway(BodyLimits{Size: size, Timeout: time.Minute, Memory: 3*size*5/4 + firstRead})
	read := func() error {
		var deadlines []time.Time
		r := arriving(bytes.NewReader(make([]byte, size)), size, &deadlines)
		_, err := g.readBody(r)
		return err
	}
	for range 3 {
		if err := read(); err != nil {
			t.Fatal(err)
		}
	}
	shown, ok := errors.AsType[*anthropic.Error](read())
	if !ok || shown.Status != anthropic.StatusOverloaded || shown.Type != anthropic.TypeOverloaded {
		t.Errorf("%v", shown)
	}
	if held := g.bodies.held.Load(); held < 3*size || held > 3*size*5/4 {
		t.Errorf("%d bytes held", held)
	}
	g.SetBodyLimits(BodyLimits{Size: 1 << 20, Timeout: time.Minute})
	if err := read(); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

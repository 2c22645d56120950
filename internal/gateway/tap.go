package gateway

import (
	"errors"
	"io"
	"strings"
	"sync"

	"carpool/internal/anthropic"
	"carpool/internal/upstream"
)

// maxDecoded is how much of a compressed answer is metered: many times the longest that a model gives, and an end to what
// was made to be long.
const maxDecoded = 64 << 20

// firstNews is how many characters after what an answer said at its beginning there is news of it, from then on whenever it
// has become twice as long: what a note of it misses is at most half of it, or a thousand tokens.
const firstNews = 4 << 10

// tap feeds a meter with the bytes that pass, decoding a copy when they are compressed. It never fails: what it cannot
// read is merely not metered, and the entry says that its numbers are estimates.
type tap struct {
	mu     sync.Mutex // of meter, which a decoder feeds by itself
	meter  *anthropic.Meter
	news   int64          // at how many characters there is news again
	pipe   *io.PipeWriter // nil when nothing is to be decoded
	done   chan struct{}
	failed error // of decoding; to be read after done
}

func newTap(contentType, encoding string) *tap {
	t := &tap{meter: anthropic.NewMeter(contentType)}
	encoding = strings.ToLower(strings.TrimSpace(encoding))
	if encoding == "" || encoding == "identity" {
		return t
	}
	from, to := io.Pipe()
	t.pipe, t.done = to, make(chan struct{})
	go func() { // ends when Close closes the pipe
		defer close(t.done)
		t.failed = upstream.Decode(decoded{t}, encoding, from, maxDecoded)
		_, _ = io.Copy(io.Discard, from)
	}()
	return t
}

// decoded is the meter as a decoder sees it.
type decoded struct{ *tap }

func (d decoded) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meter.Write(p)
}

// Write shows p to the meter.
func (t *tap) Write(p []byte) {
	if t.pipe != nil {
		_, _ = t.pipe.Write(p)
		return
	}
	_, _ = t.meter.Write(p)
}

// Between reports whether the bytes so far end between two events, as far as the meter can see it.
func (t *tap) Between() bool { return t.pipe == nil && t.meter.Between() }

// Ended reports whether the answer has said its last word, as far as the meter can see it at this moment.
func (t *tap) Ended() bool { return t.pipe == nil && t.meter.Ended() }

// News returns what was read so far when it is worth a note: once the message has begun, and when much more has come
// since. It is for streams, and for whoever calls Write. An answer that has said its last word is no news, but the end.
func (t *tap) News() (result anthropic.Result, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	length := t.meter.Characters()
	if length < t.news || !t.meter.Started() || t.meter.Ended() {
		return anthropic.Result{}, false
	}
	t.news = max(2*length, firstNews)
	return t.meter.Result(), true
}

// Close waits until everything was read and returns what it was. readable says whether all that passed could be read, so
// that what is missing in the result was missing in the answer.
func (t *tap) Close() (result anthropic.Result, readable bool) {
	if t.pipe != nil {
		_ = t.pipe.Close()
		<-t.done
	}
	result = t.meter.Result()
	return result, t.failed == nil || result.Complete || errors.Is(t.failed, io.ErrUnexpectedEOF)
}

package gateway

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"carpool/internal/anthropic"
)

// maxDecoded is how much of a compressed answer is metered: many times the longest that a model gives, and an end to what
// was made to be long.
const maxDecoded = 64 << 20

// tap feeds a meter with the bytes that pass, decoding a copy when they are compressed. It never fails: what it cannot
// read is merely not metered, and the entry says that its numbers are estimates.
type tap struct {
	meter  *anthropic.Meter
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
		t.failed = decode(t.meter, encoding, from)
		_, _ = io.Copy(io.Discard, from)
	}()
	return t
}

// decode copies what from holds into a meter. The bytes are foreign: not even a panic of a decoder may harm the relay.
func decode(into *anthropic.Meter, encoding string, from io.Reader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the decoder of %s panicked: %v", encoding, p)
		}
	}()
	plain, err := decoder(encoding, from)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, io.LimitReader(plain, maxDecoded))
	if c, ok := plain.(interface{ Close() }); ok { // zstd keeps goroutines
		c.Close()
	}
	return err
}

func decoder(encoding string, from io.Reader) (io.Reader, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return from, nil
	case "gzip", "x-gzip":
		return gzip.NewReader(from)
	case "deflate": // with the header of zlib, or, as many send it, without
		peeked := bufio.NewReader(from)
		if head, err := peeked.Peek(2); err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			return zlib.NewReader(peeked)
		}
		return flate.NewReader(peeked), nil
	case "br":
		return brotli.NewReader(from), nil
	case "zstd":
		return zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	}
	return nil, fmt.Errorf("the content encoding %q is not known", encoding)
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

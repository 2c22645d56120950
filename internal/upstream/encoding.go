package upstream

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// Decode copies the first bytes of what from holds, without its content encoding. The bytes are foreign: not even a panic of
// a decoder harms the caller.
func Decode(into io.Writer, encoding string, from io.Reader, most int64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the decoder of %s panicked: %v", encoding, p)
		}
	}()
	plain, err := Decoder(encoding, from)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, io.LimitReader(plain, most))
	if c, ok := plain.(interface{ Close() }); ok { // zstd keeps goroutines
		c.Close()
	}
	return err
}

// Decoder returns what from holds without its content encoding, as it is read.
func Decoder(encoding string, from io.Reader) (io.Reader, error) {
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
	return nil, &unknownEncodingError{encoding}
}

// unknownEncodingError says that nothing here can tell what an answer says.
type unknownEncodingError struct{ encoding string }

func (e *unknownEncodingError) Error() string {
	return fmt.Sprintf("the content encoding %q is not known", e.encoding)
}

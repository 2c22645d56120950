package wire_test

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"carpool/internal/wire"
)

func TestBodyReadsFromTheStartEachTime(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 100_000} {
		content := bytes.Repeat([]byte("x"), size)
		body := wire.NewBody(content, nil)
		for range 3 {
			if err := iotest.TestReader(body.Reader(), content); err != nil {
				t.Fatal(err)
			}
		}
		held, ok := body.Hold()
		if body.Size() != size || len(held) != size || !ok {
			t.Errorf("size %d, %d bytes; want %d", body.Size(), len(held), size)
		}
		body.Release()
	}
}

func TestBodyIsLetGoAfterTheLastReader(t *testing.T) {
	t.Parallel()
	gone := 0
	body := wire.NewBody([]byte("hello"), func() { gone++ })
	first, second := body.Reader(), body.Reader()
	body.Release()
	if gone > 0 {
		t.Fatal("gone while readers need it")
	}
	if got, err := io.ReadAll(first); string(got) != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if gone > 0 {
		t.Fatal("gone while the second reader needs it")
	}
	for range 2 { // closing twice counts once
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := body.Hold(); gone != 1 || ok || body.Size() != 5 {
		t.Fatalf("gone %d times, size %d", gone, body.Size())
	}
	if n, err := first.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a reader at its end: %d, %v", n, err)
	}
	for _, r := range []io.Reader{second, body.Reader()} {
		if got, err := io.ReadAll(r); len(got) != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after the end: %q, %v", got, err)
		}
	}
	if gone != 1 {
		t.Errorf("gone %d times", gone)
	}
}

func TestBodyWithManyReaders(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	var gone atomic.Int32
	body := wire.NewBody(content, func() { gone.Add(1) })
	var all sync.WaitGroup
	for i := range 16 {
		r := body.Reader()
		all.Go(func() {
			defer r.Close()
			if i%4 == 0 {
				_, _ = io.CopyN(io.Discard, r, 10)
				return
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	body.Release()
	all.Wait()
	if n := gone.Load(); n != 1 {
		t.Errorf("gone %d times after the last reader", n)
	}
}

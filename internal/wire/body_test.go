package wire_test

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"carpool/internal/wire"
)

func TestBodyReadsFromTheStartEachTime(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 100_000} {
		content := bytes.Repeat([]byte("x"), size)
		body := wire.NewBody(content)
		for range 3 {
			if err := iotest.TestReader(body.Reader(), content); err != nil {
				t.Fatal(err)
			}
		}
		if body.Size() != size || len(body.Bytes()) != size {
			t.Errorf("size %d, %d bytes; want %d", body.Size(), len(body.Bytes()), size)
		}
	}
}

func TestBodyIsLetGoAfterTheLastReader(t *testing.T) {
	t.Parallel()
	body := wire.NewBody([]byte("hello"))
	first, second := body.Reader(), body.Reader()
	body.Release()
	if body.Bytes() == nil {
		t.Fatal("gone while readers need it")
	}
	if got, err := io.ReadAll(first); string(got) != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if body.Bytes() == nil {
		t.Fatal("gone while the second reader needs it")
	}
	for range 2 { // closing twice counts once
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if body.Bytes() != nil || body.Size() != 5 {
		t.Fatalf("still there: %q, size %d", body.Bytes(), body.Size())
	}
	if n, err := first.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a reader at its end: %d, %v", n, err)
	}
	for _, r := range []io.Reader{second, body.Reader()} {
		if got, err := io.ReadAll(r); len(got) != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after the end: %q, %v", got, err)
		}
	}
	body.Release()
}

func TestBodyWithManyReaders(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	body := wire.NewBody(content)
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
	if body.Bytes() != nil {
		t.Error("the bytes stay after the last reader")
	}
}

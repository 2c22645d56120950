package wire_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"carpool/internal/wire"
)

// pair returns the two ends of a TCP connection, of which the first is a Socket.
func pair(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if theirs, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ours = wire.Socket(accepted)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func TestSocketCarriesEverything(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	data := make([]byte, 3<<20) // more than the system takes at once
	_, _ = rand.Read(data)
	var both sync.WaitGroup
	both.Go(func() {
		for rest, n := data, 1; len(rest) > 0; n = n%40_000 + 1_777 { // pieces below and above what goes the short way
			piece := rest[:min(n, len(rest))]
			if sent, err := ours.Write(piece); err != nil || sent != len(piece) {
				t.Errorf("wrote %d of %d: %v", sent, len(piece), err)
				return
			}
			rest = rest[len(piece):]
		}
	})
	both.Go(func() {
		_, _ = io.Copy(theirs, iotest.OneByteReader(bytes.NewReader(data[:3000])))
		_, _ = theirs.Write(data[3000:])
		_ = theirs.(*net.TCPConn).CloseWrite()
	})
	got := make([]byte, len(data))
	both.Go(func() {
		if _, err := io.ReadFull(theirs, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("what was written did not arrive: %v", err)
		}
	})
	read, err := io.ReadAll(ours)
	both.Wait()
	if err != nil || !bytes.Equal(read, data) {
		t.Errorf("read %d bytes of %d: %v", len(read), len(data), err)
	}
}

func TestSocketErrors(t *testing.T) {
	t.Parallel()
	small := make([]byte, 10)
	for name, c := range map[string]struct {
		do   func(ours, theirs net.Conn) error
		want error
	}{
		"read past its deadline": {func(ours, _ net.Conn) error {
			_ = ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := ours.Read(small)
			return err
		}, os.ErrDeadlineExceeded},
		"write past its deadline": {func(ours, _ net.Conn) error {
			_ = ours.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for {
				if _, err := ours.Write(make([]byte, 16<<10)); err != nil {
					return err
				}
			}
		}, os.ErrDeadlineExceeded},
		"read while it is closed": {func(ours, _ net.Conn) error {
			time.AfterFunc(10*time.Millisecond, func() { ours.Close() })
			_, err := ours.Read(small)
			return err
		}, net.ErrClosed},
		"read after the end": {func(ours, theirs net.Conn) error {
			theirs.Close()
			_, err := ours.Read(small)
			return err
		}, io.EOF},
		"read after a reset": {func(ours, theirs net.Conn) error {
			_ = theirs.(*net.TCPConn).SetLinger(0)
			theirs.Close()
			_, err := ours.Read(small)
			return err
		}, syscall.ECONNRESET},
		"write after a reset": {func(ours, theirs net.Conn) error {
			_ = theirs.(*net.TCPConn).SetLinger(0)
			theirs.Close()
			_, _ = ours.Read(small) // the reset has come
			_, err := ours.Write(small)
			return err
		}, syscall.EPIPE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := pair(t)
			err := c.do(ours, theirs)
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			var shown *net.OpError
			if !errors.Is(c.want, io.EOF) && (!errors.As(err, &shown) || shown.Net != "tcp" || shown.Addr == nil) {
				t.Errorf("%#v does not say which connection it was", err)
			}
		})
	}
}

func TestSocketTakesNoMemory(t *testing.T) {
	ours, theirs := pair(t)
	small := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = theirs.Write(small)
		_, _ = ours.Read(small)
		_, _ = ours.Write(small)
		_, _ = theirs.Read(small)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

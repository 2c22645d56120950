package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// maxSocketPath is the length from which on the address of a Unix socket cannot hold a path everywhere.
const maxSocketPath = 104

// DialSocket connects to a Unix socket whose path may be longer than the 107 bytes that an address can hold: the folder
// is opened and the socket reached through /proc/self/fd (Linux).
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	address, release, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer release()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", address)
}

// socketAddress returns an address for the socket at path that is short enough, valid until release is called.
func socketAddress(path string) (address string, release func(), err error) {
	if len(path) < maxSocketPath || runtime.GOOS != "linux" {
		return path, func() {}, nil
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	address = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path))
	return address, func() { folder.Close() }, nil //nolint:errcheck,gosec // opened to read
}

// ListenSocket listens on a Unix socket that only the own user may use, with the same care for long paths. A socket that
// a dead server left behind is replaced; one that answers is an error. Closing the listener removes the socket.
func ListenSocket(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := DialSocket(ctx, path); err == nil {
		conn.Close() //nolint:errcheck,gosec // only a probe
		return nil, fmt.Errorf("another server is running: %s answers", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("cannot listen on %s: there is something else at this path", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot remove the socket of a server that ended: %w", err)
		}
	}
	address, release, err := socketAddress(path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	defer release()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close() //nolint:errcheck,gosec // the first error counts
		return nil, fmt.Errorf("cannot make %s private: %w", path, err)
	}
	return &socketListener{Listener: listener, path: path}, nil
}

// socketListener removes its socket by the real path, which the address does not hold for long paths.
type socketListener struct {
	net.Listener
	path string
}

func (l *socketListener) Close() error {
	err := l.Listener.Close()
	if removed := os.Remove(l.path); err == nil && !os.IsNotExist(removed) {
		err = removed
	}
	return err
}

package control_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"carpool/internal/control"
)

func TestSocketPaths(t *testing.T) {
	for _, folder := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("a-long-folder/", 12))} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		p := open(t, folder)
		must[control.Status](t)(p.socket.Status(t.Context()))
		path := filepath.Join(folder, "carpool.sock")
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		if _, err := control.ListenSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another server is running") {
			t.Errorf("%v", err)
		}
	}
}

func TestSocketOfADeadServerIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "carpool.sock")
	dead, err := control.ListenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".kept"); err != nil { // closing removes the path, a crash does not
		t.Fatal(err)
	}
	_ = dead.Close()
	if err := os.Rename(path+".kept", path); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, control.ClientOptions{Socket: path}).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no server is running") {
		t.Errorf("%v", err)
	}
	listener, err := control.ListenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	_, err = client(t, control.ClientOptions{Socket: path}).Status(t.Context())
	status(t, err, http.StatusNotFound, "404 Not Found")
	_ = server.Close()
	serving.Wait()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket was left behind: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.ListenSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("%v", err)
	}
}

package web

import (
	"fmt"
	"net/http"
	"net/netip"

	"carpool/internal/wire"
)

// Around gives a net/http handler what Serve gives to a Handler: a request id, a line in the access log, metrics under one
// route, and a guard against panics. Administration goes this way.
func (f *Front) Around(route string, next http.Handler) http.Handler {
	//nolint:contextcheck // it is the request's
	return http.HandlerFunc(func(rw http.ResponseWriter, in *http.Request) {
		remote, _ := netip.ParseAddrPort(in.RemoteAddr) // a Unix socket has none
		r := &Request{
			Request: &wire.Request{Method: in.Method, Path: in.URL.Path, Head: wire.Head{}, Remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())},
			ID:      newID(), Started: f.now(), Route: route,
		}
		for _, value := range in.Header.Values("X-Forwarded-For") {
			r.Head.Add("X-Forwarded-For", value)
		}
		r.Remote = f.clientAddress(r.Request)
		rw.Header().Set("Request-Id", r.ID)
		f.metrics.inFlight.Inc()
		defer f.metrics.inFlight.Dec()
		w := &seenWriter{ResponseWriter: rw}
		var err error
		defer func() {
			if p := recover(); p != nil {
				err = f.panicked(in.Context(), r, p)
				if w.status == 0 {
					http.Error(w, "internal error", http.StatusInternalServerError)
				}
			}
			f.finish(in.Context(), &countingWriter{status: w.status, bytes: w.bytes}, r, err)
		}()
		next.ServeHTTP(w, in)
		if w.status == 0 {
			w.status = http.StatusOK // what net/http sends for a handler that wrote nothing
		}
	})
}

// seenWriter remembers what was sent.
type seenWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *seenWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *seenWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if err != nil {
		return n, fmt.Errorf("cannot write the answer: %w", err)
	}
	return n, nil
}

// Unwrap is for http.ResponseController.
func (w *seenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

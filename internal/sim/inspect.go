package sim

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// inspection serves /__sim/.
func (s *Server) inspection() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /__sim/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, Usage)
	})
	mux.HandleFunc("GET /__sim/requests", s.inspectRequests)
	mux.HandleFunc("GET /__sim/counters", func(w http.ResponseWriter, _ *http.Request) { show(w, http.StatusOK, s.Counters()) })
	mux.HandleFunc("GET /__sim/wait", s.inspectWait)
	mux.HandleFunc("GET /__sim/credentials", s.inspectCredentials)
	mux.HandleFunc("PUT /__sim/credentials/{name}/faults", s.inspectFaults)
	mux.HandleFunc("POST /__sim/release", func(w http.ResponseWriter, r *http.Request) {
		n, ok := queryInt(w, r, "n", 0)
		if ok {
			show(w, http.StatusOK, map[string]int{"released": s.Release(r.URL.Query().Get("name"), int(n))})
		}
	})
	mux.HandleFunc("POST /__sim/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		show(w, http.StatusOK, s.Counters())
	})
	return mux
}

func show(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	body, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true)) // fields and paths may hold any bytes; they become U+FFFD
	if err != nil {
		status, body = http.StatusInternalServerError, []byte("null")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, and said to be
}

func complain(w http.ResponseWriter, status int, message string) {
	show(w, status, map[string]string{"error": message})
}

func queryInt(w http.ResponseWriter, r *http.Request, name string, def int64) (int64, bool) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return def, true
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		complain(w, http.StatusBadRequest, name+" is not a number")
		return 0, false
	}
	return n, true
}

func (s *Server) inspectRequests(w http.ResponseWriter, r *http.Request) {
	since, ok := queryInt(w, r, "since", 0)
	if !ok {
		return
	}
	limit, ok := queryInt(w, r, "limit", int64(s.keep))
	if !ok {
		return
	}
	list := s.Requests(since)
	if int64(len(list)) > limit {
		list = list[:limit]
	}
	if list == nil {
		list = []Request{}
	}
	show(w, http.StatusOK, map[string]any{"requests": list})
}

// inspectWait answers when every named counter has reached its number.
func (s *Server) inspectWait(w http.ResponseWriter, r *http.Request) {
	var want [4]int64
	for i, name := range []string{"held", "requests", "in_flight", "finished"} {
		n, ok := queryInt(w, r, name, 0)
		if !ok {
			return
		}
		want[i] = n
	}
	ms, ok := queryInt(w, r, "timeout_ms", 5000)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(ms)*time.Millisecond)
	defer cancel()
	err := s.Wait(ctx, func(c Counters) bool {
		return c.Held >= want[0] && c.Requests >= want[1] && c.InFlight >= want[2] && c.Finished >= want[3]
	})
	status := http.StatusOK
	if err != nil {
		status = http.StatusRequestTimeout
	}
	show(w, status, s.Counters())
}

func (s *Server) inspectCredentials(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		Name              string  `json:"name"`
		Organization      string  `json:"organization"`
		RequestsPerMinute int     `json:"requests_per_minute"`
		Faults            []Fault `json:"faults"`
	}
	list := []entry{}
	s.mu.Lock()
	for _, c := range s.credentials {
		e := entry{Name: c.Name, Organization: c.Organization, RequestsPerMinute: c.RequestsPerMinute, Faults: []Fault{}}
		for _, f := range c.faults {
			e.Faults = append(e.Faults, f.Fault)
		}
		list = append(list, e)
	}
	s.mu.Unlock()
	show(w, http.StatusOK, map[string]any{"credentials": list})
}

func (s *Server) inspectFaults(w http.ResponseWriter, r *http.Request) {
	var faults []Fault
	if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, 1<<20), &faults, json.RejectUnknownMembers(true)); err != nil {
		complain(w, http.StatusBadRequest, "the body is not a JSON array of faults: "+err.Error())
		return
	}
	found, err := s.SetFaults(r.PathValue("name"), faults...)
	switch {
	case err != nil:
		complain(w, http.StatusBadRequest, err.Error())
	case !found:
		complain(w, http.StatusNotFound, "there is no credential of that name")
	default:
		s.inspectCredentials(w, r)
	}
}

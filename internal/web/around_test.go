package web_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"carpool/internal/web"
)

func TestAdministrationHasLinesAndMetricsToo(t *testing.T) {
	var lines strings.Builder
	registry := prometheus.NewRegistry()
	front := web.NewFront(slog.New(slog.NewTextHandler(&lines, nil)), web.NewMetrics(registry), time.Now)
	handler := front.Around("/admin", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/admin/panic":
			panic("oh")
		case "/admin/refused":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, "fine")
		}
	}))
	for path, want := range map[string]int{"/admin/x": 200, "/admin/refused": 401, "/admin/panic": 500} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		request.Header.Set("Authorization", "Bearer cpa_secret")
		handler.ServeHTTP(answer, request)
		if answer.Code != want || answer.Header().Get("Request-Id") == "" || strings.Contains(answer.Body.String(), "oh") {
			t.Errorf("%s: %d %v %s", path, answer.Code, answer.Header(), answer.Body)
		}
		if !strings.Contains(lines.String(), "path="+path) {
			t.Errorf("no line for %s:\n%s", path, lines.String())
		}
	}
	if strings.Contains(lines.String(), "cpa_secret") {
		t.Error("the log holds a token")
	}
	if n := testutil.CollectAndCount(registry, "http_requests_total"); n != 3 {
		t.Errorf("%d series, want 3 under one path", n)
	}
}

package web_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
)

func ExampleFront() {
	front := web.NewFront(slog.New(slog.DiscardHandler), web.NewMetrics(prometheus.NewRegistry()), time.Now)
	server := httptest.NewServer(wire.Handler(front.Serve(func(_ context.Context, _ wire.Writer, r *web.Request) error {
		r.Route = "nowhere"
		return anthropic.ErrNotFound("There is no " + r.Path + " here.")
	})))
	defer server.Close()

	answer, err := http.Get(server.URL + "/v2")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	text, _, _ := strings.Cut(string(body), `,"request_id"`)
	fmt.Println(answer.StatusCode, text)
	// Output: 404 {"type":"error","error":{"type":"not_found_error","message":"There is no /v2 here."}
}

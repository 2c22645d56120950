package wire_test

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/url"
	"time"

	"carpool/internal/wire"
)

func ExampleHandler() {
	server := httptest.NewServer(wire.Handler(func(_ context.Context, w wire.Writer, r *wire.Request) {
		if w.Begin(200, wire.Head{{Name: "Content-Type", Value: "text/plain"}}) == nil {
			_, _ = fmt.Fprintf(w, "%s %s with %s", r.Method, r.Path, r.Head.Get("x-greeting"))
		}
	}))
	defer server.Close()

	client := wire.NewClient(wire.ClientOptions{DialTimeout: time.Second})
	defer client.Close()
	address, _ := url.Parse(server.URL + "/hello")
	answer, _, err := client.Do(context.Background(), &wire.Outgoing{Method: "GET", URL: address, Head: wire.Head{{Name: "X-Greeting", Value: "hi"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.Status, string(text))
	// Output: 200 GET /hello with hi
}

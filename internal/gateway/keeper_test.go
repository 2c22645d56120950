package gateway_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/fleet"
)

// readUntil reads until the text has ended with suffix.
func readUntil(t *testing.T, body io.Reader, suffix string) string {
	t.Helper()
	var all []byte
	one := make([]byte, 1)
	for !strings.HasSuffix(string(all), suffix) {
		n, err := body.Read(one)
		if n == 0 && err != nil {
			t.Fatalf("after %q: %v", all, err)
		}
		all = append(all, one[:n]...)
	}
	return string(all)
}

func TestASilentUpstreamIsFilledWithPingsBetweenEvents(t *testing.T) {
	half := streamEvents[3][:40]
	steps := make(chan string)
	r := newRigWith(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for p := range steps {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}, nil, 20*time.Millisecond)
	go func() { steps <- strings.Join(streamEvents[:3], "") }()
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	got := readUntil(t, resp.Body, streamEvents[2])
	got += readUntil(t, resp.Body, anthropic.PingEvent)
	got += readUntil(t, resp.Body, anthropic.PingEvent)
	steps <- half
	got += readUntil(t, resp.Body, half)
	// In the middle of an event nothing may be added, however long it takes.
	quiet := make(chan string, 1)
	go func() { quiet <- readUntil(t, resp.Body, streamEvents[3][40:]) }()
	select {
	case text := <-quiet:
		t.Fatalf("inside an event: %q", text)
	case <-time.After(100 * time.Millisecond):
	}
	steps <- streamEvents[3][40:]
	if text := <-quiet; text != streamEvents[3][40:] {
		t.Errorf("inside an event: %q", text)
	}
	steps <- strings.Join(streamEvents[4:], "")
	close(steps)
	rest, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got += streamEvents[3][40:] + string(rest)
	if plain := strings.ReplaceAll(got, anthropic.PingEvent, ""); plain != strings.ReplaceAll(strings.Join(streamEvents, ""), anthropic.PingEvent, "") {
		t.Errorf("the upstream's bytes changed:\n%s", plain)
	}
	if e := r.entries(1)[0]; e.Outcome != fleet.OutcomeFinished || e.OutputTokens != 9 {
		t.Errorf("entry %+v", e)
	}
}

// impatient are the header of CLI 1.0.59, scaled from a minute to a second.
const impatient = "X-Stainless-Timeout: 1"

func TestOldClientsGetTheirHeaderEarly(t *testing.T) {
	release := make(chan struct{})
	r := newRigWith(t, func(w http.ResponseWriter, req *http.Request) {
		<-release
		answerStream(streamEvents...)(w, req)
	}, nil, 50*time.Millisecond)
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest, impatient))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") || resp.Header.Get("Request-Id") == "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	readUntil(t, resp.Body, anthropic.PingEvent)
	close(release)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(rest), strings.Join(streamEvents, "")) {
		t.Errorf("%v %q", err, rest)
	}
	if e := r.entries(1)[0]; e.Outcome != fleet.OutcomeFinished || e.Status != 200 {
		t.Errorf("entry %+v", e)
	}
}

func TestOldClientsGetALateErrorAsAnEvent(t *testing.T) {
	release := make(chan struct{})
	r := newRigWith(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(529)
		_, _ = io.WriteString(w, "{\n\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}")
	}, nil, 50*time.Millisecond)
	resp, err := http.DefaultTransport.RoundTrip(r.request("POST", "/v1/messages", streamRequest, impatient))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	close(release)
	body, err := io.ReadAll(resp.Body)
	const want = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n"
	if err != nil || !strings.HasSuffix(string(body), want) {
		t.Errorf("%v %q", err, body)
	}
	if e := r.entries(1)[0]; e.Outcome != fleet.OutcomeUpstreamError || e.Status != 529 || e.ErrorType != "overloaded_error" {
		t.Errorf("entry %+v", e)
	}
}

func TestACompressedAnswerAfterAnEarlyHeaderIsDecoded(t *testing.T) {
	release := make(chan struct{})
	r := newRigWith(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Content-Encoding", "gzip")
		packed := gzip.NewWriter(w)
		_, _ = io.WriteString(packed, strings.Join(streamEvents, ""))
		_ = packed.Close()
	}, nil, 50*time.Millisecond)
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(r.request("POST", "/v1/messages", streamRequest, impatient, "Accept-Encoding: gzip"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	close(release)
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasSuffix(string(body), strings.Join(streamEvents, "")) {
		t.Errorf("%v %q", err, body)
	}
}

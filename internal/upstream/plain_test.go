package upstream

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"

	"carpool/internal/anthropic"
	"carpool/internal/policy"
	"carpool/internal/wire"
)

// plainly sends an exchange without a stream and returns what became of it; broken is how the answer ended, nil when it was whole.
func (l *lab) plainly(path string) (r Result, body string, broken error) {
	l.t.Helper()
	request := []byte(`{"model":"claude-opus-5-5","max_tokens":10,"messages":[{"role":"user","content":"x"}]}`)
	peek, err := anthropic.Peek(request)
	if err != nil {
		l.t.Fatal(err)
	}
	x := &Exchange{Path: path, Body: wire.NewBody(request, nil), Peek: peek, Model: peek.Model, User: "alice"}
	r, err = l.pool.Do(l.t.Context(), policy.Target{Route: "default", Upstreams: l.ups}, x)
	if err != nil {
		l.t.Fatal(err)
	}
	if r.Answer == nil {
		return r, "", nil
	}
	data, broken := io.ReadAll(r.Answer.Response.Body)
	_ = r.Answer.Response.Body.Close()
	return r, string(data), broken
}

// message is a plain answer of so many bytes.
func message(size int) string {
	const begin, end = `{"type":"message","content":[{"type":"text","text":"`, `"}]}`
	return begin + strings.Repeat("x", size-len(begin)-len(end)) + end
}

// answering sends an answer in two parts, the second of which may be missing; headers are "Name: value".
func answering(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		_, _ = io.WriteString(w, body[:len(body)/2])
		if w.Header().Get("Content-Length") == "" {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, body[len(body)/2:])
	}
}

// breaking answers and then breaks the connection.
func breaking(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answering(body, headers...)(w, r)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

func brotlied(text string) string {
	var b bytes.Buffer
	z := brotli.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

func announced(n int) string { return "Content-Length: " + strconv.Itoa(n) }

// A plain answer that breaks off never reaches the client when another upstream can give one; one that is whole does, byte for byte,
// however it comes.
func TestPlainAnswers(t *testing.T) {
	const short, long = 700, 100_000
	packed := gzipped(message(5000))
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		whole  string // "": it is none
	}{
		"short":                            {answering(message(short)), message(short)},
		"short, of known length":           {answering(message(short), announced(short)), message(short)},
		"shorter than the first look":      {answering(`{"input_tokens":14}`), `{"input_tokens":14}`},
		"a byte less than is held":         {answering(message(plainMost - 1)), message(plainMost - 1)},
		"as long as is held":               {answering(message(plainMost)), message(plainMost)},
		"a byte more than is held":         {answering(message(plainMost + 1)), message(plainMost + 1)},
		"as long as is held, known":        {answering(message(plainMost), announced(plainMost)), message(plainMost)},
		"long":                             {answering(message(long)), message(long)},
		"long, of known length":            {answering(message(long), announced(long)), message(long)},
		"with whitespace around":           {answering("\n " + message(short) + "\r\n"), "\n " + message(short) + "\r\n"},
		"whole without the last chunk":     {breaking(message(short)), message(short)},
		"gzip":                             {answering(packed, "Content-Encoding: gzip"), packed},
		"br":                               {answering(brotlied(message(short)), "Content-Encoding: br"), brotlied(message(short))},
		"an encoding that nobody knows":    {answering("?????", "Content-Encoding: x-new"), "?????"},
		"gzip, whole without the last one": {breaking(packed, "Content-Encoding: gzip"), packed},
		"gzip that unpacks to very much":   {answering(gzipped(strings.Repeat(" ", 2<<20)), "Content-Encoding: gzip"), gzipped(strings.Repeat(" ", 2<<20))},

		"cut off":                          {breaking(message(short)[:short-1]), ""},
		"cut off after one byte":           {breaking("{"), ""},
		"cut off before what is announced": {breaking(message(short)[:short/2], announced(short)), ""},
		"all but the announced last byte":  {breaking(message(short), announced(short+1)), ""},
		"ended too soon":                   {answering(message(short)[:short-1]), ""},
		"ended amid a string":              {answering(message(short)[:short/2]), ""},
		"no end of it":                     {answering(message(short) + "]"), ""},
		"two of them":                      {answering(message(short) + message(short)), ""},
		"cut off just below what is held":  {breaking(message(plainMost)[:plainMost-1]), ""},
		"gzip, cut off":                    {breaking(packed[:len(packed)/2], "Content-Encoding: gzip"), ""},
		"gzip, ended too soon":             {answering(packed[:len(packed)-9], "Content-Encoding: gzip"), ""},
		"gzip of half an answer":           {answering(gzipped(message(short)[:short/2]), "Content-Encoding: gzip"), ""},
		"an unknown encoding, cut off":     {breaking("?????", "Content-Encoding: x-new"), ""},
		"no gzip at all":                   {answering(message(short), "Content-Encoding: gzip"), ""},
	} {
		for _, path := range []string{"/v1/messages", "/v1/messages/count_tokens"} {
			t.Run(name+" from "+path, func(t *testing.T) {
				l := newLab(t, "a", "b")
				other := message(999)
				l.fakes["a"].set(tt.answer)
				l.fakes["b"].set(answering(other))
				r, body, broken := l.plainly(path)
				switch {
				case broken != nil || r.Answer == nil:
					t.Fatalf("%+v, %v", r, broken)
				case tt.whole == "" && (r.Upstream != "b" || body != other || r.Attempts != 2):
					t.Errorf("served by %s after %d attempts: %.100q", r.Upstream, r.Attempts, body)
				case tt.whole != "" && (r.Upstream != "a" || body != tt.whole || l.asked("b") != 0):
					t.Errorf("served by %s: %d bytes, want %d", r.Upstream, len(body), len(tt.whole))
				}
				if tt.whole != "" {
					return
				}
				l = newLab(t, "a")
				l.fakes["a"].set(tt.answer)
				if r, _, _ := l.plainly(path); r.Failure == nil || r.Failure.Own == nil || r.Failure.Status != 502 {
					t.Errorf("alone: %+v", r)
				}
			})
		}
	}
}

// Once more has come than is held back, the answer belongs to its upstream.
func TestALongPlainAnswerThatBreaksOffIsNotEndedCleanly(t *testing.T) {
	l := newLab(t, "a", "b")
	l.fakes["a"].set(breaking(message(100_000)[:90_000]))
	r, body, broken := l.plainly("/v1/messages")
	if r.Upstream != "a" || len(body) != 90_000 || !errors.Is(broken, io.ErrUnexpectedEOF) || l.asked("b") != 0 {
		t.Errorf("%+v, %d bytes, %v", r, len(body), broken)
	}
}

// An upstream that sends whitespace until it has its answer keeps the client patient, which holding it back would undo.
func TestWhitespaceIsNotHeldBack(t *testing.T) {
	l := newLab(t, "a")
	begun := make(chan struct{})
	l.fakes["a"].set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "\n")
		_ = http.NewResponseController(w).Flush()
		<-begun
		_, _ = io.WriteString(w, message(700))
	})
	x := exchangeOf(t, "")
	r, err := l.pool.Do(t.Context(), policy.Target{Upstreams: l.ups}, x)
	close(begun)
	if err != nil || r.Answer == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	body, err := io.ReadAll(r.Answer.Response.Body)
	_ = r.Answer.Response.Body.Close()
	if err != nil || string(body) != "\n"+message(700) {
		t.Errorf("%v: %q", err, body)
	}
}

// Answers share buffers one after the other, and never at the same time.
func TestPlainAnswersAtOnce(t *testing.T) {
	var buffers plainBuffers
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			text := strings.Repeat(strconv.Itoa(i), 3000)
			for range 200 {
				body, err := buffers.hold(&wire.Response{ContentLength: -1, Body: io.NopCloser(iotest.HalfReader(strings.NewReader(text)))})
				got, readErr := io.ReadAll(body)
				if string(got) != text || !errors.Is(err, io.EOF) || readErr != nil {
					t.Errorf("%.20q of %.20q, %v, %v", got, text, err, readErr)
				}
				_, _ = body.Close(), body.Close() // the second one gives nothing back
			}
		})
	}
	all.Wait()
}

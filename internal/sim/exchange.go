package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// exchange is one request on its way to an answer.
type exchange struct {
	s    *Server
	w    http.ResponseWriter
	r    *http.Request
	ctx  context.Context
	rec  *Request
	cred *credential
	rate map[string]string // rate-limit headers, and retry-after for a 429

	f         Fault
	faulty    bool // f is in force and wants to decide the status or the body
	bodySum   [32]byte
	bodyBytes int64
	model     string
	stream    bool
	usage     jsontext.Value
	free      bool // the message declined before any output
	status    int
	sum       hash.Hash
	sink      *sink
	done      bool
}

func (s *Server) exchange(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{s: s, w: w, r: r, ctx: r.Context(), sum: sha256.New(), bodySum: sha256.Sum256(nil)}
	x.rec = s.begin(r, len(methods(r.URL.Path)) > 0)
	return x
}

// methods returns the methods of a path, none for an unknown one.
func methods(path string) []string {
	switch path {
	case "/", "/api/hello":
		return []string{http.MethodHead, http.MethodGet}
	case "/v1/messages", "/v1/messages/count_tokens":
		return []string{http.MethodPost}
	case "/v1/models":
		return []string{http.MethodGet}
	}
	if id, ok := strings.CutPrefix(path, "/v1/models/"); ok && id != "" && !strings.Contains(id, "/") {
		return []string{http.MethodGet}
	}
	return nil
}

// close records the outcome, also while a panic aborts the connection.
func (x *exchange) close() {
	gone := !x.done && x.ctx.Err() != nil
	x.s.end(x.rec, func(rec *Request) {
		if x.cred != nil {
			rec.Credential = x.cred.Name
		}
		rec.free = x.free
		rec.BodyBytes, rec.BodySHA256 = x.bodyBytes, hex.EncodeToString(x.bodySum[:])
		rec.Model, rec.Stream, rec.Status, rec.Usage, rec.ClientGone = x.model, x.stream, x.status, x.usage, gone
		rec.ResponseSHA256 = hex.EncodeToString(x.sum.Sum(nil))
		if x.sink != nil {
			rec.ResponseBytes = x.sink.written
		}
	})
	x.s.log.LogAttrs(x.ctx, levelOf(x.status), "request", attrs(x.rec, gone)...)
}

func (x *exchange) serve() {
	path := x.r.URL.Path
	allowed := methods(path)
	switch {
	case len(allowed) == 0:
		x.readBody()
		x.fail(notFound("Not Found"))
		return
	case !slices.Contains(allowed, x.r.Method):
		x.readBody()
		x.fail(&apiError{
			Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Message: "Method Not Allowed",
			Header: map[string]string{"allow": strings.Join(allowed, ", ")},
		})
		return
	case path == "/" || path == "/api/hello":
		x.sendJSON(http.StatusOK, struct{}{})
		return
	}
	if err := x.authenticate(); err != nil {
		x.readBody()
		x.fail(err)
		return
	}
	if f, ok := x.s.pick(x.cred, path, "", true); ok {
		x.f, x.faulty = f, true
		x.early()
		return
	}
	body, err := x.readBody()
	if err != nil {
		x.fail(err)
		return
	}
	x.route(path, body)
}

// authenticate finds the credential in either header. One right header is enough, whatever the other one holds.
func (x *exchange) authenticate() *apiError {
	key := strings.TrimSpace(x.r.Header.Get("X-Api-Key"))
	scheme, token, _ := strings.Cut(x.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "bearer") {
		token = ""
	}
	if key == "" && token == "" {
		return unauthorized("x-api-key header is required")
	}
	if x.cred = x.s.credential(key); x.cred == nil {
		x.cred = x.s.credential(token)
	}
	if x.cred == nil {
		return unauthorized("invalid x-api-key")
	}
	if x.r.Header.Get("Anthropic-Version") == "" {
		return invalid("anthropic-version: header is required")
	}
	return nil
}

// readBody reads and hashes the whole body, up to the limit.
func (x *exchange) readBody() ([]byte, *apiError) {
	if x.r.ContentLength > MaxBody {
		return nil, x.tooLarge()
	}
	var buf bytes.Buffer
	if x.r.ContentLength > 0 {
		buf.Grow(int(x.r.ContentLength) + bytes.MinRead)
	}
	n, err := io.Copy(&buf, io.LimitReader(x.r.Body, MaxBody+1))
	x.bodyBytes, x.bodySum = n, sha256.Sum256(buf.Bytes())
	if err != nil {
		return nil, invalid("cannot read the request body: " + err.Error())
	}
	if n > MaxBody {
		return nil, x.tooLarge()
	}
	return buf.Bytes(), nil
}

func (x *exchange) tooLarge() *apiError {
	kind, message := statusError(http.StatusRequestEntityTooLarge)
	return &apiError{Status: http.StatusRequestEntityTooLarge, Type: kind, Message: message}
}

// early answers without having read the body, which the client may still be sending.
func (x *exchange) early() {
	rc := http.NewResponseController(x.w)
	_ = rc.EnableFullDuplex()
	defer func() { _, _ = x.readBody() }()
	if x.before() != nil {
		return
	}
	if x.f.Status != 0 || x.f.Body != "" {
		x.sendFault()
		return
	}
	x.stream = true
	q := &request{Model: x.s.models[0].ID, Stream: true}
	x.sendAnswer(q, x.s.answer(x, q, step{Text: "An early answer."}, true, 0))
}

// before does what a fault wants to happen ahead of the response headers. An error means that there is no answer to send.
func (x *exchange) before() error {
	if err := wait(x.ctx, time.Duration(x.f.DelayMS)*time.Millisecond); err != nil {
		return err
	}
	if x.f.Hold != "" && x.f.Cut != "stall" {
		if err := x.s.hold(x.ctx, x.f.Hold); err != nil {
			return err
		}
	}
	if x.f.Cut == "drop" || x.f.Cut == "drop_reset" {
		hangUp(http.NewResponseController(x.w), x.f.Cut == "drop_reset")
		return cutError{x.f.Cut}
	}
	return nil
}

// stall is the silence in the middle of a body: for a time, until a release, or until the client goes.
func (x *exchange) stall() error {
	ctx := x.ctx
	if x.f.StallMS > 0 {
		timed, cancel := context.WithTimeout(ctx, time.Duration(x.f.StallMS)*time.Millisecond)
		defer cancel()
		ctx = timed
	}
	if err := x.sink.rc.Flush(); err != nil {
		return fmt.Errorf("cannot flush the response: %w", err)
	}
	var err error
	switch {
	case x.f.Hold != "":
		err = x.s.hold(ctx, x.f.Hold)
	case x.f.PingMS > 0:
		for err == nil {
			if err = wait(ctx, time.Duration(x.f.PingMS)*time.Millisecond); err == nil {
				err = x.sink.send([]byte("event: ping\ndata: {\"type\": \"ping\"}\n\n"))
			}
		}
	default:
		<-ctx.Done()
		err = ctx.Err()
	}
	if x.ctx.Err() != nil {
		return x.ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// header sets the headers of every answer and those of the fault.
func (x *exchange) header(contentType string) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Request-Id", x.rec.RequestID)
	h.Set("Server", "cloudflare")
	h.Set("Cf-Ray", ident("", 16, x.s.seed[:], "ray"+x.rec.RequestID, 0)+"-SIM")
	if x.cred != nil {
		h.Set("Anthropic-Organization-Id", x.cred.Organization)
	}
	for name, v := range x.rate {
		if name != "retry-after" {
			h.Set(name, v)
		}
	}
	for name, v := range x.f.Headers {
		if v == "" {
			h.Del(name)
			continue
		}
		h.Set(name, v)
	}
}

// sendBody sends a body that is no stream.
func (x *exchange) sendBody(status int, contentType string, body []byte) {
	x.header(contentType)
	h := x.w.Header()
	if x.f.Encoding == "" && x.f.Cut != "clean" && x.f.Cut != "error" && x.f.Cut != "garbage" {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	e := x.open(status, false, func() int { return 1 })
	if x.r.Method == http.MethodHead {
		x.done = true
		return
	}
	x.done = e.finish(e.plain(body)) == nil
}

// open sends the response head and returns the way to send the body.
func (x *exchange) open(status int, flush bool, total func() int) *emitter {
	x.status = status
	x.sink = &sink{
		ctx: x.ctx, w: x.w, rc: http.NewResponseController(x.w), f: x.f, sum: x.sum, flush: flush, stall: x.stall,
	}
	e := newEmitter(x.sink, x.f, total, func(ms int) error { return wait(x.ctx, time.Duration(ms)*time.Millisecond) })
	if x.f.Encoding != "" {
		x.w.Header().Set("Content-Encoding", x.f.Encoding)
	}
	x.w.WriteHeader(status)
	if flush || x.f.Cut != "" {
		_ = x.sink.rc.Flush()
	}
	return e
}

func (x *exchange) sendJSON(status int, v any) {
	x.sendBody(status, "application/json", value(v))
}

// fail sends an error in the API's envelope.
func (x *exchange) fail(err *apiError) {
	for name, v := range err.Header {
		x.w.Header().Set(name, v)
	}
	x.sendJSON(err.Status, errorBody{
		Type: "error", Error: errorDetail{Type: err.Type, Message: err.Message}, RequestID: x.rec.RequestID,
	})
}

// sendFault sends the error, redirect or odd body that the fault asks for.
func (x *exchange) sendFault() {
	status := x.f.Status
	if status == 0 {
		status = http.StatusOK
	}
	if status >= 300 && status < 400 && x.f.Location != "" {
		x.w.Header().Set("Location", x.f.Location)
	}
	switch x.f.Body {
	case "html":
		x.sendBody(status, "text/html; charset=UTF-8", fmt.Appendf(nil,
			"<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n<center><h1>%d %s</h1></center>\r\n</body>\r\n</html>\r\n",
			status, http.StatusText(status), status, http.StatusText(status)))
		return
	case "empty":
		kind := "application/json"
		if x.stream && status == http.StatusOK {
			kind = "text/event-stream; charset=utf-8"
		}
		x.sendBody(status, kind, nil)
		return
	case "garbage":
		x.sendBody(status, "application/json", garbage())
		return
	}
	kind, message := statusError(status)
	if x.f.Type != "" {
		kind = x.f.Type
	}
	if x.f.Message != "" {
		message = x.f.Message
	}
	x.fail(&apiError{Status: status, Type: kind, Message: message})
}

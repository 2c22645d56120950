package anthropic

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Error types of the Anthropic API ("Errors" in its documentation).
const (
	TypeInvalidRequest = "invalid_request_error"
	TypeAuthentication = "authentication_error"
	TypePermission     = "permission_error"
	TypeNotFound       = "not_found_error"
	TypeTooLarge       = "request_too_large"
	TypeRateLimit      = "rate_limit_error"
	TypeAPI            = "api_error"
	TypeTimeout        = "timeout_error"
	TypeOverloaded     = "overloaded_error"
	TypeBilling        = "billing_error"
)

// StatusOverloaded is the API's own status for "at capacity"; net/http has no name for it.
const StatusOverloaded = 529

// maxMessage bounds the message that a client is shown, in bytes: some messages quote what the client sent.
const maxMessage = 2048

// HeaderField is one response header.
type HeaderField struct {
	Name  string // lower case, as on the wire
	Value string
}

// Error is an error that the client sees. Status, Type and Message are for the client; Cause is for the log and is never rendered.
// An Error is immutable once made; the constructors of this package return one whose headers make every released Claude Code client
// react as it should: retry what passes by itself, and stop at once for what does not.
type Error struct {
	Status  int           // HTTP status
	Type    string        // one of the Type constants
	Message string        // one sentence that says what to do; Claude Code shows it to the developer
	Header  []HeaderField // besides content-type and request-id
	Cause   error         // may be nil
}

// Error describes the error for the log, with its cause.
func (e *Error) Error() string {
	s := e.Type + " (" + strconv.Itoa(e.Status) + "): " + e.Message
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause, which may be nil.
func (e *Error) Unwrap() error { return e.Cause }

// WithCause returns a copy of e with a cause for the log.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Body renders the error as a response body:
//
//	{"type":"error","error":{"type":"…","message":"…"},"request_id":"…"}
//
// The keys stand in this order and without spaces. Bytes that are not UTF-8 become U+FFFD. An empty requestID leaves request_id out.
func (e *Error) Body(requestID string) []byte {
	b := make([]byte, 0, 96+len(e.Message)+len(requestID))
	b = append(b, `{"type":"error","error":{"type":`...)
	b = appendQuoted(b, e.Type)
	b = append(b, `,"message":`...)
	b = appendQuoted(b, e.Message)
	b = append(b, '}')
	if requestID != "" {
		b = append(b, `,"request_id":`...)
		b = appendQuoted(b, requestID)
	}
	return append(b, '}')
}

// ErrorEvent makes a server-sent event of the body of an error, for a stream whose status has already been sent. An event's data is
// one line; line breaks in JSON stand between its parts only.
func ErrorEvent(body []byte) []byte {
	line := bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, body)
	return slices.Concat([]byte("event: error\ndata: "), line, []byte("\n\n"))
}

// appendQuoted appends s as a JSON string.
func appendQuoted(b []byte, s string) []byte {
	// The error reports invalid UTF-8 in s, which AppendQuote has replaced by U+FFFD: the result is valid JSON either way.
	b, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	return b
}

func newError(status int, typ, message string, header ...HeaderField) *Error {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return &Error{Status: status, Type: typ, Message: message, Header: header}
}

func shouldNotRetry() HeaderField { return HeaderField{"x-should-retry", "false"} }

func retryAfter(seconds int64) HeaderField {
	return HeaderField{"retry-after", strconv.FormatInt(seconds, 10)}
}

// throttleSeconds brings a waiting time into 1 to 60 seconds: current Claude Code clients give up at once when told to wait longer.
func throttleSeconds(seconds int) int64 { return int64(min(max(seconds, 1), 60)) }

// ErrUnauthenticated (401) says that no usable credential came with the request. Without x-should-retry the client would go on trying
// for about three minutes.
func ErrUnauthenticated(message string) *Error {
	return newError(401, TypeAuthentication, message, shouldNotRetry())
}

// ErrPermission (403) says that the user is known and not allowed.
func ErrPermission(message string) *Error {
	return newError(403, TypePermission, message, shouldNotRetry())
}

// ErrInvalidRequest (400) says what is wrong with the request. Current clients repeat a plain 400 up to six times with fewer features
// each time, so answering it must be cheap.
func ErrInvalidRequest(message string) *Error {
	return newError(400, TypeInvalidRequest, message)
}

// ErrNotFound (404) says that there is no such endpoint or object.
func ErrNotFound(message string) *Error {
	return newError(404, TypeNotFound, message)
}

// ErrModelNotFound (404) says that model is unknown here or not permitted to the caller, and names what is permitted (may be empty). A
// 404 costs the client two requests and makes it point at the selected model; a 400 would cost six.
func ErrModelNotFound(model string, permitted []string) *Error {
	const maxListed = 20
	m := "model: " + model + " is not available here."
	switch n := len(permitted); {
	case n == 0:
		m += " No model is permitted for this key; ask the operator of this gateway."
	case n <= maxListed:
		m += " Permitted: " + strings.Join(permitted, ", ") + "."
	default:
		m += fmt.Sprintf(" Permitted: %s and %d more.", strings.Join(permitted[:maxListed], ", "), n-maxListed)
	}
	return newError(404, TypeNotFound, m)
}

// ErrTooLarge (413) says that the body exceeds limit bytes. The client then compacts the conversation or drops media.
func ErrTooLarge(limit int64) *Error {
	return newError(413, TypeTooLarge, fmt.Sprintf("Request exceeds the maximum allowed size of %d bytes.", limit))
}

// ErrRateLimit (429) is a throttle that clears by itself. retryAfterSeconds is brought into 1 to 60, because current clients give up at
// once when told to wait longer; what takes longer to clear is [ErrQuota].
func ErrRateLimit(message string, retryAfterSeconds int) *Error {
	return newError(429, TypeRateLimit, message, retryAfter(throttleSeconds(retryAfterSeconds)))
}

// ErrLimitStore (429) says that the limits could not be read and that the policy is to refuse in that case.
func ErrLimitStore() *Error {
	return newError(429, TypeBilling, "spend limit unavailable",
		shouldNotRetry(), HeaderField{unified + "overage-disabled-reason", "fetch_error"})
}

// ErrUnwritable (503) says that the gateway cannot write its books, without which it sends nothing. It passes as soon as somebody has
// made room.
func ErrUnwritable(cause error) *Error {
	return newError(503, TypeAPI, "This gateway cannot write its books, so the request was not sent; try again in a moment. "+
		"If it lasts, the operator should make room on the gateway's disk or make its data writable again; the server's log says what is wrong.",
		retryAfter(5)).WithCause(cause)
}

// ErrOverloaded (529) says that every upstream is at capacity; the client backs off and retries. retryAfterSeconds ≤ 0 leaves the wait
// to the client, more is brought into 1 to 60.
func ErrOverloaded(retryAfterSeconds int) *Error {
	var h []HeaderField
	if retryAfterSeconds > 0 {
		h = append(h, retryAfter(throttleSeconds(retryAfterSeconds)))
	}
	return newError(StatusOverloaded, TypeOverloaded, "Overloaded: every upstream for this model is at capacity; try again in a moment.", h...)
}

// ErrUpstream (502) says that every upstream failed before it answered.
func ErrUpstream(cause error) *Error {
	return newError(502, TypeAPI, "No upstream could answer this request; try again in a moment.").WithCause(cause)
}

// ErrUpstreamTimeout (504) says that no upstream sent response headers in time.
func ErrUpstreamTimeout(cause error) *Error {
	return newError(504, TypeTimeout, "The upstream did not answer in time; try again in a moment.").WithCause(cause)
}

// ErrDraining (503) says that this node is shutting down or not ready yet; another one, or the same a little later, will answer.
func ErrDraining() *Error {
	return newError(503, TypeAPI, "This gateway is restarting; try again in a moment.", retryAfter(2))
}

// ErrInternal (500) says that the gateway itself is at fault. The cause is for the log only.
func ErrInternal(cause error) *Error {
	return newError(500, TypeAPI, "Internal server error.").WithCause(cause)
}

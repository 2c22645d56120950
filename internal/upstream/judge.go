package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

// maxErrorBody bounds how much of an error answer is read into memory.
const maxErrorBody = 1 << 20

// Failure is an answer without a result, as the client is to get it.
type Failure struct {
	Status int
	Head   wire.Head
	Body   []byte
	Type   string           // error.type, for the ledger
	Own    *anthropic.Error // instead of the above: what the client gets in place of an answer that would mislead it
}

// newFailure makes what the client gets of an answer that is not a success. An error in the API's format passes
// unmodified, since the client's recovery goes by its exact wording. A rejected credential is the operator's matter: shown
// as it is, the client would ask the developer to sign in again, after three minutes of trying.
func newFailure(upstream string, status int, head wire.Head, body []byte, broken error) *Failure {
	cause := fmt.Errorf("upstream %q answered %s", upstream, said(status, head, body))
	switch {
	case brokeOff(body, broken):
		return own(anthropic.ErrUpstream(fmt.Errorf("upstream %q answered %d and broke off: %w", upstream, status, broken)))
	case status == 401 || status == 403:
		return own(credentialRefused(cause))
	case status < 400:
		return own(anthropic.ErrUpstream(cause))
	case broken != nil || len(body) > maxErrorBody || !isErrorObject(head, body):
		e := statusError(status, cause)
		for _, name := range []string{"retry-after", "x-should-retry"} { // when to come back is not in the body
			if value := head.Get(name); value != "" {
				e.Header = append(e.Header, anthropic.HeaderField{Name: name, Value: value})
			}
		}
		return own(e)
	}
	return &Failure{Status: status, Head: ResponseHead(head), Body: body, Type: errorTypeOf(status, body)}
}

func credentialRefused(cause error) *anthropic.Error {
	e := anthropic.ErrUpstream(cause)
	e.Message = "The upstream refused this gateway's credential. This is not about your key; tell the operator of the gateway."
	e.Header = append(e.Header, anthropic.HeaderField{Name: "x-should-retry", Value: "false"})
	return e
}

// rateReached stands for an upstream that said when to come back. That is handed on even when it is long: current clients then
// give up at once, as they do at the upstream itself, instead of trying for minutes.
func rateReached(seconds int, cause error) *anthropic.Error {
	e := anthropic.ErrRateLimit("The upstream's rate limit is reached. Try again later.", seconds).WithCause(cause)
	const retried = 60 // seconds that current clients wait for
	if seconds > retried {
		e.Header = []anthropic.HeaderField{{Name: "retry-after", Value: strconv.Itoa(seconds)}}
	}
	return e
}

// paymentDue stands for an upstream that is left alone because its account has not paid; repeating is useless for minutes.
func paymentDue(cause error) *anthropic.Error {
	e := anthropic.ErrUpstream(cause)
	e.Message = "The upstream account of this gateway has trouble with its payment. Tell the operator of the gateway."
	e.Header = append(e.Header, anthropic.HeaderField{Name: "x-should-retry", Value: "false"})
	return e
}

// isErrorObject reports whether a body can be the API's error object. A compressed one is taken at its word.
func isErrorObject(head wire.Head, body []byte) bool {
	if encoded(head) {
		return strings.Contains(strings.ToLower(head.Get("Content-Type")), "json")
	}
	return beginsObject(body)
}

// isObject reports whether a success can be the API's object, by its type, where it has one, and by how it begins.
func isObject(contentType string, start []byte) bool {
	if contentType != "" && !strings.Contains(contentType, "json") {
		return false
	}
	return beginsObject(start) || len(bytes.TrimSpace(start)) == 0
}

func beginsObject(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
}

func encoded(head wire.Head) bool {
	encoding := head.Get("Content-Encoding")
	return encoding != "" && !strings.EqualFold(encoding, "identity")
}

// errorEvent judges a stream that begins with an error event, as if the upstream had answered with that error; o is nil when it
// cannot be read.
func errorEvent(upstream string, event []byte, now time.Time) (o *outcome, final bool) {
	_, data, ok := bytes.Cut(event, []byte("data:"))
	if !ok {
		return nil, false
	}
	data, _, _ = bytes.Cut(data, []byte("\n"))
	data = bytes.TrimSpace(data)
	head := wire.Head{{Name: "Content-Type", Value: "application/json"}}
	return failed(upstream, statusOf(errorTypeOf(0, data)), head, data, nil, now)
}

// statusOf is the status that goes with an error's type.
func statusOf(kind string) int {
	switch kind {
	case anthropic.TypeInvalidRequest:
		return 400
	case anthropic.TypeAuthentication:
		return 401
	case anthropic.TypeBilling:
		return 402
	case anthropic.TypePermission:
		return 403
	case anthropic.TypeNotFound:
		return 404
	case anthropic.TypeTooLarge:
		return 413
	case anthropic.TypeRateLimit:
		return 429
	case anthropic.TypeTimeout:
		return 504
	case anthropic.TypeOverloaded:
		return anthropic.StatusOverloaded
	}
	return 500
}

// statusError stands for an answer whose body is a web page or empty: the same status in the API's format.
func statusError(status int, cause error) *anthropic.Error {
	e := anthropic.ErrUpstream(cause)
	e.Status, e.Type = status, errorType(status)
	e.Message = fmt.Sprintf("The upstream answered %d without an explanation.", status)
	return e
}

// errorTypeOf reads error.type out of an answer, or derives it from the status where it cannot be read.
func errorTypeOf(status int, body []byte) string {
	var e struct {
		Error struct {
			Type string `json:"type"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) == nil && e.Error.Type != "" && len(e.Error.Type) <= 64 {
		return e.Error.Type
	}
	return errorType(status)
}

func errorType(status int) string {
	switch status {
	case 400, 422:
		return anthropic.TypeInvalidRequest
	case 404:
		return anthropic.TypeNotFound
	case 413:
		return anthropic.TypeTooLarge
	case 429:
		return anthropic.TypeRateLimit
	case 504:
		return anthropic.TypeTimeout
	case anthropic.StatusOverloaded:
		return anthropic.TypeOverloaded
	}
	return anthropic.TypeAPI
}

// brokeOff reports whether an error answer ended before it said anything. One that is only slow has said its status.
func brokeOff(body []byte, broken error) bool {
	return broken != nil && len(body) == 0 && !errors.Is(broken, errSlow)
}

// said describes an error answer for the operator's log. Its message is left out: it may quote the prompt.
func said(status int, head wire.Head, body []byte) string {
	text := fmt.Sprintf("status %d, %s", status, errorTypeOf(status, body))
	if id := head.Get("Request-Id"); id != "" {
		text += ", request " + id[:min(len(id), 64)]
	}
	return text
}

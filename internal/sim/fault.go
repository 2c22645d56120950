package sim

import (
	"errors"
	"fmt"
)

// Fault is a deliberate misbehaviour of an answer. The zero value misbehaves in no way. [Usage] explains every field.
type Fault struct {
	Status   int               `json:"status,omitzero"`
	Type     string            `json:"type,omitzero"`
	Message  string            `json:"message,omitzero"`
	Body     string            `json:"body,omitzero"` // "", "html", "empty" or "garbage"
	Location string            `json:"location,omitzero"`
	Headers  map[string]string `json:"headers,omitzero"`

	DelayMS int    `json:"delay_ms,omitzero"`
	Hold    string `json:"hold,omitzero"`
	Early   bool   `json:"early,omitzero"`

	Cut     string `json:"cut,omitzero"` // "", "reset", "abort", "clean", "error", "garbage", "stall", "drop" or "drop_reset"
	AtEvent int    `json:"at_event,omitzero"`
	AtByte  int64  `json:"at_byte,omitzero"`
	StallMS int    `json:"stall_ms,omitzero"`
	PingMS  int    `json:"ping_ms,omitzero"`
	EveryMS int    `json:"every_ms,omitzero"`

	Encoding      string `json:"encoding,omitzero"` // "", "gzip" or "br"
	Write         int    `json:"write,omitzero"`
	SplitUTF8     bool   `json:"split_utf8,omitzero"`
	CRLF          bool   `json:"crlf,omitzero"`
	Comments      bool   `json:"comments,omitzero"`
	UnknownEvents bool   `json:"unknown_events,omitzero"`
	LongLine      int    `json:"long_line,omitzero"`

	Skip       int    `json:"skip,omitzero"`
	Times      int    `json:"times,omitzero"`
	Path       string `json:"path,omitzero"`
	Model      string `json:"model,omitzero"`
	Credential string `json:"credential,omitzero"`
}

// maxLongLine bounds Fault.LongLine in bytes.
const maxLongLine = 16 << 20

// Validate reports the first field that has no meaning.
func (f Fault) Validate() error {
	switch f.Cut {
	case "", "reset", "abort", "clean", "error", "garbage", "stall", "drop", "drop_reset":
	default:
		return fmt.Errorf("cut: %q is none of reset, abort, clean, error, garbage, stall, drop, drop_reset", f.Cut)
	}
	switch f.Body {
	case "", "html", "empty", "garbage":
	default:
		return fmt.Errorf("body: %q is none of html, empty, garbage", f.Body)
	}
	switch f.Encoding {
	case "", "gzip", "br":
	default:
		return fmt.Errorf("encoding: %q is neither gzip nor br", f.Encoding)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 999) {
		return fmt.Errorf("status: %d is not between 200 and 999", f.Status)
	}
	if f.DelayMS < 0 || f.StallMS < 0 || f.PingMS < 0 || f.EveryMS < 0 || f.Write < 0 || f.AtByte < 0 ||
		f.LongLine < 0 || f.Skip < 0 || f.Times < 0 {
		return errors.New("a number other than at_event is negative")
	}
	if f.LongLine > maxLongLine {
		return fmt.Errorf("long_line: %d is more than %d", f.LongLine, maxLongLine)
	}
	return nil
}

// selects reports whether the fault is meant for a request. An empty selector selects every request.
func (f Fault) selects(path, model, credential string) bool {
	return (f.Path == "" || f.Path == path) &&
		(f.Model == "" || f.Model == model) &&
		(f.Credential == "" || f.Credential == credential)
}

// due reports whether the fault applies to the n-th request it selects, counted from 0.
func (f Fault) due(n int) bool {
	return n >= f.Skip && (f.Times == 0 || n < f.Skip+f.Times)
}

// armed is a credential's fault with the number of requests it has selected so far.
type armed struct {
	Fault
	seen int
}

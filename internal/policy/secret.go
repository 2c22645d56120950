package policy

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "********"

// Secret is a credential in memory. Every way of printing it by accident (fmt, slog, JSON, YAML) gives a fixed mask;
// only Reveal returns the text.
type Secret struct {
	// fmt cannot call the methods of a value in somebody's unexported field and prints its insides instead: of a pointer
	// that is an address.
	text *string
}

// NewSecret wraps a credential.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the credential itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no credential.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

func (s Secret) String() string { return redacted }

// Format masks the secret for every verb, %#v, %x and %d included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue masks the secret for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON masks the secret.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalYAML masks the secret.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

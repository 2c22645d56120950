package anthropic

import "strings"

// Client is what a User-Agent says about the program that sent a request. Every value is chosen by the sender: use it for statistics,
// never for authorisation. All fields are printable ASCII of bounded length. Name is one of a fixed set and may be a metric label;
// Version and Entry may be kept in a ledger, but their number of values is not bounded.
type Client struct {
	Name    string // "claude-cli", "claude-code", "Anthropic/JS", …, "other"; "" without a User-Agent
	Version string // "2.1.330"; at most 32 bytes of [0-9A-Za-z.+-] starting with a digit, else ""
	Entry   string // how the CLI was started: "cli", "sdk-cli", …; at most 32 bytes of [0-9A-Za-z._-], else ""
}

// IsClaudeCode reports whether the sender calls itself Claude Code, the CLI or its model discovery.
func (c Client) IsClaudeCode() bool { return c.Name == "claude-cli" || c.Name == "claude-code" }

// ParseUserAgent reads a User-Agent of the forms
//
//	claude-cli/2.1.330 (external, sdk-cli)
//	claude-code/2.1.330
//	Anthropic/JS 0.70.0
//
// It accepts anything and costs no more than the first 256 bytes.
func ParseUserAgent(ua string) Client {
	ua = ua[:min(len(ua), 256)]
	product, rest, _ := strings.Cut(strings.TrimSpace(ua), " ")
	if product == "" {
		return Client{}
	}
	name, version, _ := strings.Cut(product, "/")
	if lang := version; name == "Anthropic" || name == "AsyncAnthropic" {
		// The SDKs write "Anthropic/<language> <version>".
		name = "Anthropic/" + lang
		version, _, _ = strings.Cut(rest, " ")
	}
	c := Client{Name: knownClient(name), Version: boundedVersion(version)}
	if c.Name == "claude-cli" {
		c.Entry = entryPoint(rest)
	}
	return c
}

// knownClient keeps the number of names bounded: senders choose them freely.
func knownClient(name string) string {
	switch name {
	case "claude-cli", "claude-code", "curl",
		"Anthropic/JS", "Anthropic/Python", "Anthropic/Go", "Anthropic/Java", "Anthropic/Ruby", "Anthropic/PHP", "Anthropic/CSharp":
		return name
	}
	return "other"
}

func boundedVersion(v string) string {
	if v == "" || v[0] < '0' || v[0] > '9' || !boundedToken(v, ".+-") {
		return ""
	}
	return v
}

// entryPoint reads the last item of the comment "(external, sdk-cli)".
func entryPoint(rest string) string {
	_, inner, ok := strings.Cut(rest, "(")
	if !ok {
		return ""
	}
	inner, _, ok = strings.Cut(inner, ")")
	if !ok {
		return ""
	}
	item := strings.TrimSpace(inner[strings.LastIndexByte(inner, ',')+1:])
	if !boundedToken(item, "._-") {
		return ""
	}
	return item
}

// boundedToken reports whether s has 1 to 32 bytes, all of them letters, digits or in extra.
func boundedToken(s, extra string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(extra, s[i]) < 0 {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// NormalizeModel brings a model name into the form in which it is matched against policy: trimmed, lower case, without the suffix
// "[1m]" by which Claude Code marks a long-context selection. It is idempotent.
func NormalizeModel(model string) string {
	m := strings.ToLower(strings.TrimSpace(model))
	for {
		t := strings.TrimSpace(strings.TrimSuffix(m, "[1m]"))
		if t == m {
			return m
		}
		m = t
	}
}

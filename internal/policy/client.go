package policy

import (
	"cmp"
	"slices"
	"strings"

	"carpool/internal/anthropic"
)

// What happens to a request of a program that the client policy objects to.
const (
	RequireOff     = "off"
	RequireWarn    = "warn"
	RequireEnforce = "enforce"
)

// ClientPolicy says which programs are served. The zero value serves all. A User-Agent is the sender's own claim: the
// policy keeps developers on versions that work, it does not keep anybody out who lies.
type ClientPolicy struct {
	Disabled          bool     // Claude Code is not served at all
	Require           string   // one of the Require constants; "" is off
	MinVersion        string   // oldest version of Claude Code; "" for any
	SupportedVersions []string // exact versions of Claude Code; empty for any
}

// Objection is what the client policy has against a program; "" is nothing. It is a metric label.
type Objection string

// The objections.
const (
	ObjectionDisabled    Objection = "disabled"            // Claude Code is not served
	ObjectionOtherClient Objection = "other_client"        // it is not Claude Code, or does not say which version
	ObjectionOldVersion  Objection = "old_version"         // older than MinVersion
	ObjectionUnsupported Objection = "unsupported_version" // not one of SupportedVersions
)

// Active reports whether the policy has anything to say.
func (p *ClientPolicy) Active() bool {
	return p.Disabled || p.Require == RequireEnforce || p.Require == RequireWarn
}

// Judge returns what the policy has against a program, and whether that refuses its requests.
func (p *ClientPolicy) Judge(c anthropic.Client) (against Objection, refused bool) {
	enforced := p.Require == RequireEnforce
	switch {
	case p.Disabled && (enforced || c.IsClaudeCode()):
		return ObjectionDisabled, true
	case !enforced && p.Require != RequireWarn:
		return "", false
	case !c.IsClaudeCode() || !IsVersion(c.Version):
		return ObjectionOtherClient, enforced
	case len(p.SupportedVersions) > 0 && !slices.Contains(p.SupportedVersions, c.Version):
		return ObjectionUnsupported, enforced
	case p.MinVersion != "" && CompareVersions(c.Version, p.MinVersion) < 0:
		return ObjectionOldVersion, enforced
	}
	return "", false
}

// Wanted is the version of Claude Code to install, as npm takes it: the newest that the policy names exactly, else latest.
func (p *ClientPolicy) Wanted() string {
	newest := ""
	for _, v := range p.SupportedVersions {
		if newest == "" || CompareVersions(v, newest) > 0 {
			newest = v
		}
	}
	return cmp.Or(newest, "latest")
}

// IsVersion reports whether v is a version such as 2.1.330 or 2.1.330-beta.1: three numbers, and perhaps more after a
// hyphen or a plus sign.
func IsVersion(v string) bool {
	_, _, ok := parseVersion(v)
	return ok
}

// CompareVersions orders versions by their three numbers. Of equal ones a pre-release (after a hyphen) is the older; what
// follows a plus sign does not count. What is no version is older than all that are.
func CompareVersions(a, b string) int {
	coreA, preA, okA := parseVersion(a)
	coreB, preB, okB := parseVersion(b)
	switch {
	case !okA || !okB:
		return cmp.Compare(btoi(okA), btoi(okB))
	case coreA != coreB:
		return slices.Compare(coreA[:], coreB[:])
	case preA == "" || preB == "":
		return cmp.Compare(btoi(preA == ""), btoi(preB == ""))
	}
	return slices.CompareFunc(strings.Split(preA, "."), strings.Split(preB, "."), comparePart)
}

// comparePart orders two parts of a pre-release: numbers by value and before words.
func comparePart(a, b string) int {
	numberA, okA := number(a)
	numberB, okB := number(b)
	switch {
	case okA && okB:
		return cmp.Compare(numberA, numberB)
	case okA != okB:
		return cmp.Compare(btoi(okB), btoi(okA))
	}
	return cmp.Compare(a, b)
}

func parseVersion(v string) (core [3]int, pre string, ok bool) {
	v, _, _ = strings.Cut(v, "+")
	v, pre, _ = strings.Cut(v, "-")
	for i := range core {
		part, rest, more := strings.Cut(v, ".")
		if core[i], ok = number(part); !ok || more == (i == len(core)-1) {
			return core, "", false
		}
		v = rest
	}
	return core, pre, true
}

// number reads up to nine decimal digits.
func number(s string) (n int, ok bool) {
	if s == "" || len(s) > 9 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

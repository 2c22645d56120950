package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones must be known in containers without any
	"unicode"
	"unicode/utf8"

	"carpool/internal/policy"
)

// check applies the limits of the tags to every value, then the rules between
// keys. Values that could not be read were reported already and are at their
// default here.
func (d *decoder) check() {
	for _, f := range d.fields {
		if f.section {
			continue
		}
		v := d.value(f)
		d.limits(f, v)
		d.named(f, v)
	}
	d.relations()
}

func (d *decoder) limits(f field, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if len(f.enum) > 0 && !slices.Contains(f.enum, v.String()) {
		d.problemOf(f.path, wrongWord(f, v.String()))
	}
	if f.isPath && d.given(f.path) && strings.HasPrefix(v.String(), "~") {
		d.problemOf(f.path, "the sign ~ is not expanded; write the whole path")
	}
	if f.isPath && d.given(f.path) && strings.ContainsRune(v.String(), 0) {
		d.problemOf(f.path, "must not hold a zero byte")
	}
	if f.min == "" && f.max == "" {
		return
	}
	show := func(n int64) string { return strconv.FormatInt(n, 10) }
	if f.typ == reflect.TypeFor[time.Duration]() {
		show = func(n int64) string { return formatDuration(time.Duration(n)) }
	}
	n := v.Int()
	if low, ok := limit(f, f.min); ok && n < low {
		if low == 0 {
			d.problemOf(f.path, show(n)+" must not be negative")
		} else {
			d.problemOf(f.path, show(n)+" is too small; it must be at least "+show(low))
		}
	}
	if high, ok := limit(f, f.max); ok && n > high {
		d.problemOf(f.path, show(n)+" is too large; it must be at most "+show(high))
	}
}

func limit(f field, s string) (int64, bool) {
	if f.typ == reflect.TypeFor[time.Duration]() {
		d, err := parseDuration(s)
		return int64(d), err == nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func wrongWord(f field, found string) string {
	lower := strings.ToLower(found)
	if f.path == "control.store.type" && (lower == "postgres" || lower == "postgresql") {
		return "PostgreSQL is not supported yet; use sqlite"
	}
	expected := "must be " + f.enum[0]
	if len(f.enum) > 1 {
		expected = "must be one of " + strings.Join(f.enum, ", ")
	}
	message := fmt.Sprintf("%s; found %q", expected, shorten(found))
	if near, ok := nearest(found, f.enum); ok {
		message += fmt.Sprintf(" (did you mean %q?)", near)
	}
	return message
}

// named runs the check that the tag names, on each item of a list.
func (d *decoder) named(f field, v reflect.Value) {
	if f.check == "headers" {
		d.headers(f, v)
		return
	}
	if f.check == "" {
		return
	}
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			if message := verdict(f.check, v.Index(i).String()); message != "" {
				d.problemOf(fmt.Sprintf("%s[%d]", f.path, i), message)
			}
		}
		return
	}
	s := v.String()
	if s == "" && !mustNotBeEmpty(f.check) {
		return
	}
	if message := verdict(f.check, s); message != "" {
		d.problemOf(f.path, message)
	}
}

func mustNotBeEmpty(check string) bool {
	return check == "label" || check == "host" || check == "zone" || check == "metricsListen"
}

// verdict says what is wrong with s, or nothing.
func verdict(check, s string) string {
	switch check {
	case "zone":
		return zoneVerdict(s)
	case "label":
		return labelVerdict(s)
	case "line":
		return lineVerdict(s)
	case "host":
		return hostVerdict(s)
	case "hostport":
		return hostPortVerdict(s, "")
	case "metricsListen":
		if s == "main" || s == "off" {
			return ""
		}
		return hostPortVerdict(s, ", main or off")
	case "httpURL":
		return urlVerdict(s, "http", "https")
	case "wsURL":
		return urlVerdict(s, "ws", "wss")
	case "version":
		return versionVerdict(s)
	case "network":
		if _, err := policy.ParseNetwork(s); err != nil {
			return fmt.Sprintf("%q is not an address such as 192.0.2.7 or a network such as 10.0.0.0/8", shorten(s))
		}
		return ""
	case "envName":
		return envNameVerdict(s)
	}
	return "has a check that does not exist: " + check
}

func zoneVerdict(s string) string {
	if s == "" || s == "Local" {
		return "must be the name of a time zone, such as UTC or Europe/Berlin"
	}
	if _, err := time.LoadLocation(s); err != nil {
		return fmt.Sprintf("%q is not a known time zone; use an IANA name such as UTC or Europe/Berlin", shorten(s))
	}
	return ""
}

func labelVerdict(s string) string {
	switch {
	case s == "":
		return "must not be empty"
	case utf8.RuneCountInString(s) > 128:
		return "is longer than 128 characters"
	case strings.TrimSpace(s) != s:
		return "must not begin or end with a space"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must not hold control characters"
	}
	return ""
}

func lineVerdict(s string) string {
	switch {
	case utf8.RuneCountInString(s) > 500:
		return "is longer than 500 characters"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must be one line without control characters"
	}
	return ""
}

func hostVerdict(s string) string {
	if s == "" {
		return "must not be empty; 0.0.0.0 listens on every interface"
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if _, err := netip.ParseAddr(bare); err == nil {
		return ""
	}
	if strings.Contains(s, "://") || strings.Contains(s, "/") {
		return fmt.Sprintf("%q must be an address or a host name, not a URL", shorten(s))
	}
	if strings.Contains(s, ":") {
		return fmt.Sprintf("%q must be an address or a host name; the port belongs in server.port", shorten(s))
	}
	if !isHostName(s) {
		return fmt.Sprintf("%q is not an address or a host name", shorten(s))
	}
	return ""
}

// isHostName is lenient about underscores, which container names have. A name of
// digits and dots only is a mistyped address.
func isHostName(s string) bool {
	if len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(r rune) bool {
			return r > unicode.MaxASCII || (r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r))
		}) {
			return false
		}
	}
	return true
}

func hostPortVerdict(s, orElse string) string {
	wrong := fmt.Sprintf("%q must be host:port, such as 127.0.0.1:9464%s", shorten(s), orElse)
	host, port, err := net.SplitHostPort(s)
	if err != nil || !digits(port) {
		return wrong
	}
	if n, err := strconv.Atoi(port); err != nil || n > 65535 {
		return fmt.Sprintf("port %s is too large; it must be at most 65535", shorten(port))
	}
	if host != "" && hostVerdict(host) != "" {
		return wrong
	}
	return ""
}

// urlVerdict does not repeat a URL, which may hold a password.
func urlVerdict(s string, schemes ...string) string {
	u, err := url.Parse(s)
	expected := fmt.Sprintf("must be a URL that begins with %s://", strings.Join(schemes, ":// or "))
	switch {
	case err != nil:
		return expected + " and is written correctly"
	case !slices.Contains(schemes, u.Scheme):
		return expected
	case u.Hostname() == "":
		return "the URL has no host"
	case u.User != nil:
		return "the URL must not hold a user name or password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "the URL must not have a query or a fragment"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return "the URL's port must be between 1 and 65535"
		}
	}
	return ""
}

// versionVerdict takes what npm calls a version: three numbers, and perhaps a
// pre-release.
func versionVerdict(s string) string {
	core, pre, dashed := strings.Cut(s, "-")
	parts := strings.Split(core, ".")
	ok := len(parts) == 3
	for _, p := range parts {
		ok = ok && digits(p) && len(p) <= 9
	}
	if dashed {
		ok = ok && pre != "" && strings.Trim(pre, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-") == ""
	}
	if !ok {
		return fmt.Sprintf("%q is not a version; write three numbers, such as 1.0.59", shorten(s))
	}
	return ""
}

func envNameVerdict(s string) string {
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || (r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r))
	})
	if bad || unicode.IsDigit(rune(s[0])) {
		// Not repeated: a value in the place of a name is probably the secret itself.
		return "must be the name of an environment variable, not the value itself"
	}
	return ""
}

func (d *decoder) headers(f field, v reflect.Value) {
	names := make([]string, 0, v.Len())
	for _, k := range v.MapKeys() {
		names = append(names, k.String())
	}
	slices.Sort(names)
	seen := make(map[string]string)
	for _, name := range names {
		path := join(f.path, shorten(name))
		if _, ok := d.origins[path]; !ok {
			path = f.path
		}
		lower := strings.ToLower(name)
		if first, twice := seen[lower]; twice {
			d.problemOf(path, fmt.Sprintf("%q and %q are the same header", first, name))
		}
		seen[lower] = name
		if message := headerVerdict(lower, v.MapIndex(reflect.ValueOf(name)).String()); message != "" {
			d.problemOf(path, message)
		}
	}
}

func headerVerdict(name, value string) string {
	const tokenSigns = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" // RFC 9110 §5.6.2
	if name == "" || strings.Trim(name, tokenSigns) != "" {
		return "is not the name of a header"
	}
	switch name {
	case "authorization", "proxy-authorization", "x-api-key", "cookie":
		return "credentials do not belong here; give them to an upstream"
	case "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "accept-encoding", "expect":
		return "this header belongs to the connection and cannot have a default"
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) {
		return "the value of a header must be ASCII text without control characters"
	}
	return ""
}

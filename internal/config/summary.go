package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Warnings lists what is valid but probably not meant, one sentence each.
func (c *Config) Warnings() []string { return slices.Clone(c.warnings) }

// Summary says in a few aligned lines what the configuration was understood to
// mean, for 'carpool config check'. It holds no secrets and ends with the
// warnings.
func (c *Config) Summary() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", name, strings.Map(printable, fmt.Sprintf(format, args...)))
	}

	line("node", "%s", list(c.Node.Name, c.Node.Location, c.Node.Endpoint))
	if text := capabilities(c.Node.Capabilities); text != "" {
		line("capabilities", "%s", text)
	}
	c.summarizeServer(line)
	line("data folder", "%s", c.DataDir)
	line("storage", "%s %s, entries kept %s, %s", c.Storage.Type, c.Storage.Path, kept(c.Storage.Retention), backups(c.Storage))
	line("control store", "%s %s, single requests kept %s", c.Control.Store.Type, c.Control.Store.Path, kept(c.Control.Store.Retention))
	line("organization", "%s", c.Organization)
	c.summarizeClaudeCode(line)
	line("prices", "%s", c.Prices.text())
	if c.Resources == "" {
		line("resources", "from the control store only")
	} else {
		line("resources", "%s, applied at every start and reload", c.Resources)
	}
	_ = w.Flush() // a strings.Builder cannot fail
	for _, warning := range c.warnings {
		fmt.Fprintf(&b, "warning: %s\n", warning)
	}
	return b.String()
}

// printable keeps what a file says from steering the terminal.
func printable(r rune) rune {
	if unicode.IsControl(r) {
		return '\ufffd'
	}
	return r
}

type lineFunc func(name, format string, args ...any)

func (c *Config) summarizeServer(line lineFunc) {
	s := c.Server
	if s.Port == 0 {
		line("listen", "%s (any free port)", s.Address())
	} else {
		line("listen", "%s", s.Address())
	}
	if s.TLS.Enabled() {
		line("tls", "on, certificate %s, key %s", s.TLS.CertFile, s.TLS.KeyFile)
	} else {
		line("tls", "off")
	}
	if len(s.TrustedProxies) > 0 {
		line("proxies", "%s are believed about the client's address", strings.Join(s.TrustedProxies, ", "))
	}
	line("limits", "upstream answers within %s, bodies up to %d bytes, drain %s", formatDuration(s.RequestTimeout), s.MaxBodyBytes, formatDuration(s.DrainTimeout))
	if c.CentralServer.URL == "" {
		line("central server", "none")
	} else {
		line("central server", "%s, timeout %s", list(c.CentralServer.URL, c.CentralServer.WSURL), formatDuration(c.CentralServer.Timeout))
	}
	line("admin", "%s", c.adminText())
	switch {
	case c.Metrics.Off():
		line("metrics", "off")
	case c.Metrics.OnMain():
		line("metrics", "on the server's port")
	default:
		line("metrics", "%s", c.Metrics.Listen)
	}
	where := "standard error"
	if c.Log.File != "" {
		where = fmt.Sprintf("%s (rotated at %d MB, %d kept)", c.Log.File, c.Log.MaxSizeMB, c.Log.MaxFiles)
		if c.Log.MaxFiles == 0 {
			where = fmt.Sprintf("%s (rotated at %d MB, all kept)", c.Log.File, c.Log.MaxSizeMB)
		}
	}
	line("log", "%s, %s, to %s", c.Log.Level, c.Log.Format, where)
}

func (c *Config) adminText() string {
	where := "on the server's port"
	if c.Admin.Listen != "" {
		where = "on " + c.Admin.Listen
	}
	switch {
	case c.Admin.TokenFile != "":
		return where + ", token from file " + c.Admin.TokenFile
	case c.Admin.TokenEnv != "":
		return where + ", token from variable " + c.Admin.TokenEnv
	case c.Admin.Token.IsSet():
		return where + ", token given"
	}
	return where + ", no token given"
}

func (c *Config) summarizeClaudeCode(line lineFunc) {
	cc := c.ClaudeCode
	state := "enabled"
	if !cc.Enabled {
		state = "disabled"
	}
	line("claude code", "%s, system prompt %s, %d default headers", state, cc.SystemPrompt, len(cc.DefaultHeaders))
	line("client versions", "%s", versions(cc))
	line("default quota", "%s", cc.DefaultQuota.text())
	line("default limits", "%s", cc.DefaultLimits.text())
	if all := Limits(cc.OrganizationLimits); all != (Limits{}) {
		line("organization limits", "%s", all.rates()+" for all keys together")
	}
	f := cc.QuotaFormula
	line("quota formula", "%s × input + %s × output + %s × cache read + %s × cache write tokens, calendar days and months in %s", f.Input, f.Output, f.CacheRead, f.CacheWrite, c.TimeZone)
	if cc.QuotaMessage != "" {
		line("quota message", "%q", cc.QuotaMessage)
	}
	line("features", "%s", features(cc.Features))
}

func (q Quota) text() string {
	var parts []string
	if q.Daily != nil {
		parts = append(parts, fmt.Sprintf("%d tokens a day", *q.Daily))
	}
	if q.Monthly != nil {
		parts = append(parts, fmt.Sprintf("%d tokens a month", *q.Monthly))
	}
	if len(parts) == 0 {
		return "no limit"
	}
	return strings.Join(parts, ", ")
}

func (l Limits) text() string {
	if rates := l.rates(); rates != "" {
		return rates + " for each key"
	}
	return "none"
}

// rates are the limits that there are.
func (l Limits) rates() string {
	var parts []string
	for _, limit := range []struct {
		value int64
		of    string
	}{{int64(l.RequestsPerMinute), "requests a minute"}, {l.TokensPerMinute, "tokens a minute"}, {int64(l.InFlight), "requests at once"}} {
		if limit.value > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", limit.value, limit.of))
		}
	}
	return strings.Join(parts, ", ")
}

func versions(cc ClaudeCode) string {
	var parts []string
	if cc.MinVersion != "" {
		parts = append(parts, cc.MinVersion+" or later")
	}
	if len(cc.SupportedVersions) > 0 {
		parts = append(parts, "exactly "+strings.Join(cc.SupportedVersions, ", "))
	}
	if len(parts) == 0 {
		parts = append(parts, "any")
	}
	how := map[string]string{"enforce": "others are refused", "warn": "others are noted", "off": "not enforced"}[cc.RequireClient]
	return strings.Join(parts, "; ") + " (" + how + ")"
}

func features(m map[string]bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] {
			parts = append(parts, name)
		} else {
			parts = append(parts, name+" (off)")
		}
	}
	if len(parts) == 0 {
		return "none named"
	}
	return strings.Join(parts, ", ")
}

func capabilities(v any) string {
	var parts []string
	switch x := v.(type) {
	case []any:
		for _, item := range x {
			parts = append(parts, fmt.Sprint(item))
		}
	case map[string]any:
		parts = slices.Sorted(maps.Keys(x))
	}
	return strings.Join(parts, ", ")
}

func backups(s Storage) string {
	if s.BackupInterval == 0 {
		return "no backups"
	}
	return "a backup every " + formatDuration(s.BackupInterval)
}

// kept says for how long something is kept, in days where they are whole.
func kept(retention time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case retention == 0:
		return "for ever"
	case retention == day:
		return "for 1 day"
	case retention%day == 0:
		return fmt.Sprintf("for %d days", retention/day)
	}
	return "for " + formatDuration(retention)
}

// list joins what is there with commas.
func list(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

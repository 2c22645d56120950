package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"carpool/internal/policy"
)

// largestAnswer is what the Claude Code releases from 1.0 on ask for at least as
// max_tokens in a main turn; a quota below it cannot promise one request.
const largestAnswer = 32000

// subAgents is how many requests at once a developer's Claude Code with sub-agents has been seen to need, with some room.
const subAgents = 16

// relations checks what only two keys together can get wrong.
func (d *decoder) relations() {
	c := d.config
	switch {
	case c.Server.TLS.CertFile != "" && c.Server.TLS.KeyFile == "":
		d.problemOf("server.tls.certFile", "needs server.tls.keyFile beside it")
	case c.Server.TLS.CertFile == "" && c.Server.TLS.KeyFile != "":
		d.problemOf("server.tls.keyFile", "needs server.tls.certFile beside it")
	}
	if c.CentralServer.WSURL != "" && c.CentralServer.URL == "" {
		d.problemOf("centralServer.wsUrl", "needs centralServer.url beside it")
	}
	if filepath.Clean(c.Storage.Path) == filepath.Clean(c.Control.Store.Path) {
		path := "storage.path"
		if d.given("control.store.path") {
			path = "control.store.path"
		}
		d.problemOf(path, "storage.path and control.store.path must be different files")
	}
	if c.DataDir == "" {
		d.problemOf("dataDir", "must not be empty")
	}
	d.retentions()
	d.addresses()
	d.prices()
}

// shortestRetention keeps a number that was meant as days, and is milliseconds, from removing everything for good.
const shortestRetention = 24 * time.Hour

func (d *decoder) retentions() {
	for path, kept := range map[string]time.Duration{
		"storage.retention":       d.config.Storage.Retention,
		"control.store.retention": d.config.Control.Store.Retention,
	} {
		if kept > 0 && kept < shortestRetention {
			d.problemOf(path, fmt.Sprintf("%s is too short; it must be 0 (for ever) or at least 24h. A number without a unit is milliseconds: write 90d for 90 days", formatDuration(kept)))
		}
	}
}

// addresses reports two listeners on one address.
func (d *decoder) addresses() {
	listeners := []struct{ path, address string }{
		{"server.port", d.config.Server.Address()},
		{"admin.listen", d.config.Admin.Listen},
		{"metrics.listen", d.config.Metrics.Listen},
	}
	for i, a := range listeners {
		for _, b := range listeners[:i] {
			if !clash(a.address, b.address) {
				continue
			}
			at := a.path
			if !d.given(at) {
				at = b.path
			}
			d.problemOf(at, fmt.Sprintf("%s and %s want the same address %s; choose another port", b.path, a.path, a.address))
		}
	}
}

func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil {
		return false
	}
	numberA, errA := strconv.Atoi(portA)
	numberB, errB := strconv.Atoi(portB)
	if errA != nil || errB != nil || numberA != numberB || numberA == 0 {
		return false
	}
	return hostA == hostB || everywhere(hostA) || everywhere(hostB)
}

func everywhere(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }

// secrets settles each secret x between its three forms x, xFile and xEnv: of
// different layers the later one wins, two in one layer are a problem. The losing
// forms are cleared.
func (d *decoder) secrets(opts Options) {
	env := environment(opts.Env)
	for _, f := range d.fields {
		if f.typ != reflect.TypeFor[Secret]() {
			continue
		}
		forms := []field{f, d.byPath[f.path+"File"], d.byPath[f.path+"Env"]}
		top := layerDefault
		for _, form := range forms {
			if d.value(form).String() != "" {
				top = max(top, d.origins[form.path].layer)
			}
		}
		chosen := ""
		for _, form := range forms {
			v := d.value(form)
			if d.origins[form.path].layer < top {
				v.SetZero()
			}
			if v.String() == "" {
				continue
			}
			if chosen != "" {
				d.problemOf(form.path, "is given together with "+chosen+"; keep one of them")
			}
			chosen = form.path
		}
		switch chosen {
		case f.path:
			d.plainSecret(f)
		case f.path + "File":
			if opts.CheckFiles {
				d.secretFromFile(f, forms[1])
			}
		case f.path + "Env":
			d.secretFromEnv(f, forms[2], env, opts.CheckFiles)
		}
	}
}

func (d *decoder) plainSecret(f field) {
	switch value := d.value(f).Interface().(Secret).Reveal(); {
	case strings.Trim(value, "*") == "":
		d.problemOf(f.path, "is the mask that 'carpool config print' shows, not a value")
	case strings.TrimSpace(value) != value || strings.ContainsAny(value, "\r\n\t\x00"):
		d.problemOf(f.path, "must be one line without spaces around it")
	}
}

func (d *decoder) secretFromFile(f, file field) {
	name := d.value(file).String()
	data, err := readFile(name)
	if err != nil {
		d.problemOf(file.path, "cannot read the secret: "+err.Error())
		return
	}
	text := strings.TrimRight(string(data), "\r\n")
	if strings.TrimSpace(text) == "" {
		d.problemOf(file.path, "the file "+name+" is empty; write the secret into it")
		return
	}
	if strings.TrimSpace(text) != text || strings.ContainsAny(text, "\r\n\t\x00") {
		d.problemOf(file.path, "the file "+name+" must hold one line without spaces around it")
		return
	}
	d.value(f).SetString(text)
}

func (d *decoder) secretFromEnv(f, variable field, env map[string]string, must bool) {
	name := d.value(variable).String()
	if envNameVerdict(name) != "" { // reported by check
		return
	}
	text := strings.TrimSpace(env[name])
	if text == "" {
		message := fmt.Sprintf("the environment variable %s is not set", name)
		if must {
			d.problemOf(variable.path, message+"; set it or name another one")
		} else {
			d.warnings = append(d.warnings, variable.path+": "+message+" here; the server will need it")
		}
		return
	}
	d.value(f).SetString(text)
}

// checkFiles reads the files that the configuration names.
func (d *decoder) checkFiles() {
	c := d.config
	if c.Server.TLS.CertFile != "" && c.Server.TLS.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(c.Server.TLS.CertFile, c.Server.TLS.KeyFile); err != nil {
			d.problemOf("server.tls.certFile", "cannot use the certificate: "+err.Error())
		}
	}
	if c.Resources != "" {
		info, err := os.Stat(c.Resources)
		switch {
		case err != nil:
			d.problemOf("resources", "cannot read the file: "+err.Error())
		case info.IsDir():
			d.problemOf("resources", c.Resources+" is a folder; name a file")
		}
	}
}

// warn collects what is valid but probably not meant.
func (d *decoder) warn() {
	c := d.config
	cc := &c.ClaudeCode
	add := func(format string, args ...any) { d.warnings = append(d.warnings, fmt.Sprintf(format, args...)) }
	for _, q := range []struct {
		path  string
		limit *int64
	}{{"claudeCode.defaultQuota.daily", cc.DefaultQuota.Daily}, {"claudeCode.defaultQuota.monthly", cc.DefaultQuota.Monthly}} {
		need := largestAnswer * cc.QuotaFormula.Output.Thousandths() / 1000
		switch {
		case q.limit == nil:
		case *q.limit == 0:
			add("%s is 0: users without a quota of their own are refused every request; remove the key for no limit", q.path)
		case *q.limit < need:
			add("%s is smaller than one request may need: %d, while Claude Code asks for up to %d output tokens and more in each request, which count %d", q.path, *q.limit, largestAnswer, need)
		}
	}
	if daily, monthly := cc.DefaultQuota.Daily, cc.DefaultQuota.Monthly; daily != nil && monthly != nil && *monthly < *daily {
		add("claudeCode.defaultQuota.monthly (%d) is smaller than daily (%d), so that daily never applies", *monthly, *daily)
	}
	if most := cc.DefaultLimits.InFlight; most > 0 && most < subAgents {
		add("claudeCode.defaultLimits.inFlight is %d: Claude Code with sub-agents sends up to %d requests at once", most, subAgents)
	}
	if cc.QuotaFormula == (QuotaFormula{}) {
		add("claudeCode.quotaFormula gives every token the weight 0: no quota will ever be used up")
	}
	if (len(cc.SupportedVersions) > 0 || cc.MinVersion != "") && cc.RequireClient == "off" {
		add("client versions are given but claudeCode.requireClient is off: they are not enforced")
	}
	if len(cc.SupportedVersions) > 0 && cc.MinVersion != "" {
		newest := slices.MaxFunc(cc.SupportedVersions, policy.CompareVersions)
		if policy.CompareVersions(newest, cc.MinVersion) < 0 {
			add("claudeCode.minVersion %s is newer than every one of supportedVersions: no version is accepted", cc.MinVersion)
		}
	}
	for _, network := range c.Server.TrustedNetworks() {
		if network.Bits() == 0 {
			add("server.trustedProxies trusts everybody (%s): any client can claim any address", network)
		}
	}
	if !cc.Enabled {
		add("claudeCode.enabled is false: no Claude Code request is served")
	}
	if !c.Server.TLS.Enabled() && !loopback(c.Server.Host) {
		add("server.host %s is reachable from outside without TLS: keys and prompts travel unencrypted unless a proxy in front adds it", c.Server.Host)
	}
	if c.Admin.Token.IsSet() && len(c.Admin.Token.Reveal()) < 20 {
		add("admin.token is shorter than 20 characters")
	}
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

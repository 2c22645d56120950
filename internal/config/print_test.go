package config

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestTags holds what the rest of the package relies on.
func TestTags(t *testing.T) {
	byPath := make(map[string]field)
	byEnv := make(map[string]string)
	for _, f := range fields() {
		byPath[f.path] = f
		if f.doc == "" || !strings.HasSuffix(f.doc, ".") {
			t.Errorf("%s has no sentence of documentation", f.path)
		}
		if f.env != "" && byEnv[f.env] != "" {
			t.Errorf("%s and %s share %s", f.path, byEnv[f.env], f.env)
		}
		byEnv[f.env] = f.path
		if f.check != "" && f.check != "headers" && strings.Contains(verdict(f.check, "x"), "does not exist") {
			t.Errorf("%s names the check %s, which does not exist", f.path, f.check)
		}
	}
	for path, f := range byPath {
		if f.typ != reflect.TypeFor[Secret]() {
			continue
		}
		for _, form := range []string{path + "File", path + "Env"} {
			if _, ok := byPath[form]; !ok {
				t.Errorf("the secret %s has no form %s", path, form)
			}
		}
	}
	if name := envName("log.maxSizeMB"); name != "CARPOOL_LOG_MAX_SIZE_MB" {
		t.Error(name)
	}
}

func TestDocsTable(t *testing.T) {
	table := DocsTable()
	golden(t, "docs-table.md", table)
	for _, f := range fields() {
		if !f.section && !strings.Contains(table, "| `"+f.path+"` |") {
			t.Errorf("%s is missing", f.path)
		}
	}
}

// full sets nearly every key, many of them to values that are awkward in YAML.
const full = `
node: {name: "true", location: "no: #\u0085x", endpoint: "http://h:1/a", capabilities: {"0x1": [1, 2.5, null, true, "1e3", "~", "a\nb", {}]}}
server: {host: "::1", port: 0, requestTimeout: 1500us, drainTimeout: 0, trustedProxies: [10.0.0.0/8, "2001:db8::1"], tls: {certFile: "/a b", keyFile: "/ü"}}
centralServer: {url: "https://c", wsUrl: "wss://c"}
claudeCode:
  supportedVersions: [1.0.59, 2.1.0-beta.1]
  minVersion: 1.0.59
  requireClient: warn
  defaultQuota: {daily: 0, monthly: 9007199254740993}
  defaultLimits: {requestsPerMinute: 60, tokensPerMinute: 2000000, inFlight: 16}
  quotaFormula: {input: 0.001, output: 1.50, cacheRead: 1}
  quotaMessage: 'ask "them" <a@example.com>'
  features: [chat, "null"]
  systemPrompt: off
  defaultHeaders: {x-true: true, x-n: 01, "x-e": ""}
storage: {backupInterval: 3600000}
admin: {listen: "[::1]:9", tokenFile: /t}
metrics: {listen: off}
log: {level: warn, file: "/l"}
prices:
  models:
    - {model: claude-opus-6, from: 2026-12-01, input: 5, output: 25.50, cacheRead: 0.25, cacheWrite5m: 6.25, cacheWrite1h: 10, fast: 2}
    - {model: "12", upstream: "no", upTo: 32000, input: 0, output: 0.1}
    - {model: "12", upstream: "no", input: 0.6, output: 2.2}
  discounts: [{upstream: main, from: 2026-12-01, multiplier: 0.85}]
  unknown: {input: 15, output: 75}
  webSearches: 12.5
timeZone: Europe/Berlin
organization: "off"
resources: "/r.yml"
dataDir: "/d"
`

func TestPrintIsReadBack(t *testing.T) {
	for _, content := range []string{"", full} {
		c := mustText(t, content)
		printed, err := Print(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := load(printed, Options{File: c.File(), BaseDir: "."})
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		// A relative path is printed as it is used, relative to the working folder.
		again.given, again.says = nil, c.says
		if again.DataDir = c.DataDir; !reflect.DeepEqual(again, c) {
			t.Errorf("got  %+v\nwant %+v\n%s", again, c, printed)
		}
	}
	printed, err := Print(mustText(t, "admin: {token: a-plain-token-0123456789}"))
	if err != nil || !strings.Contains(string(printed), `token: "********"`) {
		t.Errorf("got %s, %v", printed, err)
	}
}

func TestSummary(t *testing.T) {
	c := mustText(t, full)
	golden(t, "full.summary", c.Summary())
}

func TestWarnings(t *testing.T) {
	for content, want := range map[string]string{
		"claudeCode: {defaultQuota: {daily: 10000}}":                                                     "smaller than one request",
		"claudeCode: {defaultQuota: {daily: 0}}":                                                         "refused every request",
		"claudeCode: {defaultQuota: {daily: 50000, monthly: 40000}}":                                     "daily never applies",
		"claudeCode: {defaultLimits: {inFlight: 15}}":                                                    "up to 16 requests at once",
		"claudeCode: {defaultLimits: {inFlight: 0}}":                                                     "",
		"claudeCode: {quotaFormula: {input: 0, output: 0}}":                                              "weight 0",
		"claudeCode: {requireClient: \"off\", minVersion: 1.0.59}":                                       "not enforced",
		"claudeCode: {enabled: false}":                                                                   "no Claude Code request",
		"server: {trustedProxies: [10.0.0.0/8, \"::/0\"]}":                                               "any client can claim any address",
		"claudeCode: {requireClient: enforce, minVersion: 1.0.100, supportedVersions: [1.0.59, 1.0.99]}": "no version is accepted",
		"server: {host: 0.0.0.0}":                                                                        "without TLS",
		"admin: {token: short}":                                                                          "shorter than 20",
		"admin: {tokenEnv: NOWHERE}":                                                                     "NOWHERE is not set",
		"{server: {host: localhost}, claudeCode: {requireClient: enforce, minVersion: 1.0.1, defaultQuota: {daily: 32000}}}": "",
	} {
		c := mustText(t, content)
		got := c.Warnings()
		if want == "" && len(got) == 0 {
			continue
		}
		if want == "" || len(got) != 1 || !strings.Contains(got[0], want) || !strings.Contains(c.Summary(), "warning: "+got[0]) {
			t.Errorf("%s: got %q, want %q", content, got, want)
		}
	}
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "schema.json", string(data))
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err = compiler.AddResource("carpool.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("carpool.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaAgreesWithLoad checks the same documents with both.
func TestSchemaAgreesWithLoad(t *testing.T) {
	schema := compiled(t)
	production, err := os.ReadFile("testdata/production.json")
	if err != nil {
		t.Fatal(err)
	}
	edge, err := os.ReadFile("testdata/edge-node.yml")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := Print(mustText(t, full))
	if err != nil {
		t.Fatal(err)
	}
	for content, ok := range map[string]bool{
		string(production): true,
		string(edge):       true,
		string(printed):    true,
		"{}":               true,
		"server: {port: 0, requestTimeout: 1h30m}":    true,
		"storage: {retention: 1.5d12h}":               true,
		"claudeCode: {features: [a]}":                 true,
		"claudeCode: {features: {a: true}}":           true,
		"claudeCode: {quotaFormula: {input: 0.125}}":  true,
		"claudeCode: {defaultHeaders: {x-a: 1}}":      true,
		"prices: {models: [], discounts: []}":         true,
		"prices: {unknown: {input: 15, output: 75}}":  true,
		"prices: {unknown: {input: 15}}":              false,
		"prices: {models: [{input: 1, output: 2}]}":   false,
		"prices: {models: [{model: m, output: 2}]}":   false,
		"prices: {discounts: [{upstream: main}]}":     false,
		"prices: {webSearches: \"10\"}":               false,
		"server: {prot: 1}":                           false,
		"nothing: 1":                                  false,
		"server: {port: 65536}":                       false,
		"server: {port: \"1\"}":                       false,
		"server: {requestTimeout: soon}":              false,
		"server: {requestTimeout: -1}":                false,
		"claudeCode: {quotaFormula: {input: 0.1255}}": false,
		"claudeCode: {quotaFormula: {input: -1}}":     false,
		"claudeCode: {features: chat}":                false,
		"claudeCode: {supportedVersions: 1.0.59}":     false,
		"claudeCode: {defaultQuota: {daily: -5}}":     false,
		"claudeCode: {defaultLimits: {inFlight: -1}}": false,
		"claudeCode: {defaultLimits: {inFlight: 0}}":  true,
		"claudeCode: {requireClient: sometimes}":      false,
		"node: {capabilities: all}":                   false,
		"control: {store: {type: postgres}}":          false,
		"admin: {token: 5}":                           false,
	} {
		if _, err := text(content); (err == nil) != ok {
			t.Errorf("Load of %s: %v", content, err)
		}
		root, problems := parse([]byte(content), "")
		if problems != nil {
			t.Fatal(problems)
		}
		data, err := json.Marshal(root.plain())
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); (err == nil) != ok {
			t.Errorf("schema on %s: %v", content, err)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"port", "host", "requestTimeout", "idleTimeout"}
	for name, want := range map[string]string{
		"prot": "port", "Port": "port", "requestTimeut": "requestTimeout", "request_timeout": "requestTimeout",
		"zzz": "", "": "", strings.Repeat("port", 1000): "",
	} {
		if got, _ := nearest(name, keys); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1d": day, "1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour, ".5d": 12 * time.Hour, "2d30m10s": 2*day + 30*time.Minute + 10*time.Second,
		"+7d": 7 * day, "-1d": -day, "90": 90 * time.Millisecond, "1h30m": 90 * time.Minute,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"d", "1dd", "d1", "1 d", "1D", "200000d", "1w", ""} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for retention, want := range map[time.Duration]string{0: "for ever", day: "for 1 day", 90 * day: "for 90 days", 36 * time.Hour: "for 36h"} {
		if got := kept(retention); got != want {
			t.Errorf("%v is kept %q", retention, got)
		}
	}
}

func TestWeight(t *testing.T) {
	for text, want := range map[string]Weight{"0": 0, "1": 1000, "0.1": 100, "1.250": 1250, "0.0010": 1, "1000": 1000000, "007": 7000} {
		got, err := parseWeight(text)
		if err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "1e3", "1000.001", "0.0001", ".5", "1.", "99999999999999999999", "x"} {
		if got, err := parseWeight(text); err == nil {
			t.Errorf("%q is accepted as %d", text, got)
		}
	}
	if got := []string{Weight(0).String(), Weight(1500).String(), Weight(1).String(), Weight(10000).String()}; !slices.Equal(got, []string{"0", "1.5", "0.001", "10"}) {
		t.Error(got)
	}
}

// FuzzLoad: any bytes give an error or a configuration that can be shown, printed
// and read again.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"testdata/edge-node.yml", "testdata/production.json"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "")
	}
	f.Add([]byte(full), "CARPOOL_NODE_CAPABILITIES=[a, {b: c}]")
	f.Add([]byte("a: &x [*x]\n<<: 1\n? [b]\n: |\n  c\n---\n..."), "CARPOOL_CLAUDE_CODE_FEATURES={a: true}")
	f.Add([]byte("server: {port: 1e3}"), "CARPOOL_SERVER_IDLE_TIMEOUT=1.5h")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		if len(data) > 8<<10 { // the parser is slow on large odd input, and not wiser
			return
		}
		c, err := load(data, Options{Env: []string{variable}, Hostname: "h"})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		_ = c.Summary()
		printed, err := Print(c)
		if err != nil {
			t.Fatal(err)
		}
		if c.Admin.Token.IsSet() || len(printed) > maxFileBytes {
			return
		}
		again, err := load(printed, Options{Hostname: "h"})
		if err != nil {
			t.Fatalf("printed configuration is refused: %v\n%s", err, printed)
		}
		twice, err := Print(again)
		if err != nil || !bytes.Equal(printed, twice) {
			t.Fatalf("printed twice differently (%v):\n%s\n%s", err, printed, twice)
		}
	})
}

package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/price"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update to accept):\n%s", path, got)
	}
}

// text loads a file's content as conf/c.yml would be.
func text(content string, env ...string) (*Config, error) {
	return load([]byte(content), Options{File: "conf/c.yml", Env: env, Hostname: "host-1"})
}

func mustText(t *testing.T, content string, env ...string) *Config {
	t.Helper()
	c, err := text(content, env...)
	if err != nil {
		t.Fatal(err)
	}
	c.given = nil // functions are never equal
	return c
}

func TestDefaults(t *testing.T) {
	c, err := Load(Options{Hostname: "host-1"})
	if err != nil {
		t.Fatal(err)
	}
	checks := []struct {
		what      string
		got, want any
	}{
		{"name", c.Node.Name, "host-1"},
		{"address", c.Server.Address(), "127.0.0.1:8080"},
		{"requestTimeout", c.Server.RequestTimeout, 600 * time.Second},
		{"maxBodyBytes", c.Server.MaxBodyBytes, int64(33554432)},
		{"enabled", c.ClaudeCode.Enabled, true},
		{"requireClient", c.ClaudeCode.RequireClient, "enforce"},
		{"formula", c.ClaudeCode.QuotaFormula, QuotaFormula{Input: 1000, Output: 1000}},
		{"quota", c.ClaudeCode.DefaultQuota, Quota{}},
		{"limits", c.ClaudeCode.DefaultLimits, Limits{InFlight: 64}},
		{"headers", c.ClaudeCode.DefaultHeaders, map[string]string{
			"anthropic-version": "2023-06-01", "x-stainless-lang": "js", "x-stainless-package-version": "0.55.1",
			"anthropic-dangerous-direct-browser-access": "true", "x-app": "cli",
		}},
		{"dataDir", c.DataDir, "./carpool-data"},
		{"storage", c.Storage.Path, filepath.Join("carpool-data", "node.db")},
		{"control", c.Control.Store.Path, filepath.Join("carpool-data", "control.db")},
		{"metrics", c.Metrics.Listen, "127.0.0.1:9464"},
		{"zone", c.TimeZone, "UTC"},
		{"organization", c.Organization, "default"},
		{"warnings", len(c.Warnings()), 0},
	}
	for _, check := range checks {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s is %v, want %v", check.what, check.got, check.want)
		}
	}
	if c, err = Load(Options{}); err != nil || c.Node.Name == "" {
		t.Errorf("the host's name is not used: %v", err)
	}
}

func TestSampleFiles(t *testing.T) {
	for _, name := range []string{"edge-node.yml", "production.json"} {
		t.Run(name, func(t *testing.T) {
			c, err := Load(Options{File: filepath.Join("testdata", name), BaseDir: ".", Env: []string{}})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".summary", c.Summary())
			printed, err := Print(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".printed", string(printed))
		})
	}
	c, err := Load(Options{File: "testdata/edge-node.yml"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Storage.BackupInterval != time.Hour || c.CentralServer.Timeout != 30*time.Second || *c.ClaudeCode.DefaultQuota.Daily != 10000 ||
		!c.ClaudeCode.Features["memory"] || c.DataDir != "/app/data" || c.Control.Store.Path != "/app/data/control.db" || c.File() != "testdata/edge-node.yml" {
		t.Errorf("edge-node.yml was misread: %+v", c)
	}
	if c, err = Load(Options{File: "testdata/production.json"}); err != nil {
		t.Fatal(err)
	}
	capabilities, ok := c.Node.Capabilities.(map[string]any)
	if !ok || capabilities["maxConnections"] != int64(1000) || *c.ClaudeCode.DefaultQuota.Monthly != 1500000 ||
		c.ClaudeCode.QuotaLimits != (Quota{}) || c.Server.RequestTimeout != 2*time.Minute {
		t.Errorf("production.json was misread: %+v", c)
	}
}

func TestFileForms(t *testing.T) {
	want := mustText(t, "server:\n  port: 81\n  tls: {certFile: a.pem, keyFile: /k.pem}\n")
	for name, content := range map[string]string{
		"JSON":           `{"server": {"port": 81, "tls": {"certFile": "a.pem", "keyFile": "/k.pem"}}}`,
		"JSON with tabs": "{\n\t\"server\": {\n\t\t\"port\": 81,\n\t\t\"tls\": {\"certFile\": \"a.pem\",\n\t\t\"keyFile\": \"\\/k.pem\"}\n\t}\n}\n",
		"CRLF":           "server:\r\n  port: 81\r\n  tls: {certFile: a.pem, keyFile: /k.pem}\r\n",
		"BOM":            "\xef\xbb\xbfserver:\n  port: 81\n  tls: {certFile: a.pem, keyFile: /k.pem}\n",
		"document start": "%YAML 1.2\n---\nserver:\n  port: 81.0\n  tls: {certFile: a.pem, keyFile: /k.pem}\n...\n",
		"explicit keys":  "? server\n: port: 81\n  tls: {certFile: ./a.pem, keyFile: /k.pem}\n",
	} {
		if got := mustText(t, content); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if want.Server.TLS.CertFile != filepath.Join("conf", "a.pem") || want.Server.TLS.KeyFile != "/k.pem" {
		t.Errorf("paths are not relative to the file: %+v", want.Server.TLS)
	}
	empty := mustText(t, "")
	for name, content := range map[string]string{"comment": "# nothing\n", "start": "---\n", "null": "null\n", "sections": "node:\nserver:\n  # port: 1\n", "braces": "{}"} {
		if got := mustText(t, content); !reflect.DeepEqual(got, empty) {
			t.Errorf("%s is not empty: %+v", name, got)
		}
	}
}

// TestProblems shows what an operator sees for each kind of mistake.
func TestProblems(t *testing.T) {
	quotas := "claudeCode:\n  defaultQuota: {daily: 5}\n  quotaLimits: {daily: 6}\n"
	tests := []struct{ name, content, want string }{
		{"unknown key", "server:\n  prot: 1\n", `conf/c.yml:2:3: server.prot: unknown key; did you mean "port"?`},
		{"wrong case", "Server: {}\n", `conf/c.yml:1:1: Server: unknown key; did you mean "server"?`},
		{"wrong place", "port: 1\n", `conf/c.yml:1:1: port: unknown key; did you mean "server.port"?`},
		{"dotted", "server.port: 1\n", `write the section server with the key port in it`},
		{"resources", "users: []\n", `conf/c.yml:1:1: users: unknown key; it belongs in the file named by the key resources`},
		{"far off", "metrics:\n  something: 1\n", `known keys here: listen`},
		{"duplicate", "server:\n  port: 1\n  port: 2\n", `conf/c.yml:3:3: the key "port" is given twice, first on line 2; keep one`},
		{"duplicate in JSON", `{"server": {"port": 1, "port": 2}}`, `the key "port" is given twice`},
		{"duplicate in capabilities", "node:\n  capabilities:\n    a: 1\n    a: 2\n", `conf/c.yml:4:5: the key "a" is given twice`},
		{"documents", "server: {}\n---\nserver: {}\n", `conf/c.yml:3:7: holds several documents`},
		{"not a map", "- a\n", `expected a map of keys, found a list`},
		{"scalar file", "5\n", `conf/c.yml:1:1: expected a map of keys, found the number 5`},
		{"section", "server: 8080\n", `conf/c.yml:1:9: server: expected a map of keys, found the number 8080`},
		{"syntax", "a: b: c\n", `conf/c.yml:1:4: cannot be read as YAML or JSON: `},
		{"anchor", "organization: &x a\n", `conf/c.yml:1:15: anchors and aliases`},
		{"merge", "server:\n  <<: {port: 1}\n", `conf/c.yml:2:3: merge keys`},
		{"tag", "organization: !!str 5\n", `tags (!!str) are not supported`},
		{"latin1", "organization: \xe9\n", `conf/c.yml:1:15: is not valid UTF-8`},
		{"binary", "a\x00b", `conf/c.yml:1:2: holds a zero byte`},
		{"deep", strings.Repeat("[", 300), `nested more than 200 levels`},
		{"huge", strings.Repeat("# long\n", 20000), `is larger than 128 KiB`},
		{"no value", "timeZone:\n", `timeZone: has no value; give one or remove the line`},
		{"text for number", "server: {port: \"80\"}\n", `conf/c.yml:1:16: server.port: expected a whole number, found the text "80"; remove the quotes`},
		{"fraction", "server: {port: 80.5}\n", `expected a whole number, found the number 80.5`},
		{"tiny fraction", "server: {port: 1e-400}\n", `expected a whole number, found the number 1e-400`},
		{"octal", "server: {port: 010}\n", `expected a whole number, found the text "010"`},
		{"huge number", "server: {maxBodyBytes: 99999999999999999999}\n", `the number 99999999999999999999 is too large`},
		{"port", "server:\n  port: 70000\n", `conf/c.yml:2:9: server.port: 70000 is too large; it must be at most 65535`},
		{"negative port", "server:\n  port: -1\n", `server.port: -1 must not be negative`},
		{"number for text", "claudeCode: {minVersion: 2.1}\n", `claudeCode.minVersion: expected text, found the number 2.1; put it in quotes`},
		{"version", "claudeCode: {supportedVersions: [1.0.59, 1.x]}\n", `conf/c.yml:1:42: claudeCode.supportedVersions[1]: "1.x" is not a version`},
		{"list", "claudeCode: {supportedVersions: 1.0.59}\n", `expected a list of texts, found the text "1.0.59"`},
		{"boolean", "claudeCode: {enabled: yes}\n", `expected true or false, found the text "yes"`},
		{"word", "log: {level: inof}\n", `log.level: must be one of debug, info, warn, error; found "inof" (did you mean "info"?)`},
		{"boolean word", "claudeCode: {requireClient: false}\n", `expected one of enforce, warn, off; found the boolean false`},
		{"storage type", "storage: {type: mysql}\n", `storage.type: must be sqlite; found "mysql"`},
		{"postgres", "control: {store: {type: postgres}}\n", `PostgreSQL is not supported yet; use sqlite`},
		{"zone", "timeZone: Mars/Olympus\n", `timeZone: "Mars/Olympus" is not a known time zone`},
		{"local zone", "timeZone: Local\n", `timeZone: must be the name of a time zone`},
		{"url", "centralServer: {url: central.example.com}\n", `must be a URL that begins with http:// or https://`},
		{"url password", "centralServer: {url: \"https://a:hunter2@example.com\"}\n", `must not hold a user name or password`},
		{"ws url", "centralServer: {url: \"https://example.com\", wsUrl: \"https://example.com\"}\n", `must be a URL that begins with ws:// or wss://`},
		{"ws alone", "centralServer: {wsUrl: \"wss://example.com\"}\n", `needs centralServer.url`},
		{"proxies", "server: {trustedProxies: [10.0.0.0/8, proxy.example.com]}\n", `server.trustedProxies[1]: "proxy.example.com" is not an address such as 192.0.2.7 or a network`},
		{"host", "server: {host: \"0.0.0.0:80\"}\n", `the port belongs in server.port`},
		{"address", "server: {host: 1.2.3.400}\n", `is not an address or a host name`},
		{"metrics", "metrics: {listen: 9464}\n", `metrics.listen: expected text`},
		{"metrics word", "metrics: {listen: none}\n", `must be host:port, such as 127.0.0.1:9464, main or off`},
		{"clash", "metrics: {listen: \"127.0.0.1:8080\"}\n", `metrics.listen: server.port and metrics.listen want the same address`},
		{"quota", "claudeCode: {defaultQuota: {daily: -1}}\n", `claudeCode.defaultQuota.daily: -1 must not be negative`},
		{"quotas", quotas, `conf/c.yml:3:24: claudeCode.quotaLimits.daily: is another name of claudeCode.defaultQuota.daily, and the two differ (6 and 5)`},
		{"weight", "claudeCode: {quotaFormula: {cacheRead: 0.1234}}\n", `must not have more than three decimals`},
		{"negative weight", "claudeCode: {quotaFormula: {cacheRead: -1}}\n", `must not be negative`},
		{"large weight", "claudeCode: {quotaFormula: {input: 1001}}\n", `must be at most 1000`},
		{"duration", "server: {idleTimeout: soon}\n", `must be a whole number of milliseconds, or a duration such as "30s"`},
		{"zero duration", "server: {idleTimeout: 0}\n", `server.idleTimeout: 0s is too small; it must be at least 1ms`},
		{"long duration", "server: {idleTimeout: 99999999999999999}\n", `is too large`},
		{"days too long", "server: {idleTimeout: 999999999d}\n", `must be a whole number of milliseconds, or a duration such as "30s", "1h30m" or "7d"`},
		{"retention in days", "control: {store: {retention: 90}}\n", `conf/c.yml:1:30: control.store.retention: 90ms is too short; it must be 0 (for ever) or at least 24h. A number without a unit is milliseconds: write 90d for 90 days`},
		{"ledger retention", "storage: {retention: 23h}\n", `storage.retention: 23h is too short`},
		{"tls", "server: {tls: {certFile: a}}\n", `needs server.tls.keyFile beside it`},
		{"same file", "storage: {path: /a.db}\ncontrol: {store: {path: /a.db}}\n", `must be different files`},
		{"home", "dataDir: ~/carpool\n", `the sign ~ is not expanded`},
		{"credential header", "claudeCode: {defaultHeaders: {X-Api-Key: abc}}\n", `credentials do not belong here`},
		{"header twice", "claudeCode: {defaultHeaders: {x-app: a, X-App: b}}\n", `are the same header`},
		{"header value", "claudeCode: {defaultHeaders: {x-app: \"a\\r\\nb\"}}\n", `must be ASCII text`},
		{"features", "claudeCode: {features: {chat: maybe}}\n", `claudeCode.features.chat: expected true or false`},
		{"capabilities", "node: {capabilities: all}\n", `expected a list or a map`},
		{"message", "claudeCode: {quotaMessage: \"a\\nb\"}\n", `must be one line`},
		{"tokens", "admin: {token: a-long-enough-token-here, tokenEnv: X}\n", `admin.tokenEnv: is given together with admin.token; keep one`},
		{"masked", "admin: {token: \"********\"}\n", `is the mask`},
		{"token as name", "admin: {tokenEnv: hunter2-hunter2}\n", `must be the name of an environment variable`},
		{"rate in quotes", "prices: {models: [{model: m, input: \"1\", output: 2}]}\n", `conf/c.yml:1:37: prices.models[0].input: expected a number, found the text "1"; remove the quotes`},
		{"rate", "prices:\n  models:\n    - {model: m, input: 1, output: 2}\n    - {model: n, input: 1.00001, output: 2}\n", `conf/c.yml:4:25: prices.models[1].input: must have at most 4 decimal places`},
		{"missing rate", "prices:\n  models:\n    - model: m\n      input: 1\n", `conf/c.yml:3:7: prices.models[0].output: is missing`},
		{"key of rates", "prices: {models: [{model: m, input: 1, output: 2, cachRead: 1}]}\n", `conf/c.yml:1:51: prices.models[0].cachRead: unknown key; did you mean "cacheRead"?`},
		{"key of prices", "prices: {model: []}\n", `prices.model: unknown key; did you mean "models"?`},
		{"rates", "prices: {models: {model: m}}\n", `prices.models: expected a list of maps, found a map`},
		{"rates of an item", "prices: {models: [m]}\n", `conf/c.yml:1:19: prices.models[0]: expected a map of keys, found the text "m"`},
		{"day", "prices: {discounts: [{upstream: main, from: 2026-02-30, multiplier: 0.9}]}\n", `conf/c.yml:1:45: prices.discounts[0].from: must be a day such as 2026-12-01`},
		{"no upstream", "prices: {discounts: [{multiplier: 0.9}]}\n", `conf/c.yml:1:22: prices.discounts[0].upstream: is missing`},
		{"unknown models", "prices: {unknown: {model: m, input: 1, output: 2}}\n", `prices.unknown: takes rates only`},
		{"no multiplier", "prices: {discounts: [{upstream: main, multiplier:}]}\n", `prices.discounts[0].multiplier: has no value`},
		{"searches", "prices: {webSearches: -1}\n", `conf/c.yml:1:23: prices.webSearches: must not be negative`},
		{"token type", "admin: {token: 12345678}\n", `admin.token: expected text; put the value in quotes`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := text(tt.content)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
			if len(problems) != 1 {
				t.Errorf("got %d problems, want 1: %s", len(problems), err)
			}
			for _, secret := range []string{"hunter2", "12345678", "a-long-enough"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the message repeats a secret: %s", err)
				}
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := load([]byte("server:\n  port: 70000\n  hots: x\ntimeZone: No/Where\n"), Options{
		File:      "c.yml",
		Env:       []string{"CARPOOL_LOG_LEVEL=loud", "CARPOOL_SERVER_PROT=1"},
		Overrides: []Override{{Key: "storage.type", Value: "x", Source: "--storage"}},
	})
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var places []string
	for _, p := range problems {
		places = append(places, fmt.Sprintf("%s:%d", p.Source, p.Line))
	}
	want := []string{"c.yml:2", "c.yml:3", "c.yml:4", "CARPOOL_SERVER_PROT:0", "--storage:0", "CARPOOL_LOG_LEVEL:0"}
	if !slices.Equal(places, want) {
		t.Errorf("problems at %v, want %v\n%s", places, want, err)
	}
}

func TestUnreadableFile(t *testing.T) {
	if _, err := Load(Options{File: filepath.Join(t.TempDir(), "none.yml")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Load(Options{File: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "cannot read the configuration") {
		t.Errorf("folder: %v", err)
	}
}

func TestDataDir(t *testing.T) {
	tests := []struct {
		name, content, flag       string
		env                       []string
		dataDir, storage, control string
	}{
		{name: "storage path", content: "storage: {path: /app/data/edge.db}", dataDir: "/app/data", storage: "/app/data/edge.db", control: "/app/data/control.db"},
		{name: "both", content: "storage: {path: /app/edge.db}\ndataDir: /d", dataDir: "/d", storage: "/app/edge.db", control: "/d/control.db"},
		{name: "relative", content: "dataDir: d", dataDir: "conf/d", storage: "conf/d/node.db", control: "conf/d/control.db"},
		{name: "variable", content: "dataDir: d", env: []string{"CARPOOL_DATA=e"}, dataDir: "e", storage: "e/node.db", control: "e/control.db"},
		{name: "long variable", env: []string{"CARPOOL_DATA_DIR=e", "CARPOOL_DATA=e"}, dataDir: "e", storage: "e/node.db", control: "e/control.db"},
		{name: "flag", content: "dataDir: d", env: []string{"CARPOOL_DATA=e"}, flag: "f", dataDir: "f", storage: "f/node.db", control: "f/control.db"},
		{name: "flag and storage path", content: "storage: {path: /a/b.db}", flag: "f", dataDir: "f", storage: "/a/b.db", control: "f/control.db"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load([]byte(tt.content), Options{File: "conf/c.yml", Env: tt.env, DataDir: tt.flag})
			if err != nil {
				t.Fatal(err)
			}
			if c.DataDir != tt.dataDir || c.Storage.Path != tt.storage || c.Control.Store.Path != tt.control {
				t.Errorf("got %s, %s, %s", c.DataDir, c.Storage.Path, c.Control.Store.Path)
			}
		})
	}
	if _, err := text("", "CARPOOL_DATA=a", "CARPOOL_DATA_DIR=b"); err == nil {
		t.Error("two different data folders were accepted")
	}
}

func TestEnvironment(t *testing.T) {
	c := mustText(t, "server: {port: 1}\nclaudeCode: {quotaLimits: {daily: 7, monthly: 9}}\n",
		"CARPOOL_SERVER_PORT=0", "CARPOOL_SERVER_REQUEST_TIMEOUT=1500", "CARPOOL_SERVER_IDLE_TIMEOUT=2m",
		"CARPOOL_CLAUDE_CODE_MIN_VERSION=1.0.59", "CARPOOL_CLAUDE_CODE_DEFAULT_QUOTA_DAILY=50000",
		"CARPOOL_CLAUDE_CODE_SUPPORTED_VERSIONS=1.0.58, 1.0.59", `CARPOOL_CLAUDE_CODE_FEATURES={"chat": true, "tools": false}`,
		"CARPOOL_CLAUDE_CODE_DEFAULT_HEADERS=x-app=cli,x-b=2", "CARPOOL_CLAUDE_CODE_QUOTA_FORMULA_CACHE_READ=0.125",
		"CARPOOL_PRICES_MODELS=[{model: m, input: 0.10, output: 2}]", "CARPOOL_PRICES_UNKNOWN={input: 15, output: 75}", "CARPOOL_PRICES_WEB_SEARCHES=12.50",
		"CARPOOL_NODE_CAPABILITIES=a,b", "CARPOOL_CLAUDE_CODE_ENABLED=false", "CARPOOL_ORGANIZATION=123", "CARPOOL_LOG_LEVEL=",
		"CARPOOL_URL=http://x", "CARPOOL_TOKEN=t", "CARPOOL_CONFIG=f", "PATH=/bin", "broken")
	cc := c.ClaudeCode
	checks := []struct {
		what      string
		got, want any
	}{
		{"port", c.Server.Port, 0},
		{"requestTimeout", c.Server.RequestTimeout, 1500 * time.Millisecond},
		{"idleTimeout", c.Server.IdleTimeout, 2 * time.Minute},
		{"minVersion", cc.MinVersion, "1.0.59"},
		{"daily, set over its other name", *cc.DefaultQuota.Daily, int64(50000)},
		{"monthly", *cc.DefaultQuota.Monthly, int64(9)},
		{"versions", cc.SupportedVersions, []string{"1.0.58", "1.0.59"}},
		{"features", cc.Features, map[string]bool{"chat": true, "tools": false}},
		{"headers", cc.DefaultHeaders, map[string]string{"x-app": "cli", "x-b": "2"}},
		{"weight", cc.QuotaFormula.CacheRead, Weight(125)},
		{"capabilities", c.Node.Capabilities, []any{"a", "b"}},
		{"prices", c.Prices.Overlay(), price.Overlay{
			Models: []price.Rates{{Model: "m", Input: "0.10", Output: "2"}}, Unknown: &price.Rates{Input: "15", Output: "75"}, WebSearches: "12.50",
		}},
		{"enabled", cc.Enabled, false},
		{"organization", c.Organization, "123"},
		{"level", c.Log.Level, "info"},
	}
	for _, check := range checks {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s is %v, want %v", check.what, check.got, check.want)
		}
	}
	for _, tt := range []struct{ env, want string }{
		{"CARPOOL_SERVER_PROT=1", "CARPOOL_SERVER_PROT: no key of the section server has this name; did you mean CARPOOL_SERVER_PORT?"},
		{"CARPOOL_SERVER_PORT=x", `CARPOOL_SERVER_PORT: server.port: expected a whole number, found the text "x"`},
		{"CARPOOL_SERVER_PORT=99999", "CARPOOL_SERVER_PORT: server.port: 99999 is too large"},
		{"CARPOOL_NODE_NAME=\xff", "CARPOOL_NODE_NAME: node.name: is not valid UTF-8"},
		{"CARPOOL_CLAUDE_CODE_FEATURES={a", "CARPOOL_CLAUDE_CODE_FEATURES: claudeCode.features: cannot be read"},
	} {
		if _, err := text("", tt.env); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s gives %v", tt.env, err)
		}
	}
}

func TestForeignVariables(t *testing.T) {
	c := mustText(t, "", "CARPOOL_SEVER_PORT=1", "CARPOOL_SERVER_PORT=tcp://10.0.0.1:8080", "CARPOOL_SERVER_SERVICE_HOST=10.0.0.1",
		"CARPOOL_SERVER_SERVICE_PORT_HTTP=80", "CARPOOL_SERVER_PORT_8080_TCP_ADDR=10.0.0.1", "CARPOOL_SERVER_PORT_8080_TCP=tcp://10.0.0.1:8080")
	warnings := strings.Join(c.Warnings(), "\n")
	if len(c.Warnings()) != 2 || !strings.Contains(warnings, "did you mean CARPOOL_SERVER_PORT?") || !strings.Contains(warnings, "enableServiceLinks") {
		t.Errorf("warnings: %s", warnings)
	}
	if c.Server.Port != 8080 {
		t.Errorf("port is %d", c.Server.Port)
	}
}

func TestOverrides(t *testing.T) {
	c, err := load([]byte("server: {port: 1}"), Options{
		Env:       []string{"CARPOOL_SERVER_PORT=2"},
		Overrides: []Override{{"server.port", "3", "--listen"}, {"server.host", "::1", "--listen"}},
	})
	if err != nil || c.Server.Address() != "[::1]:3" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err = Load(Options{Overrides: []Override{{"server.port", "x", "--listen"}}}); err == nil || !strings.HasPrefix(err.Error(), "--listen: server.port: expected a whole number") {
		t.Errorf("got %v", err)
	}
	if _, err = Load(Options{Overrides: []Override{{"server.prot", "1", "--listen"}}}); err == nil {
		t.Error("an unknown key was accepted")
	}
}

func TestSecretForms(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("from-a-file-0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, content string
		env           []string
		files         bool
		want          string
	}{
		{"plain", "admin: {token: a-plain-token-0123456789}", nil, false, "a-plain-token-0123456789"},
		{"file", "admin: {tokenFile: token}", nil, true, "from-a-file-0123456789"},
		{"file not read", "admin: {tokenFile: absent}", nil, false, ""},
		{"variable", "admin: {tokenEnv: T}", []string{"T=from-a-variable-0123456789"}, false, "from-a-variable-0123456789"},
		{"variable not set", "admin: {tokenEnv: T}", nil, false, ""},
		{"later layer wins", "admin: {tokenFile: absent}", []string{"CARPOOL_ADMIN_TOKEN=a-plain-token-0123456789"}, true, "a-plain-token-0123456789"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load([]byte(tt.content), Options{BaseDir: dir, Env: tt.env, CheckFiles: tt.files})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Admin.Token.Reveal(); got != tt.want {
				t.Errorf("token is %q, want %q", got, tt.want)
			}
			printed, err := Print(c)
			if err != nil {
				t.Fatal(err)
			}
			encoded, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			shown := string(printed) + string(encoded) + c.Summary() + fmt.Sprintf("%v %+v %#v %x %q", c, *c, c, c.Admin, c.Admin.Token)
			if tt.want != "" && (strings.Contains(shown, tt.want) || strings.Contains(shown, fmt.Sprintf("%x", tt.want))) {
				t.Errorf("the token is shown:\n%s", shown)
			}
		})
	}
	for name, content := range map[string]string{
		"absent": "admin: {tokenFile: absent}", "variable": "admin: {tokenEnv: NOT_SET}", "tls": "server: {tls: {certFile: a, keyFile: b}}",
		"resources": "resources: absent.yml", "folder": "resources: .",
	} {
		if _, err := load([]byte(content), Options{BaseDir: dir, CheckFiles: true}); err == nil {
			t.Errorf("%s: accepted with CheckFiles", name)
		}
		if _, err := load([]byte(content), Options{BaseDir: dir}); err != nil {
			t.Errorf("%s: refused without CheckFiles: %v", name, err)
		}
	}
}

// TestDocumentedPrices: the example of the page about prices is a configuration.
func TestDocumentedPrices(t *testing.T) {
	page, err := os.ReadFile("../../docs/prices.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if prices := mustText(t, example).Prices; len(prices.Models) == 0 || len(prices.Discounts) == 0 || prices.Unknown == nil || prices.WebSearches == "" {
		t.Errorf("%+v", prices)
	}
}

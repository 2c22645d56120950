package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The real clients, as scripts/test-deps installs them.
const (
	claudeOld = "1.0.59"  // JavaScript, the last of the versions that the first design named
	claudeNew = "2.1.330" // a native binary

	claudePatience = 150 * time.Second
)

func claudeVersions() []string { return []string{claudeOld, claudeNew} }

// twoClaudes keeps more than two CLIs from running at a time: each takes half a gigabyte and a core.
var twoClaudes = make(chan struct{}, 2)

// installed returns the folder of an npm package that scripts/test-deps installed.
func installed(t testing.TB, pkg string) string {
	t.Helper()
	dir := filepath.Join(repository(t), ".cache", "npm", pkg)
	if _, err := os.Stat(filepath.Join(dir, "installed")); err != nil {
		t.Fatalf("%s is not installed: run make test-deps", pkg)
	}
	return dir
}

// session is one headless run of the real CLI.
type session struct {
	result
	dir    string // where it worked
	answer answer // of --output-format json
}

// answer is what the CLI prints with --output-format json.
type answer struct {
	Type      string `json:"type"`
	Subtype   string `json:"subtype"`
	IsError   bool   `json:"is_error"`
	Result    string `json:"result"`
	SessionID string `json:"session_id"`
	Turns     int    `json:"num_turns"`
}

// claude is how to run the CLI headless.
type claude struct {
	version string
	url     string // ANTHROPIC_BASE_URL
	token   string // ANTHROPIC_AUTH_TOKEN; empty: not set
	prompt  string // {{dir}} stands for the folder it works in
	allowed string // tools that it may use without asking
	text    bool   // plain text output, as a person sees it; else JSON, which run decodes
	env     []string
}

// run runs the CLI to its end in a new home and a new folder. Its environment is PATH, HOME, the two variables that Carpool
// prints, and env.
func (c claude) run(t testing.TB) session {
	t.Helper()
	pkg := installed(t, "@anthropic-ai/claude-code@"+c.version)
	name, args := filepath.Join(pkg, "node_modules", ".bin", "claude"), []string(nil)
	if c.version == claudeOld {
		name, args = "node", []string{filepath.Join(pkg, "node_modules", "@anthropic-ai", "claude-code", "cli.js")}
	}
	s := session{dir: t.TempDir()}
	args = append(args, "-p", strings.ReplaceAll(c.prompt, "{{dir}}", s.dir))
	if !c.text {
		args = append(args, "--output-format", "json")
	}
	if c.allowed != "" {
		args = append(args, "--allowedTools", c.allowed)
	}
	env := append(plainEnv(t.TempDir(), "ANTHROPIC_BASE_URL="+c.url), c.env...)
	if c.token != "" {
		env = append(env, "ANTHROPIC_AUTH_TOKEN="+c.token)
	}

	twoClaudes <- struct{}{}
	defer func() { <-twoClaudes }()
	s.result = runProgram(t, claudePatience, s.dir, env, nil, name, args...)
	if c.text {
		return s
	}
	for _, line := range nonEmptyLines(s.stdout) {
		var a answer
		if json.Unmarshal([]byte(line), &a) == nil && a.Type == "result" {
			s.answer = a
		}
	}
	if s.answer.Type == "" {
		t.Fatalf("claude %s printed no result; exit status %d\n%s\n%s", c.version, s.code, s.stdout, s.stderr)
	}
	return s
}

// quiet is the setting under which the CLI sends nothing but what its work needs.
const quiet = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"

// ok fails the test unless the CLI ended well.
func (s session) ok(t testing.TB) {
	t.Helper()
	if s.code != 0 || s.answer.IsError {
		t.Fatalf("claude ended with status %d after %v\n%s\n%s", s.code, s.elapsed, s.stdout, s.stderr)
	}
}

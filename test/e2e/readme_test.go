package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// runnable finds the examples that are marked to be run: <!-- run: NAME --> before a block of shell.
var runnable = regexp.MustCompile("(?s)<!-- run: ([a-z]+) -->\n```sh\n(.*?)```")

// readmeBlocks returns the marked examples of a page by name, those of one name joined in their order.
func readmeBlocks(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), page))
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	for _, m := range runnable.FindAllStringSubmatch(string(text), -1) {
		blocks[m[1]] += m[2]
	}
	return blocks
}

// The examples of the README do what it says, and both languages have the same.
func TestReadmeExamples(t *testing.T) {
	blocks, chinese := readmeBlocks(t, "README.md"), readmeBlocks(t, "README.zh-CN.md")
	for name, block := range blocks {
		if chinese[name] != block {
			t.Errorf("example %q differs between README.md and README.zh-CN.md", name)
		}
	}
	if len(blocks) != 3 || len(chinese) != 3 {
		t.Fatalf("examples: %d and %d, want 3", len(blocks), len(chinese))
	}

	t.Run("demo", func(t *testing.T) {
		g := startDemo(t)
		out := runExample(t, t.TempDir(), blocks["demo"], "ANTHROPIC_BASE_URL="+g.url, "ANTHROPIC_AUTH_TOKEN="+g.key)
		for _, want := range []string{`"type":"message"`, "Hello, Claude!", `"user_id":"demo"`, `"totals":{"requests":1`, `"status":"healthy"`} {
			if !strings.Contains(out, want) {
				t.Errorf("no %s in:\n%s", want, out)
			}
		}
	})
	t.Run("serve", func(t *testing.T) {
		dir := t.TempDir()
		p := start(t, dir, plainEnv(dir), binary, "serve", "--listen", "127.0.0.1:0")
		address := p.line(p.stderr, "the address", func(line string) (string, bool) {
			_, rest, found := strings.Cut(line, "Carpool is running at ")
			rest, _, _ = strings.Cut(rest, ". ")
			return rest, found
		})
		example := strings.ReplaceAll(blocks["serve"], "http://127.0.0.1:8080", address)
		out := runExample(t, dir, example, "ANTHROPIC_API_KEY=sk-ant-example-credential")
		for _, want := range []string{`"user_id":"alice"`, "user alice updated", `"rows": []`, "2,000,000", "Requests"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %s in:\n%s", want, out)
			}
		}
	})
	t.Run("config", func(t *testing.T) {
		out := runExample(t, t.TempDir(), blocks["config"])
		if !strings.Contains(out, "Europe/Berlin") || !strings.Contains(out, "2000000 tokens a day") {
			t.Errorf("summary:\n%s", out)
		}
	})
}

// runExample runs a block in a shell whose PATH begins with the carpool under test.
func runExample(t *testing.T, dir, block string, env ...string) string {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
	shell.Dir = dir
	shell.Env = append(plainEnv(dir), env...)
	shell.Env = append(shell.Env, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("the example failed: %v\n%s", err, out)
	}
	return string(out)
}

package price_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/price"
)

// genaiPrices is what scripts/test-deps installs.
const genaiPrices = "@pydantic/genai-prices@0.1.8"

func genai(t *testing.T, question, answer any) {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "npm", genaiPrices))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "installed")); err != nil {
		t.Fatalf("%s is not installed: run make test-deps", genaiPrices)
	}
	input, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "genai.cjs"), filepath.Join(dir, "node_modules", "@pydantic", "genai-prices"))
	node.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.Bytes())
	}
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatal(err)
	}
}

// question is one price, asked of both tables.
type question struct {
	Provider string           `json:"provider"`
	Model    string           `json:"model"`
	Day      string           `json:"day"`
	Usage    map[string]int64 `json:"usage"`

	class string
	ours  price.Cost
}

// intended are the differences that are right: "provider model class: difference", in which * stands for any text, and the reason.
func intended() map[string]string {
	const (
		newer     = "newer than the package"
		limited   = "of limited availability; the package leaves it out"
		retired   = "retired before the first model of the table; charged as an unknown one"
		list      = "the premium on long prompts of Anthropic's list, which the package's rows of this cloud never had"
		ended     = "the premium on long prompts has ended, which the package's row does not know"
		noOneHour = "no rate for one-hour writes in the package's rows of clouds: it charges them as five-minute ones"
		noCache   = "no cache rates in the package's row: it charges cache tokens as input"
		ownName   = "the package's own name; Google's is that of Anthropic, with @ before the date"
	)
	return map[string]string{
		"anthropic claude-fable-5-2 *: absent there":  newer,
		"anthropic claude-mythos-5-2 *: absent there": newer,
		"anthropic claude-haiku-5-5 *: absent there":  newer,
		"anthropic claude-mythos-5 *: absent there":   limited,
		"anthropic claude-mythos-5-1 *: absent there": limited,

		"anthropic claude-v1 *: absent here":                retired,
		"anthropic claude-2 *: absent here":                 retired,
		"anthropic claude-3-sonnet *: absent here":          retired,
		"aws us.anthropic.claude-3-sonnet-* *: absent here": retired,

		"anthropic claude-sonnet-5-5 cache read: dearer there since 2026-10-07": "newer than the package, whose rule for claude-sonnet-5 catches it",

		"anthropic claude-sonnet-4-5 *: dearer there since 2026-04-30 from 200001 tokens": ended,
		"google claude-sonnet-4-5 *: dearer there since 2026-04-30 from 200001 tokens":    ended,
		"google claude-opus-4-6 *: dearer there since 2026-03-13 from 200001 tokens":      ended,

		"aws *.claude-opus-4-6-* *: cheaper there until 2026-03-12 from 200001 tokens":   list,
		"aws *.claude-sonnet-4-6-* *: cheaper there until 2026-03-12 from 200001 tokens": list,
		"aws *.claude-sonnet-4-5-* *: cheaper there until 2026-04-29 from 200001 tokens": list,
		"google claude-sonnet-4-6 *: cheaper there until 2026-03-12 from 200001 tokens":  list,

		"aws * 1h write: cheaper there":                                     noOneHour,
		"google * 1h write: cheaper there":                                  noOneHour,
		"google claude-opus-4-6 1h write: cheaper there and dearer there":   noOneHour + "; " + ended,
		"google claude-sonnet-4-5 1h write: cheaper there and dearer there": noOneHour + "; " + ended,

		"aws us.anthropic.claude-3-haiku-* 5m write: cheaper there":  noCache,
		"aws us.anthropic.claude-3-haiku-* cache read: dearer there": noCache,
		"aws us.anthropic.claude-3-opus-* 5m write: cheaper there":   noCache,
		"aws us.anthropic.claude-3-opus-* cache read: dearer there":  noCache,

		"google claude-4-opus *: absent here":   ownName,
		"google claude-4-sonnet *: absent here": ownName,
	}
}

// TestAgainstGenaiPrices compares the table with an independent one: every model of both, in every class, on both sides of every change of
// price and of size. What differs must be listed above, and what is listed must differ.
func TestAgainstGenaiPrices(t *testing.T) {
	t.Parallel()
	asked := questions(t)
	var answers struct{ Prices []*float64 }
	genai(t, map[string]any{"prices": asked}, &answers)

	found := map[string]*difference{}
	for i, q := range asked {
		key := strings.Join([]string{q.Provider, q.Model, q.class}, " ")
		if found[key] == nil {
			found[key] = &difference{}
		}
		found[key].add(q, answers.Prices[i])
	}
	reasons := intended()
	used := map[string]bool{}
	for key, d := range found {
		if d.what == "" {
			continue
		}
		key += ": " + d.String()
		var matching []string
		for pattern := range reasons {
			if ok, err := path.Match(pattern, key); err != nil {
				t.Fatal(err)
			} else if ok {
				matching = append(matching, pattern)
				used[pattern] = true
			}
		}
		if len(matching) != 1 {
			t.Errorf("%s (%s); intended by %q", key, d.example, matching)
		}
	}
	for pattern := range reasons {
		if !used[pattern] {
			t.Errorf("no such difference any more: %s", pattern)
		}
	}
}

// questions asks for every model of both tables.
func questions(t *testing.T) (list []question) {
	t.Helper()
	models := map[string][]string{}
	genai(t, map[string]any{"catalogue": []string{"anthropic", "aws", "google"}}, &models)
	days := []string{"2026-01-15", autumn.Format(time.DateOnly)}
	for _, name := range published(t) {
		model, row, _ := strings.Cut(name, " ")
		if !slices.Contains(models["anthropic"], model) {
			models["anthropic"] = append(models["anthropic"], model)
		}
		if from, _, _ := strings.Cut(row, " "); from > days[0] {
			days = append(days, from, day(from).AddDate(0, 0, -1).Format(time.DateOnly))
		}
	}
	slices.Sort(days)
	days = slices.Compact(days)
	prices := table(t, price.Overlay{})
	for provider, ids := range models {
		for _, id := range ids {
			r := price.Request{Provider: price.Anthropic, Sent: strings.Replace(id, "regional.", "us.", 1)}
			switch provider {
			case "aws":
				r.Provider = price.Bedrock
			case "google":
				r.Provider, r.Location = price.Vertex, price.Global
			}
			for _, d := range days {
				for _, q := range usages() {
					r.Usage = anthropic.Usage{
						Input:        q.Usage["input_tokens"] - q.Usage["cache_read_tokens"] - q.Usage["cache_write_tokens"],
						CacheRead:    q.Usage["cache_read_tokens"],
						CacheWrite5m: q.Usage["cache_write_tokens"] - q.Usage["cache_write_1h_tokens"],
						CacheWrite1h: q.Usage["cache_write_1h_tokens"],
						Output:       q.Usage["output_tokens"],
					}
					q.Provider, q.Model, q.Day, q.ours = provider, r.Sent, d, prices.Cost(day(d), r)
					if !strings.Contains(q.ours.Rule, "not yet in force") { // a model that nobody could use yet
						list = append(list, q)
					}
				}
			}
		}
	}
	return list
}

// usages are prompts of one class, small ones and on both sides of the sizes at which prices change. There, input includes cache tokens.
func usages() (list []question) {
	for _, n := range []int64{1000, 200_000, 200_001} {
		list = append(list,
			question{class: "input", Usage: map[string]int64{"input_tokens": n}},
			question{class: "cache read", Usage: map[string]int64{"input_tokens": n, "cache_read_tokens": n}},
			question{class: "5m write", Usage: map[string]int64{"input_tokens": n, "cache_write_tokens": n}},
			question{class: "1h write", Usage: map[string]int64{"input_tokens": n, "cache_write_tokens": n, "cache_write_1h_tokens": n}},
			question{class: "output", Usage: map[string]int64{"input_tokens": n, "output_tokens": n}},
		)
	}
	return list
}

// difference is what differs in one class of one model, and when.
type difference struct {
	what    string // several joined by "and"
	example string

	first, last   string // days compared
	since, until  string // days that differ
	small, bigger int64  // the smallest prompt compared, and the smallest that differs
}

func (d *difference) add(q question, theirs *float64) {
	size := q.Usage["input_tokens"]
	if d.first == "" {
		d.first, d.small = q.Day, size
	}
	d.last, d.small = q.Day, min(d.small, size)
	what := ""
	switch {
	case theirs == nil && q.ours.Unpriced:
	case theirs == nil:
		what = "absent there"
	case q.ours.Unpriced:
		what = "absent here"
	case *theirs < float64(q.ours.Total)-1: // floats, and no rounding
		what = "cheaper there"
	case *theirs > float64(q.ours.Total)+1:
		what = "dearer there"
	}
	if what == "" {
		return
	}
	if d.what == "" {
		d.what, d.since, d.bigger = what, q.Day, size
		d.example = fmt.Sprintf("%s, %d tokens: %d here", q.Day, size, q.ours.Total)
		if theirs != nil {
			d.example += fmt.Sprintf(", %.1f there", *theirs)
		}
	}
	if all := strings.Split(d.what, " and "); !slices.Contains(all, what) {
		all = append(all, what)
		slices.Sort(all)
		d.what = strings.Join(all, " and ")
	}
	d.until, d.bigger = q.Day, min(d.bigger, size)
}

func (d *difference) String() string {
	s := d.what
	if d.since != d.first {
		s += " since " + d.since
	}
	if d.until != d.last {
		s += " until " + d.until
	}
	if d.bigger != d.small {
		s += fmt.Sprintf(" from %d tokens", d.bigger)
	}
	return s
}

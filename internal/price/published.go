package price

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// publishedJSON is the table of published prices, with its sources. Its semantics member says how to read it.
//
//go:embed prices.json
var publishedJSON []byte

// What every match pattern of the published table begins and ends with; between them is an id with optional literal parts. [book.find] is
// these patterns without regular expressions.
const (
	patternHead = `(?i)^(?:.*[/.:])?`
	patternTail = `(?:[-@]\d{8})?(?:-v\d+(?::\d+)?)?(?:-fast)?(?:\[1m\])?$`
)

type published struct {
	AsOf      string `json:"as_of"`
	Modifiers map[string]struct {
		Multiplier json.Number `json:"multiplier"`
	} `json:"modifiers"`
	ServerTools struct {
		WebSearch struct {
			Dollars json.Number `json:"usd_per_request"`
		} `json:"web_search"`
	} `json:"server_tools"`
	Unknown struct {
		Rates publishedRates `json:"rates"`
	} `json:"unknown_model"`
	Models []publishedModel `json:"models"`
}

type publishedModel struct {
	ID      string            `json:"id"`
	Match   []string          `json:"match"`
	Periods []publishedPeriod `json:"periods"`
	US      json.Number       `json:"us_inference_geo_multiplier"`
	Fast    *struct {
		Multiplier json.Number `json:"multiplier"`
		Until      string      `json:"until"`
	} `json:"fast_mode"`
}

type publishedPeriod struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Tiers []struct {
		UpTo  *int64         `json:"max_prompt_tokens"`
		Rates publishedRates `json:"rates"`
	} `json:"tiers"`
}

type publishedRates struct {
	Input        json.Number `json:"input"`
	CacheWrite5m json.Number `json:"cache_write_5m"`
	CacheWrite1h json.Number `json:"cache_write_1h"`
	CacheRead    json.Number `json:"cache_read"`
	Output       json.Number `json:"output"`
}

// load fills a table with the published prices. It is strict: money depends on reading all of it as it is meant.
func load(document []byte) (*Table, error) {
	var p published
	if err := json.Unmarshal(document, &p); err != nil {
		return nil, err
	}
	t := &Table{asOf: p.AsOf, list: newBook(), endpoints: map[Provider]uint64{}}
	for name, into := range map[string]func(uint64){
		"batch":                           func(f uint64) { t.batch = f },
		"inference_geo_us":                func(f uint64) { t.us = f },
		"bedrock_regional_or_geo_profile": func(f uint64) { t.endpoints[Bedrock] = f },
		"vertex_regional_or_multiregion":  func(f uint64) { t.endpoints[Vertex] = f },
		"foundry":                         func(f uint64) { t.endpoints[Foundry] = f },
		"claude_platform_on_aws":          func(f uint64) { t.endpoints[AWS] = f },
	} {
		f, err := multiplier(p.Modifiers[name].Multiplier)
		if err != nil {
			return nil, fmt.Errorf("modifier %s: %w", name, err)
		}
		into(f)
	}
	if t.batch > one { // an upper bound leaves the batch factor out
		return nil, errors.New("modifier batch: must be at most 1")
	}
	var err error
	if t.webSearch, err = decimal(string(p.ServerTools.WebSearch.Dollars), 12); err != nil {
		return nil, fmt.Errorf("web search: %w", err)
	}
	for _, m := range p.Models {
		if err := t.publish(m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.ID, err)
		}
	}
	unknown, err := p.Unknown.Rates.parse()
	if err != nil {
		return nil, fmt.Errorf("unknown model: %w", err)
	}
	t.unknown = &model{
		rows: []row{{from: always(), tiers: []tier{{upTo: math.MaxInt64, rates: unknown}}}},
		fast: t.fast, us: t.us, regional: true,
	}
	return t, nil
}

func (t *Table) publish(p publishedModel) error {
	m := &model{id: p.ID, us: one, regional: generation(p.ID) >= 405}
	var err error
	if p.US != "" {
		if m.us, err = premium(p.US); err != nil {
			return fmt.Errorf("us_inference_geo_multiplier: %w", err)
		}
	}
	if f := p.Fast; f != nil {
		switch {
		case f.Multiplier != "":
			if m.fast, err = premium(f.Multiplier); err != nil {
				return fmt.Errorf("fast_mode: %w", err)
			}
			t.fast = max(t.fast, m.fast)
		case f.Until == "":
			m.fast = one // the table says that such requests are served at standard speed and rates
		}
		if f.Until != "" {
			last, err := time.Parse(time.DateOnly, f.Until)
			if err != nil {
				return fmt.Errorf("fast_mode: %w", err)
			}
			m.fastUntil = last.AddDate(0, 0, 1)
		}
	}
	if m.rows, err = periods(p); err != nil {
		return err
	}
	for _, pattern := range p.Match {
		keys, err := keys(pattern)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if other := t.list.models[key]; other != nil && other != m {
				return fmt.Errorf("%s is a name of %s, too", key, other.id)
			}
			t.list.add(key, m)
		}
	}
	return nil
}

// periods reads the rows of a model, in any order.
func periods(p publishedModel) ([]row, error) {
	list := slices.Clone(p.Periods)
	slices.SortFunc(list, func(a, b publishedPeriod) int { return strings.Compare(a.From, b.From) })
	if len(list) == 0 {
		return nil, errors.New("no period")
	}
	var rows []row
	for i, period := range list {
		next := ""
		if i+1 < len(list) {
			next = list[i+1].From
		}
		if period.To != next {
			return nil, fmt.Errorf("the period from %s ends at %q, but the next one begins at %q", period.From, period.To, next)
		}
		from, err := time.Parse(time.DateOnly, period.From)
		if err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		r := row{from: from}
		for _, pt := range period.Tiers {
			t := tier{upTo: math.MaxInt64}
			if pt.UpTo != nil {
				t.upTo = *pt.UpTo
			}
			if t.rates, err = pt.Rates.parse(); err != nil {
				return nil, fmt.Errorf("period from %s: %w", period.From, err)
			}
			r.tiers = append(r.tiers, t)
		}
		slices.SortFunc(r.tiers, func(a, b tier) int { return cmp.Compare(a.upTo, b.upTo) })
		if err := ascending(r.tiers); err != nil {
			return nil, fmt.Errorf("period from %s: %w", period.From, err)
		}
		r.label(p.ID)
		rows = append(rows, r)
	}
	return rows, nil
}

// ascending checks sorted tiers: different sizes, the last without one, and no rate falls with the size of the prompt, or more tokens
// could cost less.
func ascending(tiers []tier) error {
	if len(tiers) == 0 || tiers[len(tiers)-1].upTo != math.MaxInt64 {
		return errors.New("no rates for the largest prompts")
	}
	for i := 1; i < len(tiers); i++ {
		switch {
		case tiers[i].upTo == tiers[i-1].upTo:
			return errors.New("two rates for the same size of prompt")
		case !tiers[i].noLessThan(tiers[i-1].rates):
			return errors.New("a rate for larger prompts is lower than for smaller ones")
		}
	}
	return nil
}

func (p publishedRates) parse() (r rates, err error) {
	for _, f := range []struct {
		from json.Number
		into *uint64
	}{
		{p.Input, &r.input},
		{p.CacheWrite5m, &r.cacheWrite5m},
		{p.CacheWrite1h, &r.cacheWrite1h},
		{p.CacheRead, &r.cacheRead},
		{p.Output, &r.output},
	} {
		if *f.into, err = decimal(string(f.from), 6); err != nil { // a millionth of a dollar per million tokens is a pico-dollar per token
			return r, fmt.Errorf("rate %q: %w", f.from, err)
		}
	}
	return r, nil
}

// one is the factor that changes nothing. Factors are in hundredths.
const one = 100

func multiplier(n json.Number) (uint64, error) {
	f, err := decimal(string(n), 2)
	if err == nil && (f == 0 || f > 100*one) {
		err = errors.New("must be above 0 and at most 100")
	}
	return f, err
}

// premium reads a multiplier that never makes cheaper: an upper bound takes it as the worst case.
func premium(n json.Number) (uint64, error) {
	f, err := multiplier(n)
	if err == nil && f < one {
		err = errors.New("must be at least 1")
	}
	return f, err
}

// keys lists the ids that a match pattern names, without the prefixes and endings that all ids may have.
func keys(pattern string) ([]string, error) {
	body, head := strings.CutPrefix(pattern, patternHead)
	body, tail := strings.CutSuffix(body, patternTail)
	literal, optional, _ := strings.Cut(body, "(?:")
	list := []string{literal}
	for optional != "" {
		part, rest, ok := strings.Cut(optional, ")?")
		if !ok || rest != "" && !strings.HasPrefix(rest, "(?:") {
			tail = false
			break
		}
		optional = strings.TrimPrefix(rest, "(?:")
		for _, key := range list {
			list = append(list, key+part)
		}
	}
	for _, key := range list {
		if !head || !tail || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return nil, fmt.Errorf("match %q is not of the form that is understood", pattern)
		}
	}
	return list, nil
}

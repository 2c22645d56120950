package price

import "strings"

// book finds models by the ids that clients, clouds and proxies write for them. Keys are in lower case.
type book struct {
	models  map[string]*model
	longest int // of the keys
}

func newBook() book { return book{models: map[string]*model{}} }

func (b *book) add(key string, m *model) {
	b.models[key] = m
	b.longest = max(b.longest, len(key))
}

// find returns the model of an id, or nil. An id is a key, with any prefix that ends in a slash, a dot or a colon (regions, vendors, ARNs,
// providers of proxies) and with these endings, each at most once and in this order: a date (-20251101, @20251101), a version (-v1, -v1:0),
// -fast, [1m]. Nothing else is guessed: claude-opus-5-6 is not claude-opus-5. A key that has such an ending itself wins over what is
// left without it.
//
// fast reports whether -fast was such an ending: the id is that of a deployment in fast mode.
func (b *book) find(id string) (m *model, fast bool) {
	id = strings.ToLower(id)
	if strings.Contains(id, "\n") {
		return nil, false
	}
	if m = b.suffix(id); m != nil {
		return m, false
	}
	for _, ending := range [...]func(string) (string, bool){cutLong, cutFast, cutVersion, cutDate} {
		rest, ok := ending(id)
		if !ok {
			continue
		}
		fast = fast || strings.HasSuffix(id, "-fast")
		id = rest
		if m = b.suffix(id); m != nil {
			return m, fast
		}
	}
	return nil, false
}

// suffix finds the longest key that id is or ends in after a prefix.
func (b *book) suffix(id string) *model {
	if m := b.models[id]; m != nil {
		return m
	}
	for i := max(len(id)-b.longest-1, 0); i < len(id); i++ {
		if c := id[i]; c == '/' || c == '.' || c == ':' {
			if m := b.models[id[i+1:]]; m != nil {
				return m
			}
		}
	}
	return nil
}

func cutLong(id string) (string, bool) { return strings.CutSuffix(id, "[1m]") }

func cutFast(id string) (string, bool) { return strings.CutSuffix(id, "-fast") }

// cutVersion cuts -v1 or -v1:0.
func cutVersion(id string) (string, bool) {
	rest := cutDigits(id)
	if v, ok := strings.CutSuffix(rest, "-v"); ok && rest != id {
		return v, true
	}
	minor, ok := strings.CutSuffix(rest, ":")
	if !ok || rest == id {
		return id, false
	}
	rest = cutDigits(minor)
	if v, ok := strings.CutSuffix(rest, "-v"); ok && rest != minor {
		return v, true
	}
	return id, false
}

// cutDate cuts -20251101 or @20251101.
func cutDate(id string) (string, bool) {
	rest := cutDigits(id)
	if len(id)-len(rest) < 8 { // of more than eight digits the ninth from the end is no separator
		return id, false
	}
	rest = id[:len(id)-8]
	for _, separator := range [...]string{"-", "@"} {
		if r, ok := strings.CutSuffix(rest, separator); ok {
			return r, true
		}
	}
	return id, false
}

func cutDigits(id string) string { return strings.TrimRight(id, "0123456789") }

// isClaude reports whether an id names a Claude model, known or not. Others can be names of deployments or opaque ARNs, which say nothing.
func isClaude(id string) bool { return strings.Contains(strings.ToLower(id), "claude") }

// isGlobal reports whether a Bedrock id is that of a global inference profile.
func isGlobal(id string) bool {
	id = strings.ToLower(id)
	return strings.HasPrefix(id, "global.") || strings.Contains(id, "/global.")
}

// canonical is the id of the model whose key is given, or the key itself.
func (b *book) canonical(key string) string {
	if m := b.models[key]; m != nil {
		return m.id
	}
	return key
}

// names lists the keys of a model.
func (b *book) names(id string) (list []string) {
	for key, m := range b.models {
		if m.id == id {
			list = append(list, key)
		}
	}
	return list
}

package price

import (
	"strconv"
	"strings"
	"time"
)

// terms are what a sampling run is charged by.
type terms struct {
	rates
	factors
	unpriced bool
	what     string // which price it is, and what is doubtful about it
}

// settings are what decides on a price beside the model.
type settings struct {
	fast  bool
	own   bool // it is the request's own model that is said to be fast, and not an advisor or another attempt
	batch bool
	geo   string
}

func (t *Table) settings(r *Request) settings {
	fast := r.Usage.Speed == "fast" || t.deployedFast(r)
	return settings{fast: fast, batch: r.Usage.ServiceTier == "batch" && !fast, geo: r.Usage.InferenceGeo}
}

// deployedFast reports whether a model id says fast mode, because answers of such deployments do not.
func (t *Table) deployedFast(r *Request) bool {
	for _, id := range [...]string{r.Served, r.Sent} {
		if rest, _ := cutLong(strings.ToLower(id)); !strings.HasSuffix(rest, "-fast") {
			continue
		}
		if m, fast := t.find(r.Upstream, id); fast || m == nil && isClaude(id) {
			return true
		}
	}
	return false
}

// terms finds the row, the tier and the factors for a model, nil for one that is not known.
func (t *Table) terms(at time.Time, r *Request, m *model, prompt int64, s settings) terms {
	unknown := m == nil
	if unknown {
		m = t.unknown
	}
	row, held := m.at(at)
	tier := row.tier(prompt)
	x := terms{tier.rates, factors{one, one, one, one, fullPrice}, unknown, tier.rule}
	if !unknown && !held {
		x.doubt("not yet in force")
	}
	if s.fast {
		switch x.fast = m.fastAt(at, tier); {
		case x.fast == 0 && s.own:
			x.fast = t.fast
			x.doubt("no price of its fast mode is known")
		case x.fast == 0: // a model without fast mode, beside one that has it
			x.fast = one
		}
	}
	if s.batch {
		x.batch = t.batch
	}
	if !row.negotiated {
		x.endpoint, x.discount = t.endpoint(r, m), t.discountAt(r.Upstream, at)
		if r.Provider == Foundry && r.Location != "" && !strings.EqualFold(r.Location, Global) {
			s.geo = "us" // the only data zone that there is
		}
	}
	switch {
	case r.Provider == Bedrock || r.Provider == Vertex: // the endpoint says where
	case s.geo == "" || s.geo == Global || s.geo == "not_available":
	default:
		x.geo = m.us
		if s.geo != "us" {
			x.doubt("no price of its inference geo is known")
		}
	}
	return x
}

func (x *terms) doubt(why string) {
	x.unpriced = true
	x.what += ", " + why
}

// endpoint is the factor for where an upstream is.
func (t *Table) endpoint(r *Request, m *model) uint64 {
	factor, ok := t.endpoints[r.Provider]
	if !ok || !m.regional || strings.EqualFold(r.Location, Global) || isGlobal(r.Sent) {
		return one
	}
	return factor
}

// factors multiply a rate. All are in hundredths but the discount, which is in ten-thousandths: together in units of 10⁻¹². Their limits
// keep the product in 64 bits.
type factors struct{ fast, batch, geo, endpoint, discount uint64 }

// yoctoPerPico is the product of factors that change nothing.
const yoctoPerPico = one * one * one * one * fullPrice

func (f factors) product() uint64 { return f.fast * f.batch * f.geo * f.endpoint * f.discount }

// applied names the factors that are not 1, to be read by people.
func (f factors) applied() string {
	if f == (factors{one, one, one, one, fullPrice}) {
		return ""
	}
	b := make([]byte, 0, 64)
	for _, part := range [...]struct {
		name            string
		factor, neutral uint64
	}{
		{"fast", f.fast, one},
		{"batch", f.batch, one},
		{"inference geo", f.geo, one},
		{"regional endpoint", f.endpoint, one},
		{"upstream's multiplier", f.discount, fullPrice},
	} {
		if part.factor != part.neutral {
			b = append(append(append(b, ", "...), part.name...), " ×"...)
			b = strconv.AppendFloat(b, float64(part.factor)/float64(part.neutral), 'g', -1, 64)
		}
	}
	return string(b)
}

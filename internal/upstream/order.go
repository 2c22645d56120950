package upstream

import (
	"carpool/internal/policy"
)

// order lists a route's upstreams as an exchange tries them: the session's own first, then by priority, within one
// priority those of the session's organisation first (they share its prompt cache), then at random in proportion to weight
// and to what is left of the rate limits. upstreams is ordered by priority.
func (p *Pool) order(upstreams []*policy.Upstream, model, bound string) []candidate {
	now := p.now()
	all := make([]candidate, 0, len(upstreams))
	organization := ""
	for _, u := range upstreams {
		h := p.health(u)
		all = append(all, candidate{upstream: u, health: h, model: policy.UpstreamModel(u, model)})
		if u.Name == bound {
			organization = h.org()
		}
	}
	if len(all) < 2 {
		return all
	}
	weight := func(c *candidate) int {
		return max(int(float64(c.upstream.Weight)*1000*c.health.share(now)), 1)
	}
	for from := 0; from < len(all); {
		to := from
		for to < len(all) && all[to].upstream.Priority == all[from].upstream.Priority {
			to++
		}
		p.shuffle(all[from:to], weight)
		stable(all[from:to], func(c *candidate) bool { return organization != "" && c.health.org() == organization })
		from = to
	}
	stable(all, func(c *candidate) bool { return c.upstream.Name == bound })
	return all
}

// shuffle puts candidates into a random order in which each comes first in proportion to its weight.
func (p *Pool) shuffle(group []candidate, weight func(*candidate) int) {
	for i := range group {
		rest, total := group[i:], 0
		for j := range rest {
			total += weight(&rest[j])
		}
		at := p.random(total)
		for j := range rest {
			if at -= weight(&rest[j]); at < 0 {
				rest[0], rest[j] = rest[j], rest[0]
				break
			}
		}
	}
}

// stable moves the candidates for which first holds to the front and keeps the order otherwise.
func stable(list []candidate, first func(*candidate) bool) {
	at := 0
	for i := range list {
		if first(&list[i]) {
			c := list[i]
			copy(list[at+1:i+1], list[at:i])
			list[at] = c
			at++
		}
	}
}

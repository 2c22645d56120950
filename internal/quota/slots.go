package quota

// Slots counts requests in flight.
//
// The zero Slots has no requests in flight.
type Slots struct{ held int }

// Acquire takes a slot unless limit slots are held already; limit 0 or less is unlimited. Each success needs one Release.
func (s *Slots) Acquire(limit int) bool {
	if limit > 0 && s.held >= limit {
		return false
	}
	s.held++
	return true
}

// Release gives a slot back. A Release without an Acquire is ignored.
func (s *Slots) Release() { s.held = max(s.held-1, 0) }

// Held returns the number of slots taken.
func (s *Slots) Held() int { return s.held }

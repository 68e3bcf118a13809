package vswitch

import (
	"maps"
	"sync/atomic"

	"github.com/etherloom/etherloom/policy"
)

// meters measure what one identity sends. A peer sends a frame for many to a gateway once for each grant by which some behind it may have
// it. Each of these takes one copy, so what one of them has to bear is measured for each grant: a frame that comes twice does not
// count twice, and who sends more copies than there are grants gets no more through to anybody.
type meters struct {
	policy.Meter
	copies atomic.Pointer[map[policy.GrantID]*policy.Meter]
}

// of is the meter of copies by a grant. It is made when the first one passes, of which there are no more than there are grants.
func (m *meters) of(grant policy.GrantID) *policy.Meter {
	for {
		have := m.copies.Load()
		if have != nil && (*have)[grant] != nil {
			return (*have)[grant]
		}
		next := map[policy.GrantID]*policy.Meter{grant: new(policy.Meter)}
		if have != nil {
			maps.Copy(next, *have)
		}
		m.copies.CompareAndSwap(have, &next)
	}
}

// keep forgets the copies by grants that are no more.
func (m *meters) keep(v *policy.View) {
	have := m.copies.Load()
	if have == nil {
		return
	}
	next := maps.Clone(*have)
	maps.DeleteFunc(next, func(grant policy.GrantID, _ *policy.Meter) bool { return !v.Knows(grant) })
	m.copies.CompareAndSwap(have, &next)
}

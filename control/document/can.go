package document

import (
	"slices"

	"github.com/etherloom/etherloom/policy"
)

// can is one thing that may be begun.
type can struct {
	term policy.Term
	// segment: by a grant to the segment. Then IP also goes to what is behind the receiver, and everything is ARP and groups, too.
	segment bool
}

func (c can) String() string {
	text := c.term.String()
	if c.term.Scope == policy.Everything {
		text = "everything"
	}
	if c.segment {
		text += " as a member of the segment"
	}
	return text
}

// newCan is what a term of a grant lets begin. Of what is no IP to one station, it makes no difference by what grant.
func newCan(t policy.Term, segment bool) can {
	switch t.Scope {
	case policy.EtherType, policy.Multicast, policy.Broadcast:
		segment = false
	default: // IP, everything
	}
	return can{t, segment}
}

// covers reports whether who may do c may do o.
func (c *can) covers(o *can) bool {
	a, b := &c.term, &o.term
	switch {
	case o.segment && !c.segment:
		return false
	case a.Scope == policy.PortRange && b.Scope == policy.PortRange: // the most frequent question
		return a.Protocol == b.Protocol && a.From <= b.From && b.To <= a.To
	case *a == *b:
		return true
	case a.Scope == policy.Everything && c.segment:
		return true
	case a.Scope == policy.Multicast:
		return b.Scope == policy.Multicast && a.Group.Overlaps(b.Group) && a.Group.Bits() <= b.Group.Bits()
	}
	return coversStation(a, b)
}

// coversStation reports whether a covers b, which is about IP to one station.
func coversStation(a, b *policy.Term) bool {
	wide := a.Scope == policy.Everything
	switch b.Scope {
	case policy.AnyIP:
		return wide
	case policy.AnyPort, policy.PortRange:
		return wide || a.Scope == policy.AnyIP || a.Scope == policy.AnyPort && a.Protocol == b.Protocol
	default: // everything, and what is no IP to one station
		return false
	}
}

// cans is all that may be begun; nothing in it covers another.
type cans []can

func (c cans) cover(o can) bool {
	for i := range c {
		if c[i].covers(&o) {
			return true
		}
	}
	return false
}

func (c cans) with(o can) cans {
	if c.cover(o) {
		return c
	}
	kept := c[:0]
	for i := range c {
		if !o.covers(&c[i]) {
			kept = append(kept, c[i])
		}
	}
	return append(kept, o)
}

// within lists what both c and o allow, as c says it.
func (c cans) within(o cans) []string {
	var out []string
	for _, x := range c {
		if o.cover(x) {
			out = append(out, x.String())
		}
	}
	slices.Sort(out)
	return out
}

// beyond lists what c allows and o does not.
func (c cans) beyond(o cans) []string {
	known := make(map[can]bool, len(o))
	for _, x := range o {
		known[x] = true
	}
	var out []string
	for _, x := range c {
		if !known[x] && !o.cover(x) {
			out = append(out, x.String())
		}
	}
	slices.Sort(out)
	return out
}

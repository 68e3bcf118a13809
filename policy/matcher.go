package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// matcher finds the best grant that covers a frame among many, at a cost that does not grow with their number: groups
// excepted, of which there are few.
type matcher struct {
	segment   bool      // the grants are to the segment
	longest   *compiled // the one that lasts longest
	all       *compiled
	ip        *compiled
	broadcast *compiled
	types     map[ether.Type]*compiled
	protocols map[ether.Protocol]*compiled
	ports     map[ether.Protocol][]span
	groups    []groupRule
}

type groupRule struct {
	prefix netip.Prefix
	grant  *compiled
}

// span is the best grant for the ports from first on, up to the next span; nil if there is none.
type span struct {
	first uint16
	grant *compiled
}

// better is the better of two grants, either of which may be nil.
func better(a, b *compiled) *compiled {
	if a == nil || b != nil && b.rank < a.rank {
		return b
	}
	return a
}

// newMatcher compiles grants, all of them to the segment or none.
func newMatcher(grants []*compiled) *matcher {
	m := &matcher{types: map[ether.Type]*compiled{}, protocols: map[ether.Protocol]*compiled{}, ports: map[ether.Protocol][]span{}}
	ranges := map[ether.Protocol][]portRule{}
	for _, g := range grants {
		m.segment, m.longest = g.segment, better(m.longest, g)
		for _, t := range g.allow {
			switch t.Scope {
			case Everything:
				m.all = better(m.all, g)
			case AnyIP:
				m.ip = better(m.ip, g)
			case Broadcast:
				m.broadcast = better(m.broadcast, g)
			case EtherType:
				m.types[t.Type] = better(m.types[t.Type], g)
			case AnyPort:
				m.protocols[t.Protocol] = better(m.protocols[t.Protocol], g)
			case PortRange:
				ranges[t.Protocol] = append(ranges[t.Protocol], portRule{int(t.From), int(t.To), g})
			case Multicast:
				m.groups = append(m.groups, groupRule{t.Group, g})
			}
		}
	}
	slices.SortFunc(m.groups, func(a, b groupRule) int { return cmp.Compare(a.grant.rank, b.grant.rank) })
	for p, rules := range ranges {
		m.ports[p] = spansOf(rules)
	}
	return m
}

type portRule struct {
	first, last int
	grant       *compiled
}

// spansOf lays the rules over each other, the best on top. It paints them in order of rank onto what is still bare, in steps
// from one end of a rule to the next: after[i] is the first bare step from i on, so that what is painted is passed over.
func spansOf(rules []portRule) []span {
	slices.SortStableFunc(rules, func(a, b portRule) int { return cmp.Compare(a.grant.rank, b.grant.rank) })
	var ends []int
	for _, r := range rules {
		ends = append(ends, r.first, r.last+1)
	}
	slices.Sort(ends)
	ends = slices.Compact(ends)
	after := make([]int, len(ends)+1)
	for i := range after {
		after[i] = i
	}
	bare := func(i int) int {
		for after[i] != i {
			after[i] = after[after[i]]
			i = after[i]
		}
		return i
	}
	painted := make([]*compiled, len(ends))
	for _, r := range rules {
		i, _ := slices.BinarySearch(ends, r.first)
		for i = bare(i); i < len(ends) && ends[i] <= r.last; i = bare(i) {
			painted[i], after[i] = r.grant, i+1
		}
	}
	var out []span
	for i, g := range painted {
		if ends[i] <= lastPort {
			out = append(out, span{uint16(ends[i]), g}) //nolint:gosec // just checked
		}
	}
	return out
}

const lastPort = 1<<16 - 1

func bestAt(spans []span, port uint16) *compiled {
	i, exact := slices.BinarySearchFunc(spans, port, func(s span, p uint16) int { return cmp.Compare(s.first, p) })
	if !exact {
		i--
	}
	if i < 0 {
		return nil
	}
	return spans[i].grant
}

// alive reports whether any of the grants has not expired.
func (m *matcher) alive(now time.Time) bool { return m != nil && m.longest.alive(now) }

// find returns the best grant that covers a frame to a receiver, or nil. It says the same as compiled.allows of each grant.
func (m *matcher) find(c *Class, receiver *Station) *compiled {
	if m == nil {
		return nil
	}
	to := deliveryOf(c, receiver, m.segment)
	var best *compiled
	if m.segment || to == addressed && (c.Kind == Packet || c.Kind == Opaque) {
		best = m.all
	}
	switch {
	case to == astray:
	case c.Kind == Opaque:
		best = better(best, m.types[c.Type])
	case c.Kind != Packet:
	case to == grouped:
		best = better(best, m.findGroup(c, receiver))
	default:
		best = better(best, m.findPacket(c))
	}
	return best
}

func (m *matcher) findGroup(c *Class, receiver *Station) *compiled {
	var best *compiled
	if isBroadcast(c, receiver) {
		best = m.broadcast
	}
	dst := addrOf(c.Tuple.Dst)
	for _, g := range m.groups {
		if g.prefix.Contains(dst) {
			return better(best, g.grant)
		}
	}
	return best
}

func (m *matcher) findPacket(c *Class) *compiled {
	best := m.ip
	if !c.Reply {
		best = better(best, m.protocols[c.Tuple.Protocol])
	}
	return better(best, bestAt(m.ports[c.Tuple.Protocol], c.Tuple.DstPort))
}

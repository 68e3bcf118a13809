package policy

import (
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Grant lets its sources reach the segment that its View is of, or some of those on it.
type Grant struct {
	ID      GrantID
	Sources []Identity
	Segment bool       // to the segment: its sources are members and reach members
	Targets []Identity // otherwise: they reach these
	Allow   []Term     // nil: everything
	Both    bool       // those who are reached may begin, too
	Observe bool       // passes nothing: what it would pass is counted
	Expires time.Time  // zero: never
}

// compiled is a grant, ready to be asked. Of several that cover a frame, the one that lasts longest is used, and of equals the
// one with the lowest id: rank counts from the best. So when one has expired, none behind it is alive.
type compiled struct {
	id      GrantID
	rank    int
	expires time.Time
	segment bool
	both    bool
	observe bool
	open    bool // to a segment, without limits
	sources map[Identity]struct{}
	targets map[Identity]struct{}
	allow   []Term
	use     *use
}

func compileGrant(g *Grant, rank int) *compiled {
	c := &compiled{
		id: g.ID, rank: rank, expires: g.Expires, segment: g.Segment, both: g.Both, observe: g.Observe,
		sources: setOf(g.Sources), allow: g.Allow,
	}
	if len(c.allow) == 0 {
		c.allow = []Term{{Scope: Everything}}
	}
	if !g.Segment {
		c.targets = setOf(g.Targets)
	}
	for _, t := range c.allow {
		c.open = c.open || g.Segment && t.Scope == Everything
	}
	return c
}

func setOf(ids []Identity) map[Identity]struct{} {
	set := make(map[Identity]struct{}, len(ids))
	for _, id := range ids {
		set[id] = struct{}{}
	}
	return set
}

func (g *compiled) expired(now time.Time) bool { return !g.expires.IsZero() && !now.Before(g.expires) }

// alive reports whether there is a grant and it has not expired.
func (g *compiled) alive(now time.Time) bool { return g != nil && !g.expired(now) }

// opens reports whether the grant is about what source sends to receiver of its own accord. That it allows this very frame, and
// that both are members of a segment, are other questions.
func (g *compiled) opens(source, receiver Identity) bool {
	return g.reaches(source, receiver) || g.both && g.reaches(receiver, source)
}

func (g *compiled) reaches(source, target Identity) bool {
	if _, holds := g.sources[source]; !holds {
		return false
	}
	if g.segment {
		return true
	}
	_, is := g.targets[target]
	return is
}

// concerns reports whether the grant has anything to do with what goes between the two.
func (g *compiled) concerns(a, b Identity) bool {
	_, holdsA := g.sources[a]
	_, holdsB := g.sources[b]
	return holdsA || holdsB
}

// allows reports whether one of the grant's terms covers a frame to a receiver, who has this station.
func (g *compiled) allows(c *Class, receiver *Station) bool {
	to := deliveryOf(c, receiver, g.segment)
	for i := range g.allow {
		if g.allow[i].covers(c, receiver, to, g.segment) {
			return true
		}
	}
	return false
}

// delivery says how a frame is meant for a receiver.
type delivery uint8

const (
	astray    delivery = iota // for another station
	addressed                 // for this one alone
	grouped                   // for a group
)

// deliveryOf holds a frame's destination against a receiver's station. To a node, only what its own IP addresses are asked for
// is meant for it: a grant to reach a node is none to reach what is behind it.
func deliveryOf(c *Class, receiver *Station, segment bool) delivery {
	switch {
	case c.Dst.IsGroup():
		return grouped
	case receiver == nil || !receiver.uses(c.Dst):
		return astray
	case !segment && c.Kind != Opaque && !receiver.has(c.Tuple.Dst):
		return astray
	}
	return addressed
}

// covers reports whether a term is about a frame. What is unclear or asks for an address is covered only by everything to a
// segment: no rule about anything that a frame is may match one of which that cannot be told.
func (t *Term) covers(c *Class, receiver *Station, to delivery, segment bool) bool {
	switch t.Scope {
	case Everything:
		return segment || to == addressed && (c.Kind == Packet || c.Kind == Opaque)
	case EtherType:
		return c.Kind == Opaque && c.Type == t.Type && to != astray
	default:
		return c.Kind == Packet && t.coversPacket(c, receiver, to)
	}
}

func (t *Term) coversPacket(c *Class, receiver *Station, to delivery) bool {
	switch t.Scope {
	case Broadcast:
		return isBroadcast(c, receiver)
	case Multicast:
		return to == grouped && t.Group.Contains(addrOf(c.Tuple.Dst))
	case AnyIP:
		return to == addressed
	case AnyPort:
		return to == addressed && c.Tuple.Protocol == t.Protocol && !c.Reply
	case PortRange:
		return to == addressed && c.Tuple.Protocol == t.Protocol && t.From <= c.Tuple.DstPort && c.Tuple.DstPort <= t.To
	default:
		return false
	}
}

// isBroadcast reports whether an IPv4 packet is for everybody. One to a host's own address in a frame to all is for that host,
// which may take it (RFC 1122 section 3.3.6 asks it not to); IPv6 has no broadcast.
func isBroadcast(c *Class, receiver *Station) bool {
	return c.Dst == ether.Broadcast && addrOf(c.Tuple.Dst).Is4() && (receiver == nil || !receiver.has(c.Tuple.Dst))
}

func addrOf(a [16]byte) netip.Addr { return netip.AddrFrom16(a).Unmap() }

package vswitch

import (
	"slices"
	"sync/atomic"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file is about VLANs that several gateways carry at once (RFC 7432 section 14.1.2, all-active; decision 0012). The site's switch
// has one link aggregation to all of them, so each frame from the VLAN comes through one, and what any of them sends there comes once.
//
//	to the VLAN     for one address: by the gateway that its sender chose, by a hash of the flow (aliasing, section 8.4)
//	                for many: by the one that is elected
//	                for an address that nobody knows: by the one that the hash names
//	from the VLAN   by whichever has it. If it cannot judge the frame because it does not know of the flow, the gateway that the hash
//	                names judges it: the frame is handed over to that one's port
//
// All choose alike, for the hash is symmetric and they know the same gateways: those that say that they carry the VLAN. While they do not,
// a new flow may have to begin twice; those that live are known to all (package policy, fellow.go).

// Way is a gateway of a Group.
type Way struct {
	Node policy.Identity
	Port *Port // the link to it; nil: this node is it
}

// Group is the gateways that carry one VLAN at once, as far as this node knows them now.
type Group struct {
	Attachment policy.Identity
	bundle     *Port // where those behind it are, as nodes see it that are none of its gateways
	ways       atomic.Pointer[[]Way]
}

// Bundle is the port that stands for all ways of the group. No frame enters through it; one that is for somebody behind it leaves through
// one of them.
func (g *Group) Bundle() *Port { return g.bundle }

// Ways are the gateways, by number.
func (g *Group) Ways() []Way { return *g.ways.Load() }

// pick is the gateway to which a flow belongs; nil if there is none. Each gateway has a number for each flow, and the highest wins: when
// one goes or comes, only flows move that were or will be its own (Thaler, Ravishankar: Using name-based mappings to increase hit
// rates, 1998).
func (g *Group) pick(flow uint64) *Way {
	ways, best, most := *g.ways.Load(), -1, uint64(0)
	for i := range ways {
		if n := policy.Mix(flow ^ policy.Mix(uint64(ways[i].Node))); best < 0 || n > most {
			best, most = i, n
		}
	}
	if best < 0 {
		return nil
	}
	return &ways[best]
}

// leadsTo reports whether a link is one of the group's ways.
func (g *Group) leadsTo(link *Port) bool {
	return slices.ContainsFunc(*g.ways.Load(), func(w Way) bool { return w.Port == link })
}

// Group returns that of an attachment, which SetGroup has made; nil if none.
func (s *Segment) Group(attachment policy.Identity) *Group {
	if all := s.groups.Load(); all != nil {
		return (*all)[attachment]
	}
	return nil
}

// SetGroup says which gateways carry an attachment's VLAN at once now, by number; none: none does. name is for people.
func (s *Segment) SetGroup(attachment policy.Identity, name string, ways []Way) *Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.Group(attachment)
	if g == nil {
		g = &Group{Attachment: attachment}
		g.bundle = NewPort(name, Link, 0, nil)
		g.bundle.group = g
		next := map[policy.Identity]*Group{attachment: g}
		if all := s.groups.Load(); all != nil {
			for id, old := range *all {
				next[id] = old
			}
		}
		g.ways.Store(&ways)
		s.groups.Store(&next)
		return g
	}
	g.ways.Store(&ways)
	return g
}

// BundleOf is where a machine is that is behind the VLAN of a group: the group's bundle, if of those VLANs behind which it may be there
// is just one that several gateways carry at once; otherwise nil.
func (s *Segment) BundleOf(v *policy.View, who policy.Identity) *Port {
	all := s.groups.Load()
	if all == nil {
		return nil
	}
	st := v.Station(who)
	if st == nil {
		return nil
	}
	var only *Group
	for _, id := range st.Attachments {
		g := (*all)[id]
		if g == nil || len(*g.ways.Load()) == 0 {
			continue
		}
		if only != nil {
			return nil
		}
		only = g
	}
	if only == nil {
		return nil
	}
	return only.bundle
}

// SetTogether says whether other gateways carry an attached port's VLAN at the same time.
func (p *Port) SetTogether(together bool) { p.together.Store(together) }

// Together reports what SetTogether has said last.
func (p *Port) Together() bool { return p.together.Load() }

// towards is the place of somebody who was last seen, or is believed to be, behind a link.
func (s *Segment) towards(l *layout, at Place) Place {
	if at.Port.Kind != Link || s.groups.Load() == nil {
		return at
	}
	if b := s.BundleOf(l.policy, at.Who); b != nil && b.group.leadsTo(at.Port) {
		at.Port = b
	}
	return at
}

// way is the port by which a frame goes to a place: of several ways one, by its flow.
func (s *Segment) way(l *layout, c *carriage, at Place) *Port {
	g := at.Port.group
	if g == nil {
		// A flow that begins at a gateway itself goes the way that its answers take, unless no gateway need know of it.
		if !at.Port.together.Load() || c.in.Kind == Link || l.byItself(c, at.Who) {
			return at.Port
		}
		if w := s.pick(at.Port.Identity, c); w != nil && w.Port != nil {
			return w.Port
		}
		return at.Port
	}
	if w := g.pick(c.FlowHash()); w != nil && w.Port != nil {
		return w.Port
	}
	return at.Port
}

func (s *Segment) pick(attachment policy.Identity, c *carriage) *Way {
	if g := s.Group(attachment); g != nil {
		return g.pick(c.FlowHash())
	}
	return nil
}

// owner is the link to the gateway that is to judge a frame from a VLAN; nil if that is this one. One that was handed over
// goes no further.
func (s *Segment) owner(l *layout, c *carriage, who policy.Identity) *Port {
	if c.handed || !c.in.together.Load() || l.byItself(c, who) {
		return nil
	}
	if w := s.pick(c.in.Identity, c); w != nil {
		return w.Port
	}
	return nil
}

// handOver sends a frame from a VLAN to the gateway that is to judge it. No grant goes along: none has been found.
func (c *carriage) handOver(l *layout, to *Port, who policy.Identity) Drop {
	tag := Tag{Source: c.in.Identity}
	return c.asked.note(Place{to, who}, tag, c.send(l, to, tag))
}

// taken is the port of this node on a VLAN from which another gateway hands a frame over; nil if it may not, or nobody may: only
// a gateway of that VLAN, and only what a flow may be: a packet for one.
func (s *Segment) taken(l *layout, in *Port, f *ether.Frame, tag Tag) *Port {
	if in.Kind != Link || tag.Grant != 0 || f.Dst.IsGroup() || !l.policy.MaySpeak(in.Identity, tag.Source) {
		return nil
	}
	for _, p := range l.attached {
		if p.Identity == tag.Source && p.together.Load() {
			return p
		}
	}
	return nil
}

// beside reports whether a frame comes over a link from somebody on a VLAN that both ends of it carry. He is behind this node's own port, too,
// so nothing is learned from that.
func (l *layout) beside(c *carriage) bool {
	if c.in.Kind != Link {
		return false
	}
	for _, p := range l.attached {
		if p.together.Load() && l.policy.IsBehind(c.Source, p.Identity) && l.policy.MaySpeak(c.in.Identity, p.Identity) {
			return true
		}
	}
	return false
}

// carries reports whether a flooded frame that is for one goes onto the VLAN of a port by this gateway. For many it is the elected one's.
func (s *Segment) carries(out *Port, c *carriage) bool {
	if !out.together.Load() {
		return true
	}
	if !c.Frame.Dst.IsGroup() {
		if w := s.pick(out.Identity, c); w != nil {
			return w.Port == nil
		}
	}
	return out.leads(c)
}

// leads reports whether this gateway is the one that is elected for a VLAN.
func (p *Port) leads(c *carriage) bool {
	lead := p.lead.Load()
	return lead == nil || (*lead)(c.Now)
}

package policy

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Passage is one frame on its way through a switch, as policy sees it.
type Passage struct {
	Frame  ether.Frame
	Source Identity
	Flows  *Flows
	Now    time.Time
	Dry    bool // somebody only wants to know: nothing is remembered
	Shared bool // the other gateways of its VLAN are to know of its flow (fellow.go)

	// Observed is set to the grant in mode observe that would let the frame begin towards a receiver that was judged; 0 if there
	// is none.
	Observed GrantID

	class    Class
	classed  bool
	fragment bool // of the datagram that part names
	part     datagramKey
}

// Settle looks at a fragment: one that no honest host sends, or that overlaps another, passes nowhere. It comes before every
// other question about a passage.
func (p *Passage) Settle() Verdict {
	f, is := ether.ParseFragment(&p.Frame)
	if !is {
		return Pass
	}
	key := keyOf(&f, p.Frame.Inner)
	class, ok := p.Flows.datagrams.settle(p.Source, key, &f, Classify(&p.Frame), p.Now, p.Dry)
	if !ok {
		return BadFragment
	}
	p.class, p.classed = class, true
	p.fragment, p.part = true, key
	return Pass
}

// refused notes of a fragment that somebody does not get it.
func (p *Passage) refused() {
	if p.fragment && !p.Dry {
		p.Flows.datagrams.refuse(p.Source, p.part, p.Now)
	}
}

// Class says what the frame is.
func (p *Passage) Class() *Class {
	if !p.classed {
		p.class, p.classed = Classify(&p.Frame), true
	}
	return &p.class
}

// Egress says whether a frame may be sent to receiver, and under which grant.
func (v *View) Egress(p *Passage, receiver Identity) (GrantID, Verdict) {
	v.watch(p, receiver)
	g, verdict := v.egress(p, receiver)
	if verdict != Pass {
		p.refused()
		return 0, verdict
	}
	g.count(p)
	return g.id, Pass
}

func (v *View) egress(p *Passage, receiver Identity) (*compiled, Verdict) {
	if v.void(p.Now) {
		return nil, PolicyExpired
	}
	if v.apart(p.Source, receiver) {
		return nil, PrivateVLAN
	}
	if g := v.enforced.open[p.Source]; v.free(g, p, receiver) {
		v.note(p, receiver, g)
		return g, Pass
	}
	c := p.Class()
	if c.Kind == Resolution {
		return v.resolve(p, receiver)
	}
	if id := v.flowOf(p, receiver, 0); id != 0 {
		return v.grants[id], Pass
	}
	g := v.enforced.find(c, p.Source, receiver, v.stations[receiver], p.Now)
	if g == nil {
		return nil, v.whyNot(p.Source, receiver, p.Now)
	}
	v.remember(p, receiver, g)
	return g, Pass
}

// Choice is the grant under which Egress would send a frame to a receiver; 0: it would not. It remembers nothing.
func (v *View) Choice(p *Passage, receiver Identity) GrantID {
	dry := p.Dry
	p.Dry = true
	g, verdict := v.egress(p, receiver)
	p.Dry = dry
	if verdict != Pass {
		return 0
	}
	return g.id
}

// Ingress says whether a frame that names a grant may be delivered to receiver. It judges by what is known here alone: this
// grant, this source, this frame, now.
func (v *View) Ingress(p *Passage, receiver Identity, id GrantID) Verdict {
	v.watch(p, receiver)
	g := v.grants[id]
	verdict := v.ingress(g, p, receiver)
	if verdict == Pass {
		g.count(p)
	} else {
		p.refused()
	}
	return verdict
}

func (v *View) ingress(g *compiled, p *Passage, receiver Identity) Verdict {
	switch {
	case v.void(p.Now):
		return PolicyExpired
	case v.apart(p.Source, receiver):
		return PrivateVLAN
	case g == nil:
		return UnknownGrant
	case g.observe || !g.concerns(p.Source, receiver):
		return WrongGrant
	case g.expired(p.Now):
		return GrantExpired
	case v.free(g, p, receiver):
		v.note(p, receiver, g)
		return Pass
	}
	c := p.Class()
	if c.Kind == Resolution {
		return v.resolved(g, p, receiver)
	}
	if v.flowOf(p, receiver, g.id) != 0 {
		return Pass
	}
	if !v.allows(g, p.Source, receiver, c, p.Now) {
		return v.whyNotBy(g, p.Source, receiver, p.Now)
	}
	v.remember(p, receiver, g)
	return Pass
}

// free reports whether a grant lets everything pass from source to receiver, and nothing need be remembered to judge by,
// because the receiver may begin whatever it likes, too.
func (v *View) free(g *compiled, p *Passage, receiver Identity) bool {
	if g == nil || !g.open || g.expired(p.Now) {
		return false
	}
	_, holds := g.sources[p.Source]
	return holds && v.enforced.open[receiver].alive(p.Now)
}

// allows reports whether a grant lets source begin with this frame towards receiver.
func (v *View) allows(g *compiled, source, receiver Identity, c *Class, now time.Time) bool {
	if !g.opens(source, receiver) || !g.allows(c, v.stations[receiver]) {
		return false
	}
	return !g.segment || v.members(source, receiver, now)
}

// members reports whether both are members of the segment.
func (v *View) members(a, b Identity, now time.Time) bool {
	return v.enforced.members[a].alive(now) && v.enforced.members[b].alive(now)
}

// resolve lets members ask for each other's addresses, and those who reach a machine of which nobody has listed the addresses ask
// for these. To everybody else nothing is sent: who may know an address is told by its own node.
func (v *View) resolve(p *Passage, receiver Identity) (*compiled, Verdict) {
	if v.members(p.Source, receiver, p.Now) {
		return v.enforced.members[p.Source], Pass
	}
	if v.unlistedAsk(p, receiver) {
		for _, at := range [...]pair{{p.Source, receiver}, {receiver, p.Source}} {
			if m := v.enforced.pairs[at]; m.alive(p.Now) {
				return m.longest, Pass
			}
		}
	}
	if why := v.whyNot(p.Source, receiver, p.Now); why != NotAllowed {
		return nil, why
	}
	return nil, StaysHere
}

// unlistedAsk reports whether a question or an answer about an address is sent by a grant to nodes: to a machine of which nobody has
// listed the addresses; and from it only what is for the other alone, which is an answer.
func (v *View) unlistedAsk(p *Passage, receiver Identity) bool {
	return v.isUnlisted(receiver) || !p.Frame.Dst.IsGroup() && v.isUnlisted(p.Source)
}

func (v *View) isUnlisted(id Identity) bool {
	s := v.stations[id]
	return s != nil && s.anyAddress
}

func (v *View) resolved(g *compiled, p *Passage, receiver Identity) Verdict {
	_, holds := g.sources[p.Source]
	switch {
	case !g.segment && (g.opens(p.Source, receiver) || g.opens(receiver, p.Source)) && v.unlistedAsk(p, receiver):
		return Pass
	case !g.segment:
		return StaysHere
	case !holds:
		return WrongGrant
	case !v.enforced.members[receiver].alive(p.Now):
		return NotMember
	}
	return Pass
}

// flowOf returns the grant by which a packet goes on, answers, or is an error about a flow that is remembered; 0 if there is
// none. If demanded is not 0, it must be that one.
func (v *View) flowOf(p *Passage, receiver Identity, demanded GrantID) GrantID {
	c := p.Class()
	try := func(opener, other Identity, t Tuple, w way) GrantID {
		return p.Flows.stands(v, opener, &flowKey{other, p.Frame.Inner, t}, w, p, demanded)
	}
	switch c.Kind {
	case Packet:
		if !c.Reply {
			if id := try(p.Source, receiver, c.Tuple, onward); id != 0 {
				return id
			}
		}
		// What begins is no answer, even between the same ports, and an answer is for the opener alone.
		if !c.Opens && v.isFor(receiver, c) {
			return try(receiver, p.Source, c.Tuple.Reverse(), answer)
		}
		return 0
	case ICMPError:
		// An error goes to who sent what it is about (RFC 792, RFC 4443 section 2.2), and to nobody behind.
		if !v.isFor(receiver, c) || c.Tuple.Dst != c.About.Src {
			return 0
		}
		if id := try(receiver, p.Source, c.About, about); id != 0 {
			return id
		}
		return try(p.Source, receiver, c.About.Reverse(), about)
	default:
		return 0
	}
}

// isFor reports whether a frame is addressed to a receiver's station.
func (v *View) isFor(receiver Identity, c *Class) bool {
	s := v.stations[receiver]
	return s != nil && s.uses(c.Dst)
}

// note remembers a packet between two who may send everything to each other, for the records alone: it is judged as if nothing
// were remembered, because the other end may keep no such records.
func (v *View) note(p *Passage, receiver Identity, g *compiled) {
	if p.Flows.records.all.Load() && v.flowOf(p, receiver, 0) == 0 {
		v.remember(p, receiver, g)
	}
}

// remember notes a flow that a grant lets begin. What goes to a group is answered by nobody (RFC 1122 section 3.2.2): it would be
// as many flows as there are receivers, in the place of those that are answered.
func (v *View) remember(p *Passage, receiver Identity, g *compiled) {
	if c := p.Class(); c.Kind == Packet && !c.Dst.IsGroup() && !p.Dry {
		p.Flows.begin(v, p.Source, &flowKey{receiver, p.Frame.Inner, c.Tuple}, g, p)
	}
}

// whyNot says why nothing lets a frame pass from source to receiver.
func (v *View) whyNot(source, receiver Identity, now time.Time) Verdict {
	member := v.enforced.members[source].alive(now)
	for _, p := range [...]pair{{source, receiver}, {receiver, source}} {
		if v.enforced.pairs[p].alive(now) {
			return NotAllowed
		}
	}
	switch {
	case member && v.enforced.members[receiver].alive(now):
		return NotAllowed
	case member:
		return NotMember
	}
	return NoGrant
}

// whyNotBy says why a grant that is known does not let a frame pass.
func (v *View) whyNotBy(g *compiled, source, receiver Identity, now time.Time) Verdict {
	_, holds := g.sources[source]
	switch {
	case !holds && !g.both:
		return WrongGrant // and it is no answer
	case g.segment && !v.enforced.members[receiver].alive(now):
		return NotMember
	}
	return NotAllowed
}

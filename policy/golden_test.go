package policy

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// This file says what a policy means, in the plainest way: a list of grants, each asked in turn, and a list of flows. A
// property test holds the compiled form against it.

// goldenTerm is a term with its meaning for a receiver.
type goldenTerm struct {
	text  string
	means func(c *Class, segment bool, to *goldenParty) bool
}

func toStation(c *Class, segment bool, to *goldenParty) bool {
	return to.uses(c.Dst) && (segment || c.Kind == Opaque || to.has(c.Tuple.Dst))
}

func randomTerm(r *rand.Rand) goldenTerm {
	switch r.IntN(9) {
	case 0:
		return goldenTerm{"any", func(c *Class, segment bool, to *goldenParty) bool {
			return segment || toStation(c, segment, to) && c.Kind != Unclear && c.Kind != ICMPError && c.Kind != Resolution
		}}
	case 1:
		return goldenTerm{"ip", func(c *Class, segment bool, to *goldenParty) bool {
			return c.Kind == Packet && toStation(c, segment, to)
		}}
	case 2:
		return goldenTerm{"icmp", func(c *Class, segment bool, to *goldenParty) bool {
			return c.Kind == Packet && toStation(c, segment, to) && c.Tuple.Protocol == 1 && !c.Reply
		}}
	case 3:
		typ := ether.Type(0x88b5 + r.IntN(2))
		return goldenTerm{fmt.Sprintf("ethertype:%#x", uint16(typ)), func(c *Class, segment bool, to *goldenParty) bool {
			return c.Kind == Opaque && c.Type == typ && (c.Dst.IsGroup() || to.uses(c.Dst))
		}}
	case 4:
		return goldenTerm{"broadcast", func(c *Class, _ bool, to *goldenParty) bool {
			return c.Kind == Packet && c.Dst == ether.Broadcast && !to.has(c.Tuple.Dst)
		}}
	case 5:
		group := netip.AddrFrom4([4]byte{239, 0, 0, byte(r.IntN(3))})
		bits := 30 + 2*r.IntN(2)
		prefix := netip.PrefixFrom(group, bits).Masked()
		return goldenTerm{"multicast:" + prefix.String(), func(c *Class, _ bool, _ *goldenParty) bool {
			return c.Kind == Packet && c.Dst.IsGroup() && prefix.Contains(netip.AddrFrom16(c.Tuple.Dst).Unmap())
		}}
	case 6:
		p := []ether.Protocol{6, 17, 47}[r.IntN(3)]
		text := map[ether.Protocol]string{6: "tcp", 17: "udp", 47: "proto:47"}[p]
		return goldenTerm{text, func(c *Class, segment bool, to *goldenParty) bool {
			return c.Kind == Packet && toStation(c, segment, to) && c.Tuple.Protocol == p
		}}
	}
	name, p := "tcp", ether.Protocol(6)
	if r.IntN(2) == 0 {
		name, p = "udp", 17
	}
	first := uint16(1 + r.IntN(6))
	last := first + uint16(r.IntN(3))
	if r.IntN(20) == 0 {
		last = 65535
	}
	return goldenTerm{fmt.Sprintf("%s:%d-%d", name, first, last), func(c *Class, segment bool, to *goldenParty) bool {
		return c.Kind == Packet && toStation(c, segment, to) && c.Tuple.Protocol == p && first <= c.Tuple.DstPort && c.Tuple.DstPort <= last
	}}
}

type goldenGrant struct {
	Grant
	terms []goldenTerm
}

type goldenFlow struct {
	opener, other Identity
	tuple         Tuple
	dst           ether.MAC
	grant         GrantID
}

// golden is a policy, and one node's memory of flows.
type golden struct {
	grants []goldenGrant // the best first
	world  goldenWorld
	flows  []goldenFlow
}

func (m *golden) member(id Identity, now time.Time) bool {
	return slices.ContainsFunc(m.grants, func(g goldenGrant) bool {
		return g.Segment && !g.Observe && g.lives(now) && slices.Contains(g.Sources, id)
	})
}

func (g *goldenGrant) lives(now time.Time) bool { return g.Expires.IsZero() || now.Before(g.Expires) }

// begins reports whether a grant lets source send c to receiver of its own accord.
func (m *golden) begins(g *goldenGrant, source, receiver Identity, c *Class, now time.Time) bool {
	if g.Observe || !g.lives(now) {
		return false
	}
	reaches := func(a, b Identity) bool {
		if g.Segment {
			return slices.Contains(g.Sources, a) && m.member(a, now) && m.member(b, now)
		}
		return slices.Contains(g.Sources, a) && slices.Contains(g.Targets, b)
	}
	if !reaches(source, receiver) && (!g.Both || !reaches(receiver, source)) {
		return false
	}
	return len(g.terms) == 0 && (g.Segment || goldenTermOf("any")(c, false, m.world[receiver])) ||
		slices.ContainsFunc(g.terms, func(t goldenTerm) bool { return t.means(c, g.Segment, m.world[receiver]) })
}

func goldenTermOf(string) func(*Class, bool, *goldenParty) bool {
	return func(c *Class, segment bool, to *goldenParty) bool {
		return toStation(c, segment, to) && c.Kind != Unclear && c.Kind != ICMPError && c.Kind != Resolution
	}
}

func (m *golden) grant(id GrantID) *goldenGrant {
	for i := range m.grants {
		if m.grants[i].ID == id {
			return &m.grants[i]
		}
	}
	return nil
}

// flowOf finds the flow that a frame belongs to and that the policy still allows; nil if there is none.
// demanded, if not 0, is the grant that the flow must have.
func (m *golden) flowOf(source, receiver Identity, c *Class, demanded GrantID, now time.Time) *goldenFlow {
	var second *goldenFlow // of two, the one that goes the same way, or that the receiver began and the error is about
	for i := range m.flows {
		f := &m.flows[i]
		onward := f.opener == source && f.other == receiver
		backward := f.opener == receiver && f.other == source && m.world[receiver].uses(c.Dst)
		var is bool
		switch c.Kind {
		case Packet:
			is = onward && f.tuple == c.Tuple && f.dst == c.Dst && !c.Reply || backward && f.tuple == c.Tuple.Reverse() && !c.Opens
		case ICMPError:
			mine := onward && m.world[receiver].uses(c.Dst)
			is = c.Tuple.Dst == c.About.Src && (backward && f.tuple == c.About || mine && f.tuple == c.About.Reverse())
		default:
		}
		if !is {
			continue
		}
		g := m.grant(f.grant)
		if g != nil && (demanded == 0 || g.ID == demanded) && m.begins(g, f.opener, f.other, &Class{Kind: Packet, Dst: f.dst, Tuple: f.tuple}, now) {
			if onward == (c.Kind == Packet) {
				return f
			}
			second = f
		}
	}
	return second
}

func (m *golden) remember(source, receiver Identity, c *Class, g GrantID) {
	if c.Kind != Packet || c.Dst.IsGroup() { // nobody answers what goes to a group
		return
	}
	m.flows = slices.DeleteFunc(m.flows, func(f goldenFlow) bool {
		return f.opener == source && f.other == receiver && f.tuple == c.Tuple
	})
	m.flows = append(m.flows, goldenFlow{source, receiver, c.Tuple, c.Dst, g})
}

// free: between two who may both send everything, nothing is remembered.
func (m *golden) free(g *goldenGrant, source, receiver Identity, now time.Time) bool {
	all := func(g *goldenGrant) bool {
		return g.Segment && !g.Observe && g.lives(now) &&
			(len(g.terms) == 0 || slices.ContainsFunc(g.terms, func(t goldenTerm) bool { return t.text == "any" }))
	}
	return all(g) && slices.Contains(g.Sources, source) &&
		slices.ContainsFunc(m.grants, func(o goldenGrant) bool { return all(&o) && slices.Contains(o.Sources, receiver) })
}

func (m *golden) egress(source, receiver Identity, c *Class, now time.Time) GrantID {
	for i := range m.grants {
		if m.free(&m.grants[i], source, receiver, now) {
			return m.grants[i].ID
		}
	}
	if c.Kind == Resolution {
		for _, g := range m.grants {
			if g.Segment && !g.Observe && g.lives(now) && slices.Contains(g.Sources, source) && m.member(receiver, now) {
				return g.ID
			}
		}
		if !m.asksMachine(source, receiver, c) {
			return 0
		}
		for _, at := range []pair{{source, receiver}, {receiver, source}} {
			for _, g := range m.grants {
				if !g.Observe && g.lives(now) && g.joins(at.source, at.receiver) {
					return g.ID
				}
			}
		}
		return 0
	}
	if f := m.flowOf(source, receiver, c, 0, now); f != nil {
		return f.grant
	}
	for i := range m.grants {
		if g := &m.grants[i]; m.begins(g, source, receiver, c, now) {
			m.remember(source, receiver, c, g.ID)
			return g.ID
		}
	}
	return 0
}

// joins reports whether a grant to nodes lets a begin towards b.
func (g *goldenGrant) joins(a, b Identity) bool {
	reaches := func(a, b Identity) bool { return slices.Contains(g.Sources, a) && slices.Contains(g.Targets, b) }
	return !g.Segment && (reaches(a, b) || g.Both && reaches(b, a))
}

// asksMachine: of those whose addresses nobody has listed only they can say them.
func (m *golden) asksMachine(source, receiver Identity, c *Class) bool {
	return m.world[receiver].unlisted() || m.world[source].unlisted() && !c.Dst.IsGroup()
}

func (m *golden) ingress(source, receiver Identity, id GrantID, c *Class, now time.Time) bool {
	g := m.grant(id)
	if g == nil || g.Observe || !g.lives(now) {
		return false
	}
	if m.free(g, source, receiver, now) {
		return true
	}
	if c.Kind == Resolution {
		return g.Segment && slices.Contains(g.Sources, source) && m.member(receiver, now) ||
			(g.joins(source, receiver) || g.joins(receiver, source)) && m.asksMachine(source, receiver, c)
	}
	if f := m.flowOf(source, receiver, c, id, now); f != nil {
		return true
	}
	if !m.begins(g, source, receiver, c, now) {
		return false
	}
	m.remember(source, receiver, c, id)
	return true
}

// people are nodes, and everybody counts those behind gateways, too.
const (
	people    = 4
	everybody = 9
)

func randomIDs(r *rand.Rand) []Identity {
	var ids []Identity
	for id := Identity(1); id <= everybody; id++ {
		if r.IntN(2) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func randomGrants(t *testing.T, r *rand.Rand) []goldenGrant {
	var out []goldenGrant
	for id := range 1 + r.IntN(6) {
		g := goldenGrant{Grant: Grant{ID: GrantID(id + 1), Sources: randomIDs(r), Both: r.IntN(3) == 0, Observe: r.IntN(8) == 0}}
		if g.Segment = r.IntN(2) == 0; !g.Segment {
			g.Targets = randomIDs(r)
		}
		if r.IntN(4) == 0 {
			g.Expires = t0.Add(time.Duration(10+10*r.IntN(3)) * time.Second)
		}
		for range r.IntN(4) {
			g.terms = append(g.terms, randomTerm(r))
		}
		for _, term := range g.terms {
			parsed, err := ParseTerms([]string{term.text})
			if err != nil {
				t.Fatal(err)
			}
			g.Allow = append(g.Allow, parsed...)
		}
		out = append(out, g)
	}
	return out
}

func goldenStations() map[Identity]*Station {
	out := map[Identity]*Station{}
	for id := Identity(1); id <= people; id++ {
		out[id] = NewStation(ether.MAC{2, 5: byte(id)}, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(id)})}, false)
	}
	return out
}

func addressOf(id Identity) [16]byte { return ether.Mapped([4]byte{192, 0, 2, byte(id)}) }

// randomClass is a frame of source that is likely to have to do with receiver.
func randomClass(r *rand.Rand, source, receiver Identity) Class {
	c := Class{Type: ether.TypeIPv4, Dst: goldenMAC(r, receiver), Kind: Packet}
	c.Tuple = Tuple{
		Src: addressOf(source), Dst: addressOf(receiver), SrcPort: uint16(1 + r.IntN(6)), DstPort: uint16(1 + r.IntN(6)),
		Protocol: []ether.Protocol{6, 6, 17, 17, 1, 47}[r.IntN(6)],
	}
	switch c.Tuple.Protocol {
	case 6:
		c.Opens, c.Ends = r.IntN(3) == 0, r.IntN(8) == 0
	case 1:
		c.Opens = r.IntN(2) == 0
		c.Reply, c.Tuple.DstPort = !c.Opens, c.Tuple.SrcPort
	case 47:
		c.Tuple.SrcPort, c.Tuple.DstPort = 0, 0
	default:
	}
	switch r.IntN(12) {
	case 0:
		c.Dst = goldenMAC(r, Identity(1+r.IntN(everybody+2)))
	case 1:
		c.Dst = ether.Broadcast
	case 2:
		c.Tuple.Dst = ether.Mapped([4]byte{239, 0, 0, byte(r.IntN(6))})
		if r.IntN(4) > 0 {
			c.Dst = ether.MAC{1, 0, 0x5e}
		}
	case 3:
		c.Tuple.Dst = addressOf(Identity(1 + r.IntN(everybody+2)))
	case 4:
		c = Class{Kind: Opaque, Type: ether.Type(0x88b5 + r.IntN(3)), Dst: c.Dst}
		switch r.IntN(4) {
		case 0, 1:
			c.Dst = ether.Broadcast
		case 2:
			c.Dst = goldenMAC(r, Identity(1+r.IntN(everybody+2)))
		}
	case 5:
		if r.IntN(2) == 0 {
			c.Dst = ether.Broadcast
		}
		c = Class{Kind: Resolution, Type: ether.TypeARP, Dst: c.Dst}
	case 6:
		c = Class{Kind: Unclear, Type: ether.TypeIPv4, Dst: c.Dst}
	case 7:
		c.About, c.Kind = c.Tuple, ICMPError
		if r.IntN(2) == 0 {
			c.About = c.Tuple.Reverse()
		}
		c.Tuple.Protocol, c.Opens, c.Reply, c.Ends = 1, false, false, false
	}
	return c
}

// goldenNode is what one node knows: the compiled form with its flows, and the model with its own.
type goldenNode struct {
	view  *View
	flows *Flows
	model golden
}

func (n *goldenNode) set(self Identity, world goldenWorld, grants []goldenGrant, generation uint64) {
	rules := Rules{Generation: generation, Self: self, Stations: world.stations()}
	for _, g := range grants {
		rules.Grants = append(rules.Grants, g.Grant)
	}
	n.view = Compile(rules)
	n.model.grants, n.model.world = slices.Clone(grants), world
	slices.SortFunc(n.model.grants, func(a, b goldenGrant) int {
		end := func(g goldenGrant) int64 {
			if g.Expires.IsZero() {
				return 1 << 62
			}
			return g.Expires.Unix()
		}
		return cmp.Or(cmp.Compare(end(b), end(a)), cmp.Compare(a.ID, b.ID))
	})
}

// goldenFrame is a frame of a world.
type goldenFrame struct {
	source, receiver Identity
	class            Class
}

// TestGolden holds the compiled form, at who speaks for the sender and at who speaks for the receiver, against the model, over a
// great many frames under policies that change while flows live.
func TestGolden(t *testing.T) {
	frames := 1_000_000
	switch {
	case testing.Short():
		frames = 50_000
	case raced:
		frames = 200_000 // the detector makes each ten times as dear
	}
	passed, refused, answered, machines := 0, 0, 0, 0
	for seed := uint64(0); passed+refused < frames; seed++ {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // not for secrets
		world := randomWorld(r)
		ends := map[Identity]*goldenNode{}
		for id := Identity(1); id <= people; id++ {
			ends[id] = &goldenNode{flows: NewFlows()}
		}
		var earlier []goldenFrame
		now := t0.Add(time.Duration(r.IntN(25)) * time.Second)
		for generation := uint64(1); generation <= 3; generation++ {
			grants := randomGrants(t, r)
			for id, n := range ends {
				n.set(id, world, grants, generation)
			}
			for range 60 {
				if r.IntN(4) == 0 { // so that grants and memberships end while flows live
					now = now.Add(time.Second)
				}
				f := goldenFrame{source: Identity(1 + r.IntN(everybody))}
				f.receiver = 1 + (f.source+Identity(r.IntN(everybody-1)))%everybody
				f.class = randomClass(r, f.source, f.receiver)
				if len(earlier) > 0 && r.IntN(2) == 0 {
					f = earlier[r.IntN(len(earlier))]
				}
				at, to := world.speaker(r, f.source), world.speaker(r, f.receiver)
				describe := func() string {
					return fmt.Sprintf("seed %d: %d at %d to %d at %d: %+v\n%s\ngrants %+v", seed, f.source, at, f.receiver, to, f.class, world, grants)
				}
				id := goldenEgress(t, ends[at], &f, now, describe)
				ok := id != 0
				if at != to {
					if r.IntN(4) == 0 { // a sender that is not honest
						id = GrantID(r.IntN(8))
					}
					ok = goldenIngress(t, ends[to], &f, id, now, describe)
				}
				if !ok {
					refused++
					continue
				}
				passed++
				if f.class.Reply {
					answered++
				}
				if f.source > people || f.receiver > people {
					machines++
				}
				back := goldenFrame{f.receiver, f.source, f.class}
				back.class.Tuple, back.class.Dst = f.class.Tuple.Reverse(), goldenMAC(r, f.source)
				if f.class.Opens {
					back.class.Opens, back.class.Reply = false, f.class.Tuple.Protocol == 1
				}
				earlier = append(earlier, f, back)
			}
		}
	}
	t.Logf("%d passed, of them %d from or to machines; %d refused", passed, machines, refused)
	if passed < frames/10 || refused < frames/10 || machines < frames/20 || answered == 0 {
		t.Errorf("%d passed, %d refused, %d of machines, %d echo replies: the cases say too little", passed, refused, machines, answered)
	}
}

// goldenEgress asks one end whether a frame goes out, and checks what it says against the model. What it would choose is what it
// then sends by.
func goldenEgress(t *testing.T, n *goldenNode, f *goldenFrame, now time.Time, describe func() string) GrantID {
	t.Helper()
	p := Passage{Source: f.source, Flows: n.flows, Now: now, class: f.class, classed: true, Frame: ether.Frame{Dst: f.class.Dst}}
	chosen := n.view.Choice(&p, f.receiver)
	id, verdict := n.view.Egress(&p, f.receiver)
	want := n.model.egress(f.source, f.receiver, &f.class, now)
	if id != want || chosen != want || (verdict == Pass) != (want != 0) {
		t.Fatalf("%s\nEgress = %d, %q, Choice = %d; want %d", describe(), id, verdict, chosen, want)
	}
	return id
}

// goldenIngress does so of a frame that comes in.
func goldenIngress(t *testing.T, n *goldenNode, f *goldenFrame, id GrantID, now time.Time, describe func() string) bool {
	t.Helper()
	p := Passage{Source: f.source, Flows: n.flows, Now: now, class: f.class, classed: true, Frame: ether.Frame{Dst: f.class.Dst}}
	verdict := n.view.Ingress(&p, f.receiver, id)
	if ok := n.model.ingress(f.source, f.receiver, id, &f.class, now); ok != (verdict == Pass) {
		t.Fatalf("%s\nIngress by %d = %q; want %t", describe(), id, verdict, ok)
	}
	return verdict == Pass
}

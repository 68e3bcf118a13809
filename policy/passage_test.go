package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// relations is a policy with somebody of each kind: 1 to 3 are members, 3 for a time; 4 reaches 5, 5 and 6 reach each other by a
// grant of both ways, which ends; 7 would reach 1, but is only observed.
func relations(self Identity, stations map[Identity]*Station) *View {
	end := t0.Add(time.Minute)
	port := []Term{{Scope: PortRange, Protocol: ether.ProtoTCP, From: 80, To: 80}}
	return Compile(Rules{Generation: 7, Self: self, Stations: stations, Expires: t0.Add(time.Hour), Grants: []Grant{
		{ID: 1, Segment: true, Sources: []Identity{1, 2}, Allow: port},
		{ID: 2, Segment: true, Sources: []Identity{3}, Expires: end, Allow: port},
		{ID: 3, Sources: []Identity{4}, Targets: []Identity{5}},
		{ID: 4, Sources: []Identity{5}, Targets: []Identity{6}, Both: true, Expires: end, Allow: port},
		{ID: 5, Sources: []Identity{7}, Targets: []Identity{1}, Observe: true},
		{ID: 6, Segment: true, Sources: []Identity{8}, Observe: true},
		{ID: 7, Sources: []Identity{9}},
		{ID: 8, Targets: []Identity{9}},
	}})
}

func TestRelations(t *testing.T) {
	later, void := t0.Add(time.Minute), t0.Add(time.Hour)
	for _, c := range []struct {
		name     string
		a, b     Identity
		now      time.Time
		resolves Resolves
		between  Verdict
		names    bool
	}{
		{"members", 1, 2, t0, OnWire, Pass, true},
		{"a member for a time", 1, 3, t0, OnWire, Pass, true},
		{"the same, asking", 3, 1, t0, OnWire, Pass, true},
		{"a member whose time is over", 1, 3, later, Never, NotMember, false},
		{"the same, asking", 3, 1, later, Never, NoGrant, false},
		{"itself", 4, 4, t0, Never, NoGrant, true},
		{"a target", 4, 5, t0, Locally, Pass, true},
		{"who reaches it", 5, 4, t0, Locally, NotAllowed, false},
		{"both ways", 5, 6, t0, Locally, Pass, true},
		{"both ways, the other", 6, 5, t0, Locally, Pass, true},
		{"both ways, past its time", 6, 5, later, Never, NoGrant, false},
		{"a target of a target", 4, 6, t0, Never, NoGrant, false},
		{"who is only observed", 7, 1, t0, Never, NoGrant, false},
		{"a member and who is only observed", 1, 7, t0, Never, NotMember, false},
		{"a member that is only observed", 8, 1, t0, Never, NoGrant, false},
		{"a stranger", 99, 1, t0, Never, NoGrant, false},
		{"nobody", 0, 1, t0, Never, NoGrant, false},
		{"members, policy past its age", 1, 2, void, Never, PolicyExpired, false},
		{"a target, policy past its age", 4, 5, void, Never, PolicyExpired, false},
		{"itself, policy past its age", 4, 4, void, Never, PolicyExpired, false},
	} {
		for _, self := range []Identity{c.a, c.b} {
			v := relations(self, nil)
			if got := v.Resolves(c.a, c.b, c.now); got != c.resolves {
				t.Errorf("%s, at %d: Resolves = %d, want %d", c.name, self, got, c.resolves)
			}
			if got := v.Between(c.a, c.b, c.now); got != c.between {
				t.Errorf("%s, at %d: Between = %q, want %q", c.name, self, got, c.between)
			}
			if got := v.Names(c.a, c.b, c.now); got != c.names {
				t.Errorf("%s, at %d: Names = %v, want %v", c.name, self, got, c.names)
			}
		}
	}
}

func TestMembersAndNeighbours(t *testing.T) {
	v := relations(1, nil)
	for _, c := range []struct {
		name               string
		id                 Identity
		now                time.Time
		members, neighbour []Identity
	}{
		{"member", 1, t0, []Identity{1, 2, 3}, []Identity{1, 2, 3}},
		{"member, when another's time is over", 1, t0.Add(time.Minute), []Identity{1, 2}, []Identity{1, 2}},
		{"member whose time is over", 3, t0.Add(time.Minute), []Identity{1, 2}, nil},
		{"source", 4, t0, []Identity{1, 2, 3}, []Identity{4, 5}},
		{"target and source", 5, t0, []Identity{1, 2, 3}, []Identity{4, 5, 6}},
		{"target, when the other grant is over", 5, t0.Add(time.Minute), []Identity{1, 2}, []Identity{4, 5}},
		{"target", 6, t0, []Identity{1, 2, 3}, []Identity{5, 6}},
		{"only observed", 7, t0, []Identity{1, 2, 3}, nil},
		{"source of a grant to nobody, target of one of nobody", 9, t0, []Identity{1, 2, 3}, nil},
		{"stranger", 99, t0, []Identity{1, 2, 3}, nil},
	} {
		if got := v.Members(c.now); !slices.Equal(got, c.members) {
			t.Errorf("%s: Members = %v, want %v", c.name, got, c.members)
		}
		if got := v.Neighbours(c.id, c.now); !slices.Equal(got, c.neighbour) {
			t.Errorf("%s: Neighbours = %v, want %v", c.name, got, c.neighbour)
		}
	}
}

func TestOwner(t *testing.T) {
	v := relations(1, testStations())
	for mac, want := range map[ether.MAC]Identity{{2, 5: 1}: 1, {2, 5: 4}: 4, {2, 5: 9}: 0, ether.Broadcast: 0, {}: 0} {
		if got := v.Owner(mac); got != want {
			t.Errorf("Owner(%v) = %d, want %d", mac, got, want)
		}
	}
	if v.Station(2) == nil || v.Station(9) != nil || v.Generation() != 7 {
		t.Error("stations or generation are not what the rules say")
	}
}

// Each verdict of policy can come, and is the one that says what to do.
func TestWhyNot(t *testing.T) {
	stations := testStations()
	for id := Identity(5); id <= 9; id++ {
		stations[id] = NewStation(ether.MAC{2, 5: byte(id)}, nil, false)
	}
	end, void := t0.Add(time.Minute), t0.Add(time.Hour)
	packet := func(source, receiver Identity, port uint16) ether.Frame {
		return ip(source, receiver, ether.ProtoTCP, tcp(9, port, flagSYN, 0))
	}
	ask := func(source, receiver Identity, _ uint16) ether.Frame {
		return frameOf(ether.TypeARP, source, receiver, nil)
	}
	behind := func(source, receiver Identity, port uint16) ether.Frame {
		f := packet(source, receiver, port)
		f.Payload = packetV4(addressOf(source), addressOf(4), ether.ProtoTCP, 1, 0, false, tcp(9, port, flagSYN, 0))
		return f
	}
	for _, c := range []struct {
		name             string
		frame            func(source, receiver Identity, port uint16) ether.Frame
		source, receiver Identity
		port             uint16
		now              time.Time
		egress           Verdict
		by               GrantID
		ingress          Verdict
	}{
		{"members, a port that is granted", packet, 1, 2, 80, t0, Pass, 1, Pass},
		{"members, another port", packet, 1, 2, 81, t0, NotAllowed, 1, NotAllowed},
		{"members, what cannot be told", func(s, r Identity, _ uint16) ether.Frame { return ip(s, r, ether.ProtoTCP, nil) }, 1, 2, 80, t0, NotAllowed, 1, NotAllowed},
		{"members, a router behind one", behind, 1, 2, 80, t0, Pass, 1, Pass},
		{"by the grant of the receiver", packet, 1, 3, 80, t0, Pass, 2, WrongGrant},
		{"by the grant of others", packet, 1, 2, 80, t0, Pass, 4, WrongGrant},
		{"by a grant that is over", packet, 3, 1, 80, end, NoGrant, 2, GrantExpired},
		{"to a member whose time is over", packet, 1, 3, 80, end, NotMember, 1, NotMember},
		{"to a member that only another kind of grant concerns", packet, 1, 5, 80, t0, NotMember, 1, NotMember},
		{"by a grant that nobody knows", packet, 1, 2, 80, t0, Pass, 77, UnknownGrant},
		{"by a grant that is only observed", packet, 7, 1, 80, t0, NoGrant, 5, WrongGrant},
		{"member that is only observed", packet, 8, 1, 80, t0, NoGrant, 6, WrongGrant},
		{"policy past its age", packet, 1, 2, 80, void, PolicyExpired, 1, PolicyExpired},
		{"back, by a grant of one way", packet, 5, 4, 80, t0, NotAllowed, 3, WrongGrant},
		{"by a grant of both ways, another port", packet, 6, 5, 81, t0, NotAllowed, 4, NotAllowed},
		{"what is behind a node", behind, 6, 5, 80, t0, NotAllowed, 4, NotAllowed},
		{"members ask", ask, 1, 2, 0, t0, Pass, 1, Pass},
		{"members ask, by another's grant", ask, 1, 3, 0, t0, Pass, 2, WrongGrant},
		{"a member asks one whose time is over", ask, 1, 3, 0, end, NotMember, 1, NotMember},
		{"a source asks", ask, 4, 5, 0, t0, StaysHere, 3, StaysHere},
		{"a stranger asks", ask, 4, 1, 0, t0, NoGrant, 1, WrongGrant},
	} {
		p := Passage{Frame: c.frame(c.source, c.receiver, c.port), Source: c.source, Flows: NewFlows(), Now: c.now}
		id, got := relations(c.source, stations).Egress(&p, c.receiver)
		if got != c.egress || (id != 0) != (got == Pass) {
			t.Errorf("%s: Egress = %d, %q; want %q", c.name, id, got, c.egress)
		}
		p.Flows = NewFlows()
		if got := relations(c.receiver, stations).Ingress(&p, c.receiver, c.by); got != c.ingress {
			t.Errorf("%s: Ingress = %q, want %q", c.name, got, c.ingress)
		}
	}
}

// Observing passes nothing and hides nothing.
func TestObservePassesNothing(t *testing.T) {
	observe := toNode(t, 1, "tcp:80")
	observe.Observe = true
	n := newNetwork(t, observe)
	if got := n.send(1, 2, opening(ether.ProtoTCP)); got != NoGrant {
		t.Errorf("alone: %q", got)
	}
	if got := n.deliver(1, 2, opening(ether.ProtoTCP), 1); got != WrongGrant {
		t.Errorf("from one who is not honest: %q", got)
	}
	// It lasts longest, and the one in force is behind it.
	force := toNode(t, 2, "tcp:80")
	force.Expires = t0.Add(time.Hour)
	n.replace(2, observe, force)
	if got := n.send(1, 2, opening(ether.ProtoTCP)); got != Pass {
		t.Errorf("with one in force: %q", got)
	}
}

// A grant of both ways lets the other begin, too, by the same terms.
func TestBoth(t *testing.T) {
	node := toNode(t, 1, "tcp:80")
	node.Both = true
	segment := Grant{ID: 1, Segment: true, Sources: []Identity{1}, Allow: terms(t, "tcp:80"), Both: true}
	member := Grant{ID: 2, Segment: true, Sources: []Identity{2}, Allow: terms(t, "ethertype:0x88b5")}
	for name, grants := range map[string][]Grant{"to a node": {node}, "to a segment": {segment, member}} {
		for _, both := range []bool{true, false} {
			grants[0].Both = both
			for port, want := range map[uint16]bool{80: both, 81: false} {
				n := newNetwork(t, grants...)
				if got := n.send(2, 1, ip(2, 1, ether.ProtoTCP, tcp(9, port, flagSYN, 0))); (got == Pass) != want {
					t.Errorf("%s, both %v, port %d: %q", name, both, port, got)
				}
				if got := n.deliver(2, 1, ip(2, 1, ether.ProtoTCP, tcp(9, port, flagSYN, 0)), 1); (got == Pass) != want {
					t.Errorf("%s, both %v, port %d, from one who is not honest: %q", name, both, port, got)
				}
			}
		}
	}
}

// An EtherType that is granted is so to the target's own address and to groups, not to another station's.
func TestEtherTypeAstray(t *testing.T) {
	const typ ether.Type = 0x88b5
	n := newNetwork(t, toNode(t, 1, "ethertype:0x88b5"))
	if got := n.deliver(1, 2, frameOf(typ, 1, 2, []byte("x")), 1); got != Pass {
		t.Errorf("to the target: %q", got)
	}
	if got := n.deliver(1, 2, frameOf(typ, 1, 3, []byte("x")), 1); got != NotAllowed {
		t.Errorf("to another station: %q", got)
	}
}

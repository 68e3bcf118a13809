package policy

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// How who learns whose addresses, when nobody has listed a machine's: from itself, and from nobody else. That a machine may be
// asked, because it reaches the asker, lets the asker begin nothing, nor know its name.
func TestUnlistedRelations(t *testing.T) {
	reach := func(id GrantID, from, to Identity) Grant {
		return Grant{ID: id, Sources: []Identity{from}, Targets: []Identity{to}}
	}
	grants := []Grant{
		reach(1, 1, unlisted), reach(2, unlisted, 2), reach(3, 1, listed), reach(4, unlisted, attachment),
		{ID: 5, Segment: true, Sources: []Identity{far, listed}},
		{ID: 6, Sources: []Identity{1}, Targets: []Identity{attachment}, Expires: t0.Add(time.Minute)},
	}
	later := t0.Add(time.Minute)
	for _, c := range []struct {
		name     string
		a, b     Identity
		now      time.Time
		resolves Resolves
		between  Verdict
		names    bool
	}{
		{"a target", 1, unlisted, t0, OnWire, Pass, true},
		{"who reaches it", unlisted, 1, t0, Locally, NotAllowed, false},
		{"a node that it reaches", unlisted, 2, t0, Locally, Pass, true},
		{"a machine that reaches one", 2, unlisted, t0, OnWire, NotAllowed, false},
		{"a listed target", 1, listed, t0, Locally, Pass, true},
		{"one machine and another", unlisted, attachment, t0, OnWire, Pass, true},
		{"the other way", attachment, unlisted, t0, OnWire, NotAllowed, false},
		{"members", far, listed, t0, OnWire, Pass, true},
		{"for a time", 1, attachment, t0, OnWire, Pass, true},
		{"past it", 1, attachment, later, Never, NoGrant, false},
		{"no grant", 2, attachment, t0, Never, NoGrant, false},
	} {
		for _, self := range []Identity{speakerOf(c.a), speakerOf(c.b)} {
			v := site(self, grants...)
			if got := v.Resolves(c.a, c.b, c.now); got != c.resolves {
				t.Errorf("%s, at %d: Resolves = %d, want %d", c.name, self, got, c.resolves)
			}
			if got := v.Between(c.a, c.b, c.now); got != c.between {
				t.Errorf("%s, at %d: Between = %q, want %q", c.name, self, got, c.between)
			}
			if got := v.Names(c.a, c.b, c.now); got != c.names {
				t.Errorf("%s, at %d: Names = %t, want %t", c.name, self, got, c.names)
			}
		}
	}
}

// speakerOf is the node that speaks for a party of the site.
func speakerOf(id Identity) Identity {
	switch id {
	case far:
		return 2
	case attachment, attachment2, listed, unlisted:
		return gateway
	default:
		return id
	}
}

// What is asked and answered about addresses between a node and a machine of which nobody has listed them, by a grant to nodes: the
// node asks, also everybody; the machine's question to everybody is no business of the node's, but what it says to it alone is.
func TestUnlistedAsk(t *testing.T) {
	grant := func(from, to Identity) Grant { return Grant{ID: 8, Sources: []Identity{from}, Targets: []Identity{to}} }
	observed := Grant{ID: 8, Sources: []Identity{1}, Targets: []Identity{unlisted}, Observe: true}
	group := ether.MAC{0x33, 0x33, 0xff, 0, 0, 1}
	station := func(id Identity) ether.MAC { return ether.MAC{2, 5: byte(id)} }
	for _, c := range []struct {
		name             string
		source, receiver Identity
		dst              ether.MAC
		grant            Grant
		want             Verdict
	}{
		{"it is asked, with all", 1, unlisted, ether.Broadcast, grant(1, unlisted), Pass},
		{"it is asked, with a group", 1, unlisted, group, grant(1, unlisted), Pass},
		{"it is asked, alone", 1, unlisted, station(unlisted), grant(1, unlisted), Pass},
		{"it is asked by whom it reaches", 1, unlisted, ether.Broadcast, grant(unlisted, 1), Pass},
		{"it answers", unlisted, 1, station(1), grant(1, unlisted), Pass},
		{"it answers whom it reaches", unlisted, 1, station(1), grant(unlisted, 1), Pass},
		{"it asks all", unlisted, 1, ether.Broadcast, grant(unlisted, 1), StaysHere},
		{"it asks a group", unlisted, 1, group, grant(1, unlisted), StaysHere},
		{"it asks all, another machine", unlisted, attachment, ether.Broadcast, grant(unlisted, attachment), Pass},
		{"a host whose addresses are known is not asked", 1, listed, ether.Broadcast, grant(1, listed), StaysHere},
		{"nor does it say anything", listed, 1, station(1), grant(1, listed), StaysHere},
		{"it asks a machine", listed, unlisted, ether.Broadcast, grant(listed, unlisted), Pass},
		{"a stranger asks", 2, unlisted, ether.Broadcast, grant(1, unlisted), NoGrant},
		{"another machine hears nothing", 1, attachment, ether.Broadcast, grant(1, unlisted), NoGrant},
		{"nor does another node", unlisted, 2, station(2), grant(1, unlisted), NoGrant},
		{"one that is only observed", 1, unlisted, ether.Broadcast, observed, NoGrant},
	} {
		at := func(id Identity) *View { return site(speakerOf(id), c.grant) }
		p := &Passage{Source: c.source, Flows: NewFlows(), Now: t0, Frame: ether.Frame{Dst: c.dst}}
		p.class, p.classed = Class{Kind: Resolution, Type: ether.TypeARP, Dst: c.dst}, true
		id, verdict := at(c.source).Egress(p, c.receiver)
		if verdict != c.want || (id == 8) != (c.want == Pass) {
			t.Errorf("%s: Egress = %d, %q, want %q", c.name, id, verdict, c.want)
		}
		in := at(c.receiver).Ingress(p, c.receiver, 8)
		if (in == Pass) != (c.want == Pass) || c.want == StaysHere && in != StaysHere {
			t.Errorf("%s: Ingress = %q, want %q", c.name, in, c.want)
		}
	}
}

// Seek lets a question go on when only machines can answer it, and answers what is known.
func TestSeekMachines(t *testing.T) {
	reach := func(id GrantID, from, to Identity) Grant {
		return Grant{ID: id, Sources: []Identity{from}, Targets: []Identity{to}}
	}
	local := func(id Identity) [16]byte { return ether.MAC{2, 5: byte(id)}.LinkLocal().As16() }
	const silence = UnknownAddress
	for _, c := range []struct {
		name   string
		asker  Identity
		target [16]byte
		grants []Grant
		now    time.Time
		owner  Identity
		want   Verdict
	}{
		{"nobody's, and it reaches machines", 1, addressOf(99), []Grant{reach(1, 1, unlisted)}, t0, 0, Pass},
		{"nobody's, and machines reach it", 1, addressOf(99), []Grant{reach(1, attachment, 1)}, t0, 0, Pass},
		{"nobody's, and it reaches a host that is known", 1, addressOf(99), []Grant{reach(1, 1, listed)}, t0, 0, silence},
		{"nobody's, and others reach machines", 2, addressOf(99), []Grant{reach(1, 1, unlisted)}, t0, 0, silence},
		{"nobody's, for a time", 1, addressOf(99), []Grant{{ID: 1, Sources: []Identity{1}, Targets: []Identity{unlisted}, Expires: t0.Add(9)}}, t0.Add(9), 0, silence},
		{"a known host's", 1, addressOf(listed), []Grant{reach(1, 1, listed)}, t0, listed, Pass},
		{"its link-local", 1, local(listed), []Grant{reach(1, 1, listed)}, t0, listed, Pass},
		{"a host's link-local that nobody listed", 1, local(unlisted), []Grant{reach(1, 1, unlisted)}, t0, 0, Pass},
		{"a stranger's, though it reaches machines", 1, addressOf(2), []Grant{reach(1, 1, unlisted)}, t0, 0, silence},
		{"a node's, of a machine", unlisted, addressOf(1), []Grant{reach(1, unlisted, 1)}, t0, 1, Pass},
		{"a node's that reaches the machine", unlisted, addressOf(1), []Grant{reach(1, 1, unlisted)}, t0, 1, Pass},
		{"a stranger's, of a machine", unlisted, addressOf(2), []Grant{reach(1, unlisted, 1)}, t0, 0, silence},
		{"a machine's own", listed, addressOf(listed), nil, t0, 0, Pass},
	} {
		if owner, got := site(speakerOf(c.asker), c.grants...).Seek(c.asker, c.target, c.now); owner != c.owner || got != c.want {
			t.Errorf("%s: %d, %q, want %d, %q", c.name, owner, got, c.owner, c.want)
		}
	}
}

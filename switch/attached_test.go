package vswitch

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

var (
	everybody4 = netip.MustParseAddr("255.255.255.255")
	group4     = netip.MustParseAddr("239.0.0.1")
	groupMAC   = ether.MAC{1, 0, 0x5e, 0, 0, 1}
)

func members(ids ...policy.Identity) policy.Grant {
	return policy.Grant{ID: grantID, Segment: true, Sources: ids}
}

func reaches(id policy.GrantID, from, to policy.Identity, allow ...policy.Term) policy.Grant {
	return policy.Grant{ID: id, Sources: []policy.Identity{from}, Targets: []policy.Identity{to}, Allow: allow}
}

// Members on a VLAN and nodes exchange frames both ways, each is known by port and identity where it was seen, and only what
// nobody has seen is flooded.
func TestAttachedUnicast(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, 22))
	for _, who := range []policy.Identity{siteA, 21, 22} {
		hello := data(macAt(1), macAt(who), experimental, "hello")
		if d := m.says(who, hello); d != Forwarded {
			t.Errorf("from %d: %q", who, d.Code())
		}
		m.expect("hello", sent{1: 1})
		m.learned(3, macAt(who), "vlan 20", who)
		m.learned(1, macAt(who), "link 3", who)
		m.learned(2, macAt(who), "", 0)
		if d := m.says(1, data(macAt(who), macAt(1), experimental, "answer")); d != Forwarded {
			t.Errorf("to %d: %q", who, d.Code())
		}
		if who == siteA { // on a wire everybody hears what is for a MAC that is nobody's
			m.expect("answer", sent{siteA: 1, 21: 1, 22: 1})
		} else {
			m.expect("answer", sent{who: 1})
		}
		m.says(3, data(macAt(who), macAt(3), experimental, "from the gateway"))
		m.heard()
		m.learned(3, macAt(3), "tap", 3)
		m.says(who, data(macAt(3), macAt(who), experimental, "to the gateway"))
		m.expect("to the gateway", sent{3: 1})
	}
	// A host that has yet to say a word is where policy says.
	m = newMesh(t, false)
	m.grant(members(1, 21))
	m.says(1, data(macAt(21), macAt(1), experimental, ""))
	m.expect("a silent host", sent{21: 1})
}

// A frame for many goes over a link once for each grant, and onto a VLAN as it is if those may have it whom nobody named; otherwise
// each host that may has a copy of its own.
func TestAttachedGroup(t *testing.T) {
	m := newMesh(t, false)
	storm := datagram(1, ether.Broadcast, everybody4)
	m.grant(members(1, 2, 3, siteA, 21))
	m.says(1, storm)
	m.expect("all on the VLAN", sent{2: 1, 3: 1, siteA: 1, 21: 1, 22: 1})

	m.grant(members(1, 2, 21, 31))
	m.says(1, storm)
	for _, d := range m.out {
		if d.port.Kind != Attached {
			continue
		}
		want := bytes.Clone(storm)
		copy(want, d.frame[:6])
		if !bytes.Equal(d.frame, want) || d.frame[0]&1 != 0 || d.tag != (Tag{}) {
			t.Errorf("a host was sent %x with %+v", d.frame, d.tag)
		}
	}
	m.expect("hosts alone", sent{2: 1, 21: 1, 31: 1})
	m.says(21, datagram(21, ether.Broadcast, everybody4))
	m.expect("of a host", sent{1: 1, 2: 1, 31: 1})

	broadcast := terms(t, "broadcast")
	m.grant(members(1, 2, 3), reaches(20, 1, 21, broadcast...), reaches(21, 1, 22, broadcast...), reaches(22, 1, siteB, broadcast...))
	m.says(1, storm)
	m.expect("by other grants", sent{2: 1, 3: 1, 21: 1, 22: 1, siteB: 1, 31: 1, roaming: 1})

	// What is for one whom nobody knows is for no host: none has that address.
	m.grant(members(1, 21))
	m.says(1, data(macOf(99), macAt(1), experimental, ""))
	m.expect("for nobody", sent{})
}

// F10, F11: nothing is echoed to the VLAN that it comes from, whichever gateway it comes through, nor to who sent it. What goes
// from one machine to another on one VLAN is none of the overlay's business.
func TestNoEcho(t *testing.T) {
	for _, second := range []bool{false, true} {
		m := newMesh(t, second)
		m.grant(members(1, 2, 3, 4, siteA, 21, 22, siteB, 31, roaming))
		for _, who := range []policy.Identity{siteA, 21, 22} {
			m.says(who, datagram(who, ether.Broadcast, everybody4))
			m.expect("broadcast", sent{1: 1, 2: 1, 3: 1, 4: 1, siteB: 1, 31: 1, roaming: 1})
			for _, to := range []policy.Identity{siteA, 21, 22} {
				if to != who || to == siteA {
					if d := m.says(who, datagram(who, macAt(to), v4(to))); d != DropHairpin {
						t.Errorf("%d to %d on one VLAN: %q", who, to, d.Code())
					}
					m.expect("same VLAN", sent{})
				}
			}
		}
		// The other gateway has seen it behind this one, and gives nothing back to the VLAN.
		if second {
			m.learned(4, macAt(21), "link 3", 21)
			m.forward(4, m.ports[4]["vlan 20"], datagram(21, macAt(22), v4(22)), Tag{})
			m.run()
			m.expect("at the other gateway", sent{})
		}
	}
}

// A host that may be on either VLAN is on one, and is bridged to the other.
func TestRoamingHost(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, siteA, siteB, 31, roaming))
	for _, here := range []policy.Identity{siteB, siteA} {
		there := siteA + siteB - here
		m.at[roaming] = here
		m.says(roaming, datagram(roaming, ether.Broadcast, everybody4))
		want := sent{1: 1, there: 1}
		if there == siteA {
			want[21], want[22] = 1, 1
		} else {
			want[31] = 1
		}
		m.expect("broadcast", want)
		m.says(there, datagram(there, macAt(1), v4(1)))
		m.heard()
		if d := m.says(roaming, datagram(roaming, macAt(there), v4(there))); d != Forwarded {
			t.Errorf("from %d to %d: %q", here, there, d.Code())
		}
		m.heard()
		for _, from := range []policy.Identity{1, there} {
			if d := m.says(from, datagram(from, macAt(roaming), v4(roaming))); d != Forwarded {
				t.Errorf("from %d to %d: %q", from, here, d.Code())
			}
			m.expect("back", sent{roaming: 1})
		}
	}
	// Of one that has not said a word, it is not known where it is.
	m = newMesh(t, false)
	m.grant(members(1, 31, roaming))
	for _, here := range []policy.Identity{siteA, siteB} {
		m.at[roaming] = here
		m.says(1, datagram(1, macAt(roaming), v4(roaming)))
		m.expect("silent", sent{roaming: 1})
		m.says(31, datagram(31, macAt(roaming), v4(roaming)))
		if got := m.heard()[roaming]; here == siteA && got != 1 {
			t.Errorf("silent, from the other VLAN: %d", got)
		}
	}
	// With two gateways it is looked for through one of them, and by each on its own VLAN first.
	m = newMesh(t, true)
	m.grant(members(1, 4, 21))
	for _, from := range []policy.Identity{1, 4} {
		m.says(from, datagram(from, macAt(21), v4(21)))
		m.expect("silent, behind two gateways", sent{21: 1})
	}
	if n := m.ports[4]["link 3"].Stats().TxFrames; n != 0 {
		t.Errorf("the second gateway has asked the first %d times", n)
	}
}

// ARP across: members ask each other on the wire; a machine of which nobody has listed the addresses is asked, and answers, by a
// grant to nodes, too, and nobody else hears either.
func TestAttachedARP(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, siteA, 21))
	m.says(1, asks(1, v4(21)))
	m.expect("members", sent{2: 1, siteA: 1, 21: 1, 22: 1})
	m.says(21, tells(21, 1))
	m.expect("answer", sent{1: 1})

	m.grant(reaches(8, 1, 22), reaches(9, 22, 2), reaches(10, 1, 21), members(3, 31))
	if d := m.says(1, asks(1, v4(22))); d != Forwarded {
		t.Errorf("a machine is asked: %q", d.Code())
	}
	m.expect("a machine is asked", sent{22: 1})
	m.says(22, tells(22, 1))
	m.expect("it answers", sent{1: 1})
	m.says(2, asks(2, v4(22)))
	m.expect("whom it reaches asks", sent{22: 1})
	for _, target := range []policy.Identity{1, 2} {
		if d := m.says(22, asks(22, v4(target))); d != Answered {
			t.Errorf("it asks for %d: %q", target, d.Code())
		}
		if s := m.sends[3]; len(s) != 1 || !bytes.Equal(s[0].frame[:12], append(macBytes(22), macBytes(target)...)) {
			t.Errorf("it was answered %+v", s)
		}
		m.expect("its gateway answers", sent{22: 1})
	}
	if d := m.says(22, asks(22, v4(31))); d != Drop(policy.UnknownAddress) {
		t.Errorf("it asks for a stranger: %q", d.Code())
	}
	if d := m.says(1, asks(1, v4(21))); d != Answered {
		t.Errorf("a host with listed addresses: %q", d.Code())
	}
	m.expect("answered at home", sent{1: 1})

	// Those on one VLAN answer themselves, whatever grants there are.
	m.grant(reaches(8, 22, 21), reaches(9, 22, 31))
	if d := m.says(22, asks(22, v4(21))); d == Answered || d == Forwarded {
		t.Errorf("a neighbour on the VLAN: %q", d.Code())
	}
	m.expect("a neighbour on the VLAN", sent{})
	m.at[22] = siteB // where it does not belong
	if d := m.says(22, asks(22, v4(31))); d != Drop(policy.PinnedMAC) {
		t.Errorf("a host on another VLAN: %q", d.Code())
	}
}

// Nobody speaks for a machine but its gateways, and who has a MAC of its own is nowhere else.
func TestSpoofedMachines(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, 31))
	in := func(peer policy.Identity, source policy.Identity, src ether.MAC) Drop {
		return m.forward(1, m.ports[1]["link "+string('0'+rune(peer))], data(macAt(1), src, experimental, ""), Tag{source, grantID})
	}
	for _, c := range []struct {
		name         string
		peer, source policy.Identity
		src          ether.MAC
		want         Drop
	}{
		{"a gateway for its host", 3, 21, macAt(21), Forwarded},
		{"a gateway for those whom nobody named", 3, siteA, macAt(siteA), Forwarded},
		{"a gateway for itself", 3, 3, macAt(3), Forwarded},
		{"a plain node for a host", 2, 21, macAt(21), DropIdentity},
		{"a plain node for those whom nobody named", 2, siteA, macAt(siteA), DropIdentity},
		{"a gateway for a node", 3, 2, macAt(2), DropIdentity},
		{"a gateway for who receives", 3, 1, macAt(1), DropIdentity},
		{"a gateway for nobody", 3, 0, macAt(siteA), DropIdentity},
		{"a gateway for one whom nobody knows", 3, 99, macAt(siteA), DropIdentity},
		{"those whom nobody named with a host's MAC", 3, siteA, macAt(21), Drop(policy.SourceMAC)},
		{"those whom nobody named with a node's MAC", 3, siteA, macAt(2), Drop(policy.SourceMAC)},
		{"a host with a MAC that is nobody's", 3, 21, macAt(siteA), Drop(policy.SourceMAC)},
		{"a host with another's", 3, 21, macAt(31), Drop(policy.SourceMAC)},
		{"the gateway with its host's", 3, 3, macAt(21), Drop(policy.SourceMAC)},
	} {
		if got := in(c.peer, c.source, c.src); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.Code(), c.want.Code())
		}
	}
	m.heard()
	vlan := m.ports[3]["vlan 20"]
	for _, c := range []struct {
		name string
		src  ether.MAC
		want Drop
	}{
		{"nobody's", macAt(siteA), Forwarded},
		{"a host's that is here", macAt(21), Forwarded},
		{"a host's that is on another VLAN", macAt(31), Drop(policy.PinnedMAC)},
		{"a node's", macAt(2), Drop(policy.PinnedMAC)},
		{"the gateway's own", macAt(3), Drop(policy.PinnedMAC)},
		{"a group", ether.MAC{3}, DropSourceAddress},
	} {
		if got := m.forward(3, vlan, data(macAt(1), c.src, experimental, ""), Tag{Source: 2, Grant: grantID}); got != c.want {
			t.Errorf("on the VLAN, %s: %q, want %q", c.name, got.Code(), c.want.Code())
		}
	}
	m.learned(3, macAt(31), "", 0)
	m.learned(3, macAt(2), "", 0)
	// An attachment of which policy does not know.
	stray := NewPort("stray", Attached, 77, blackhole{})
	m.segments[3].AddPort(stray)
	if got := m.segments[3].Forward(stray, data(macAt(1), macAt(siteA), experimental, ""), ether.Offload{}, Tag{}, 0, m.now); got != Drop(policy.NoStation) {
		t.Errorf("on a VLAN that nobody knows: %q", got.Code())
	}
}

// Nothing is sent to who sent it, nor around to it by another gateway.
func TestNothingForItsSource(t *testing.T) {
	m := newMesh(t, true)
	m.grant(members(1, 21, roaming))
	m.at[roaming] = siteA
	for _, who := range []policy.Identity{21, roaming} {
		m.says(who, datagram(who, ether.Broadcast, everybody4))
		if got := m.heard(); got[1] != 1 || got[who] != 0 {
			t.Errorf("from %d: %v", who, got)
		}
	}
	if n := m.ports[3]["vlan 30"].Stats().TxFrames; n != 1 { // of 21 for roaming, which might be there
		t.Errorf("%d frames went to the other VLAN, want 1", n)
	}
	m.grant(members(1, 21))
	before := m.ports[3]["link 4"].Stats().TxFrames
	m.says(21, datagram(21, ether.Broadcast, everybody4))
	if n := m.ports[3]["link 4"].Stats().TxFrames - before; n != 0 {
		t.Errorf("%d frames went to the other gateway, want none", n)
	}
	// Two whom nobody named are on one VLAN, through whichever gateway one was seen.
	m = newMesh(t, true)
	m.grant(members(1, siteA))
	neighbour := ether.MAC{2, 0, 0, 0, 2, 9}
	m.segments[3].FDB().Learn(neighbour, Place{m.ports[3]["link 4"], siteA}, m.now)
	if d := m.says(siteA, datagram(siteA, neighbour, v4(99))); d != DropHairpin {
		t.Errorf("to a neighbour that was seen behind the other gateway: %q", d.Code())
	}
}

// A host that may be on either of two VLANs with a gateway each is bridged from the one to the other; and what a peer sends from an
// address to that address goes where that was seen.
func TestGatewaysApart(t *testing.T) {
	m := newMeshOf(t, []policy.Identity{3}, []policy.Identity{4})
	m.grant(members(1, siteA, siteB, 31, roaming))
	m.says(roaming, datagram(roaming, ether.Broadcast, everybody4))
	m.expect("broadcast", sent{1: 1, siteA: 1, 21: 1, 22: 1})
	m.says(siteA, datagram(siteA, macAt(roaming), v4(roaming)))
	m.expect("back", sent{roaming: 1})
	m.says(roaming, datagram(roaming, macAt(siteA), v4(siteA)))
	m.expect("unicast", sent{siteA: 1, 21: 1, 22: 1})
	if d := m.forward(3, m.ports[3]["link 4"], data(macAt(siteA), macAt(siteA), experimental, ""), Tag{siteB, grantID}); d != Forwarded {
		t.Errorf("%q", d.Code())
	}
}

// Whom policy moves, names or takes away is no longer where, or who, it was seen as.
func TestPolicyMovesMachines(t *testing.T) {
	m := newMesh(t, false)
	m.at[22] = siteB
	mac := macAt(roaming)
	world := func(edit func(map[policy.Identity]*policy.Station)) {
		for node, s := range m.segments {
			stations := m.stations()
			edit(stations)
			m.views[node] = policy.Compile(policy.Rules{Self: node, Stations: stations, Grants: []policy.Grant{members(1, siteA, siteB, roaming, 21)}})
			s.SetPolicy(m.views[node], m.now)
		}
	}
	speak := func(site policy.Identity) {
		m.forward(3, m.ports[3]["vlan "+map[policy.Identity]string{siteA: "20", siteB: "30"}[site]], data(macAt(1), mac, experimental, ""), Tag{})
		m.run()
		m.heard()
	}
	world(func(s map[policy.Identity]*policy.Station) { delete(s, roaming) })
	speak(siteA)
	m.learned(3, mac, "vlan 20", siteA)
	m.learned(1, mac, "link 3", siteA)
	world(func(map[policy.Identity]*policy.Station) {}) // it has a name now
	m.learned(3, mac, "", 0)
	m.learned(1, mac, "", 0)
	if at, ok := m.segments[3].FDB().Lookup(mac, m.now); ok {
		t.Errorf("a host with a name is still %+v", at)
	}
	speak(siteA)
	m.learned(3, mac, "vlan 20", roaming)
	world(func(s map[policy.Identity]*policy.Station) { s[roaming].Attachments = []policy.Identity{siteB} })
	if at, ok := m.segments[3].FDB().Lookup(mac, m.now); ok {
		t.Errorf("a host that has moved is still %+v", at)
	}
	speak(siteB)
	m.learned(3, mac, "vlan 30", roaming)
	world(func(s map[policy.Identity]*policy.Station) {
		moved := policy.NewMachine(macOf(77), nil)
		moved.Gateways, moved.Attachments = s[roaming].Gateways, s[roaming].Attachments
		s[roaming] = moved
	})
	if at, ok := m.segments[3].FDB().Lookup(mac, m.now); ok {
		t.Errorf("a MAC that is nobody's any more is still %+v", at)
	}
	// What is pinned by hand, and what is right, stays.
	speak(siteA)
	pinned := macAt(2)
	m.segments[3].FDB().AddStatic(pinned, Place{m.ports[3]["vlan 20"], siteA})
	world(func(map[policy.Identity]*policy.Station) {})
	m.learned(3, pinned, "vlan 20", siteA)
	m.segments[3].FDB().AddSticky(pinned, Place{m.ports[3]["vlan 20"], siteA}, m.now)
	world(func(map[policy.Identity]*policy.Station) {})
	m.learned(3, pinned, "vlan 20", siteA)
	m.learned(3, macAt(1), "", 0)
}

package vswitch

import (
	"fmt"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// places are those of a private VLAN (RFC 5517 section 2); exchange says who exchanges frames.
var places = []policy.SecondaryVLAN{{}, {Isolated: true}, {Community: "a"}, {Community: "b"}}

func exchange(a, b int) bool { return a == 0 || b == 0 || a == b && a != 1 }

// specimens are frames of each kind from a party; to one of each other when its address is known.
func specimens(who policy.Identity) map[string][]byte {
	return map[string][]byte{
		"broadcast": datagram(who, ether.Broadcast, everybody4), "group": datagram(who, groupMAC, group4),
		"unknown": data(macOf(99), macAt(who), experimental, ""),
	}
}

// A golden model over ports, modes and frames: what a port of one node lets pass to another is what RFC 5517 says of the two, and
// nothing at other nodes changes by that.
func TestPrivatePortsGolden(t *testing.T) {
	m := newMesh(t, false)
	all := []policy.Identity{1, 2, 3, siteA, 21, 22, siteB, 31, roaming}
	m.grant(members(append(all, 4)...))
	speakers := []policy.Identity{1, 3, 21, 31}
	hello := func() {
		for _, who := range append(speakers, siteA, siteB, 2) {
			m.says(who, data(ether.Broadcast, macAt(who), experimental, "here I am"))
		}
		m.heard()
	}
	hello()
	names := []string{"link 1", "tap", "vlan 20", "vlan 30"}
	portOf := map[policy.Identity]int{1: 0, 3: 1, siteA: 2, 21: 2, 22: 2, siteB: 3, 31: 3, roaming: 3}
	for n := range 256 {
		mode := []int{n % 4, n / 4 % 4, n / 16 % 4, n / 64}
		for i, name := range names {
			p := m.ports[3][name]
			a := p.Attributes()
			a.Isolated, a.Community = places[mode[i]].Isolated, places[mode[i]].Community
			p.SetAttributes(a)
		}
		passes := func(a, b policy.Identity) bool {
			i, here := portOf[a]
			j, there := portOf[b]
			if a == 1 && (b == 2 || b == 4) || a == 2 || a == 4 || !here || !there {
				return true // not by two of these ports
			}
			return i != j && exchange(mode[i], mode[j])
		}
		for _, who := range speakers {
			for kind, frame := range specimens(who) {
				want := sent{}
				for _, other := range append(all, 4) {
					if other != who && portOf[other] != portOf[who] == true && passes(who, other) || other == 2 || other == 4 {
						want[other] = 1
					}
				}
				m.says(who, frame)
				m.expect(fmt.Sprintf("modes %v, %s from %d", mode, kind, who), want)
			}
			for _, to := range []policy.Identity{1, 2, 3, 21, 31} {
				if to == who || portOf[to] == portOf[who] && to != 2 {
					continue
				}
				want := sent{}
				if passes(who, to) {
					want[to] = 1
				}
				m.says(who, data(macAt(to), macAt(who), experimental, ""))
				m.expect(fmt.Sprintf("modes %v, from %d to %d", mode, who, to), want)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// The same over links: machines at two gateways are kept apart by the places that the signed state gives their attachments. Nodes are
// promiscuous.
func TestPrivateVLANGolden(t *testing.T) {
	for n := range 16 {
		a, b := n%4, n/4
		m := newMeshOf(t, []policy.Identity{3}, []policy.Identity{4})
		m.secondary = map[policy.Identity]policy.SecondaryVLAN{siteA: places[a], 21: places[a], 22: places[a], siteB: places[b], 31: places[b], roaming: places[b]}
		m.grant(members(1, 3, siteA, 21, 22, siteB, 31, roaming))
		place := map[policy.Identity]int{siteA: a, 21: a, 22: a, siteB: b, 31: b, roaming: b}
		hello := func(who policy.Identity) {
			m.says(who, data(ether.Broadcast, macAt(who), experimental, "here I am"))
			m.heard()
		}
		speakers := []policy.Identity{1, 3, siteA, 21, siteB, 31}
		for _, who := range speakers {
			hello(who)
		}
		hears := func(who, other policy.Identity) bool {
			return who != other && (m.at[who] == 0 || m.at[who] != m.at[other]) && exchange(place[who], place[other])
		}
		for _, who := range speakers {
			for kind, frame := range specimens(who) {
				want := sent{}
				for _, other := range []policy.Identity{1, 3, siteA, 21, 22, siteB, 31, roaming} {
					if hears(who, other) {
						want[other] = 1
					}
				}
				m.says(who, frame)
				m.expect(fmt.Sprintf("places %d and %d, %s from %d", a, b, kind, who), want)
			}
			for _, to := range []policy.Identity{1, 21, 31} {
				want := sent{}
				if hears(who, to) {
					want[to] = 1
				}
				m.says(who, data(macAt(to), macAt(who), experimental, ""))
				m.expect(fmt.Sprintf("places %d and %d, from %d to %d", a, b, who, to), want)
			}
		}
	}
}

// A gateway that does not keep its machines apart is refused by who receives: that knows, too, where both are.
func TestPrivateVLANAtTheReceiver(t *testing.T) {
	m := newMeshOf(t, []policy.Identity{3}, []policy.Identity{4})
	m.secondary = map[policy.Identity]policy.SecondaryVLAN{siteA: {Isolated: true}, 21: {Isolated: true}, siteB: {Community: "a"}, 31: {Community: "a"}}
	m.grant(members(1, siteA, 21, siteB, 31, roaming))
	in := func(frame []byte) Drop {
		d := m.forward(4, m.ports[4]["link 3"], frame, Tag{21, grantID})
		m.run()
		return d
	}
	if d := in(data(macAt(31), macAt(21), experimental, "")); d != Drop(policy.PrivateVLAN) {
		t.Errorf("to one: %q", d.Code())
	}
	m.expect("to one", sent{})
	if d := in(data(macAt(roaming), macAt(21), experimental, "")); d != Forwarded {
		t.Errorf("to one that is promiscuous: %q", d.Code())
	}
	m.expect("to one that is promiscuous", sent{roaming: 1})
	in(datagram(21, ether.Broadcast, everybody4))
	m.expect("to all", sent{roaming: 1})
	// Nobody is told by a gateway either where somebody is from whom he is kept apart.
	m.ports[3]["vlan 20"].SetAttributes(func() Attributes { a := DefaultAttributes(); a.NeighSuppress = true; return a }())
	m.says(31, tells(31, 1))
	m.heard()
	if d := m.says(21, asks(21, v4(31))); d == Answered || d == Forwarded {
		t.Errorf("asked about: %q", d.Code())
	}
	m.expect("asked about", sent{})
}

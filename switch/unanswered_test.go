package vswitch

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// udpLike makes an IPv6 packet one of UDP, with the same bytes.
func udpLike(frame []byte) []byte {
	out := bytes.Clone(frame)
	out[ether.HeaderLen+6] = byte(ether.ProtoUDP)
	return out
}

// A frame that says nothing of its sender's address leaves nothing behind.
func TestNothingToNote(t *testing.T) {
	var n neighbours
	f, err := ether.Parse(datagram(20, ether.Broadcast, everybody4))
	if err != nil {
		t.Fatal(err)
	}
	n.note(&carriage{Passage: policy.Passage{Frame: f, Source: 20}})
	if len(n.of) != 0 || len(n.each) != 0 {
		t.Errorf("a datagram has taught %v", n.of)
	}
}

// A host that asks, from one of its addresses, whether it has another is not answered in its own name.
func TestNoAnswerToItself(t *testing.T) {
	m := quietMesh(t)
	m.answered("of the gateway itself", 3, lookFor(3, macOf(3).LinkLocal(), v6(3)), 0)
	m.answered("of a host on a VLAN", 31, lookFor(31, macOf(31).LinkLocal(), v6(31)), 0)
}

// A listed address of machines without a MAC of their own is answered for when it has been heard, by the MAC that had it.
func TestListedWithoutMAC(t *testing.T) {
	m := quietMesh(t)
	stations := m.stations()
	site := policy.NewMachine(ether.MAC{}, []netip.Addr{v4(siteA)})
	site.Attachments, site.Gateways = stations[siteA].Attachments, stations[siteA].Gateways
	stations[siteA] = site
	for node, s := range m.segments {
		s.SetPolicy(policy.Compile(policy.Rules{Generation: 2, Self: node, Stations: stations, Grants: []policy.Grant{members(1, 2, 3, siteA, siteB)}}), m.now)
	}
	m.answered("before it has said a word", siteB, asks(siteB, v4(siteA)), 0)
	m.says(siteA, asks(siteA, v4(99)))
	m.answered("then", siteB, asks(siteB, v4(siteA)), siteA)
}

// What was heard of somebody whom the policy does not know any more counts for nothing.
func TestNoAnswerForStrangers(t *testing.T) {
	const stranger policy.Identity = 99
	m := quietMesh(t)
	m.grant(members(1, 2, 3, siteB, stranger))
	s := m.segments[3]
	s.neighbours.said(stranger, macOf(stranger), 10<<24, m.now)
	s.FDB().AddStatic(macOf(stranger), Place{m.ports[3]["link 2"], stranger})
	m.answered("a stranger", siteB, asks(siteB, netip.AddrFrom4([4]byte{10})), 0)
}

// What is not for this bridge alone, and what is no LLDP, is nothing that a neighbour says of itself.
func TestNoLLDP(t *testing.T) {
	for name, frame := range map[string][]byte{
		"to another's address": data(macOf(1), macAt(siteA), typeLLDP, "LLDP"),
		"to everybody":         data(ether.Broadcast, macAt(siteA), typeLLDP, "LLDP"),
		"of another type":      data(ether.MAC{1, 0x80, 0xc2, 5: 0x0e}, macAt(siteA), experimental, "LLDP"),
	} {
		m, _ := filled(t)
		p := m.ports[3]["vlan 20"]
		m.segments[3].Forward(p, frame, ether.Offload{}, Tag{}, 0, m.now)
		if n, _, _ := p.Heard(); n.LLDP != nil {
			t.Errorf("%s: %q is kept", name, n.LLDP)
		}
	}
}

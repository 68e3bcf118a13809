package vswitch

import (
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file answers a host that asks for the address of somebody whom a grant to nodes lets it reach, or who may reach it. On
// a wire such a question is shown to everybody, so it would tell all of them who is there and whom it talks to. Here the answer is
// in the signed state already: the host's own node gives it, in the name of the one who was asked for, and the question goes
// nowhere. Who must not be known is met with silence, as an address that nobody has.
//
//	asked for              members of the segment     others
//	an own address         goes on                    goes on, and nobody may hear it
//	a fellow member's      goes on                    -
//	one by a node grant    answered here              answered here
//	another station's      silence                    silence
//	nobody's               goes on                    silence
//
// A host that looks whether an address is free, before it takes it, is answered alike: the address is taken (RFC 5227 section
// 2.1.1). That is so of IPv4. In IPv6 admit lets a host look for its own addresses alone, and those are not answered for.

// question is what a host asks: who has the target?
type question struct {
	target [16]byte // IPv4 is mapped
	v6     bool
	arp    ether.ARP // the question, in IPv4
	from   [16]byte  // who asks, in IPv6
}

// questionOf finds the question in a frame; false if it asks none. Gratuitous ARP is one about the sender's own address.
func questionOf(f *ether.Frame) (question, bool) {
	switch f.Type {
	case ether.TypeARP:
		arp, _ := ether.ParseARP(f.Payload) // of what is no ARP the operation is none
		if arp.Op != ether.ARPRequest {
			return question{}, false
		}
		return question{target: ether.Mapped(arp.TargetIP), arp: arp}, true
	case ether.TypeIPv6:
		ip, _ := ether.ParseIPv6(f.Payload)
		upper, payload, _, _ := ip.Upper() // of what cannot be told there is no payload
		if upper != ether.ProtoICMPv6 {
			return question{}, false
		}
		nd, _, whole := ether.ParseND(payload)
		if !whole || nd.Type != ether.NeighborSolicitation {
			return question{}, false
		}
		return question{target: nd.Target, v6: true, from: ip.Src}, true
	default:
		return question{}, false
	}
}

// answer answers the host itself if it asks for an address for which this node answers. What is Forwarded goes on its way.
func (s *Segment) answer(l *layout, c *carriage) Drop {
	if c.in.Kind == Link {
		return Forwarded // another's node has answered its host, and what it lets out is judged by admit
	}
	q, asks := questionOf(&c.Frame)
	if !asks {
		return Forwarded
	}
	owner, verdict := l.seek(&c.Passage, q.target)
	if verdict != policy.Pass {
		return Drop(verdict)
	}
	// Those on one VLAN hear each other's questions, and answer themselves.
	if l.policy.IsBehind(owner, c.in.Identity) {
		return Forwarded
	}
	if s.suppress(l, c, &q) {
		return Answered
	}
	if owner == 0 {
		return Forwarded
	}
	if c.asked == nil {
		c.in.send(q.answer(&c.Frame, l.policy.Station(owner).MAC), ether.Offload{}, Tag{}, c.lane)
	}
	return Answered
}

// answer makes the frame by which the target, which is at mac, would answer the one that asks. It is made so seldom, at most as often
// as the host asks, that it may allocate.
func (q *question) answer(asks *ether.Frame, mac ether.MAC) []byte {
	b := asks.AppendReply(make([]byte, 0, 112), asks.Src, mac)
	if q.v6 {
		return ether.AppendAdvertisement(b, q.target, q.from, mac)
	}
	return ether.AppendARP(b, ether.ARP{
		Op: ether.ARPReply, SenderMAC: mac, SenderIP: q.arp.TargetIP, TargetMAC: q.arp.SenderMAC, TargetIP: q.arp.SenderIP,
	})
}

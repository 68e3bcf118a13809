package policy

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// addressV6 is the IPv6 address of a station of testStations.
func addressV6(id Identity) [16]byte { return [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(id)} }

// testStations are those of the model, with an IPv6 address each.
func testStations() map[Identity]*Station {
	out := map[Identity]*Station{}
	for id := Identity(1); id <= people; id++ {
		out[id] = NewStation(ether.MAC{2, 5: byte(id)}, []netip.Addr{
			netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}), netip.AddrFrom16(addressV6(id)),
		}, false)
	}
	return out
}

// packetV4 is an IPv4 packet. flags are those of its fragment field, offset is in bytes.
func packetV4(src, dst [16]byte, p ether.Protocol, id uint16, offset int, more bool, body []byte) []byte {
	b := make([]byte, 20, 20+len(body))
	b[0], b[8], b[9] = 0x45, 64, byte(p)
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(b[4:], id)
	field := uint16(offset / 8)
	if more {
		field |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], field)
	copy(b[12:], src[12:])
	copy(b[16:], dst[12:])
	return append(b, body...)
}

// packetV6 is an IPv6 packet.
func packetV6(src, dst [16]byte, next ether.Protocol, body []byte) []byte {
	b := make([]byte, 40, 40+len(body))
	b[0], b[6], b[7] = 0x60, byte(next), 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, body...)
}

// fragmentOf is a part of a datagram from 1 to 2, of IPv6 behind destination options.
func fragmentOf(six bool, p ether.Protocol, id uint16, offset int, more bool, body []byte) ether.Frame {
	if !six {
		return frameOf(ether.TypeIPv4, 1, 2, packetV4(addressOf(1), addressOf(2), p, id, offset, more, body))
	}
	field := uint16(offset)
	if more {
		field |= 1
	}
	head := []byte{byte(ether.ProtoFragment), 0, 1, 4, 0, 0, 0, 0, byte(p), 0, byte(field >> 8), byte(field), 0, 0, byte(id >> 8), byte(id)}
	return frameOf(ether.TypeIPv6, 1, 2, packetV6(addressV6(1), addressV6(2), ether.ProtoDestOpts, append(head, body...)))
}

func frameOf(typ ether.Type, source, receiver Identity, payload []byte) ether.Frame {
	return ether.Frame{Dst: ether.MAC{2, 5: byte(receiver)}, Src: ether.MAC{2, 5: byte(source)}, Type: typ, Payload: payload}
}

// tcp is a TCP header; udp is one of UDP. What follows is as long as asked for.
func tcp(from, to uint16, flags byte, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	b[12], b[13] = 5<<4, flags
	return b
}

func udp(from, to uint16, data int) []byte {
	b := make([]byte, 8+data)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

const (
	flagSYN, flagRST, flagFIN, flagACK = 2, 4, 1, 16
	echoV4, replyV4                    = 8, 0
)

// icmp is an ICMP message with an identifier.
func icmp(typ byte, id uint16, rest ...byte) []byte {
	return append([]byte{typ, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}, rest...)
}

// network is the two ends of a segment under one policy, and what each remembers.
type network struct {
	t        *testing.T
	stations map[Identity]*Station
	views    map[Identity]*View
	flows    map[Identity]*Flows
	now      time.Time
}

func newNetwork(t *testing.T, grants ...Grant) *network {
	t.Helper()
	n := &network{t: t, stations: testStations(), views: map[Identity]*View{}, flows: map[Identity]*Flows{}, now: t0}
	n.replace(1, grants...)
	return n
}

// replace puts a policy in force.
func (n *network) replace(generation uint64, grants ...Grant) {
	for id := range n.stations {
		n.views[id] = Compile(Rules{Generation: generation, Self: id, Stations: n.stations, Grants: grants})
		if n.flows[id] == nil {
			n.flows[id] = NewFlows()
		}
	}
}

// send judges a frame at both ends.
func (n *network) send(source, receiver Identity, f ether.Frame) Verdict {
	n.t.Helper()
	p := Passage{Frame: f, Source: source, Flows: n.flows[source], Now: n.now}
	if v := p.Settle(); v != Pass {
		return v
	}
	grant, v := n.views[source].Egress(&p, receiver)
	if v != Pass {
		return v
	}
	return n.deliver(source, receiver, f, grant)
}

// deliver judges a frame at the receiver alone: the sender is not honest.
func (n *network) deliver(source, receiver Identity, f ether.Frame, grant GrantID) Verdict {
	p := Passage{Frame: f, Source: source, Flows: n.flows[receiver], Now: n.now}
	if v := p.Settle(); v != Pass {
		return v
	}
	return n.views[receiver].Ingress(&p, receiver, grant)
}

// ip is a packet from one station to another.
func ip(source, receiver Identity, p ether.Protocol, body []byte) ether.Frame {
	return frameOf(ether.TypeIPv4, source, receiver, packetV4(addressOf(source), addressOf(receiver), p, 1, 0, false, body))
}

func terms(t *testing.T, texts ...string) []Term {
	t.Helper()
	out, err := ParseTerms(texts)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// toNode is a grant from 1 to 2.
func toNode(t *testing.T, id GrantID, allow ...string) Grant {
	t.Helper()
	return Grant{ID: id, Sources: []Identity{1}, Targets: []Identity{2}, Allow: terms(t, allow...)}
}

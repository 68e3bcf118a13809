package policy

import (
	"encoding/binary"
	"net/netip"

	"github.com/etherloom/etherloom/ether"
)

// Kind says how a frame is judged.
type Kind uint8

// The kinds.
const (
	Opaque     Kind = iota // no IP: by its EtherType
	Resolution             // ARP, neighbour solicitation or advertisement: who has which address
	Packet                 // IP, with all that a grant may ask for
	ICMPError              // ICMP error about a packet of a flow
	Unclear                // IP of which it cannot be told what it is, or where it goes: only who may send everything may send it
)

// Tuple names one direction of a flow. IPv4 addresses are mapped (RFC 4291 section 2.5.5.2). The ports of an ICMP echo are
// both its identifier; where a protocol has no ports they are 0.
type Tuple struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
	Protocol         ether.Protocol // ICMPv6 counts as ICMP
}

// Source is where it comes from.
func (t *Tuple) Source() netip.Addr { return addrOf(t.Src) }

// Target is where it goes.
func (t *Tuple) Target() netip.Addr { return addrOf(t.Dst) }

// Reverse is the other direction.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Protocol: t.Protocol}
}

// Class is what policy needs to know of a frame.
type Class struct {
	Kind  Kind
	Dst   ether.MAC
	Type  ether.Type
	Tuple Tuple // of Packet and ICMPError
	About Tuple // of ICMPError: the packet that it is about, as that was sent
	Opens bool  // begins a flow and answers none: TCP SYN, ICMP request
	Reply bool  // answers a flow and begins none: ICMP echo reply
	Ends  bool  // TCP FIN or RST
}

// Classify looks at a frame. A later fragment is Unclear by itself: Flows knows its first one.
func Classify(f *ether.Frame) Class {
	c := Class{Dst: f.Dst, Type: f.Type}
	switch f.Type {
	case ether.TypeARP:
		c.Kind = Resolution
	case ether.TypeIPv4:
		c.classifyV4(f.Payload)
	case ether.TypeIPv6:
		c.classifyV6(f.Payload)
	default: // opaque
	}
	return c
}

func (c *Class) classifyV4(p []byte) {
	c.Kind = Unclear
	ip, ok := ether.ParseIPv4(p)
	if !ok || ip.Offset != 0 {
		return
	}
	c.Tuple = Tuple{Src: ether.Mapped(ip.Src), Dst: ether.Mapped(ip.Dst), Protocol: ip.Protocol}
	if ip.Protocol == ether.ProtoICMPv6 || ip.Routed(p) {
		return
	}
	c.classifyUpper(ip.Payload, false)
}

func (c *Class) classifyV6(p []byte) {
	c.Kind = Unclear
	ip, ok := ether.ParseIPv6(p)
	if !ok {
		return
	}
	upper, payload, _, ok := ip.Upper()
	if !ok || upper == ether.ProtoICMP || ip.Routed() {
		return
	}
	c.Tuple = Tuple{Src: ip.Src, Dst: ip.Dst, Protocol: upper}
	if upper == ether.ProtoICMPv6 {
		c.Tuple.Protocol = ether.ProtoICMP
		if len(payload) > 0 && (payload[0] == ether.NeighborSolicitation || payload[0] == ether.NeighborAdvertisement) {
			c.Kind = Resolution
			return
		}
	}
	c.classifyUpper(payload, upper == ether.ProtoICMPv6)
}

// transportHeader is the least length of a header, in bytes; 0 for a protocol without ports.
func transportHeader(p ether.Protocol) int {
	switch p {
	case ether.ProtoTCP:
		return 20
	case ether.ProtoUDP, ether.ProtoICMP:
		return 8
	default:
		return 0
	}
}

// classifyUpper looks at the header behind IP. One that is cut shows nothing: no rule about ports may match it (RFC 1858).
func (c *Class) classifyUpper(p []byte, v6 bool) {
	if len(p) < transportHeader(c.Tuple.Protocol) {
		return
	}
	c.Kind = Packet
	switch c.Tuple.Protocol {
	case ether.ProtoTCP:
		const fin, syn, rst, ack = 1, 2, 4, 16
		flags := p[13]
		c.Opens, c.Ends = flags&(syn|ack) == syn, flags&(fin|rst) != 0
		c.Tuple.SrcPort, c.Tuple.DstPort, _ = ether.Ports(p)
	case ether.ProtoUDP:
		c.Tuple.SrcPort, c.Tuple.DstPort, _ = ether.Ports(p)
	case ether.ProtoICMP:
		c.classifyICMP(p, v6)
	default: // has no ports
	}
}

func (c *Class) classifyICMP(p []byte, v6 bool) {
	const echoReply4, redirect4, echo4, advertisement4, echo6, echoReply6 = 0, 5, 8, 9, 128, 129
	echo, reply := byte(echo4), byte(echoReply4)
	if v6 {
		echo, reply = echo6, echoReply6
	}
	switch {
	case p[0] == echo || p[0] == reply:
		c.Opens, c.Reply = p[0] == echo, p[0] == reply
		id := binary.BigEndian.Uint16(p[4:])
		c.Tuple.SrcPort, c.Tuple.DstPort = id, id
	case isICMPError(p[0], v6):
		c.Kind = ICMPError
		c.About = aboutOf(p[8:], v6)
	case !v6 && (p[0] == redirect4 || p[0] == advertisement4):
		// Who may ping a host may not tell it where its packets go (RFC 792, RFC 1256).
		c.Kind = Unclear
	default:
		c.Opens = true
	}
}

// isICMPError reports whether a type is an error about a packet (RFC 792, RFC 4443 section 2.1).
func isICMPError(typ byte, v6 bool) bool {
	if v6 {
		return typ < 128
	}
	return typ == 3 || typ == 4 || typ == 11 || typ == 12 // unreachable, source quench, time exceeded, parameter problem
}

// aboutOf reads the beginning of the packet that an ICMP error quotes; the zero Tuple if it cannot be read. What is quoted may
// be cut behind its first eight bytes (RFC 792).
func aboutOf(p []byte, v6 bool) Tuple {
	const least4, least6 = 20 + 8, 40 + 8
	var t Tuple
	var rest []byte
	switch {
	case !v6 && len(p) >= least4 && p[0]>>4 == 4:
		head := int(p[0]&0x0f) * 4
		const offset = 0x1fff
		if head < 20 || len(p) < head+8 || binary.BigEndian.Uint16(p[6:])&offset != 0 {
			return Tuple{}
		}
		t = Tuple{Src: ether.Mapped([4]byte(p[12:16])), Dst: ether.Mapped([4]byte(p[16:20])), Protocol: ether.Protocol(p[9])}
		rest = p[head:]
	case v6 && len(p) >= least6 && p[0]>>4 == 6:
		ip := ether.IPv6{Next: ether.Protocol(p[6]), Payload: p[40:]}
		upper, payload, _, ok := ip.Upper()
		if !ok || len(payload) < 8 {
			return Tuple{}
		}
		t = Tuple{Src: [16]byte(p[8:24]), Dst: [16]byte(p[24:40]), Protocol: upper}
		if upper == ether.ProtoICMPv6 {
			t.Protocol = ether.ProtoICMP
		}
		rest = payload
	default:
		return Tuple{}
	}
	switch t.Protocol {
	case ether.ProtoTCP, ether.ProtoUDP:
		t.SrcPort, t.DstPort, _ = ether.Ports(rest)
	case ether.ProtoICMP:
		id := binary.BigEndian.Uint16(rest[4:])
		t.SrcPort, t.DstPort = id, id
	default: // has no ports
	}
	return t
}

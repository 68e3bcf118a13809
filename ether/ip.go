package ether

import "encoding/binary"

// Protocol is an IP protocol number or IPv6 next header (IANA).
type Protocol uint8

// Protocols that the switch looks into.
const (
	ProtoHopByHop Protocol = 0
	ProtoICMP     Protocol = 1
	ProtoIGMP     Protocol = 2
	ProtoTCP      Protocol = 6
	ProtoUDP      Protocol = 17
	ProtoRouting  Protocol = 43
	ProtoFragment Protocol = 44
	ProtoICMPv6   Protocol = 58
	ProtoDestOpts Protocol = 60
	ProtoPIM      Protocol = 103
)

// IPv4 is a view over an IPv4 packet.
type IPv4 struct {
	Src, Dst [4]byte
	Protocol Protocol
	Fragment bool   // any fragment but a whole packet
	Offset   int    // of this fragment, in bytes
	Payload  []byte // behind the options
}

// ParseIPv4 looks at an IPv4 packet (RFC 791). It reports false if version or lengths are wrong.
func ParseIPv4(p []byte) (IPv4, bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return IPv4{}, false
	}
	head, total := int(p[0]&0x0f)*4, int(binary.BigEndian.Uint16(p[2:]))
	if head < 20 || total < head || len(p) < total {
		return IPv4{}, false
	}
	const more, offset = 0x2000, 0x1fff
	frag := binary.BigEndian.Uint16(p[6:])
	return IPv4{
		Src: [4]byte(p[12:16]), Dst: [4]byte(p[16:20]), Protocol: Protocol(p[9]),
		Fragment: frag&(more|offset) != 0, Offset: int(frag&offset) * 8,
		Payload: p[head:total],
	}, true
}

// IPv6 is a view over an IPv6 packet.
type IPv6 struct {
	Src, Dst [16]byte
	HopLimit uint8
	Next     Protocol // of the first header behind the fixed one
	Payload  []byte   // behind the fixed header
}

// ParseIPv6 looks at the fixed header of an IPv6 packet (RFC 8200 section 3). It reports false if version or length
// are wrong. A jumbogram (length 0) does not fit a frame and is refused with them, unless nothing follows at all.
func ParseIPv6(p []byte) (IPv6, bool) {
	const head = 40
	if len(p) < head || p[0]>>4 != 6 {
		return IPv6{}, false
	}
	n := int(binary.BigEndian.Uint16(p[4:]))
	if len(p) < head+n {
		return IPv6{}, false
	}
	return IPv6{
		Src: [16]byte(p[8:24]), Dst: [16]byte(p[24:40]), HopLimit: p[7],
		Next: Protocol(p[6]), Payload: p[head : head+n],
	}, true
}

// maxExtensions bounds the walk along extension headers; an honest packet has one or two.
const maxExtensions = 8

// Part says how much of a packet there is.
type Part uint8

// The parts.
const (
	Whole         Part = iota
	FirstFragment      // also the only one, in a packet that has a fragment header for nothing
	LaterFragment
)

// IsExtension reports whether p is an extension header that Upper walks along.
func (p Protocol) IsExtension() bool {
	return p == ProtoHopByHop || p == ProtoRouting || p == ProtoDestOpts || p == ProtoFragment
}

// Upper finds the header behind the extension headers (RFC 8200 section 4). Of a later fragment, upper is what the fragment
// header names: the first header of what was cut. ok is false if the chain is cut, too long, goes on in what was cut, or is in
// an earlier fragment: what the packet is cannot be told.
func (h IPv6) Upper() (upper Protocol, payload []byte, part Part, ok bool) {
	next, p := h.Next, h.Payload
	for range maxExtensions {
		if part != Whole && next.IsExtension() {
			return next, nil, part, false
		}
		size := 0
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDestOpts:
			if len(p) < 8 {
				return next, nil, part, false
			}
			size = 8 + int(p[1])*8
		case ProtoFragment:
			if len(p) < 8 {
				return next, nil, FirstFragment, false
			}
			part, size = FirstFragment, 8
			if binary.BigEndian.Uint16(p[2:])&0xfff8 != 0 {
				return Protocol(p[0]), nil, LaterFragment, false
			}
		default:
			return next, p, part, true
		}
		if len(p) < size {
			return next, nil, part, false
		}
		next, p = Protocol(p[0]), p[size:]
	}
	return next, nil, part, false
}

// Ports returns the ports of a UDP or TCP header; false if it is cut.
func Ports(p []byte) (src, dst uint16, ok bool) {
	if len(p) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), true
}

// ParseUDP looks at a whole UDP datagram (RFC 768). It reports false if it is cut, or its length makes no sense.
func ParseUDP(p []byte) (payload []byte, ok bool) {
	if len(p) < udpLen {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(p[udpLength:]))
	if n < udpLen || n > len(p) {
		return nil, false
	}
	return p[udpLen:n], true
}

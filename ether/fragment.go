package ether

import "encoding/binary"

// Fragment is a view over an IP packet that is a part of a datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
type Fragment struct {
	ID       uint32
	Protocol Protocol // as the fragment's own header names it
	Offset   int      // of Payload in the datagram, in bytes
	More     bool     // others follow
	Src, Dst [16]byte // IPv4 addresses are mapped (RFC 4291 section 2.5.5.2)
	Payload  []byte
}

// ParseFragment looks at a frame's IP packet. It reports false for a whole packet, for one that has a fragment header for nothing
// (RFC 6946), and for what is no IP.
func ParseFragment(f *Frame) (Fragment, bool) {
	switch f.Type {
	case TypeIPv4:
		return fragmentV4(f.Payload)
	case TypeIPv6:
		return fragmentV6(f.Payload)
	default:
		return Fragment{}, false
	}
}

func fragmentV4(p []byte) (Fragment, bool) {
	ip, ok := ParseIPv4(p)
	if !ok || !ip.Fragment {
		return Fragment{}, false
	}
	const more = 0x20
	return Fragment{
		ID: uint32(binary.BigEndian.Uint16(p[4:])), Protocol: ip.Protocol, Offset: ip.Offset, More: p[6]&more != 0,
		Src: Mapped(ip.Src), Dst: Mapped(ip.Dst), Payload: ip.Payload,
	}, true
}

func fragmentV6(p []byte) (Fragment, bool) {
	ip, ok := ParseIPv6(p)
	if !ok {
		return Fragment{}, false
	}
	next, rest := ip.Next, ip.Payload
	for range maxExtensions {
		if !next.IsExtension() || len(rest) < 8 {
			return Fragment{}, false
		}
		if next == ProtoFragment {
			const more, reserved = 1, 6 // what is reserved is ignored (RFC 8200 section 4.5)
			field := binary.BigEndian.Uint16(rest[2:]) &^ reserved
			return Fragment{
				ID: binary.BigEndian.Uint32(rest[4:]), Protocol: Protocol(rest[0]), Offset: int(field &^ more), More: field&more != 0,
				Src: ip.Src, Dst: ip.Dst, Payload: rest[8:],
			}, field != 0
		}
		size := 8 + int(rest[1])*8
		if len(rest) < size {
			return Fragment{}, false
		}
		next, rest = Protocol(rest[0]), rest[size:]
	}
	return Fragment{}, false
}

// Mapped is an IPv4 address in the form of an IPv6 one (RFC 4291 section 2.5.5.2).
func Mapped(a [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: a[0], 13: a[1], 14: a[2], 15: a[3]}
}

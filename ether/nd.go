package ether

import "encoding/binary"

// ICMPv6 types of neighbour discovery (RFC 4861 section 4) and multicast listener discovery (RFC 3810, RFC 2710).
const (
	MLDQuery              = 130
	MLDReport             = 131
	MLDDone               = 132
	RouterSolicitation    = 133
	RouterAdvertisement   = 134
	NeighborSolicitation  = 135
	NeighborAdvertisement = 136
	Redirect              = 137
	MLDv2Report           = 143

	// Multicast router discovery (RFC 4286).
	MulticastRouterAdvertisement = 151
	MulticastRouterTermination   = 153
)

// ND is a view over a neighbour discovery message.
type ND struct {
	Type      uint8
	Target    [16]byte // of a solicitation, advertisement or redirect
	SourceMAC MAC      // source link-layer address option; zero if absent
	TargetMAC MAC      // target link-layer address option; zero if absent
}

// ParseND looks at an ICMPv6 message. is reports whether it is neighbour discovery at all, ok whether it is whole: an
// option of length zero, or cut, makes it not so (RFC 4861 section 4.6), and so does a second link-layer address of a kind:
// hosts differ in which of the two they believe.
func ParseND(p []byte) (nd ND, is, ok bool) {
	if len(p) < 1 || p[0] < RouterSolicitation || p[0] > Redirect {
		return ND{}, false, false
	}
	nd.Type = p[0]
	options := 0
	switch nd.Type {
	case RouterSolicitation:
		options = 8
	case RouterAdvertisement:
		options = 16
	case NeighborSolicitation, NeighborAdvertisement:
		options = 24
	case Redirect:
		options = 40
	}
	if len(p) < options {
		return nd, true, false
	}
	if options >= 24 {
		nd.Target = [16]byte(p[8:24])
	}
	return nd, true, nd.readOptions(p[options:])
}

func (nd *ND) readOptions(p []byte) bool {
	const source, target = 1, 2 // RFC 4861 section 4.6.1
	seen := [target + 1]bool{}
	for len(p) > 0 {
		if len(p) < 8 || p[1] == 0 || len(p) < int(p[1])*8 {
			return false
		}
		if kind := p[0]; kind == source || kind == target {
			if seen[kind] {
				return false
			}
			seen[kind] = true
		}
		switch p[0] {
		case source:
			nd.SourceMAC = MAC(p[2:8])
		case target:
			nd.TargetMAC = MAC(p[2:8])
		}
		p = p[int(p[1])*8:]
	}
	return true
}

// AppendAdvertisement appends an IPv6 packet that answers a solicitation of to: target has the address mac (RFC 4861 sections 4.4
// and 7.2.4).
//
//	+------------------+-----+---+----------+-------------+-------------+---+---+---------+
//	| IPv6, hop limit  | 136 | 0 | checksum | S, O        | target (16) | 2 | 1 | mac (6) |
//	| 255 (40 bytes)   |     |   |          | (4 bytes)   |             |   |   |         |
//	+------------------+-----+---+----------+-------------+-------------+---+---+---------+
func AppendAdvertisement(b []byte, target, to [16]byte, mac MAC) []byte {
	const length, solicited, override, targetMAC = 32, 0x40, 0x20, 2
	b = append(b, 0x60, 0, 0, 0, 0, length, byte(ProtoICMPv6), 255)
	b = append(append(b, target[:]...), to[:]...)
	icmp := len(b)
	b = append(b, NeighborAdvertisement, 0, 0, 0, solicited|override, 0, 0, 0)
	b = append(append(b, target[:]...), targetMAC, 1)
	b = append(b, mac[:]...)
	// RFC 4443 section 2.3: the pseudo-header is part of what the checksum covers.
	binary.BigEndian.PutUint16(b[icmp+2:], Checksum(length+uint32(ProtoICMPv6), b[icmp-2*len(target):]))
	return b
}

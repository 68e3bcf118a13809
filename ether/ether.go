// Package ether is what is inside an Ethernet frame: addresses, types, tags, and views over the headers that a switch
// looks at. It decodes by looking, never by copying, and allocates nothing.
//
//	 0                   6                   12          14
//	+-------------------+-------------------+-----------+----------------- - - -
//	|    destination    |      source       |  EtherType | payload
//	+-------------------+-------------------+-----------+----------------- - - -
//
// Inside a segment a frame is untagged, or carries one priority tag (802.1Q with VLAN 0) in front of its EtherType. In one that is
// transparent two more tags may follow, which are its user's own (inner.go). A value below 1536 in place of the EtherType is a length (IEEE 802.3 section 3.2.6): such a frame has Type 0 and is
// carried like any other.
package ether

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// HeaderLen is the length of a header without tag, in bytes.
const HeaderLen = 14

// tagLen is the length of an 802.1Q tag.
const tagLen = 4

// MAC is a 48-bit address.
type MAC [6]byte

// Broadcast is the address of everybody.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} //nolint:gochecknoglobals // a constant

// ParseMAC parses the forms that net.ParseMAC takes, 48 bits only.
func ParseMAC(s string) (MAC, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != 6 {
		return MAC{}, fmt.Errorf("MAC address %q is not six bytes such as 02:00:5e:10:00:01", s)
	}
	return MAC(b), nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsGroup reports the individual/group bit: multicast or broadcast.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsStation reports whether m can be the source of a frame: not a group, not all zero.
func (m MAC) IsStation() bool { return !m.IsGroup() && m != MAC{} }

// IsReserved reports whether m is for the neighbour on the same wire only and is never forwarded: the bridge group
// addresses 01:80:c2:00:00:00 to 0f (IEEE 802.1Q table 8-1), and what vendors use in their place.
func (m MAC) IsReserved() bool {
	addr := uint64(binary.BigEndian.Uint16(m[:]))<<32 | uint64(binary.BigEndian.Uint32(m[2:]))
	if addr&^0xf == 0x0180c2000000 {
		return true
	}
	switch addr {
	case 0x01000ccccccc, 0x01000ccccccd, 0x01000ccdcdcd: // Cisco: CDP, VTP, DTP, UDLD; PVST+; uplink fast
		return true
	case 0x00e02b000000, 0x00e02b000004, 0x00e02b000006: // Extreme: EDP, EAPS, ESRP
		return true
	}
	return false
}

// LinkLocal is the IPv6 address that a host forms from m by itself (RFC 4291 appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: m[0] ^ 0x02, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
	})
}

// GroupMAC is the MAC address by which an IP multicast address is sent to (RFC 1112 section 6.4, RFC 2464 section 7).
func GroupMAC(group netip.Addr) MAC {
	b := group.As16()
	if group.Is4() {
		return MAC{0x01, 0x00, 0x5e, b[13] & 0x7f, b[14], b[15]}
	}
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// Type is an EtherType.
type Type uint16

// EtherTypes that the switch looks into.
const (
	TypeIPv4 Type = 0x0800
	TypeARP  Type = 0x0806
	TypeRARP Type = 0x8035
	TypeVLAN Type = 0x8100 // 802.1Q customer tag
	TypeIPv6 Type = 0x86dd
	TypeQinQ Type = 0x88a8 // 802.1ad service tag
)

// MinType is the smallest value that is an EtherType and not a length (IEEE 802.3 section 3.2.6).
const MinType = 1536

// Frame is a view over the bytes of one frame. It borrows them.
type Frame struct {
	Data     []byte // the whole frame, from the destination address on
	Dst, Src MAC
	Type     Type   // of Payload; 0 for an 802.3 length
	Payload  []byte // what follows the EtherType
	Tagged   bool   // carries an 802.1Q tag
	TCI      uint16 // priority (3 bits), drop eligible (1), VLAN (12); 0 without tag
	Inner    VLANs  // in a transparent segment, those on which the frame is there; see ParseInside
}

// Errors of Parse.
var (
	ErrShort      = errors.New("ether: frame shorter than its header")
	ErrPartialTag = errors.New("ether: frame ends inside its VLAN tag")
)

// Parse looks at the header of a frame.
func Parse(data []byte) (Frame, error) {
	if len(data) < HeaderLen {
		return Frame{}, ErrShort
	}
	f := Frame{Data: data, Dst: MAC(data[0:6]), Src: MAC(data[6:12])}
	f.Type, f.Payload = Type(binary.BigEndian.Uint16(data[12:])), data[HeaderLen:]
	if f.Type == TypeVLAN {
		// An 802.1Q tag is complete with the EtherType behind it (IEEE 802.1Q section 9.3).
		if len(data) < HeaderLen+tagLen {
			return Frame{}, ErrPartialTag
		}
		f.Tagged, f.TCI = true, binary.BigEndian.Uint16(data[14:])
		f.Type, f.Payload = Type(binary.BigEndian.Uint16(data[16:])), data[HeaderLen+tagLen:]
	}
	if f.Type < MinType {
		f.Type = 0
	}
	return f, nil
}

// SNAP is the EtherType that an 802.3 frame carries behind its length, in the headers of LLC and SNAP; false if it carries
// none. Some hosts take such a frame for the same as one with the EtherType in front (RFC 1042, IEEE 802.1H).
//
//	+------+------+---------+----------------------+-----------+
//	|  aa  |  aa  | control | 00 00 00 or 00 00 f8 | EtherType |
//	+------+------+---------+----------------------+-----------+
func (f Frame) SNAP() (Type, bool) {
	// The lowest bits of the two service access points say who is asked and who answers: not what follows.
	const length, sap, organisation, tunnel = 8, 0xaa, 0x000000, 0x0000f8
	p := f.Payload
	if f.Type != 0 || len(p) < length || p[0]|1 != sap|1 || p[1]|1 != sap|1 {
		return 0, false
	}
	if oui := uint32(p[3])<<16 | uint32(p[4])<<8 | uint32(p[5]); oui != organisation && oui != tunnel {
		return 0, false
	}
	return Type(binary.BigEndian.Uint16(p[6:])), true
}

// VLAN is the VLAN identifier of the tag; 0 without tag, and for a tag that carries only a priority.
func (f Frame) VLAN() uint16 { return f.TCI & 0x0fff }

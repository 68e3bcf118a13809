package ether

import "encoding/binary"

// Tag is a VLAN tag as it stands in a frame, behind the source address. The zero Tag is none.
//
//	 0                          2       3 bits  1 bit   12 bits     4
//	+--------------------------+-------+-------+-------------------+
//	| 0x8100 (802.1Q),         |  PCP  |  DEI  |  VLAN identifier  |
//	| 0x88a8 (802.1ad)         |       |       |                   |
//	+--------------------------+-------+-------+-------------------+
//
// A VLAN identifier of 0 is none: such a tag carries its priority alone (IEEE 802.1Q table 9-2).
type Tag [tagLen]byte

// MaxVLAN is the greatest VLAN identifier. 4095 is reserved, and is never in a frame (IEEE 802.1Q table 9-2).
const MaxVLAN = 4094

const (
	vlanMask     = 0x0fff
	priorityMask = 0xf000 // of the PCP and the DEI
	macsLen      = 12     // of both addresses, which stand in front of the outer tag
)

// MakeTag returns a tag of type TypeVLAN or TypeQinQ.
func MakeTag(t Type, tci uint16) (tag Tag) {
	binary.BigEndian.PutUint16(tag[:], uint16(t))
	binary.BigEndian.PutUint16(tag[2:], tci)
	return tag
}

// Type is TypeVLAN or TypeQinQ, or 0 for none.
func (t Tag) Type() Type { return Type(binary.BigEndian.Uint16(t[:])) }

// VLAN is the VLAN identifier; 0 for none.
func (t Tag) VLAN() uint16 { return binary.BigEndian.Uint16(t[2:]) & vlanMask }

// Priority is the PCP and the DEI, where they stand in the tag's last two bytes.
func (t Tag) Priority() uint16 { return binary.BigEndian.Uint16(t[2:]) & priorityMask }

// IsPriority reports whether the tag is the one that a frame inside a segment may carry: 802.1Q's with VLAN 0.
func (t Tag) IsPriority() bool { return t.Type() == TypeVLAN && t.VLAN() == 0 }

// IsTag reports whether a tag of this type stands in front of the EtherType.
func (t Type) IsTag() bool { return t == TypeVLAN || t == TypeQinQ }

// OuterTag returns the tag that stands first in a frame; none if there is none. The error is ErrShort or ErrPartialTag.
func OuterTag(data []byte) (Tag, error) {
	if len(data) < HeaderLen {
		return Tag{}, ErrShort
	}
	if !Type(binary.BigEndian.Uint16(data[macsLen:])).IsTag() {
		return Tag{}, nil
	}
	// A tag is complete with the EtherType behind it (IEEE 802.1Q section 9.3).
	if len(data) < HeaderLen+tagLen {
		return Tag{}, ErrPartialTag
	}
	return Tag(data[macsLen:]), nil
}

// StripVLAN makes a frame of a VLAN one of a segment, in place: its outer tag, which OuterTag has seen, is taken off, or
// becomes 802.1Q's with VLAN 0 if it carries a priority. Tags behind it are payload. What comes back lies in data, and so does
// what is undone on it. In a transparent segment a tag with VLAN 0 that is payload stays one: it must not be taken for the priority
// of the tag that stood in front of it.
func StripVLAN(data []byte, o Offload, transparent bool) ([]byte, Offload) {
	tag := Tag(data[macsLen:])
	priority := tag.Priority()
	if priority != 0 || transparent && isPriorityAt(data, macsLen+tagLen) {
		tag = MakeTag(TypeVLAN, priority)
		copy(data[macsLen:], tag[:])
		return data, o
	}
	if o.Checksum {
		if int(o.Start) < HeaderLen+tagLen {
			return moveMACs(data), Offload{Size: 1} // what is covered cannot begin in the header: Settle refuses this
		}
		o.Start -= tagLen
	}
	return moveMACs(data), o
}

// isPriorityAt reports whether a tag that carries a priority alone stands at a place in a frame.
func isPriorityAt(data []byte, at int) bool {
	return len(data) >= at+tagLen && Tag(data[at:]).IsPriority()
}

// moveMACs takes away the four bytes behind the addresses.
func moveMACs(data []byte) []byte {
	copy(data[tagLen:tagLen+macsLen], data[:macsLen])
	return data[tagLen:]
}

package herald

import (
	"encoding/binary"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Format 2 of what crosses the door is no frame, but a notice from one node to another about a segment. It is sealed like a frame.
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   format 2    |                segment (24)                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     kind      |     flags     |           part (16)           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          parts (16)           |         reserved, 0           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  epoch (64): random; the numbers below are of it              |
//	|  base (64): number of the list that this one starts from      |
//	|  version (64): number of the list after this one              |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  entries
//
// Kind 1 tells of addresses. With flag 1 it is a part of the whole list; parts may come in any order. Without, it is one part, and says
// what has changed between base and version; if these are equal it has no entries, and says that the sender is there. Kind 2 asks
// for the whole list; what is behind the reserved bytes is 0. Kind 3 says which VLANs the sender carries while other gateways do, too; its
// version rises with every change, and it is believed for as long as a notice of kind 1. An entry is 16 bytes:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          MAC (48)                             |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |     flags     |   reserved    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         identity (32)                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         sequence (32)                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// Flag 1: the address is gone; identity and sequence are 0. Flag 2: it is on a VLAN that other gateways may carry at the same time, and so
// it is where they are, too. In kind 3 the MAC and the sequence are 0, and the identity is that of those on the VLAN whom nobody named; with
// flag 4 the sender is yet to hear of the flows that others carry, so none is to be sent its way.
const (
	Format = 2 // first byte of a notice

	kindAddresses = 1
	kindAsk       = 2
	kindCarries   = 3

	flagFull = 1 // of a notice

	flagGone   = 1 // of an entry
	flagShared = 2
	flagJoins  = 4

	headLen    = 36
	entryLen   = 16
	maxEntries = 70   // in one notice, so that it fits a datagram on any path
	maxParts   = 1024 // of one list
)

// notice is one message.
type notice struct {
	vni                  policy.VNI
	kind                 byte
	full                 bool
	part, parts          uint16
	epoch, base, version uint64
	entries              []byte // entryLen each
}

// entry is one address.
type entry struct {
	mac   ether.MAC
	gone  bool
	joins bool
	claim
}

// claim is where an address is: whose it is, and by which sequence number. Nobody's if who is 0.
type claim struct {
	who    policy.Identity
	seq    uint32
	shared bool // on a VLAN that other gateways may carry at the same time
}

// append writes the notice.
func (n *notice) append(b []byte) []byte {
	var flags byte
	if n.full {
		flags = flagFull
	}
	b = binary.BigEndian.AppendUint32(b, uint32(Format)<<24|uint32(n.vni))
	b = append(b, n.kind, flags)
	b = binary.BigEndian.AppendUint16(b, n.part)
	b = binary.BigEndian.AppendUint16(b, n.parts)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, n.epoch)
	b = binary.BigEndian.AppendUint64(b, n.base)
	b = binary.BigEndian.AppendUint64(b, n.version)
	return append(b, n.entries...)
}

// parseNotice reads a message; false if it is no notice, or contradicts itself.
func parseNotice(b []byte) (n notice, ok bool) {
	if len(b) < headLen || b[0] != Format || (len(b)-headLen)%entryLen != 0 {
		return notice{}, false
	}
	n.vni = policy.VNI(binary.BigEndian.Uint32(b) & 0xffffff)
	n.kind, n.full = b[4], b[5]&flagFull != 0
	n.part, n.parts = binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:])
	n.epoch, n.base, n.version = binary.BigEndian.Uint64(b[12:]), binary.BigEndian.Uint64(b[20:]), binary.BigEndian.Uint64(b[28:])
	n.entries = b[headLen:]
	switch {
	case n.kind == kindAsk, n.kind == kindCarries && !n.full:
		return n, true
	case n.kind != kindAddresses:
		return notice{}, false
	case n.full:
		return n, n.part < n.parts && n.parts <= maxParts
	case len(n.entries) == 0:
		return n, n.base == n.version
	}
	return n, n.base < n.version
}

// SegmentOf says about which segment a message is.
func SegmentOf(message []byte) (policy.VNI, bool) {
	n, ok := parseNotice(message)
	return n.vni, ok
}

func (e *entry) append(b []byte) []byte {
	var flags byte
	if e.gone {
		flags = flagGone
	}
	if e.shared {
		flags |= flagShared
	}
	if e.joins {
		flags |= flagJoins
	}
	b = append(append(b, e.mac[:]...), flags, 0)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, uint32(e.who)), e.seq)
}

// count is how many entries there are.
func (n *notice) count() int { return len(n.entries) / entryLen }

// entry returns entry i.
func (n *notice) entry(i int) entry {
	b := n.entries[i*entryLen:]
	return entry{
		mac: ether.MAC(b[:6]), gone: b[6]&flagGone != 0, joins: b[6]&flagJoins != 0,
		claim: claim{policy.Identity(binary.BigEndian.Uint32(b[8:])), binary.BigEndian.Uint32(b[12:]), b[6]&flagShared != 0},
	}
}

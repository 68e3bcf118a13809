package transport

import (
	"encoding/binary"
	"errors"
)

// Every datagram of ours begins with a byte of 0x80 or more. STUN begins with 0 to 3 and TURN channel data with 0x40 to
// 0x7f (RFC 7983 section 7), so one comparison separates the three.
//
//	  7   6   5   4   3   2   1   0
//	+---+-------+---+---------------+
//	| 1 |version|sui|     type      |    version counts from 0 for version 1; suite: see Suite
//	+---+-------+---+---------------+
//
// The header of a data datagram, all of it authenticated:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  first byte   |     path      |     shard     | flags, all 0  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    receiver's session index                   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                        counter, 64 bits                       +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  sealed records (record.go), then the tag of 16 bytes         |
const (
	headerLen = 16
	tagLen    = 16

	firstOurs   = 0x80
	typeMask    = 0x0f
	suiteBit    = 0x10
	versionMask = 0x60
)

// MaxWire is the highest version of the protocol that this program speaks. The version that a pair uses is the lower
// of the two that their signed records name; it is never negotiated on the wire.
const MaxWire = 1

// The types of datagram.
const (
	typeInitiation = 1
	typeResponse   = 2
	typeCookie     = 3
	typeData       = 4
	typeSignal     = 5
)

func firstByte(typ byte, s Suite) byte { return firstOurs | byte(s)<<4 | typ }

// header is the parsed header of a data datagram.
type header struct {
	suite       Suite
	path, shard uint8
	index       uint32
	counter     uint64
}

var errHeader = errors.New("transport: not a datagram of this version")

func parseHeader(b []byte) (header, error) {
	if len(b) < headerLen+tagLen || b[0]&versionMask != 0 || b[3] != 0 {
		return header{}, errHeader
	}
	return header{
		suite: Suite(b[0] & suiteBit >> 4), path: b[1], shard: b[2],
		index: binary.BigEndian.Uint32(b[4:]), counter: binary.BigEndian.Uint64(b[8:]),
	}, nil
}

func (h header) put(b []byte) {
	b[0], b[1], b[2], b[3] = firstByte(typeData, h.suite), h.path, h.shard, 0
	binary.BigEndian.PutUint32(b[4:], h.index)
	binary.BigEndian.PutUint64(b[8:], h.counter)
}

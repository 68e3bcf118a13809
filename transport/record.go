package transport

import (
	"encoding/binary"
	"errors"
)

// What is sealed is a sequence of records:
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     kind      |   reserved    |            length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  body of that length
//
//	kind         body
//	0 message    opaque: what Sender.Send was given
//	1 piece      of a message too large for the path: frame id (32), total length (16), offset (16), bytes
//	2 probe      id (64), any number of bytes that fill the datagram
//	3 reply      id (64) of the probe it answers
//	4 signal     for a third node, or for the receiver: its identity (32), a sealed signal
//	5 signaled   a signal passed on: the identity it comes from (32), the sealed signal
//	6 close      empty: the sender has closed the link
//
// A kind that the receiver does not know is skipped.
const (
	recordLen = 4
	pieceLen  = 8

	recordMessage  = 0
	recordPiece    = 1
	recordProbe    = 2
	recordReply    = 3
	recordSignal   = 4
	recordSignaled = 5
	recordClose    = 6
)

// MaxMessage is the longest message, in bytes.
const MaxMessage = 1<<16 - 1

var errRecord = errors.New("transport: record is cut")

// appendRecord appends a record whose body is head followed by body.
func appendRecord(b []byte, kind byte, head, body []byte) []byte {
	b = putRecord(b, kind, len(head)+len(body))
	b = append(b, head...)
	return append(b, body...)
}

// putRecord appends what stands in front of a body of n bytes.
func putRecord(b []byte, kind byte, n int) []byte {
	return binary.BigEndian.AppendUint16(append(b, kind, 0), uint16(n))
}

// nextRecord splits the first record off.
func nextRecord(b []byte) (kind byte, body, rest []byte, err error) {
	if len(b) < recordLen {
		return 0, nil, nil, errRecord
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < recordLen+n {
		return 0, nil, nil, errRecord
	}
	return b[0], b[recordLen : recordLen+n], b[recordLen+n:], nil
}

// piece is one part of a message that was cut.
type piece struct {
	id     uint32
	total  int
	offset int
	data   []byte
}

func parsePiece(b []byte) (piece, error) {
	if len(b) <= pieceLen {
		return piece{}, errRecord
	}
	p := piece{
		id: binary.BigEndian.Uint32(b), total: int(binary.BigEndian.Uint16(b[4:])),
		offset: int(binary.BigEndian.Uint16(b[6:])), data: b[pieceLen:],
	}
	if p.offset+len(p.data) > p.total {
		return piece{}, errRecord
	}
	return p, nil
}

func putPiece(b []byte, id uint32, total, offset int) {
	binary.BigEndian.PutUint32(b, id)
	binary.BigEndian.PutUint16(b[4:], uint16(total))
	binary.BigEndian.PutUint16(b[6:], uint16(offset))
}

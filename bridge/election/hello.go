package election

import (
	"encoding/binary"
	"errors"
	"time"
)

// A hello:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+-----+-+-+-+-+-+-------------------------------+
//	|   version 1   | 0   |L|H|R|A|C|          preference           |
//	+---------------+-----+-+-+-+-+-+-------------------------------+
//	|                          attachment                           |
//	+---------------------------------------------------------------+
//	|                             node                              |
//	+-------------------------------+---------------+---------------+
//	|   lease, in milliseconds      |  count of acks|       0       |
//	+-------------------------------+---------------+---------------+
//	|                           boot (64)                           |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                         sequence (64)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|  for each ack: node (32), boot (64), sequence (64)
//
// C: claims, A: able, R: ready, H: heard by all, L: leaves. What stands behind the acks is passed over: later versions may
// add to it.
const (
	version   = 1
	headerLen = 32
	ackLen    = 20

	flagClaims = 1 << 0
	flagAble   = 1 << 1
	flagReady  = 1 << 2
	flagHeard  = 1 << 3
	flagLeaves = 1 << 4
	flags      = flagClaims | flagAble | flagReady | flagHeard | flagLeaves
)

// MaxHello is the length of the longest hello, in bytes.
const MaxHello = headerLen + MaxGateways*ackLen

// Errors of ParseHello.
var (
	ErrShort   = errors.New("election: hello is cut")
	ErrVersion = errors.New("election: hello of another version")
	ErrForm    = errors.New("election: hello says what cannot be")
)

// Hello is what a gateway says of itself.
type Hello struct {
	Attachment, Node uint32
	Preference       uint16
	Claims           bool // it forwards, or is about to
	Able             bool // it has what a forwarder needs
	Ready            bool // it may claim before its Lease and Margin have passed
	Heard            bool // whom it hears, hears it
	Leaves           bool // it never claims again in this run
	Lease            time.Duration
	Boot, Sequence   uint64
	Acks             []Ack
}

// Ack names the last hello that was heard of another gateway.
type Ack struct {
	Node           uint32
	Boot, Sequence uint64
}

// wants reports whether its sender is fit to be chosen (rule 4).
func (h *Hello) wants() bool { return h.Ready && h.Heard }

// AppendTo appends the hello to b.
func (h *Hello) AppendTo(b []byte) []byte {
	var f byte
	for _, flag := range []struct {
		set bool
		bit byte
	}{{h.Claims, flagClaims}, {h.Able, flagAble}, {h.Ready, flagReady}, {h.Heard, flagHeard}, {h.Leaves, flagLeaves}} {
		if flag.set {
			f |= flag.bit
		}
	}
	b = append(b, version, f)
	b = binary.BigEndian.AppendUint16(b, h.Preference)
	b = binary.BigEndian.AppendUint32(b, h.Attachment)
	b = binary.BigEndian.AppendUint32(b, h.Node)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Lease/time.Millisecond))
	b = append(b, byte(len(h.Acks)), 0)
	b = binary.BigEndian.AppendUint64(b, h.Boot)
	b = binary.BigEndian.AppendUint64(b, h.Sequence)
	for _, a := range h.Acks {
		b = binary.BigEndian.AppendUint32(b, a.Node)
		b = binary.BigEndian.AppendUint64(b, a.Boot)
		b = binary.BigEndian.AppendUint64(b, a.Sequence)
	}
	return b
}

// ParseHello reads a hello.
func ParseHello(b []byte) (Hello, error) {
	if len(b) < headerLen {
		return Hello{}, ErrShort
	}
	if b[0] != version {
		return Hello{}, ErrVersion
	}
	h := Hello{
		Preference: binary.BigEndian.Uint16(b[2:]), Attachment: binary.BigEndian.Uint32(b[4:]), Node: binary.BigEndian.Uint32(b[8:]),
		Claims: b[1]&flagClaims != 0, Able: b[1]&flagAble != 0, Ready: b[1]&flagReady != 0,
		Heard: b[1]&flagHeard != 0, Leaves: b[1]&flagLeaves != 0,
		Lease: time.Duration(binary.BigEndian.Uint16(b[12:])) * time.Millisecond,
		Boot:  binary.BigEndian.Uint64(b[16:]), Sequence: binary.BigEndian.Uint64(b[24:]),
	}
	// Flags that are not known may say what must not be passed over. A lease without end would silence everybody after its
	// holder's death.
	if b[1]&^flags != 0 || h.Lease > maxLease {
		return Hello{}, ErrForm
	}
	// Who is not able is not ready, and claims nothing; who leaves is not able.
	if (h.Claims || h.Ready) && !h.Able || h.Leaves && h.Able {
		return Hello{}, ErrForm
	}
	n := int(b[14])
	if n > MaxGateways {
		return Hello{}, ErrForm
	}
	b = b[headerLen:]
	if len(b) < n*ackLen {
		return Hello{}, ErrShort
	}
	for ; n > 0; n, b = n-1, b[ackLen:] {
		h.Acks = append(h.Acks, Ack{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])})
	}
	return h, nil
}

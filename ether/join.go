package ether

import (
	"bytes"
	"encoding/binary"
)

// maxDatagrams is how many UDP datagrams make a super-frame at most: what every kernel takes (UDP_MAX_SEGMENTS in
// linux/udp.h, which newer ones have doubled).
const maxDatagrams = 64

// maxPacket is the longest IP packet, in bytes (RFC 791 section 3.1).
const maxPacket = 65535

// Joiner puts frames together again that follow each other in one TCP stream, or are UDP datagrams of one sender to one
// receiver. It holds one super-frame at a time, so nothing overtakes anything. It looks at frames whose checksum is left
// undone only: what covers them is the seal that they came in.
type Joiner struct {
	// Takes says what kinds the receiver of super-frames takes; frames of another kind are not taken up.
	Takes Offloads

	buf   []byte
	l     layout
	head  int
	size  int    // payload of the first
	next  uint32 // TCP: sequence number that continues
	count int
	ended bool // nothing can follow
}

// Add takes a frame if it can stand in a super-frame, and follows what is there; otherwise it reports false and keeps
// nothing of it.
func (j *Joiner) Add(data []byte) bool {
	l, head, ok := joinable(data)
	if !ok || !j.takes(l.protocol) {
		return false
	}
	payload := len(data) - head
	switch {
	case j.count == 0:
		j.buf = append(j.buf[:0], data...)
		j.l, j.head, j.size = l, head, payload
	case l == j.l && head == j.head && j.hasRoom(payload) && j.sameHost(data) && j.follows(data):
		j.buf = append(j.buf, data[head:]...)
	default:
		return false
	}
	j.ended = payload < j.size
	if l.protocol == ProtoTCP {
		push := data[l.l4+tcpFlags] & tcpPSH
		j.buf[l.l4+tcpFlags] |= push
		j.next = binary.BigEndian.Uint32(data[l.l4+tcpSeq:]) + uint32(payload)
		j.ended = j.ended || push != 0
	}
	j.count++
	return true
}

func (j *Joiner) takes(p Protocol) bool {
	if p == ProtoUDP {
		return j.Takes.USO
	}
	return j.Takes.TSO
}

// hasRoom reports whether so much payload can follow: all frames but the last have the same.
func (j *Joiner) hasRoom(payload int) bool {
	return !j.ended && payload <= j.size && len(j.buf)-j.l.l3+payload <= maxPacket
}

// joinable looks for a TCP segment that has no flag that means anything but data, or a UDP datagram. It has payload, and
// ends with its frame. DHCP is not joined.
func joinable(data []byte) (l layout, head int, ok bool) {
	if l, ok = layoutOf(data); !ok || l.end(data) != len(data) {
		return l, 0, false
	}
	head, ok = l.head(data)
	if !ok || head == len(data) {
		return l, 0, false
	}
	if l.protocol == ProtoUDP {
		// Whoever judges DHCP looks into each message: behind the first of what was joined the others would hide.
		if src, dst, _ := Ports(data[l.l4:]); isDHCP(src, dst) {
			return l, head, false
		}
		return l, head, int(binary.BigEndian.Uint16(data[l.l4+udpLength:])) == len(data)-l.l4
	}
	return l, head, data[l.l4+tcpFlags]&^(tcpPSH|tcpECE) == tcpACK
}

// sameHost compares Ethernet and IP headers but for what differs between packets of one sender to one receiver: length,
// identification and checksum.
func (j *Joiner) sameHost(data []byte) bool {
	a, b, l3, l4 := j.buf, data, j.l.l3, j.l.l4
	if j.l.v6 {
		return bytes.Equal(a[:l3+4], b[:l3+4]) && bytes.Equal(a[l3+6:l4], b[l3+6:l4])
	}
	return bytes.Equal(a[:l3+2], b[:l3+2]) && bytes.Equal(a[l3+6:l3+10], b[l3+6:l3+10]) && bytes.Equal(a[l3+12:l4], b[l3+12:l4])
}

// follows compares the transport headers but for what differs between frames that a Cutter cuts: of TCP sequence number,
// PSH and checksum, of UDP length and checksum.
func (j *Joiner) follows(data []byte) bool {
	a, b := j.buf[j.l.l4:j.head], data[j.l.l4:j.head]
	if j.l.protocol == ProtoUDP {
		return j.count < maxDatagrams && bytes.Equal(a[:udpLength], b[:udpLength]) && j.sameCount(data)
	}
	return binary.BigEndian.Uint32(b[tcpSeq:]) == j.next &&
		bytes.Equal(a[:tcpSeq], b[:tcpSeq]) && bytes.Equal(a[tcpAck:tcpFlags], b[tcpAck:tcpFlags]) &&
		(a[tcpFlags]^b[tcpFlags])&^tcpPSH == 0 && bytes.Equal(a[tcpWindow:tcpChecksum], b[tcpWindow:tcpChecksum]) &&
		bytes.Equal(a[tcpUrgent:], b[tcpUrgent:])
}

// sameCount reports whether a datagram will keep its IPv4 identification when the host cuts it off again, counting up from
// the first, as far as it means anything: a packet that must not be fragmented has no use for it (RFC 6864 section 4.1).
func (j *Joiner) sameCount(data []byte) bool {
	const dontFragment = 0x40
	a, b := j.buf[j.l.l3:], data[j.l.l3:]
	return j.l.v6 || a[6]&dontFragment != 0 ||
		binary.BigEndian.Uint16(b[4:]) == binary.BigEndian.Uint16(a[4:])+uint16(j.count)
}

// Take returns what was put together and what is left undone on it, and starts anew; nil if there is nothing. The bytes
// are the Joiner's until the next Add.
func (j *Joiner) Take() ([]byte, Offload) {
	if j.count == 0 {
		return nil, Offload{}
	}
	o := Offload{Checksum: true, Start: uint16(j.l.l4), Field: uint16(j.l.field())}
	if j.count > 1 {
		o.Size = uint16(j.size)
		n := len(j.buf) - j.l.l4
		if j.l.protocol == ProtoUDP {
			binary.BigEndian.PutUint16(j.buf[j.l.l4+udpLength:], uint16(n))
		}
		j.l.putLength(j.buf, len(j.buf)-j.l.l3)
		j.l.putPseudo(j.buf, n)
	}
	j.count = 0
	return j.buf, o
}

// Pending reports whether something waits for Take.
func (j *Joiner) Pending() bool { return j.count > 0 }

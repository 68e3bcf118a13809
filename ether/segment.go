package ether

import (
	"bytes"
	"encoding/binary"
)

// TCP flags (RFC 9293 section 3.1).
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpECE = 0x40
	tcpCWR = 0x80
)

// Cutter cuts a TCP super-frame into frames that each stand alone. Their checksums are left undone, as in the whole.
type Cutter struct {
	data   []byte
	l      layout
	head   int // bytes of headers, which every frame has
	size   int // bytes of payload of each frame but the last
	at     int // of the payload that comes next
	number int // frames cut
}

// Cut prepares to cut a super-frame that Settle has passed into frames of at most most bytes. It reports false if its
// headers alone are longer than that, or make no sense.
func Cut(data []byte, o Offload, most int) (Cutter, bool) {
	l, ok := layoutOf(data)
	if !ok || l.protocol != ProtoTCP || o.Size == 0 {
		return Cutter{}, false
	}
	head := l.l4 + int(data[l.l4+12]>>4)*4
	size := min(int(o.Size), most-head)
	if head < l.l4+tcpLen || head >= len(data) || size <= 0 {
		return Cutter{}, false
	}
	return Cutter{data: data, l: l, head: head, size: size, at: head}, true
}

// Len is the length of the frame that Next appends; 0 if there is none left.
func (c *Cutter) Len() int {
	if c.at >= len(c.data) {
		return 0
	}
	return c.head + min(c.size, len(c.data)-c.at)
}

// Next appends the next frame to dst; it returns nil when there is none left.
func (c *Cutter) Next(dst []byte) []byte {
	n := c.Len() - c.head
	if n <= 0 {
		return nil
	}
	begin := len(dst)
	dst = append(dst, c.data[:c.head]...)
	dst = append(dst, c.data[c.at:c.at+n]...)
	f := dst[begin:]
	tcp := f[c.l.l4:]
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(c.at-c.head))
	if c.at > c.head {
		tcp[13] &^= tcpCWR // RFC 3168 section 6.1.2: on one segment alone
	}
	if c.at+n < len(c.data) {
		tcp[13] &^= tcpFIN | tcpPSH
	}
	if !c.l.v6 {
		id := f[c.l.l3+4:]
		binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(id)+uint16(c.number))
	}
	c.l.putLength(f, len(f)-c.l.l3)
	c.l.putPseudo(f, len(f)-c.l.l4)
	c.at += n
	c.number++
	return dst
}

// Joiner puts frames that follow each other in one TCP stream together again. It looks at frames whose checksum is left
// undone only: what covers them is the seal that they came in.
type Joiner struct {
	buf   []byte
	l     layout
	head  int
	size  int    // payload of the first
	next  uint32 // sequence number that continues
	count int
	ended bool // nothing can follow
}

// Add takes a frame if it can stand in a super-frame, and follows what is there; otherwise it reports false and keeps
// nothing of it.
func (j *Joiner) Add(data []byte) bool {
	l, head, ok := plainSegment(data)
	if !ok {
		return false
	}
	flags, payload := data[l.l4+13], len(data)-head
	seq := binary.BigEndian.Uint32(data[l.l4+4:])
	if j.count == 0 {
		j.buf = append(j.buf[:0], data...)
		*j = Joiner{buf: j.buf, l: l, head: head, size: payload}
	} else {
		if j.ended || l != j.l || head != j.head || seq != j.next || payload > j.size ||
			len(j.buf)-l.l3+payload > 65535 || !j.sameStream(data) {
			return false
		}
		j.buf = append(j.buf, data[head:]...)
		j.buf[l.l4+13] |= flags & tcpPSH
	}
	j.next = seq + uint32(payload)
	j.ended = payload < j.size || flags&tcpPSH != 0
	j.count++
	return true
}

// plainSegment looks for a TCP segment that has payload, no flag that means anything but data, and ends with its frame.
func plainSegment(data []byte) (l layout, head int, ok bool) {
	l, ok = layoutOf(data)
	if !ok || l.protocol != ProtoTCP {
		return l, 0, false
	}
	head = l.l4 + int(data[l.l4+12]>>4)*4
	plain := data[l.l4+13]&^(tcpPSH|tcpECE) == tcpACK
	return l, head, plain && head >= l.l4+tcpLen && head < len(data) && l.end(data) == len(data)
}

// end is where the IP packet ends.
func (l layout) end(data []byte) int {
	if l.v6 {
		return l.l3 + 40 + int(binary.BigEndian.Uint16(data[l.l3+4:]))
	}
	return l.l3 + int(binary.BigEndian.Uint16(data[l.l3+2:]))
}

// sameStream compares all of the headers but what differs between the segments of one stream: length, identification
// and checksum of the packet; sequence number, PSH and checksum of the segment.
func (j *Joiner) sameStream(data []byte) bool {
	a, b, l3, l4 := j.buf, data, j.l.l3, j.l.l4
	if j.l.v6 {
		if !bytes.Equal(a[:l3+4], b[:l3+4]) || !bytes.Equal(a[l3+6:l4], b[l3+6:l4]) {
			return false
		}
	} else if !bytes.Equal(a[:l3+2], b[:l3+2]) || !bytes.Equal(a[l3+6:l3+10], b[l3+6:l3+10]) || !bytes.Equal(a[l3+12:l4], b[l3+12:l4]) {
		return false
	}
	const tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow, tcpUrgent = 4, 8, 12, 13, 14, 18
	return bytes.Equal(a[l4:l4+tcpSeq], b[l4:l4+tcpSeq]) && bytes.Equal(a[l4+tcpAck:l4+tcpFlags], b[l4+tcpAck:l4+tcpFlags]) &&
		(a[l4+tcpFlags]^b[l4+tcpFlags])&^tcpPSH == 0 && bytes.Equal(a[l4+tcpWindow:l4+tcpChecksum], b[l4+tcpWindow:l4+tcpChecksum]) &&
		bytes.Equal(a[l4+tcpUrgent:j.head], b[l4+tcpUrgent:j.head])
}

// Take returns what was put together and what is left undone on it, and starts anew; nil if there is nothing. The bytes
// are the Joiner's until the next Add.
func (j *Joiner) Take() ([]byte, Offload) {
	if j.count == 0 {
		return nil, Offload{}
	}
	o := Offload{Checksum: true, Start: uint16(j.l.l4), Field: tcpChecksum}
	if j.count > 1 {
		o.Size = uint16(j.size)
		j.l.putLength(j.buf, len(j.buf)-j.l.l3)
		j.l.putPseudo(j.buf, len(j.buf)-j.l.l4)
	}
	j.count = 0
	return j.buf, o
}

// Pending reports whether something waits for Take.
func (j *Joiner) Pending() bool { return j.count > 0 }

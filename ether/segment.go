package ether

import "encoding/binary"

// TCP flags (RFC 9293 section 3.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpPSH = 0x08
	tcpACK = 0x10
	tcpECE = 0x40
	tcpCWR = 0x80
)

// Cutter cuts a super-frame into frames that each stand alone. Their checksums are left undone, as in the whole.
type Cutter struct {
	data   []byte
	l      layout
	head   int // bytes of headers, which every frame has
	size   int // bytes of payload of each frame but the last
	at     int // of the payload that comes next
	number int // frames cut
}

// Cut prepares to cut a super-frame that Settle has passed. TCP is a stream: it is cut into frames of at most most bytes,
// whatever size its host has chosen. A UDP datagram is a message, which keeps its size, also if its frame is longer than
// most. Cut reports false if the headers make no sense, or those of TCP alone are longer than most.
func Cut(data []byte, o Offload, most int) (Cutter, bool) {
	l, ok := layoutOf(data)
	if !ok || o.Size == 0 {
		return Cutter{}, false
	}
	head, ok := l.head(data)
	size := int(o.Size)
	if l.protocol == ProtoTCP {
		size = min(size, most-head)
	}
	if !ok || head == len(data) || size <= 0 {
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
	if c.l.protocol == ProtoUDP {
		binary.BigEndian.PutUint16(f[c.l.l4+udpLength:], uint16(udpLen+n))
	} else {
		c.segment(f[c.l.l4:], c.at+n == len(c.data))
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

// segment makes the TCP header of the whole that of the next segment.
func (c *Cutter) segment(tcp []byte, last bool) {
	binary.BigEndian.PutUint32(tcp[tcpSeq:], binary.BigEndian.Uint32(tcp[tcpSeq:])+uint32(c.at-c.head))
	if c.at > c.head {
		tcp[tcpFlags] &^= tcpCWR // RFC 3168 section 6.1.2: on one segment alone
	}
	if !last {
		tcp[tcpFlags] &^= tcpFIN | tcpPSH
	}
}

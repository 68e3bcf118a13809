package ether

import "encoding/binary"

// Offload is what a host has left undone on a frame: the checksum of its transport header, and the cutting of a
// super-frame into frames that fit a wire.
type Offload struct {
	Checksum bool   // the checksum field holds the sum of the pseudo-header alone (RFC 9293 section 3.1, RFC 768)
	Start    uint16 // where what the checksum covers begins, in bytes from the start of the frame
	Field    uint16 // where the checksum belongs, in bytes from Start
	Size     uint16 // bytes of payload of each TCP segment or UDP datagram to cut; 0: this is no super-frame
}

// UDP reports whether what is left undone is UDP's, and not TCP's: the two keep their checksums in different places.
func (o Offload) UDP() bool { return o.Checksum && o.Field == udpChecksum }

// Offloads is what a receiver of frames does by itself, so that it may be left undone.
type Offloads struct {
	Checksum bool // checksums of TCP and UDP
	TSO      bool // the cutting of TCP super-frames
	USO      bool // the cutting of UDP super-frames
}

// Cover reports whether a frame on which o is undone can be given to the receiver as it is.
func (have Offloads) Cover(o Offload) bool {
	switch {
	case !o.Checksum:
		return true
	case o.Size == 0 || !have.Checksum:
		return have.Checksum
	case o.UDP():
		return have.USO
	default:
		return have.TSO
	}
}

// Names lists the offloads in the words of ethtool(8), in lower case.
func (have Offloads) Names() []string {
	names := []string{}
	if have.Checksum {
		names = append(names, "checksum")
	}
	if have.TSO {
		names = append(names, "tso")
	}
	if have.USO {
		names = append(names, "uso")
	}
	return names
}

// layout is where the headers of a TCP or UDP frame begin.
type layout struct {
	l3, l4   int
	v6       bool
	protocol Protocol
}

// layoutOf finds the transport header of an unfragmented IPv4 or IPv6 packet; false if there is none that is whole.
func layoutOf(data []byte) (l layout, ok bool) {
	f, err := Parse(data)
	if err == nil && f.Type.IsTag() {
		err = f.unwrap()
	}
	if err != nil {
		return layout{}, false
	}
	l.l3 = len(data) - len(f.Payload)
	var rest int // bytes from the transport header to the end of the packet
	switch f.Type {
	case TypeIPv4:
		h, ok := ParseIPv4(f.Payload)
		if !ok || h.Fragment {
			return layout{}, false
		}
		l.protocol, rest = h.Protocol, len(h.Payload)
		l.l4 = l.l3 + int(f.Payload[0]&0x0f)*4
	case TypeIPv6:
		h, ok := ParseIPv6(f.Payload)
		if !ok {
			return layout{}, false
		}
		upper, payload, part, ok := h.Upper()
		if !ok || part != Whole {
			return layout{}, false
		}
		l.v6, l.protocol, rest = true, upper, len(payload)
		l.l4 = l.l3 + 40 + len(h.Payload) - len(payload)
	default:
		return layout{}, false
	}
	switch l.protocol {
	case ProtoTCP:
		return l, rest >= tcpLen
	case ProtoUDP:
		return l, rest >= udpLen
	default:
		return layout{}, false
	}
}

// Lengths and places in transport headers, in bytes (RFC 9293 section 3.1, RFC 768).
const (
	tcpLen      = 20
	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	tcpUrgent   = 18

	udpLen      = 8
	udpLength   = 4
	udpChecksum = 6
)

// end is where the IP packet ends.
func (l layout) end(data []byte) int {
	if l.v6 {
		return l.l3 + 40 + int(binary.BigEndian.Uint16(data[l.l3+4:]))
	}
	return l.l3 + int(binary.BigEndian.Uint16(data[l.l3+2:]))
}

// head is the length of all headers, in front of the payload; false if that is longer than the frame, or cannot be.
func (l layout) head(data []byte) (int, bool) {
	if l.protocol == ProtoUDP {
		return l.l4 + udpLen, true // layoutOf has seen that it is there
	}
	head := l.l4 + int(data[l.l4+tcpOffset]>>4)*4
	return head, head >= l.l4+tcpLen && head <= len(data)
}

func (l layout) field() int {
	if l.protocol == ProtoUDP {
		return udpChecksum
	}
	return tcpChecksum
}

// Partial describes a frame of which it is known only that its transport's checksum is left undone; false if the frame
// has no transport header to which that could apply.
func Partial(data []byte) (Offload, bool) {
	l, ok := layoutOf(data)
	if !ok {
		return Offload{}, false
	}
	return Offload{Checksum: true, Start: uint16(l.l4), Field: uint16(l.field())}, true
}

// Settle brings a frame of the host's into a form that can travel: what is left undone is a TCP or UDP checksum that the
// other end can find by itself, or nothing. Any other checksum is computed here. It reports false for a description that
// does not fit the frame, and for a super-frame that is not TCP.
func Settle(data []byte, o Offload) (Offload, bool) {
	if !o.Checksum {
		return Offload{}, o.Size == 0
	}
	l, ok := layoutOf(data)
	if ok && l.l4 == int(o.Start) && l.field() == int(o.Field) {
		return o, true
	}
	at := int(o.Start) + int(o.Field)
	if o.Size != 0 || at+2 > len(data) {
		return Offload{}, false
	}
	finish(data[o.Start:], int(o.Field))
	return Offload{}, true
}

// Complete computes the checksum of a frame on which Settle or Partial says that it is undone, and which is no super-frame.
func Complete(data []byte, o Offload) {
	if o.Checksum {
		finish(data[o.Start:], int(o.Field))
	}
}

// finish computes the checksum over covered, whose field holds the sum of the pseudo-header.
func finish(covered []byte, field int) {
	sum := Checksum(0, covered)
	if sum == 0 {
		sum = 0xffff // RFC 768: zero would mean that there is none
	}
	binary.BigEndian.PutUint16(covered[field:], sum)
}

// Sum adds 16-bit words to a sum of RFC 1071.
func Sum(sum uint32, b []byte) uint32 {
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		if sum >= 1<<31 {
			sum = sum&0xffff + sum>>16
		}
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// Checksum is that of RFC 1071 over what has been summed up and b.
func Checksum(sum uint32, b []byte) uint16 { return ^fold(Sum(sum, b)) }

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// putPseudo writes the sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) into the checksum field of
// a frame whose transport header and payload have n bytes.
func (l layout) putPseudo(data []byte, n int) {
	addrs := data[l.l3+12 : l.l3+20]
	if l.v6 {
		addrs = data[l.l3+8 : l.l3+40]
	}
	sum := fold(Sum(uint32(l.protocol)+uint32(n), addrs))
	binary.BigEndian.PutUint16(data[l.l4+l.field():], sum)
}

// putLength writes the packet's length, n bytes from the IP header on, and for IPv4 the header's checksum.
func (l layout) putLength(data []byte, n int) {
	ip := data[l.l3:]
	if l.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(n-40))
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(n))
	head := ip[:int(ip[0]&0x0f)*4]
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], Checksum(0, head))
}

package ether

import "encoding/binary"

// Offload is what a host has left undone on a frame: the checksum of its transport header, and the cutting of a
// super-frame into frames that fit a wire.
type Offload struct {
	Checksum bool   // the checksum field holds the sum of the pseudo-header alone (RFC 9293 section 3.1, RFC 768)
	Start    uint16 // where what the checksum covers begins, in bytes from the start of the frame
	Field    uint16 // where the checksum belongs, in bytes from Start
	Size     uint16 // bytes of payload of each TCP segment to cut; 0: this is no super-frame
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
		upper, payload, fragment, ok := h.Upper()
		if !ok || fragment {
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

// Lengths and places in transport headers, in bytes.
const (
	tcpLen      = 20
	tcpChecksum = 16
	udpLen      = 8
	udpChecksum = 6
)

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
		return o, o.Size == 0 || l.protocol == ProtoTCP
	}
	at := int(o.Start) + int(o.Field)
	if o.Size != 0 || at+2 > len(data) {
		return Offload{}, false
	}
	finish(data[o.Start:], int(o.Field))
	return Offload{}, true
}

// finish computes the checksum over covered, whose field holds the sum of the pseudo-header.
func finish(covered []byte, field int) {
	sum := ^fold(add(0, covered))
	if sum == 0 {
		sum = 0xffff // RFC 768: zero would mean that there is none
	}
	binary.BigEndian.PutUint16(covered[field:], sum)
}

// add adds 16-bit words to a sum of RFC 1071.
func add(sum uint32, b []byte) uint32 {
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
	sum := fold(add(uint32(l.protocol)+uint32(n), addrs))
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
	binary.BigEndian.PutUint16(head[10:], ^fold(add(0, head)))
}

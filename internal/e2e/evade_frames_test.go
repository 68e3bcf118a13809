package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// evasion is a way to hide from a guard what port a packet is for.
type evasion struct {
	name  string
	sound bool // an honest host may send so: to a port that is granted it passes
	segment
	frames [][]byte
}

// fragment is a part of a packet as somebody sends it.
type fragment struct {
	offset int
	more   bool
	body   []byte
}

// evasionSize is the length of a segment; its data is behind the longest header that is cut.
const evasionSize = 72

// hide makes a SYN or a datagram with a right checksum.
func hide(protocol byte, src, dst net.IP, from, to uint16) []byte {
	b := make([]byte, evasionSize)
	binary.BigEndian.PutUint16(b, from)
	binary.BigEndian.PutUint16(b[2:], to)
	at := 6
	if protocol == unix.IPPROTO_TCP {
		at, b[4], b[12], b[13], b[14] = 16, 1, 10<<4, 2, 0x40 // ten words of header, twenty bytes of options: none
		copy(b[20:40], bytes.Repeat([]byte{1}, 20))
	} else {
		binary.BigEndian.PutUint16(b[4:], evasionSize)
	}
	sum := uint32(protocol) + evasionSize
	for _, part := range [][]byte{src, dst, b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[at:], ^uint16(sum>>16+sum))
	return b
}

// pieces cuts a segment into fragments of a size.
func pieces(b []byte, size int) (out []fragment) {
	for at := 0; at < len(b); at += size {
		end := min(at+size, len(b))
		out = append(out, fragment{at, end < len(b), b[at:end]})
	}
	return out
}

// workshop makes evasions from one station to another, each from a port of its own.
type workshop struct {
	from, to party
	port     uint16 // that the next is from
	goal     func(protocol byte) (hidden, decoy uint16)
	made     []*evasion
}

// evasions are all of them, towards the ports that goal names.
func evasions(from, to party, first uint16, goal func(protocol byte) (hidden, decoy uint16)) []*evasion {
	w := &workshop{from: from, to: to, port: first, goal: goal}
	for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		w.whole(protocol)
		header := 20
		if protocol == unix.IPPROTO_UDP {
			header = 8
		}
		for _, t := range tricks() {
			sound := t.sound >= header
			w.add(t.name, sound, protocol, false, func(s, d []byte) [][]byte { return w.cut4(protocol, nil, t.cut(s, d)) })
			w.add(t.name, sound, protocol, true, func(s, d []byte) [][]byte { return w.cut6(protocol, nil, nil, t.cut(s, d)) })
		}
	}
	w.options()
	w.chains()
	w.headers()
	return w.made
}

// add makes one evasion; build gets the segment that is to be hidden, and a decoy, and returns packets.
func (w *workshop) add(name string, sound bool, protocol byte, six bool, build func(s, d []byte) [][]byte) {
	src, dst, typ, version := net.IP(w.from.v4.AsSlice()), net.IP(w.to.v4.AsSlice()), uint16(unix.ETH_P_IP), "IPv4"
	if six {
		src, dst, typ, version = w.from.v6.AsSlice(), w.to.v6.AsSlice(), unix.ETH_P_IPV6, "IPv6"
	}
	hidden, decoy := w.goal(protocol)
	e := &evasion{fmt.Sprintf("%s, %s", name, version), sound, segment{protocol, six, w.port, hidden}, nil}
	if protocol == unix.IPPROTO_UDP {
		e.name += ", UDP"
	}
	for _, packet := range build(hide(protocol, src, dst, w.port, hidden), hide(protocol, src, dst, w.port, decoy)) {
		e.frames = append(e.frames, append(ethernet(w.to.mac, w.from.mac, typ), packet...))
	}
	w.made = append(w.made, e)
	w.port++
}

// packet4 is an IPv4 packet with options, padded to a multiple of four.
func (w *workshop) packet4(protocol byte, options []byte, field uint16, body []byte) []byte {
	b := ipv4(w.from.v4.AsSlice(), w.to.v4.AsSlice(), protocol, field, append(bytes.Clone(options), body...))
	b[0] += byte(len(options) / 4)
	binary.BigEndian.PutUint16(b[4:], w.port)
	b[10], b[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20+len(options); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
	return b
}

func (w *workshop) cut4(protocol byte, options []byte, fragments []fragment) (out [][]byte) {
	for _, f := range fragments {
		field := uint16(f.offset / 8)
		if f.more {
			field |= 0x2000
		}
		out = append(out, w.packet4(protocol, options, field, f.body))
	}
	return out
}

// packet6 is an IPv6 packet behind a chain of headers, each of which is given but for its first octet, which names the next.
func (w *workshop) packet6(protocol byte, chain []header, body []byte) []byte {
	parts, next := [][]byte{}, protocol
	for _, h := range slices.Backward(chain) {
		parts = append([][]byte{append([]byte{next}, h.rest...)}, parts...)
		next = h.kind
	}
	return ipv6(w.from.v6.AsSlice(), w.to.v6.AsSlice(), next, append(parts, body)...)
}

// header is an extension header, without the octet that names the next.
type header struct {
	kind byte
	rest []byte
}

const (
	hopByHopHeader, routingHeader, fragmentHeader, optionsHeader = 0, 43, 44, 60
)

// padding is n headers that say nothing.
func padding(kind byte, n int) []header {
	return slices.Repeat([]header{{kind, []byte{0, 1, 4, 0, 0, 0, 0}}}, n)
}

func (w *workshop) fragmentHeader(offset int, more bool) header {
	field := uint16(offset)
	if more {
		field |= 1
	}
	rest := binary.BigEndian.AppendUint16([]byte{0}, field)
	return header{fragmentHeader, binary.BigEndian.AppendUint32(rest, uint32(w.port))}
}

// cut6 puts each fragment behind a chain; inner is a chain in the fragmentable part of which the first has all.
func (w *workshop) cut6(protocol byte, outer, inner []header, fragments []fragment) (out [][]byte) {
	for _, f := range fragments {
		chain := append(slices.Clone(outer), w.fragmentHeader(f.offset, f.more))
		switch {
		case len(inner) == 0:
			out = append(out, w.packet6(protocol, chain, f.body))
		case f.offset == 0:
			out = append(out, w.packet6(protocol, append(chain, inner...), f.body))
		default:
			chain[len(chain)-1] = w.fragmentHeader(f.offset+8*len(inner), f.more)
			out = append(out, w.packet6(inner[0].kind, chain, f.body))
		}
	}
	return out
}

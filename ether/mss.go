package ether

import (
	"encoding/binary"
	"math/bits"
)

// TCP options (RFC 9293 section 3.2). All but the first two carry their length, and MSS is this:
//
//	+--------+--------+---------+--------+
//	|    2   |    4   |   max seg size   |
//	+--------+--------+---------+--------+
const (
	optionEnd = 0
	optionNop = 1
	optionMSS = 2
	mssLen    = 4
)

// ClampMSS makes the ends of a TCP connection send segments that fit: if the frame is a SYN that allows more than fits into
// frames of most bytes, it allows so much and no more. It reports whether it has changed the frame. An MSS counts payload
// and options, but no fixed headers (RFC 6691 section 2). A SYN that names none is left alone: that means 536 over IPv4
// and 1220 over IPv6 (RFC 9293 section 3.7.1). So is one whose options cannot be read to their end.
//
// undone is what is left undone on the frame; a checksum that is not undone is kept right.
func ClampMSS(frame []byte, undone Offload, most int) bool {
	if !maybeSYN(frame) {
		return false
	}
	l, ok := layoutOf(frame)
	if !ok || l.protocol != ProtoTCP || frame[l.l4+tcpFlags]&tcpSYN == 0 {
		return false
	}
	head, ok := l.head(frame)
	limit := most - l.l4 - tcpLen
	if !ok || head > l.end(frame) || limit <= 0 {
		return false
	}
	options := frame[l.l4+tcpLen : head]
	at, ok := findMSS(options)
	if !ok || int(binary.BigEndian.Uint16(options[at:])) <= limit {
		return false
	}
	was, is := binary.BigEndian.Uint16(options[at:]), uint16(limit)
	binary.BigEndian.PutUint16(options[at:], is)
	if !undone.Checksum { // the sum of the pseudo-header does not cover options
		if at%2 != 0 { // it lies across two words of the sum (RFC 1071 section 2 (B))
			was, is = bits.ReverseBytes16(was), bits.ReverseBytes16(is)
		}
		// RFC 1624 section 3: HC' = ~(~HC + ~m + m')
		sum := frame[l.l4+tcpChecksum:]
		binary.BigEndian.PutUint16(sum, ^fold(uint32(^binary.BigEndian.Uint16(sum))+uint32(^was)+uint32(is)))
	}
	return true
}

// maybeSYN sorts out with a few looks nearly every frame that is no SYN, and none that is one.
func maybeSYN(frame []byte) bool {
	if len(frame) < HeaderLen+tagLen {
		return false
	}
	l3, typ := HeaderLen, Type(binary.BigEndian.Uint16(frame[12:]))
	for range maxTags {
		if !typ.IsTag() || len(frame) < l3+tagLen {
			break
		}
		l3, typ = l3+tagLen, Type(binary.BigEndian.Uint16(frame[l3+2:]))
	}
	var protocol Protocol
	flags := l3 + tcpFlags
	switch typ {
	case TypeIPv4:
		if len(frame) < l3+20 {
			return false
		}
		protocol = Protocol(frame[l3+9])
		flags += int(frame[l3]&0x0f) * 4
	case TypeIPv6:
		if len(frame) < l3+40 {
			return false
		}
		protocol = Protocol(frame[l3+6])
		flags += 40
		if protocol == ProtoHopByHop || protocol == ProtoRouting || protocol == ProtoFragment || protocol == ProtoDestOpts {
			return true // behind the extension headers there may be one
		}
	default:
		return false
	}
	return protocol == ProtoTCP && flags < len(frame) && frame[flags]&tcpSYN != 0
}

// findMSS finds the value of the MSS option; false if there is none, or more than one, or the options are malformed.
func findMSS(options []byte) (at int, ok bool) {
	for i := 0; i < len(options) && options[i] != optionEnd; {
		if options[i] == optionNop {
			i++
			continue
		}
		if i+1 >= len(options) {
			return 0, false
		}
		n := int(options[i+1])
		if n < 2 || i+n > len(options) {
			return 0, false
		}
		if options[i] == optionMSS {
			if n != mssLen || ok {
				return 0, false
			}
			at, ok = i+2, true
		}
		i += n
	}
	return at, ok
}

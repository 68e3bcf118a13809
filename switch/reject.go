package vswitch

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file tells a host at once that what it sent was refused, so that its programs need not wait for a timeout: a TCP segment
// is answered by a reset (RFC 9293 section 3.10.7.1), another packet by an ICMP error (RFC 1812 section 5.2.7.1, RFC 4443
// section 3.1). Both come as if from where the packet was to go, and go nowhere but into the port that it came from. Only the
// own host is told: what a peer sends wrong is its own node's business.

// maxRejects is how many frames are answered each second at most (RFC 1812 section 4.3.2.8).
const maxRejects = 100

// rejecter answers refused frames.
type rejecter struct {
	on atomic.Bool

	mu     sync.Mutex
	second int64
	sent   int
}

// answer tells the host, if the frame is one that may be answered.
func (r *rejecter) answer(l *layout, c *carriage, drop Drop) {
	switch policy.Verdict(drop) {
	case policy.NotAllowed, policy.NoGrant, policy.NotMember:
	default:
		return
	}
	if c.in.Kind == Link || c.Frame.Dst.IsGroup() || c.in.Kind == Attached && !l.elsewhere(c) {
		return
	}
	// A later fragment is what its first one is, and has no header to answer.
	if part, _ := ether.ParseFragment(&c.Frame); part.Offset > 0 || c.Class().Kind != policy.Packet {
		return
	}
	p := packetOf(&c.Frame)
	if !p.answerable() || !r.allow(c.Now) {
		return
	}
	c.in.send(p.refusal(&c.Frame), ether.Offload{}, Tag{}, c.lane)
}

// elsewhere reports whether a frame is for somebody who is certainly not on the VLAN that it came from. What one machine there
// sends to another reaches this gateway, too, until their switch knows better: to refuse it in the other's name would cut what is
// none of our business, and have the switch believe that the other is here.
func (l *layout) elsewhere(c *carriage) bool {
	owner := l.policy.Owner(c.Frame.Dst)
	return owner != 0 && !l.policy.IsBehind(owner, c.in.Identity)
}

func (r *rejecter) allow(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := now.Unix(); s != r.second {
		r.second, r.sent = s, 0
	}
	r.sent++
	return r.sent <= maxRejects
}

// packet is an IP packet that policy counts as a Packet: its headers are whole.
type packet struct {
	src, dst netip.Addr
	protocol ether.Protocol
	whole    []byte // from the IP header on
	upper    []byte // behind the IP headers
}

func packetOf(f *ether.Frame) packet {
	if f.Type == ether.TypeIPv4 {
		ip, _ := ether.ParseIPv4(f.Payload)
		length := int(f.Payload[0]&0x0f)*4 + len(ip.Payload)
		return packet{netip.AddrFrom4(ip.Src), netip.AddrFrom4(ip.Dst), ip.Protocol, f.Payload[:length], ip.Payload}
	}
	ip, _ := ether.ParseIPv6(f.Payload)
	upper, payload, _, _ := ip.Upper()
	return packet{netip.AddrFrom16(ip.Src), netip.AddrFrom16(ip.Dst), upper, f.Payload[:headerV6+len(ip.Payload)], payload}
}

// answerable holds a packet against RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e): nothing answers what is from or for
// anything but one host, nor an error. Of ICMP, only a request is answered, and no reset answers a reset.
func (p *packet) answerable() bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	for _, a := range []netip.Addr{p.src, p.dst} {
		if a.IsMulticast() || a.IsUnspecified() || a == broadcast {
			return false
		}
	}
	const echo4, echo6 = 8, 128 // RFC 792, RFC 4443 section 4.1
	switch p.protocol {
	case ether.ProtoTCP:
		return p.upper[13]&flagRST == 0
	case ether.ProtoICMP:
		return p.upper[0] == echo4
	case ether.ProtoICMPv6:
		return p.upper[0] == echo6
	default:
		return true
	}
}

// Lengths of headers, in bytes, and flags of TCP (RFC 9293 section 3.1).
const (
	headerV4, headerV6, headerTCP, headerICMP = 20, 40, 20, 8

	flagFIN, flagSYN, flagRST, flagACK = 1, 2, 4, 16
)

// refusal makes the frame that answers. It allocates: there are few.
func (p *packet) refusal(f *ether.Frame) []byte {
	var body []byte
	protocol := ether.ProtoTCP
	switch {
	case p.protocol == ether.ProtoTCP:
		body = p.reset()
	case p.src.Is4():
		body, protocol = p.prohibited(3, 13, 576-headerV4), ether.ProtoICMP // RFC 1812 sections 4.3.2.3 and 5.2.7.1
	default:
		body, protocol = p.prohibited(1, 1, 1280-headerV6), ether.ProtoICMPv6 // RFC 4443 sections 2.4 (c) and 3.1
	}
	b := f.AppendReply(make([]byte, 0, len(f.Data)-len(f.Payload)+headerV6+len(body)), f.Src, f.Dst)
	const hops = 64
	if p.src.Is4() {
		src, dst := p.dst.As4(), p.src.As4()
		at := len(b)
		b = binary.BigEndian.AppendUint16(append(b, 0x45, 0), uint16(headerV4+len(body))) //nolint:gosec // at most 576
		b = append(b, 0, 0, 0x40, 0, hops, byte(protocol), 0, 0)                          // not to be fragmented
		b = append(append(b, src[:]...), dst[:]...)
		binary.BigEndian.PutUint16(b[at+10:], ether.Checksum(0, b[at:]))
	} else {
		src, dst := p.dst.As16(), p.src.As16()
		b = binary.BigEndian.AppendUint16(append(b, 0x60, 0, 0, 0), uint16(len(body))) //nolint:gosec // at most 1240
		b = append(append(append(b, byte(protocol), hops), src[:]...), dst[:]...)
	}
	return append(b, body...)
}

// reset is the segment that answers one which belongs to no connection (RFC 9293 section 3.10.7.1).
func (p *packet) reset() []byte {
	seq, ack, flags := binary.BigEndian.Uint32(p.upper[4:]), binary.BigEndian.Uint32(p.upper[8:]), p.upper[13]
	b := make([]byte, headerTCP)
	copy(b, p.upper[2:4])
	copy(b[2:], p.upper[:2])
	b[12] = headerTCP / 4 << 4
	if flags&flagACK != 0 {
		b[13] = flagRST
		binary.BigEndian.PutUint32(b[4:], ack)
	} else {
		length := uint32(max(len(p.upper)-int(p.upper[12]>>4)*4, 0)) //nolint:gosec // a packet's
		length += uint32(flags&flagSYN>>1) + uint32(flags&flagFIN)
		b[13] = flagRST | flagACK
		binary.BigEndian.PutUint32(b[8:], seq+length)
	}
	binary.BigEndian.PutUint16(b[16:], ether.Checksum(p.pseudo(ether.ProtoTCP, len(b)), b))
	return b
}

// prohibited is an ICMP error that says that an administrator has forbidden the packet, of which it quotes what fits.
func (p *packet) prohibited(typ, code byte, most int) []byte {
	b := append(make([]byte, 0, most), typ, code, 0, 0, 0, 0, 0, 0)
	b = append(b, p.whole[:min(len(p.whole), most-headerICMP)]...)
	sum := uint32(0)
	if !p.src.Is4() {
		sum = p.pseudo(ether.ProtoICMPv6, len(b))
	}
	binary.BigEndian.PutUint16(b[2:], ether.Checksum(sum, b))
	return b
}

// pseudo is the sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) of an answer with n bytes.
func (p *packet) pseudo(protocol ether.Protocol, n int) uint32 {
	sum := uint32(protocol) + uint32(n) //nolint:gosec // at most 1240
	for _, a := range []netip.Addr{p.src, p.dst} {
		sum = ether.Sum(sum, a.AsSlice())
	}
	return sum
}

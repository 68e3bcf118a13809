package document

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// what is the one frame that a test asks about.
type what struct {
	arp  bool
	term policy.Term
}

// whatForms says how it may look, for an error.
const whatForms = "a test is about one kind of frame: tcp:PORT, udp:PORT, icmp, arp, broadcast, multicast:ADDRESS, ethertype:0xNNNN or proto:NUMBER"

func parseWhat(text string) (what, error) {
	if text == "arp" {
		return what{arp: true}, nil
	}
	t, err := policy.ParseTerm(text)
	if err != nil {
		return what{}, fmt.Errorf("%s, found %q", whatForms, text)
	}
	one := false
	switch t.Scope {
	case policy.PortRange:
		one = t.From == t.To
	case policy.AnyPort:
		one = t.Protocol != ether.ProtoTCP && t.Protocol != ether.ProtoUDP
	case policy.Multicast:
		one = t.Group.IsSingleIP()
	case policy.EtherType, policy.Broadcast:
		one = true
	default: // everything, any IP
	}
	if !one {
		return what{}, fmt.Errorf("%s, found %q", whatForms, text)
	}
	return what{term: t}, nil
}

func (w what) String() string {
	if w.arp {
		return "arp"
	}
	return w.term.String()
}

// station is what one may use on a segment, as package policy and as a maker of frames needs it.
type station struct {
	mac    ether.MAC
	addrs  []netip.Addr // the first of each kind is used; the link-local one is the last
	policy *policy.Station
}

// stationOf reads a station as a node does: its addresses, and the link-local one if it speaks IP at all.
func stationOf(s *model.Station) *station {
	if s == nil {
		return nil
	}
	out := &station{mac: ether.MAC(s.MAC)}
	for _, a := range s.Addresses {
		out.addrs = append(out.addrs, a.Addr())
	}
	if s.Mode != model.ModeNone {
		out.addrs = append(out.addrs, out.mac.LinkLocal())
	}
	out.policy = policy.NewStation(out.mac, out.addrs, s.Mode == model.ModeDHCP)
	return out
}

func (s *station) address(kind func(netip.Addr) bool) netip.Addr {
	for _, a := range s.addrs {
		if kind(a) {
			return a
		}
	}
	return netip.Addr{}
}

// families are IPv4, and IPv6 by a global address or, without, by the link-local one.
func families(a, b *station) [][2]netip.Addr {
	var out [][2]netip.Addr
	add := func(kind func(netip.Addr) bool) bool {
		src, dst := a.address(kind), b.address(kind)
		if !src.IsValid() || !dst.IsValid() {
			return false
		}
		out = append(out, [2]netip.Addr{src, dst})
		return true
	}
	add(netip.Addr.Is4)
	if !add(func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() }) {
		add(netip.Addr.Is6)
	}
	return out
}

// specimens are the frames that the question is about, one for each family of addresses that both have.
func (w what) specimens(a, b *station) [][]byte {
	if w.term.Scope == policy.EtherType {
		return [][]byte{header(b.mac, a.mac, w.term.Type, make([]byte, 46))}
	}
	var out [][]byte
	for _, ends := range families(a, b) {
		if f := w.build(a, b, ends[0], ends[1]); f != nil {
			out = append(out, f)
		}
	}
	return out
}

// build makes a frame as a host sends it, but for its checksums, at which no policy looks; nil if there is none of this family.
func (w what) build(a, b *station, src, dst netip.Addr) []byte {
	if w.arp {
		if !src.Is4() {
			return nil
		}
		return header(ether.Broadcast, a.mac, ether.TypeARP, arpRequest(a.mac, src, dst))
	}
	to := b.mac
	switch w.term.Scope {
	case policy.Broadcast:
		if !src.Is4() {
			return nil
		}
		to, dst = ether.Broadcast, netip.AddrFrom4([4]byte{255, 255, 255, 255})
	case policy.Multicast:
		if dst = w.term.Group.Addr(); dst.Is4() != src.Is4() {
			return nil
		}
		to = groupMAC(dst)
	default: // to the station
	}
	protocol, payload := w.payload(src.Is6())
	if src.Is4() {
		return header(to, a.mac, ether.TypeIPv4, ipv4(src, dst, protocol, payload))
	}
	return header(to, a.mac, ether.TypeIPv6, ipv6(src, dst, protocol, payload))
}

// payload is what is behind the IP header.
func (w what) payload(v6 bool) (ether.Protocol, []byte) {
	const ephemeral, discard = 49152, 9 // RFC 6335 section 6, RFC 863
	protocol, port := w.term.Protocol, w.term.From
	if w.term.Scope == policy.Broadcast || w.term.Scope == policy.Multicast {
		protocol, port = ether.ProtoUDP, discard
	}
	p := make([]byte, 20)
	switch protocol {
	case ether.ProtoTCP:
		const dataOffset, syn = 5 << 4, 2
		p[12], p[13] = dataOffset, syn
	case ether.ProtoUDP:
		p = p[:8]
		binary.BigEndian.PutUint16(p[4:], 8)
	case ether.ProtoICMP:
		const echo4, echo6 = 8, 128
		p = p[:8]
		p[0], p[5] = echo4, 1
		if v6 {
			p[0], protocol = echo6, ether.ProtoICMPv6
		}
		return protocol, p
	default:
		return protocol, p
	}
	binary.BigEndian.PutUint16(p[0:], ephemeral)
	binary.BigEndian.PutUint16(p[2:], port)
	return protocol, p
}

func header(dst, src ether.MAC, t ether.Type, payload []byte) []byte {
	f := append(append(make([]byte, 0, ether.HeaderLen+len(payload)), dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(f, uint16(t)), payload...)
}

// arpRequest asks who has dst (RFC 826).
func arpRequest(mac ether.MAC, src, dst netip.Addr) []byte {
	const ethernet, op = 1, 1
	p := []byte{0, ethernet, 8, 0, 6, 4, 0, op}
	p = append(append(p, mac[:]...), src.AsSlice()...)
	return append(append(p, make([]byte, 6)...), dst.AsSlice()...)
}

// ipv4 is a packet without options (RFC 791 section 3.1).
func ipv4(src, dst netip.Addr, protocol ether.Protocol, payload []byte) []byte {
	const head, hops = 20, 64
	p := make([]byte, head, head+len(payload))
	p[0], p[8], p[9] = 0x45, hops, byte(protocol)
	binary.BigEndian.PutUint16(p[2:], uint16(head+len(payload))) //nolint:gosec // at most 20 bytes behind it
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	return append(p, payload...)
}

// ipv6 is a packet without extension headers (RFC 8200 section 3).
func ipv6(src, dst netip.Addr, protocol ether.Protocol, payload []byte) []byte {
	const head, hops = 40, 64
	p := make([]byte, head, head+len(payload))
	p[0], p[6], p[7] = 0x60, byte(protocol), hops
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload))) //nolint:gosec // at most 20 bytes
	copy(p[8:], src.AsSlice())
	copy(p[24:], dst.AsSlice())
	return append(p, payload...)
}

// groupMAC is the MAC that a multicast address is sent to (RFC 1112 section 6.4, RFC 2464 section 7).
func groupMAC(a netip.Addr) ether.MAC {
	if a.Is4() {
		b := a.As4()
		return ether.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	b := a.As16()
	return ether.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

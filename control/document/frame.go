package document

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/sample"
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

// addressOf is the first of a station's addresses that is of a kind; invalid if there is none.
func addressOf(s *policy.Station, kind func(netip.Addr) bool) netip.Addr {
	for _, a := range s.Addresses() {
		if kind(a) {
			return a
		}
	}
	return netip.Addr{}
}

// families are IPv4, and IPv6 by a global address or, without, by the link-local one.
func families(a, b *policy.Station) [][2]netip.Addr {
	var out [][2]netip.Addr
	add := func(kind func(netip.Addr) bool) bool {
		src, dst := addressOf(a, kind), addressOf(b, kind)
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
func (w what) specimens(a, b *policy.Station) (out [][]byte, err error) {
	add := func(frame []byte, e error) { out, err = append(out, frame), errors.Join(err, e) }
	if w.term.Scope == policy.EtherType {
		add(sample.Bare(a.MAC, b.MAC, w.term.Type))
		return out, err
	}
	for _, ends := range families(a, b) {
		if w.arp {
			if ends[0].Is4() {
				add(sample.ARP(a.MAC, ends[0], ends[1]))
			}
		} else if p, ok := w.packet(a.MAC, b.MAC, ends[0], ends[1]); ok {
			add(p.Frame())
		}
	}
	return out, err
}

// packet is what a host sends; false if there is none of this family.
func (w what) packet(from, to ether.MAC, src, dst netip.Addr) (sample.Packet, bool) {
	const discard, identifier = 9, 1 // RFC 863
	p := sample.Packet{From: from, To: to, Src: src, Dst: dst, Protocol: w.term.Protocol, DstPort: w.term.From}
	switch w.term.Scope {
	case policy.Broadcast:
		p.Protocol, p.DstPort = ether.ProtoUDP, discard
		p.To, p.Dst = ether.Broadcast, netip.AddrFrom4([4]byte{255, 255, 255, 255})
	case policy.Multicast:
		p.Protocol, p.DstPort = ether.ProtoUDP, discard
		p.To, p.Dst = ether.GroupMAC(w.term.Group.Addr()), w.term.Group.Addr()
	default: // to the station
	}
	if p.Protocol == ether.ProtoICMP {
		p.SrcPort = identifier
	}
	return p, p.Dst.Is4() == src.Is4()
}

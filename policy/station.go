package policy

import (
	"net/netip"
	"slices"

	"github.com/etherloom/etherloom/ether"
)

// Station is what one identity may use on one segment: a MAC, the IP addresses behind it, and what it may be for others.
type Station struct {
	MAC   ether.MAC
	DHCP  bool // may ask a DHCP server for an address
	Roles Roles

	// Of a machine: the nodes that may speak for it, and the attachments behind which it may be, by the identity of those there
	// whom nobody named.
	Gateways    []Identity
	Attachments []Identity
	// Secondary is where a machine is in a private VLAN.
	Secondary SecondaryVLAN

	v4     [][4]byte
	v6     [][16]byte
	beyond *beyond // of a router

	machine    bool
	id         Identity // of a machine that is part of a View
	anyAddress bool     // every one that is nobody's
	taken      *taken   // of a machine: what is somebody's
}

// NewStation returns a station that may use these addresses and no others. The link-local address is one of them only
// if it is named.
func NewStation(mac ether.MAC, addrs []netip.Addr, dhcp bool) *Station {
	s := &Station{MAC: mac, DHCP: dhcp}
	for _, a := range addrs {
		if a.Is4() {
			s.v4 = append(s.v4, a.As4())
		} else {
			s.v6 = append(s.v6, a.As16())
		}
	}
	return s
}

// has reports whether an address is one of the station's. IPv4 addresses are mapped.
func (s *Station) has(a [16]byte) bool {
	return slices.Contains(s.v6, a) || slices.ContainsFunc(s.v4, func(v4 [4]byte) bool { return ether.Mapped(v4) == a }) || s.free(a)
}

// Addresses lists the addresses that the station may use.
func (s *Station) Addresses() []netip.Addr {
	var out []netip.Addr
	for _, a := range s.v4 {
		out = append(out, netip.AddrFrom4(a))
	}
	for _, a := range s.v6 {
		out = append(out, netip.AddrFrom16(a))
	}
	return out
}

// Check holds a frame against what its source may use, and says how it is to be counted. super says that it is a super-frame:
// then it stands for several, whose payloads differ.
func (s *Station) Check(f *ether.Frame, super bool) (Budget, Verdict) {
	if !s.uses(f.Src) {
		return Unlimited, SourceMAC
	}
	if f.Src != s.MAC {
		one := s.as(f.Src)
		s = &one
	}
	budget, v := s.checkPayload(f, super)
	return budget.of(f.Dst), v
}

func (s *Station) checkPayload(f *ether.Frame, super bool) (Budget, Verdict) {
	switch f.Type {
	case ether.TypeARP, ether.TypeRARP:
		return resolution, s.checkARP(f)
	case ether.TypeIPv4:
		return s.checkIPv4(f.Payload, super)
	case ether.TypeIPv6:
		return s.checkIPv6(f.Payload, super)
	case 0: // an 802.3 length
		return Unlimited, checkLLC(f)
	default:
		return Unlimited, Pass
	}
}

// checkLLC stops ARP and IP in headers that the other checks do not look behind and some hosts do (CVE-2021-27853,
// CVE-2021-27861). No host sends them so.
func checkLLC(f *ether.Frame) Verdict {
	switch t, _ := f.SNAP(); t {
	case ether.TypeARP, ether.TypeRARP, ether.TypeIPv4, ether.TypeIPv6, ether.TypeVLAN, ether.TypeQinQ:
		return BadHeader
	default:
		return Pass
	}
}

// checkARP stops ARP spoofing: who answers for an address must own it (conformance case I05).
func (s *Station) checkARP(f *ether.Frame) Verdict {
	arp, ok := ether.ParseARP(f.Payload)
	if !ok {
		return BadHeader
	}
	if arp.SenderMAC != s.MAC {
		return ARPSender
	}
	// A probe for an address that is not in use yet has sender 0.0.0.0 (RFC 5227 section 2.1.1).
	if (arp.SenderIP != [4]byte{} || arp.Op == ether.ARPReply) && !s.own4(arp.SenderIP) {
		return ARPSender
	}
	return checkTarget(f, &arp)
}

// checkTarget stops ARP whose target no host would name. A reply goes to the target that it names (RFC 826, "Packet
// Reception"), or to everybody, as conflict detection may want it (RFC 5227 section 2.6): switches with ARP inspection ask the
// same of replies. To another, it would be a lie that the target never sees. A group as target would be put into caches, and
// make hosts send to all what is for one; but that everybody is the target of who tells everybody of his own address, as routers and
// firewalls do when they take an address over (gratuitous ARP in the form of a reply, RFC 5227 section 3), is no more than that. RARP gives addresses away, which the controller does here: its questions harm nobody.
func checkTarget(f *ether.Frame, arp *ether.ARP) Verdict {
	switch {
	case arp.Op == ether.RARPReply, f.Type == ether.TypeRARP && arp.Op != ether.RARPRequest:
		return BadARP
	case arp.Op != ether.ARPReply:
		return Pass
	case arp.TargetMAC == ether.Broadcast && f.Dst == ether.Broadcast && arp.TargetIP == arp.SenderIP:
		return Pass
	case arp.TargetMAC.IsGroup(), !f.Dst.IsGroup() && arp.TargetMAC != f.Dst:
		return BadARP
	}
	return Pass
}

// own4 reports whether an address is the station's own.
func (s *Station) own4(a [4]byte) bool { return slices.Contains(s.v4, a) || s.free(ether.Mapped(a)) }

// own6 does the same in IPv6. No packet has an IPv4 address in IPv6's form as its source (RFC 4291 section 2.5.5.2).
func (s *Station) own6(a [16]byte) bool {
	return slices.Contains(s.v6, a) || !netip.AddrFrom16(a).Is4In6() && s.free(a)
}

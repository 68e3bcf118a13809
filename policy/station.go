package policy

import (
	"net/netip"
	"slices"

	"github.com/etherloom/etherloom/ether"
)

// Station is what one identity may use on one segment: a MAC, and the IP addresses behind it.
type Station struct {
	MAC  ether.MAC
	DHCP bool // may ask a DHCP server for an address

	v4 [][4]byte
	v6 [][16]byte
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
	return slices.Contains(s.v6, a) || slices.ContainsFunc(s.v4, func(v4 [4]byte) bool { return ether.Mapped(v4) == a })
}

// Check holds a frame against what its source may use.
func (s *Station) Check(f *ether.Frame) Verdict {
	if f.Src != s.MAC {
		return SourceMAC
	}
	switch f.Type {
	case ether.TypeARP, ether.TypeRARP:
		return s.checkARP(f)
	case ether.TypeIPv4:
		return s.checkIPv4(f.Payload)
	case ether.TypeIPv6:
		return s.checkIPv6(f.Payload)
	case 0: // an 802.3 length
		return checkLLC(f)
	default:
		return Pass
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
	if arp.SenderIP == [4]byte{} && arp.Op != ether.ARPReply || slices.Contains(s.v4, arp.SenderIP) {
		return Pass
	}
	return ARPSender
}

func (s *Station) checkIPv4(p []byte) Verdict {
	ip, ok := ether.ParseIPv4(p)
	if !ok {
		return BadHeader
	}
	if slices.Contains(s.v4, ip.Src) {
		return Pass
	}
	// A DHCP client has no address yet (RFC 2131 section 4.1).
	if s.DHCP && ip.Src == [4]byte{} && ip.Protocol == ether.ProtoUDP && !ip.Fragment {
		const client, server = 68, 67
		if src, dst, ok := ether.Ports(ip.Payload); ok && src == client && dst == server {
			return Pass
		}
	}
	return IPSource
}

func (s *Station) checkIPv6(p []byte) Verdict {
	ip, ok := ether.ParseIPv6(p)
	if !ok {
		return BadHeader
	}
	unspecified := ip.Src == [16]byte{}
	if !unspecified && !slices.Contains(s.v6, ip.Src) {
		return IPSource
	}
	upper, payload, part, ok := ip.Upper()
	switch {
	// The first fragment must show what the packet is (RFC 7112 section 5, RFC 7113 section 3), right behind its fragment
	// header: what is further back, a later fragment can overwrite at a host that takes overlaps (RFC 5722).
	case !ok && part != ether.LaterFragment, part == ether.LaterFragment && upper.IsExtension():
		return Undetermined
	case ok && upper == ether.ProtoICMPv6:
		return s.checkICMPv6(&ip, payload, part, unspecified)
	case unspecified:
		return IPSource
	}
	return Pass
}

// checkICMPv6 stops neighbour spoofing and false routers, and lets the unspecified source pass only where a host without an address
// must use it: duplicate address detection and listener reports (RFC 4862 section 5.4.2, RFC 3810 section 5.2.13).
func (s *Station) checkICMPv6(ip *ether.IPv6, p []byte, part ether.Part, unspecified bool) Verdict {
	if len(p) == 0 {
		return Undetermined // its type is in a later fragment, or nowhere
	}
	nd, is, whole := ether.ParseND(p)
	if !is {
		if unspecified && !isListenerReport(p) {
			return IPSource
		}
		return Pass
	}
	// Nobody on a segment is a router: who says so would become everybody's default, or take one flow over (RFC 6105).
	if nd.Type == ether.RouterAdvertisement || nd.Type == ether.Redirect {
		return NotRouter
	}
	// A router never forwards neighbour discovery, so its hop limit is 255 (RFC 4861 section 7.1); it is never
	// fragmented (RFC 6980 section 5).
	if !whole || ip.HopLimit != 255 || part != ether.Whole {
		return NDSender
	}
	return s.checkND(&nd, unspecified)
}

func (s *Station) checkND(nd *ether.ND, unspecified bool) Verdict {
	if !s.ownOrNone(nd.SourceMAC) {
		return NDSender
	}
	own := slices.Contains(s.v6, nd.Target)
	switch {
	case nd.Type == ether.NeighborAdvertisement:
		if unspecified || !own || !s.ownOrNone(nd.TargetMAC) {
			return NDSender
		}
	case nd.Type == ether.NeighborSolicitation && unspecified:
		// Duplicate address detection, for an address of one's own (RFC 4861 section 7.1.1).
		if !own || nd.SourceMAC != (ether.MAC{}) {
			return NDSender
		}
	case unspecified:
		return IPSource
	}
	return Pass
}

// ownOrNone reports whether a link-layer address option is absent or names the station itself.
func (s *Station) ownOrNone(mac ether.MAC) bool { return mac == ether.MAC{} || mac == s.MAC }

func isListenerReport(p []byte) bool {
	return len(p) > 0 && (p[0] == ether.MLDReport || p[0] == ether.MLDDone || p[0] == ether.MLDv2Report)
}

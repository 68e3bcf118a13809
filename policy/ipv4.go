package policy

import (
	"net/netip"

	"github.com/etherloom/etherloom/ether"
)

// checkIPv4 judges the source of a packet, and what it is. What a packet is stands in the first eight bytes behind its IP
// header, and these are in the first fragment whole, for fragments are multiples of eight bytes (RFC 791 section 3.2): a later
// one cannot change it, and is nothing without the first.
func (s *Station) checkIPv4(p []byte, super bool) (Budget, Verdict) {
	ip, ok := ether.ParseIPv4(p)
	if !ok {
		return Unlimited, BadHeader
	}
	own := s.own4(ip.Src)
	if !own && !s.asksDHCP(&ip) && !s.forwards(netip.AddrFrom4(ip.Src)) {
		return Unlimited, IPSource
	}
	if ip.Offset > 0 {
		return Unlimited, Pass
	}
	switch ip.Protocol {
	case ether.ProtoUDP:
		return s.checkUDP4(&ip, super)
	case ether.ProtoICMP:
		return Unlimited, s.checkICMP(ip.Payload, own)
	case ether.ProtoIGMP:
		return s.checkIGMP(ip.Payload, own)
	case ether.ProtoPIM:
		return Unlimited, s.checkQuerier(own)
	default:
		return Unlimited, Pass
	}
}

// asksDHCP reports whether a client that has no address yet asks for one (RFC 2131 section 4.1).
func (s *Station) asksDHCP(ip *ether.IPv4) bool {
	if !s.DHCP || ip.Src != [4]byte{} || ip.Protocol != ether.ProtoUDP || ip.Fragment {
		return false
	}
	src, dst, ok := ether.Ports(ip.Payload)
	return ok && src == ether.PortDHCPClient && dst == ether.PortDHCPServer
}

// checkICMP stops false routers: a redirect would take one destination over, and an advertisement everything (RFC 1256).
func (s *Station) checkICMP(p []byte, own bool) Verdict {
	if len(p) == 0 {
		return Undetermined
	}
	if p[0] != ether.ICMPRedirect && p[0] != ether.ICMPRouterAdvertisement {
		return Pass
	}
	if !s.Roles.Has(Router) {
		return NotRouter
	}
	if !own { // it speaks of the router itself, so it was not forwarded
		return IPSource
	}
	return Pass
}

// checkIGMP stops false queriers, who would draw every group's frames to them or end memberships (RFC 4541 section 2.1.1), and
// reports in the name of others (case I11). IGMP is never forwarded.
func (s *Station) checkIGMP(p []byte, own bool) (Budget, Verdict) {
	if len(p) == 0 {
		return Unlimited, Undetermined
	}
	switch p[0] {
	case ether.IGMPv1Report, ether.IGMPv2Report, ether.IGMPv3Report, ether.IGMPLeave:
		if !own {
			return Join, IPSource
		}
		return Join, Pass
	case ether.IGMPQuery, ether.IGMPDVMRP, ether.IGMPPIMv1, ether.IGMPRouterAdvert, ether.IGMPRouterDeparted:
		return Unlimited, s.checkQuerier(own)
	default:
		return Unlimited, Pass
	}
}

// checkQuerier judges what multicast routers send to each other and to hosts.
func (s *Station) checkQuerier(own bool) Verdict {
	if !s.Roles.Has(Querier) {
		return NotQuerier
	}
	if !own {
		return IPSource
	}
	return Pass
}

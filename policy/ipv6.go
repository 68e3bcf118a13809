package policy

import (
	"net/netip"

	"github.com/etherloom/etherloom/ether"
)

func (s *Station) checkIPv6(p []byte, super bool) (Budget, Verdict) {
	ip, ok := ether.ParseIPv6(p)
	if !ok {
		return Unlimited, BadHeader
	}
	from := origin{unspecified: ip.Src == [16]byte{}, own: s.own6(ip.Src)}
	if !from.unspecified && !from.own && !s.forwards(netip.AddrFrom16(ip.Src)) {
		return Unlimited, IPSource
	}
	upper, payload, part, ok := ip.Upper()
	switch {
	// The first fragment must show what the packet is (RFC 7112 section 5, RFC 7113 section 3), right behind its fragment
	// header: what is further back, a later fragment can overwrite at a host that takes overlaps (RFC 5722).
	case !ok && part != ether.LaterFragment, part == ether.LaterFragment && upper.IsExtension():
		return Unlimited, Undetermined
	case ok && upper == ether.ProtoICMPv6:
		return s.checkICMPv6(&ip, payload, part, from)
	case from.unspecified:
		return Unlimited, IPSource
	// A later fragment begins eight bytes behind the first at least, so it cannot change what the first has shown: ports, or the
	// type of an ICMPv6 message. It is nothing without the first, and so a neighbour discovery message in fragments never
	// arrives (RFC 6980 section 5), while a long echo does.
	case part == ether.LaterFragment:
		return Unlimited, Pass
	case upper == ether.ProtoUDP:
		return s.checkUDP6(payload, part == ether.Whole, super)
	case upper == ether.ProtoPIM:
		return Unlimited, s.checkQuerier(from.own)
	}
	return Unlimited, Pass
}

// origin says what is known of the source of an IPv6 packet. If it is neither, it lies beyond a router.
type origin struct{ unspecified, own bool }

// checkICMPv6 stops neighbour spoofing, false routers and false queriers, and lets the unspecified source pass only where a host
// without an address must use it: duplicate address detection and listener reports (RFC 4862 section 5.4.2, RFC 3810 section
// 5.2.13).
func (s *Station) checkICMPv6(ip *ether.IPv6, p []byte, part ether.Part, from origin) (Budget, Verdict) {
	if len(p) == 0 {
		return Unlimited, Undetermined // its type is in a later fragment, or nowhere
	}
	nd, is, whole := ether.ParseND(p)
	switch {
	case is:
		return resolution, s.checkDiscovery(ip, &nd, whole && part == ether.Whole, from)
	case p[0] == ether.MLDReport, p[0] == ether.MLDDone, p[0] == ether.MLDv2Report:
		// Listener discovery is never forwarded (RFC 3810 section 5).
		if !from.own && !from.unspecified {
			return Join, IPSource
		}
		return Join, Pass
	case p[0] == ether.MLDQuery, p[0] == ether.MulticastRouterAdvertisement, p[0] == ether.MulticastRouterTermination:
		return Unlimited, s.checkQuerier(from.own)
	case from.unspecified:
		return Unlimited, IPSource
	}
	return Unlimited, Pass
}

func (s *Station) checkDiscovery(ip *ether.IPv6, nd *ether.ND, whole bool, from origin) Verdict {
	routes := nd.Type == ether.RouterAdvertisement || nd.Type == ether.Redirect
	// Who says that it is a router becomes everybody's default, or takes one flow over (RFC 6105).
	if routes && !s.Roles.Has(Router) {
		return NotRouter
	}
	// A router never forwards neighbour discovery, so its hop limit is 255 (RFC 4861 section 7.1) and its source is the
	// station's own; it is never fragmented (RFC 6980 section 5).
	if !whole || ip.HopLimit != 255 {
		return NDSender
	}
	if !from.own && !from.unspecified {
		return IPSource
	}
	return s.checkND(nd, from.unspecified)
}

// checkND judges what a message says. Only an advertisement's target is the station itself: a redirect names the better way.
func (s *Station) checkND(nd *ether.ND, unspecified bool) Verdict {
	if !s.ownOrNone(nd.SourceMAC) {
		return NDSender
	}
	own := s.own6(nd.Target)
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

package policy

import "github.com/etherloom/etherloom/ether"

// checkUDP4 stops false DHCP servers, and clients in the name of others (case I08). A station that is a DHCP server may also be
// a relay agent, so nothing of what it says in DHCP is judged.
func (s *Station) checkUDP4(ip *ether.IPv4, super bool) (Budget, Verdict) {
	src, dst, ok := ether.Ports(ip.Payload)
	switch {
	case !ok:
		return Unlimited, Undetermined
	case src != ether.PortDHCPServer && dst != ether.PortDHCPServer && dst != ether.PortDHCPClient:
		return Unlimited, Pass
	case s.Roles.Has(DHCPServer):
		return Control, Pass
	// Clients take what comes to their port, from whatever port, and relay agents what comes from a server's.
	case src == ether.PortDHCPServer, dst == ether.PortDHCPClient:
		return Control, NotDHCPServer
	case ip.Fragment, super: // what it says is in another fragment, or differs from datagram to datagram
		return Control, Undetermined
	}
	return Control, s.checkRequest(ip.Payload)
}

// checkRequest judges what is sent to a DHCP server. A client that names other clients takes the pool's last address; one that
// gives back what is another's makes two hosts have one address.
func (s *Station) checkRequest(datagram []byte) Verdict {
	p, _ := ether.ParseUDP(datagram) // nothing if it is cut, and that is no message
	d, ok := ether.ParseDHCP(p)
	switch {
	case !ok:
		return Undetermined
	// A relay agent hands on what clients elsewhere say (RFC 2131 section 4.1), and a reply is a server's, to whatever port.
	case d.Op != ether.BootRequest, d.Relay != [4]byte{}:
		return NotDHCPServer
	case d.Client != s.MAC, d.ClientIP != [4]byte{} && !s.own4(d.ClientIP):
		return DHCPClient
	case d.Message == ether.DHCPRelease && !s.own4(d.ClientIP), d.Message == ether.DHCPDecline && !s.own4(d.Requested):
		return DHCPClient
	}
	return Pass
}

// checkUDP6 does for DHCPv6 what checkUDP4 does. A client is known by an opaque identifier, which can be held against nothing
// here (RFC 8415 section 11), and everybody hears it; so nobody gives leases back: they end by themselves.
func (s *Station) checkUDP6(p []byte, whole, super bool) (Budget, Verdict) {
	src, dst, ok := ether.Ports(p)
	switch {
	case !ok:
		return Unlimited, Undetermined
	case src != ether.PortDHCPv6Server && dst != ether.PortDHCPv6Server && dst != ether.PortDHCPv6Client:
		return Unlimited, Pass
	case s.Roles.Has(DHCPServer):
		return Control, Pass
	case src == ether.PortDHCPv6Server, dst == ether.PortDHCPv6Client:
		return Control, NotDHCPServer
	case !whole, super:
		return Control, Undetermined
	}
	message, _ := ether.ParseUDP(p) // nothing if it is cut
	if len(message) == 0 {
		return Control, Undetermined
	}
	switch message[0] {
	case ether.DHCPv6Advertise, ether.DHCPv6Reply, ether.DHCPv6Reconfigure, ether.DHCPv6RelayForw, ether.DHCPv6RelayRepl:
		return Control, NotDHCPServer
	case ether.DHCPv6Release, ether.DHCPv6Decline:
		return Control, DHCPClient
	default:
		return Control, Pass
	}
}

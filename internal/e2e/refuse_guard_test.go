package e2e

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What only a DHCP server, a router or a multicast querier sends, from a node that is none (cases I05, I08, I11, N05).
func TestReceiverRefusesGuards(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	r.refused(append(r.falseDHCP(), r.falseDHCPv6()...)...)
	r.refused(append(r.falseRouting(), r.falseTargets()...)...)
}

// dhcpMessage is one with a client's MAC and addresses, and options.
func dhcpMessage(op byte, client net.HardwareAddr, ciaddr, relay netip.Addr, options ...byte) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = op, 1, 6
	copy(b[12:], ciaddr.AsSlice())
	copy(b[24:], relay.AsSlice())
	copy(b[28:], client)
	return append(append(append(b, 0x63, 0x82, 0x53, 0x63), options...), 255)
}

// udpOf is UDP without a checksum.
func udpOf(from, to uint16, body []byte) []byte {
	n := 8 + len(body)
	return append([]byte{byte(from >> 8), byte(from), byte(to >> 8), byte(to), byte(n >> 8), byte(n), 0, 0}, body...)
}

func (r *refusal) falseDHCP() []*attack {
	none := netip.IPv4Unspecified()
	const moreFragments = 0x2000
	send := func(from, to uint16, fragment uint16, message []byte) []byte {
		packet := ipv4(r.m.v4.AsSlice(), []byte{255, 255, 255, 255}, unix.IPPROTO_UDP, fragment, udpOf(from, to, message))
		return append(ethernet(broadcast(), r.m.mac, unix.ETH_P_IP), packet...)
	}
	offer := dhcpMessage(2, r.v.mac, none, none, 53, 1, 2)
	ask := func(client net.HardwareAddr, ciaddr, relay netip.Addr, options ...byte) []byte {
		return send(68, 67, 0, dhcpMessage(1, client, ciaddr, relay, options...))
	}
	bobs := r.b.v4.AsSlice()
	return []*attack{
		{name: "DHCP offer", reason: "not-dhcp-server", frame: send(67, 68, 0, offer)},
		{name: "DHCP offer, VLAN 0", reason: "not-dhcp-server", frame: tagged(send(67, 68, 0, offer), 0x8100, 0)},
		{name: "DHCP offer from another port", reason: "not-dhcp-server", frame: send(5000, 68, 0, offer)},
		{name: "DHCP offer in fragments", reason: "not-dhcp-server", frame: send(67, 68, moreFragments, append(offer, filler(3, 1)...))},
		{name: "DHCP offer to a relay agent", reason: "not-dhcp-server", frame: send(5000, 67, 0, offer)},
		{name: "DHCP as a relay agent", reason: "not-dhcp-server", frame: ask(r.b.mac, none, r.m.v4, 53, 1, 1)},
		{name: "DHCP discover of bob's MAC", reason: "dhcp-client", frame: ask(r.b.mac, none, none, 53, 1, 1)},
		{name: "DHCP discover of nobody's MAC", reason: "dhcp-client", frame: ask(net.HardwareAddr{2, 9, 9, 9, 9, 9}, none, none, 53, 1, 1)},
		{name: "DHCP release of bob's address", reason: "dhcp-client", frame: ask(r.m.mac, r.b.v4, none, 53, 1, 7)},
		{name: "DHCP decline of bob's address", reason: "dhcp-client", frame: ask(r.m.mac, none, none, append([]byte{53, 1, 4, 50, 4}, bobs...)...)},
		{name: "DHCP with two kinds", reason: "undetermined", frame: ask(r.m.mac, none, none, 53, 1, 1, 53, 1, 7)},
		{name: "DHCP with options elsewhere", reason: "undetermined", frame: ask(r.m.mac, none, none, 52, 1, 3)},
	}
}

func (r *refusal) falseDHCPv6() []*attack {
	message := func(from, to uint16, kind byte) []byte {
		d := udpOf(from, to, []byte{kind, 0, 0, 1})
		return append(r.to(unix.ETH_P_IPV6), ipv6(r.m.own.AsSlice(), r.v.own.AsSlice(), unix.IPPROTO_UDP, d)...)
	}
	fragmented := append(r.to(unix.ETH_P_IPV6), ipv6(r.m.own.AsSlice(), r.v.own.AsSlice(), unix.IPPROTO_FRAGMENT,
		[]byte{unix.IPPROTO_UDP, 0, 0, 1, 0, 0, 0, 9}, udpOf(547, 546, filler(16, 1)))...)
	return []*attack{
		{name: "DHCPv6 advertise", reason: "not-dhcp-server", frame: message(547, 546, 2)},
		{name: "DHCPv6 reply from another port", reason: "not-dhcp-server", frame: message(5000, 546, 7)},
		{name: "DHCPv6 reconfigure", reason: "not-dhcp-server", frame: message(547, 546, 10)},
		{name: "DHCPv6 advertise in fragments", reason: "not-dhcp-server", frame: fragmented},
		{name: "DHCPv6 reply to a relay agent", reason: "not-dhcp-server", frame: message(547, 547, 13)},
		{name: "DHCPv6 release", reason: "dhcp-client", frame: message(546, 547, 8)},
	}
}

func (r *refusal) falseRouting() []*attack {
	const igmp, pim = 2, 103
	group := netip.MustParseAddr("224.0.0.1").AsSlice()
	send := func(src netip.Addr, protocol byte, message ...byte) []byte {
		return append(ethernet(net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, r.m.mac, unix.ETH_P_IP), ipv4(src.AsSlice(), group, protocol, 0, message)...)
	}
	redirect := append(append([]byte{5, 1, 0, 0}, r.m.v4.AsSlice()...), ipv4(r.v.v4.AsSlice(), r.b.v4.AsSlice(), 17, 0, udp(1, 2))...)
	alert := []byte{58, 0, 5, 2, 0, 0, 1, 0}
	query := append([]byte{130, 0, 0, 0, 0x27, 0x10, 0, 0}, make([]byte, 16)...)
	pim6 := append(r.to(unix.ETH_P_IPV6), ipv6(r.m.own.AsSlice(), r.v.own.AsSlice(), pim, []byte{0x20, 0, 0, 0})...)
	return []*attack{
		{name: "ICMP redirect of bob", reason: "not-router", frame: append(r.to(unix.ETH_P_IP), ipv4(r.m.v4.AsSlice(), r.v.v4.AsSlice(), 1, 0, redirect)...)},
		{name: "ICMP redirect as bob", reason: "ip-source", frame: append(r.to(unix.ETH_P_IP), ipv4(r.b.v4.AsSlice(), r.v.v4.AsSlice(), 1, 0, redirect)...)},
		{name: "ICMP redirect in fragments", reason: "not-router", frame: append(r.to(unix.ETH_P_IP), ipv4(r.m.v4.AsSlice(), r.v.v4.AsSlice(), 1, 0x2000, redirect[:24])...)},
		{name: "ICMP router advertisement", reason: "not-router", frame: send(r.m.v4, 1, append([]byte{9, 0, 0, 0, 1, 2, 7, 8}, r.m.v4.AsSlice()...)...)},
		{name: "IGMP query", reason: "not-querier", frame: send(r.m.v4, igmp, 0x11, 100, 0xee, 0x9b, 0, 0, 0, 0)},
		{name: "IGMP query as bob", reason: "ip-source", frame: send(r.b.v4, igmp, 0x11, 100, 0xee, 0x9b, 0, 0, 0, 0)},
		{name: "DVMRP probe", reason: "not-querier", frame: send(r.m.v4, igmp, 0x13, 1, 0, 0, 0, 0, 0, 0)},
		{name: "IGMP leave as bob", reason: "ip-source", frame: send(r.b.v4, igmp, 0x17, 0, 0, 0, 239, 1, 2, 3)},
		{name: "PIM hello", reason: "not-querier", frame: send(r.m.v4, pim, 0x20, 0, 0, 0)},
		{name: "PIM hello over IPv6", reason: "not-querier", frame: pim6},
		{name: "MLD query", reason: "not-querier", frame: r.icmp(r.m.own, 1, 0, alert, query)},
		{name: "MLD query without router alert", reason: "not-querier", frame: r.icmp(r.m.own, 1, 58, query)},
		{name: "MLD query of nobody", reason: "not-querier", frame: r.icmp(netip.IPv6Unspecified(), 1, 0, alert, query)},
		{name: "MLD done as bob", reason: "ip-source", frame: r.icmp(r.b.own, 1, 0, alert, append([]byte{132, 0}, make([]byte, 22)...))},
	}
}

// falseTargets are ARP replies from mallory's own address to others than they name.
func (r *refusal) falseTargets() []*attack {
	arp := func(dst net.HardwareAddr, op byte, target net.HardwareAddr) []byte {
		body := bytes.Join([][]byte{{0, 1, 8, 0, 6, 4, 0, op}, r.m.mac, r.m.v4.AsSlice(), target, r.v.v4.AsSlice()}, nil)
		return append(ethernet(dst, r.m.mac, unix.ETH_P_ARP), body...)
	}
	return []*attack{
		{name: "ARP reply to another than it names", reason: "bad-arp", frame: arp(r.v.mac, 2, r.b.mac)},
		{name: "ARP reply that names everybody", reason: "bad-arp", frame: arp(broadcast(), 2, broadcast())},
		{name: "ARP reply that names a group", reason: "bad-arp", frame: arp(r.v.mac, 2, net.HardwareAddr{1, 0, 0x5e, 0, 0, 1})},
		{name: "RARP reply", reason: "bad-arp", frame: arp(r.v.mac, 4, r.v.mac)},
	}
}

package e2e

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What lies about IPv6: the source, the neighbour, the router, and what the packet is.
func TestReceiverRefusesIPv6(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	r.refused(append(r.falseIPv6(), r.falseNeighbours()...)...)
	r.refused(append(r.falseRouters(), r.hidden()...)...)
}

// ICMPv6 types (RFC 4861 section 4).
const (
	routerSolicit, routerAdvertise, neighbourSolicit, neighbourAdvertise, redirect = 133, 134, 135, 136, 137
)

// icmp is a frame from mallory to victim whose headers behind the IPv6 header, if any, are parts; next names the first.
func (r *refusal) icmp(src netip.Addr, hop, next byte, parts ...[]byte) []byte {
	packet := ipv6(src.AsSlice(), net.IP(r.v.own.AsSlice()), next, parts...)
	packet[7] = hop
	checksumICMP(packet)
	return append(r.to(unix.ETH_P_IPV6), packet...)
}

// checksumICMP completes a packet whose ICMPv6 message follows its fixed header (RFC 8200 section 8.1). Others are refused by
// hosts for their checksums, which is nothing that a switch may count on.
func checksumICMP(packet []byte) {
	if packet[6] != unix.IPPROTO_ICMPV6 || len(packet) < 44 {
		return
	}
	sum, body := uint32(len(packet)-40)+unix.IPPROTO_ICMPV6, append(bytes.Clone(packet[8:]), 0)
	for i := 0; i+1 < len(body); i += 2 {
		sum += uint32(body[i])<<8 | uint32(body[i+1])
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	packet[42], packet[43] = byte(^sum>>8), byte(^sum)
}

// neighbour is a solicitation or advertisement with options, each a kind and a MAC.
func neighbour(typ, flags byte, target netip.Addr, options ...[]byte) []byte {
	b := append([]byte{typ, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	return append(b, bytes.Join(options, nil)...)
}

func option(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

func (r *refusal) falseIPv6() []*attack {
	data := udp(5000, 5001)
	from := func(src netip.Addr) []byte {
		return append(r.to(unix.ETH_P_IPV6), ipv6(src.AsSlice(), r.v.v6.AsSlice(), unix.IPPROTO_UDP, data)...)
	}
	report := append([]byte{143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0}, netip.MustParseAddr("ff02::fb").AsSlice()...)
	return []*attack{
		{name: "IPv6 of bob", reason: "ip-source", frame: from(r.b.v6)},
		{name: "IPv6 of bob, VLAN 0", reason: "ip-source", frame: tagged(from(r.b.v6), 0x8100, 0)},
		{name: "IPv6 of bob, link-local", reason: "ip-source", frame: from(r.b.own)},
		{name: "IPv6 of nobody", reason: "ip-source", frame: from(netip.MustParseAddr("2001:db8::77"))},
		{name: "IPv6 of nobody, UDP from ::", reason: "ip-source", frame: from(netip.IPv6Unspecified())},
		{name: "IPv6 of the loopback", reason: "ip-source", frame: from(netip.IPv6Loopback())},
		{name: "IPv6 of bob, listener report", reason: "ip-source", frame: r.icmp(r.b.own, 1, unix.IPPROTO_ICMPV6, report)},
		{name: "IPv6 of bob, behind LLC and SNAP", reason: "bad-header", frame: snap(from(r.b.v6))},
	}
}

func (r *refusal) falseNeighbours() []*attack {
	const override, solicited, source, target = 0x20, 0x40, 1, 2
	none := netip.IPv6Unspecified()
	mine, bobs := option(target, r.m.mac), option(target, r.b.mac)
	advertise := func(of netip.Addr, flags byte, options ...[]byte) []byte {
		return r.icmp(r.m.own, 255, unix.IPPROTO_ICMPV6, neighbour(neighbourAdvertise, flags, of, options...))
	}
	solicit := func(src, of netip.Addr, options ...[]byte) []byte {
		return r.icmp(src, 255, unix.IPPROTO_ICMPV6, neighbour(neighbourSolicit, 0, of, options...))
	}
	return []*attack{
		{name: "advertisement of bob, override", reason: "nd-sender", frame: advertise(r.b.v6, override, mine)},
		{name: "advertisement of bob, no override", reason: "nd-sender", frame: advertise(r.b.v6, 0, mine)},
		{name: "advertisement of bob, as an answer", reason: "nd-sender", frame: advertise(r.b.v6, override|solicited, mine)},
		{name: "advertisement of bob, no option", reason: "nd-sender", frame: advertise(r.b.v6, override)},
		{name: "advertisement of bob's link-local", reason: "nd-sender", frame: advertise(r.b.own, override, mine)},
		{name: "advertisement of victim", reason: "nd-sender", frame: advertise(r.v.v6, override, mine)},
		{name: "advertisement with bob's MAC", reason: "nd-sender", frame: advertise(r.m.v6, override, bobs)},
		{name: "advertisement with two MACs", reason: "nd-sender", frame: advertise(r.m.v6, override, bobs, mine)},
		{name: "advertisement, option of length 0", reason: "nd-sender", frame: advertise(r.m.v6, override, []byte{2, 0, 0, 0, 0, 0, 0, 0})},
		{name: "advertisement, VLAN 0", reason: "nd-sender", frame: tagged(advertise(r.b.v6, override, mine), 0x8100, 0)},
		{
			name: "advertisement, hop limit 254", reason: "nd-sender",
			frame: r.icmp(r.m.own, 254, unix.IPPROTO_ICMPV6, neighbour(neighbourAdvertise, override, r.m.v6, mine)),
		},
		{
			name: "advertisement from bob", reason: "ip-source",
			frame: r.icmp(r.b.own, 255, unix.IPPROTO_ICMPV6, neighbour(neighbourAdvertise, override, r.b.v6, mine)),
		},
		{name: "solicitation with bob's MAC", reason: "nd-sender", frame: solicit(r.m.own, r.v.v6, option(source, r.b.mac))},
		{name: "solicitation from bob", reason: "ip-source", frame: solicit(r.b.v6, r.v.v6, option(source, r.m.mac))},
		{name: "detection of bob's address", reason: "nd-sender", frame: solicit(none, r.b.v6)},
		{name: "detection with a MAC", reason: "nd-sender", frame: solicit(none, r.m.v6, option(source, r.m.mac))},
	}
}

func (r *refusal) falseRouters() []*attack {
	const hopByHop, icmpv6, fragment, options = 0, 58, 44, 60
	advertisement := append([]byte{routerAdvertise, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, option(1, r.m.mac)...)
	redirected := append(neighbour(redirect, 0, r.m.own), r.b.v6.AsSlice()...)
	padding := []byte{icmpv6, 0, 1, 4, 0, 0, 0, 0}
	atomic := []byte{icmpv6, 0, 0, 0, 0, 0, 0, 9}
	return []*attack{
		{name: "router advertisement", reason: "not-router", frame: r.icmp(r.m.own, 255, icmpv6, advertisement)},
		{name: "router advertisement, VLAN 0", reason: "not-router", frame: tagged(r.icmp(r.m.own, 255, icmpv6, advertisement), 0x8100, 0)},
		{name: "router advertisement, hop by hop", reason: "not-router", frame: r.icmp(r.m.own, 255, hopByHop, padding, advertisement)},
		{name: "router advertisement, options", reason: "not-router", frame: r.icmp(r.m.own, 255, options, padding, advertisement)},
		{name: "router advertisement, one fragment", reason: "not-router", frame: r.icmp(r.m.own, 255, fragment, atomic, advertisement)},
		{
			name: "router advertisement, first fragment", reason: "not-router",
			frame: r.icmp(r.m.own, 255, fragment, []byte{icmpv6, 0, 0, 1, 0, 0, 0, 9}, advertisement),
		},
		{name: "router advertisement of bob", reason: "ip-source", frame: r.icmp(r.b.own, 255, icmpv6, advertisement)},
		{name: "redirect", reason: "not-router", frame: r.icmp(r.m.own, 255, icmpv6, redirected)},
		{
			name: "router solicitation with bob's MAC", reason: "nd-sender",
			frame: r.icmp(r.m.own, 255, icmpv6, []byte{routerSolicit, 0, 0, 0, 0, 0, 0, 0}, option(1, r.b.mac)),
		},
	}
}

// hidden are packets that do not show what they are.
func (r *refusal) hidden() []*attack {
	const hopByHop, icmpv6, fragment, options = 0, 58, 44, 60
	lie := neighbour(neighbourAdvertise, 0x20, r.b.v6, option(2, r.m.mac))
	pad := func(next byte) []byte { return []byte{next, 0, 1, 4, 0, 0, 0, 0} }
	chain := func(n int) []byte { return append(bytes.Repeat(pad(options), n-1), pad(icmpv6)...) }
	first, later := []byte{options, 0, 0, 1, 0, 0, 0, 9}, []byte{options, 0, 0, 8, 0, 0, 0, 9}
	cut := []byte{icmpv6, 9, 1, 4, 0, 0, 0, 0}
	return []*attack{
		{name: "advertisement of bob behind options", reason: "nd-sender", frame: r.icmp(r.m.own, 255, options, pad(icmpv6), lie)},
		{name: "advertisement of bob behind 7 headers", reason: "nd-sender", frame: r.icmp(r.m.own, 255, options, chain(7), lie)},
		{name: "chain of 9 headers", reason: "undetermined", frame: r.icmp(r.m.own, 255, options, chain(9), lie)},
		{name: "chain of 130 headers", reason: "undetermined", frame: r.icmp(r.m.own, 255, options, chain(130), lie)},
		{name: "chain that is cut", reason: "undetermined", frame: r.icmp(r.m.own, 255, options, cut)},
		{name: "chain that is cut at once", reason: "undetermined", frame: r.icmp(r.m.own, 255, hopByHop, []byte{icmpv6, 0, 1, 4})},
		{name: "hop by hop without a header", reason: "undetermined", frame: r.icmp(r.m.own, 255, hopByHop)},
		{name: "ICMPv6 without a message", reason: "undetermined", frame: r.icmp(r.m.own, 255, icmpv6)},
		{name: "first fragment, chain goes on", reason: "undetermined", frame: r.icmp(r.m.own, 255, fragment, first, cut)},
		{name: "first fragment, chain alone", reason: "undetermined", frame: r.icmp(r.m.own, 255, fragment, first, pad(icmpv6))},
		{name: "later fragment of options", reason: "undetermined", frame: r.icmp(r.m.own, 255, fragment, later, lie)},
		{
			name: "fragment header that is cut", reason: "undetermined",
			frame: r.icmp(r.m.own, 255, fragment, []byte{icmpv6, 0, 0, 1}),
		},
		{
			name: "advertisement of bob, one fragment", reason: "nd-sender",
			frame: r.icmp(r.m.own, 255, fragment, []byte{icmpv6, 0, 0, 0, 0, 0, 0, 9}, lie),
		},
		{
			name: "advertisement of bob, fragment in fragment", reason: "undetermined",
			frame: r.icmp(r.m.own, 255, fragment, []byte{fragment, 0, 0, 0, 0, 0, 0, 8}, []byte{icmpv6, 0, 0, 1, 0, 0, 0, 9}, lie),
		},
	}
}

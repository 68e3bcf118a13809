package policy

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// ip4 is a packet with a header's options, and a payload of any protocol.
func ip4(t *testing.T, src netip.Addr, protocol layers.IPProtocol, options []byte, payload ...byte) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: protocol, SrcIP: src.AsSlice(), DstIP: net.IP{224, 0, 0, 1}}
	for len(options) > 0 {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: options[0], OptionLength: 4, OptionData: options[2:4]})
		options = options[4:]
	}
	return build(t, own, layers.EthernetTypeIPv4, ip, gopacket.Payload(payload))
}

// What only routers and queriers say passes with the role alone, from the station itself.
func TestRoles(t *testing.T) {
	const icmp, igmp, pim = layers.IPProtocol(1), layers.IPProtocol(2), layers.IPProtocol(103)
	alert := []byte{0x94, 4, 0, 0} // RFC 2113
	hbh := []byte{58, 0, 5, 2, 0, 0, 1, 0}
	ra := append([]byte{134}, make([]byte, 15)...)
	redirect := append(nd(137, otherV6, 0, own), make([]byte, 16)...)
	with := func(b []byte, kind byte, mac ether.MAC) []byte {
		return append(append(b[:len(b):len(b)], kind, 1), mac[:]...)
	}
	fragmented := ip4(t, ownV4, icmp, nil, 5, 0, 0, 0, 0, 0, 0, 0)
	fragmented[14+6] = 0x20
	later := ip4(t, ownV4, icmp, nil, 5, 0, 0, 0, 0, 0, 0, 0)
	later[14+7] = 1
	for _, c := range []struct {
		name     string
		in       []byte
		without  Verdict
		role     Roles
		with     Verdict
		classify Budget // of what passes; checked with the role
	}{
		{"echo", ip4(t, ownV4, icmp, nil, 8, 0), Pass, 0, Pass, Broadcasts},
		{"ICMP without a type", ip4(t, ownV4, icmp, nil), Undetermined, Router, Undetermined, 0},
		{"ICMP redirect", ip4(t, ownV4, icmp, nil, 5, 1), NotRouter, Router, Pass, Broadcasts},
		{"ICMP redirect behind IP options", ip4(t, ownV4, icmp, alert, 5, 1), NotRouter, Router, Pass, Broadcasts},
		{"ICMP redirect, first fragment", fragmented, NotRouter, Router, Pass, Broadcasts},
		{"later fragment", later, Pass, 0, Pass, Broadcasts},
		{"ICMP router advertisement", ip4(t, ownV4, icmp, nil, 9, 0), NotRouter, Router, Pass, Broadcasts},
		{"ICMP router solicitation", ip4(t, ownV4, icmp, nil, 10, 0), Pass, 0, Pass, Broadcasts},

		{"router advertisement", v6(t, own.LinkLocal(), v6opts{}, ra), NotRouter, Router, Pass, Control},
		{"router advertisement with its MAC", v6(t, own.LinkLocal(), v6opts{}, with(ra, 1, own)), NotRouter, Router, Pass, Control},
		{"router advertisement with another's MAC", v6(t, own.LinkLocal(), v6opts{}, with(ra, 1, other)), NotRouter, Router, NDSender, 0},
		{"router advertisement, hop limit 254", v6(t, own.LinkLocal(), v6opts{hop: 254}, ra), NotRouter, Router, NDSender, 0},
		{"router advertisement, fragmented", v6(t, own.LinkLocal(), v6opts{next: 44, ext: []byte{58, 0, 0, 1, 0, 0, 0, 9}}, ra), NotRouter, Router, NDSender, 0},
		{"router advertisement of nobody", v6(t, noV6, v6opts{}, ra), NotRouter, Router, IPSource, 0},
		{"router advertisement of another", v6(t, otherV6, v6opts{}, ra), IPSource, Router, IPSource, 0},
		{"redirect", v6(t, own.LinkLocal(), v6opts{}, redirect), NotRouter, Router, Pass, Control},
		{"redirect to another's MAC", v6(t, own.LinkLocal(), v6opts{}, with(redirect, 2, other)), NotRouter, Router, Pass, Control},
		{"solicitation of a router", v6(t, own.LinkLocal(), v6opts{}, nd(135, otherV6, 1, other)), NDSender, Router, NDSender, 0},

		{"IGMP without a type", ip4(t, ownV4, igmp, alert), Undetermined, Querier, Undetermined, 0},
		{"IGMP query", ip4(t, ownV4, igmp, alert, 0x11, 0), NotQuerier, Querier, Pass, Broadcasts},
		{"IGMP query without router alert", ip4(t, ownV4, igmp, nil, 0x11, 0), NotQuerier, Querier, Pass, Broadcasts},
		{"IGMP query of another (I11)", ip4(t, otherV4, igmp, alert, 0x11, 0), IPSource, Querier, IPSource, 0},
		{"DVMRP", ip4(t, ownV4, igmp, nil, 0x13, 1), NotQuerier, Querier, Pass, Broadcasts},
		{"PIM version 1", ip4(t, ownV4, igmp, nil, 0x14, 0), NotQuerier, Querier, Pass, Broadcasts},
		{"multicast router advertisement", ip4(t, ownV4, igmp, nil, 0x30, 20), NotQuerier, Querier, Pass, Broadcasts},
		{"multicast router termination", ip4(t, ownV4, igmp, nil, 0x32, 0), NotQuerier, Querier, Pass, Broadcasts},
		{"multicast router solicitation", ip4(t, ownV4, igmp, nil, 0x31, 0), Pass, 0, Pass, Broadcasts},
		{"IGMPv1 report", ip4(t, ownV4, igmp, nil, 0x12, 0), Pass, 0, Pass, Join},
		{"IGMPv2 report", ip4(t, ownV4, igmp, alert, 0x16, 0), Pass, 0, Pass, Join},
		{"IGMPv3 report", ip4(t, ownV4, igmp, alert, 0x22, 0), Pass, 0, Pass, Join},
		{"IGMP leave", ip4(t, ownV4, igmp, alert, 0x17, 0), Pass, 0, Pass, Join},
		{"IGMP report of another (I11)", ip4(t, otherV4, igmp, alert, 0x22, 0), IPSource, Querier, IPSource, 0},
		{"PIM", ip4(t, ownV4, pim, nil, 0x20, 0), NotQuerier, Querier, Pass, Broadcasts},
		{"PIM over IPv6", v6(t, own.LinkLocal(), v6opts{next: 103}, []byte{0x20, 0}), NotQuerier, Querier, Pass, Broadcasts},

		{"MLD query", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{130, 0}), NotQuerier, Querier, Pass, Broadcasts},
		{"MLD query of nobody (N05)", v6(t, noV6, v6opts{ext: hbh}, []byte{130, 0}), NotQuerier, Querier, IPSource, 0},
		{"IPv6 multicast router advertisement", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{151, 0}), NotQuerier, Querier, Pass, Broadcasts},
		{"IPv6 multicast router termination", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{153, 0}), NotQuerier, Querier, Pass, Broadcasts},
		{"MLDv1 report", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{131, 0}), Pass, 0, Pass, Join},
		{"MLD done", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{132, 0}), Pass, 0, Pass, Join},
		{"MLDv2 report", v6(t, own.LinkLocal(), v6opts{ext: hbh}, []byte{143, 0}), Pass, 0, Pass, Join},
		{"MLDv2 report of nobody (N07)", v6(t, noV6, v6opts{ext: hbh}, []byte{143, 0}), Pass, 0, Pass, Join},
		{"MLDv2 report of another (I11)", v6(t, otherV6, v6opts{ext: hbh}, []byte{143, 0}), IPSource, Querier, IPSource, 0},
	} {
		if _, got := as(t, 0, false, c.in); got != c.without {
			t.Errorf("%s: %q, want %q", c.name, got, c.without)
		}
		budget, got := as(t, c.role, false, c.in)
		if got != c.with || got == Pass && budget != c.classify {
			t.Errorf("%s, with the role: budget %d, %q, want %d, %q", c.name, budget, got, c.classify, c.with)
		}
		if c.role == 0 || c.with != Pass {
			continue
		}
		if _, got := as(t, (DHCPServer|Router|Querier)&^c.role, false, c.in); got != c.without {
			t.Errorf("%s, with other roles: %q, want %q", c.name, got, c.without)
		}
	}
}

// A router forwards from what lies beyond it: not from what is at home on the segment, not from its neighbours' addresses, and
// not what no router forwards. What speaks of the router itself comes from its own address.
func TestRoute(t *testing.T) {
	far4, far6 := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:7::7")
	neighbour := netip.MustParseAddr("203.0.113.9") // a static address outside the prefix
	home := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	from4 := func(a string) []byte { return ip4(t, netip.MustParseAddr(a), 253, nil, 1, 2, 3, 4) }
	from6 := func(a string) []byte { return v6(t, netip.MustParseAddr(a), v6opts{next: 59}, nil) }
	ra := append([]byte{134}, make([]byte, 15)...)
	dhcp := bootp(t, far4, 67, 68, message{op: 2, client: other, kind: 5})
	for _, c := range []struct {
		name string
		in   []byte
		want Verdict
	}{
		{"IPv4 from beyond", from4("198.51.100.7"), Pass},
		{"IPv4 from beyond, private", from4("10.1.2.3"), Pass},
		{"IPv6 from beyond", from6("2001:db8:7::7"), Pass},
		{"own", from4("192.0.2.1"), Pass},
		{"IPv4 at home", from4("192.0.2.99"), IPSource},
		{"IPv6 at home", from6("2001:db8::99"), IPSource},
		{"a neighbour's", from4("203.0.113.9"), IPSource},
		{"IPv4 of nobody", from4("0.0.0.0"), IPSource},
		{"IPv4 of this network", from4("0.0.0.7"), IPSource},
		{"IPv4 loopback", from4("127.0.0.1"), IPSource},
		{"IPv4 link-local", from4("169.254.1.1"), IPSource},
		{"IPv4 group", from4("224.0.0.1"), IPSource},
		{"IPv4 reserved", from4("240.0.0.1"), IPSource},
		{"IPv4 of everybody", from4("255.255.255.255"), IPSource},
		{"IPv6 link-local", from6("fe80::1"), IPSource},
		{"IPv6 loopback", from6("::1"), IPSource},
		{"IPv6 group", from6("ff02::1"), IPSource},
		{"IPv6 of nobody", from6("::"), IPSource},
		{"IPv4 in IPv6", from6("::ffff:198.51.100.7"), IPSource},
		{"ARP from beyond", arp(t, 1, own, far4), ARPSender},
		{"ICMP redirect from beyond", ip4(t, far4, 1, nil, 5, 1), IPSource},
		{"ICMP error from beyond", ip4(t, far4, 1, nil, 3, 1), Pass},
		{"ICMPv6 error from beyond", v6(t, far6, v6opts{}, []byte{1, 0, 0, 0}), Pass},
		{"router advertisement from beyond", v6(t, far6, v6opts{}, ra), IPSource},
		{"neighbour solicitation from beyond", v6(t, far6, v6opts{}, nd(135, otherV6, 1, own)), IPSource},
		{"IGMP report from beyond (I11)", ip4(t, far4, 2, nil, 0x22, 0), IPSource},
		{"IGMP query from beyond", ip4(t, far4, 2, nil, 0x11, 0), IPSource},
		{"MLD report from beyond (I11)", v6(t, far6, v6opts{}, []byte{143, 0}), IPSource},
		{"PIM from beyond", v6(t, far6, v6opts{next: 103}, []byte{0x20, 0}), IPSource},
		{"DHCP answer from beyond", dhcp, NotDHCPServer},
	} {
		f, _ := ether.Parse(c.in)
		s := NewStation(own, []netip.Addr{ownV4, ownV6, own.LinkLocal()}, false)
		s.Roles = Router | Querier
		s.Route(home, []netip.Addr{neighbour})
		if _, got := s.Check(&f, false); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if s.Roles = Querier; c.want == Pass && c.name != "own" {
			if _, got := s.Check(&f, false); got != IPSource {
				t.Errorf("%s, of no router: %q", c.name, got)
			}
		}
		if s.Roles, s.beyond = Router, nil; c.want == Pass && c.name != "own" {
			if _, got := s.Check(&f, false); got != IPSource {
				t.Errorf("%s, of a router that knows nothing of the segment: %q", c.name, got)
			}
		}
	}
}

func TestRoleNamed(t *testing.T) {
	all := RoleNamed("dhcp-server") | RoleNamed("router") | RoleNamed("querier")
	if all != DHCPServer|Router|Querier || RoleNamed("oracle") != 0 || Roles(0).Has(Router) || !all.Has(Router|Querier) || Router.Has(Router|Querier) {
		t.Errorf("roles are %b", all)
	}
}

// What a frame counts as, that is neither of a protocol of its own nor to one station.
func TestClass(t *testing.T) {
	to := func(dst ether.MAC, in []byte) []byte {
		copy(in, dst[:])
		return in
	}
	stranger := build(t, own, 0x88b5, gopacket.Payload("x"))
	for _, c := range []struct {
		name string
		in   []byte
		want Budget
	}{
		{"broadcast", to(ether.Broadcast, stranger), Broadcasts},
		{"multicast", to(ether.MAC{1, 0, 0x5e, 1, 2, 3}, udp4(t, ownV4, 1, 2, 0)), Multicasts},
		{"to one", to(other, udp4(t, ownV4, 1, 2, 0)), Unlimited},
		{"ARP to many", arpTo(t, ether.Broadcast, 1, ether.MAC{}), Control},
		{"ARP reply to many", arpTo(t, ether.Broadcast, 2, other), Control},
		{"ARP to one", arpTo(t, other, 1, ether.MAC{}), Unlimited},
		{"ARP reply to one", arpTo(t, other, 2, other), Unlimited},
		{"neighbour discovery to many", to(ether.MAC{0x33, 0x33, 0xff, 0, 0, 2}, v6(t, ownV6, v6opts{}, nd(135, otherV6, 1, own))), Control},
		{"neighbour discovery to one", to(other, v6(t, ownV6, v6opts{}, nd(136, ownV6, 2, own))), Unlimited},
		{"DHCP to one", to(other, bootp(t, ownV4, 68, 67, message{op: 1, client: own, kind: 3})), Control},
		{"join to one", to(other, ip4(t, ownV4, 2, nil, 0x22, 0)), Join},
	} {
		if got, v := as(t, 0, false, c.in); got != c.want || v != Pass {
			t.Errorf("%s: budget %d, %q, want %d", c.name, got, v, c.want)
		}
	}
}

package vswitch

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// v4Packet is a packet of node 1 over UDP or IGMP.
func v4Packet(t *testing.T, dst ether.MAC, src, to netip.Addr, body ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: to.AsSlice()}
	if udp, ok := body[0].(*layers.UDP); ok {
		_ = udp.SetNetworkLayerForChecksum(ip)
	} else {
		ip.Protocol = layers.IPProtocolIGMP
	}
	return serialize(t, append([]gopacket.SerializableLayer{ethernet(dst, layers.EthernetTypeIPv4), ip}, body...)...)
}

func udp(src, dst layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: src, DstPort: dst} }

// v6UDP is a datagram of node 1.
func v6UDP(t *testing.T, dst ether.MAC, to netip.Addr, port layers.UDPPort) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolUDP, SrcIP: macOf(1).LinkLocal().AsSlice(), DstIP: to.AsSlice()}
	u := udp(port, port)
	_ = u.SetNetworkLayerForChecksum(ip)
	return serialize(t, ethernet(dst, layers.EthernetTypeIPv6), ip, u, gopacket.Payload("query"))
}

// What hosts say to everybody around, and those who look for others, is heard by nobody to whom or from whom there are only grants
// to nodes; not even if these allow everything that is addressed to the other end.
func TestDark(t *testing.T) {
	addr := netip.MustParseAddr
	echo6 := &layers.ICMPv6Echo{Identifier: 1}
	noise := map[string][]byte{
		"mDNS":            v4Packet(t, ether.MAC{1, 0, 0x5e, 0, 0, 0xfb}, v4(1), addr("224.0.0.251"), udp(5353, 5353), gopacket.Payload("query")),
		"mDNS, IPv6":      v6UDP(t, ether.MAC{0x33, 0x33, 0, 0, 0, 0xfb}, addr("ff02::fb"), 5353),
		"LLMNR":           v4Packet(t, ether.MAC{1, 0, 0x5e, 0, 0, 0xfc}, v4(1), addr("224.0.0.252"), udp(40000, 5355), gopacket.Payload("query")),
		"LLMNR, IPv6":     v6UDP(t, ether.MAC{0x33, 0x33, 0, 1, 0, 3}, addr("ff02::1:3"), 5355),
		"SSDP":            v4Packet(t, ether.MAC{1, 0, 0x5e, 0x7f, 0xff, 0xfa}, v4(1), addr("239.255.255.250"), udp(40000, 1900), gopacket.Payload("M-SEARCH")),
		"NetBIOS":         v4Packet(t, ether.Broadcast, v4(1), addr("192.0.2.255"), udp(137, 137), gopacket.Payload("query")),
		"limited":         v4Packet(t, ether.Broadcast, v4(1), addr("255.255.255.255"), udp(40000, 8080), gopacket.Payload("hello")),
		"DHCP discover":   v4Packet(t, ether.Broadcast, netip.IPv4Unspecified(), addr("255.255.255.255"), udp(68, 67), gopacket.Payload("discover")),
		"IGMP report":     v4Packet(t, ether.MAC{1, 0, 0x5e, 0, 0, 22}, v4(1), addr("224.0.0.22"), gopacket.Payload("\x22\x00\xde\xf7\x00\x00\x00\x00")),
		"MLD report":      v6Packet(t, ether.MAC{0x33, 0x33, 5: 22}, macOf(1).LinkLocal(), addr("ff02::16"), 143, gopacket.Payload(make([]byte, 4))),
		"MLD query":       v6Packet(t, ether.MAC{0x33, 0x33, 5: 1}, macOf(1).LinkLocal(), addr("ff02::1"), 130, gopacket.Payload(make([]byte, 20))),
		"echo to all":     v6Packet(t, ether.MAC{0x33, 0x33, 5: 1}, macOf(1).LinkLocal(), addr("ff02::1"), 128, echo6),
		"router wanted":   v6Packet(t, ether.MAC{0x33, 0x33, 5: 2}, macOf(1).LinkLocal(), addr("ff02::2"), 133, gopacket.Payload(make([]byte, 4))),
		"ARP":             arp(t, ether.Broadcast, 1, v4(1), v4(99)),
		"ND":              solicit(t, v6(1), v6(99), ether.MAC{}),
		"LLDP-like":       data(ether.MAC{1, 0x80, 0xc2, 0, 0, 0x30}, macOf(1), experimental, ""),
		"unknown unicast": v4Packet(t, macOf(9), v4(1), v4(9), udp(40000, 8080), gopacket.Payload("hello")),
		"unknown unicast, with a reached address":    v4Packet(t, macOf(9), v4(1), v4(2), udp(40000, 8080), gopacket.Payload("hello")),
		"unknown unicast, with a reached link-local": v6Packet(t, macOf(9), macOf(1).LinkLocal(), macOf(2).LinkLocal(), 128, echo6),
		"a station without a grant":                  v6Packet(t, macOf(4), v6(1), v6(4), 128, echo6),
		"one who may begin, but not be begun with":   v6Packet(t, macOf(3), v6(1), v6(3), 128, echo6),
		"one who is reached, by another port":        v4Packet(t, macOf(2), v4(1), v4(2), udp(40000, 53), gopacket.Payload("hello")),
		"one who is reached, for somebody behind it": v6Packet(t, macOf(2), v6(1), v6(99), 128, echo6),
	}
	r := newRig(t)
	dark(r)
	for name, frame := range noise {
		if d := r.agree(name, 1, frame, Tag{}).Drop; d == Forwarded || d == Answered {
			t.Errorf("%s: %q", name, d.Code())
		}
		r.enter(1, frame)
		r.seen(sent{})
	}
	r.enter(1, v6Packet(t, macOf(2), v6(1), v6(2), 128, echo6)) // granted
	r.seen(sent{2: 1})
	r.setGrants(policy.Grant{ID: 20, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Both: true})
	for name, frame := range noise {
		r.enter(1, frame)
		if name == "one who is reached, by another port" { // now that everything is allowed
			r.seen(sent{2: 1})
			continue
		}
		r.seen(sent{})
	}
}

// A frame for a station that has not said a word goes to that station's port, and if its port may not hear it, nowhere. One for
// nobody's goes to members alone.
func TestUnknownUnicast(t *testing.T) {
	r := newRig(t)
	mixed(r)
	for _, c := range []struct {
		name string
		to   policy.Identity
		want Drop
		sent sent
	}{
		{"nobody's", 9, Forwarded, sent{3: 1}},
		{"a member's", 3, Forwarded, sent{3: 1}},
		{"one's that is reached, but not so", 2, Drop(policy.NotAllowed), sent{}},
		{"another station's", 4, Drop(policy.NotMember), sent{}},
	} {
		if d := r.agree(c.name, 1, data(macOf(c.to), macOf(1), experimental, ""), Tag{}).Drop; d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d.Code(), c.want.Code())
		}
		r.enter(1, data(macOf(c.to), macOf(1), experimental, ""))
		r.seen(c.sent)
	}
	// Not even if the station seems to be at a member's port, or a member's address at another's.
	r.seg.FDB().Learn(macOf(3), Place{r.ports[2], 2}, r.now)
	if d := r.enter(1, data(macOf(3), macOf(1), experimental, "")); d != Drop(policy.NotAllowed) {
		t.Errorf("%q", d.Code())
	}
	r.seen(sent{})
}

package policy

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

var (
	own     = ether.MAC{2, 0, 0, 0, 0, 1}
	other   = ether.MAC{2, 0, 0, 0, 0, 2}
	ownV4   = netip.MustParseAddr("192.0.2.1")
	otherV4 = netip.MustParseAddr("192.0.2.2")
	ownV6   = netip.MustParseAddr("2001:db8::1")
	otherV6 = netip.MustParseAddr("2001:db8::2")
	noV4    = netip.IPv4Unspecified()
	noV6    = netip.IPv6Unspecified()
)

func build(t *testing.T, src ether.MAC, typ layers.EthernetType, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: ether.Broadcast[:], EthernetType: typ}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true},
		append([]gopacket.SerializableLayer{eth}, l...)...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func arp(t *testing.T, op uint16, sender ether.MAC, ip netip.Addr) []byte {
	return arpAs(t, layers.EthernetTypeARP, op, sender, ip)
}

func arpAs(t *testing.T, typ layers.EthernetType, op uint16, sender ether.MAC, ip netip.Addr) []byte {
	return build(t, own, typ, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: sender[:], SourceProtAddress: ip.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: otherV4.AsSlice(),
	})
}

// arpTo is ARP from its own address, with a destination in the frame and a target inside.
func arpTo(t *testing.T, dst ether.MAC, op uint16, target ether.MAC) []byte {
	f := arp(t, op, own, ownV4)
	copy(f, dst[:])
	copy(f[14+18:], target[:])
	return f
}

// ofItself makes of ARP that which tells of its sender's own address.
func ofItself(f []byte) []byte {
	copy(f[14+24:], f[14+14:14+18])
	return f
}

func udp4(t *testing.T, src netip.Addr, sport, dport layers.UDPPort, frag uint16) []byte {
	return build(t, own, layers.EthernetTypeIPv4,
		&layers.IPv4{
			Version: 4, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: net.IP{255, 255, 255, 255}, FragOffset: frag,
		},
		&layers.UDP{SrcPort: sport, DstPort: dport})
}

type v6opts struct {
	hop  uint8
	next layers.IPProtocol
	ext  []byte
}

func v6(t *testing.T, src netip.Addr, o v6opts, body []byte) []byte {
	if o.hop == 0 {
		o.hop = 255
	}
	if o.next == 0 && o.ext == nil {
		o.next = layers.IPProtocolICMPv6
	}
	return build(t, own, layers.EthernetTypeIPv6,
		&layers.IPv6{Version: 6, HopLimit: o.hop, NextHeader: o.next, SrcIP: src.AsSlice(), DstIP: net.ParseIP("ff02::1")},
		gopacket.Payload(append(o.ext, body...)))
}

// nd builds a neighbour discovery body: type, target, one option (kind, MAC) if kind is not 0.
func nd(typ byte, target netip.Addr, kind byte, mac ether.MAC) []byte {
	b := append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	if kind != 0 {
		b = append(append(b, kind, 1), mac[:]...)
	}
	return b
}

func TestCheck(t *testing.T) {
	const ns, na, ra, rs, redirect, echo, report, report1, done = 135, 136, 134, 133, 137, 128, 143, 131, 132
	const rarp = layers.EthernetType(ether.TypeRARP)
	hbh := []byte{58, 0, 5, 2, 0, 0, 1, 0} // router alert, then ICMPv6
	fragment0, fragment1 := []byte{58, 0, 0, 1, 0, 0, 0, 9}, []byte{58, 0, 0, 9, 0, 0, 0, 9}
	cut0 := []byte{60, 0, 0, 1, 0, 0, 0, 9, 58, 9, 0, 0, 0, 0, 0, 0} // first fragment, destination options that go on in the next
	bare0 := []byte{60, 0, 0, 1, 0, 0, 0, 9, 58, 0, 1, 4, 0, 0, 0, 0}
	options1 := []byte{60, 0, 0, 8, 0, 0, 0, 9}
	advertise := append([]byte{ra}, make([]byte, 15)...)
	snap := func(oui byte, typ uint16) []byte {
		body := gopacket.Payload([]byte{0xaa, 0xaa, 3, 0, 0, oui, byte(typ >> 8), byte(typ), 0, 1, 8, 0, 6, 4})
		return build(t, own, layers.EthernetType(len(body)), body)
	}
	mac := own
	for _, c := range []struct {
		name string
		in   []byte
		want Verdict
	}{
		{"own MAC, any EtherType", build(t, own, 0x88b5, gopacket.Payload("x")), Pass},
		{"another's MAC (I01)", build(t, other, 0x88b5, gopacket.Payload("x")), SourceMAC},

		{"ARP request", arp(t, 1, own, ownV4), Pass},
		{"ARP reply", arp(t, 2, own, ownV4), Pass},
		{"ARP probe", arp(t, 1, own, noV4), Pass},
		{"ARP reply from 0.0.0.0", arp(t, 2, own, noV4), ARPSender},
		{"ARP for another's address (I05)", arp(t, 2, own, otherV4), ARPSender},
		{"ARP with another's MAC inside (I05)", arp(t, 1, other, ownV4), ARPSender},
		{"ARP request from another's address (I05)", arp(t, 1, own, otherV4), ARPSender},
		{"RARP", arpAs(t, rarp, 3, own, ownV4), Pass},
		{"RARP reply", arpAs(t, rarp, 4, own, ownV4), BadARP},
		{"RARP reply under ARP's EtherType", arp(t, 4, own, ownV4), BadARP},
		{"ARP reply under RARP's EtherType", arpAs(t, rarp, 2, own, ownV4), BadARP},
		{"ARP reply to everybody that names a target", arpTo(t, ether.Broadcast, 2, other), Pass},
		{"ARP reply to its target", arpTo(t, other, 2, other), Pass},
		{"ARP reply to another than its target (I05)", arpTo(t, other, 2, own), BadARP},
		{"ARP reply to one, that names nobody (I05)", arpTo(t, other, 2, ether.MAC{}), BadARP},
		{"ARP reply whose target is everybody (I05)", arpTo(t, ether.Broadcast, 2, ether.Broadcast), BadARP},
		{"ARP reply whose target is a group (I05)", arpTo(t, ether.MAC{1, 0, 0x5e, 0, 0, 1}, 2, ether.MAC{1, 0, 0x5e, 0, 0, 1}), BadARP},
		{"gratuitous ARP reply that names itself (A05)", ofItself(arpTo(t, ether.Broadcast, 2, own)), Pass},
		{"gratuitous ARP reply that names everybody (A05)", ofItself(arpTo(t, ether.Broadcast, 2, ether.Broadcast)), Pass},
		{"gratuitous ARP reply that names everybody, to one (I05)", ofItself(arpTo(t, other, 2, ether.Broadcast)), BadARP},
		{"gratuitous ARP reply that names everybody, to a group (I05)", ofItself(arpTo(t, ether.MAC{1, 0, 0x5e, 0, 0, 1}, 2, ether.Broadcast)), BadARP},
		{"gratuitous ARP reply that names a group (I05)", ofItself(arpTo(t, ether.Broadcast, 2, ether.MAC{1, 0, 0x5e, 0, 0, 1})), BadARP},
		{"gratuitous ARP reply for another's address (I05)", ofItself(arp(t, 2, own, otherV4)), ARPSender},
		{"gratuitous RARP reply that names everybody (I05)", ofItself(arpAs(t, rarp, 2, own, ownV4)), BadARP},
		{"ARP request to one, as Linux asks again", arpTo(t, other, 1, ether.MAC{}), Pass},
		{"RARP with another's MAC inside (I05)", arpAs(t, rarp, 3, other, ownV4), ARPSender},
		{"cut ARP", arp(t, 1, own, ownV4)[:40], BadHeader},

		{"IPv4", udp4(t, ownV4, 1, 2, 0), Pass},
		{"IPv4 fragment", udp4(t, ownV4, 1, 2, 5), Pass},
		{"another's IPv4 (I06)", udp4(t, otherV4, 1, 2, 0), IPSource},
		{"no IPv4, not DHCP (I06)", udp4(t, noV4, 68, 69, 0), IPSource},
		{"no IPv4, DHCP but not a client", udp4(t, noV4, 68, 67, 0), IPSource},
		{"IPv6 under IPv4's EtherType (I10)", build(t, own, layers.EthernetTypeIPv4, gopacket.Payload(v6(t, ownV6, v6opts{}, nil)[14:])), BadHeader},
		{"IPv4 under IPv6's EtherType (I10)", build(t, own, layers.EthernetTypeIPv6, gopacket.Payload(udp4(t, ownV4, 1, 2, 0)[14:])), BadHeader},
		{"ARP under IPv6's EtherType (I10)", build(t, own, layers.EthernetTypeIPv6, gopacket.Payload(arp(t, 1, own, ownV4)[14:])), BadHeader},

		{"IPv6", v6(t, ownV6, v6opts{next: 17}, []byte("udp, not dhcp")), Pass},
		{"UDP that looks like an advertisement", v6(t, ownV6, v6opts{hop: 64, next: 17}, nd(na, otherV6, 2, other)), Pass},
		{"link-local IPv6", v6(t, own.LinkLocal(), v6opts{}, []byte{echo}), Pass},
		{"another's IPv6 (I06)", v6(t, otherV6, v6opts{next: 17}, nil), IPSource},
		{"no IPv6, UDP (I06)", v6(t, noV6, v6opts{next: 17}, nil), IPSource},
		{"no IPv6, echo", v6(t, noV6, v6opts{}, []byte{echo, 0}), IPSource},
		{"no IPv6, listener report (N07)", v6(t, noV6, v6opts{ext: hbh}, []byte{report, 0}), Pass},
		{"no IPv6, router solicitation", v6(t, noV6, v6opts{}, append([]byte{rs}, make([]byte, 7)...)), IPSource},
		{"ICMPv6 without a type", v6(t, ownV6, v6opts{}, nil), Undetermined},

		{"router advertisement", v6(t, own.LinkLocal(), v6opts{}, advertise), NotRouter},
		{"router advertisement without source", v6(t, noV6, v6opts{}, advertise), NotRouter},
		{"router advertisement behind an extension header", v6(t, own.LinkLocal(), v6opts{next: 60, ext: hbh}, advertise), NotRouter},
		{"router advertisement, fragmented", v6(t, own.LinkLocal(), v6opts{next: 44, ext: fragment0}, advertise), NotRouter},
		{"cut router advertisement", v6(t, own.LinkLocal(), v6opts{}, advertise[:4]), NotRouter},
		{"redirect", v6(t, own.LinkLocal(), v6opts{}, append(nd(redirect, otherV6, 0, mac), make([]byte, 16)...)), NotRouter},
		{"router solicitation", v6(t, own.LinkLocal(), v6opts{}, append([]byte{rs}, make([]byte, 7)...)), Pass},

		{"ARP in LLC and SNAP", snap(0, 0x0806), BadHeader},
		{"IPv6 in LLC and SNAP, bridge tunnel", snap(0xf8, 0x86dd), BadHeader},
		{"a VLAN tag in LLC and SNAP", snap(0, 0x8100), BadHeader},
		{"RARP in LLC and SNAP", snap(0, 0x8035), BadHeader},
		{"IPv4 in LLC and SNAP", snap(0, 0x0800), BadHeader},
		{"a service tag in LLC and SNAP", snap(0, 0x88a8), BadHeader},
		{"AppleTalk in LLC and SNAP", snap(0, 0x809b), Pass},
		{"a vendor's protocol in LLC and SNAP", snap(0x0c, 0x0806), Pass},
		{"no IPv6, listener report of version 1 (N07)", v6(t, noV6, v6opts{ext: hbh}, []byte{report1, 0}), Pass},
		{"no IPv6, listener done (N07)", v6(t, noV6, v6opts{ext: hbh}, []byte{done, 0}), Pass},

		{"solicitation", v6(t, ownV6, v6opts{}, nd(ns, otherV6, 1, own)), Pass},
		{"solicitation with another's MAC", v6(t, ownV6, v6opts{}, nd(ns, otherV6, 1, other)), NDSender},
		{"duplicate address detection", v6(t, noV6, v6opts{}, nd(ns, ownV6, 0, mac)), Pass},
		{"detection of another's address", v6(t, noV6, v6opts{}, nd(ns, otherV6, 0, mac)), NDSender},
		{"detection with a MAC option", v6(t, noV6, v6opts{}, nd(ns, ownV6, 1, own)), NDSender},
		{"advertisement", v6(t, ownV6, v6opts{}, nd(na, ownV6, 2, own)), Pass},
		{"advertisement without option", v6(t, ownV6, v6opts{}, nd(na, ownV6, 0, mac)), Pass},
		{"advertisement with another's MAC", v6(t, ownV6, v6opts{}, nd(na, ownV6, 2, other)), NDSender},
		{"advertisement with another's MAC, then its own", v6(t, ownV6, v6opts{}, append(nd(na, ownV6, 2, other), append([]byte{2, 1}, own[:]...)...)), NDSender},
		{"advertisement of another's address", v6(t, ownV6, v6opts{}, nd(na, otherV6, 2, own)), NDSender},
		{"advertisement without source", v6(t, noV6, v6opts{}, nd(na, ownV6, 2, own)), NDSender},
		{"hop limit 254", v6(t, ownV6, v6opts{hop: 254}, nd(na, ownV6, 2, own)), NDSender},
		{"hidden behind an extension header", v6(t, ownV6, v6opts{next: 60, ext: hbh}, nd(na, otherV6, 2, own)), NDSender},
		{"fragmented", v6(t, ownV6, v6opts{next: 44, ext: fragment0}, nd(na, ownV6, 2, own)), NDSender},
		{"chain that ends in the next fragment", v6(t, ownV6, v6opts{next: 44, ext: cut0}, nil), Undetermined},
		{"chain that ends before the type", v6(t, ownV6, v6opts{next: 44, ext: bare0}, nil), Undetermined},
		{"first fragment of an extension header", v6(t, ownV6, v6opts{next: 44, ext: bare0}, []byte{echo, 0}), Undetermined},
		{"later fragment of an extension header", v6(t, ownV6, v6opts{next: 44, ext: options1}, []byte("rest")), Undetermined},
		{"later fragment", v6(t, ownV6, v6opts{next: 44, ext: fragment1}, []byte("rest")), Pass},
		{"later fragment without source", v6(t, noV6, v6opts{next: 44, ext: fragment1}, []byte("rest")), IPSource},
		{"option of length 0", v6(t, ownV6, v6opts{}, append(nd(na, ownV6, 0, mac), 2, 0, 0, 0, 0, 0, 0, 0)), NDSender},
		{"cut extension header", v6(t, ownV6, v6opts{next: 60, ext: []byte{58, 9, 0, 0, 0, 0, 0, 0}}, nil), Undetermined},
		{"cut IPv6 header", v6(t, ownV6, v6opts{}, nil)[:40], BadHeader},
	} {
		f, err := ether.Parse(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s := NewStation(own, []netip.Addr{ownV4, ownV6, own.LinkLocal()}, false)
		if _, got := s.Check(&f, false); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDHCPClient(t *testing.T) {
	s := NewStation(own, nil, true)
	discover := bootp(t, noV4, 68, 67, message{op: 1, client: own, kind: 1})
	tcp4 := bytes.Clone(discover)
	tcp4[14+9] = 6
	short := bytes.Clone(discover[:14+20+3])
	short[14+2], short[14+3] = 0, 20+3
	fragment := bytes.Clone(discover)
	fragment[14+6] = 0x20
	for _, c := range []struct {
		name string
		in   []byte
		want Verdict
	}{
		{"discover", discover, Pass},
		{"fragment of it", fragment, IPSource},
		{"as a server", udp4(t, noV4, 67, 68, 0), IPSource},
		{"from a client to a client", udp4(t, noV4, 68, 68, 0), IPSource},
		{"from a server to a server", udp4(t, noV4, 67, 67, 0), IPSource},
		{"with the same ports over TCP", tcp4, IPSource},
		{"cut before its ports", short, IPSource},
		{"from an address", udp4(t, ownV4, 68, 67, 0), IPSource},
	} {
		f, _ := ether.Parse(c.in)
		if _, got := s.Check(&f, false); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestStationWithoutAddresses(t *testing.T) {
	s := NewStation(own, nil, false)
	for name, in := range map[string][]byte{
		"ARP": arp(t, 1, own, ownV4), "IPv4": udp4(t, ownV4, 1, 2, 0), "IPv6": v6(t, own.LinkLocal(), v6opts{}, []byte{128}),
	} {
		f, _ := ether.Parse(in)
		if _, v := s.Check(&f, false); v == Pass {
			t.Errorf("%s passes", name)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte{8, 6, 0, 1, 8, 0, 6, 4})
	f.Add([]byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 0, 255})
	s := NewStation(own, []netip.Addr{ownV4, ownV6}, true)
	f.Fuzz(func(t *testing.T, rest []byte) {
		data := append(append(ether.Broadcast[:len(ether.Broadcast):len(ether.Broadcast)], own[:]...), rest...)
		fr, err := ether.Parse(data)
		if err != nil {
			return
		}
		if class, v := s.Check(&fr, false); v >= NumVerdicts || class >= numClasses {
			t.Fatalf("verdict %d, class %d", v, class)
		}
	})
}

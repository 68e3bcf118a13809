package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func broadcast() net.HardwareAddr { return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

func ethernet(dst, src net.HardwareAddr, typ uint16) []byte {
	b := append(append([]byte{}, dst...), src...)
	return binary.BigEndian.AppendUint16(b, typ)
}

func serialize(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		panic(err)
	}
	return append([]byte{}, b.Bytes()...)
}

// spoof is a frame that must not pass, and the reason by which it is dropped.
type spoof struct {
	reason string
	frame  []byte
}

// spoofs are what an attacker with root on a node would send: as somebody else, in every field that says who one is.
func spoofs(own, victim net.HardwareAddr, addr []string) []spoof {
	ownIP, victimIP := netip.MustParseAddr(addr[0]), netip.MustParseAddr(addr[1])
	arp := func(op uint16, mac net.HardwareAddr, ip netip.Addr) []byte {
		return serialize(&layers.Ethernet{SrcMAC: own, DstMAC: broadcast(), EthernetType: layers.EthernetTypeARP}, &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: op,
			SourceHwAddress: mac, SourceProtAddress: ip.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: victimIP.AsSlice(),
		})
	}
	ip4 := func(src netip.Addr) []byte {
		return serialize(&layers.Ethernet{SrcMAC: own, DstMAC: victim, EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: 253, SrcIP: src.AsSlice(), DstIP: victimIP.AsSlice()}, gopacket.Payload("12345678"))
	}
	vlan := append(ethernet(broadcast(), own, 0x8100), 0x00, 0x0a, 0x88, 0xb5)
	na := func(target netip.Addr) []byte {
		src := linkLocal(own)
		return serialize(&layers.Ethernet{SrcMAC: own, DstMAC: victim, EthernetType: layers.EthernetTypeIPv6},
			&layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: src, DstIP: net.ParseIP("ff02::1")},
			gopacket.Payload(append(append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice()...), append([]byte{2, 1}, own...)...)))
	}
	return []spoof{
		{"source-mac", ethernet(broadcast(), victim, 0x88b5)},
		{"source-address", ethernet(broadcast(), net.HardwareAddr{3, 0, 0, 0, 0, 1}, 0x88b5)},
		{"arp-sender", arp(2, own, victimIP)},
		{"arp-sender", arp(1, victim, ownIP)},
		{"ip-source", ip4(victimIP)},
		{"ip-source", ip4(netip.MustParseAddr("192.0.2.77"))},
		{"nd-sender", na(netip.MustParseAddr("2001:db8::99"))},
		{"reserved", append(ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, own, 0x0026), 0x42, 0x42, 3)},
		{"vlan", vlan},
	}
}

func linkLocal(m net.HardwareAddr) net.IP {
	return net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}
}

func routerAdvertisement(mac net.HardwareAddr) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: linkLocal(mac), DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterAdvertisement, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	prefix := append([]byte{64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8:bad::").AsSlice()...)
	return serialize(&layers.Ethernet{SrcMAC: mac, DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800, Options: layers.ICMPv6Options{
			{Type: layers.ICMPv6OptSourceAddress, Data: mac}, {Type: layers.ICMPv6OptPrefixInfo, Data: prefix},
		}})
}

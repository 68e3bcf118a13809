package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The receiver refuses what a lying sender sends (cases I01, I05, I06, I10, F04, L06, V08). What is sent as somebody else in the
// header of the frame, and what is no frame of a segment:
func TestReceiverRefusesHeaders(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	r.sh(r.mallory.Host, "ip link set loom0 mtu 9216") // so that its kernel lets long frames out
	r.refused(append(r.falseSources(), r.tags()...)...)
	r.refused(r.lengths()...)
	// At last, because from then on mallory's own switch believes that victim is its host.
	r.refused(&attack{name: "victim's own MAC", reason: "source-mac", frame: ethernet(broadcast(), r.v.mac, 0x88b5)})
}

// What lies about IPv4 and ARP.
func TestReceiverRefusesIPv4(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	r.refused(r.falseARP()...)
	r.refused(r.falseIPv4()...)
}

// to is the header of a frame from mallory to victim.
func (r *refusal) to(typ uint16) []byte { return ethernet(r.v.mac, r.m.mac, typ) }

// tagged puts a tag behind the two addresses of a frame.
func tagged(frame []byte, tpid, tci uint16) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), tci)
	return bytes.Join([][]byte{frame[:12], tag, frame[12:]}, nil)
}

// snap puts LLC and SNAP in front of the EtherType of a frame.
func snap(frame []byte) []byte {
	body := append([]byte{0xaa, 0xaa, 3, 0, 0, 0}, frame[12:]...)
	return append(binary.BigEndian.AppendUint16(bytes.Clone(frame[:12]), uint16(len(body))), body...)
}

// udp is a datagram without checksum.
func udp(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	return append(b, 0, 16, 0, 0, 'd', 'a', 't', 'a', 'd', 'a', 't', 'a')
}

func (r *refusal) falseSources() []*attack {
	as := func(src net.HardwareAddr, typ uint16) []byte { return ethernet(r.v.mac, src, typ) }
	ip4 := ipv4(r.b.v4.AsSlice(), r.v.v4.AsSlice(), 17, 0, udp(5000, 5001))
	ip6 := ipv6(r.b.v6.AsSlice(), r.v.v6.AsSlice(), 17, udp(5000, 5001))
	reserved := func(last ...byte) []byte { return ethernet(append(net.HardwareAddr{1}, last...), r.m.mac, 0x88b5) }
	return []*attack{
		{name: "bob's MAC, IPv4", reason: "source-mac", frame: append(as(r.b.mac, unix.ETH_P_IP), ip4...)},
		{name: "bob's MAC, IPv6", reason: "source-mac", frame: append(as(r.b.mac, unix.ETH_P_IPV6), ip6...)},
		{name: "bob's MAC, VLAN 0, IPv4", reason: "source-mac", frame: tagged(append(as(r.b.mac, unix.ETH_P_IP), ip4...), 0x8100, 0)},
		{name: "bob's MAC, not IP, broadcast", reason: "source-mac", frame: ethernet(broadcast(), r.b.mac, 0x88b5)},
		{name: "nobody's MAC", reason: "source-mac", frame: as(net.HardwareAddr{2, 0, 0, 9, 9, 9}, 0x88b5)},
		{name: "group source", reason: "source-address", frame: as(net.HardwareAddr{3, 0, 0, 0, 0, 1}, 0x88b5)},
		{name: "broadcast source", reason: "source-address", frame: as(broadcast(), 0x88b5)},
		{name: "zero source", reason: "source-address", frame: as(make(net.HardwareAddr, 6), 0x88b5)},
		{name: "spanning tree", reason: "reserved", frame: reserved(0x80, 0xc2, 0, 0, 0)},
		{name: "LACP", reason: "reserved", frame: reserved(0x80, 0xc2, 0, 0, 2)},
		{name: "802.1X", reason: "reserved", frame: reserved(0x80, 0xc2, 0, 0, 3)},
		{name: "LLDP", reason: "reserved", frame: reserved(0x80, 0xc2, 0, 0, 0xe)},
		{name: "last reserved address", reason: "reserved", frame: reserved(0x80, 0xc2, 0, 0, 0xf)},
		{name: "CDP", reason: "reserved", frame: reserved(0, 0xc, 0xcc, 0xcc, 0xcc)},
	}
}

func (r *refusal) tags() []*attack {
	plain := append(r.to(unix.ETH_P_IP), ipv4(r.m.v4.AsSlice(), r.v.v4.AsSlice(), 17, 0, udp(5000, 5001))...)
	return []*attack{
		{name: "VLAN 10", reason: "vlan", frame: tagged(plain, 0x8100, 10)},
		{name: "VLAN 4095", reason: "vlan", frame: tagged(plain, 0x8100, 4095)},
		{name: "service tag, VLAN 10", reason: "vlan", frame: tagged(plain, 0x88a8, 10)},
		{name: "service tag, VLAN 0", reason: "vlan", frame: tagged(plain, 0x88a8, 0)},
		{name: "VLAN 0 behind VLAN 0", reason: "vlan", frame: tagged(tagged(plain, 0x8100, 0), 0x8100, 0)},
		{name: "VLAN 10 behind VLAN 0", reason: "vlan", frame: tagged(tagged(plain, 0x8100, 10), 0x8100, 0)},
		{name: "VLAN 20 behind VLAN 1", reason: "vlan", frame: tagged(tagged(plain, 0x8100, 20), 0x8100, 1)},
		{name: "service tag behind VLAN 0", reason: "vlan", frame: tagged(tagged(plain, 0x88a8, 10), 0x8100, 0)},
		{name: "QinQ", reason: "vlan", frame: tagged(tagged(plain, 0x8100, 10), 0x88a8, 20)},
		{name: "VLAN 10 behind LLC and SNAP", reason: "bad-header", frame: snap(tagged(plain, 0x8100, 10))},
	}
}

// lengths are frames that are cut, or too long.
func (r *refusal) lengths() []*attack {
	own4, own6 := r.m.v4.AsSlice(), r.m.v6.AsSlice()
	ip4 := ipv4(own4, r.v.v4.AsSlice(), 17, 0, udp(5000, 5001))
	changed := func(at int, b byte) []byte {
		c := bytes.Clone(ip4)
		c[at] = b
		return append(r.to(unix.ETH_P_IP), c...)
	}
	long6 := ipv6(own6, r.v.v6.AsSlice(), 17, udp(5000, 5001))
	long6[4] = 4
	return []*attack{
		{name: "IPv4 without a header", reason: "bad-header", frame: r.to(unix.ETH_P_IP), bare: true},
		{name: "IPv4 header cut", reason: "bad-header", frame: append(r.to(unix.ETH_P_IP), ip4[:19]...), bare: true},
		{name: "IPv4 shorter than it says", reason: "bad-header", frame: changed(2, 4)},
		{name: "IPv4 shorter than its header", reason: "bad-header", frame: changed(3, 12)},
		{name: "IPv4, header of 16 bytes", reason: "bad-header", frame: changed(0, 0x44)},
		{name: "IPv4, version 5", reason: "bad-header", frame: changed(0, 0x55)},
		{name: "IPv6 without a header", reason: "bad-header", frame: r.to(unix.ETH_P_IPV6), bare: true},
		{name: "IPv6 header cut", reason: "bad-header", frame: append(r.to(unix.ETH_P_IPV6), long6[:39]...), bare: true},
		{name: "IPv6 shorter than it says", reason: "bad-header", frame: append(r.to(unix.ETH_P_IPV6), long6...)},
		{name: "ARP without a body", reason: "bad-header", frame: r.to(unix.ETH_P_ARP), bare: true},
		{name: "1501 bytes, not IP", reason: "long", frame: append(r.to(0x88b5), filler(1501, 1)...)},
		{name: "1501 bytes behind VLAN 0", reason: "long", frame: tagged(append(r.to(0x88b5), filler(1501, 2)...), 0x8100, 0)},
		{name: "9000 bytes, IPv4", reason: "long", frame: append(r.to(unix.ETH_P_IP), ipv4(own4, r.v.v4.AsSlice(), 253, 0, filler(8980, 3))...)},
	}
}

func (r *refusal) falseARP() []*attack {
	zero, nobody := netip.IPv4Unspecified(), netip.MustParseAddr("192.0.2.77")
	// arp is a request, reply or another operation that asks for, or answers, victim.
	arp := func(typ, op uint16, mac net.HardwareAddr, ip, target netip.Addr) []byte {
		b := []byte{0, 1, 8, 0, 6, 4, byte(op >> 8), byte(op)}
		b = append(append(append(b, mac...), ip.AsSlice()...), r.v.mac...)
		return append(r.to(typ), append(b, target.AsSlice()...)...)
	}
	typed := func(at int, b byte) []byte {
		f := arp(unix.ETH_P_ARP, 2, r.m.mac, r.b.v4, r.v.v4)
		f[14+at] = b
		return f
	}
	all := func(f []byte) []byte { return append(broadcast(), f[6:]...) }
	const request, reply, reverse, reverseReply, inverse = 1, 2, 3, 4, 8
	const arpType, rarpType = unix.ETH_P_ARP, unix.ETH_P_RARP
	spoofed := arp(arpType, reply, r.m.mac, r.b.v4, r.v.v4)
	return []*attack{
		{name: "ARP request, bob's MAC inside", reason: "arp-sender", frame: all(arp(arpType, request, r.b.mac, r.m.v4, r.v.v4))},
		{name: "ARP request, bob's IP", reason: "arp-sender", frame: all(arp(arpType, request, r.m.mac, r.b.v4, r.v.v4))},
		{name: "ARP reply, bob's IP", reason: "arp-sender", frame: spoofed},
		{name: "ARP reply, bob's IP and MAC inside", reason: "arp-sender", frame: arp(arpType, reply, r.b.mac, r.b.v4, r.v.v4)},
		{name: "gratuitous ARP request, bob's IP", reason: "arp-sender", frame: all(arp(arpType, request, r.m.mac, r.b.v4, r.b.v4))},
		{name: "gratuitous ARP reply, bob's IP", reason: "arp-sender", frame: all(arp(arpType, reply, r.m.mac, r.b.v4, r.b.v4))},
		{name: "ARP reply, victim's own IP", reason: "arp-sender", frame: arp(arpType, reply, r.m.mac, r.v.v4, r.v.v4)},
		{name: "ARP reply, nobody's IP", reason: "arp-sender", frame: arp(arpType, reply, r.m.mac, nobody, r.v.v4)},
		{name: "ARP reply from 0.0.0.0", reason: "arp-sender", frame: arp(arpType, reply, r.m.mac, zero, r.v.v4)},
		{name: "inverse ARP, bob's IP", reason: "arp-sender", frame: arp(arpType, inverse, r.m.mac, r.b.v4, r.v.v4)},
		{name: "ARP reply, bob's IP, VLAN 0", reason: "arp-sender", frame: tagged(spoofed, 0x8100, 0)},
		{name: "RARP, bob's MAC inside", reason: "arp-sender", frame: all(arp(rarpType, reverse, r.b.mac, zero, zero))},
		{name: "RARP, bob's IP", reason: "arp-sender", frame: all(arp(rarpType, reverse, r.m.mac, r.b.v4, zero))},
		{name: "RARP reply, bob's IP", reason: "arp-sender", frame: arp(rarpType, reverseReply, r.m.mac, r.b.v4, r.v.v4)},
		{name: "ARP of IEEE 802 hardware", reason: "bad-header", frame: typed(1, 6)},
		{name: "ARP of another protocol", reason: "bad-header", frame: typed(3, 1)},
		{name: "ARP, hardware addresses of 8 bytes", reason: "bad-header", frame: typed(4, 8)},
		{name: "ARP, bob's IP, behind LLC and SNAP", reason: "bad-header", frame: snap(spoofed)},
		{name: "ARP under IPv6's EtherType", reason: "bad-header", frame: append(r.to(unix.ETH_P_IPV6), spoofed[14:]...)},
		{name: "ARP under IPv4's EtherType", reason: "bad-header", frame: append(r.to(unix.ETH_P_IP), spoofed[14:]...)},
	}
}

func (r *refusal) falseIPv4() []*attack {
	ip4 := func(src string, protocol byte, fragment uint16, payload []byte) []byte {
		packet := ipv4(netip.MustParseAddr(src).AsSlice(), r.v.v4.AsSlice(), protocol, fragment, payload)
		return append(r.to(unix.ETH_P_IP), packet...)
	}
	bob, data := r.b.v4.String(), udp(5000, 5001)
	own6 := append(r.to(unix.ETH_P_IP), ipv6(r.m.v6.AsSlice(), r.v.v6.AsSlice(), 17, data)...)
	own4 := append(r.to(unix.ETH_P_IPV6), ipv4(r.m.v4.AsSlice(), r.v.v4.AsSlice(), 17, 0, data)...)
	const moreFragments = 0x2000
	return []*attack{
		{name: "IPv4 of bob", reason: "ip-source", frame: ip4(bob, 17, 0, data)},
		{name: "IPv4 of bob, VLAN 0", reason: "ip-source", frame: tagged(ip4(bob, 17, 0, data), 0x8100, 0)},
		{name: "IPv4 of bob, echo", reason: "ip-source", frame: ip4(bob, 1, 0, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0})},
		{name: "IPv4 of bob, first fragment", reason: "ip-source", frame: ip4(bob, 17, moreFragments, data)},
		{name: "IPv4 of bob, later fragment", reason: "ip-source", frame: ip4(bob, 17, 9, data)},
		{name: "IPv4 of bob, IGMP report", reason: "ip-source", frame: ip4(bob, 2, 0, []byte{0x16, 0, 8, 4, 0xe0, 0, 1, 0xfb})},
		{name: "IPv4 of victim", reason: "ip-source", frame: ip4(r.v.v4.String(), 17, 0, data)},
		{name: "IPv4 of nobody", reason: "ip-source", frame: ip4("192.0.2.77", 17, 0, data)},
		{name: "IPv4 of the loopback", reason: "ip-source", frame: ip4("127.0.0.1", 17, 0, data)},
		{name: "IPv4 of a group", reason: "ip-source", frame: ip4("224.0.0.1", 17, 0, data)},
		{name: "IPv4 of everybody", reason: "ip-source", frame: ip4("255.255.255.255", 17, 0, data)},
		{name: "IPv4 of 0.0.0.0", reason: "ip-source", frame: ip4("0.0.0.0", 17, 0, data)},
		{name: "DHCP client where none is", reason: "ip-source", frame: ip4("0.0.0.0", 17, 0, udp(68, 67))},
		{name: "IPv4 of bob behind LLC and SNAP", reason: "bad-header", frame: snap(ip4(bob, 17, 0, data))},
		{name: "IPv6 under IPv4's EtherType", reason: "bad-header", frame: own6},
		{name: "IPv4 under IPv6's EtherType", reason: "bad-header", frame: own4},
	}
}

package vswitch

import (
	"net/netip"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// claim is an ARP frame to everybody, from a MAC, that says who has an address and asks for another.
func claim(op uint16, src, sender ether.MAC, from, target [4]byte) []byte {
	return data(ether.Broadcast, src, ether.TypeARP, string(ether.AppendARP(nil, ether.ARP{Op: op, SenderMAC: sender, SenderIP: from, TargetIP: target})))
}

// packet4 is an IPv4 packet to everybody whose ports are those of a DHCP client's question, if it has any.
func packet4(typ ether.Type, proto ether.Protocol, offset, port byte) []byte {
	from := v4(60).As4()
	ip := []byte{0x45, 0, 0, 36, 0, 0, 0, offset, 64, byte(proto), 0, 0, from[0], from[1], from[2], from[3], 255, 255, 255, 255}
	udp := []byte{0, 68, 0, port, 0, 16, 0, 0, 'q', 'u', 'e', 's', 't', 'i', 'o', 'n'}
	return data(ether.Broadcast, macAt(siteA), typ, string(ip)+string(udp))
}

// What only looks like a question to the segment's DHCP service goes its way, and the server hears nothing of it.
func TestServeOthers(t *testing.T) {
	mac, own, service, pool := macAt(siteA), v4(60).As4(), [4]byte{192, 0, 2, 250}, [4]byte{192, 0, 2, 200}
	mapped := netip.AddrFrom16(ether.Mapped(service))
	for _, c := range []struct {
		name string
		port string
		in   []byte
		want Drop
	}{
		{"ARP for another", "vlan 20", claim(ether.ARPRequest, mac, mac, own, v4(77).As4()), Forwarded},
		{"ARP that tells the service something", "vlan 20", claim(ether.ARPReply, mac, mac, own, service), Forwarded},
		{"its address in IPv6", "vlan 20", lookFor(siteA, v6(60), mapped), Forwarded},
		{"another type", "vlan 20", packet4(experimental, ether.ProtoUDP, 0, 67), Forwarded},
		{"TCP", "vlan 20", packet4(ether.TypeIPv4, ether.ProtoTCP, 0, 67), Forwarded},
		{"a later fragment", "vlan 20", packet4(ether.TypeIPv4, ether.ProtoUDP, 1, 67), Forwarded},
		{"another port", "vlan 20", packet4(ether.TypeIPv4, ether.ProtoUDP, 0, 69), Forwarded},
		{"this node's own host has an address of the pool", "tap", claim(ether.ARPRequest, macAt(3), macAt(3), pool, v4(1).As4()), Drop(policy.ARPSender)},
		{"refused for something else", "vlan 20", claim(ether.RARPReply, mac, mac, own, v4(1).As4()), Drop(policy.BadARP)},
		{"a reply without an address", "vlan 20", claim(ether.ARPReply, mac, mac, [4]byte{}, v4(1).As4()), Drop(policy.ARPSender)},
		{"an address of the pool is another MAC's", "vlan 20", claim(ether.ARPRequest, mac, macAt(22), pool, v4(1).As4()), Drop(policy.ARPSender)},
	} {
		m, d := served(t, 0)
		port := m.ports[3][c.port]
		if got := m.forward(3, port, c.in, Tag{}); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.Code(), c.want.Code())
		}
		if len(d.asked)+len(d.squats) > 0 {
			t.Errorf("%s: asked by %v, and %v squat", c.name, d.asked, d.squats)
		}
		for _, sent := range m.sends[3] {
			if sent.port == port {
				t.Errorf("%s: answered %x", c.name, sent.frame)
			}
		}
	}
}

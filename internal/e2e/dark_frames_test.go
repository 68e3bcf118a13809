package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// says makes a host say what hosts say to everybody.
func (r *rig) says(n *world.Node) {
	r.Helper()
	for _, to := range []string{
		"UDP4-DATAGRAM:224.0.0.251:5353", "UDP4-DATAGRAM:224.0.0.252:5355", "UDP4-DATAGRAM:239.255.255.250:1900",
		"UDP4-DATAGRAM:255.255.255.255:137,broadcast", "UDP4-DATAGRAM:255.255.255.255:8080,broadcast", "UDP4-DATAGRAM:239.0.0.1:8080",
		"UDP6-DATAGRAM:[ff02::fb%loom0]:5353", "UDP6-DATAGRAM:[ff02::1:3%loom0]:5355", "UDP6-DATAGRAM:[ff02::c%loom0]:1900",
	} {
		r.sh(n.Host, "echo query | socat -u STDIO "+to+",so-bindtodevice=loom0")
	}
	r.sh(n.Host, "timeout 1 socat -u UDP4-RECV:5353,ip-add-membership=224.0.0.251:loom0 - || true") // IGMP
	r.sh(n.Host, "ping -6 -c 2 -i 0.2 -W 1 ff02::1%loom0 >/dev/null; ping -b -c 2 -i 0.2 -W 1 -I loom0 255.255.255.255 >/dev/null 2>&1; true")
	r.sh(n.Host, "arping -U -c 2 -w 3 -I loom0 $(ip -4 -o addr show loom0 | sed 's|.*inet ||; s|/.*||') || true")
	mac := r.mac(n)
	for _, frame := range [][]byte{
		routerAdvertisement(mac),
		ethernet(broadcast(), mac, 0x88b5),
		ethernet(net.HardwareAddr{2, 0, 0, 9, 9, 9}, mac, 0x88b5), // unknown unicast
		discover(mac),
	} {
		r.inject(n.Host, "loom0", frame)
	}
}

// discover is a DHCP client's first message.
func discover(mac net.HardwareAddr) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero.To4(), DstIP: net.IPv4bcast.To4()}
	u := &layers.UDP{SrcPort: 68, DstPort: 67}
	_ = u.SetNetworkLayerForChecksum(ip)
	return serialize(&layers.Ethernet{SrcMAC: mac, DstMAC: broadcast(), EthernetType: layers.EthernetTypeIPv4}, ip, u, &layers.DHCPv4{
		Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, ClientHWAddr: mac,
		Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(layers.DHCPMsgTypeDiscover)})},
	})
}

// permitted says whether a packet is of what is granted; it is described as flowOf does.
type permitted func(protocol, port uint16, toServer bool) bool

// heard reads a capture at a node's TAP: the frames of its own, and those from another node that are granted and that are not. An
// answer to its own question for an address is neither: its own node makes it.
func (r *rig) heard(at *lab.Capture, from, to party, allowed permitted) (own, granted int, other map[string]int) {
	r.Helper()
	other = map[string]int{}
	r.ok(at.Each(func(frame []byte) bool {
		switch {
		case bytes.Equal(frame[6:12], to.mac):
			own++
		case !bytes.Equal(frame[6:12], from.mac):
		case isAnswer(frame, from):
		case bytes.Equal(frame[:6], to.mac) && allowed(flowOf(frame)):
			granted++
		default:
			other[describe(frame)]++
		}
		return true
	}))
	return own, granted, other
}

// frames: nothing of alpha's but what is granted has reached bravo, and nothing of anybody's charlie; all that was said.
func (n *night) frames() {
	for _, c := range []struct {
		at      *lab.Capture
		from    party
		to      party
		allowed permitted
	}{
		{n.atBravo, n.a, n.b, func(protocol, port uint16, toServer bool) bool {
			return protocol == 6 && port == 8080 && toServer || protocol == 1
		}},
		{n.atBravo, n.c, n.b, func(protocol, port uint16, toServer bool) bool { return protocol == 6 && port == 9090 && toServer }},
		{n.atAlpha, n.b, n.a, func(protocol, port uint16, toServer bool) bool {
			return protocol == 6 && port == 8080 && !toServer || protocol == 1
		}},
		{n.atCharlie, n.b, n.c, func(protocol, port uint16, toServer bool) bool { return protocol == 6 && port == 9090 && !toServer }},
		{n.atAlpha, n.c, n.a, func(uint16, uint16, bool) bool { return false }},
		{n.atCharlie, n.a, n.c, func(uint16, uint16, bool) bool { return false }},
	} {
		own, granted, other := n.heard(c.at, c.from, c.to, c.allowed)
		n.Logf("%s: of its own %d, granted %d of %s", c.at.Path(), own, granted, c.from.mac)
		if len(other) > 0 {
			n.Errorf("from %s, at %s: %v", c.from.v4, c.to.v4, other)
		}
		if none := !c.allowed(6, 8080, true) && !c.allowed(6, 8080, false) && !c.allowed(6, 9090, true) && !c.allowed(6, 9090, false); none != (granted == 0) {
			n.Errorf("from %s, at %s: %d frames of what is granted", c.from.v4, c.to.v4, granted)
		}
		if own < 20 {
			n.Errorf("at %s only %d frames of its own were captured: the test shows nothing", c.to.v4, own)
		}
	}
}

// isAnswer reports whether a frame is an ARP reply or a solicited neighbour advertisement.
func isAnswer(frame []byte, of party) bool {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return arp.Operation == layers.ARPReply && bytes.Equal(arp.SourceHwAddress, of.mac) && bytes.Equal(arp.SourceProtAddress, of.v4.AsSlice())
	}
	na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	return ok && na.Flags == 0x60 && (na.TargetAddress.Equal(of.v6.AsSlice()) || na.TargetAddress.Equal(of.own.AsSlice()))
}

// flowOf says what an IP packet is: 6 with the server's port, the lower one, and whether it is sent to that; 1 for ICMP other than
// neighbour and listener discovery; 0 for anything else.
func flowOf(frame []byte) (protocol, port uint16, toServer bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
		toServer = tcp.DstPort == 8080 || tcp.DstPort == 9090
		if toServer {
			return 6, uint16(tcp.DstPort), true
		}
		return 6, uint16(tcp.SrcPort), false
	}
	if p.Layer(layers.LayerTypeICMPv4) != nil {
		return 1, 0, false
	}
	if icmp, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && icmp.TypeCode.Type() < 130 {
		return 1, 0, false
	}
	return 0, 0, false
}

func describe(frame []byte) string {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	text := fmt.Sprintf("to %s type %#04x", net.HardwareAddr(frame[:6]), binary.BigEndian.Uint16(frame[12:]))
	if t := p.TransportLayer(); t != nil {
		text += " " + t.TransportFlow().String()
	}
	for _, l := range p.Layers() {
		text += " " + l.LayerType().String()
	}
	return text
}

// A node that does not obey, and shows what its host says to everybody whom it reaches, is refused by who receives it, although it
// names a grant that is its own.
func TestReceiverRefusesNoise(t *testing.T) {
	r := newRig(t)
	alpha, bravo := r.liar("alpha"), r.site("bravo", lab.PortPreserving)
	_, err := r.Grant(r.ctx, "node:alpha", "node:bravo", "--segment", "lan", "--allow", "tcp:8080", "--allow", "icmp")
	r.ok(err)
	r.addresses(alpha, bravo)
	a, b := r.party(alpha), r.party(bravo)
	tap, err := bravo.Host.Capture("loom0")
	r.ok(err)
	r.sh(alpha.Host, "ip neigh replace "+b.v4.String()+" lladdr "+b.mac.String()+" dev loom0") // its node answers nothing
	r.pings(alpha.Host, b.v4.String(), 10*time.Second)
	r.says(alpha)
	r.sh(alpha.Host, "arping -b -c 3 -w 3 -I loom0 "+b.v4.String()+" || true")
	r.pings(alpha.Host, b.v4.String(), 5*time.Second)
	_, granted, other := r.heard(tap, a, b, func(protocol, _ uint16, _ bool) bool { return protocol == 1 })
	if granted == 0 || len(other) > 0 {
		t.Errorf("bravo has received %d granted frames, and %v", granted, other)
	}
	for _, reason := range []string{"stays-here", "not-allowed", "not-router"} {
		if r.dropped(bravo)[reason] == 0 {
			t.Errorf("bravo has refused nothing as %s: %v", reason, r.dropped(bravo))
		}
	}
}

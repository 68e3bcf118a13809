// Package sample makes frames as hosts send them, for questions about policy: what becomes of such a frame? The node asks so for
// `etherloom explain`, the controller for the tests of a policy document; both ask about the same frames.
package sample

import (
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// Packet is an IP packet in a frame.
type Packet struct {
	From, To ether.MAC
	Src, Dst netip.Addr     // of one family
	Protocol ether.Protocol // ICMP stands for ICMPv6, too: an echo

	SrcPort     uint16 // of TCP and UDP: 0 for one that a client has; of an echo: its identifier
	DstPort     uint16 // of TCP and UDP
	Established bool   // of TCP: in a connection that is there; otherwise the first packet of one
	Reply       bool   // of an echo: it answers one
}

const (
	ephemeral = 49152 // RFC 6335 section 6
	hops      = 64
)

// network is an IP header.
type network interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
}

// Frame makes the packet and the frame around it, with every length and checksum right. A UDP datagram is empty, but for one to a DHCP
// server, which says what a client asks.
func (p *Packet) Frame() ([]byte, error) {
	protocol := layers.IPProtocol(p.Protocol)
	eth := &layers.Ethernet{SrcMAC: p.From[:], DstMAC: p.To[:], EthernetType: layers.EthernetTypeIPv4}
	var ip network
	if p.Src.Is4() {
		ip = &layers.IPv4{Version: 4, TTL: hops, Protocol: protocol, SrcIP: p.Src.AsSlice(), DstIP: p.Dst.AsSlice()}
	} else {
		if p.Protocol == ether.ProtoICMP {
			protocol = layers.IPProtocolICMPv6
		}
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: protocol, SrcIP: p.Src.AsSlice(), DstIP: p.Dst.AsSlice()}
	}
	return serialise(append([]gopacket.SerializableLayer{eth, ip}, p.upper(protocol, ip)...)...)
}

// upper is what is behind the IP header.
func (p *Packet) upper(protocol layers.IPProtocol, ip network) []gopacket.SerializableLayer {
	src := p.SrcPort
	if src == 0 {
		src = ephemeral
	}
	switch protocol {
	case layers.IPProtocolTCP:
		l := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(p.DstPort), SYN: !p.Established, ACK: p.Established, Window: 65535}
		_ = l.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{l}
	case layers.IPProtocolUDP:
		l := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(p.DstPort)}
		_ = l.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{l, gopacket.Payload(clientQuestion(p.DstPort, p.From))}
	case layers.IPProtocolICMPv6:
		typ := uint8(layers.ICMPv6TypeEchoRequest)
		if p.Reply {
			typ = layers.ICMPv6TypeEchoReply
		}
		l := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
		_ = l.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{l, &layers.ICMPv6Echo{Identifier: p.SrcPort, SeqNumber: 1}}
	case layers.IPProtocolICMPv4:
		typ := uint8(layers.ICMPv4TypeEchoRequest)
		if p.Reply {
			typ = layers.ICMPv4TypeEchoReply
		}
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: p.SrcPort, Seq: 1}}
	default:
		const enough = 20 // for any header that is looked at
		return []gopacket.SerializableLayer{gopacket.Payload(make([]byte, enough))}
	}
}

// clientQuestion is what a DHCP client with this MAC would ask a server at the port; nothing for another port, where nobody looks at
// what a datagram says.
func clientQuestion(port uint16, mac ether.MAC) []byte {
	switch port {
	case ether.PortDHCPServer:
		b := make([]byte, 236, 244)                // RFC 2131 section 2
		b[0], b[1], b[2] = ether.BootRequest, 1, 6 // over Ethernet
		copy(b[28:], mac[:])
		return append(b, 0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255) // a discover
	case ether.PortDHCPv6Server:
		return []byte{1, 0, 0, 1} // RFC 8415 section 8: a solicit
	default:
		return nil
	}
}

// ARP asks everybody who has an IPv4 address (RFC 826).
func ARP(from ether.MAC, src, dst netip.Addr) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: from[:], DstMAC: ether.Broadcast[:], EthernetType: layers.EthernetTypeARP}
	return serialise(eth, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: ether.ARPRequest,
		SourceHwAddress: from[:], SourceProtAddress: src.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: dst.AsSlice(),
	})
}

// Bare is a frame of an EtherType at which nobody looks, as short as frames are.
func Bare(from, to ether.MAC, t ether.Type) ([]byte, error) {
	const shortest = 46 // IEEE 802.3 section 3.2.8
	return serialise(&layers.Ethernet{SrcMAC: from[:], DstMAC: to[:], EthernetType: layers.EthernetType(t)}, gopacket.Payload(make([]byte, shortest)))
}

func serialise(list ...gopacket.SerializableLayer) ([]byte, error) {
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...)
	return b.Bytes(), err
}

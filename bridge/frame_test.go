package bridge

import (
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

func udpFrame(dst, src ether.MAC, from, to string, sport, dport int, payload string) []byte {
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
	sender, receiver := netip.MustParseAddr(from), netip.MustParseAddr(to)
	var ip gopacket.SerializableLayer
	if sender.Is4() {
		v4 := &layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, Flags: layers.IPv4DontFragment, SrcIP: sender.AsSlice(), DstIP: receiver.AsSlice(),
		}
		_ = udp.SetNetworkLayerForChecksum(v4)
		ip = v4
	} else {
		v6 := &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: sender.AsSlice(), DstIP: receiver.AsSlice(),
		}
		_ = udp.SetNetworkLayerForChecksum(v6)
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = v6
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload(payload))
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

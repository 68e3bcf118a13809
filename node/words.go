package node

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/etherloom/etherloom/ether"
)

// words says in one line what a frame is.
func words(data []byte) string {
	f, err := ether.ParseInside(data)
	switch {
	case errors.Is(err, ether.ErrShort) || errors.Is(err, ether.ErrPartialTag):
		return fmt.Sprintf("%d bytes that are no whole Ethernet header", len(data))
	case err != nil:
		return fmt.Sprintf("%s > %s, VLAN tags that no segment carries, %d bytes", f.Src, f.Dst, len(data))
	}
	tag := ""
	switch {
	case f.Inner != 0:
		tag = fmt.Sprintf("VLAN tag %s, ", f.Inner)
	case f.Tagged:
		tag = fmt.Sprintf("VLAN tag %d, ", f.VLAN())
	}
	return fmt.Sprintf("%s > %s, %s%s, %d bytes", f.Src, f.Dst, tag, payloadWords(&f), len(data))
}

func payloadWords(f *ether.Frame) string {
	switch f.Type {
	case ether.TypeARP:
		if a, ok := ether.ParseARP(f.Payload); ok {
			sender, target := netip.AddrFrom4(a.SenderIP), netip.AddrFrom4(a.TargetIP)
			if a.Op == ether.ARPReply {
				return fmt.Sprintf("ARP: %s is at %s", sender, a.SenderMAC)
			}
			return fmt.Sprintf("ARP: %s asks who has %s", sender, target)
		}
		return "ARP that is cut or not for IPv4"
	case ether.TypeIPv4:
		if ip, ok := ether.ParseIPv4(f.Payload); ok {
			what := upperWords(ip.Protocol, ip.Payload)
			if ip.Offset > 0 {
				what = "later fragment"
			}
			return fmt.Sprintf("%s > %s, %s", netip.AddrFrom4(ip.Src), netip.AddrFrom4(ip.Dst), what)
		}
		return "IPv4 with a wrong header"
	case ether.TypeIPv6:
		if ip, ok := ether.ParseIPv6(f.Payload); ok {
			what := "later fragment, or extension headers that hide what it is"
			if protocol, payload, _, ok := ip.Upper(); ok {
				what = upperWords(protocol, payload)
			}
			return fmt.Sprintf("%s > %s, %s", netip.AddrFrom16(ip.Src), netip.AddrFrom16(ip.Dst), what)
		}
		return "IPv6 with a wrong header"
	case 0:
		return "802.3 length in place of an EtherType"
	default:
		return fmt.Sprintf("EtherType 0x%04x", uint16(f.Type))
	}
}

// upperWords names what an IP packet holds.
func upperWords(protocol ether.Protocol, p []byte) string {
	switch protocol {
	case ether.ProtoICMP, ether.ProtoICMPv6:
		return icmpWords(protocol, p)
	case ether.ProtoTCP, ether.ProtoUDP:
		name := map[ether.Protocol]string{ether.ProtoTCP: "TCP", ether.ProtoUDP: "UDP"}[protocol]
		if src, dst, ok := ether.Ports(p); ok {
			return fmt.Sprintf("%s port %d > %d", name, src, dst)
		}
		return name
	default:
		return fmt.Sprintf("IP protocol %d", protocol)
	}
}

// icmpWords names the messages that people know.
func icmpWords(protocol ether.Protocol, p []byte) string {
	name, request, reply := "ICMP", byte(8), byte(0) // RFC 792
	if protocol == ether.ProtoICMPv6 {
		name, request, reply = "ICMPv6", 128, 129 // RFC 4443 section 4
	}
	switch _, nd, _ := ether.ParseND(p); {
	case len(p) == 0:
		return name
	case p[0] == request:
		return "echo request"
	case p[0] == reply:
		return "echo reply"
	case protocol == ether.ProtoICMPv6 && nd:
		return "neighbour discovery"
	default:
		return name
	}
}

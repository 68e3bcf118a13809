package policy

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// serialize writes layers as they are sent, with their lengths.
func serialize(t *testing.T, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, l...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func TestClassify(t *testing.T) {
	four := func(p layers.IPProtocol, options ...layers.IPv4Option) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}, Options: options}
	}
	from6, to6 := addressV6(1), addressV6(2)
	six := func(next layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: next, SrcIP: from6[:], DstIP: to6[:]}
	}
	tuple4 := func(p ether.Protocol, from, to uint16) Tuple {
		return Tuple{Src: addressOf(1), Dst: addressOf(2), SrcPort: from, DstPort: to, Protocol: p}
	}
	tuple6 := func(p ether.Protocol, from, to uint16) Tuple {
		return Tuple{Src: from6, Dst: to6, SrcPort: from, DstPort: to, Protocol: p}
	}
	eth := func(typ layers.EthernetType, l ...gopacket.SerializableLayer) []byte {
		return serialize(t, append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: own[:], DstMAC: other[:], EthernetType: typ}}, l...)...)
	}
	ip4 := func(l ...gopacket.SerializableLayer) []byte { return eth(layers.EthernetTypeIPv4, l...) }
	ip6 := func(l ...gopacket.SerializableLayer) []byte { return eth(layers.EthernetTypeIPv6, l...) }
	payload := func(b []byte) gopacket.Payload { return b }
	data := func(n int) gopacket.Payload { return make([]byte, n) }
	const syn, ack, fin, rst = 1, 2, 4, 8
	segment := func(flags int) *layers.TCP {
		return &layers.TCP{SrcPort: 1024, DstPort: 80, DataOffset: 5, SYN: flags&syn != 0, ACK: flags&ack != 0, FIN: flags&fin != 0, RST: flags&rst != 0}
	}
	question := &layers.UDP{SrcPort: 1024, DstPort: 53}
	timestamp := layers.IPv4Option{OptionType: 68, OptionLength: 12, OptionData: make([]byte, 10)}
	route := layers.IPv4Option{OptionType: 131, OptionLength: 7, OptionData: []byte{4, 192, 0, 2, 9}}
	echo4 := func(typ uint8) *layers.ICMPv4 {
		return &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, 0), Id: 77, Seq: 1}
	}
	message6 := func(typ uint8, rest ...byte) gopacket.Payload {
		return append([]byte{typ, 0, 0, 0}, append(rest, make([]byte, 24)...)...)
	}
	options := payload([]byte{byte(ether.ProtoTCP), 0, 1, 4, 0, 0, 0, 0})
	segmentsLeft := payload([]byte{byte(ether.ProtoTCP), 2, 4, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8})
	head := func(next ether.Protocol, field uint16) gopacket.Payload {
		return []byte{byte(next), 0, byte(field >> 8), byte(field), 0, 0, 0, 9}
	}
	quoted4, quoted6 := serialize(t, four(6, timestamp), segment(syn)), serialize(t, six(60), options, segment(syn))
	echoQuoted4, echoQuoted6 := serialize(t, four(1), echo4(8)), serialize(t, six(58), message6(128, 0, 77, 0, 1))
	unquotable := bytes.Clone(quoted4)
	unquotable[7] = 1
	later6 := serialize(t, six(44), head(ether.ProtoTCP, 8), segment(syn))
	wrong := bytes.Clone(quoted4)
	wrong[0] = 0x44
	plain4 := Class{Kind: Packet, Type: ether.TypeIPv4}
	plain6 := Class{Kind: Packet, Type: ether.TypeIPv6}
	with := func(c Class, tuple Tuple, flags string) Class {
		c.Tuple = tuple
		for _, f := range flags {
			switch f {
			case 'o':
				c.Opens = true
			case 'r':
				c.Reply = true
			case 'e':
				c.Ends = true
			}
		}
		return c
	}
	errorAbout := func(c Class, tuple, about Tuple) Class {
		c.Kind, c.Tuple, c.About = ICMPError, tuple, about
		return c
	}
	icmp4, icmp6 := tuple4(1, 0, 0), tuple6(1, 0, 0)
	unreachable4 := func(about []byte) []byte {
		return ip4(four(1), payload(append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about...)))
	}
	tooBig6 := func(about []byte) []byte {
		return ip6(six(58), payload(append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, about...)))
	}
	unclear := Class{Kind: Unclear}
	for _, c := range []struct {
		name string
		in   []byte
		want Class // of Unclear only the kind counts
	}{
		{"SYN", ip4(four(6), segment(syn)), with(plain4, tuple4(6, 1024, 80), "o")},
		{"SYN and ACK", ip4(four(6), segment(syn|ack)), with(plain4, tuple4(6, 1024, 80), "")},
		{"ACK", ip4(four(6), segment(ack), data(9)), with(plain4, tuple4(6, 1024, 80), "")},
		{"FIN", ip4(four(6), segment(fin|ack)), with(plain4, tuple4(6, 1024, 80), "e")},
		{"RST", ip4(four(6), segment(rst)), with(plain4, tuple4(6, 1024, 80), "e")},
		{"TCP behind IPv4 options", ip4(four(6, timestamp), segment(syn)), with(plain4, tuple4(6, 1024, 80), "o")},
		{"TCP of 19 bytes", ip4(four(6), payload(serialize(t, segment(syn))[:19])), unclear},
		{"TCP of nothing", ip4(four(6)), unclear},
		{"UDP", ip4(four(17), question), with(plain4, tuple4(17, 1024, 53), "")},
		{"UDP of 7 bytes", ip4(four(17), data(7)), unclear},
		{"UDP behind padding", append(ip4(four(17), question), make([]byte, 18)...), with(plain4, tuple4(17, 1024, 53), "")},
		{"UDP that its IPv4 length cuts, with padding behind", append(ip4(four(17), data(7)), make([]byte, 18)...), unclear},
		{"GRE", ip4(four(47)), with(plain4, tuple4(47, 0, 0), "")},
		{"SCTP has no ports here", ip4(four(132), data(12)), with(plain4, tuple4(132, 0, 0), "")},
		{"IGMP", ip4(four(2), data(8)), with(plain4, tuple4(2, 0, 0), "")},
		{"source route", ip4(four(6, route), segment(syn)), unclear},
		{"first fragment", ip4(&layers.IPv4{Version: 4, Flags: layers.IPv4MoreFragments, Protocol: 17, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}, question), with(plain4, tuple4(17, 1024, 53), "")},
		{"later fragment", ip4(&layers.IPv4{Version: 4, FragOffset: 3, Protocol: 17, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}}, question), unclear},
		{"ICMPv6 in IPv4", ip4(four(58), message6(128)), unclear},
		{"IPv6 under IPv4's type", eth(layers.EthernetTypeIPv4, payload(quoted6)), unclear},
		{"cut IPv4", ip4(four(6), segment(syn))[:40], unclear},

		{"echo request", ip4(four(1), echo4(8)), with(plain4, tuple4(1, 77, 77), "o")},
		{"echo reply", ip4(four(1), echo4(0)), with(plain4, tuple4(1, 77, 77), "r")},
		{"timestamp request", ip4(four(1), echo4(13)), with(plain4, icmp4, "o")},
		{"type 128 of ICMPv4", ip4(four(1), echo4(128)), with(plain4, icmp4, "o")},
		{"redirect", ip4(four(1), echo4(5)), unclear},
		{"router advertisement of ICMPv4", ip4(four(1), echo4(9)), unclear},
		{"ICMP of 7 bytes", ip4(four(1), data(7)), unclear},
		{"unreachable", unreachable4(quoted4), errorAbout(plain4, icmp4, tuple4(6, 1024, 80))},
		{"unreachable, eight bytes quoted", unreachable4(quoted4[:32+8]), errorAbout(plain4, icmp4, tuple4(6, 1024, 80))},
		{"unreachable, seven bytes quoted", unreachable4(quoted4[:32+7]), errorAbout(plain4, icmp4, Tuple{})},
		{"unreachable, about an echo", unreachable4(echoQuoted4), errorAbout(plain4, icmp4, tuple4(1, 77, 77))},
		{"unreachable, about GRE", unreachable4(serialize(t, four(47), data(8))), errorAbout(plain4, icmp4, tuple4(47, 0, 0))},
		{"unreachable, about a later fragment", unreachable4(unquotable), errorAbout(plain4, icmp4, Tuple{})},
		{"unreachable, header too short", unreachable4(wrong), errorAbout(plain4, icmp4, Tuple{})},
		{"unreachable, about nothing", unreachable4(nil), errorAbout(plain4, icmp4, Tuple{})},
		{"unreachable, about IPv6", unreachable4(quoted6), errorAbout(plain4, icmp4, Tuple{})},
		{"source quench", ip4(four(1), payload(append([]byte{4, 0, 0, 0, 0, 0, 0, 0}, quoted4...))), errorAbout(plain4, icmp4, tuple4(6, 1024, 80))},
		{"time exceeded", ip4(four(1), payload(append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, quoted4...))), errorAbout(plain4, icmp4, tuple4(6, 1024, 80))},
		{"parameter problem", ip4(four(1), payload(append([]byte{12, 0, 0, 0, 0, 0, 0, 0}, quoted4...))), errorAbout(plain4, icmp4, tuple4(6, 1024, 80))},

		{"SYN by IPv6", ip6(six(6), segment(syn)), with(plain6, tuple6(6, 1024, 80), "o")},
		{"UDP by IPv6", ip6(six(17), question), with(plain6, tuple6(17, 1024, 53), "")},
		{"TCP behind options", ip6(six(60), options, segment(syn)), with(plain6, tuple6(6, 1024, 80), "o")},
		{"TCP behind cut options", ip6(six(60), payload([]byte{6, 9, 1, 4, 0, 0, 0, 0})), unclear},
		{"TCP behind a routing header", ip6(six(43), segmentsLeft, segment(syn)), unclear},
		{"atomic fragment", ip6(six(44), head(ether.ProtoTCP, 0), segment(syn)), with(plain6, tuple6(6, 1024, 80), "o")},
		{"first fragment of IPv6", ip6(six(44), head(ether.ProtoUDP, 1), question), with(plain6, tuple6(17, 1024, 53), "")},
		{"later fragment of IPv6", ip6(six(44), head(ether.ProtoUDP, 8), question), unclear},
		{"ICMP in IPv6", ip6(six(1), echo4(8)), unclear},
		{"no next header", ip6(six(59)), with(plain6, tuple6(59, 0, 0), "")},
		{"echo request by IPv6", ip6(six(58), message6(128, 0, 77, 0, 1)), with(plain6, tuple6(1, 77, 77), "o")},
		{"echo reply by IPv6", ip6(six(58), message6(129, 0, 77, 0, 1)), with(plain6, tuple6(1, 77, 77), "r")},
		{"listener query", ip6(six(58), message6(130)), with(plain6, icmp6, "o")},
		{"listener report", ip6(six(58), message6(143)), with(plain6, icmp6, "o")},
		{"router solicitation", ip6(six(58), message6(133)), with(plain6, icmp6, "o")},
		{"ICMPv6 without a type", ip6(six(58)), unclear},
		{"too big", tooBig6(quoted6), errorAbout(plain6, icmp6, tuple6(6, 1024, 80))},
		{"too big, eight bytes quoted", tooBig6(quoted6[:48+8]), errorAbout(plain6, icmp6, tuple6(6, 1024, 80))},
		{"too big, seven bytes quoted", tooBig6(quoted6[:48+7]), errorAbout(plain6, icmp6, Tuple{})},
		{"too big, about an echo", tooBig6(echoQuoted6), errorAbout(plain6, icmp6, tuple6(1, 77, 77))},
		{"too big, about a later fragment", tooBig6(later6), errorAbout(plain6, icmp6, Tuple{})},
		{"too big, about IPv4", tooBig6(append(bytes.Clone(quoted4), make([]byte, 20)...)), errorAbout(plain6, icmp6, Tuple{})},

		{"ARP", arp(t, 1, own, ownV4), Class{Kind: Resolution, Type: ether.TypeARP}},
		{"solicitation", ip6(six(58), payload(nd(135, otherV6, 0, own))), Class{Kind: Resolution, Type: ether.TypeIPv6, Tuple: icmp6}},
		{"advertisement", ip6(six(58), payload(nd(136, otherV6, 0, own))), Class{Kind: Resolution, Type: ether.TypeIPv6, Tuple: icmp6}},
		{"another type", eth(0x88b5, data(9)), Class{Kind: Opaque, Type: 0x88b5}},
		{"RARP", eth(layers.EthernetType(ether.TypeRARP), data(28)), Class{Kind: Opaque, Type: ether.TypeRARP}},
		{"SNAP", eth(9, payload([]byte{0xaa, 0xaa, 3, 0, 0, 0, 0x80, 0x9b, 1})), Class{Kind: Opaque}},
		{"priority tag", eth(layers.EthernetTypeDot1Q, &layers.Dot1Q{Priority: 5, Type: layers.EthernetTypeIPv4}, four(17), question), with(plain4, tuple4(17, 1024, 53), "")},
	} {
		f, err := ether.Parse(c.in)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := Classify(&f)
		if got.Kind != c.want.Kind {
			t.Errorf("%s: kind %d, want %d", c.name, got.Kind, c.want.Kind)
		}
		if c.want.Dst = f.Dst; c.want.Kind != Unclear && got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A frame of which ports are said really has them, as another decoder reads it.
func FuzzClassify(f *testing.F) {
	f.Add(uint16(ether.TypeARP), []byte{0, 1, 8, 0, 6, 4})
	f.Add(uint16(ether.TypeIPv4), packetV4(addressOf(1), addressOf(2), ether.ProtoTCP, 1, 0, true, tcp(9, 80, flagSYN, 4)))
	f.Add(uint16(ether.TypeIPv4), packetV4(addressOf(1), addressOf(2), ether.ProtoICMP, 1, 0, false, append([]byte{3, 3, 0, 0, 0, 0, 0, 0},
		packetV4(addressOf(2), addressOf(1), ether.ProtoUDP, 1, 0, false, udp(9, 80, 4))...)))
	f.Add(uint16(ether.TypeIPv6), packetV6(addressV6(1), addressV6(2), ether.ProtoUDP, udp(9, 80, 4)))
	f.Add(uint16(ether.TypeIPv6), fragmentOf(true, ether.ProtoTCP, 1, 0, true, tcp(9, 80, flagSYN, 4)).Payload)
	f.Fuzz(func(t *testing.T, typ uint16, p []byte) {
		fr := frameOf(ether.Type(typ), 1, 2, p)
		c := Classify(&fr)
		if term, ok := TermOf(&fr); ok {
			if again, err := ParseTerm(term.String()); err != nil || again != term {
				t.Fatalf("%q is read as %v: %v", term, again, err)
			}
		}
		if c.Kind != Packet || c.Tuple.SrcPort|c.Tuple.DstPort == 0 {
			return
		}
		first := layers.LayerTypeIPv4
		if fr.Type == ether.TypeIPv6 {
			first = layers.LayerTypeIPv6
		}
		decoded := gopacket.NewPacket(p, first, gopacket.DecodeOptions{NoCopy: true, DecodeStreamsAsDatagrams: true})
		from, to := c.Tuple.SrcPort, c.Tuple.DstPort
		switch l := decoded.TransportLayer().(type) {
		case *layers.TCP:
			if c.Tuple.Protocol != ether.ProtoTCP || uint16(l.SrcPort) != from || uint16(l.DstPort) != to || c.Opens != (l.SYN && !l.ACK) || c.Ends != (l.FIN || l.RST) {
				t.Fatalf("%+v, want %+v", c, l)
			}
		case *layers.UDP:
			if c.Tuple.Protocol != ether.ProtoUDP || uint16(l.SrcPort) != from || uint16(l.DstPort) != to {
				t.Fatalf("%+v, want %+v", c, l)
			}
		}
		if l, ok := decoded.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && (c.Tuple.Protocol != ether.ProtoICMP || l.Id != from) {
			t.Fatalf("%+v, want %+v", c, l)
		}
		if l := decoded.NetworkLayer(); l != nil && !bytes.HasSuffix(c.Tuple.Dst[:], l.NetworkFlow().Dst().Raw()) {
			t.Fatalf("%+v, want %+v", c, l)
		}
		if c.Tuple.Protocol == ether.ProtoICMP && from != to || c.Opens && c.Reply || len(p) < 28 {
			t.Fatalf("%+v of %x", c, binary.BigEndian.AppendUint16(nil, typ))
		}
	})
}

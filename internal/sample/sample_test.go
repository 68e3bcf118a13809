package sample

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

var (
	one, two = ether.MAC{2, 0, 0, 0, 0, 1}, ether.MAC{2, 0, 0, 0, 0, 2}
	a4, b4   = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6   = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// Whoever may use these addresses may send every frame, and it is what it was to be.
func TestPacket(t *testing.T) {
	station := policy.NewStation(one, []netip.Addr{a4, a6}, false)
	for _, c := range []struct {
		name         string
		p            Packet
		opens, reply bool
		src, dst     uint16
		last         [2]gopacket.LayerType
	}{
		{"tcp", Packet{Protocol: ether.ProtoTCP, DstPort: 22}, true, false, ephemeral, 22, [2]gopacket.LayerType{layers.LayerTypeTCP, layers.LayerTypeTCP}},
		{
			"tcp that goes on",
			Packet{Protocol: ether.ProtoTCP, SrcPort: 7, DstPort: 8, Established: true},
			false, false, 7, 8,
			[2]gopacket.LayerType{layers.LayerTypeTCP, layers.LayerTypeTCP},
		},
		{"udp", Packet{Protocol: ether.ProtoUDP, DstPort: 9}, false, false, ephemeral, 9, [2]gopacket.LayerType{layers.LayerTypeUDP, layers.LayerTypeUDP}},
		{
			"DHCP",
			Packet{Protocol: ether.ProtoUDP, SrcPort: 68, DstPort: 67},
			false, false, 68, 67,
			[2]gopacket.LayerType{layers.LayerTypeDHCPv4, layers.LayerTypeUDP},
		},
		{
			"DHCPv6",
			Packet{Protocol: ether.ProtoUDP, SrcPort: 546, DstPort: 547},
			false, false, 546, 547,
			[2]gopacket.LayerType{layers.LayerTypeUDP, layers.LayerTypeDHCPv6},
		},
		{"echo", Packet{Protocol: ether.ProtoICMP, SrcPort: 5}, true, false, 5, 5, [2]gopacket.LayerType{layers.LayerTypeICMPv4, layers.LayerTypeICMPv6Echo}},
		{
			"answer",
			Packet{Protocol: ether.ProtoICMP, SrcPort: 5, Reply: true},
			false, true, 5, 5,
			[2]gopacket.LayerType{layers.LayerTypeICMPv4, layers.LayerTypeICMPv6Echo},
		},
		{"another", Packet{Protocol: 47}, false, false, 0, 0, [2]gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeIPv6}},
	} {
		for i, ends := range [2][2]netip.Addr{{a4, b4}, {a6, b6}} {
			p := c.p
			p.From, p.To, p.Src, p.Dst = one, two, ends[0], ends[1]
			data, err := p.Frame()
			must(t, err)
			f, err := ether.Parse(data)
			must(t, err)
			class := policy.Classify(&f)
			want := policy.Tuple{Src: p.Src.As16(), Dst: p.Dst.As16(), SrcPort: c.src, DstPort: c.dst, Protocol: p.Protocol}
			if class.Kind != policy.Packet || class.Tuple != want || class.Opens != c.opens || class.Reply != c.reply {
				t.Errorf("%s, %v: it is %+v", c.name, p.Src, class)
			}
			if _, v := station.Check(&f, false); v != policy.Pass {
				t.Errorf("%s, %v: its sender may not send it: %v", c.name, p.Src, v)
			}
			if read := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default); read.Layer(c.last[i]) == nil {
				t.Errorf("%s: another decoder reads %v", c.name, read)
			}
		}
	}
}

func TestARP(t *testing.T) {
	data, err := ARP(one, a4, b4)
	must(t, err)
	f, err := ether.Parse(data)
	must(t, err)
	arp, ok := ether.ParseARP(f.Payload)
	want := ether.ARP{Op: ether.ARPRequest, SenderMAC: one, SenderIP: a4.As4(), TargetIP: b4.As4()}
	if !ok || arp != want || f.Src != one || f.Dst != ether.Broadcast || f.Type != ether.TypeARP {
		t.Errorf("found %+v in %+v", arp, f)
	}
}

func TestBare(t *testing.T) {
	data, err := Bare(one, two, 0x88b5)
	must(t, err)
	if f, err := ether.Parse(data); err != nil || f.Src != one || f.Dst != two || f.Type != 0x88b5 || len(data) != 60 {
		t.Errorf("found %+v, %v", f, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

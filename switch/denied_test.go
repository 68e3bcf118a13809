package vswitch

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// sshOnly lets node 1 reach node 2's port 22, and observes what port 80 would be.
func (r *rig) sshOnly() {
	r.generation++
	rules := policy.Rules{
		Generation: r.generation, Self: 1, Stations: map[policy.Identity]*policy.Station{},
		Grants: []policy.Grant{
			{ID: 3, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Allow: terms(r.t, "tcp:22")},
			{ID: 4, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Allow: terms(r.t, "tcp:80"), Observe: true},
			{ID: grantID, Sources: []policy.Identity{2}, Targets: []policy.Identity{1}, Allow: terms(r.t, "tcp:22")},
		},
	}
	for id := policy.Identity(1); id <= 4; id++ {
		rules.Stations[id] = policy.NewStation(macOf(id), []netip.Addr{addrOf(id), addr6Of(id)}, false)
	}
	r.seg.SetPolicy(policy.Compile(rules), r.now)
}

func addrOf(id policy.Identity) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}) }

func addr6Of(id policy.Identity) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(id)})
}

// ipFrame makes a frame of an IP packet from a node to another.
func ipFrame(from, to policy.Identity, v6 bool, upper ...gopacket.SerializableLayer) []byte {
	src, dst := macOf(from), macOf(to)
	eth := &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}
	protocol := map[gopacket.LayerType]layers.IPProtocol{
		layers.LayerTypeTCP: layers.IPProtocolTCP, layers.LayerTypeUDP: layers.IPProtocolUDP, layers.LayerTypeICMPv4: layers.IPProtocolICMPv4,
		layers.LayerTypeICMPv6: layers.IPProtocolICMPv6, gopacket.LayerTypePayload: 47,
	}[upper[0].LayerType()]
	var ip interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: addrOf(from).AsSlice(), DstIP: addrOf(to).AsSlice()}
	if v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: addr6Of(from).AsSlice(), DstIP: addr6Of(to).AsSlice()}
	}
	for _, l := range upper {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = c.SetNetworkLayerForChecksum(ip)
		}
	}
	b := gopacket.NewSerializeBuffer()
	list := append([]gopacket.SerializableLayer{eth, ip}, upper...)
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func syn(port layers.TCPPort) *layers.TCP {
	return &layers.TCP{SrcPort: 4242, DstPort: port, Seq: 1000, SYN: true, Window: 65535}
}

// What is refused is counted by what it is and who sent it, once for each kind and not for each source port.
func TestDenied(t *testing.T) {
	r := newRig(t)
	r.sshOnly()
	arp := "\x00\x01\x08\x00\x06\x04\x00\x01" + "\x02\x00\x00\x00\x00\x01" + "\xc0\x00\x02\x03" + "\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x02"
	again := syn(80)
	again.SrcPort = 9
	first := Denial{
		Drop: Drop(policy.NotAllowed), Source: 1, Receiver: 2, Type: ether.TypeIPv4, Protocol: ether.ProtoTCP, Src: addrOf(1), Dst: addrOf(2),
		SrcMAC: macOf(1), DstMAC: macOf(2), Count: 1, First: r.now, Last: r.now,
	}
	web, telnet, six, group, spoof, stranger := first, first, first, first, first, first
	web.DstPort, web.Observed, web.Count = 80, 4, 2
	telnet.DstPort = 23
	six.Type, six.Src, six.Dst, six.Protocol = ether.TypeIPv6, addr6Of(1), addr6Of(2), ether.ProtoICMP
	group.Drop, group.Receiver, group.Type, group.Protocol, group.Group, group.DstMAC = Drop(policy.NoGrant), 0, experimental, 0, true, ether.Broadcast
	group.Src, group.Dst = netip.Addr{}, netip.Addr{}
	spoof.Drop, spoof.Receiver, spoof.Type, spoof.Protocol, spoof.Src, spoof.Group = Drop(policy.ARPSender), 0, ether.TypeARP, 0, addrOf(3), true
	spoof.DstMAC = ether.Broadcast
	stranger.Drop, stranger.Source, stranger.Receiver = Drop(policy.WrongGrant), 3, 1
	stranger.Src, stranger.Dst, stranger.SrcMAC, stranger.DstMAC, stranger.DstPort = addrOf(3), addrOf(1), macOf(3), macOf(1), 22
	echo := []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 77, SeqNumber: 1},
	}
	frames := []struct {
		from policy.Identity
		in   []byte
		want *Denial
	}{
		{1, ipFrame(1, 2, false, syn(80)), nil},
		{1, ipFrame(1, 2, false, again), &web},
		{1, ipFrame(1, 2, false, syn(23)), &telnet},
		{1, ipFrame(1, 2, true, echo...), &six},
		{1, data(ether.Broadcast, macOf(1), experimental, ""), &group},
		{1, data(ether.Broadcast, macOf(1), ether.TypeARP, arp), &spoof},
		{3, ipFrame(3, 1, false, syn(22)), &stranger},
		{1, ipFrame(1, 2, false, syn(22)), nil},                        // passes
		{1, data(macOf(1), macOf(1), experimental, ""), nil},           // hairpin
		{1, data(ether.MAC{1, 0x80, 0xc2}, macOf(1), 38, "\x42"), nil}, // reserved
		{1, make([]byte, 5), nil},                                      // says nothing
	}
	var want []Denial
	for _, f := range frames {
		r.seg.Explain(r.ports[f.from], f.in, Tag{Source: f.from, Grant: grantID}, r.now)
		r.enter(f.from, f.in)
		if f.want != nil {
			want = append(want, *f.want)
		}
	}
	got, others := r.seg.Denied()
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing %+v", w)
		}
	}
	if len(got) != len(want) || others != 0 {
		t.Errorf("denied %+v and %d others, want %d", got, others, len(want))
	}
	if again, others := r.seg.Denied(); len(again) != 0 || others != 0 {
		t.Errorf("told twice: %+v, %d", again, others)
	}
}

// A scan fills a bounded table; the rest is counted. A frame of a kind that is there costs no memory.
func TestDeniedIsBounded(t *testing.T) {
	r := newRig(t)
	r.sshOnly()
	frame := ipFrame(1, 2, false, syn(80))
	if n := testing.AllocsPerRun(100, func() { r.enter(1, frame) }); n != 0 {
		t.Errorf("%v allocations for each frame", n)
	}
	r.seg.Denied()
	const port = 14 + 20 + 2
	for p := range maxDenials + 50 {
		binary.BigEndian.PutUint16(frame[port:], uint16(1000+p))
		r.enter(1, frame)
	}
	r.now = r.now.Add(time.Second)
	binary.BigEndian.PutUint16(frame[port:], 1000)
	r.enter(1, frame)
	list, others := r.seg.Denied()
	if len(list) != maxDenials || others != 50 {
		t.Errorf("%d kinds and %d others", len(list), others)
	}
	if i := slices.IndexFunc(list, func(d Denial) bool { return d.DstPort == 1000 }); i < 0 || list[i].Count != 2 || !list[i].Last.Equal(r.now) || list[i].First.Equal(r.now) {
		t.Errorf("port 1000: %+v", list)
	}
}

func TestBenign(t *testing.T) {
	for d := range numDrops {
		want := d == DropReserved || d == DropHairpin || d == DropNoReceiver || d == DropRate || d == Answered || d == Drop(policy.OtherCopy)
		if d.benign() != want {
			t.Errorf("%q is benign: %t", d.Code(), d.benign())
		}
	}
}

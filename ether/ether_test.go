package ether

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func frame(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	dst = []byte{2, 0, 0, 0, 0, 1}
	src = []byte{2, 0, 0, 0, 0, 2}
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      []byte
		err     error
		typ     Type
		tagged  bool
		tci     uint16
		payload string
	}{
		{name: "empty", err: ErrShort},
		{name: "13 bytes", in: make([]byte, 13), err: ErrShort},
		{name: "header only", in: frame(dst, src, []byte{8, 0}), typ: TypeIPv4},
		{name: "arp", in: frame(dst, src, []byte{8, 6}, []byte("x")), typ: TypeARP, payload: "x"},
		{name: "802.3 length", in: frame(dst, src, []byte{0, 5}, []byte("hello")), typ: 0, payload: "hello"},
		{name: "largest length", in: frame(dst, src, []byte{0x05, 0xff}), typ: 0},
		{name: "smallest type", in: frame(dst, src, []byte{0x06, 0x00}), typ: 0x0600},
		// V08: a tag that is cut.
		{name: "tag cut at 14", in: frame(dst, src, []byte{0x81, 0}), err: ErrPartialTag},
		{name: "tag cut at 15", in: frame(dst, src, []byte{0x81, 0, 0}), err: ErrPartialTag},
		{name: "tag cut at 16", in: frame(dst, src, []byte{0x81, 0, 0, 1}), err: ErrPartialTag},
		{name: "tag cut at 17", in: frame(dst, src, []byte{0x81, 0, 0, 1, 8}), err: ErrPartialTag},
		{
			name: "priority tag", in: frame(dst, src, []byte{0x81, 0, 0xa0, 0, 0x86, 0xdd}, []byte("y")),
			typ: TypeIPv6, tagged: true, tci: 0xa000, payload: "y",
		},
		{
			name: "vlan 4095", in: frame(dst, src, []byte{0x81, 0, 0x0f, 0xff, 8, 0}),
			typ: TypeIPv4, tagged: true, tci: 0x0fff,
		},
		// V07: a service tag is payload of its own type, never half stripped.
		{name: "QinQ", in: frame(dst, src, []byte{0x88, 0xa8, 0, 1, 0x81, 0}), typ: TypeQinQ, payload: "\x00\x01\x81\x00"},
	} {
		f, err := Parse(c.in)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: err = %v, want %v", c.name, err, c.err)
			continue
		}
		if err != nil {
			continue
		}
		if f.Type != c.typ || f.Tagged != c.tagged || f.TCI != c.tci || string(f.Payload) != c.payload {
			t.Errorf("%s: %+v", c.name, f)
		}
		if f.Dst != MAC(dst) || f.Src != MAC(src) || f.VLAN() != c.tci&0xfff {
			t.Errorf("%s: addresses or VLAN wrong: %+v", c.name, f)
		}
	}
}

// F04: which addresses are for the wire only.
func TestReserved(t *testing.T) {
	for addr, want := range map[string]bool{
		"01:80:c2:00:00:00": true, "01:80:c2:00:00:02": true, "01:80:c2:00:00:03": true, "01:80:c2:00:00:0e": true,
		"01:80:c2:00:00:0f": true, "01:80:c2:00:00:10": false, "01:80:c2:00:00:14": false, "01:80:c2:00:00:15": false,
		"01:00:0c:cc:cc:cc": true, "01:00:0c:cc:cc:cd": true, "01:00:0c:cd:cd:cd": true, "01:00:0c:cc:cc:ce": false,
		"00:e0:2b:00:00:00": true, "00:e0:2b:00:00:06": true, "00:e0:2b:00:00:04": true, "00:e0:2b:00:00:05": false, "01:1b:19:00:00:00": false, "09:00:07:ff:ff:ff": false,
		"ff:ff:ff:ff:ff:ff": false, "02:00:00:00:00:01": false, "01:80:c2:01:00:00": false,
	} {
		m, err := ParseMAC(addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.IsReserved(); got != want {
			t.Errorf("IsReserved(%s) = %v", addr, got)
		}
	}
}

func TestMAC(t *testing.T) {
	for _, bad := range []string{"", "02:00:00:00:00", "02:00:00:00:00:01:02:03", "x"} {
		if _, err := ParseMAC(bad); err == nil {
			t.Errorf("ParseMAC(%q) accepted", bad)
		}
	}
	m, _ := ParseMAC("02:00:5e:10:00:01")
	if got := m.LinkLocal(); got != netip.MustParseAddr("fe80::5eff:fe10:1") {
		t.Errorf("LinkLocal = %v", got)
	}
	if !m.IsStation() || Broadcast.IsStation() || (MAC{}).IsStation() || (MAC{1}).IsStation() {
		t.Error("IsStation is wrong")
	}
}

func TestGroupMAC(t *testing.T) {
	for group, want := range map[string]MAC{
		"224.0.0.251":     {0x01, 0x00, 0x5e, 0, 0, 251},
		"239.129.2.3":     {0x01, 0x00, 0x5e, 1, 2, 3}, // of its 28 bits, 23 are in the MAC
		"ff02::fb":        {0x33, 0x33, 0, 0, 0, 0xfb},
		"ff02::1:ff12:34": {0x33, 0x33, 0xff, 0x12, 0, 0x34},
	} {
		if got := GroupMAC(netip.MustParseAddr(group)); got != want {
			t.Errorf("%s is sent to %v, want %v", group, got, want)
		}
	}
}

// gopacket builds what the views read.
func packet(t *testing.T, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, l...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestARP(t *testing.T) {
	p := packet(t, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: layers.ARPReply,
		SourceHwAddress: src, SourceProtAddress: []byte{192, 0, 2, 1},
		DstHwAddress: dst, DstProtAddress: []byte{192, 0, 2, 2},
	})
	a, ok := ParseARP(p)
	if !ok || a.Op != ARPReply || a.SenderMAC != MAC(src) || a.SenderIP != [4]byte{192, 0, 2, 1} ||
		a.TargetMAC != MAC(dst) || a.TargetIP != [4]byte{192, 0, 2, 2} {
		t.Errorf("ParseARP = %+v, %v", a, ok)
	}
	if _, ok := ParseARP(p[:27]); ok { // A07
		t.Error("27 bytes accepted")
	}
	// A08: anything but IPv4 over Ethernet, whose addresses would be looked for in other places.
	for name, at := range map[string]int{"hardware type": 1, "protocol": 3, "hardware length": 4, "protocol length": 5} {
		bad := bytes.Clone(p)
		bad[at] += 2
		if _, ok := ParseARP(bad); ok {
			t.Errorf("another %s accepted", name)
		}
	}
}

func TestIPv4(t *testing.T) {
	ip := &layers.IPv4{
		Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2},
		Options: []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}},
	}
	p := packet(t, ip, gopacket.Payload("abcd"))
	h, ok := ParseIPv4(append(p, 0, 0, 0)) // with Ethernet padding
	if !ok || h.Src != [4]byte{192, 0, 2, 1} || h.Protocol != ProtoUDP || string(h.Payload) != "abcd" || h.Fragment {
		t.Errorf("ParseIPv4 = %+v, %v", h, ok)
	}
	for name, bad := range map[string]func([]byte){
		"version 6 (I10)":   func(b []byte) { b[0] = 6<<4 | 6 },
		"header of 16":      func(b []byte) { b[0] = 4<<4 | 4 },
		"longer than frame": func(b []byte) { binary.BigEndian.PutUint16(b[2:], 200) },
		"total < header":    func(b []byte) { binary.BigEndian.PutUint16(b[2:], 10) },
	} {
		b := bytes.Clone(p)
		bad(b)
		if _, ok := ParseIPv4(b); ok {
			t.Errorf("%s accepted", name)
		}
	}
	for n := range 20 {
		if _, ok := ParseIPv4(p[:n]); ok {
			t.Errorf("%d bytes accepted", n)
		}
	}
	ip.FragOffset = 3
	if h, _ := ParseIPv4(packet(t, ip)); !h.Fragment || h.Offset != 24 {
		t.Errorf("fragment = %+v", h)
	}
}

func TestIPv6Upper(t *testing.T) {
	head := func(next Protocol, body []byte) []byte {
		b := make([]byte, 40)
		b[0], b[6], b[7] = 0x60, byte(next), 255
		binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
		return append(b, body...)
	}
	ext := func(next Protocol, units int) []byte {
		b := make([]byte, 8+8*units)
		b[0], b[1] = byte(next), byte(units)
		return b
	}
	frag := func(next Protocol, offset uint16) []byte {
		b := make([]byte, 8)
		b[0] = byte(next)
		binary.BigEndian.PutUint16(b[2:], offset<<3|1)
		return b
	}
	many := bytes.Repeat(ext(ProtoDestOpts, 0), maxExtensions+1)
	for _, c := range []struct {
		name    string
		in      []byte
		upper   Protocol
		payload string
		part    Part
		ok      bool
	}{
		{name: "plain", in: head(ProtoUDP, []byte("u")), upper: ProtoUDP, payload: "u", ok: true},
		{
			name: "hop by hop, routing", in: head(ProtoHopByHop, frame(ext(ProtoRouting, 1), ext(ProtoICMPv6, 0), []byte("i"))),
			upper: ProtoICMPv6, payload: "i", ok: true,
		},
		{
			name: "first fragment", in: head(ProtoFragment, frame(frag(ProtoTCP, 0), []byte("t"))),
			upper: ProtoTCP, payload: "t", part: FirstFragment, ok: true,
		},
		{name: "later fragment", in: head(ProtoFragment, frame(frag(ProtoTCP, 1), []byte("t"))), upper: ProtoTCP, part: LaterFragment},
		{name: "chain that ends behind the first fragment", in: head(ProtoFragment, frame(frag(ProtoDestOpts, 0), []byte{58, 9, 0, 0, 0, 0, 0, 0})), upper: ProtoDestOpts, part: FirstFragment},
		{name: "chain that goes on behind the first fragment", in: head(ProtoFragment, frame(frag(ProtoDestOpts, 0), ext(ProtoTCP, 0), []byte("t"))), upper: ProtoDestOpts, part: FirstFragment},
		{name: "cut fragment header", in: head(ProtoFragment, []byte{58, 0, 0, 0}), upper: ProtoFragment, part: FirstFragment},
		{name: "cut extension", in: head(ProtoHopByHop, []byte{58, 0, 0}), upper: ProtoHopByHop},
		{name: "extension of one byte", in: head(ProtoHopByHop, []byte{58}), upper: ProtoHopByHop},
		{name: "fragment header cut by a byte", in: head(ProtoFragment, frag(ProtoTCP, 0)[:7]), upper: ProtoFragment, part: FirstFragment},
		{name: "fragment header of one byte", in: head(ProtoFragment, []byte{6}), upper: ProtoFragment, part: FirstFragment},
		{name: "extension longer than packet", in: head(ProtoHopByHop, ext(ProtoICMPv6, 0)[:8:8]), upper: ProtoICMPv6, ok: true},
		{name: "length beyond end", in: head(ProtoHopByHop, []byte{58, 9, 0, 0, 0, 0, 0, 0}), upper: ProtoHopByHop},
		{name: "too many", in: head(ProtoDestOpts, many), upper: ProtoDestOpts},
		{name: "unknown header", in: head(253, []byte("z")), upper: 253, payload: "z", ok: true},
	} {
		h, ok := ParseIPv6(c.in)
		if !ok {
			t.Errorf("%s: not parsed", c.name)
			continue
		}
		upper, payload, part, ok := h.Upper()
		if upper != c.upper || string(payload) != c.payload || part != c.part || ok != c.ok {
			t.Errorf("%s: Upper = %d, %q, %v, %v", c.name, upper, payload, part, ok)
		}
	}
	version4 := head(ProtoUDP, nil)
	version4[0] = 0x40
	for name, bad := range map[string][]byte{
		"short": head(ProtoUDP, nil)[:39], "empty": nil, "version 4 (I10)": version4, "length": head(ProtoUDP, []byte("ab"))[:41],
	} {
		if _, ok := ParseIPv6(bad); ok {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestIsExtension(t *testing.T) {
	want := map[Protocol]bool{ProtoHopByHop: true, ProtoRouting: true, ProtoFragment: true, ProtoDestOpts: true}
	for p := range 256 {
		if got := Protocol(p).IsExtension(); got != want[Protocol(p)] {
			t.Errorf("%d is an extension header: %t", p, got)
		}
	}
}

func TestSNAP(t *testing.T) {
	snap := func(dsap, ssap, oui byte, rest ...byte) []byte {
		return append([]byte{dsap, ssap, 3, 0, 0, oui}, rest...)
	}
	for _, c := range []struct {
		name string
		typ  Type
		in   []byte
		want Type
		ok   bool
	}{
		{"encapsulated Ethernet", 0, snap(0xaa, 0xaa, 0, 8, 6), TypeARP, true},
		{"bridge tunnel", 0, snap(0xaa, 0xaa, 0xf8, 0x86, 0xdd), TypeIPv6, true},
		{"to a group, as an answer", 0, snap(0xab, 0xab, 0, 8, 0), TypeIPv4, true},
		{"another organisation", 0, snap(0xaa, 0xaa, 0x0c, 8, 6), 0, false},
		{"another destination", 0, snap(0x42, 0xaa, 0, 8, 6), 0, false},
		{"another source", 0, snap(0xaa, 0x42, 0, 8, 6), 0, false},
		{"cut", 0, snap(0xaa, 0xaa, 0, 8), 0, false},
		{"with an EtherType in front", TypeIPv4, snap(0xaa, 0xaa, 0, 8, 6), 0, false},
	} {
		f := Frame{Type: c.typ, Payload: c.in}
		if got, ok := f.SNAP(); got != c.want || ok != c.ok {
			t.Errorf("%s: SNAP = %#x, %t", c.name, uint16(got), ok)
		}
	}
}

func TestND(t *testing.T) {
	target := netip.MustParseAddr("2001:db8::1").As16()
	ns := packet(t, &layers.ICMPv6NeighborSolicitation{TargetAddress: target[:], Options: layers.ICMPv6Options{
		{Type: layers.ICMPv6OptSourceAddress, Data: src},
	}})
	ns = append([]byte{NeighborSolicitation, 0, 0, 0}, ns...)
	nd, is, ok := ParseND(ns)
	if !is || !ok || nd.Target != target || nd.SourceMAC != MAC(src) || nd.TargetMAC != (MAC{}) {
		t.Errorf("ParseND = %+v, %v, %v", nd, is, ok)
	}
	zero := bytes.Clone(ns) // A07: an option of length zero must not hang
	zero[25] = 0
	other := bytes.Clone(zero) // of a kind that nobody looks at
	other[24] = 5
	twice := append(bytes.Clone(ns), ns[24:]...)
	targets := bytes.Clone(twice)
	targets[24], targets[32] = 2, 2
	long := bytes.Clone(ns)
	long[25] = 2
	for name, bad := range map[string][]byte{
		"option length 0": zero, "option length 0, another kind": other, "two target addresses": targets,
		"cut option": ns[:30], "option of one byte": ns[:25], "option longer than the message": long,
		"cut header": ns[:20], "advertisement, cut header": append([]byte{NeighborAdvertisement}, ns[1:20]...),
		"two addresses of a kind": twice,
	} {
		if _, is, ok := ParseND(bad); !is || ok {
			t.Errorf("%s: is %v, ok %v", name, is, ok)
		}
	}
	na := append([]byte{NeighborAdvertisement}, ns[1:]...)
	na[24] = 2
	if nd, is, ok := ParseND(na); !is || !ok || nd.Target != target || nd.TargetMAC != MAC(src) || nd.SourceMAC != (MAC{}) {
		t.Errorf("advertisement: ParseND = %+v, %v, %v", nd, is, ok)
	}
	for name, other := range map[string][]byte{
		"an echo request": append([]byte{128}, ns[1:]...), "a listener query": append([]byte{MLDDone}, ns[1:]...),
		"what follows a redirect": append([]byte{Redirect + 1}, ns[1:]...), "nothing": nil,
	} {
		if _, is, _ := ParseND(other); is {
			t.Errorf("%s is taken for neighbour discovery", name)
		}
	}
}

func TestPorts(t *testing.T) {
	head := []byte{0, 68, 0, 67}
	if src, dst, ok := Ports(head); !ok || src != 68 || dst != 67 {
		t.Errorf("Ports = %d, %d, %v", src, dst, ok)
	}
	for n := range head {
		if _, _, ok := Ports(head[:n]); ok {
			t.Errorf("%d bytes have ports", n)
		}
	}
}

// Every view over every input: no panic, and nothing outside the input.
func FuzzViews(f *testing.F) {
	f.Add(frame(dst, src, []byte{8, 6}, make([]byte, 28)))
	f.Add(frame(dst, src, []byte{8, 0}, []byte{0x45, 0, 0, 20}, make([]byte, 16)))
	f.Add(frame(dst, src, []byte{0x81, 0, 0, 0, 0x86, 0xdd}, []byte{0x60, 0, 0, 0, 0, 8, 0, 255}, make([]byte, 40)))
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := Parse(data)
		if err != nil {
			return
		}
		if len(fr.Payload) > len(data)-HeaderLen {
			t.Fatal("payload longer than the frame")
		}
		ParseARP(fr.Payload)
		if h, ok := ParseIPv4(fr.Payload); ok {
			Ports(h.Payload)
		}
		if h, ok := ParseIPv6(fr.Payload); ok {
			if _, p, _, ok := h.Upper(); ok {
				ParseND(p)
				Ports(p)
			}
		}
	})
}

func TestViewsDoNotAllocate(t *testing.T) {
	in := frame(dst, src, []byte{0x81, 0, 0, 0, 0x86, 0xdd}, []byte{0x60, 0, 0, 0, 0, 8, 58, 255}, make([]byte, 40))
	if n := testing.AllocsPerRun(100, func() {
		f, _ := Parse(in)
		h, _ := ParseIPv6(f.Payload)
		_, p, _, _ := h.Upper()
		ParseND(p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package ether

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// transport is a header that can be built.
type transport interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(l gopacket.NetworkLayer) error
}

// super builds a TCP super-frame as a host gives it: right but for the checksum, which is that of the pseudo-header.
func super(t testing.TB, v6, tagged bool, options, payload int) ([]byte, Offload) {
	t.Helper()
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 0xfffffff0, Ack: 7, ACK: true, PSH: true, FIN: true, CWR: true, Window: 99}
	for range options {
		tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindNop})
	}
	return superOf(t, v6, tagged, layers.IPProtocolTCP, tcp, payload, 1448)
}

// superUDP builds a UDP super-frame in the same way.
func superUDP(t testing.TB, v6, tagged bool, payload, size int) ([]byte, Offload) {
	t.Helper()
	return superOf(t, v6, tagged, layers.IPProtocolUDP, &layers.UDP{SrcPort: 1, DstPort: 2}, payload, size)
}

func superOf(t testing.TB, v6, tagged bool, proto layers.IPProtocol, header transport, payload, size int) ([]byte, Offload) {
	t.Helper()
	var ip gopacket.NetworkLayer
	typ := layers.EthernetTypeIPv4
	if v6 {
		typ = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: bytes.Repeat([]byte{0xfd}, 16), DstIP: bytes.Repeat([]byte{0xfc}, 16)}
	} else {
		ip = &layers.IPv4{Version: 4, TTL: 64, Id: 0xfffe, Protocol: proto, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
	}
	_ = header.SetNetworkLayerForChecksum(ip)
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: typ}
	list := []gopacket.SerializableLayer{eth}
	if tagged {
		eth.EthernetType = layers.EthernetTypeDot1Q
		list = append(list, &layers.Dot1Q{Priority: 3, Type: typ})
	}
	body := make([]byte, payload)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	list = append(list, ip.(gopacket.SerializableLayer), header, gopacket.Payload(body))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	data := bytes.Clone(buf.Bytes())
	l, ok := layoutOf(data)
	if !ok {
		t.Fatalf("no layout in %x", data[:80])
	}
	data = data[:l.end(data)] // gopacket pads what is short
	l.putPseudo(data, len(data)-l.l4)
	return data, Offload{Checksum: true, Start: uint16(l.l4), Field: uint16(l.field()), Size: uint16(size)}
}

// whole completes a frame and checks every sum and length in it by another's code, and returns what that made of it.
func whole(t *testing.T, data []byte) gopacket.Packet {
	t.Helper()
	data = bytes.Clone(data)
	o, ok := Partial(data)
	if !ok {
		t.Fatalf("a frame that was cut has no transport header: %x", data)
	}
	Complete(data, o)
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: false})
	if p.ErrorLayer() != nil || p.Metadata().Truncated {
		t.Fatalf("%v, truncated %t", p.ErrorLayer(), p.Metadata().Truncated)
	}
	verify(t, data, o)
	return p
}

func wholeTCP(t *testing.T, data []byte) *layers.TCP {
	t.Helper()
	tcp, ok := whole(t, data).Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		t.Fatal("no TCP")
	}
	return tcp
}

// verify sums the whole as a receiver does (RFC 1071).
func verify(t *testing.T, data []byte, o Offload) {
	t.Helper()
	l, _ := layoutOf(data)
	addrs := data[l.l3+12 : l.l3+20]
	if l.v6 {
		addrs = data[l.l3+8 : l.l3+40]
	} else if fold(Sum(0, data[l.l3:l.l3+20])) != 0xffff {
		t.Error("the IPv4 header's checksum is wrong")
	}
	sum := Sum(uint32(l.protocol)+uint32(len(data)-l.l4), addrs)
	if fold(Sum(sum, data[o.Start:])) != 0xffff {
		t.Error("the transport's checksum is wrong")
	}
}

// all is what a receiver takes that takes everything.
var all = Offloads{Checksum: true, TSO: true, USO: true}

// What is cut is frames that stand alone, and joined again is what it was.
func TestCutAndJoin(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, tagged := range []bool{false, true} {
			for _, payload := range []int{1, 1299, 1300, 1301, 2600, 60000} {
				data, o := super(t, v6, tagged, 12, payload)
				if got, ok := Settle(data, o); !ok || got != o {
					t.Fatalf("refused: %+v, %t", got, ok)
				}
				head := len(data) - payload
				cut, ok := Cut(data, o, head+1300)
				if !ok {
					t.Fatal("cannot be cut")
				}
				j := Joiner{Takes: all}
				var body []byte
				seq, n := uint32(0xfffffff0), (payload+1299)/1300
				for i := range n {
					f := cut.Next(nil)
					if len(f) > head+1300 {
						t.Fatalf("a frame of %d bytes", len(f))
					}
					tcp := wholeTCP(t, f)
					if tcp.Seq != seq || tcp.CWR != (i == 0) || tcp.FIN != (i == n-1) || tcp.PSH != (i == n-1) || !tcp.ACK {
						t.Fatalf("frame %d of %d: %+v", i, n, tcp)
					}
					seq += uint32(len(tcp.Payload))
					body = append(body, tcp.Payload...)
					// FIN and CWR stand alone; without them all but those two join.
					f[o.Start+13] &^= tcpFIN | tcpCWR
					if !j.Add(f) {
						t.Fatalf("frame %d of %d does not join", i, n)
					}
				}
				if cut.Next(nil) != nil {
					t.Error("a frame too many")
				}
				if !bytes.Equal(body, data[head:]) {
					t.Error("the payload has changed")
				}
				joined, undone := j.Take()
				data[o.Start+13] &^= tcpFIN | tcpCWR
				if n > 1 && (!bytes.Equal(joined, data) || undone.Size != 1300) || !undone.Checksum || undone.Start != o.Start {
					t.Errorf("v6 %t, tagged %t, %d bytes: joined %d bytes, %+v, differs at %d", v6, tagged, payload, len(joined), undone, differ(joined, data))
				}
				whole(t, joined)
				if rest, _ := j.Take(); rest != nil || j.Pending() {
					t.Error("taken twice")
				}
			}
		}
	}
}

func differ(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// What does not follow, or is not a plain segment, does not join.
func TestNotJoined(t *testing.T) {
	data, o := super(t, false, false, 0, 3000)
	data[o.Start+13] = tcpACK
	cutAll := func() (list [][]byte) {
		c, _ := Cut(data, o, 54+1000)
		for f := c.Next(nil); f != nil; f = c.Next(nil) {
			list = append(list, f)
		}
		return list
	}
	l4 := int(o.Start)
	for name, change := range map[string]func(f []byte) []byte{
		"source MAC":      func(f []byte) []byte { f[11]++; return f },
		"TTL":             func(f []byte) []byte { f[22]--; return f },
		"type of service": func(f []byte) []byte { f[15]++; return f },
		"address":         func(f []byte) []byte { f[29]++; return f },
		"source port":     func(f []byte) []byte { f[l4+1]++; return f },
		"port":            func(f []byte) []byte { f[l4+3]++; return f },
		"ECN echo":        func(f []byte) []byte { f[l4+13] ^= tcpECE; return f },
		"sequence":        func(f []byte) []byte { f[l4+7]++; return f },
		"acknowledgement": func(f []byte) []byte { f[l4+11]++; return f },
		"window":          func(f []byte) []byte { f[l4+15]++; return f },
		"urgent":          func(f []byte) []byte { f[l4+19]++; return f },
		"SYN":             func(f []byte) []byte { f[l4+13] |= 2; return f },
		"RST":             func(f []byte) []byte { f[l4+13] |= 4; return f },
		"FIN":             func(f []byte) []byte { f[l4+13] |= tcpFIN; return f },
		"fragment":        func(f []byte) []byte { f[20] |= 0x20; return f },
		"trailing bytes":  func(f []byte) []byte { return append(f, 0) },
		"UDP":             func(f []byte) []byte { f[23] = 17; return f },
		"no payload":      func(f []byte) []byte { return f[:54] },
		"cut":             func(f []byte) []byte { return f[:40] },
	} {
		list := cutAll()
		j := Joiner{Takes: all}
		if !j.Add(list[0]) {
			t.Fatal("the first does not go in")
		}
		if j.Add(change(list[1])) {
			t.Errorf("%s: joined", name)
		}
		if got, undone := j.Take(); !bytes.Equal(got, list[0]) || undone.Size != 0 {
			t.Errorf("%s: what was there is %x, %+v", name, got, undone)
		}
	}
	for name, flag := range map[string]byte{"after PSH": tcpPSH} {
		list := cutAll()
		list[0][l4+13] |= flag
		j := Joiner{Takes: all}
		if !j.Add(list[0]) || j.Add(list[1]) {
			t.Errorf("%s: joined", name)
		}
	}
	j := Joiner{Takes: all}
	list := cutAll()
	short, _ := super(t, false, false, 0, 10)
	binary.BigEndian.PutUint32(short[l4+4:], binary.BigEndian.Uint32(list[1][l4+4:]))
	short[l4+13] = tcpACK
	if !j.Add(list[0]) || !j.Add(short) {
		t.Fatal("a shorter last one does not join")
	}
	if next := list[2]; true {
		binary.BigEndian.PutUint32(next[l4+4:], binary.BigEndian.Uint32(short[l4+4:])+10)
		if j.Add(next) {
			t.Error("something follows the shorter last one")
		}
	}
}

// A host's description that does not fit its frame is refused, and sums of other protocols are completed.
func TestSettle(t *testing.T) {
	data, o := super(t, false, false, 0, 100)
	for name, bad := range map[string]Offload{
		"beyond the end":     {Checksum: true, Start: 150, Field: 8},
		"far beyond":         {Checksum: true, Start: 65535, Field: 65535},
		"super, other place": {Checksum: true, Start: o.Start + 4, Field: o.Field, Size: 10},
		"super, no checksum": {Size: 10},
		"super, other sum":   {Checksum: true, Start: o.Start, Field: udpChecksum, Size: 10},
	} {
		if got, ok := Settle(bytes.Clone(data), bad); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
	other := bytes.Clone(data)
	other[23] = 47 // GRE
	got, ok := Settle(other, Offload{Checksum: true, Start: 60, Field: 4})
	if !ok || got != (Offload{}) || bytes.Equal(other[60:], data[60:]) {
		t.Errorf("another protocol: %+v, %t", got, ok)
	}
	before := bytes.Clone(data)
	if got, ok := Settle(data, Offload{Start: 3}); !ok || got != (Offload{}) || !bytes.Equal(data, before) {
		t.Errorf("a whole frame: %+v, %t", got, ok)
	}
	// One whose header is a byte too short for the other end to find the sum.
	cut := ofLength(data, 20+tcpLen-1)
	if got, ok := Settle(cut, o); ok {
		t.Errorf("a super-frame with half a header: %+v", got)
	}
	if got, ok := Settle(cut, Offload{Checksum: true, Start: o.Start, Field: o.Field}); !ok || got != (Offload{}) {
		t.Errorf("half a header: %+v, %t", got, ok)
	}
	for _, most := range []int{0, 54} {
		if _, ok := Cut(data, o, most); ok {
			t.Errorf("cut into frames of %d bytes", most)
		}
	}
	data[o.Start+12] = 0xf0 // headers longer than the frame's
	if _, ok := Cut(data[:80], o, 1400); ok {
		t.Error("cut behind its end")
	}
}

// ofLength makes an untagged IPv4 frame one of n bytes behind the Ethernet header.
func ofLength(data []byte, n int) []byte {
	f := slices.Clip(bytes.Clone(data[:14+n]))
	binary.BigEndian.PutUint16(f[16:], uint16(n))
	return f
}

// A frame without a whole TCP or UDP header that is its own has no checksum to leave undone, and joins nothing.
func TestNoTransport(t *testing.T) {
	tcp, _ := super(t, false, false, 0, 100)
	tcp[34+tcpFlags] = tcpACK
	udp := datagrams(t, false, 1, 100)[0]
	udp6 := datagrams(t, true, 1, 100)[0]
	change := func(f []byte, at int, b byte) []byte {
		f = bytes.Clone(f)
		f[at] = b
		return f
	}
	cutUDP := ofLength(udp, 20+udpLen-1)
	cutUDP[34+udpLength+1] = udpLen - 1
	first := change(udp6, 20, byte(ProtoFragment))
	first = slices.Insert(first, 54, byte(ProtoUDP), 0, 0, 1, 0, 0, 0, 9)
	first[19] += 8
	for name, f := range map[string][]byte{
		"no frame": tcp[:13], "no packet": tcp[:14], "another type": change(tcp, 13, 6), "version 6": change(tcp, 14, 0x65),
		"another protocol": change(tcp, 23, 47), "fragment": change(udp, 20, 0x20),
		"cut TCP": ofLength(tcp, 20+tcpLen-1), "cut UDP": cutUDP,
		"IPv6, cut": udp6[:60], "IPv6, first fragment": first, "IPv6, another protocol": change(udp6, 20, 47),
	} {
		if o, ok := Partial(f); ok {
			t.Errorf("%s: %+v is undone", name, o)
		}
		if j := (Joiner{Takes: all}); j.Add(f) {
			t.Errorf("%s is taken up", name)
		}
	}
	// A TCP header that says that it is shorter than it can be, or longer than its frame.
	for _, words := range []byte{0, 4, 15} {
		f := change(ofLength(tcp, 20+tcpLen+10), 34+tcpOffset, words<<4)
		if _, ok := Cut(f, Offload{Checksum: true, Start: 34, Field: tcpChecksum, Size: 5}, 1400); ok {
			t.Errorf("a header of %d words is cut", words)
		}
		if j := (Joiner{Takes: all}); j.Add(f) {
			t.Errorf("a header of %d words is taken up", words)
		}
	}
	// A flag that means more than data is for one segment alone, also if it is the first.
	const rst, urg = 0x04, 0x20
	for _, flags := range []byte{0, tcpSYN, tcpACK | tcpSYN, tcpACK | tcpFIN, tcpACK | rst, tcpACK | urg, tcpACK | tcpCWR} {
		if j := (Joiner{Takes: all}); j.Add(change(tcp, 34+tcpFlags, flags)) {
			t.Errorf("a segment with flags %02x is taken up", flags)
		}
	}
	// Padding of Ethernet's would become payload.
	if j := (Joiner{Takes: all}); j.Add(append(slices.Clip(tcp), 0)) {
		t.Error("a segment with padding behind it is taken up")
	}
	// A segment that ends within where the headers of the first end.
	long, _ := super(t, false, false, 12, 100)
	long[34+tcpFlags] = tcpACK
	next := ofLength(tcp, 20+tcpLen+1)
	binary.BigEndian.PutUint32(next[34+tcpSeq:], binary.BigEndian.Uint32(long[34+tcpSeq:])+100)
	if j := (Joiner{Takes: all}); !j.Add(long) || j.Add(next) {
		t.Error("a segment without options follows one with options")
	}
}

// FuzzOffload: whatever a host or a peer says, nothing reads or writes beyond the frame, and what is cut has its bytes.
func FuzzOffload(f *testing.F) {
	data, o := super(f, false, true, 3, 200)
	f.Add(data, o.Start, o.Field, o.Size, 100)
	data, o = super(f, true, false, 0, 200)
	f.Add(data, o.Start, o.Field, o.Size, 1400)
	data, o = superUDP(f, false, false, 200, 30)
	f.Add(data, o.Start, o.Field, o.Size, 100)
	data, o = superUDP(f, true, true, 200, 150)
	f.Add(data, o.Start, o.Field, o.Size, 100)
	f.Fuzz(func(t *testing.T, data []byte, start, field, size uint16, most int) {
		o, ok := Settle(data, Offload{Checksum: true, Start: start, Field: field, Size: size})
		if !ok {
			return
		}
		j := Joiner{Takes: all}
		j.Add(data)
		if o.Size == 0 {
			Complete(data, o)
			return
		}
		c, ok := Cut(data, o, most)
		if !ok {
			return
		}
		total := 0
		for f := c.Next(nil); f != nil; f = c.Next(nil) {
			total += len(f) - c.head
			if o.UDP() && len(f)-c.head != int(o.Size) && total != len(data)-c.head {
				t.Fatalf("a datagram of %d bytes, and not %d", len(f)-c.head, o.Size)
			}
			if !o.UDP() && len(f) > most {
				t.Fatalf("a frame of %d bytes, at most %d", len(f), most)
			}
			if !j.Add(f) {
				j.Take()
			}
		}
		if total != len(data)-c.head {
			t.Fatalf("%d of %d bytes", total, len(data)-c.head)
		}
	})
}

// The path of a frame allocates nothing.
func TestOffloadAllocates(t *testing.T) {
	tcp, undoneTCP := super(t, false, false, 12, 60000)
	tcp[undoneTCP.Start+tcpFlags] = tcpACK
	udp, undoneUDP := superUDP(t, true, false, 60000, 1000)
	j := Joiner{Takes: all, buf: make([]byte, 0, 65536)}
	room := make([]byte, 0, 2000)
	for name, c := range map[string]struct {
		data []byte
		o    Offload
	}{"TCP": {tcp, undoneTCP}, "UDP": {udp, undoneUDP}} {
		joined := 0
		if n := testing.AllocsPerRun(20, func() {
			cut, _ := Cut(c.data, c.o, 1400)
			for f := cut.Next(room); f != nil; f = cut.Next(room) {
				if !j.Add(f) {
					t.Fatal("not joined")
				}
			}
			out, _ := j.Take()
			joined = len(out)
		}); n != 0 || joined != len(c.data) {
			t.Errorf("%s: %v allocations, joined %d of %d bytes", name, n, joined, len(c.data))
		}
	}
}

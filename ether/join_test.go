package ether

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
)

// A UDP super-frame is cut into its datagrams, each with its own lengths, sums and identification, and joined it is what it
// was, whatever size fits the underlay: a datagram is a message.
func TestCutAndJoinUDP(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, tagged := range []bool{false, true} {
			for _, c := range []struct{ payload, size, most int }{
				{1, 1, 1400},
				{64, 64, 1400},
				{65, 64, 1400},
				{40 * 64, 64, 1400},
				{64 * 999, 999, 1400},
				{63*1000 + 1, 1000, 1400},
				{10 * 1472, 1472, 1400},
				{3000, 1400, 0},
			} {
				data, o := superUDP(t, v6, tagged, c.payload, c.size)
				if got, ok := Settle(data, o); !ok || got != o || !o.UDP() {
					t.Fatalf("refused: %+v, %t", got, ok)
				}
				cut, ok := Cut(data, o, c.most)
				if !ok {
					t.Fatal("cannot be cut")
				}
				head := len(data) - c.payload
				j := Joiner{Takes: all}
				n := (c.payload + c.size - 1) / c.size
				for i := range n {
					want := data[head:][i*c.size : min((i+1)*c.size, c.payload)]
					if cut.Len() != head+len(want) {
						t.Fatalf("Len %d, %d bytes are left", cut.Len(), len(want))
					}
					f := cut.Next(nil)
					p := whole(t, f)
					udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
					if !ok || int(udp.Length) != udpLen+len(want) || !bytes.Equal(udp.Payload, want) {
						t.Fatalf("datagram %d of %d: %+v", i, n, udp)
					}
					if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok && ip.Id != uint16(0xfffe+i) {
						t.Fatalf("datagram %d has identification %d", i, ip.Id)
					}
					if !j.Add(f) {
						t.Fatalf("datagram %d of %d does not join", i, n)
					}
				}
				if cut.Next(nil) != nil || cut.Len() != 0 {
					t.Error("a datagram too many")
				}
				joined, undone := j.Take()
				if n == 1 {
					o.Size = 0
				}
				if !bytes.Equal(joined, data) || undone != o {
					t.Errorf("v6 %t, tagged %t, %+v: joined %d bytes, %+v, differs at %d", v6, tagged, c, len(joined), undone, differ(joined, data))
				}
				whole(t, joined)
			}
		}
	}
}

// datagrams cuts n datagrams of size bytes.
func datagrams(t testing.TB, v6 bool, n, size int) (list [][]byte) {
	t.Helper()
	data, o := superUDP(t, v6, false, n*size, size)
	c, ok := Cut(data, o, 0)
	if !ok {
		t.Fatal("cannot be cut")
	}
	for f := c.Next(nil); f != nil; f = c.Next(nil) {
		list = append(list, f)
	}
	return list
}

// Datagrams that differ in more than Cut would make them differ do not join.
func TestNotJoinedUDP(t *testing.T) {
	const l3, l4 = 14, 34
	for name, change := range map[string]func(f []byte) []byte{
		"source MAC":       func(f []byte) []byte { f[11]++; return f },
		"TTL":              func(f []byte) []byte { f[l3+8]--; return f },
		"ECN":              func(f []byte) []byte { f[l3+1] |= 3; return f },
		"don't fragment":   func(f []byte) []byte { f[l3+6] |= 0x40; return f },
		"source address":   func(f []byte) []byte { f[l3+15]++; return f },
		"address":          func(f []byte) []byte { f[l3+19]++; return f },
		"identification":   func(f []byte) []byte { f[l3+5]++; return f },
		"source port":      func(f []byte) []byte { f[l4+1]++; return f },
		"port":             func(f []byte) []byte { f[l4+3]++; return f },
		"shorter UDP":      func(f []byte) []byte { f[l4+5]--; return f },
		"fragment":         func(f []byte) []byte { f[l3+6] |= 0x20; return f },
		"trailing bytes":   func(f []byte) []byte { return append(f, 0) },
		"TCP":              func(f []byte) []byte { f[l3+9] = 6; return f },
		"longer":           func(_ []byte) []byte { return datagrams(t, false, 2, 101)[1] },
		"no payload":       func(f []byte) []byte { f[l3+3], f[l4+5] = 28, 8; return f[:l4+8] },
		"no payload, long": func(f []byte) []byte { f[l3+3], f[l4+5] = 28, 8; return f },
		"cut":              func(f []byte) []byte { return f[:40] },
	} {
		list := datagrams(t, false, 2, 100)
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
	// A datagram without payload is not even the first.
	empty := datagrams(t, false, 1, 1)[0]
	empty[l3+3], empty[l4+5] = 28, 8
	if j := (Joiner{Takes: all}); j.Add(empty[:l4+8]) || j.Pending() {
		t.Error("a datagram without payload is taken up")
	}
}

// So it is with IPv6, whose header has no identification and no sum.
func TestNotJoinedV6(t *testing.T) {
	const l3, l4 = 14, 54
	for name, change := range map[string]func(f []byte){
		"source MAC":     func(f []byte) { f[11]++ },
		"traffic class":  func(f []byte) { f[l3+1] ^= 0x10 },
		"flow label":     func(f []byte) { f[l3+3]++ },
		"hop limit":      func(f []byte) { f[l3+7]-- },
		"source address": func(f []byte) { f[l3+23]++ },
		"address":        func(f []byte) { f[l3+39]++ },
		"port":           func(f []byte) { f[l4+3]++ },
	} {
		list := datagrams(t, true, 2, 100)
		j := Joiner{Takes: all}
		if !j.Add(list[0]) {
			t.Fatal("the first does not go in")
		}
		change(list[1])
		if j.Add(list[1]) {
			t.Errorf("%s: joined", name)
		}
	}
}

// The identification of a packet that must not be fragmented says nothing.
func TestIdentificationOfWhole(t *testing.T) {
	list := datagrams(t, false, 3, 100)
	j := Joiner{Takes: all}
	for i, f := range list {
		f[14+6] |= 0x40
		binary.BigEndian.PutUint16(f[14+4:], uint16(i*i*77))
		if !j.Add(f) {
			t.Errorf("datagram %d does not join", i)
		}
	}
}

// What ends a run of datagrams: a shorter one, the 64th, the length of an IP packet.
func TestJoinedUDPEnds(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		j := Joiner{Takes: all}
		list := datagrams(t, v6, 70, 50)
		short := datagrams(t, v6, 70, 49)
		if !j.Add(list[0]) || !j.Add(short[1]) || j.Add(list[2]) || j.Add(short[2]) {
			t.Error("a shorter one does not join, or is not the last")
		}
		for _, c := range []struct{ size, want int }{{50, 64}, {1024, 63}, {1472, 44}, {32000, 2}} {
			j.Take()
			n := 0
			for _, f := range datagrams(t, v6, 1, c.size) {
				for j.Add(f) {
					n++
					if !v6 {
						binary.BigEndian.PutUint16(f[14+4:], binary.BigEndian.Uint16(f[14+4:])+1)
					}
				}
			}
			joined, o := j.Take()
			if n != c.want || int(o.Size) != c.size || len(joined)-14 > maxPacket {
				t.Errorf("v6 %t: %d datagrams of %d bytes join, want %d; %d bytes, %+v", v6, n, c.size, c.want, len(joined), o)
			}
			whole(t, joined)
		}
	}
}

// Nothing is joined that the receiver would have to cut again.
func TestJoinsWhatIsTaken(t *testing.T) {
	tcp, o := super(t, false, false, 0, 100)
	tcp[o.Start+tcpFlags] = tcpACK
	udp := datagrams(t, false, 1, 100)[0]
	for _, c := range []struct {
		takes    Offloads
		tcp, udp bool
	}{
		{Offloads{}, false, false},
		{Offloads{Checksum: true}, false, false},
		{Offloads{Checksum: true, TSO: true}, true, false},
		{Offloads{Checksum: true, USO: true}, false, true},
		{all, true, true},
	} {
		for want, f := range map[*bool][]byte{&c.tcp: tcp, &c.udp: udp} {
			j := Joiner{Takes: c.takes}
			if got := j.Add(f); got != *want || j.Pending() != *want {
				t.Errorf("%+v: taken up %t, want %t", c.takes, got, *want)
			}
			if j.Take(); j.Takes != c.takes {
				t.Errorf("after Take the receiver takes %+v", j.Takes)
			}
		}
	}
}

func TestOffloadsCover(t *testing.T) {
	sum := Offload{Checksum: true, Start: 34, Field: udpChecksum}
	tcp, udp := Offload{Checksum: true, Start: 34, Field: tcpChecksum, Size: 9}, Offload{Checksum: true, Start: 34, Field: udpChecksum, Size: 9}
	for _, c := range []struct {
		have                 Offloads
		whole, sum, tcp, udp bool
		names                string
	}{
		{Offloads{}, true, false, false, false, ""},
		{Offloads{Checksum: true}, true, true, false, false, "checksum"},
		{Offloads{Checksum: true, TSO: true}, true, true, true, false, "checksum tso"},
		{Offloads{TSO: true, USO: true}, true, false, false, false, "tso uso"},
		{all, true, true, true, true, "checksum tso uso"},
	} {
		if got := [...]bool{c.have.Cover(Offload{}), c.have.Cover(sum), c.have.Cover(tcp), c.have.Cover(udp)}; got != [...]bool{c.whole, c.sum, c.tcp, c.udp} {
			t.Errorf("%+v covers %v", c.have, got)
		}
		if names := c.have.Names(); names == nil || strings.Join(names, " ") != c.names {
			t.Errorf("%+v is called %q", c.have, names)
		}
	}
}

// FuzzJoin: what is joined and cut again is what was joined, in that order, but for what carries no meaning: sums, and
// identifications of TCP and of packets that must not be fragmented.
func FuzzJoin(f *testing.F) {
	f.Add(true, false, []byte{100, 100, 100, 7, 100}, uint16(0), byte(0))
	f.Add(true, true, []byte{1, 1, 2, 2}, uint16(20), byte(0x40))
	f.Add(false, false, []byte{100, 100, 50}, uint16(47), byte(8))
	f.Add(false, true, bytes.Repeat([]byte{200}, 100), uint16(500), byte(1))
	f.Fuzz(func(t *testing.T, udp, v6 bool, sizes []byte, at uint16, change byte) {
		j := Joiner{Takes: all}
		var in [][]byte
		seq := uint32(0)
		flush := func() {
			whole, o := j.Take()
			if whole == nil {
				return
			}
			out := [][]byte{whole}
			if len(in) > 1 {
				o, ok := Settle(whole, o)
				c, cuts := Cut(whole, o, 1<<20)
				if !ok || !cuts {
					t.Fatal("what was joined cannot be cut")
				}
				out = nil
				for f := c.Next(nil); f != nil; f = c.Next(nil) {
					out = append(out, f)
				}
			}
			if len(out) != len(in) {
				t.Fatalf("joined %d, cut %d", len(in), len(out))
			}
			for i := range in {
				if a, b := meaning(in[i]), meaning(out[i]); !bytes.Equal(a, b) {
					t.Fatalf("frame %d of %d:\n%x was\n%x", i, len(in), b, a)
				}
			}
			in = nil
		}
		for i, n := range sizes {
			var frame []byte
			if udp {
				frame, _ = superUDP(t, v6, false, int(n), int(n))
			} else {
				frame, _ = super(t, v6, false, 0, int(n))
				l, _ := layoutOf(frame)
				frame[l.l4+tcpFlags] = tcpACK
				binary.BigEndian.PutUint32(frame[l.l4+tcpSeq:], seq)
				seq += uint32(n)
			}
			if !v6 {
				binary.BigEndian.PutUint16(frame[14+4:], uint16(i))
			}
			if i == int(at)%len(sizes) {
				frame[int(at)%len(frame)] ^= change
			}
			if !j.Add(frame) {
				flush()
				if !j.Add(frame) {
					continue
				}
			}
			in = append(in, frame)
		}
		flush()
	})
}

// meaning blanks what may differ.
func meaning(frame []byte) []byte {
	frame = bytes.Clone(frame)
	l, ok := layoutOf(frame)
	if !ok {
		return frame
	}
	clear(frame[l.l4+l.field():][:2])
	if !l.v6 {
		clear(frame[l.l3+10:][:2])
		if l.protocol == ProtoTCP || frame[l.l3+6]&0x40 != 0 {
			clear(frame[l.l3+4:][:2])
		}
	}
	return frame
}

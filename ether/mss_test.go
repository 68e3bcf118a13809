package ether

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// syn builds a TCP frame with these flags and options, whole.
func syn(t testing.TB, v6, tagged bool, flags byte, options []byte, payload int) []byte {
	t.Helper()
	frame, o := superOf(t, v6, tagged, layers.IPProtocolTCP, &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 7, Window: 99}, len(options)+payload, 0)
	l4 := int(o.Start)
	frame[l4+tcpOffset] = byte(tcpLen+len(options)) / 4 << 4
	frame[l4+tcpFlags] = flags
	copy(frame[l4+tcpLen:], options)
	Complete(frame, o)
	return frame
}

// extend puts an extension header in front of what follows an IPv6 header.
func extend(frame []byte, kind Protocol, header []byte) []byte {
	out := append(bytes.Clone(frame[:54]), header...)
	out[54] = frame[20]
	out[20] = byte(kind)
	out = append(out, frame[54:]...)
	binary.BigEndian.PutUint16(out[18:], uint16(len(out)-54))
	return out
}

func TestClampMSS(t *testing.T) {
	mss := func(n int) []byte { return []byte{2, 4, byte(n >> 8), byte(n)} }
	// As Linux sends them: MSS, SACK permitted, timestamps, NOP, window scale.
	linux := func(n int) []byte { return append(mss(n), 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7) }
	const plain, answer = tcpSYN, tcpSYN | tcpACK
	odd := func(n int) []byte { return append(append([]byte{1}, mss(n)...), 1, 1, 1) }
	for _, c := range []struct {
		name    string
		v6, tag bool
		flags   byte
		options []byte
		payload int
		most    int
		want    int // 0: not changed
	}{
		{"IPv4", false, false, plain, linux(1460), 0, 1374, 1374 - 54},
		{"answer", false, false, answer, linux(1460), 0, 1374, 1374 - 54},
		{"IPv6", true, false, plain, linux(1440), 0, 1374, 1374 - 74},
		{"tagged", false, true, plain, linux(1460), 0, 1374, 1374 - 58},
		{"tagged IPv6", true, true, plain, linux(1440), 0, 1374, 1374 - 78},
		{"with data", false, false, plain, linux(1460), 333, 1374, 1374 - 54},
		{"ECN setup", false, false, plain | tcpECE | tcpCWR, linux(1460), 0, 1374, 1374 - 54},
		{"at an odd place", false, false, plain, odd(1460), 0, 1374, 1374 - 54},
		{"at an odd place, IPv6", true, false, plain, odd(0xffff), 5, 1374, 1374 - 74},
		{"largest", false, false, plain, mss(65535), 0, 1374, 1374 - 54},
		{"to 1", false, false, plain, mss(1460), 0, 55, 1},
		{"behind an unknown option", false, false, plain, append([]byte{253, 4, 9, 9}, mss(1460)...), 0, 1374, 1374 - 54},
		{"before the end of options", false, false, plain, append(mss(1460), 0, 9, 9, 9), 0, 1374, 1374 - 54},

		{"fits", false, false, plain, linux(1320), 0, 1374, 0},
		{"never raised", false, false, plain, linux(500), 0, 1374, 0},
		{"no room at all", false, false, plain, linux(1460), 0, 54, 0},
		{"negative room", false, false, plain, linux(1460), 0, -1, 0},
		{"no option", false, false, plain, nil, 0, 400, 0},
		{"only others", false, false, plain, []byte{4, 2, 1, 1}, 0, 400, 0},
		{"no SYN", false, false, tcpACK, linux(1460), 100, 1374, 0},
		{"RST", false, false, 4, linux(1460), 0, 1374, 0},
		{"behind the end of options", false, false, plain, append([]byte{0, 0, 0, 0}, mss(1460)...), 0, 1374, 0},
		{"length 3", false, false, plain, []byte{2, 3, 255, 1}, 0, 1374, 0},
		{"length 5", false, false, plain, []byte{2, 5, 255, 255, 0, 1, 1, 1}, 0, 1374, 0},
		{"length 0", false, false, plain, append(mss(1460), 8, 0, 1, 1), 0, 1374, 0},
		{"length 1", false, false, plain, append(mss(1460), 8, 1, 1, 1), 0, 1374, 0},
		{"beyond the header", false, false, plain, []byte{1, 1, 2, 4}, 10, 1374, 0},
		{"no length", false, false, plain, append(mss(1460), 1, 1, 1, 8), 10, 1374, 0},
		{"two", false, false, plain, append(mss(1460), mss(1450)...), 0, 1374, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := syn(t, c.v6, c.tag, c.flags, c.options, c.payload)
			l, _ := layoutOf(frame)
			before := bytes.Clone(frame)
			changed := ClampMSS(frame, Offload{}, c.most)
			if changed != (c.want != 0) || !changed && !bytes.Equal(frame, before) {
				t.Fatalf("changed %t, want %d:\n%x was\n%x", changed, c.want, frame, before)
			}
			verify(t, frame, Offload{Start: uint16(l.l4)})
			onlyMSS(t, before, frame)
			if changed && mssOf(t, frame) != c.want {
				t.Errorf("MSS is %d, want %d", mssOf(t, frame), c.want)
			}
			if ClampMSS(frame, Offload{}, c.most) {
				t.Error("changed again")
			}
			// What is left undone stays as it is.
			undone, _ := Partial(before)
			partial := bytes.Clone(before)
			l.putPseudo(partial, len(partial)-l.l4)
			sum := bytes.Clone(partial[l.l4+tcpChecksum:][:2])
			if ClampMSS(partial, undone, c.most) != changed || !bytes.Equal(sum, partial[l.l4+tcpChecksum:][:2]) {
				t.Error("with the checksum undone it is not the same")
			}
			Complete(partial, undone)
			if !bytes.Equal(partial, frame) {
				t.Errorf("completed it is\n%x, want\n%x", partial, frame)
			}
		})
	}
}

// mssOf reads the MSS by another's code.
func mssOf(t *testing.T, frame []byte) int {
	t.Helper()
	tcp, ok := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		t.Fatal("no TCP")
	}
	for _, o := range tcp.Options {
		if o.OptionType == layers.TCPOptionKindMSS {
			return int(binary.BigEndian.Uint16(o.OptionData))
		}
	}
	return -1
}

// onlyMSS checks that nothing but the checksum and the value of an MSS option differs.
func onlyMSS(t *testing.T, before, after []byte) {
	t.Helper()
	if len(before) != len(after) {
		t.Fatalf("%d bytes were %d", len(after), len(before))
	}
	if bytes.Equal(before, after) {
		return
	}
	l, ok := layoutOf(before)
	if !ok || l.protocol != ProtoTCP || before[l.l4+tcpFlags]&tcpSYN == 0 {
		t.Fatalf("changed, and no SYN: %x", before)
	}
	head, _ := l.head(before)
	at, ok := findMSS(before[l.l4+tcpLen : head])
	if !ok {
		t.Fatalf("changed, and has no MSS: %x", before)
	}
	at += l.l4 + tcpLen
	if was, is := binary.BigEndian.Uint16(before[at:]), binary.BigEndian.Uint16(after[at:]); is >= was {
		t.Errorf("MSS was %d, is %d", was, is)
	}
	for i := range before {
		field := l.l4 + tcpChecksum
		if before[i] != after[i] && i != at && i != at+1 && i != field && i != field+1 {
			t.Fatalf("byte %d was %x, is %x", i, before[i], after[i])
		}
	}
}

// Extension headers count; a fragment, another protocol, and a frame that is cut are none of ours.
func TestClampMSSLayout(t *testing.T) {
	options := []byte{2, 4, 5, 180}
	v6 := syn(t, true, false, tcpSYN, options, 0)
	for name, c := range map[string]struct {
		frame []byte
		want  int
	}{
		"destination options": {extend(v6, ProtoDestOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0}), 1374 - 82},
		"hop by hop":          {extend(v6, ProtoHopByHop, []byte{0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 1374 - 90},
		"first fragment":      {extend(v6, ProtoFragment, []byte{0, 0, 0, 1, 0, 0, 0, 9}), 0},
		"whole in a fragment": {extend(v6, ProtoFragment, []byte{0, 0, 0, 0, 0, 0, 0, 9}), 0},
		"ICMPv6":              {func() []byte { f := bytes.Clone(v6); f[20] = 58; return f }(), 0},
	} {
		before := bytes.Clone(c.frame)
		changed := ClampMSS(c.frame, Offload{}, 1374)
		if changed != (c.want != 0) || changed && mssOf(t, c.frame) != c.want {
			t.Errorf("%s: changed %t, MSS %d, want %d", name, changed, mssOf(t, c.frame), c.want)
		}
		onlyMSS(t, before, c.frame)
	}
	v4 := syn(t, false, false, tcpSYN, options, 0)
	for name, change := range map[string]func(f []byte) []byte{
		"first fragment":      func(f []byte) []byte { f[20] |= 0x20; return f },
		"later fragment":      func(f []byte) []byte { f[21] = 1; return f },
		"UDP":                 func(f []byte) []byte { f[23] = 17; return f },
		"ARP":                 func(f []byte) []byte { f[13] = 6; return f },
		"version":             func(f []byte) []byte { f[14] = 0x65; return f },
		"IP header too short": func(f []byte) []byte { f[14] = 0x44; return f },
		"header too short":    func(f []byte) []byte { f[34+tcpOffset] = 0x40; return f },
		"header too long":     func(f []byte) []byte { f[34+tcpOffset] = 0xf0; return f },
		// Options that lie behind the packet, in what pads the frame.
		"packet too short": func(f []byte) []byte { f[17] = 40; return f },
	} {
		f := change(bytes.Clone(v4))
		before := bytes.Clone(f)
		if ClampMSS(f, Offload{}, 1000) || !bytes.Equal(f, before) {
			t.Errorf("%s: changed", name)
		}
	}
	for n := range v4 {
		if ClampMSS(bytes.Clone(v4[:n]), Offload{}, 1000) {
			t.Errorf("cut to %d bytes: changed", n)
		}
	}
}

// FuzzClampMSS: no frame makes it fail, nothing changes but the MSS and the checksum, and a right checksum stays right.
func FuzzClampMSS(f *testing.F) {
	f.Add(syn(f, false, false, tcpSYN, []byte{2, 4, 5, 180}, 0), false, 1374)
	f.Add(syn(f, true, true, tcpSYN|tcpACK, []byte{1, 2, 4, 5, 180, 1, 1, 1}, 9), false, 1374)
	f.Add(syn(f, false, true, tcpSYN, []byte{2, 4, 255, 255, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0), true, 60)
	f.Add(extend(syn(f, true, false, tcpSYN, []byte{2, 4, 5, 180}, 0), ProtoDestOpts, []byte{0, 0, 1, 4, 0, 0, 0, 0}), false, 500)
	f.Fuzz(func(t *testing.T, frame []byte, checksum bool, most int) {
		l, ok := layoutOf(frame)
		if ok && l.protocol == ProtoTCP { // make the checksum right
			l.putPseudo(frame, l.end(frame)-l.l4)
			finish(frame[l.l4:l.end(frame)], tcpChecksum)
		}
		before := bytes.Clone(frame)
		if !ClampMSS(frame, Offload{Checksum: checksum}, most) {
			if !bytes.Equal(before, frame) {
				t.Fatal("changed in silence")
			}
			return
		}
		onlyMSS(t, before, frame)
		sum := binary.BigEndian.Uint16(frame[l.l4+tcpChecksum:])
		if checksum {
			if sum != binary.BigEndian.Uint16(before[l.l4+tcpChecksum:]) {
				t.Fatal("a sum that is not there has changed")
			}
			return
		}
		l.putPseudo(frame, l.end(frame)-l.l4)
		finish(frame[l.l4:l.end(frame)], tcpChecksum)
		// 0 and ffff are the same number to a receiver.
		if want := binary.BigEndian.Uint16(frame[l.l4+tcpChecksum:]); sum%0xffff != want%0xffff {
			t.Fatalf("checksum %x, want %x", sum, want)
		}
	})
}

func TestClampMSSAllocates(t *testing.T) {
	frame := syn(t, true, false, tcpSYN, []byte{2, 4, 5, 180}, 0)
	data := syn(t, true, false, tcpACK, []byte{2, 4, 5, 180}, 0)
	if n := testing.AllocsPerRun(100, func() {
		binary.BigEndian.PutUint16(frame[76:], 1460)
		if !ClampMSS(frame, Offload{}, 1000) || ClampMSS(data, Offload{}, 1000) {
			t.Fatal("not what was expected")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkClampMSS(b *testing.B) {
	data := syn(b, false, false, tcpACK, nil, 1000)
	frame := syn(b, false, false, tcpSYN, []byte{2, 4, 5, 180}, 0)
	for name, f := range map[string][]byte{"data": data, "SYN that fits": frame} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				ClampMSS(f, Offload{}, 1600)
			}
		})
	}
}

package ether

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tags puts tags into a frame, in hexadecimal digits, where they belong.
func tags(t testing.TB, frame []byte, digits string) []byte {
	t.Helper()
	return slices.Concat(frame[:12], raw(t, digits)[12:], frame[12:])
}

func TestParseInside(t *testing.T) {
	for _, c := range []struct {
		name, in, vlans, payload string
		typ                      Type
		err                      error
	}{
		{name: "none", in: "0800 45", typ: TypeIPv4, payload: "\x45"},
		{name: "a length", in: "0003 aaaa03", typ: 0, payload: "\xaa\xaa\x03"},
		{name: "one of the segment's", in: "8100 a000 0806 01", typ: TypeARP, payload: "\x01"},
		{name: "one", in: "8100 a00a 0806 01", vlans: "10", typ: TypeARP, payload: "\x01"},
		{name: "one of 802.1ad", in: "88a8 000a 0806 01", vlans: "s10", typ: TypeARP, payload: "\x01"},
		{name: "one, behind the segment's", in: "8100 a000 8100 000a 0806 01", vlans: "10", typ: TypeARP, payload: "\x01"},
		{name: "V07: two", in: "88a8 0014 8100 000a 86dd 60", vlans: "s20.10", typ: TypeIPv6, payload: "\x60"},
		{name: "V07: two of a kind", in: "8100 0014 8100 000a 86dd 60", vlans: "20.10", typ: TypeIPv6, payload: "\x60"},
		{name: "two, behind the segment's", in: "8100 0000 88a8 0014 88a8 000a 86dd 60", vlans: "s20.s10", typ: TypeIPv6, payload: "\x60"},
		{name: "VLAN 0 is none", in: "8100 0014 8100 6000 0800 45", vlans: "20", typ: TypeIPv4, payload: "\x45"},
		{name: "of 802.1ad, too", in: "88a8 6000 8100 0014 0800 45", vlans: "20", typ: TypeIPv4, payload: "\x45"},
		{name: "a length behind tags", in: "8100 000a 0003 aaaa03", vlans: "10", typ: 0, payload: "\xaa\xaa\x03"},
		{name: "a length behind two", in: "8100 000a 8100 000b 05ff aaaa03", vlans: "10.11", typ: 0, payload: "\xaa\xaa\x03"},
		{name: "the greatest", in: "88a8 0ffe 8100 0ffe 0800", vlans: "s4094.4094", typ: TypeIPv4},
		{name: "three", in: "8100 000a 8100 000b 8100 000c 0800", err: ErrTagDepth},
		{name: "three of VLAN 0, behind the segment's", in: "8100 0000 8100 0000 8100 0000 8100 0000 0800", err: ErrTagDepth},
		{name: "three of 802.1ad", in: "88a8 000a 88a8 000b 88a8 000c 0800", err: ErrTagDepth},
		{name: "V11: 4095", in: "8100 0fff 0800", err: ErrTagKind},
		{name: "V11: 4095 of 802.1ad", in: "88a8 ffff 0800", err: ErrTagKind},
		{name: "V11: 4095 inside", in: "8100 000a 8100 0fff 0800", err: ErrTagKind},
		{name: "of before 802.1ad", in: "9100 000a 0800", err: ErrTagKind},
		{name: "of before 802.1ad, inside", in: "8100 000a 9200 000a 0800", err: ErrTagKind},
		{name: "of before 802.1ad, another", in: "9300 000a 0800", err: ErrTagKind},
		{name: "V08: ends in the first", in: "88a8 000a 08", err: ErrPartialTag},
		{name: "V08: ends in the second, at 18", in: "8100 000a 8100", err: ErrPartialTag},
		{name: "V08: at 19", in: "8100 000a 8100 00", err: ErrPartialTag},
		{name: "V08: at 20", in: "8100 000a 8100 000b", err: ErrPartialTag},
		{name: "V08: at 21", in: "8100 000a 8100 000b 08", err: ErrPartialTag},
		{name: "ends behind the addresses", in: "81", err: ErrShort},
	} {
		f, err := ParseInside(raw(t, c.in))
		if !errors.Is(err, c.err) || err == nil && (f.Inner.String() != c.vlans || f.Type != c.typ || string(f.Payload) != c.payload) {
			t.Errorf("%s: VLANs %q, type %04x, payload %x, %v; want %q, %04x, %x, %v", c.name, f.Inner, f.Type, f.Payload, err, c.vlans, c.typ, c.payload, c.err)
		}
	}
	in := raw(t, "8100 2000 88a8 0014 8100 000a 0800 45")
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseInside(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// modelInside is ParseInside in another way: a list of all tags that stand at the beginning, judged when it is whole.
func modelInside(data []byte) (vlans string, payload []byte, err error) {
	if len(data) < 14 {
		return "", nil, ErrShort
	}
	var list []Tag
	rest := data[12:]
	for {
		if t := Type(rest[0])<<8 | Type(rest[1]); t != TypeVLAN && t != TypeQinQ {
			break
		}
		if len(rest) < 6 {
			err = ErrPartialTag
			break
		}
		list, rest = append(list, Tag(rest)), rest[4:]
	}
	own := list
	if len(own) > 0 && own[0].IsPriority() {
		own = own[1:]
	}
	var names []string
	for i, tag := range own {
		switch {
		case i == 2:
			return "", nil, ErrTagDepth
		case tag.VLAN() == 4095:
			return "", nil, ErrTagKind
		case tag.VLAN() != 0:
			names = append(names, map[Type]string{TypeQinQ: "s"}[tag.Type()]+strconv.Itoa(int(tag.VLAN())))
		}
	}
	if err == nil && (rest[0] == 0x91 || rest[0] == 0x92 || rest[0] == 0x93) && rest[1] == 0 {
		err = ErrTagKind
	}
	return strings.Join(names, "."), rest[2:], err
}

func FuzzParseInside(f *testing.F) {
	for _, digits := range []string{
		"0800 45", "8100 a00a 0806 01", "8100 2000 88a8 0014 8100 000a 0800 45", "8100 000a 8100 0fff 0800", "8100 000a 9100 0001 0800",
		"88a8 0001 88a8 0002 8100 0003 0800", "8100 000a 8100 00", "8100 0000 8100 0000 8100 0000 8100", "81", "8100 000a 0003 aaaa03",
	} {
		f.Add(raw(f, digits))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseInside(data)
		vlans, payload, want := modelInside(data)
		if !errors.Is(err, want) || err == nil && (got.Inner.String() != vlans || !bytes.Equal(got.Payload, payload)) {
			t.Fatalf("%x: %q, %x, %v; want %q, %x, %v", data, got.Inner, got.Payload, err, vlans, payload, want)
		}
		if err != nil {
			return
		}
		// Who looks at tags and who does not sees the same frame if it has none.
		if plain, err := Parse(data); err == nil && !plain.Type.IsTag() && plain.VLAN() == 0 &&
			(plain.Type != got.Type || !bytes.Equal(plain.Payload, got.Payload) || got.Inner != 0) {
			t.Fatalf("%x: %+v, and Parse says %+v", data, got, plain)
		}
		// What answers is on the same VLANs, and has a header that can be read.
		reply, err := ParseInside(got.AppendReply(nil, got.Src, got.Dst))
		if err != nil || reply.Inner != got.Inner || reply.Dst != got.Src || reply.Src != got.Dst || reply.Type != got.Type || len(reply.Payload) != 0 {
			t.Fatalf("%x is answered by %+v, %v", data, reply, err)
		}
	})
}

func TestVLANs(t *testing.T) {
	frame := raw(t, "0800 45")
	for text, c := range map[string]struct {
		list  []uint16
		tags  string
		outer Tag
	}{
		"":           {nil, "", Tag{}},
		"10":         {[]uint16{10}, "8100 000a", MakeTag(TypeVLAN, 10)},
		"s10":        {[]uint16{10}, "88a8 000a", MakeTag(TypeQinQ, 10)},
		"20.10":      {[]uint16{20, 10}, "8100 0014 8100 000a", MakeTag(TypeVLAN, 20)},
		"s20.10":     {[]uint16{20, 10}, "88a8 0014 8100 000a", MakeTag(TypeQinQ, 20)},
		"20.s10":     {[]uint16{20, 10}, "8100 0014 88a8 000a", MakeTag(TypeVLAN, 20)},
		"s4094.4094": {[]uint16{4094, 4094}, "88a8 0ffe 8100 0ffe", MakeTag(TypeQinQ, 4094)},
		"1.1":        {[]uint16{1, 1}, "8100 0001 8100 0001", MakeTag(TypeVLAN, 1)},
	} {
		v, err := ParseVLANs(text)
		if err != nil || v.String() != text || !slices.Equal(v.List(), c.list) || v.Outer() != c.outer {
			t.Errorf("%q: %q, %v, outer %x, %v", text, v, v.List(), v.Outer(), err)
		}
		tagged := v.Tag(frame)
		if !bytes.Equal(tagged, tags(t, frame, c.tags)) {
			t.Errorf("%q: the frame is %x", text, tagged)
		}
		if f, err := ParseInside(tagged); err != nil || f.Inner != v {
			t.Errorf("%q is read as %q, %v", text, f.Inner, err)
		}
	}
	for _, text := range []string{"0", "4095", "s", "10.", ".10", "1.2.3", "-1", "ten", "10s", "ss10", " 10", "70000"} {
		if v, err := ParseVLANs(text); err == nil || !strings.Contains(err.Error(), "such as 20.10") {
			t.Errorf("%q is %q: %v", text, v, err)
		}
	}
}

func FuzzParseVLANs(f *testing.F) {
	for _, text := range []string{"", "10", "s20.10", "4095", "1.2.3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVLANs(text)
		if err != nil {
			return
		}
		if again, err := ParseVLANs(v.String()); err != nil || again != v {
			t.Fatalf("%q is %q, and that is %q: %v", text, v, again, err)
		}
	})
}

// A question is answered where it was asked: with all tags of its frame, also one of VLAN 0. In a segment that is not transparent, a
// priority is not answered in kind.
func TestAppendReply(t *testing.T) {
	to, from := MAC{2, 0, 0, 0, 0, 9}, MAC{2, 0, 0, 0, 0, 8}
	for in, want := range map[string]string{
		"0806 01":                               "0806",
		"8100 a000 0806 01":                     "0806",
		"8100 a00a 0806 01":                     "8100 a00a 0806",
		"8100 6000 88a8 0014 8100 000a 0806 01": "8100 6000 88a8 0014 8100 000a 0806",
		"8100 0014 8100 6000 0806 01":           "8100 0014 8100 6000 0806",
	} {
		f, err := ParseInside(raw(t, in))
		if err != nil {
			t.Fatal(err)
		}
		got := f.AppendReply([]byte("x"), to, from)
		if wanted := slices.Concat([]byte("x"), to[:], from[:], raw(t, want)[12:]); !bytes.Equal(got, wanted) {
			t.Errorf("%s: %x, want %x", in, got, wanted)
		}
	}
}

// inners are tags in front of a packet, as a transparent segment carries them.
var inners = []string{"", "8100 000a", "88a8 000a", "8100 0014 8100 000a", "88a8 0014 8100 000a", "8100 6000 88a8 0014 8100 000a"}

// Super-frames of all kinds are cut and joined behind any tags, and what is left undone on them is found there.
func TestOffloadInside(t *testing.T) {
	for _, digits := range inners {
		for _, v6 := range []bool{false, true} {
			tcp, o := super(t, v6, false, 0, 4000)
			tcp[o.Start+tcpFlags] = tcpACK
			datagrams, undone := superUDP(t, v6, false, 4000, 1000)
			for name, c := range map[string]struct {
				data []byte
				o    Offload
			}{"TCP": {tcp, o}, "UDP": {datagrams, undone}} {
				data := tags(t, c.data, digits)
				c.o.Start += uint16(len(data) - len(c.data))
				if settled, ok := Settle(data, c.o); !ok || settled != c.o {
					t.Errorf("%s behind %q: %+v settles as %+v, %v", name, digits, c.o, settled, ok)
					continue
				}
				cut, ok := Cut(data, c.o, 1400+len(data)-len(c.data))
				if !ok {
					t.Errorf("%s behind %q is not cut", name, digits)
					continue
				}
				j := Joiner{Takes: all}
				count := 0
				for f := cut.Next(nil); f != nil; f = cut.Next(nil) {
					whole(t, f)
					if !j.Add(f) {
						t.Errorf("%s behind %q is not joined", name, digits)
					}
					count++
				}
				joined, undone := j.Take()
				if !bytes.Equal(joined[:len(data)-4000], data[:len(data)-4000]) && name == "UDP" || count < 3 || len(joined) != len(data) || undone.Start != c.o.Start {
					t.Errorf("%s behind %q: %d frames, joined %d bytes of %d, %+v", name, digits, count, len(joined), len(data), undone)
				}
			}
		}
	}
	// Of two streams on two VLANs none continues the other.
	tcp, _ := super(t, false, false, 0, 100)
	tcp[14+20+tcpFlags] = tcpACK
	next := bytes.Clone(tcp)
	l, _ := layoutOf(next)
	copy(next[l.l4+tcpSeq:], []byte{0, 0, 0, 0x54}) // 0xfffffff0 and 100
	l.putPseudo(next, len(next)-l.l4)
	for digits, want := range map[string]bool{"8100 000a": true, "8100 000b": false, "88a8 000a": false, "8100 200a": false} {
		j := Joiner{Takes: all}
		if !j.Add(tags(t, tcp, "8100 000a")) || j.Add(tags(t, next, digits)) != want {
			t.Errorf("%s: continues a stream on VLAN 10: %v", digits, !want)
		}
	}
}

// A SYN is clamped to what fits behind its tags: each makes room for four bytes less.
func TestClampMSSInside(t *testing.T) {
	for _, digits := range inners {
		for _, v6 := range []bool{false, true} {
			plain := syn(t, v6, false, tcpSYN, []byte{2, 4, 0x05, 0xb4}, 0)
			frame := tags(t, plain, digits)
			before := bytes.Clone(frame)
			if !ClampMSS(frame, Offload{}, 1300) {
				t.Errorf("behind %q: not clamped", digits)
				continue
			}
			onlyMSS(t, before, frame)
			l, _ := layoutOf(frame)
			if got := mssOf(t, slices.Concat(frame[:12], frame[12+len(frame)-len(plain):])); got != 1300-l.l4-20 {
				t.Errorf("behind %q: %d, want %d", digits, got, 1300-l.l4-20)
			}
		}
	}
	cut := tags(t, syn(t, false, false, tcpSYN, nil, 0), "8100 0014 8100 000a")[:20]
	if ClampMSS(cut, Offload{}, 1300) {
		t.Error("a frame that ends in its tags was clamped")
	}
	if ClampMSS(tags(t, syn(t, false, false, tcpSYN, []byte{2, 4, 0x05, 0xb4}, 0), "8100 0001 8100 0002 8100 0003"), Offload{}, 1300) {
		t.Error("a frame with three tags was clamped")
	}
}

package ether

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

const testMACs = "010203040506 020000000001"

// raw is a frame from hexadecimal digits behind the two addresses.
func raw(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(testMACs+digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOuterTag(t *testing.T) {
	for name, c := range map[string]struct {
		frame string
		want  Tag
		err   error
	}{
		"none":                    {"0800 45", Tag{}, nil},
		"a length":                {"0003 aaaa03", Tag{}, nil},
		"customer's":              {"8100 a00a 0800", Tag{0x81, 0, 0xa0, 0x0a}, nil},
		"service's":               {"88a8 000a 8100 0007 0800", Tag{0x88, 0xa8, 0, 0x0a}, nil},
		"priority alone":          {"8100 6000 0800", Tag{0x81, 0, 0x60, 0}, nil},
		"V08: ends at 14":         {"8100", Tag{}, ErrPartialTag},
		"V08: ends at 15":         {"8100 00", Tag{}, ErrPartialTag},
		"V08: ends at 16":         {"8100 000a", Tag{}, ErrPartialTag},
		"V08: ends at 17":         {"8100 000a 08", Tag{}, ErrPartialTag},
		"V08: service's ends, 17": {"88a8 000a 08", Tag{}, ErrPartialTag},
		"no EtherType":            {"81", Tag{}, ErrShort},
	} {
		got, err := OuterTag(raw(t, c.frame))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %x, %v; want %x, %v", name, got, err, c.want, c.err)
		}
	}
}

func TestTag(t *testing.T) {
	tag := MakeTag(TypeQinQ, 0xb00a)
	if tag != (Tag{0x88, 0xa8, 0xb0, 0x0a}) || tag.Type() != TypeQinQ || tag.VLAN() != 10 || tag.Priority() != 0xb000 {
		t.Errorf("%x: type %x, VLAN %d, priority %x", tag, tag.Type(), tag.VLAN(), tag.Priority())
	}
	for _, c := range []struct {
		tag  Tag
		want bool
	}{{Tag{}, false}, {MakeTag(TypeVLAN, 0xe000), true}, {MakeTag(TypeVLAN, 1), false}, {MakeTag(TypeQinQ, 0), false}} {
		if c.tag.IsPriority() != c.want {
			t.Errorf("IsPriority(%x) is %v", c.tag, !c.want)
		}
	}
}

// The last digits of a frame are those of what a checksum would cover, so that the place where it begins can be followed.
func TestStripVLAN(t *testing.T) {
	for name, c := range map[string]struct {
		frame, want string
		in, out     Offload
	}{
		"customer's": {"8100 000a 0800 45", "0800 45", Offload{}, Offload{}},
		"service's":  {"88a8 000a 0800 45", "0800 45", Offload{}, Offload{}},
		"the checksum begins four bytes earlier": {
			"8100 000a 0800 45", "0800 45",
			Offload{Checksum: true, Start: 38, Field: 16, Size: 1448},
			Offload{Checksum: true, Start: 34, Field: 16, Size: 1448},
		},
		"priority stays":     {"8100 a00a 0800 45", "8100 a000 0800 45", Offload{}, Offload{}},
		"drop eligible, too": {"8100 100a 0800 45", "8100 1000 0800 45", Offload{}, Offload{}},
		"a service tag's priority becomes 802.1Q's": {
			"88a8 e00a 0800 45", "8100 e000 0800 45", Offload{Checksum: true, Start: 38, Field: 6}, Offload{Checksum: true, Start: 38, Field: 6},
		},
		"priority tag of nothing":            {"8100 0000 0800 45", "0800 45", Offload{}, Offload{}},
		"V07: the inner tag is payload":      {"88a8 000a 8100 6007 0800", "8100 6007 0800", Offload{}, Offload{}},
		"V07: and below a priority":          {"88a8 200a 8100 6007 0800", "8100 2000 8100 6007 0800", Offload{}, Offload{}},
		"a checksum that begins in the tag":  {"8100 000a 0800 45", "0800 45", Offload{Checksum: true, Start: 17}, Offload{Size: 1}},
		"a checksum that begins behind it":   {"8100 000a 0800 45", "0800 45", Offload{Checksum: true, Start: 18}, Offload{Checksum: true, Start: 14}},
		"nothing undone: Start says nothing": {"8100 000a 0800 45", "0800 45", Offload{Start: 3}, Offload{Start: 3}},
	} {
		got, o := StripVLAN(raw(t, c.frame), c.in, false)
		if !bytes.Equal(got, raw(t, c.want)) || o != c.out {
			t.Errorf("%s: %x, %+v; want %x, %+v", name, got, o, raw(t, c.want), c.out)
		}
	}
	// In a transparent segment what is payload there is never taken for the outer tag's priority.
	for in, want := range map[string]string{
		"8100 000a 0800 45":           "0800 45",
		"88a8 000a 8100 6007 0800 45": "8100 6007 0800 45",
		"88a8 000a 8100 6000 0800 45": "8100 0000 8100 6000 0800 45",
		"88a8 200a 8100 6000 0800 45": "8100 2000 8100 6000 0800 45",
		"88a8 000a 88a8 6000 0800 45": "88a8 6000 0800 45", // no priority tag inside a segment
		"88a8 000a 8100 60":           "8100 60",
	} {
		if got, _ := StripVLAN(raw(t, in), Offload{}, true); !bytes.Equal(got, raw(t, want)) {
			t.Errorf("%s, transparent: %x, want %x", in, got, raw(t, want))
		}
	}
	frame := raw(t, "8100 000a 0800 45")
	if n := testing.AllocsPerRun(100, func() {
		copy(frame[12:], []byte{0x81, 0})
		_, _ = StripVLAN(frame, Offload{}, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A description that does not fit a tag is one that does not fit the frame either.
func TestStripVLANRefusesWithSettle(t *testing.T) {
	data, o := StripVLAN(raw(t, "8100 000a 0800 45"), Offload{Checksum: true, Start: 2, Field: 6}, false)
	if _, ok := Settle(data, o); ok {
		t.Error("a checksum over the addresses was taken for one")
	}
}

func FuzzStripVLAN(f *testing.F) {
	for _, digits := range []string{"8100 000a 0800 45", "88a8 e00a 8100 0007 0800", "8100 000a 08", "8100", "0800 45"} {
		f.Add(raw(f, digits), uint16(38))
	}
	f.Fuzz(func(t *testing.T, data []byte, start uint16) {
		before := bytes.Clone(data)
		tag, err := OuterTag(data)
		if parsed, e := Parse(data); e == nil && err == nil && (tag.Type() == TypeVLAN) != parsed.Tagged {
			t.Fatalf("tag %x, and Parse says %v", tag, parsed.Tagged)
		}
		if err != nil || tag == (Tag{}) {
			return
		}
		got, o := StripVLAN(data, Offload{Checksum: true, Start: start, Field: 16}, false)
		if !bytes.Equal(got[:12], before[:12]) || !bytes.Equal(got[len(got)-len(before)+16:], before[16:]) {
			t.Fatalf("%x became %x", before, got)
		}
		switch {
		case tag.Priority() != 0:
			if len(got) != len(before) || binary.BigEndian.Uint16(got[14:]) != tag.Priority() || o.Start != start {
				t.Fatalf("priority %x: %x, %+v", tag.Priority(), got, o)
			}
		case len(got) != len(before)-4:
			t.Fatalf("%x became %x", before, got)
		case o.Checksum && o.Start+4 != start:
			t.Fatalf("the checksum began at %d and begins at %d", start, o.Start)
		}
	})
}

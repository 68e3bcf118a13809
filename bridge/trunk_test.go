package bridge

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// sent is a frame as Writer.WriteTagged sends it.
func sent(frame []byte, tag ether.Tag) []byte {
	rest := frame[12:]
	if own, _ := ether.OuterTag(frame); own.IsPriority() {
		rest = frame[16:]
	}
	if tag == (ether.Tag{}) {
		return slices.Concat(frame[:12], rest)
	}
	return slices.Concat(frame[:12], tag[:], rest)
}

// ethernet is a frame from hexadecimal digits behind the two addresses.
func ethernet(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll("ffffffffffff 020000000001"+digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func trunk[P comparable](t testing.TB, members ...Member[P]) *Trunk[P] {
	t.Helper()
	made, err := NewTrunk(members...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestNewTrunk(t *testing.T) {
	type member = Member[string]
	untagged, ten := member{Port: "a"}, member{Tagging{VLAN: 10}, "b"}
	for name, c := range map[string]struct {
		members []member
		want    string // in the error; empty: none
	}{
		"nobody":                        {nil, ""},
		"untagged and tagged":           {[]member{untagged, ten}, ""},
		"10 of either kind":             {[]member{ten, {Tagging{VLAN: 10, Service: true}, "c"}}, ""},
		"4094":                          {[]member{{Tagging{VLAN: 4094}, "c"}}, ""},
		"priority tags":                 {[]member{{Tagging{Priority: PriorityAlways}, "c"}, {Tagging{VLAN: 1, Priority: PriorityNonzero}, "d"}}, ""},
		"10 twice":                      {[]member{ten, {Tagging{VLAN: 10}, "c"}}, "b and c both have VLAN 10"},
		"service 10 twice":              {[]member{{Tagging{VLAN: 10, Service: true}, "b"}, {Tagging{VLAN: 10, Service: true}, "c"}}, "b and c both have VLAN 10"},
		"untagged twice":                {[]member{untagged, {Port: "c"}}, "a and c both have the frames without a VLAN"},
		"untagged and native":           {[]member{untagged, {Tagging{VLAN: 11, Native: NativeTagged}, "c"}}, "a and c both have the frames without a VLAN"},
		"native twice, one a service's": {[]member{{Tagging{VLAN: 9, Native: NativeUntagged}, "b"}, {Tagging{VLAN: 10, Service: true, Native: NativeUntagged}, "c"}}, "b and c both"},
		"V11: 4095":                     {[]member{{Tagging{VLAN: 4095}, "c"}}, "c: VLAN 4095 does not exist"},
		"native without VLAN":           {[]member{{Tagging{Native: NativeTagged}, "c"}}, "a native VLAN needs its number"},
		"service without VLAN":          {[]member{{Tagging{Service: true}, "c"}}, "a service tag needs its VLAN"},
		"another native":                {[]member{{Tagging{VLAN: 1, Native: "both"}, "c"}}, `native is "both"`},
		"another priority":              {[]member{{Tagging{VLAN: 1, Priority: "if-nonzero"}, "c"}}, `priority is "if-nonzero"`},
	} {
		_, err := NewTrunk(c.members...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// take is one frame for a trunk, in hexadecimal digits behind the addresses, and what becomes of it.
type take struct {
	frame string
	port  string // empty: nobody's
	want  string // the frame inside the segment; empty: as it was
	err   error
}

func (c take) run(t *testing.T, trunk *Trunk[string]) {
	t.Helper()
	want := ethernet(t, c.want)
	if c.want == "" {
		want = ethernet(t, c.frame)
	}
	frame := ethernet(t, c.frame)
	if owner, err := trunk.Owner(frame); owner != c.port || !errors.Is(err, c.err) || !bytes.Equal(frame, ethernet(t, c.frame)) {
		t.Errorf("%s: is %q's, %v, and now %x; want %q, %v", c.frame, owner, err, frame, c.port, c.err)
	}
	port, got, _, err := trunk.Ingress(frame, ether.Offload{})
	if port != c.port || !bytes.Equal(got, want) || !errors.Is(err, c.err) {
		t.Errorf("%s: of %q, %x, %v; want %q, %x, %v", c.frame, port, got, err, c.port, want, c.err)
	}
}

// V01: an access port has what has no VLAN.
func TestAccessPort(t *testing.T) {
	access := trunk(t, Member[string]{Port: "a"})
	for _, c := range []take{
		{"abcd 01", "a", "", nil},
		{"8100 0000 abcd 01", "a", "abcd 01", nil},
		{"8100 000a abcd 01", "", "", ErrForeignVLAN},
		{"8100 000c abcd 01", "", "", ErrForeignVLAN},
		{"88a8 0000 abcd 01", "", "", ErrForeignVLAN},
		{"0003 aaaa03", "a", "", nil},
	} {
		c.run(t, access)
	}
}

// V02: a trunk of 10 and 12 has nothing else. V11: 4095 is nobody's. V08: what is no whole frame is nobody's.
func TestTrunk(t *testing.T) {
	both := trunk(t, Member[string]{Tagging{VLAN: 10}, "ten"}, Member[string]{Tagging{VLAN: 12}, "twelve"})
	for _, c := range []take{
		{"8100 000a abcd", "ten", "abcd", nil},
		{"8100 000b abcd", "", "", ErrForeignVLAN},
		{"8100 000c abcd", "twelve", "abcd", nil},
		{"abcd", "", "", ErrForeignVLAN},
		{"8100 0000 abcd", "", "", ErrForeignVLAN},
		{"88a8 000a abcd", "", "", ErrForeignVLAN},
		{"8100 0fff abcd", "", "", ErrNoVLAN},
		{"88a8 ffff abcd", "", "", ErrNoVLAN},
		{"8100", "", "", ether.ErrPartialTag},
		{"8100 00", "", "", ether.ErrPartialTag},
		{"8100 000a", "", "", ether.ErrPartialTag},
		{"8100 000a ab", "", "", ether.ErrPartialTag},
		{"ab", "", "", ether.ErrShort},
	} {
		c.run(t, both)
	}
}

// V04: a priority is kept from VLAN to VLAN, and on what is sent without a VLAN if that is wanted.
func TestPriorityIsKept(t *testing.T) {
	from := trunk(t, Member[string]{Tagging{VLAN: 10}, "a"})
	for pcp := range 8 {
		for dei := range 2 {
			tci := pcp<<13 | dei<<12
			_, inside, _, err := from.Ingress(ethernet(t, fmt.Sprintf("8100 %04x abcd 01", tci|10)), ether.Offload{})
			if err != nil {
				t.Fatal(err)
			}
			tagged := fmt.Sprintf("8100 %04x abcd 01", tci)
			nonzero := tagged
			if tci == 0 {
				nonzero = "abcd 01"
			}
			for _, c := range []struct {
				to   Tagging
				want string
			}{
				{Tagging{VLAN: 30}, fmt.Sprintf("8100 %04x abcd 01", tci|30)}, // V05: another VLAN at another site
				{Tagging{VLAN: 30, Native: NativeTagged}, fmt.Sprintf("8100 %04x abcd 01", tci|30)},
				{Tagging{VLAN: 30, Service: true}, fmt.Sprintf("88a8 %04x abcd 01", tci|30)},
				{Tagging{}, "abcd 01"},
				{Tagging{Priority: PriorityNonzero}, nonzero},
				{Tagging{Priority: PriorityAlways}, tagged},
				{Tagging{VLAN: 30, Native: NativeUntagged}, "abcd 01"},
				{Tagging{VLAN: 30, Native: NativeUntagged, Priority: PriorityNonzero}, nonzero},
				{Tagging{VLAN: 30, Native: NativeUntagged, Priority: PriorityAlways}, tagged},
			} {
				tag, err := c.to.Egress(inside)
				if got := sent(inside, tag); err != nil || !bytes.Equal(got, ethernet(t, c.want)) {
					t.Errorf("PCP %d DEI %d to %+v: %x, %v; want %s", pcp, dei, c.to, got, err, c.want)
				}
			}
		}
	}
}

// V07: the outer tag alone decides; what is behind it is payload, and comes out as it went in.
func TestInnerTagsArePayload(t *testing.T) {
	service := Tagging{VLAN: 10, Service: true, Native: NativeTagged}
	both := trunk(t, Member[string]{service, "service"}, Member[string]{Tagging{VLAN: 10}, "customer"})
	for _, c := range []take{
		{"88a8 000a 8100 6007 abcd", "service", "8100 6007 abcd", nil},
		{"88a8 000a 8100 0fff abcd", "service", "8100 0fff abcd", nil},
		{"88a8 200a 8100 6007 abcd", "service", "8100 2000 8100 6007 abcd", nil},
		{"8100 000a 8100 6007 abcd", "customer", "8100 6007 abcd", nil},
		{"8100 000a abcd", "customer", "abcd", nil},
		{"abcd", "service", "", nil},
		{"8100 4000 abcd", "service", "", nil},
		{"88a8 4000 abcd", "service", "8100 4000 abcd", nil},
		{"8100 0007 abcd", "", "", ErrForeignVLAN},
	} {
		c.run(t, both)
	}
	for in, want := range map[string]string{
		"8100 6007 abcd":           "88a8 000a 8100 6007 abcd",
		"8100 2000 8100 6007 abcd": "88a8 200a 8100 6007 abcd",
		"88a8 6007 abcd":           "88a8 000a 88a8 6007 abcd",
		"88a8 6000 abcd":           "88a8 000a 88a8 6000 abcd",
	} {
		tag, err := service.Egress(ethernet(t, in))
		if got := sent(ethernet(t, in), tag); err != nil || !bytes.Equal(got, ethernet(t, want)) {
			t.Errorf("%s: %x, %v; want %s", in, got, err, want)
		}
	}
}

// A tag of the sender's own must not become the outer one: it would choose the VLAN on which its frame arrives.
func TestNoTagOfTheSendersIsOuter(t *testing.T) {
	for _, to := range []Tagging{{}, {Priority: PriorityAlways}, {VLAN: 10, Native: NativeUntagged}} {
		for frame, want := range map[string]error{
			"8100 0007 abcd":           ErrTagInside,
			"8100 6007 abcd":           ErrTagInside,
			"88a8 0007 abcd":           ErrTagInside,
			"88a8 0000 abcd":           ErrTagInside,
			"8100 2000 8100 0007 abcd": ErrTagInside,
			"8100 2000 88a8 0007 abcd": ErrTagInside,
			"8100 2000":                ether.ErrPartialTag,
			"8100 2000 abcd":           nil,
			"abcd":                     nil,
		} {
			if _, err := to.Egress(ethernet(t, frame)); !errors.Is(err, want) {
				t.Errorf("%+v, %s: %v, want %v", to, frame, err, want)
			}
		}
	}
}

func TestTrunkAllocatesNothing(t *testing.T) {
	both := trunk(t, Member[string]{Tagging{VLAN: 10}, "ten"}, Member[string]{Port: "untagged"})
	tagged, foreign, buf := ethernet(t, "8100 000a abcd"), ethernet(t, "8100 000b abcd"), make([]byte, 100)
	out := Tagging{VLAN: 30, Native: NativeTagged, Priority: PriorityAlways}
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range [][]byte{tagged, foreign} {
			_, inside, _, _ := both.Ingress(buf[:copy(buf, f)], ether.Offload{})
			_, _ = out.Egress(inside)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzTrunk(f *testing.F) {
	for _, digits := range []string{"8100 000a abcd", "88a8 200a 8100 0007 abcd", "8100 0fff abcd", "8100 00", "abcd"} {
		f.Add(ethernet(f, digits))
	}
	all := []Tagging{{Priority: PriorityNonzero}, {VLAN: 10}, {VLAN: 10, Service: true}}
	members := make([]Member[int], len(all))
	for i, tagging := range all {
		members[i] = Member[int]{tagging, i}
	}
	trunk := trunk(f, members...)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		port, inside, _, err := trunk.Ingress(data, ether.Offload{})
		if err != nil {
			if !bytes.Equal(inside, before) {
				t.Fatalf("a frame that is nobody's became %x", inside)
			}
			return
		}
		// What came in by a member goes out by it as it was, but for a priority tag that says nothing and one that only says 0.
		tag, err := all[port].Egress(inside)
		if err != nil {
			if !errors.Is(err, ErrTagInside) && !errors.Is(err, ether.ErrPartialTag) {
				t.Fatal(err)
			}
			return
		}
		got := sent(inside, tag)
		if own, _ := ether.OuterTag(before); own == ether.MakeTag(ether.TypeVLAN, 0) {
			before = sent(before, ether.Tag{})
		}
		if own, _ := ether.OuterTag(inside); !bytes.Equal(got, before) && own == (ether.Tag{}) {
			t.Fatalf("%x came back as %x", before, got)
		}
	})
}

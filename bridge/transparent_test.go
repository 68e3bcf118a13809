package bridge

import (
	"bytes"
	"errors"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// V07: what a customer sends with tags of its own in a tunnel's service tag comes out of a tunnel as it went in, whatever its first
// tag is, and with the service tag's priority.
func TestTunnelIsTransparentV07(t *testing.T) {
	from := trunk(t, Member[string]{Tagging{VLAN: 10, Service: true, Transparent: true}, "a"})
	to := Tagging{VLAN: 30, Service: true, Transparent: true}
	far := trunk(t, Member[string]{to, "b"})
	for in, want := range map[string]string{
		"88a8 000a abcd 01":                     "88a8 001e abcd 01",
		"88a8 600a abcd 01":                     "88a8 601e abcd 01",
		"88a8 000a 8100 0007 abcd":              "88a8 001e 8100 0007 abcd",
		"88a8 600a 8100 a007 abcd":              "88a8 601e 8100 a007 abcd",
		"88a8 000a 8100 6000 abcd":              "88a8 001e 8100 6000 abcd", // the customer's priority tag
		"88a8 600a 8100 0000 abcd":              "88a8 601e 8100 0000 abcd",
		"88a8 000a 8100 0000 8100 0007 abcd":    "88a8 001e 8100 0000 8100 0007 abcd",
		"88a8 000a 88a8 6000 abcd":              "88a8 001e 88a8 6000 abcd",
		"88a8 000a 8100 0007 8100 0008 abcd 01": "88a8 001e 8100 0007 8100 0008 abcd 01",
	} {
		_, inside, _, err := from.Ingress(ethernet(t, in), ether.Offload{})
		if err != nil {
			t.Fatal(err)
		}
		tag, err := far.Egress(to, inside)
		if got := sent(inside, tag); err != nil || !bytes.Equal(got, ethernet(t, want)) {
			t.Errorf("%s: %x, %v; want %s", in, got, err, want)
		}
	}
}

// An access port of a transparent segment has what no member of the trunk has, tags and all. In an ordinary one it has not.
func TestAccessPortHasTheRest(t *testing.T) {
	others := []Member[string]{{Tagging{VLAN: 20}, "twenty"}, {Tagging{VLAN: 20, Service: true}, "service"}}
	rest := trunk(t, append(others, Member[string]{Tagging{Transparent: true}, "rest"})...)
	for _, c := range []take{
		{"abcd 01", "rest", "", nil},
		{"8100 0000 abcd", "rest", "abcd", nil},
		{"8100 6000 8100 0014 abcd", "rest", "", nil},
		{"8100 000a abcd", "rest", "", nil},
		{"8100 600a 8100 0014 abcd", "rest", "", nil},
		{"88a8 000a 8100 0014 abcd", "rest", "", nil},
		{"88a8 6000 abcd", "rest", "", nil},
		{"8100 0014 abcd", "twenty", "abcd", nil},
		{"88a8 0014 8100 000a abcd", "service", "8100 000a abcd", nil},
		{"8100 0fff abcd", "", "", ErrNoVLAN},
		{"8100 000a", "", "", ether.ErrPartialTag},
	} {
		c.run(t, rest)
	}
	ordinary := trunk(t, append(others, Member[string]{Tagging{}, "access"})...)
	take{"8100 000a abcd", "", "", ErrForeignVLAN}.run(t, ordinary)
	native := trunk(t, Member[string]{Tagging{VLAN: 30, Native: NativeUntagged, Transparent: true}, "native"})
	take{"8100 000a abcd", "", "", ErrForeignVLAN}.run(t, native)
}

// No tag of the sender's brings a frame onto a VLAN of this wire that is somebody else's: neither as the outer one, nor behind tags that
// carry a priority alone, which switches take off.
func TestNoTagReachesAnothersVLAN(t *testing.T) {
	whole := Tagging{Transparent: true}
	rest := trunk(t, Member[string]{Tagging{VLAN: 20}, "twenty"}, Member[string]{Tagging{VLAN: 21, Service: true}, "service"}, Member[string]{whole, "rest"})
	for frame, want := range map[string]error{
		"abcd":                               nil,
		"8100 6000 abcd":                     nil,
		"8100 000a abcd":                     nil,
		"8100 000a 8100 0014 abcd":           nil, // behind VLAN 10
		"88a8 0014 abcd":                     nil, // 20 of another kind
		"8100 0015 abcd":                     nil,
		"8100 2000 8100 000a abcd":           nil,
		"8100 0014 abcd":                     ErrTagInside,
		"8100 e014 8100 000a abcd":           ErrTagInside,
		"88a8 0015 abcd":                     ErrTagInside,
		"8100 2000 8100 0014 abcd":           ErrTagInside,
		"88a8 0000 8100 0014 abcd":           ErrTagInside,
		"8100 2000 8100 0000 8100 0014 abcd": ErrTagInside,
		"8100 0fff abcd":                     ether.ErrTagKind,
		"9100 0014 abcd":                     ether.ErrTagKind,
		"8100 0001 8100 0002 8100 0003 abcd": ether.ErrTagDepth,
		"8100 2000":                          ether.ErrPartialTag,
	} {
		if _, err := rest.Egress(whole, ethernet(t, frame)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", frame, err, want)
		}
	}
	// Which are sent without a tag, and are not transparent or have a VLAN, send none as before.
	for _, to := range []Tagging{{}, {VLAN: 30, Native: NativeUntagged, Transparent: true}} {
		if _, err := rest.Egress(to, ethernet(t, "8100 000a abcd")); !errors.Is(err, ErrTagInside) {
			t.Errorf("%+v: %v", to, err)
		}
	}
	// A priority tag that the segment has put in front is sent, or not, as everywhere; what is behind stays.
	for to, want := range map[Tagging]string{
		whole: "8100 000a abcd", {Transparent: true, Priority: PriorityNonzero}: "8100 2000 8100 000a abcd",
	} {
		frame := ethernet(t, "8100 2000 8100 000a abcd")
		tag, err := rest.Egress(to, frame)
		if got := sent(frame, tag); err != nil || !bytes.Equal(got, ethernet(t, want)) {
			t.Errorf("%+v: %x, %v; want %s", to, got, err, want)
		}
	}
	frame := ethernet(t, "8100 2000 88a8 000a 8100 0014 abcd")
	if n := testing.AllocsPerRun(100, func() { _, _ = rest.Egress(whole, frame) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzTransparentTrunk: what comes in by a tunnel goes out by it as it was, and what goes out of a whole port is no other member's.
func FuzzTransparentTrunk(f *testing.F) {
	for _, digits := range []string{
		"88a8 000a 8100 6000 abcd", "88a8 200a 8100 0007 abcd", "8100 0014 abcd", "8100 2000 8100 0014 abcd", "88a8 0000 8100 0014 abcd", "8100 00", "abcd",
	} {
		f.Add(ethernet(f, digits))
	}
	all := []Tagging{{Transparent: true}, {VLAN: 20}, {VLAN: 10, Service: true, Transparent: true}}
	members := make([]Member[int], len(all))
	for i, tagging := range all {
		members[i] = Member[int]{tagging, i}
	}
	trunk := trunk(f, members...)
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		if tag, err := trunk.Egress(all[0], data); err == nil {
			if port, _, _, err := trunk.Ingress(sent(data, tag), ether.Offload{}); err != nil || port != 0 {
				t.Fatalf("%x leaves for %d, %v", before, port, err)
			}
		}
		port, inside, _, err := trunk.Ingress(data, ether.Offload{})
		if err != nil || port != 2 {
			return
		}
		tag, err := trunk.Egress(all[port], inside)
		if err != nil {
			if !errors.Is(err, ether.ErrPartialTag) && !errors.Is(err, ether.ErrShort) {
				t.Fatal(err)
			}
			return
		}
		if got := sent(inside, tag); !bytes.Equal(got, before) {
			t.Fatalf("%x came back as %x", before, got)
		}
	})
}

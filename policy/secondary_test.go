package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// secondaries are all kinds of place in a private VLAN, and who exchanges frames with whom: RFC 5517 section 2, as a table.
var (
	secondaries   = []SecondaryVLAN{{}, {Isolated: true}, {Community: "a"}, {Community: "b"}}
	exchangeTable = [4][4]bool{
		{true, true, true, true},
		{true, false, false, false},
		{true, false, true, false},
		{true, false, false, true},
	}
)

func TestApart(t *testing.T) {
	for i, s := range secondaries {
		for j, o := range secondaries {
			if got := s.Apart(o); got == exchangeTable[i][j] {
				t.Errorf("%+v and %+v: apart is %t", s, o, got)
			}
		}
	}
	if s := (SecondaryVLAN{Isolated: true, Community: "a"}); !s.Apart(s) || !s.Apart(secondaries[2]) || !secondaries[2].Apart(s) || s.Apart(SecondaryVLAN{}) {
		t.Error("who is isolated exchanges frames with a community")
	}
}

// A golden model: whatever the grants and the places, policy says of two who are kept apart that they have nothing to do with each
// other, at both ends, and of all others the same as without any private VLAN.
func TestPrivateVLANGolden(t *testing.T) {
	machines := []Identity{attachment, attachment2, listed, unlisted, far}
	all := append([]Identity{1, 2, gateway}, machines...)
	r, kept, open := rand.New(rand.NewPCG(5517, 1)), 0, 0
	for range 300 {
		place := map[Identity]int{}
		for _, id := range machines {
			place[id] = r.IntN(len(secondaries))
		}
		some := func() (out []Identity) {
			for _, id := range all {
				if r.IntN(3) > 0 {
					out = append(out, id)
				}
			}
			return out
		}
		grants := []Grant{{ID: 1, Segment: true, Sources: some()}, {ID: 2, Sources: some(), Targets: some(), Both: r.IntN(2) == 0}}
		self := []Identity{1, gateway}[r.IntN(2)]
		stations := siteStations()
		plain := Compile(Rules{Generation: 1, Self: self, Stations: stations, Grants: grants})
		for id, i := range place {
			stations[id].Secondary = secondaries[i]
		}
		v := Compile(Rules{Generation: 1, Self: self, Stations: stations, Grants: grants})
		for _, a := range all {
			for _, b := range all {
				if a == b {
					continue
				}
				if exchangeTable[place[a]][place[b]] {
					open++
					if got, want := relation(v, a, b), relation(plain, a, b); got != want {
						t.Fatalf("%+v, places %v: %d and %d are %s, want %s", grants, place, a, b, got, want)
					}
					continue
				}
				kept++
				if got, want := relation(v, a, b), "private-vlan private-vlan private-vlan 0 0 false false"; got != want {
					t.Fatalf("%+v, places %v: %d and %d are %s, want %s", grants, place, a, b, got, want)
				}
			}
		}
	}
	if kept < 1000 || open < 1000 {
		t.Errorf("%d pairs were kept apart, %d were not: that says nothing", kept, open)
	}
}

// relation is all that policy says of a frame from a to b, and of what they know of each other.
func relation(v *View, a, b Identity) string {
	passage := func() *Passage {
		return &Passage{Source: a, Flows: NewFlows(), Now: t0, class: Class{Kind: Opaque, Type: 0x88b5, Dst: ether.MAC{2, 5: byte(b)}}, classed: true}
	}
	_, out := v.Egress(passage(), b)
	in := out
	for id := range GrantID(3) {
		if got := v.Ingress(passage(), b, id); got == Pass || id == 2 && in == PrivateVLAN {
			in = got
		}
	}
	return fmt.Sprint(out.Code(), " ", in.Code(), " ", v.Between(a, b, t0).Code(), " ", v.Resolves(a, b, t0), " ", v.Choice(passage(), b), " ", v.Names(a, b, t0), " ",
		slices.Contains(v.Neighbours(a, t0), b))
}

// Who is isolated is around itself: its other gateway is told where it is.
func TestIsolatedIsItsOwnNeighbour(t *testing.T) {
	stations := siteStations()
	stations[attachment].Secondary = SecondaryVLAN{Isolated: true}
	v := Compile(Rules{Self: gateway, Stations: stations, Grants: []Grant{{ID: 1, Segment: true, Sources: []Identity{1, attachment}}}})
	if got := v.Neighbours(attachment, t0); !slices.Equal(got, []Identity{1, attachment}) {
		t.Errorf("around it are %v", got)
	}
	if got := v.Links(gateway, t0); !slices.Equal(got, []Identity{1, gateway2}) {
		t.Errorf("links go to %v", got)
	}
	for _, pair := range [][2]Identity{{99, attachment}, {attachment, 99}} { // who is nobody is kept apart from nobody
		if got := v.Between(pair[0], pair[1], t0); got == PrivateVLAN || got == Pass {
			t.Errorf("between %v: %q", pair, got)
		}
	}
	if !v.Names(attachment, attachment, t0) {
		t.Error("it does not know its own name")
	}
}

// A flow between two who are kept apart from now on ends, and is recorded as cut, although its grant stays.
func TestPrivateVLANCuts(t *testing.T) {
	grants := []Grant{{ID: 1, Sources: []Identity{attachment2}, Targets: []Identity{far}}}
	stations := siteStations()
	flows := NewFlows()
	flows.Retain([]Identity{attachment2, far})
	compile := func(generation uint64) *View {
		return Compile(Rules{Generation: generation, Self: gateway, Stations: stations, Grants: grants})
	}
	p := func(source Identity) *Passage {
		packet := Class{Kind: Packet, Type: ether.TypeIPv4, Dst: ether.MAC{2, 5: 77}, Tuple: Tuple{Src: addressOf(77), Dst: addressOf(78), SrcPort: 9, DstPort: 5, Protocol: 6}}
		return &Passage{Source: source, Flows: flows, Now: t0, class: packet, classed: true}
	}
	v := compile(1)
	if _, verdict := v.Egress(p(attachment2), far); verdict != Pass || flows.Len() != 1 {
		t.Fatalf("before: %q, %d flows", verdict, flows.Len())
	}
	flows.Age(v, t0)
	if flows.Len() != 1 {
		t.Fatal("it has ended before")
	}
	stations[attachment2].Secondary, stations[far].Secondary = SecondaryVLAN{Community: "a"}, SecondaryVLAN{Community: "b"}
	v = compile(2)
	if _, verdict := v.Egress(p(attachment2), far); verdict != PrivateVLAN {
		t.Errorf("apart: %q", verdict)
	}
	flows.Age(v, t0.Add(time.Second))
	if flows.Len() != 0 {
		t.Error("the flow goes on")
	}
}

package policy

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// stranger is one of a crowd of whom nobody has granted anything: those on a VLAN whom nobody named. known is a node that may reach the
// first host of the crowd.
const (
	stranger, known Identity = 2, 3
	firstHost       Identity = 10
)

// crowd is a site with so many hosts that list no addresses, all members, and the two.
func crowd(hosts int) *View {
	stations := map[Identity]*Station{1: NewStation(ether.MAC{2, 1}, nil, false), known: NewStation(ether.MAC{2, 2}, nil, false)}
	stations[stranger] = machine(ether.MAC{}, []Identity{1}, []Identity{stranger})
	all := Grant{ID: 1, Segment: true}
	for i := range hosts {
		id := firstHost + Identity(i)
		stations[id] = machine(ether.MAC{2, 9, 3: byte(i >> 16), 4: byte(i >> 8), 5: byte(i)}, []Identity{1}, []Identity{stranger})
		all.Sources = append(all.Sources, id)
	}
	one := Grant{ID: 2, Sources: []Identity{known}, Targets: []Identity{firstHost}}
	return Compile(Rules{Generation: 1, Self: 1, Stations: stations, Grants: []Grant{all, one}, Expires: t0.Add(time.Hour)})
}

// Who asks for an address that nobody has costs no look at machines with which he has nothing to do.
func TestSeekLooksAtFew(t *testing.T) {
	v, nobodys := crowd(1000), ether.Mapped([4]byte{192, 0, 2, 77})
	for _, c := range []struct {
		asker Identity
		looks []Identity
		want  Verdict
	}{{stranger, nil, UnknownAddress}, {known, []Identity{firstHost}, Pass}, {firstHost, nil, Pass}, {firstHost + 1, nil, Pass}} {
		if _, got := v.Seek(c.asker, nobodys, t0); got != c.want || !slices.Equal(v.askable[c.asker], c.looks) {
			t.Errorf("%d asks: %v, after a look at %d machines", c.asker, got, len(v.askable[c.asker]))
		}
	}
}

// A stranger is refused by everybody alike; and whom anything may concern is none.
func TestStranger(t *testing.T) {
	v := crowd(3)
	for id, want := range map[Identity]bool{stranger: true, 1: true, 99: true, known: false, firstHost: false, firstHost + 2: false} {
		if got := v.Stranger(id, t0); got != want {
			t.Errorf("%d: %v", id, got)
		}
		if !want {
			continue
		}
		for receiver := range v.stations {
			p := &Passage{Frame: ether.Frame{Dst: ether.Broadcast, Type: 0x88b6}, Source: id, Flows: NewFlows(), Now: t0}
			if _, got := v.Egress(p, receiver); got != NoGrant {
				t.Errorf("%d to %d: %v", id, receiver, got)
			}
		}
	}
	if v.Stranger(stranger, t0.Add(time.Hour)) {
		t.Error("under a policy that is too old everybody is refused for another reason")
	}
	rules := Rules{Stations: map[Identity]*Station{stranger: machine(ether.MAC{}, []Identity{1}, []Identity{stranger})}}
	observing := rules
	observing.Grants = []Grant{{ID: 1, Segment: true, Sources: []Identity{stranger}, Observe: true}}
	if Compile(observing).Stranger(stranger, t0) {
		t.Error("what a grant would let pass that observes is not counted")
	}
	rules.Stations[stranger].Secondary.Isolated = true
	if Compile(rules).Stranger(stranger, t0) {
		t.Error("in a private VLAN there is another reason")
	}
}

// neighboursOfOne is whom one identity has to do with, in the plainest words.
func neighboursOfOne(v *View, id Identity, now time.Time) map[Identity]bool {
	out := map[Identity]bool{}
	for _, g := range v.ranked {
		if g.observe || g.expired(now) {
			continue
		}
		for _, ends := range [...][2]map[Identity]struct{}{{g.sources, g.targets}, {g.targets, g.sources}} {
			if _, is := ends[0][id]; is && !g.segment && len(ends[1]) > 0 {
				addTo(out, ends[1])
				out[id] = true
			}
		}
	}
	if members := v.Members(now); slices.Contains(members, id) {
		addTo(out, setOf(members))
	}
	for other := range out {
		if other != id && v.apart(id, other) {
			delete(out, other)
		}
	}
	return out
}

func addTo(to map[Identity]bool, from map[Identity]struct{}) {
	for id := range from {
		to[id] = true
	}
}

// Whom many have to do with is whom each of them has, whatever grants there are, and wherever they are in a private VLAN.
func TestNeighboursOfGolden(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		some := func() (out []Identity) {
			for id := range Identity(12) {
				if r.IntN(4) == 0 {
					out = append(out, id+1)
				}
			}
			return out
		}
		rules := Rules{Self: 1, Stations: map[Identity]*Station{}, Expires: t0.Add(time.Hour)}
		for id := range Identity(10) { // two are told of without a station
			s := machine(ether.MAC{2, 5: byte(id)}, [][]Identity{{1}, {1, 20}, {21}, nil}[r.IntN(4)], []Identity{id + 1})
			s.Secondary = [...]SecondaryVLAN{{}, {}, {Isolated: true}, {Community: "a"}, {Community: "b"}}[r.IntN(5)]
			rules.Stations[id+1] = s
		}
		for id := range GrantID(r.IntN(6)) {
			g := Grant{ID: id + 1, Sources: some(), Segment: r.IntN(3) == 0, Observe: r.IntN(6) == 0}
			if !g.Segment {
				g.Targets = some()
			}
			if r.IntN(6) == 0 {
				g.Expires = t0
			}
			rules.Grants = append(rules.Grants, g)
		}
		v, ids, want := Compile(rules), some(), map[Identity]bool{}
		for _, id := range ids {
			one := neighboursOfOne(v, id, t0)
			if got := v.Neighbours(id, t0); !slices.Equal(got, slices.Sorted(maps.Keys(one))) {
				t.Fatalf("seed %d: Neighbours(%d) = %v, want %v", seed, id, got, one)
			}
			maps.Copy(want, one)
		}
		checkAudience(t, seed, v)
		if got := v.NeighboursOf(ids, t0); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("seed %d: NeighboursOf(%v) = %v, want %v", seed, ids, got, want)
		}
	}
}

// checkAudience holds who is to know of a machine against whom it has to do with, in the plainest words.
func checkAudience(t *testing.T, seed uint64, v *View) {
	t.Helper()
	got := v.Audience(1, t0)
	for _, who := range v.Own(1)[1:] {
		nodes := map[Identity]bool{}
		for id := range neighboursOfOne(v, who, t0) {
			for _, node := range append(v.Gateways(id), v.nodeItself(id)...) {
				nodes[node] = true
			}
		}
		for _, node := range v.Gateways(who) {
			nodes[node] = true
		}
		delete(nodes, 1)
		if want := slices.Sorted(maps.Keys(nodes)); !slices.Equal(got[who], want) {
			t.Fatalf("seed %d: the audience of %d is %v, want %v", seed, who, got[who], want)
		}
	}
	if len(got) != len(v.Own(1))-1 {
		t.Fatalf("seed %d: an audience of %d machines", seed, len(got))
	}
}

// nodeItself is an identity for which nobody else speaks.
func (v *View) nodeItself(id Identity) []Identity {
	if len(v.Gateways(id)) > 0 {
		return nil
	}
	return []Identity{id}
}

// A gateway of thousands of hosts works out whom they have to do with in no more time than one grant may take to be cut.
func TestAroundThousandsIsQuick(t *testing.T) {
	v := crowd(10_000)
	for name, what := range map[string]func() int{
		"Around":   func() int { return len(v.Around(1, t0)) },
		"Audience": func() int { return len(v.Audience(1, t0)) },
	} {
		took := best(3, func() {
			if n := what(); n != 10_001 {
				t.Fatalf("%s: %d", name, n)
			}
		})
		if took > 100*time.Millisecond {
			t.Errorf("%s takes %v", name, took)
		}
	}
}

func BenchmarkSeekOfStranger(b *testing.B) {
	v := crowd(10000)
	for b.Loop() {
		v.Seek(stranger, ether.Mapped([4]byte{192, 0, 2, 77}), t0)
	}
}

package policy

import (
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

func BenchmarkSeekOfStranger(b *testing.B) {
	v := crowd(10000)
	for b.Loop() {
		v.Seek(stranger, ether.Mapped([4]byte{192, 0, 2, 77}), t0)
	}
}

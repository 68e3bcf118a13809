package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Who has an address is told by the asker's node, asked on the wire, or not to be known, whatever the grants are.
func TestSeek(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	for range 3000 {
		m := &golden{grants: randomGrants(t, r), world: randomWorld(r)}
		asker := Identity(1 + r.IntN(everybody))
		rules := Rules{Self: m.world.speaker(r, asker), Stations: m.world.stations(), Expires: t0.Add(time.Hour)}
		for _, g := range m.grants {
			rules.Grants = append(rules.Grants, g.Grant)
		}
		v := Compile(rules)
		now := t0.Add(time.Duration(r.IntN(40)) * time.Second)
		reaches := func(a, b Identity) bool {
			return slices.ContainsFunc(m.grants, func(g goldenGrant) bool {
				return !g.Observe && g.lives(now) && slices.Contains(g.Sources, a) && slices.Contains(g.Targets, b)
			})
		}
		concerned := func(other Identity) bool { return reaches(asker, other) || reaches(other, asker) }
		machines := false
		for id := Identity(people + 1); id <= everybody; id++ {
			machines = machines || m.world[id].unlisted() && (concerned(id) || m.member(asker, now) && m.member(id, now))
		}
		for target := Identity(1); target <= everybody; target++ {
			known := len(m.world[target].addrs) > 0
			want, why, way := Identity(0), Pass, "wire"
			switch {
			case known && target == asker:
				way = "own"
			case known && m.member(asker, now) && m.member(target, now):
			case known && concerned(target):
				want, way = target, "answer"
			case !known && machines && !m.member(asker, now):
				way = "machines"
			case known || !m.member(asker, now):
				why, way = UnknownAddress, "silence"
			}
			seen[way]++
			if id, verdict := v.Seek(asker, addressOf(target), now); id != want || verdict != why {
				t.Fatalf("%d seeks %d under %+v: %d, %q; want %d, %q", asker, target, m.grants, id, verdict, want, why)
			}
			if id, verdict := v.Seek(asker, addressOf(target), t0.Add(time.Hour)); id != 0 || verdict != PolicyExpired {
				t.Fatalf("past the policy's age: %d, %q", id, verdict)
			}
		}
	}
	for _, way := range []string{"own", "wire", "answer", "silence", "machines"} {
		if seen[way] < 300 {
			t.Errorf("%s: only %d cases", way, seen[way])
		}
	}
}

// Every address of a station is found, and one that two may use is always the same one's.
func TestAddressesOf(t *testing.T) {
	shared := netip.MustParseAddr("192.0.2.99")
	stations := map[Identity]*Station{}
	for id := Identity(1); id <= 9; id++ {
		mac := ether.MAC{2, 5: byte(id)}
		stations[id] = NewStation(mac, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}), mac.LinkLocal(), shared}, false)
	}
	found := addressesOf(stations)
	for id, s := range stations {
		if found[addressOf(id)] != id || found[s.MAC.LinkLocal().As16()] != id {
			t.Errorf("addresses of %d are %d's and %d's", id, found[addressOf(id)], found[s.MAC.LinkLocal().As16()])
		}
	}
	if len(found) != 2*len(stations)+1 || found[shared.As16()] != 1 {
		t.Errorf("%d addresses, the shared one is %d's", len(found), found[shared.As16()])
	}
}

package policy

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// neighboursGolden says plainly with whom one has to do: with whom a grant to the segment is shared, or one of whom a grant to nodes
// names each, and who is not kept apart.
func neighboursGolden(v *View, grants []Grant, id Identity, now time.Time) (out []Identity) {
	live := func(g Grant) bool { return !g.Observe && (g.Expires.IsZero() || now.Before(g.Expires)) }
	in := func(a, b []Identity, other Identity) bool {
		return slices.Contains(a, id) && len(b) > 0 && (other == id || slices.Contains(b, other))
	}
	member := func(id Identity) bool {
		return slices.ContainsFunc(grants, func(g Grant) bool { return g.Segment && live(g) && slices.Contains(g.Sources, id) })
	}
	for other := Identity(1); other < 40; other++ {
		meets := member(id) && member(other)
		for _, g := range grants {
			meets = meets || !g.Segment && live(g) && (in(g.Sources, g.Targets, other) || in(g.Targets, g.Sources, other))
		}
		s, o := v.Station(id), v.Station(other)
		apart := other != id && s != nil && o != nil && s.Secondary.Apart(o.Secondary)
		if meets && !apart {
			out = append(out, other)
		}
	}
	return out
}

// randomView is a segment of nodes and machines, with grants of every kind.
func randomView(r *rand.Rand, now time.Time) (*View, []Grant) {
	some := func(n int) (ids []Identity) {
		for range r.IntN(n) {
			ids = append(ids, Identity(1+r.IntN(30)))
		}
		return ids
	}
	stations := map[Identity]*Station{}
	private := r.IntN(2) == 0
	for id := Identity(1); id <= 25; id++ { // some have none
		if id <= 8 {
			stations[id] = NewStation(ether.MAC{2, 5: byte(id)}, nil, false)
			continue
		}
		m := NewMachine(ether.MAC{2, 5: byte(id)}, nil)
		m.Gateways, m.Attachments = []Identity{1 + id%3}, []Identity{9 + id%2}
		if r.IntN(3) == 0 {
			m.Gateways, m.Attachments = append(m.Gateways, 4, 4), append(m.Attachments, 11, 11)
		}
		if private {
			m.Secondary = []SecondaryVLAN{{}, {Isolated: true}, {Community: "a"}, {Community: "b"}}[r.IntN(4)]
		}
		stations[id] = m
	}
	var grants []Grant
	for i := range 1 + r.IntN(6) {
		g := Grant{ID: GrantID(i + 1), Segment: r.IntN(3) == 0, Sources: some(12), Observe: r.IntN(6) == 0}
		if !g.Segment {
			g.Sources, g.Targets = some(4), some(4)
		}
		if r.IntN(4) == 0 {
			g.Expires = now.Add(time.Duration(r.IntN(3)-1) * time.Second)
		}
		grants = append(grants, g)
	}
	return Compile(Rules{Self: 1, Stations: stations, Grants: grants}), grants
}

// Asked for many at once, the answer is what it is for each of them.
func TestNeighboursOfMany(t *testing.T) {
	r, now := rand.New(rand.NewPCG(1, 2)), t0
	for range 2000 {
		v, grants := randomView(r, now)
		var ids, all []Identity
		for range r.IntN(12) {
			ids = append(ids, Identity(1+r.IntN(30)))
		}
		ids = unique(ids)
		for _, id := range ids {
			want := neighboursGolden(v, grants, id, now)
			if got := v.Neighbours(id, now); !slices.Equal(got, want) {
				t.Fatalf("%d has to do with %v, want %v; grants %+v", id, got, want, grants)
			}
			all = append(all, want...)
		}
		if got := v.NeighboursOf(ids, now); !slices.Equal(got, unique(all)) {
			t.Fatalf("%v have to do with %v, want %v; grants %+v", ids, got, unique(all), grants)
		}
	}
}

// For whom a node speaks, and who is behind an attachment, is noted once, and is what each station says.
func TestIndexOfStations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		v, _ := randomView(r, t0)
		for at := range Identity(30) {
			own, hosts := []Identity{at}, []Identity(nil)
			for id := range Identity(30) {
				s := v.Station(id)
				if s != nil && slices.Contains(s.Gateways, at) {
					own = append(own, id)
				}
				if s != nil && id != at && slices.Contains(s.Attachments, at) {
					hosts = append(hosts, id)
				}
			}
			if got := v.Own(at); !slices.Equal(got, own) {
				t.Fatalf("%d speaks for %v, want %v", at, got, own)
			}
			if got := v.Hosts(at); !slices.Equal(got, hosts) {
				t.Fatalf("behind %d are %v, want %v", at, got, hosts)
			}
			_ = append(v.Hosts(at), 99) // is the caller's
			if got := v.Hosts(at); !slices.Equal(got, hosts) {
				t.Fatalf("what a caller appends is behind %d: %v", at, got)
			}
		}
	}
}

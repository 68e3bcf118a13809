package herald

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/policy"
)

// audienceGolden says plainly which nodes are to know where a machine is.
func audienceGolden(v *policy.View, who policy.Identity, now time.Time) (out []policy.Identity) {
	for _, id := range append(v.Neighbours(who, now), who) {
		if gateways := v.Gateways(id); len(gateways) > 0 {
			out = append(out, gateways...)
		} else {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(id policy.Identity) bool { return id == 1 })
}

// Who is to know of machines that are alike is worked out once, and is what it is for each of them; and whoever is concerned by another
// machine than before is told all anew.
func TestAudience(t *testing.T) {
	r, now := rand.New(rand.NewPCG(5, 6)), time.Now()
	h := &Herald{cfg: Config{Self: 1, Epoch: r.Uint64}, to: map[policy.Identity]*telling{}}
	shared, anew := 0, 0
	for round := range 500 {
		before := h.audience
		for _, to := range h.to {
			to.all = false
		}
		h.view = randomView(r, uint64(round))
		h.addressLocked(now)
		own := h.view.Own(1)[1:]
		if len(h.audience) != len(own) {
			t.Fatalf("there are %d machines, and an audience of %d", len(own), len(h.audience))
		}
		listens := map[policy.Identity]bool{}
		for _, who := range own {
			want := audienceGolden(h.view, who, now)
			if !slices.Equal(h.audience[who], want) {
				t.Fatalf("of %d are told %v, want %v", who, h.audience[who], want)
			}
			for _, id := range want {
				listens[id] = true
			}
		}
		for i := range own[1:] {
			if a, b := h.audience[own[i]], h.audience[own[i+1]]; len(a) > 0 && len(b) > 0 && &a[0] == &b[0] {
				shared++
			}
		}
		for id, to := range h.to {
			concerned := false
			for who := policy.Identity(100); who < 140; who++ {
				concerned = concerned || isIn(before[who], id) != isIn(h.audience[who], id)
			}
			if to.listens != listens[id] || to.all != (concerned || to.all && before == nil) {
				t.Fatalf("%d: listens %v, is told all %v; want %v, %v", id, to.listens, to.all, listens[id], concerned)
			}
			if to.all {
				anew++
			}
		}
	}
	if shared < 100 || anew < 100 {
		t.Errorf("%d lists are shared, %d are told all anew: this proves little", shared, anew)
	}
}

// randomView is nodes 1 to 9, some of which are gateways, and machines 100 to 139 behind them.
func randomView(r *rand.Rand, generation uint64) *policy.View {
	some := func(n int) (ids []policy.Identity) {
		for range r.IntN(n) {
			if id := policy.Identity(1 + r.IntN(49)); id < 10 {
				ids = append(ids, id)
			} else {
				ids = append(ids, 90+id)
			}
		}
		return ids
	}
	x := policy.Rules{Generation: generation, Self: 1, Stations: map[policy.Identity]*policy.Station{}}
	private := r.IntN(2) == 0
	for id := policy.Identity(1); id < 10; id++ {
		x.Stations[id] = policy.NewStation(mac(int(id)), nil, false)
	}
	for id := policy.Identity(100); id < 140; id++ {
		m := policy.NewMachine(mac(int(id)), nil)
		m.Attachments = []policy.Identity{100 + id%4}
		m.Gateways = []policy.Identity{1 + id%4}
		if id%8 == 0 {
			m.Gateways = append(m.Gateways, 7)
		}
		if private {
			m.Secondary = []policy.SecondaryVLAN{{}, {Isolated: true}, {Community: "a"}}[r.IntN(3)]
		}
		x.Stations[id] = m
	}
	for i := range 1 + r.IntN(5) {
		g := policy.Grant{ID: policy.GrantID(i + 1), Segment: r.IntN(2) == 0, Sources: some(40)}
		if !g.Segment {
			g.Sources, g.Targets = some(4), some(4)
		}
		x.Grants = append(x.Grants, g)
	}
	return policy.Compile(x)
}

package election

import (
	"flag"
	"testing"
	"time"
)

var seeds = flag.Uint64("seeds", 60, "how many random histories of each kind TestRandomHistories runs")

// Whatever happens to the gateways and between them, two that hear each other never both forward, and when it is over the best
// one does.
func TestRandomHistories(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 6)
	}
	for _, nodes := range []int{2, 3} {
		both := 0
		for seed := range n {
			both += history(t, nodes, seed)
		}
		t.Logf("%d gateways, %d histories: two that could not hear each other forwarded for %d ms in all", nodes, n, both)
	}
}

func history(t *testing.T, nodes int, seed uint64) int {
	w := newWorld(t, nodes, seed)
	w.loss = [2]float64{w.rnd.Float64() * 0.5, w.rnd.Float64() * 0.5}
	w.delay = [2]time.Duration{time.Duration(1+w.rnd.IntN(150)) * ms, time.Duration(1+w.rnd.IntN(10)) * ms}
	for end := w.now.Add(25 * time.Second); w.now.Before(end); {
		w.mishap()
		w.run(time.Duration(1+w.rnd.IntN(400)) * ms)
	}
	w.loss = [2]float64{}
	clear(w.cut)
	for _, g := range w.nodes {
		g.paused = time.Time{}
		if g.dead {
			w.start(g)
		}
		w.set(g, good())
	}
	w.run(5 * time.Second)
	if f := w.forwarder(); f == nil || f != w.best() {
		w.fail("seed %d: 5 s after all is well, the best one does not forward", seed)
	}
	return w.both
}

// mishap does something to somebody.
func (w *world) mishap() {
	g := w.nodes[w.rnd.IntN(len(w.nodes))]
	if g.dead {
		w.start(g)
		return
	}
	long := time.Duration(w.rnd.IntN(1500)) * ms
	switch w.rnd.IntN(9) {
	case 0:
		w.kill(g)
	case 1:
		w.pause(g, long)
	case 2:
		w.pause(g, long/8)
	case 3, 4:
		w.partition(g, long)
	case 5:
		c := good()
		switch w.rnd.IntN(4) {
		case 0:
			c.Carrier = false
		case 1:
			c.Peer = false
		case 2:
			c.Peer, c.Peers = false, false
		}
		w.set(g, c)
	case 6:
		if w.runs(g) {
			g.cfg.Preference = uint16(w.rnd.IntN(3))
			g.e.SetPreference(g.cfg.Preference, w.now)
			w.note("%d has preference %d", g.cfg.Node, g.cfg.Preference)
		}
	default:
		w.set(g, good())
	}
}

// partition cuts some of the ways from or to a gateway.
func (w *world) partition(g *gw, d time.Duration) {
	ways := 1 + w.rnd.IntN(15) // bits: from, to; overlay, VLAN
	if w.rnd.IntN(3) == 0 {
		ways = 15
	}
	o := w.rnd.IntN(len(w.nodes)) // from it alone, or from all
	for to := range w.nodes {
		if to == g.id || o != g.id && to != o {
			continue
		}
		for bit := range 4 {
			if ways>>bit&1 == 1 {
				from, at := g.id, to
				if bit&1 == 1 {
					from, at = to, g.id
				}
				w.cut[[3]int{from, at, bit >> 1}] = w.now.Add(d)
			}
		}
		w.note("%d and %d: ways %04b are cut for %v", g.cfg.Node, to+1, ways, d)
	}
}

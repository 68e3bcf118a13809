package election

import (
	"testing"
	"time"
)

// What may happen to a forwarder, and after how long at most another forwards: 1 s, or at once if the forwarder can say so
// itself.
func TestTakeover(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world, f *gw)
		most time.Duration
		loss float64
	}{
		{"dies", func(w *world, f *gw) { w.kill(f) }, 700 * ms, 0},
		{"dies, a tenth of hellos is lost", func(w *world, f *gw) { w.kill(f) }, time.Second, 0.1},
		{"is paused", func(w *world, f *gw) { w.pause(f, 5*time.Second) }, 700 * ms, 0},
		{"loses its port", func(w *world, f *gw) { w.set(f, Conditions{Synced: true, Peer: true, Peers: true}) }, 150 * ms, 0},
		{"loses the overlay", func(w *world, f *gw) {
			w.set(f, Conditions{Carrier: true, Synced: true, Peers: true})
			for _, o := range w.nodes {
				w.cut[[3]int{f.id, o.id, 0}], w.cut[[3]int{o.id, f.id, 0}] = w.now.Add(time.Hour), w.now.Add(time.Hour)
			}
		}, 150 * ms, 0},
		{"loses the VLAN alone", func(w *world, f *gw) {
			w.set(f, Conditions{Synced: true, Peer: true, Peers: true})
			for _, o := range w.nodes {
				w.cut[[3]int{f.id, o.id, 1}], w.cut[[3]int{o.id, f.id, 1}] = w.now.Add(time.Hour), w.now.Add(time.Hour)
			}
		}, 150 * ms, 0},
		{"is told to stop", func(w *world, f *gw) { f.e.Leave(w.now); w.tick(f); w.kill(f) }, 150 * ms, 0},
		{"is preferred less", func(w *world, f *gw) {
			for _, o := range w.nodes {
				if o != f {
					o.e.SetPreference(9, w.now)
				}
			}
		}, 400 * ms, 0},
	} {
		for _, nodes := range []int{2, 3} {
			var worst time.Duration
			for seed := range uint64(25) {
				w := settled(t, nodes, seed)
				w.loss = [2]float64{c.loss, c.loss}
				f := w.forwarder()
				c.do(w, f)
				worst = max(worst, w.until(f, 2*time.Second))
			}
			t.Logf("%s, %d gateways: another forwards after %v at most", c.name, nodes, worst)
			if worst > c.most {
				t.Errorf("%s, %d gateways: another forwards after %v, more than %v", c.name, nodes, worst, c.most)
			}
		}
	}
}

// Whatever happens to those that do not forward, the forwarder goes on without a break.
func TestStandbyDoesNotDisturb(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world, o *gw)
	}{
		{"dies", func(w *world, o *gw) { w.kill(o) }},
		{"dies and starts again", func(w *world, o *gw) { w.kill(o); w.run(300 * ms); w.start(o) }},
		{"starts again at once", func(w *world, o *gw) { w.kill(o); w.start(o) }},
		{"is paused for long", func(w *world, o *gw) { w.pause(o, 2*time.Second) }},
		{"is paused again and again", func(w *world, o *gw) {
			for range 20 {
				w.pause(o, 90*ms)
				w.run(110 * ms)
			}
		}},
		{"is not able, and is again", func(w *world, o *gw) { w.set(o, Conditions{}); w.run(time.Second); w.set(o, good()) }},
		{"loses one channel", func(w *world, o *gw) {
			by := w.rnd.IntN(2)
			for _, f := range w.nodes {
				w.cut[[3]int{f.id, o.id, by}], w.cut[[3]int{o.id, f.id, by}] = w.now.Add(2*time.Second), w.now.Add(2*time.Second)
			}
		}},
		{"every fifth hello is lost", func(w *world, _ *gw) { w.loss = [2]float64{0.2, 0.2} }},
	} {
		for _, nodes := range []int{2, 3} {
			for seed := range uint64(15) {
				w := settled(t, nodes, seed)
				f := w.forwarder()
				for _, o := range w.nodes {
					if o != f {
						c.do(w, o)
						break
					}
				}
				for range 3000 {
					w.step()
					if !f.e.Forwards(w.now) {
						w.fail("%s, %d gateways, seed %d: the forwarder stopped", c.name, nodes, seed)
					}
				}
			}
		}
	}
}

// A gateway that starts, or starts again, takes nothing from the forwarder before it has been ready for Settle, however good
// it is; then it does, with a gap that frames hardly notice.
func TestPreemption(t *testing.T) {
	for seed := range uint64(10) {
		w := settled(t, 2, seed)
		f := w.forwarder()
		w.kill(f)
		w.until(f, time.Second)
		other := w.forwarder()
		w.run(time.Second)
		w.start(f)
		took := w.until(other, 3*time.Second)
		if least := f.e.cfg.Settle; took < least || took > least+f.e.cfg.Hold+200*ms {
			t.Errorf("seed %d: the better one is back after %v", seed, took)
		}
	}
}

// When a partition heals, there is one forwarder again within a second (G13).
func TestHealing(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		var worst time.Duration
		for seed := range uint64(25) {
			w := settled(t, nodes, seed)
			w.apart(2 * time.Second)
			w.run(2 * time.Second)
			for _, g := range w.nodes {
				if !g.e.Forwards(w.now) {
					t.Fatalf("seed %d: cut off from the others, %d does not forward although it has peers", seed, g.cfg.Node)
				}
			}
			from, took := w.now, time.Duration(0)
			for w.now.Sub(from) < time.Second {
				if w.step(); w.forwarder() == nil {
					took = w.now.Sub(from)
				}
			}
			worst = max(worst, took)
			w.run(2 * time.Second)
			if f := w.forwarder(); f == nil || f != w.best() || took > 500*ms {
				t.Errorf("seed %d: one forwards alone after %v; in the end the best: %v", seed, took, f == w.best())
			}
		}
		t.Logf("%d gateways: one forwards alone after %v at most", nodes, worst)
	}
}

// A way that is cut in one direction alone leaves one forwarder.
func TestOneWay(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for seed := range uint64(20) {
			w := settled(t, nodes, seed)
			a, b := w.rnd.IntN(nodes), w.rnd.IntN(nodes)
			for by := range 2 {
				w.cut[[3]int{a, b, by}] = w.now.Add(time.Hour)
			}
			w.run(5 * time.Second)
			if w.both > 200 || w.forwarder() == nil {
				w.fail("seed %d: %d hears nothing of %d; two forwarded for %d ms, one does now: %v", seed, b+1, a+1, w.both, w.forwarder() != nil)
			}
			both := w.both
			w.run(5 * time.Second)
			if w.both != both {
				w.fail("seed %d: two forward again", seed)
			}
		}
	}
}

// All timers can be a tenth of the defaults; then another takes over in a tenth of the time.
func TestQuickTimers(t *testing.T) {
	for seed := range uint64(10) {
		w := newWorld(t, 2, seed)
		w.delay = [2]time.Duration{2 * ms, ms}
		for _, g := range w.nodes {
			g.cfg.Timers = tenth()
			w.start(g)
		}
		w.run(500 * ms)
		f := w.forwarder()
		if f == nil || f != w.best() {
			w.fail("after half a second the best one does not forward")
		}
		w.kill(f)
		if took := w.until(f, time.Second); took > 70*ms {
			t.Errorf("seed %d: another forwards after %v", seed, took)
		}
	}
}

package election

import (
	"flag"
	"testing"
	"time"
)

var hellos = flag.Int("hellos", 8, "of how many hellos TestEveryCombinationOfLosses loses every combination")

// Of the hellos that follow upon an event, every combination is lost: two that hear each other never both forward, whichever
// they are, and in the end one does. A hello is lost on both channels, which is the worst.
func TestEveryCombinationOfLosses(t *testing.T) {
	n := *hellos
	if testing.Short() {
		n = min(n, 4)
	}
	for _, c := range []struct {
		name  string
		event func(w *world, f, o *gw)
	}{
		{"nothing", func(*world, *gw, *gw) {}},
		{"the other is preferred", func(w *world, _, o *gw) { o.e.SetPreference(9, w.now) }},
		{"the forwarder is paused, for less than its lease", func(w *world, f, _ *gw) { w.pause(f, 380*ms) }},
		{"the forwarder is paused, for more than its lease", func(w *world, f, _ *gw) { w.pause(f, 480*ms) }},
		{"the other is paused", func(w *world, _, o *gw) { w.pause(o, 450*ms) }},
		{"the forwarder loses its port for a moment", func(w *world, f, _ *gw) {
			w.set(f, Conditions{Synced: true, Peer: true, Peers: true})
			w.run(30 * ms)
			w.set(f, good())
		}},
		{"the forwarder starts again", func(w *world, f, _ *gw) { w.kill(f); w.start(f) }},
		{"the other starts again", func(w *world, _, o *gw) { w.kill(o); w.start(o) }},
		{"both have claimed in a partition, which heals", func(w *world, _, _ *gw) { w.apart(2 * time.Second); w.run(2 * time.Second) }},
		{"both are about to claim in a partition, which heals", func(w *world, f, o *gw) {
			w.kill(f)
			w.kill(o)
			w.start(f)
			w.start(o)
			w.apart(598 * ms)
			w.run(598 * ms)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for losses := range 1 << n {
				w := newWorld(t, 2, 1)
				for _, g := range w.nodes {
					w.start(g)
				}
				if w.run(900 * ms); w.forwarder() != w.best() {
					w.fail("the best one does not forward")
				}
				w.delay = [2]time.Duration{3 * ms, 1 * ms}
				f := w.forwarder()
				o := w.nodes[1-f.id]
				left := losses
				w.fates = func() bool {
					lost := left&1 == 1
					left >>= 1
					return !lost
				}
				c.event(w, f, o)
				w.run(1300 * ms)
				w.fates = nil
				if w.run(500 * ms); w.forwarder() == nil {
					w.fail("losses %b: none or both forward", losses)
				}
			}
		})
	}
}

// apart lets nothing through between anybody.
func (w *world) apart(d time.Duration) {
	for i := range w.nodes {
		for j := range w.nodes {
			for by := range 2 {
				w.cut[[3]int{i, j, by}] = w.now.Add(d)
			}
		}
	}
}

package transport

import (
	"testing"
	"time"
)

// A direct path that comes and goes faster than it is taken for dead is left for the relay, and taken again when it stays.
func TestShakyPath(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		w.keepBusy(a, b, 10*time.Second)

		const half = 470 * time.Millisecond // not that of probes
		var left time.Duration
		began, was, changes := time.Now(), "direct", 0
		for time.Since(began) < time.Minute {
			for _, cut := range []bool{true, false} {
				if w.net.SetFilter(nil); cut {
					w.net.SetFilter(notBetween("192.0.2.1", "192.0.2.2"))
				}
				time.Sleep(half)
				a.send(b, "busy")
				b.send(a, "busy")
			}
			if now := a.status(b).Path; now != was {
				if was, changes = now, changes+1; changes == 1 {
					left = time.Since(began)
				}
			}
		}
		if was != "relayed" || changes > 3 || left > 6*time.Second {
			t.Errorf("in a minute the path changes %d times, first after %v, and is %s", changes, left, was)
		}
		if why := a.status(b).Why; why == "" {
			t.Error("nobody says why it is relayed")
		}
		w.net.SetFilter(nil)
		w.keepBusy(a, b, 20*time.Second)
		a.awaitPath(b, "direct", time.Second)
	})
}

// All paths are shaky: the direct one is used.
func TestAllShaky(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		w.net.SetLoss(0.25)
		all := 0
		for range 120 {
			w.keepBusy(a, b, time.Second)
			var direct, relayed PathStatus
			for _, p := range a.status(b).Paths {
				if p.Kind == "direct" {
					direct = p
				} else {
					relayed = p
				}
			}
			if direct.Alive && direct.Shaky && relayed.Alive && relayed.Shaky {
				if all++; !direct.InUse {
					t.Fatal("the direct path is not used, although the other is no better")
				}
			}
		}
		if all < 10 {
			t.Errorf("both were shaky in %d of 120 s", all)
		}
	})
}

func TestQuality(t *testing.T) {
	var q quality
	note := func(lost bool, times int) (changes int) {
		for range times {
			if q.note(lost) {
				changes++
			}
		}
		return changes
	}
	if note(false, 100) != 0 || note(true, 1) != 0 || note(false, 7) != 0 || note(true, 1) != 0 || q.shaky {
		t.Errorf("two lost of nine make it shaky: %+v", q)
	}
	if note(true, 1) != 1 || !q.shaky {
		t.Errorf("another one does not: %+v", q)
	}
	if note(false, 10) != 0 || !q.shaky {
		t.Errorf("ten in a row make it steady: %+v", q)
	}
	if note(false, 10) != 1 || q.shaky {
		t.Errorf("twenty in a row do not: %+v", q)
	}
}

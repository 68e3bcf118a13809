package node

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// An address is shown again and again, each time as long after as is said; and no more once another gateway carries the VLAN.
func TestShowing(t *testing.T) {
	var w showing
	now := time.Now()
	mac := ether.MAC{2, 0, 0, 0, 0, 1}
	if w.add(now, mac); len(w.rounds[0]) != 0 {
		t.Error("an address waits, although another gateway carries the VLAN")
	}
	w.carries = true
	w.add(now, mac)
	began, times := now, []time.Duration(nil)
	for {
		macs, next := w.take(now)
		if len(macs) > 0 {
			times = append(times, now.Sub(began))
		}
		if next.IsZero() {
			break
		}
		if !next.After(now) {
			t.Fatalf("next is %v after now", next.Sub(now))
		}
		now = next
	}
	want := []time.Duration{0, 100 * time.Millisecond, 600 * time.Millisecond, 2 * time.Second}
	if len(times) != len(want) {
		t.Fatalf("shown after %v, want %v", times, want)
	}
	for i := range want {
		if d := times[i] - want[i]; d < 0 || d > 10*time.Millisecond {
			t.Errorf("shown after %v, want %v", times, want)
		}
	}

	w.add(now, mac)
	w.take(now)
	w.end()
	if macs, next := w.take(now.Add(time.Minute)); len(macs) != 0 || !next.IsZero() {
		t.Errorf("after the end %v are shown, and more at %v", macs, next)
	}
}

// Many are shown a hundred at a time, each as often as one alone, and no more of them wait than may.
func TestShowingMany(t *testing.T) {
	w := showing{carries: true}
	now := time.Now()
	for i := range mostShown + 7 {
		w.add(now, ether.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	shown, began := map[ether.MAC]int{}, now
	for {
		macs, next := w.take(now)
		if len(macs) > shownAtOnce {
			t.Fatalf("%d at once", len(macs))
		}
		for _, mac := range macs {
			shown[mac]++
		}
		if next.IsZero() {
			break
		}
		if next.Sub(now) < shownEvery {
			t.Fatalf("the next are due %v later", next.Sub(now))
		}
		now = next
	}
	if len(shown) != mostShown {
		t.Errorf("%d addresses are shown, want %d", len(shown), mostShown)
	}
	for mac, n := range shown {
		if n != len(showAgain)+1 {
			t.Fatalf("%v is shown %d times, want %d", mac, n, len(showAgain)+1)
		}
	}
	if took := now.Sub(began); took > 4*time.Second {
		t.Errorf("it takes %v", took)
	}
}

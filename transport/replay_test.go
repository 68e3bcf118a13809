package transport

import (
	"math/rand/v2"
	"testing"
)

// X17: reordering within the window passes once, replays and what is older do not.
func TestReplayWindow(t *testing.T) {
	type step struct {
		counter uint64
		fresh   bool
	}
	for name, steps := range map[string][]step{
		"in order":         {{0, true}, {1, true}, {2, true}},
		"replay":           {{0, true}, {0, false}, {5, true}, {5, false}},
		"reordered":        {{5, true}, {3, true}, {4, true}, {3, false}, {0, true}},
		"edge of window":   {{windowBits - 1, true}, {1, true}, {0, true}, {0, false}},
		"beyond window":    {{windowBits, true}, {0, false}, {1, true}},
		"jump far":         {{7, true}, {1 << 40, true}, {7, false}, {1<<40 - windowBits, false}, {1<<40 - windowBits + 1, true}},
		"greatest":         {{1<<64 - 2, true}, {1<<64 - 2, false}, {1<<64 - 3, true}},
		"ring is cleared":  {{0, true}, {ringWords * 64, true}, {ringWords*64 - windowBits + 1, true}},
		"word boundary":    {{63, true}, {64, true}, {63, false}, {64, false}, {127, true}, {128, true}},
		"same ring word":   {{5, true}, {5 + ringWords*64, true}, {5 + ringWords*64, false}},
		"just over a ring": {{1, true}, {ringWords*64 + 130, true}, {ringWords*64 + 129, true}, {ringWords*64 + 2, true}},
	} {
		var w replayWindow
		for i, s := range steps {
			if got := w.fresh(s.counter); got != s.fresh {
				t.Errorf("%s, step %d: fresh(%d) = %v", name, i, s.counter, got)
			}
			if s.fresh {
				w.commit(s.counter)
			}
		}
	}
}

// Random counters give the same answers as a set of everything seen.
func TestReplayGolden(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var w replayWindow
	seen, next := map[uint64]bool{}, uint64(0)
	for range 300_000 {
		base := next
		if base > 2*windowBits {
			base -= 2 * windowBits
		} else {
			base = 0
		}
		c := base + r.Uint64N(2*windowBits+200)
		if r.IntN(1000) == 0 {
			c = next + r.Uint64N(3*ringWords*64)
		}
		want := !seen[c] && (c >= next || next-c <= windowBits)
		if got := w.fresh(c); got != want {
			t.Fatalf("fresh(%d) = %v with next %d; the model says %v", c, got, next, want)
		}
		if want {
			w.commit(c)
			seen[c] = true
			next = max(next, c+1)
		}
	}
}

package fdb

import (
	"testing"
	"time"
)

// claim is a place that claims an address at a time, and what shall come of it.
type claim struct {
	after time.Duration // the beginning
	port  int
	want  Outcome
}

// RFC 7432 section 15.1: what moves N times within M moves no more, and stays where it was before.
func TestFreeze(t *testing.T) {
	s := time.Second
	for name, c := range map[string]struct {
		claims []claim
		at     int // where the address ends
		frozen bool
	}{
		"two places, in turn": {[]claim{
			{0, 1, Learned}, {s, 2, Moved}, {2 * s, 1, Moved}, {3 * s, 2, Moved}, {4 * s, 1, Moved}, {5 * s, 2, Frozen}, {6 * s, 1, Known}, {7 * s, 2, Frozen},
		}, 1, true},
		"one move less": {[]claim{
			{0, 1, Learned}, {s, 2, Moved}, {2 * s, 1, Moved}, {3 * s, 2, Moved}, {4 * s, 1, Moved},
		}, 1, false},
		"slower than the window": {[]claim{
			{0, 1, Learned}, {50 * s, 2, Moved}, {100 * s, 1, Moved}, {150 * s, 2, Moved}, {200 * s, 1, Moved}, {231 * s, 2, Moved}, {240 * s, 1, Moved},
		}, 1, false},
		"at the end of the window": {[]claim{
			{0, 1, Learned}, {50 * s, 2, Moved}, {100 * s, 1, Moved}, {150 * s, 2, Moved}, {200 * s, 1, Moved}, {230 * s, 2, Frozen},
		}, 1, true},
		"an impostor with two places has the last word, and not the address": {[]claim{
			{0, 1, Learned}, {s, 2, Moved}, {2 * s, 3, Moved}, {3 * s, 2, Moved}, {4 * s, 3, Moved}, {5 * s, 2, Frozen}, {6 * s, 3, Frozen}, {7 * s, 1, Known},
		}, 1, true},
		"an impostor waits for a new window": {[]claim{
			{0, 1, Learned},
			{s, 2, Moved},
			{2 * s, 1, Moved},
			{180 * s, 2, Moved},
			{182 * s, 1, Moved},
			{183 * s, 2, Moved},
			{184 * s, 1, Moved},
			{185 * s, 2, Moved},
			{186 * s, 1, Moved}, // the fifth of the window, by who was there first: it is brought home
			{187 * s, 2, Frozen},
		}, 1, true},
		"not quiet for long enough": {[]claim{
			{0, 1, Learned}, {s, 2, Moved}, {181 * s, 1, Moved}, {182 * s, 2, Moved}, {183 * s, 1, Moved}, {184 * s, 2, Moved}, {185 * s, 1, Moved}, {186 * s, 2, Frozen},
		}, 1, true},
		"a new home, after quiet": {[]claim{
			{0, 1, Learned}, {s, 2, Moved}, {182 * s, 1, Moved}, {183 * s, 2, Moved}, {184 * s, 1, Moved}, {185 * s, 2, Moved}, {186 * s, 1, Frozen},
		}, 2, true},
	} {
		tab, now := New[int](Limits{}), time.Now()
		for i, step := range c.claims {
			if got := tab.Learn(mac(1), step.port, now.Add(step.after)); got != step.want {
				t.Errorf("%s: claim %d by place %d: %d, want %d", name, i, step.port, got, step.want)
			}
		}
		end := now.Add(c.claims[len(c.claims)-1].after)
		want(t, tab, mac(1), end, c.at)
		if got := tab.Entries(end)[0].Frozen; got != c.frozen || len(tab.Frozen(end)) == 1 != c.frozen {
			t.Errorf("%s: frozen %t, %+v; want %t", name, got, tab.Frozen(end), c.frozen)
		}
	}
}

// flapping makes an address of place 1 a duplicate in place 2, and says when that was.
func flapping(tab *Table[int], now time.Time) time.Time {
	for i := range 6 {
		tab.Learn(mac(1), 1+i%2, now.Add(time.Duration(i)*time.Second))
	}
	return now.Add(5 * time.Second)
}

// A freeze tells where, since when and until when; it ends by itself, by an administrator, or when the address has been silent at home.
func TestFreezeEnds(t *testing.T) {
	start := time.Now()
	tab := New[int](Limits{Freeze: 100 * time.Second})
	now := flapping(tab, start)
	f := tab.Frozen(now)
	if len(f) != 1 || f[0].MAC != mac(1) || f[0].Port != 1 || f[0].Other != 2 || f[0].Moves != 5 || !f[0].Since.Equal(now) ||
		!f[0].Until.Equal(now.Add(100*time.Second)) || f[0].Warned {
		t.Fatalf("Frozen = %+v", f)
	}
	if s := tab.Stats(); s.Duplicates != 1 || s.Frozen != 1 || s.Moved != 4 {
		t.Errorf("Stats = %+v", s)
	}
	if got := tab.Learn(mac(1), 2, now.Add(100*time.Second-1)); got != Frozen {
		t.Errorf("just before the end: %d", got)
	}
	end := now.Add(100 * time.Second)
	if got := tab.Learn(mac(1), 2, end); got != Moved || len(tab.Frozen(end)) != 0 {
		t.Errorf("at the end: %d, %+v", got, tab.Frozen(end))
	}
	// It begins anew: four more moves are needed.
	for i := range 3 {
		if got := tab.Learn(mac(1), 1+i%2, end); got != Moved {
			t.Errorf("move %d after the freeze: %d", i, got)
		}
	}

	for name, forget := range map[string]func(*Table[int], time.Time) time.Time{
		"remove": func(tab *Table[int], now time.Time) time.Time { tab.Remove(mac(1)); return now },
		"flush": func(tab *Table[int], now time.Time) time.Time {
			if n := tab.Flush(func(e Entry[int]) bool { return e.Frozen }, now); n != 1 {
				t.Errorf("flushed %d", n)
			}
			return now
		},
		"flush dynamic": func(tab *Table[int], now time.Time) time.Time { flushDynamic(tab); return now },
		"the port goes": func(tab *Table[int], now time.Time) time.Time { flushPort(tab, 1); return now },
		"silence":       func(_ *Table[int], now time.Time) time.Time { return now.Add(DefaultAge) },
	} {
		tab := New[int](Limits{})
		now := forget(tab, flapping(tab, start))
		if len(tab.Frozen(now)) != 0 {
			t.Errorf("%s: still frozen", name)
		}
		if got := tab.Learn(mac(1), 2, now); got != Learned {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// With Warn, a duplicate is told of and moves on; without a number of moves, nothing is a duplicate.
func TestWarnOnly(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		limits     Limits
		at, listed int
		found      uint64
	}{{Limits{Duplicate: Warn}, 2, 1, 1}, {Limits{Moves: -1}, 2, 0, 0}, {Limits{}, 1, 1, 1}} {
		tab := New[int](c.limits)
		now := flapping(tab, start)
		want(t, tab, mac(1), now, c.at)
		f := tab.Frozen(now)
		if len(f) != c.listed || c.listed == 1 && f[0].Warned != (c.limits.Duplicate == Warn) || tab.Entries(now)[0].Frozen != (c.at == 1) {
			t.Errorf("%+v: %+v", c.limits, f)
		}
		if c.at == 2 {
			later := now.Add(time.Second)
			tab.Learn(mac(1), 1, later)
			want(t, tab, mac(1), later, 1)
			if f := tab.Frozen(later); c.listed == 1 && (!f[0].Since.Equal(now) || !f[0].Until.Equal(later.Add(DefaultFreeze))) {
				t.Errorf("%+v: later %+v", c.limits, f)
			}
		}
		if s := tab.Stats(); s.Duplicates != c.found {
			t.Errorf("%+v: %+v", c.limits, s)
		}
	}
}

// Nothing goes home to a place that is gone.
func TestHomeIsGone(t *testing.T) {
	for name, gone := range map[string]func(*Table[int]){
		"port": func(tab *Table[int]) { flushPort(tab, 1) }, "withdrawn": func(tab *Table[int]) { tab.Withdraw(func(p int) bool { return p == 1 }) },
	} {
		tab, now := New[int](Limits{}), time.Now()
		tab.Learn(mac(1), 1, now)
		tab.Learn(mac(1), 2, now)
		gone(tab)
		for i := range 4 {
			tab.Learn(mac(1), 3-i%2, now)
		}
		want(t, tab, mac(1), now, 2)
		if f := tab.Frozen(now); len(f) != 1 || f[0].Port != 2 || f[0].Other != 3 {
			t.Errorf("%s: frozen %+v", name, f)
		}
	}
}

// A claim of what is pinned or frozen elsewhere waits for nobody and allocates nothing, so that a flood of them costs no others.
func TestRefusedClaimsAreCheap(t *testing.T) {
	tab, now := New[int](Limits{}), time.Now()
	tab.AddStatic(mac(2), 1)
	now = flapping(tab, now)
	tab.mu.Lock() // whoever wants it now waits for ever
	defer tab.mu.Unlock()
	if n := testing.AllocsPerRun(100, func() {
		if tab.Learn(mac(1), 2, now) != Frozen || tab.Learn(mac(2), 2, now) != Refused || tab.Learn(mac(2), 1, now) != Known {
			t.Error("a claim is not refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

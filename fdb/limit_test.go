package fdb

import (
	"testing"
	"time"
)

// L14: with Refuse, what does not fit is not learned; what somebody has pinned counts for nothing and always fits.
func TestLearningLimit(t *testing.T) {
	tab, now := New[int](Limits{PerPort: 8, Full: Refuse}), time.Now()
	for i := range 20 {
		tab.AddStatic(mac(500+i), 1)
	}
	tab.AddSticky(mac(600), 1, now)
	for i := range 16 {
		outcome := Learned
		if i >= 8 {
			outcome = NoRoom
		}
		if port, ok := tab.Foresee(mac(i), mac(i), 1, now); ok != (outcome == Learned) || ok && port != 1 {
			t.Errorf("Foresee of address %d: %d, %t", i, port, ok)
		}
		if got := tab.Learn(mac(i), 1, now); got != outcome {
			t.Errorf("address %d: %d, want %d", i, got, outcome)
		}
		want(t, tab, mac(i), now, 1-i/8)
	}
	tab.AddStatic(mac(700), 1)
	tab.AddSticky(mac(701), 1, now)
	if got := tab.Learn(mac(800), 2, now); got != Learned {
		t.Errorf("another place: %d", got)
	}
	// What is known elsewhere does not move to where there is no room, and is not forgotten either.
	if got := tab.Learn(mac(800), 1, now); got != NoRoom {
		t.Errorf("a move to the full place: %d", got)
	}
	if port, _ := tab.Foresee(mac(800), mac(800), 1, now); port != 2 {
		t.Errorf("Foresee of that move: %d", port)
	}
	want(t, tab, mac(800), now, 2)
	if s := tab.Stats(); s.Entries != 8+1+23 || s.NoRoom != 9 || s.Evicted != 0 || s.Learned != 9 || s.Moved != 0 {
		t.Errorf("Stats = %+v", s)
	}
	// What has died makes room, although nobody has collected it.
	later := now.Add(DefaultAge + 1)
	if got := tab.Learn(mac(900), 1, later); got != Learned {
		t.Errorf("when all are dead: %d", got)
	}
}

// The table's own limit refuses, too; a move needs no room there.
func TestTableLimit(t *testing.T) {
	tab, now := New[int](Limits{Entries: 4, Full: Refuse}), time.Now()
	for i := range 4 {
		tab.Learn(mac(i), i, now)
	}
	for _, c := range []struct{ mac, port, outcome int }{{9, 7, int(NoRoom)}, {9, 1, int(NoRoom)}, {1, 7, int(Moved)}, {1, 7, int(Known)}} {
		if got := tab.Learn(mac(c.mac), c.port, now); got != Outcome(c.outcome) {
			t.Errorf("%+v: %d", c, got)
		}
	}
	tab.Remove(mac(0))
	if got := tab.Learn(mac(9), 7, now); got != Learned {
		t.Errorf("when there is room again: %d", got)
	}
}

// A frozen address does not go home where there is no room: it stays.
func TestNoRoomAtHome(t *testing.T) {
	tab, now := New[int](Limits{PerPort: 1, Full: Refuse, Moves: 2}), time.Now()
	tab.Learn(mac(1), 1, now)
	tab.Learn(mac(1), 2, now)
	tab.Learn(mac(2), 1, now) // takes its room
	if got := tab.Learn(mac(1), 3, now); got != Frozen {
		t.Errorf("the second move: %d", got)
	}
	want(t, tab, mac(1), now, 2)
	if f := tab.Frozen(now); len(f) != 1 || f[0].Port != 2 || f[0].Other != 3 {
		t.Errorf("frozen %+v", f)
	}
	tab = New[int](Limits{PerPort: 1, Full: Refuse, Moves: 2})
	tab.Learn(mac(1), 1, now)
	tab.Learn(mac(1), 2, now)
	tab.Learn(mac(2), 1, now)
	if got := tab.Learn(mac(1), 1, now); got != Frozen {
		t.Errorf("back home: %d", got)
	}
	if f := tab.Frozen(now); len(f) != 1 || f[0].Port != 2 || f[0].Other != 1 {
		t.Errorf("frozen %+v", f)
	}
}

// Where an address moves to, the limit holds as for a new one.
func TestMoveEvicts(t *testing.T) {
	tab, now := New[int](Limits{PerPort: 2}), time.Now()
	for i := range 2 {
		tab.Learn(mac(i), 1, now.Add(time.Duration(i)))
	}
	tab.Learn(mac(5), 2, now)
	if got := tab.Learn(mac(5), 1, now.Add(3)); got != Moved {
		t.Errorf("Learn = %d", got)
	}
	want(t, tab, mac(0), now.Add(4), 0)
	want(t, tab, mac(1), now.Add(4), 1)
	want(t, tab, mac(5), now.Add(4), 1)
}

// A sticky address ages and is flushed as a dynamic one, and does not move (bridge(8) sticky). Once it is dead, it is anybody's.
func TestSticky(t *testing.T) {
	tab, now := New[int](Limits{Age: 10 * time.Second}), time.Now()
	tab.Learn(mac(1), 1, now)
	tab.AddSticky(mac(1), 2, now)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	for i, c := range []struct {
		at, port int
		outcome  Outcome
	}{{1, 1, Refused}, {8, 2, Known}, {9, 3, Refused}, {18, 1, Refused}, {19, 1, Learned}, {19, 2, Moved}} {
		if port, _ := tab.Foresee(mac(1), mac(1), c.port, at(c.at)); port == c.port != (c.outcome != Refused) {
			t.Errorf("step %d: Foresee = %d", i, port)
		}
		if got := tab.Learn(mac(1), c.port, at(c.at)); got != c.outcome {
			t.Errorf("step %d: Learn = %d, want %d", i, got, c.outcome)
		}
	}
	if s := tab.Stats(); s.Refused != 3 || s.Expired != 1 {
		t.Errorf("Stats = %+v", s)
	}
	tab.AddSticky(mac(2), 2, at(19))
	if n := flushDynamic(tab); n != 2 {
		t.Errorf("flushDynamic = %d", n)
	}
	tab.AddSticky(mac(3), 2, at(19))
	tab.AddSticky(mac(4), 3, at(19))
	if n := flushPort(tab, 2); n != 1 {
		t.Errorf("flushPort = %d", n)
	}
	if e := tab.Entries(at(20)); len(e) != 1 || e[0].Kind != Sticky || e[0].Kind.String() != "sticky" || e[0].Idle != time.Second {
		t.Errorf("Entries = %+v", e)
	}
}

// What somebody pins takes the place of what is there, of whatever kind, and a flood behind the same port does not undo it.
func TestPinnedOutlivesFloods(t *testing.T) {
	tab, now := New[int](Limits{Entries: 20, PerPort: 10}), time.Now()
	tab.AddSticky(mac(1), 1, now)
	tab.AddStatic(mac(2), 1)
	tab.AddSticky(mac(2), 1, now)
	tab.AddStatic(mac(2), 1)
	for i := range 1000 {
		tab.Learn(mac(100+i), 1, now)
	}
	want(t, tab, mac(1), now, 1)
	want(t, tab, mac(2), now.Add(time.Hour), 1)
	if s := tab.Stats(); s.Entries != 12 {
		t.Errorf("Stats = %+v", s)
	}
}

// Places can be flushed by any part of theirs: by port, or by who is behind it.
func TestFlushWhere(t *testing.T) {
	type place struct{ port, identity int }
	tab, now := New[place](Limits{}), time.Now()
	for i := range 12 {
		tab.Learn(mac(i), place{i % 2, i % 3}, now)
	}
	if n := tab.FlushWhere(func(p place) bool { return p.identity == 1 }); n != 4 {
		t.Errorf("flushed %d by identity", n)
	}
	if n := tab.FlushWhere(func(p place) bool { return p.port == 0 }); n != 4 {
		t.Errorf("flushed %d by port", n)
	}
	if s := tab.Stats(); s.Entries != 4 {
		t.Errorf("Stats = %+v", s)
	}
	// L14: the limit is each identity's, also behind one port.
	tab = New[place](Limits{PerPort: 2})
	for i := range 12 {
		tab.Learn(mac(i), place{0, i % 3}, now)
	}
	if s := tab.Stats(); s.Entries != 6 {
		t.Errorf("Stats = %+v", s)
	}
}

// L17: what one segment's table knows no other knows, and none moves another's.
func TestTablesAreApart(t *testing.T) {
	a, b, now := New[int](Limits{}), New[int](Limits{}), time.Now()
	a.Learn(mac(1), 1, now)
	b.Learn(mac(2), 1, now)
	want(t, a, mac(2), now, 0)
	want(t, b, mac(1), now, 0)
	if got := b.Learn(mac(1), 2, now); got != Learned {
		t.Errorf("Learn = %d", got)
	}
	want(t, a, mac(1), now, 1)
}

// An address that was silent for too long has not moved, whoever sends from it now, and whether or not it was collected.
func TestDeadDoesNotMove(t *testing.T) {
	for _, collect := range []bool{false, true} {
		tab, now := New[int](Limits{}), time.Now()
		tab.Learn(mac(1), 1, now)
		later := now.Add(DefaultAge + 1)
		if collect {
			tab.Age(later)
		}
		if got := tab.Learn(mac(1), 2, later); got != Learned {
			t.Errorf("collected %t: Learn = %d", collect, got)
		}
		if s := tab.Stats(); s.Moved != 0 || s.Learned != 2 || s.Expired != 1 {
			t.Errorf("collected %t: Stats = %+v", collect, s)
		}
	}
}

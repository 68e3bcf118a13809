package fdb

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

func mac(n int) ether.MAC {
	m := ether.MAC{0x02}
	binary.BigEndian.PutUint32(m[2:], uint32(n))
	return m
}

// flushPort forgets everything about a port that is gone.
func flushPort[P comparable](tab *Table[P], port P) int {
	return tab.FlushWhere(func(p P) bool { return p == port })
}

// flushDynamic forgets what frames have taught, whether its time is over or not.
func flushDynamic[P comparable](tab *Table[P]) int {
	return tab.Flush(func(e Entry[P]) bool { return e.Kind.ages() }, tab.start)
}

func want(t *testing.T, tab *Table[int], m ether.MAC, now time.Time, port int) {
	t.Helper()
	got, ok := tab.Lookup(m, now)
	if !ok && port == 0 {
		return
	}
	if !ok || got != port {
		t.Errorf("Lookup(%v) = %d, %v; want port %d", m, got, ok, port)
	}
}

// L01, L02: an address is found where it was last seen, and a move shows at once and is counted.
func TestLearnAndMove(t *testing.T) {
	tab, now := New[int](Limits{}), time.Now()
	want(t, tab, mac(1), now, 0)
	for i, step := range []struct {
		port    int
		outcome Outcome
	}{{1, Learned}, {1, Known}, {2, Moved}, {2, Known}, {1, Moved}} {
		if got := tab.Learn(mac(1), step.port, now); got != step.outcome {
			t.Errorf("step %d: Learn = %v, want %v", i, got, step.outcome)
		}
		want(t, tab, mac(1), now, step.port)
	}
	if s := tab.Stats(); s.Moved != 2 || s.Learned != 1 || s.Entries != 1 {
		t.Errorf("Stats = %+v", s)
	}
}

// L03: silence ends an entry, although nobody has collected it; traffic to an address does not keep it.
func TestAgeing(t *testing.T) {
	tab, now := New[int](Limits{Age: 10 * time.Second}), time.Now()
	tab.Learn(mac(1), 1, now)
	want(t, tab, mac(1), now.Add(10*time.Second), 1)
	want(t, tab, mac(1), now.Add(10*time.Second+1), 0)
	if n := len(tab.Entries(now.Add(11 * time.Second))); n != 0 {
		t.Errorf("%d dead entries listed", n)
	}
	tab.Learn(mac(1), 1, now.Add(9*time.Second))
	want(t, tab, mac(1), now.Add(19*time.Second), 1)
	if n := tab.Age(now.Add(20 * time.Second)); n != 1 {
		t.Errorf("Age collected %d, want 1", n)
	}
}

// L08: a port that is gone takes its addresses with it, and no others.
func TestFlushPort(t *testing.T) {
	tab, now := New[int](Limits{}), time.Now()
	tab.Learn(mac(1), 1, now)
	tab.Learn(mac(2), 2, now)
	tab.AddStatic(mac(3), 1)
	if n := flushPort(tab, 1); n != 2 {
		t.Errorf("flushPort = %d, want 2", n)
	}
	want(t, tab, mac(1), now, 0)
	want(t, tab, mac(2), now, 2)
	want(t, tab, mac(3), now, 0)
}

// L09, L10, L11: static entries survive flushing and ageing, and do not move.
func TestStatic(t *testing.T) {
	tab, now := New[int](Limits{Age: 5 * time.Second}), time.Now()
	for i := range 17 {
		if tab.AddStatic(mac(i), 3) || !tab.AddStatic(mac(i), 2) {
			t.Error("AddStatic does not say whether it takes the place of another")
		}
	}
	for i := range 16 {
		tab.Learn(mac(100+i), 1, now)
	}
	if got := tab.Learn(mac(0), 1, now); got != Refused {
		t.Errorf("Learn of a static address elsewhere = %v", got)
	}
	if got := tab.Learn(mac(0), 2, now); got != Known {
		t.Errorf("Learn of a static address at home = %v", got)
	}
	want(t, tab, mac(0), now.Add(time.Hour), 2)
	if n := tab.Age(now.Add(20 * time.Second)); n != 16 {
		t.Errorf("Age = %d, want 16", n)
	}
	tab.Learn(mac(200), 1, now)
	flushDynamic(tab)
	if s := tab.Stats(); s.Entries != 17 || s.Refused != 1 {
		t.Errorf("Stats = %+v", s)
	}
	if !tab.Remove(mac(0)) || tab.Remove(mac(0)) {
		t.Error("Remove does not say whether there was something")
	}
}

// A static entry takes the place of a dynamic one.
func TestStaticReplacesDynamic(t *testing.T) {
	tab, now := New[int](Limits{}), time.Now()
	tab.Learn(mac(1), 1, now)
	tab.AddStatic(mac(1), 2)
	want(t, tab, mac(1), now, 2)
	if n := flushPort(tab, 1); n != 0 {
		t.Errorf("the old port still has %d entries", n)
	}
}

// L12: past a port's limit, its own least recently used entry goes.
func TestPortLimit(t *testing.T) {
	tab, now := New[int](Limits{PerPort: 10}), time.Now()
	for i := range 10 {
		tab.Learn(mac(i), 3, now.Add(time.Duration(i)*time.Second))
	}
	tab.Learn(mac(0), 3, now.Add(20*time.Second)) // no longer the oldest
	tab.Learn(mac(50), 3, now.Add(21*time.Second))
	later := now.Add(22 * time.Second)
	want(t, tab, mac(0), later, 3)
	want(t, tab, mac(1), later, 0)
	want(t, tab, mac(50), later, 3)
	if s := tab.Stats(); s.Entries != 10 || s.Evicted != 1 {
		t.Errorf("Stats = %+v", s)
	}
}

// L13: when the table is full, the port that holds most entries pays.
func TestFairEviction(t *testing.T) {
	tab, now := New[int](Limits{Entries: 10}), time.Now()
	for i := range 10 {
		tab.Learn(mac(i), 1+i/2, now.Add(time.Duration(i)))
	}
	for i := range 16 {
		tab.Learn(mac(100+i), 6, now.Add(time.Duration(100+i)))
	}
	per := map[int]int{}
	for _, e := range tab.Entries(now.Add(time.Millisecond)) {
		per[e.Port]++
	}
	for port := 1; port <= 5; port++ {
		if per[port] < 1 {
			t.Errorf("port %d has lost all its entries: %v", port, per)
		}
	}
	if per[6] > 3 {
		t.Errorf("the flooding port holds %d entries, want at most 3: %v", per[6], per)
	}
}

// The attack of a million addresses: others keep theirs, and the table its size.
func TestFloodEvictsOnlyItself(t *testing.T) {
	tab, now := New[int](Limits{Entries: 1000, PerPort: 500}), time.Now()
	for i := range 400 {
		tab.Learn(mac(i), 1, now)
	}
	for i := range 1_000_000 {
		tab.Learn(mac(1000+i), 2, now.Add(time.Duration(i)))
	}
	for i := range 400 {
		want(t, tab, mac(i), now.Add(time.Second), 1)
	}
	if s := tab.Stats(); s.Entries != 900 {
		t.Errorf("Stats = %+v, want 900 entries", s)
	}
}

// Concurrent use keeps limits and counts whole; the race detector watches.
func TestConcurrent(t *testing.T) {
	tab, now := New[int](Limits{Entries: 64, PerPort: 16, Age: time.Millisecond, Freeze: 2 * time.Millisecond}), time.Now()
	tab.SetAnnouncers(func(port int) bool { return port >= 6 })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			var mark uint64
			for i := range 20_000 {
				at := now.Add(time.Duration(i) * time.Microsecond)
				switch m := mac(r.IntN(200)); r.IntN(120) {
				case 0:
					tab.Age(at)
				case 1:
					flushPort(tab, w)
				case 2:
					tab.Withdraw(func(p int) bool { return p == w })
				case 3:
					tab.Flush(func(e Entry[int]) bool { return e.Frozen || e.Kind == Static }, at)
				case 4:
					tab.AddSticky(m, w, at)
				case 5:
					tab.AddStatic(m, w)
					tab.Remove(m)
				case 6:
					_, mark, _ = tab.Changes(mark)
				case 7:
					tab.Frozen(at)
					tab.Entries(at)
					tab.Stats()
				case 8:
					tab.Foresee(m, m, w, at)
				case 9, 10, 11, 12:
					tab.Announce(m, 6+w%2, r.Uint32N(5), at, lower)
				case 13:
					tab.Retract(m, 6+w%2)
				default:
					tab.Learn(m, w, at)
					tab.Lookup(m, at)
				}
			}
		})
	}
	wg.Wait()
	pinned, ours := 0, 0
	for _, e := range tab.Entries(now) {
		if e.Kind.pinned() {
			pinned++
		}
		if e.Kind != Announced && e.Port < 6 {
			ours++
		}
	}
	if tab.count > 64 {
		t.Errorf("the table holds %d entries, more than its limit", tab.count)
	}
	per := 0
	for _, l := range tab.ports {
		per += l.count
	}
	if n := tab.Stats().Entries; per != tab.count || per != n-pinned {
		t.Errorf("counts disagree: %d in ports, %d in table, %d entries of which %d are pinned", per, tab.count, n, pinned)
	}
	if list, _, _ := tab.Changes(0); len(list) != ours {
		t.Errorf("the journal has %d of our %d", len(list), ours)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	tab, now := New[int](Limits{}), time.Now()
	tab.SetAnnouncers(announcing)
	tab.Learn(mac(1), 1, now)
	tab.Announce(mac(2), 11, 0, now, lower)
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(time.Microsecond)
		tab.Learn(mac(1), 1, now)
		tab.Learn(mac(2), 11, now)
		tab.Learn(mac(2), 12, now)
		tab.Lookup(mac(1), now)
	}); n != 0 {
		t.Errorf("%v allocations for a refresh and a look-up", n)
	}
}

func BenchmarkLearnAndLookup(b *testing.B) {
	tab, now := New[int](Limits{}), time.Now()
	for i := range 1000 {
		tab.Learn(mac(i), i%4, now)
	}
	for i := 0; b.Loop(); i++ {
		tab.Learn(mac(i%1000), (i%1000)%4, now)
		tab.Lookup(mac((i+7)%1000), now)
	}
}

// What Foresee says, Lookup says after Learn, and Foresee changes nothing.
func TestForesee(t *testing.T) {
	now := time.Now()
	for name, prepare := range map[string]func(*Table[int]){
		"empty": func(*Table[int]) {},
		"known": func(tab *Table[int]) { tab.Learn(mac(1), 1, now); tab.Learn(mac(2), 2, now) },
		"moves": func(tab *Table[int]) { tab.Learn(mac(1), 2, now); tab.Learn(mac(2), 1, now) },
		"dead": func(tab *Table[int]) {
			tab.Learn(mac(1), 2, now.Add(-time.Hour))
			tab.Learn(mac(2), 1, now.Add(-time.Hour))
		},
		"pinned elsewhere": func(tab *Table[int]) { tab.AddStatic(mac(1), 2) },
	} {
		for _, dst := range []ether.MAC{mac(1), mac(2)} {
			tab := New[int](Limits{})
			prepare(tab)
			before := tab.Stats()
			port, ok := tab.Foresee(dst, mac(1), 1, now)
			if tab.Stats() != before {
				t.Errorf("%s: Foresee has changed the table", name)
			}
			tab.Learn(mac(1), 1, now)
			if wantPort, wantOK := tab.Lookup(dst, now); port != wantPort || ok != wantOK {
				t.Errorf("%s: Foresee(%v) = %d, %t; then Lookup = %d, %t", name, dst, port, ok, wantPort, wantOK)
			}
		}
	}
}

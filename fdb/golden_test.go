package fdb

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// golden is the table as one would first write it, as long as no limit is reached: maps, and the whole history of each address.
type golden struct {
	limits  Limits
	entries map[ether.MAC]*goldenEntry
	past    map[ether.MAC]uint32
}

type goldenEntry struct {
	port   int
	kind   Kind
	seen   time.Time
	seq    uint32
	moves  uint32
	tried  []goldenMove // since the last freeze
	frozen time.Time    // until then
}

type goldenMove struct {
	at   time.Time
	from int
}

// Places from 10 on announce.
func announcing(port int) bool { return port >= 10 }

func lower(a, b int) bool { return a < b }

func (g *golden) at(m ether.MAC, now time.Time) *goldenEntry {
	if e := g.entries[m]; e != nil && (e.kind == Dynamic || e.kind == Sticky) && now.Sub(e.seen) > g.limits.Age {
		g.forget(m)
	}
	return g.entries[m]
}

func (g *golden) forget(m ether.MAC) {
	if e := g.entries[m]; e != nil && (e.seq > 0 || e.kind == Announced) {
		g.past[m] = max(g.past[m], e.seq)
	}
	delete(g.entries, m)
}

func (g *golden) forgetIf(match func(*goldenEntry) bool) {
	for m, e := range g.entries {
		if match(e) {
			g.forget(m)
		}
	}
}

func (e *goldenEntry) pinned() bool { return e.kind == Static || e.kind == Sticky }

// depart is a place that goes.
func (g *golden) depart(match func(int) bool, pinned bool) {
	g.forgetIf(func(e *goldenEntry) bool {
		return match(e.port) && (pinned || e.kind == Dynamic || e.kind == Announced)
	})
	for _, e := range g.entries {
		// Home is where the first of the moves that hang together came from; one that is gone is home no more.
		if i := e.trouble(g.limits); len(e.tried) > 0 && match(e.tried[i].from) {
			e.tried[i].from = e.port
		}
	}
}

func (g *golden) pin(m ether.MAC, port int, kind Kind, now time.Time) {
	g.forget(m)
	e := &goldenEntry{port: port, kind: kind, seen: now}
	if before, ok := g.past[m]; ok {
		e.seq = before + 1
	}
	g.entries[m] = e
}

// trouble is the index of the first move of those that follow each other within the window.
func (e *goldenEntry) trouble(l Limits) int {
	i := max(len(e.tried)-1, 0)
	for i > 0 && e.tried[i].at.Sub(e.tried[i-1].at) <= l.Within {
		i--
	}
	return i
}

// settle says where an entry goes that port claims, and whether it is frozen there.
func (g *golden) settle(e *goldenEntry, port int, now time.Time) (to int, frozen bool) {
	e.tried = append(e.tried, goldenMove{now, e.port})
	first := e.trouble(g.limits)
	began, n := now, 0
	for i, move := range e.tried[first:] {
		if i == 0 || move.at.Sub(began) > g.limits.Within {
			began, n = move.at, 0
		}
		n++
	}
	if n >= g.limits.Moves {
		return e.tried[first].from, true
	}
	return port, false
}

func (g *golden) move(m ether.MAC, e *goldenEntry, port int, kind Kind, seq uint32, now time.Time) Outcome {
	to, frozen := g.settle(e, port, now)
	if frozen {
		e.tried, e.frozen = []goldenMove{{now.Add(-time.Hour), to}}, now.Add(g.limits.Freeze)
	}
	out := Moved
	if to != port {
		out, kind, seq = Frozen, Dynamic, max(seq, e.seq, g.past[m])+1
	}
	if to != e.port {
		e.port, e.kind, e.seq, e.seen = to, kind, seq, now
		e.moves++
	}
	return out
}

func (g *golden) learn(m ether.MAC, port int, now time.Time) Outcome {
	e := g.at(m, now)
	switch {
	case e == nil:
		e = &goldenEntry{port: port, seen: now}
		if before, ok := g.past[m]; ok && !announcing(port) {
			e.seq = before + 1
		}
		g.entries[m] = e
		return Learned
	case e.port == port:
		e.seen = now
		return Known
	case e.kind == Static || e.kind == Sticky:
		return Refused
	case now.Before(e.frozen):
		return Frozen
	case announcing(port) && (e.kind == Announced || !announcing(e.port)):
		return Deferred
	}
	return g.move(m, e, port, Dynamic, max(e.seq, g.past[m])+1, now)
}

func (g *golden) announce(m ether.MAC, port int, seq uint32, now time.Time) Outcome {
	e := g.at(m, now)
	switch {
	case e == nil:
		g.entries[m] = &goldenEntry{port: port, kind: Announced, seq: seq, seen: now}
		return Learned
	case e.kind == Static || e.kind == Sticky:
		if e.port == port {
			return Known
		}
		return Refused
	case e.port == port:
		e.kind, e.seq, e.seen = Announced, seq, now
		return Known
	case now.Before(e.frozen):
		return Frozen
	case e.kind == Dynamic && announcing(e.port), seq > e.seq, seq == e.seq && port < e.port:
		return g.move(m, e, port, Announced, seq, now)
	}
	return Outdated
}

// mirror is what one knows who only asks for changes.
type mirror struct {
	mark uint64
	own  map[ether.MAC]Change[int]
}

func (m *mirror) follow(tab *Table[int]) {
	list, next, all := tab.Changes(m.mark)
	if all {
		m.own = map[ether.MAC]Change[int]{}
	}
	for _, c := range list {
		if c.Gone {
			delete(m.own, c.MAC)
		} else {
			m.own[c.MAC] = c
		}
	}
	m.mark = next
}

// step does one random operation on both, and compares what they say of it.
func (g *golden) step(t *testing.T, r *rand.Rand, tab *Table[int], now time.Time) (m ether.MAC) {
	places := []int{1, 2, 3, 10, 11, 12}
	m, port := mac(r.IntN(25)), places[r.IntN(len(places))]
	got, want := Known, Known
	switch op := r.IntN(1000); {
	case op < 700:
		to, ok := tab.Foresee(m, m, port, now)
		got, want = tab.Learn(m, port, now), g.learn(m, port, now)
		if e := g.entries[m]; !ok || e.port != to {
			t.Fatalf("Foresee(%v on %d) = %d, %t; it is on %d", m, port, to, ok, e.port)
		}
	case op < 900:
		port, seq := places[3+r.IntN(3)], uint32(r.IntN(4))
		if e := g.entries[m]; e != nil {
			seq += max(e.seq, 2) - 2
		}
		got, want = tab.Announce(m, port, seq, now, lower), g.announce(m, port, seq, now)
	case op < 905:
		tab.AddStatic(m, port)
		g.pin(m, port, Static, now)
	case op < 910:
		tab.AddSticky(m, port, now)
		g.pin(m, port, Sticky, now)
	case op < 935:
		tab.Remove(m)
		g.forget(m)
	case op < 955:
		tab.Retract(m, port)
		if e := g.entries[m]; e != nil && e.port == port && !e.pinned() && (e.kind == Announced || announcing(e.port)) {
			g.forget(m)
		}
	case op < 957:
		tab.Withdraw(func(p int) bool { return p == port })
		g.depart(func(p int) bool { return p == port }, false)
	case op < 959:
		flushPort(tab, port)
		g.depart(func(p int) bool { return p == port }, true)
	case op < 960:
		tab.FlushWhere(announcing)
		g.depart(announcing, true)
	case op < 961:
		flushDynamic(tab)
		g.forgetIf(func(e *goldenEntry) bool { return e.kind == Dynamic || e.kind == Sticky })
	case op < 964:
		tab.Flush(func(e Entry[int]) bool { return e.Frozen && e.Port == port }, now)
		g.forgetIf(func(e *goldenEntry) bool { return now.Before(e.frozen) && e.port == port })
	default:
		tab.Age(now)
	}
	if got != want {
		t.Fatalf("%v, place %d: %d, the model says %d", m, port, got, want)
	}
	return m
}

// compare looks at all that both know.
func (g *golden) compare(t *testing.T, tab *Table[int], own *mirror, now time.Time) {
	var want []Entry[int]
	var frozen []ether.MAC
	ours := map[ether.MAC]Change[int]{}
	for _, m := range slices.SortedFunc(maps.Keys(g.entries), func(a, b ether.MAC) int { return slices.Compare(a[:], b[:]) }) {
		e := g.at(m, now)
		if e == nil {
			continue
		}
		line := Entry[int]{MAC: m, Port: e.port, Kind: e.kind, Frozen: now.Before(e.frozen), Moves: e.moves, Seq: e.seq}
		if e.kind != Static {
			line.Idle = now.Sub(e.seen)
		}
		if line.Frozen {
			frozen = append(frozen, m)
		}
		if e.kind != Announced && !announcing(e.port) {
			ours[m] = Change[int]{MAC: m, Port: e.port, Seq: e.seq}
		}
		want = append(want, line)
	}
	if got := tab.Entries(now); !slices.Equal(got, want) {
		t.Fatalf("the table holds\n%+v\nthe model\n%+v", got, want)
	}
	if got := tab.Frozen(now); !slices.EqualFunc(got, frozen, func(a FrozenAddress[int], b ether.MAC) bool { return a.MAC == b }) {
		t.Fatalf("frozen are %+v, in the model %v", got, frozen)
	}
	tab.Age(now)
	if own.follow(tab); !maps.Equal(own.own, ours) {
		t.Fatalf("who follows the changes has\n%v\nours are\n%v", own.own, ours)
	}
}

// Random operations give the same answers as the golden model, as long as no limit is reached; and who follows the changes knows what
// is ours.
func TestGolden(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := Limits{Age: 3 * time.Second, Moves: 4, Within: time.Second, Freeze: 5 * time.Second}
		tab, now := New[int](l), time.Now()
		tab.SetAnnouncers(announcing)
		g := &golden{limits: l, entries: map[ether.MAC]*goldenEntry{}, past: map[ether.MAC]uint32{}}
		own, seen := new(mirror), map[Kind]int{}
		for step := range 10_000 {
			now = now.Add(time.Duration(r.IntN(20)) * time.Millisecond)
			m := g.step(t, r, tab, now)
			got, ok := tab.Lookup(m, now)
			e := g.at(m, now)
			if ok != (e != nil) || ok && got != e.port {
				t.Fatalf("seed %d, step %d: Lookup(%v) = %d, %t; the model has %+v", seed, step, m, got, ok, e)
			}
			if ok {
				seen[e.kind]++
			}
			if r.IntN(50) == 0 {
				g.compare(t, tab, own, now)
			}
		}
		s := tab.Stats()
		if least := min(s.Moved, s.Refused, s.Frozen, s.Deferred, s.Outdated, s.Duplicates, s.Expired); len(seen) != 4 || least < 10 {
			t.Errorf("seed %d: not everything happens: %v, %+v", seed, seen, s)
		}
	}
}

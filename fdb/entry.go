package fdb

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Kind says what made an entry, and with that what may end it.
type Kind uint8

// The kinds of entry.
const (
	Dynamic   Kind = iota // frames did: it ages and moves
	Sticky                // somebody did, by name: it ages, but does not move, as with bridge(8) sticky
	Static                // the same: it neither ages nor moves
	Announced             // who is behind that place has said so: it moves, and stays until that is withdrawn
)

func (k Kind) String() string {
	switch k {
	case Sticky:
		return "sticky"
	case Static:
		return "static"
	case Announced:
		return "announced"
	default:
		return "dynamic"
	}
}

// pinned reports whether an administrator has made the entry: such neither move nor count towards a limit.
func (k Kind) pinned() bool { return k == Static || k == Sticky }

func (k Kind) ages() bool { return k == Dynamic || k == Sticky }

// entry is an address in its place. What is written under Table.mu and the shard's lock may be read under either.
type entry[P comparable] struct {
	mac     ether.MAC
	port    P            // both locks
	kind    Kind         // both locks
	seq     uint32       // both locks: see announce.go
	moves   uint32       // both locks: since the entry is there
	trouble *trouble[P]  // both locks: nil for one that has never moved
	seen    atomic.Int64 // nanoseconds since the table's start

	prev, next *entry[P] // neighbours in the place's lru, guarded by Table.mu
	filed      int64     // seen, when it took its place there

	older, newer *entry[P] // neighbours in the journal, guarded by Table.mu; nil if it is not there
	version      uint64    // of the journal, at the entry's last change
}

func newEntry[P comparable](mac ether.MAC, port P, kind Kind, clock int64) *entry[P] {
	e := &entry[P]{mac: mac, port: port, kind: kind}
	e.seen.Store(clock)
	return e
}

func (t *Table[P]) dead(e *entry[P], clock int64) bool {
	return e.kind.ages() && clock-e.seen.Load() > int64(t.limits.Age)
}

// own reports whether the entry is ours to announce: nobody who announces is behind its place.
func (t *Table[P]) own(e *entry[P]) bool { return e.kind != Announced && !t.announcer(e.port) }

func (t *Table[P]) announcer(port P) bool { return t.announces != nil && t.announces(port) }

// liveLocked returns the entry of mac; nil if there is none, or if it is dead, in which case it is collected.
func (t *Table[P]) liveLocked(mac ether.MAC, clock int64) *entry[P] {
	e := t.shard(mac).entries[mac] // only changed under t.mu
	if e != nil && t.dead(e, clock) {
		t.removeLocked(e)
		t.stats.expired.Add(1)
		return nil
	}
	return e
}

func (t *Table[P]) insertLocked(e *entry[P]) {
	t.fileLocked(e)
	s := t.shard(e.mac)
	s.mu.Lock()
	s.entries[e.mac] = e
	s.mu.Unlock()
	t.noteLocked(e)
}

func (t *Table[P]) removeLocked(e *entry[P]) {
	t.unfileLocked(e)
	s := t.shard(e.mac)
	s.mu.Lock()
	delete(s.entries, e.mac)
	s.mu.Unlock()
	t.log.drop(e)
	if e.seq > 0 || e.kind == Announced {
		t.past.remember(e.mac, e.seq)
	}
}

// changeLocked changes an entry that stays in the table.
func (t *Table[P]) changeLocked(e *entry[P], edit func()) {
	t.unfileLocked(e)
	s := t.shard(e.mac)
	s.mu.Lock()
	edit()
	s.mu.Unlock()
	t.fileLocked(e)
	t.noteLocked(e)
}

// Entry is what is told of an address.
type Entry[P comparable] struct {
	MAC    ether.MAC
	Port   P
	Kind   Kind
	Frozen bool          // it moves no more for the present: see Frozen
	Moves  uint32        // since the entry is there
	Seq    uint32        // by which announcements are compared
	Idle   time.Duration // since it was last seen; 0 for a static one
}

func (t *Table[P]) entryOf(e *entry[P], clock int64) Entry[P] {
	out := Entry[P]{MAC: e.mac, Port: e.port, Kind: e.kind, Frozen: e.trouble.holds(clock), Moves: e.moves, Seq: e.seq}
	if e.kind != Static {
		out.Idle = time.Duration(max(0, clock-e.seen.Load()))
	}
	return out
}

// Entries lists what Lookup would find, by address.
func (t *Table[P]) Entries(now time.Time) []Entry[P] {
	clock := t.clock(now)
	var out []Entry[P]
	t.each(func(e *entry[P]) {
		if !t.dead(e, clock) {
			out = append(out, t.entryOf(e, clock))
		}
	})
	slices.SortFunc(out, func(a, b Entry[P]) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return out
}

// each calls f for every entry, under its shard's read lock.
func (t *Table[P]) each(f func(*entry[P])) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, e := range s.entries {
			f(e)
		}
		s.mu.RUnlock()
	}
}

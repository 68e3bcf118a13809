package fdb

import (
	"math"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// holds says what keeps an entry from moving to port because of a frame that was seen there; Moved if nothing does. Either lock
// is held.
func (t *Table[P]) holds(e *entry[P], port P, clock int64) Outcome {
	switch {
	case e.kind.pinned():
		return Refused
	case e.trouble.holds(clock):
		return Frozen
	case t.announcer(port) && (e.kind == Announced || !t.announcer(e.port)):
		// The frame has overtaken the announcement, or is one of before the last move. Taken at its word, it would
		// outrank an announcement that everybody else has heard.
		return Deferred
	}
	return Moved
}

func (t *Table[P]) learnSlow(mac ether.MAC, port P, clock int64) Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.liveLocked(mac, clock)
	switch {
	case e == nil:
		e = newEntry(mac, port, Dynamic, clock)
		if before, ok := t.past.recall(mac); ok && t.own(e) {
			e.seq = after(before)
		}
		return t.stats.tell(t.enterLocked(e, clock))
	case e.port == port:
		e.seen.Store(clock)
		if t.adopts(e) {
			t.changeLocked(e, func() { e.kind = Dynamic })
		}
		return Known
	}
	if o := t.holds(e, port, clock); o != Moved {
		return t.stats.tell(o)
	}
	return t.moveLocked(e, t.settleLocked(e, port, clock), Dynamic, after(t.past.highest(mac, e.seq)), clock)
}

// after is the sequence number that a move makes. It stays at the last one, so that no peer can make it begin anew.
func after(seq uint32) uint32 {
	if seq == math.MaxUint32 {
		return seq
	}
	return seq + 1
}

// enterLocked inserts a new entry, if there is room for it.
func (t *Table[P]) enterLocked(e *entry[P], clock int64) Outcome {
	if !t.roomLocked(e.port, true, clock) {
		return NoRoom
	}
	t.makeRoomLocked(e.port, true)
	t.insertLocked(e)
	return Learned
}

// settlement is what shall become of an entry that was claimed from somewhere else.
type settlement[P comparable] struct {
	claim P // from where
	to    P
	next  trouble[P]
	out   Outcome
}

// settleLocked decides where an entry goes that may move to port, and changes nothing.
func (t *Table[P]) settleLocked(e *entry[P], port P, clock int64) settlement[P] {
	s := settlement[P]{claim: port, to: port, out: Moved}
	if s.next = t.troubledLocked(e, clock); s.next.frozen {
		s.to = s.next.home
	}
	s.next.other = e.port
	if s.to != port {
		s.next.other, s.out = port, Frozen
	}
	if !t.roomLocked(s.to, false, clock) {
		s.to, s.out = e.port, NoRoom
		if s.next.frozen {
			s.next.other, s.out = port, Frozen
		}
	}
	return s
}

// moveLocked does what was settled.
func (t *Table[P]) moveLocked(e *entry[P], s settlement[P], kind Kind, seq uint32, clock int64) Outcome {
	if s.out == NoRoom {
		return t.stats.tell(NoRoom)
	}
	if s.next.frozen || s.next.warned && (e.trouble == nil || !e.trouble.warned) {
		t.stats.duplicates.Add(1)
	}
	if s.to == e.port {
		t.changeLocked(e, func() { e.troubled(s.next) })
		return t.stats.tell(s.out)
	}
	if s.to != s.claim {
		// Who is there has not claimed it just now. So it ages, and outranks what was said last.
		kind, seq = Dynamic, after(t.past.highest(e.mac, max(seq, e.seq)))
	}
	t.makeRoomLocked(s.to, false)
	e.seen.Store(clock)
	t.changeLocked(e, func() {
		e.troubled(s.next)
		e.port, e.kind, e.seq, e.moves = s.to, kind, seq, after(e.moves)
	})
	return t.stats.tell(s.out)
}

// Foresee returns what Lookup of mac would return once source had been learned on port, and changes nothing. It does not
// foresee which entry Learn would evict to make room.
func (t *Table[P]) Foresee(mac, source ether.MAC, port P, now time.Time) (P, bool) {
	if mac != source {
		return t.Lookup(mac, now)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	clock := t.clock(now)
	e := t.shard(mac).entries[mac]
	switch {
	case e == nil || t.dead(e, clock):
		return port, t.roomLocked(port, true, clock)
	case e.port == port || t.holds(e, port, clock) != Moved:
		return e.port, true
	}
	return t.settleLocked(e, port, clock).to, true
}

// WouldLearn says what Learn would, and changes nothing. It does not foresee that there is no room.
func (t *Table[P]) WouldLearn(mac ether.MAC, port P, now time.Time) Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	clock := t.clock(now)
	e := t.shard(mac).entries[mac]
	switch {
	case e == nil || t.dead(e, clock):
		return Learned
	case e.port == port:
		return Known
	}
	if o := t.holds(e, port, clock); o != Moved {
		return o
	}
	return t.settleLocked(e, port, clock).out
}

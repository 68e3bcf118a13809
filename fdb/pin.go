package fdb

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// AddStatic pins mac to port: it neither ages nor moves nor counts towards a limit. It takes the place of any other entry,
// and AddStatic reports whether there was one.
func (t *Table[P]) AddStatic(mac ether.MAC, port P) bool { return t.pin(mac, port, Static, 0) }

// AddSticky pins mac to port until it has been silent for too long: it does not move and counts towards no limit. It takes
// the place of any other entry, and AddSticky reports whether there was one.
func (t *Table[P]) AddSticky(mac ether.MAC, port P, now time.Time) bool {
	return t.pin(mac, port, Sticky, t.clock(now))
}

func (t *Table[P]) pin(mac ether.MAC, port P, kind Kind, clock int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.shard(mac).entries[mac]
	if old != nil {
		t.removeLocked(old)
	}
	e := newEntry(mac, port, kind, clock)
	if before, ok := t.past.recall(mac); ok {
		e.seq = after(before)
	}
	t.insertLocked(e)
	return old != nil
}

// Pinned reports whether an administrator has pinned mac to port.
func (t *Table[P]) Pinned(mac ether.MAC, port P) bool {
	s := t.shard(mac)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entries[mac]
	return e != nil && e.kind.pinned() && e.port == port
}

// Remove forgets mac, of whatever kind, and reports whether it was there.
func (t *Table[P]) Remove(mac ether.MAC) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.shard(mac).entries[mac]
	if e != nil {
		t.removeLocked(e)
	}
	return e != nil
}

// FlushWhere forgets everything about the places that match, because they are gone, and says how much that was.
func (t *Table[P]) FlushWhere(match func(P) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.removeIfLocked(func(e *entry[P]) bool { return match(e.port) })
	t.forsakeLocked(match)
	return n
}

// Flush forgets the entries that match, of whatever kind, and says how many that were. match must not call the table.
func (t *Table[P]) Flush(match func(Entry[P]) bool, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	clock := t.clock(now)
	return t.removeIfLocked(func(e *entry[P]) bool { return !t.dead(e, clock) && match(t.entryOf(e, clock)) })
}

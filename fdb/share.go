package fdb

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Several nodes may have one place between them: gateways that carry a VLAN at once (RFC 7432 section 14.1.2). What one of them
// announces of an address there, the others believe of their own place: they reach it as directly. The entry is Announced, so it
// stays until that is withdrawn and nobody announces it again; with the first frame from the address it is one's own, with the same
// number: that it is seen by the other one is no move (section 7.7).

// adopts reports whether a frame from an entry's own place makes it one's own.
func (t *Table[P]) adopts(e *entry[P]) bool { return e.kind == Announced && !t.announcer(e.port) }

// raiseLocked announces an address of our own again with a number that it has heard, so that all who have it say the same.
func (t *Table[P]) raiseLocked(e *entry[P], seq uint32) {
	if e.seq < seq {
		t.changeLocked(e, func() { e.seq = seq })
	}
}

// Rename says that an announced address which is in one place is in another that is the same, and reports whether it was there. That
// is no move.
func (t *Table[P]) Rename(mac ether.MAC, from, to P, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.liveLocked(mac, t.clock(now))
	if e == nil || e.port != from || e.kind != Announced || !t.roomLocked(to, false, t.clock(now)) {
		return false
	}
	t.makeRoomLocked(to, false)
	t.changeLocked(e, func() { e.port = to })
	return true
}

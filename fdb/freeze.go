package fdb

import (
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// RFC 7432 section 15.1: an address that is found in two places at once would move without end, by each frame. If it moves N times
// within M, it is a duplicate. It is frozen: its entry moves no more until an administrator forgets it, or R is over.
//
// The standard leaves open where. It stays at home: where it was before it began to move. The move that freezes it is not done, and
// one that an impostor has won is undone; so nobody gains an address by claiming it over and over. Home changes only once
// the address has not moved for M, so one who waits for a window of M to end does not make his own place its home.
//
// A frozen entry ages like another. An address that is silent at home for that long is no duplicate any more, and whoever has
// it now, after a fail-over, say, need not wait for R.

// trouble is how an entry has moved of late.
type trouble[P comparable] struct {
	home  P     // where it was before
	began int64 // of the window in which moves are counted
	last  int64 // move
	count int   // moves in the window

	frozen, warned bool
	since, until   int64
	other          P // where else it was seen, last before it was frozen
}

// holds reports whether the entry is frozen. No entry that has never moved is.
func (d *trouble[P]) holds(clock int64) bool { return d != nil && d.frozen && clock < d.until }

func (e *entry[P]) troubled(by trouble[P]) {
	if e.trouble == nil {
		e.trouble = new(trouble[P])
	}
	*e.trouble = by
}

// troubledLocked returns what is to be remembered of an entry that moves now.
func (t *Table[P]) troubledLocked(e *entry[P], clock int64) trouble[P] {
	n, m := t.limits.Moves, int64(t.limits.Within)
	next := trouble[P]{home: e.port, began: clock}
	if d := e.trouble; d != nil && !d.frozen && clock-d.last <= m {
		next = *d
		if clock-d.began > m {
			next.began, next.count = clock, 0
		}
	}
	next.last = clock
	next.count++
	if n < 0 || next.count < n {
		return next
	}
	if !next.warned || clock >= next.until {
		next.since = clock
	}
	next.until = clock + int64(t.limits.Freeze)
	next.frozen, next.warned = t.limits.Duplicate == Hold, t.limits.Duplicate == Warn
	return next
}

// FrozenAddress is an address that was found to be in two places.
type FrozenAddress[P comparable] struct {
	MAC    ether.MAC
	Port   P         // where it is
	Other  P         // where else it was seen, last before it was frozen
	Moves  int       // in the time that was looked at
	Since  time.Time // when that was found
	Until  time.Time // when it may move again, or is no longer listed
	Warned bool      // it is not frozen, for Limits.Duplicate says so
}

// Frozen lists the addresses that are frozen now, or that Warn tells of.
func (t *Table[P]) Frozen(now time.Time) []FrozenAddress[P] {
	clock := t.clock(now)
	var out []FrozenAddress[P]
	t.each(func(e *entry[P]) {
		if d := e.trouble; d != nil && (d.frozen || d.warned) && clock < d.until && !t.dead(e, clock) {
			out = append(out, FrozenAddress[P]{
				MAC: e.mac, Port: e.port, Other: d.other, Moves: d.count, Since: t.at(d.since), Until: t.at(d.until), Warned: d.warned,
			})
		}
	})
	slices.SortFunc(out, func(a, b FrozenAddress[P]) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return out
}

// forsakeLocked sees to it that no place that is gone is the home of an address that is elsewhere.
func (t *Table[P]) forsakeLocked(gone func(P) bool) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, e := range s.entries {
			if d := e.trouble; d != nil && gone(d.home) {
				d.home = e.port
			}
		}
		s.mu.Unlock()
	}
}

package fdb

import "sync/atomic"

// Outcome says what has become of a claim that an address is somewhere.
type Outcome uint8

// Outcomes of Learn and Announce.
const (
	Known    Outcome = iota // was there, and is younger now
	Learned                 // is new
	Moved                   // was somewhere else
	Refused                 // is pinned somewhere else, and stays there; or is no station's address
	Frozen                  // has moved too often, and stays somewhere else
	NoRoom                  // does not fit, and is not learned
	Deferred                // is known from somebody better: it moves when who is behind that place announces it
	Outdated                // is announced with a lower number than it has already
)

type counters struct {
	learned, moved, refused, frozen, noRoom, deferred, outdated atomic.Uint64
	expired, evicted, duplicates                                atomic.Uint64
}

// tell counts an outcome, and returns it.
func (c *counters) tell(o Outcome) Outcome {
	switch o {
	case Learned:
		c.learned.Add(1)
	case Moved:
		c.moved.Add(1)
	case Refused:
		c.refused.Add(1)
	case Frozen:
		c.frozen.Add(1)
	case NoRoom:
		c.noRoom.Add(1)
	case Deferred:
		c.deferred.Add(1)
	case Outdated:
		c.outdated.Add(1)
	case Known: // for every frame: not counted
	}
	return o
}

// Stats counts what has happened since the table was made.
type Stats struct {
	Entries    int    `json:"entries"`
	Learned    uint64 `json:"learned"`
	Moved      uint64 `json:"moved"`
	Refused    uint64 `json:"refused"`    // a pinned address was seen somewhere else
	Frozen     uint64 `json:"frozen"`     // a frozen address was seen somewhere else
	NoRoom     uint64 `json:"no_room"`    // a new address did not fit, with Limits.Full Refuse
	Deferred   uint64 `json:"deferred"`   // an address was seen where it was not announced
	Outdated   uint64 `json:"outdated"`   // an announcement was older than what is known
	Duplicates uint64 `json:"duplicates"` // an address has moved too often
	Expired    uint64 `json:"expired"`
	Evicted    uint64 `json:"evicted"`
}

// Stats returns the table's counters.
func (t *Table[P]) Stats() Stats {
	n := 0
	t.each(func(*entry[P]) { n++ })
	c := &t.stats
	return Stats{
		Entries: n, Learned: c.learned.Load(), Moved: c.moved.Load(), Refused: c.refused.Load(), Frozen: c.frozen.Load(), NoRoom: c.noRoom.Load(),
		Deferred: c.deferred.Load(), Outdated: c.outdated.Load(), Duplicates: c.duplicates.Load(), Expired: c.expired.Load(), Evicted: c.evicted.Load(),
	}
}

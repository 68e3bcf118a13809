// Package fdb is the forwarding database of one segment: where an address was last seen.
//
// A Table knows nothing of ports; P is whatever the switch uses for a place. These things decide its shape:
//
//   - Lookups and refreshes happen for every frame, changes almost never. So the entries lie in shards, each under a
//     short read lock; a refresh of a known address in its own place writes one atomic word. Only inserting, moving
//     and removing take the table's one mutex. A claim that is refused, however often, takes it neither.
//   - A late timer must never forward to a stale port. So an entry that has been silent for too long counts as gone for
//     everybody at once; Age only collects what is already dead. Age is refreshed by frames from an address, never by
//     frames to it (IEEE 802.1Q section 8.8.3).
//   - A machine that sends from a million addresses must not push out those of others. So each place has a limit of
//     its own, past which it evicts its own least recently used entry; and when the table is full, the place that holds
//     most entries pays. Or, with Refuse, what does not fit is not learned.
//   - An address that is in two places at once, by a loop or an impostor, must not drag everybody's frames to and fro.
//     So what moves too often is frozen (freeze.go, RFC 7432 section 15.1).
//   - Nodes that tell each other of their addresses must agree on where each is. So an entry has a sequence number that
//     rises with every move (announce.go, RFC 7432 sections 7.7 and 15), and a table tells what has changed since it was
//     asked last (changes.go).
//
// Learn must be called only after a frame has been admitted, or an attacker moves addresses with frames that are
// dropped. The caller passes the time, one value for each batch of frames.
package fdb

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Defaults of Limits.
const (
	DefaultAge     = 300 * time.Second // IEEE 802.1Q table 8-6
	DefaultEntries = 8192
	DefaultPerPort = 2048

	DefaultMoves  = 5                 // RFC 7432 section 15.1: N
	DefaultWithin = 180 * time.Second // the same: M
	DefaultFreeze = 30 * time.Minute  // as FRR recovers
)

// Limits bounds a table. Zero fields mean the defaults.
type Limits struct {
	Age     time.Duration // how long an address that sends nothing is remembered
	Entries int           // entries in the table, pinned ones aside
	PerPort int           // the same of one place
	Full    Full          // what becomes of an address for which there is no room

	Moves     int           // moves of one address within Within that make it a duplicate; less than 0: any number may be
	Within    time.Duration // see Moves
	Freeze    time.Duration // how long a duplicate stays frozen
	Duplicate Duplicate     // what becomes of a duplicate
}

// Full says what becomes of an address for which there is no room.
type Full uint8

// The ways to be full.
const (
	Evict  Full = iota // it takes the place of the least recently used one
	Refuse             // it is not learned, as with bridge(8) fdb_max_learned; frames to it are flooded
)

// Duplicate says what becomes of an address that moves too often.
type Duplicate uint8

// What becomes of duplicates.
const (
	Hold Duplicate = iota // it is frozen
	Warn                  // it is only listed
)

// Table maps addresses to places. All methods may be called concurrently.
type Table[P comparable] struct {
	limits Limits
	start  time.Time
	seed   maphash.Seed
	shards [shardCount]shard[P]

	announces func(P) bool // nil: nobody does

	mu    sync.Mutex // guards every change of an entry but its age; taken before a shard's lock
	ports map[P]*lru[P]
	count int // entries in ports
	log   journal[P]
	past  past

	stats counters
}

const shardCount = 16

type shard[P comparable] struct {
	mu      sync.RWMutex
	entries map[ether.MAC]*entry[P]
}

// New returns an empty table.
func New[P comparable](l Limits) *Table[P] {
	setDefault(&l.Age, DefaultAge)
	setDefault(&l.Entries, DefaultEntries)
	setDefault(&l.PerPort, DefaultPerPort)
	setDefault(&l.Moves, DefaultMoves)
	setDefault(&l.Within, DefaultWithin)
	setDefault(&l.Freeze, DefaultFreeze)
	t := &Table[P]{limits: l, start: time.Now(), seed: maphash.MakeSeed(), ports: make(map[P]*lru[P])}
	for i := range t.shards {
		t.shards[i].entries = make(map[ether.MAC]*entry[P])
	}
	t.log.init()
	t.past.most = l.Entries
	return t
}

func setDefault[V comparable](v *V, to V) {
	var zero V
	if *v == zero {
		*v = to
	}
}

// shard picks by a secret hash, so that nobody can choose addresses that share one.
func (t *Table[P]) shard(mac ether.MAC) *shard[P] {
	return &t.shards[maphash.Comparable(t.seed, mac)%shardCount]
}

func (t *Table[P]) clock(now time.Time) int64 { return int64(now.Sub(t.start)) }

func (t *Table[P]) at(clock int64) time.Time { return t.start.Add(time.Duration(clock)) }

// Lookup returns the place where mac was last seen.
func (t *Table[P]) Lookup(mac ether.MAC, now time.Time) (P, bool) {
	s := t.shard(mac)
	s.mu.RLock()
	e := s.entries[mac]
	if e == nil || t.dead(e, t.clock(now)) {
		s.mu.RUnlock()
		var none P
		return none, false
	}
	port := e.port
	s.mu.RUnlock()
	return port, true
}

// Learn remembers that mac was seen on port. mac must be a station's address.
func (t *Table[P]) Learn(mac ether.MAC, port P, now time.Time) Outcome {
	clock := t.clock(now)
	s := t.shard(mac)
	s.mu.RLock()
	if e := s.entries[mac]; e != nil && !t.dead(e, clock) {
		if e.port == port && !t.adopts(e) {
			if e.seen.Load() != clock {
				e.seen.Store(clock)
			}
			s.mu.RUnlock()
			return Known
		}
		if o := t.holds(e, port, clock); o != Moved {
			s.mu.RUnlock()
			return t.stats.tell(o)
		}
	}
	s.mu.RUnlock()
	return t.learnSlow(mac, port, clock)
}

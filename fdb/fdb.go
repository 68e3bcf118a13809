// Package fdb is the forwarding database of one segment: which port an address was last seen on.
//
// A Table knows nothing of ports; P is whatever the switch uses for one. Three things decide its shape:
//
//   - Lookups and refreshes happen for every frame, changes almost never. So the entries lie in shards, each under a
//     short read lock; a refresh of a known address on its own port writes one atomic word. Only inserting, moving
//     and removing take the table's one mutex.
//   - A late timer must never forward to a stale port. So Lookup itself judges the age; Age only collects what is
//     already dead. Age is refreshed by frames from an address, never by frames to it (IEEE 802.1Q section 8.8.3).
//   - A machine that sends from a million addresses must not push out those of others. So a port has a limit of its
//     own, past which it evicts its own least recently used entry; and when the table is full, the port that holds
//     most entries pays.
//
// Learn must be called only after a frame has been admitted, or an attacker moves addresses with frames that are
// dropped. The caller passes the time, one value for each batch of frames.
package fdb

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Defaults of Limits.
const (
	DefaultAge     = 300 * time.Second // IEEE 802.1Q table 8-6
	DefaultEntries = 8192
	DefaultPerPort = 2048
)

// Limits bounds a table. Zero fields mean the defaults.
type Limits struct {
	Age     time.Duration // how long an address that sends nothing is remembered
	Entries int           // dynamic entries in the table
	PerPort int           // dynamic entries of one port
}

// Table maps addresses to ports. All methods may be called concurrently.
type Table[P comparable] struct {
	limits Limits
	start  time.Time
	seed   maphash.Seed
	shards [shardCount]shard[P]

	mu    sync.Mutex // guards every change of an entry's existence or port; taken before a shard's lock
	ports map[P]*lru[P]
	count int // dynamic entries

	stats counters
}

const shardCount = 16

type shard[P comparable] struct {
	mu      sync.RWMutex
	entries map[ether.MAC]*entry[P]
}

type entry[P comparable] struct {
	mac    ether.MAC
	port   P // guarded by the shard's lock
	static bool
	seen   atomic.Int64 // nanoseconds since the table's start

	prev, next *entry[P] // neighbours in the port's lru, guarded by Table.mu
	filed      int64     // seen, when it took its place there
}

type counters struct{ learned, moved, refused, expired, evicted atomic.Uint64 }

// Stats counts what has happened since the table was made.
type Stats struct {
	Entries int    `json:"entries"`
	Learned uint64 `json:"learned"`
	Moved   uint64 `json:"moved"`
	Refused uint64 `json:"refused"` // a static address was seen on another port
	Expired uint64 `json:"expired"`
	Evicted uint64 `json:"evicted"`
}

// New returns an empty table.
func New[P comparable](l Limits) *Table[P] {
	if l.Age == 0 {
		l.Age = DefaultAge
	}
	if l.Entries == 0 {
		l.Entries = DefaultEntries
	}
	if l.PerPort == 0 {
		l.PerPort = DefaultPerPort
	}
	t := &Table[P]{limits: l, start: time.Now(), seed: maphash.MakeSeed(), ports: make(map[P]*lru[P])}
	for i := range t.shards {
		t.shards[i].entries = make(map[ether.MAC]*entry[P])
	}
	return t
}

// shard picks by a secret hash, so that nobody can choose addresses that share one.
func (t *Table[P]) shard(mac ether.MAC) *shard[P] {
	return &t.shards[maphash.Comparable(t.seed, mac)%shardCount]
}

func (t *Table[P]) clock(now time.Time) int64 { return int64(now.Sub(t.start)) }

func (t *Table[P]) dead(e *entry[P], now int64) bool {
	return !e.static && now-e.seen.Load() > int64(t.limits.Age)
}

// Lookup returns the port that mac was last seen on.
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

// Foresee returns what Lookup of mac would return once source had been learned on port, and changes nothing. It does not
// foresee which entry Learn would evict to make room.
func (t *Table[P]) Foresee(mac, source ether.MAC, port P, now time.Time) (P, bool) {
	if mac != source {
		return t.Lookup(mac, now)
	}
	s := t.shard(mac)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.entries[mac]; e != nil && e.static {
		return e.port, true
	}
	return port, true
}

// Outcome says what Learn did.
type Outcome uint8

// Outcomes of Learn.
const (
	Known   Outcome = iota // was there, and is younger now
	Learned                // is new
	Moved                  // was on another port
	Refused                // is static on another port, and stays there
)

// Learn remembers that mac was seen on port. mac must be a station's address.
func (t *Table[P]) Learn(mac ether.MAC, port P, now time.Time) Outcome {
	clock := t.clock(now)
	s := t.shard(mac)
	s.mu.RLock()
	if e := s.entries[mac]; e != nil && e.port == port {
		if e.seen.Load() != clock {
			e.seen.Store(clock)
		}
		s.mu.RUnlock()
		return Known
	}
	s.mu.RUnlock()
	return t.learnSlow(mac, port, clock)
}

func (t *Table[P]) learnSlow(mac ether.MAC, port P, clock int64) Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shard(mac)
	e := s.entries[mac] // only changed under t.mu
	switch {
	case e == nil:
		t.makeRoomLocked(port)
		e = &entry[P]{mac: mac, port: port}
		e.seen.Store(clock)
		t.insertLocked(e)
		t.stats.learned.Add(1)
		return Learned
	case e.port == port:
		e.seen.Store(clock)
		return Known
	case e.static:
		t.stats.refused.Add(1)
		return Refused
	}
	t.removeLocked(e)
	t.makeRoomLocked(port)
	moved := &entry[P]{mac: mac, port: port}
	moved.seen.Store(clock)
	t.insertLocked(moved)
	t.stats.moved.Add(1)
	return Moved
}

// ErrExists means that the address already has a static entry.
var ErrExists = errors.New("fdb: the address already has a static entry")

// AddStatic pins mac to port: it neither ages nor moves nor counts towards a limit. A dynamic entry gives way.
func (t *Table[P]) AddStatic(mac ether.MAC, port P) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.shard(mac).entries[mac]; e != nil {
		if e.static {
			return ErrExists
		}
		t.removeLocked(e)
	}
	t.insertLocked(&entry[P]{mac: mac, port: port, static: true})
	return nil
}

// Remove forgets mac, static or not, and reports whether it was there.
func (t *Table[P]) Remove(mac ether.MAC) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.shard(mac).entries[mac]
	if e != nil {
		t.removeLocked(e)
	}
	return e != nil
}

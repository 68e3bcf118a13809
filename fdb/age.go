package fdb

import (
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// lru is a ring of a port's dynamic entries, least recently filed first. An entry that has been seen since it was
// filed gets a second chance when its turn to be evicted comes, so that refreshing needs no lock.
type lru[P comparable] struct {
	head  entry[P] // sentinel
	count int
}

func (l *lru[P]) push(e *entry[P]) {
	e.filed = e.seen.Load()
	e.prev, e.next = l.head.prev, &l.head
	e.prev.next, l.head.prev = e, e
	l.count++
}

func (l *lru[P]) drop(e *entry[P]) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	l.count--
}

// oldest returns the entry that was least recently seen.
func (l *lru[P]) oldest() *entry[P] {
	for range l.count {
		e := l.head.next
		if e.seen.Load() == e.filed {
			return e
		}
		l.drop(e)
		l.push(e)
	}
	return l.head.next
}

func (t *Table[P]) insertLocked(e *entry[P]) {
	if !e.static {
		l := t.ports[e.port]
		if l == nil {
			l = new(lru[P])
			l.head.prev, l.head.next = &l.head, &l.head
			t.ports[e.port] = l
		}
		l.push(e)
		t.count++
	}
	s := t.shard(e.mac)
	s.mu.Lock()
	s.entries[e.mac] = e
	s.mu.Unlock()
}

func (t *Table[P]) removeLocked(e *entry[P]) {
	if !e.static {
		l := t.ports[e.port]
		l.drop(e)
		if l.count == 0 {
			delete(t.ports, e.port)
		}
		t.count--
	}
	s := t.shard(e.mac)
	s.mu.Lock()
	delete(s.entries, e.mac)
	s.mu.Unlock()
}

// makeRoomLocked evicts at most one entry, so that port may have one more.
func (t *Table[P]) makeRoomLocked(port P) {
	if l := t.ports[port]; l != nil && l.count >= t.limits.PerPort {
		t.evictLocked(l)
		return
	}
	if t.count < t.limits.Entries {
		return
	}
	var fattest *lru[P]
	for _, l := range t.ports {
		if fattest == nil || l.count > fattest.count {
			fattest = l
		}
	}
	t.evictLocked(fattest)
}

func (t *Table[P]) evictLocked(l *lru[P]) {
	t.removeLocked(l.oldest())
	t.stats.evicted.Add(1)
}

// Age removes what has not been seen for longer than the limit, and says how many that were.
func (t *Table[P]) Age(now time.Time) int {
	clock := t.clock(now)
	n := t.removeIf(func(e *entry[P]) bool { return t.dead(e, clock) })
	t.stats.expired.Add(uint64(n))
	return n
}

// FlushPort forgets everything about a port that is gone, and says how much that was.
func (t *Table[P]) FlushPort(port P) int {
	return t.removeIf(func(e *entry[P]) bool { return e.port == port })
}

// FlushDynamic forgets everything but static entries, and says how much that was.
func (t *Table[P]) FlushDynamic() int {
	return t.removeIf(func(e *entry[P]) bool { return !e.static })
}

func (t *Table[P]) removeIf(match func(*entry[P]) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	var gone []*entry[P]
	for i := range t.shards {
		for _, e := range t.shards[i].entries {
			if match(e) {
				gone = append(gone, e)
			}
		}
	}
	for _, e := range gone {
		t.removeLocked(e)
	}
	return len(gone)
}

// Entry is what Entries tells of an address.
type Entry[P comparable] struct {
	MAC    ether.MAC
	Port   P
	Static bool
	Idle   time.Duration // since it was last seen; 0 for a static one
}

// Entries lists what Lookup would find, by address.
func (t *Table[P]) Entries(now time.Time) []Entry[P] {
	clock := t.clock(now)
	var out []Entry[P]
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for _, e := range s.entries {
			switch {
			case e.static:
				out = append(out, Entry[P]{MAC: e.mac, Port: e.port, Static: true})
			case !t.dead(e, clock):
				idle := time.Duration(max(0, clock-e.seen.Load()))
				out = append(out, Entry[P]{MAC: e.mac, Port: e.port, Idle: idle})
			}
		}
		s.mu.RUnlock()
	}
	slices.SortFunc(out, func(a, b Entry[P]) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return out
}

// Stats returns the table's counters.
func (t *Table[P]) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for i := range t.shards {
		n += len(t.shards[i].entries)
	}
	return Stats{
		Entries: n, Learned: t.stats.learned.Load(), Moved: t.stats.moved.Load(), Refused: t.stats.refused.Load(),
		Expired: t.stats.expired.Load(), Evicted: t.stats.evicted.Load(),
	}
}

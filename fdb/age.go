package fdb

import "time"

// lru is a ring of the entries of a place, least recently filed first. An entry that has been seen since it was
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

// fileLocked counts an entry in its place. Pinned ones count nowhere: what an administrator has set no flood undoes, nor does
// it take room from what is learned.
func (t *Table[P]) fileLocked(e *entry[P]) {
	if e.kind.pinned() {
		return
	}
	l := t.ports[e.port]
	if l == nil {
		l = new(lru[P])
		l.head.prev, l.head.next = &l.head, &l.head
		t.ports[e.port] = l
	}
	l.push(e)
	t.count++
}

func (t *Table[P]) unfileLocked(e *entry[P]) {
	if e.kind.pinned() {
		return
	}
	l := t.ports[e.port]
	l.drop(e)
	if l.count == 0 {
		delete(t.ports, e.port)
	}
	t.count--
}

// fullLocked says which limits leave no room for one entry more in a place. One that moves is in the table already.
func (t *Table[P]) fullLocked(port P, isNew bool) (place, table bool) {
	l := t.ports[port]
	return l != nil && l.count >= t.limits.PerPort, isNew && t.count >= t.limits.Entries
}

// roomLocked reports whether a place may have one entry more. What is dead there is no reason to refuse another.
func (t *Table[P]) roomLocked(port P, isNew bool, clock int64) bool {
	place, table := t.fullLocked(port, isNew)
	if t.limits.Full == Evict || !place && !table {
		return true
	}
	l := t.ports[port]
	return l != nil && t.dead(l.oldest(), clock)
}

// makeRoomLocked evicts at most one entry, so that a place may have one more.
func (t *Table[P]) makeRoomLocked(port P, isNew bool) {
	place, table := t.fullLocked(port, isNew)
	switch {
	case place, table && t.limits.Full == Refuse:
		t.evictLocked(t.ports[port])
	case table:
		var fattest *lru[P]
		for _, l := range t.ports {
			if fattest == nil || l.count > fattest.count {
				fattest = l
			}
		}
		t.evictLocked(fattest)
	}
}

func (t *Table[P]) evictLocked(l *lru[P]) {
	t.removeLocked(l.oldest())
	t.stats.evicted.Add(1)
}

// Age removes what has not been seen for longer than the limit, and says how many that were.
func (t *Table[P]) Age(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	clock := t.clock(now)
	n := t.removeIfLocked(func(e *entry[P]) bool { return t.dead(e, clock) })
	t.stats.expired.Add(uint64(n))
	return n
}

func (t *Table[P]) removeIfLocked(match func(*entry[P]) bool) int {
	var gone []*entry[P]
	t.each(func(e *entry[P]) {
		if match(e) {
			gone = append(gone, e)
		}
	})
	for _, e := range gone {
		t.removeLocked(e)
	}
	return len(gone)
}

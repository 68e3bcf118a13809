package transport

import (
	"sync"
	"time"
)

// Bounds of what a peer may have in pieces here at a time.
const (
	rejoinMessages = 64              // messages
	rejoinPieces   = 64              // pieces of one message
	rejoinLife     = 1 * time.Second // from the first piece to the last
	rejoinBytes    = 16 * MaxMessage // all together
	rejoinSpares   = 4               // that are kept for the next messages
)

// rejoiner puts cut messages of one peer together again, before anything looks at them. It is bounded in messages,
// pieces, bytes and time; past a bound the oldest message is given up.
type rejoiner struct {
	mu    sync.Mutex
	parts map[partID]*partial
	bytes int
	spare []*partial
}

// partID is unique while an epoch lives: every shard of a sender numbers its messages.
type partID struct {
	epoch *epoch
	shard uint8
	id    uint32
}

type partial struct {
	buf    []byte
	spans  []span // what has arrived
	have   int
	expire time.Time
}

type span struct{ from, to int }

// add takes one piece and returns the message when it was the last; the caller gives it back with free. A piece that
// overlaps another, or disagrees about the length, spoils the message: an honest sender never makes one.
func (r *rejoiner) add(id partID, p piece, now time.Time) *partial {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.parts[id]
	if m == nil {
		r.makeRoomLocked(p.total, now)
		m = r.newLocked(p.total)
		m.expire = now.Add(rejoinLife)
		if r.parts == nil {
			r.parts = make(map[partID]*partial)
		}
		r.parts[id] = m
		r.bytes += p.total
	}
	if p.total != len(m.buf) || len(m.spans) >= rejoinPieces || m.overlaps(p) || now.After(m.expire) {
		r.freeLocked(r.dropLocked(id))
		return nil
	}
	copy(m.buf[p.offset:], p.data)
	m.spans = append(m.spans, span{p.offset, p.offset + len(p.data)})
	m.have += len(p.data)
	if m.have < len(m.buf) {
		return nil
	}
	return r.dropLocked(id)
}

// newLocked returns room for a message of size bytes.
func (r *rejoiner) newLocked(size int) *partial {
	n := len(r.spare)
	if n == 0 {
		return &partial{buf: make([]byte, size)}
	}
	m := r.spare[n-1]
	r.spare = r.spare[:n-1]
	if cap(m.buf) < size {
		m.buf = make([]byte, size)
	}
	*m = partial{buf: m.buf[:size], spans: m.spans[:0]}
	return m
}

// free takes back what add has returned. Few are kept.
func (r *rejoiner) free(m *partial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freeLocked(m)
}

func (r *rejoiner) freeLocked(m *partial) {
	if len(r.spare) < rejoinSpares {
		r.spare = append(r.spare, m)
	}
}

func (m *partial) overlaps(p piece) bool {
	for _, s := range m.spans {
		if p.offset < s.to && s.from < p.offset+len(p.data) {
			return true
		}
	}
	return false
}

func (r *rejoiner) dropLocked(id partID) *partial {
	m := r.parts[id]
	r.bytes -= len(m.buf)
	delete(r.parts, id)
	return m
}

func (r *rejoiner) makeRoomLocked(size int, now time.Time) {
	r.expireLocked(now)
	for len(r.parts) >= rejoinMessages || r.bytes+size > rejoinBytes {
		var oldest partID
		var when time.Time
		for id, m := range r.parts {
			if when.IsZero() || m.expire.Before(when) {
				oldest, when = id, m.expire
			}
		}
		r.freeLocked(r.dropLocked(oldest))
	}
}

func (r *rejoiner) expireLocked(now time.Time) {
	for id, m := range r.parts {
		if now.After(m.expire) {
			r.freeLocked(r.dropLocked(id))
		}
	}
}

// expire gives up what has waited too long.
func (r *rejoiner) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expireLocked(now)
}

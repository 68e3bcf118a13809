package policy

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Uses counts, for each grant, what it has let pass at this node: as sender, as receiver, or both. It outlives the Views that
// count into it.
type Uses struct {
	mu sync.Mutex
	of map[GrantID]*use
}

// use is the count of one grant.
type use struct {
	frames, octets, flows atomic.Uint64
	last                  atomic.Int64 // Unix time in seconds
}

// Use is what a grant has let pass; of one that observes, what it would have let begin.
type Use struct {
	Grant  GrantID
	Frames uint64
	Octets uint64
	Flows  uint64    // begun
	Last   time.Time // to the second; zero: never
}

// NewUses returns counters that are all 0.
func NewUses() *Uses { return &Uses{of: map[GrantID]*use{}} }

func (u *Uses) find(id GrantID) *use {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of[id] == nil {
		u.of[id] = new(use)
	}
	return u.of[id]
}

// List returns the counts of all grants that were compiled and not forgotten since, by id.
func (u *Uses) List() []Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []Use
	for _, id := range slices.Sorted(maps.Keys(u.of)) {
		c := u.of[id]
		one := Use{Grant: id, Frames: c.frames.Load(), Octets: c.octets.Load(), Flows: c.flows.Load()}
		if s := c.last.Load(); s != 0 {
			one.Last = time.Unix(s, 0)
		}
		out = append(out, one)
	}
	return out
}

// Retain forgets the counts of all grants but these.
func (u *Uses) Retain(ids []GrantID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	keep := make(map[GrantID]struct{}, len(ids))
	for _, id := range ids {
		keep[id] = struct{}{}
	}
	maps.DeleteFunc(u.of, func(id GrantID, _ *use) bool { _, is := keep[id]; return !is })
}

// count notes that a frame passed by the grant, or would have.
func (g *compiled) count(p *Passage) {
	if p.Dry {
		return
	}
	g.use.frames.Add(1)
	g.use.octets.Add(uint64(len(p.Frame.Data)))
	if now := p.Now.Unix(); g.use.last.Load() != now {
		g.use.last.Store(now)
	}
}

// watch counts for the grants that only observe, and notes the one that would have let the frame begin.
func (v *View) watch(p *Passage, receiver Identity) {
	if !v.watches {
		return
	}
	if g := v.observing.find(p.Class(), p.Source, receiver, v.stations[receiver], p.Now); g != nil {
		g.count(p)
		p.Observed = g.id
	}
}

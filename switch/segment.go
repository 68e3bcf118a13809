package vswitch

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// Segment is one broadcast domain as this node has it.
type Segment struct {
	VNI    policy.VNI
	fdb    *fdb.Table[*Port]
	flows  *policy.Flows
	layout atomic.Pointer[layout]
	drops  drops
	denied denied
	reject rejecter

	mu sync.Mutex // serialises writers of layout
}

// layout is the configured state: replaced as a whole, never changed.
type layout struct {
	self   policy.Identity
	mtu    int // the longest payload of a frame, in bytes
	policy *policy.View
	limits policy.Limits
	start  time.Time // from which meters count
	ports  []*Port

	floodFrom [2][]*Port                // by kind of ingress: where a flooded frame may go
	behind    map[policy.Identity]*Port // by who is behind it
}

// NewSegment returns a segment without ports, in which nothing may pass. mtu is the longest payload of a frame, in bytes.
func NewSegment(vni policy.VNI, self policy.Identity, mtu int, limits fdb.Limits) *Segment {
	s := &Segment{VNI: vni, fdb: fdb.New[*Port](limits), flows: policy.NewFlows()}
	s.layout.Store(&layout{self: self, mtu: mtu, start: time.Now(), policy: policy.Compile(policy.Rules{})})
	return s
}

// SetPolicy replaces what may pass. Frames judged from now on are judged by it, those of live flows, too; what is remembered
// about peers that this node has nothing to do with any more is forgotten.
func (s *Segment) SetPolicy(v *policy.View, now time.Time) {
	s.change(func(l *layout) { l.policy = v })
	neighbours := v.Neighbours(s.layout.Load().self, now)
	s.flows.Retain(neighbours)
	for _, p := range s.Ports() {
		if _, known := slices.BinarySearch(neighbours, p.Identity); !known {
			s.fdb.FlushPort(p)
		}
	}
}

// Age forgets addresses and flows of which nothing has been seen for too long.
func (s *Segment) Age(now time.Time) {
	s.fdb.Age(now)
	s.flows.Age(s.Policy(), now)
}

// SetLimits says how often each identity may send what costs everybody. Without it there are no limits.
func (s *Segment) SetLimits(limits policy.Limits) { s.change(func(l *layout) { l.limits = limits }) }

// Policy returns what SetPolicy set last.
func (s *Segment) Policy() *policy.View { return s.layout.Load().policy }

// AddPort joins a port to the segment.
func (s *Segment) AddPort(p *Port) {
	s.change(func(l *layout) { l.ports = append(slices.Clone(l.ports), p) })
}

// RemovePort takes a port out of the segment, with every address seen behind it.
func (s *Segment) RemovePort(p *Port) {
	s.change(func(l *layout) {
		l.ports = slices.DeleteFunc(slices.Clone(l.ports), func(q *Port) bool { return q == p })
	})
	s.fdb.FlushPort(p)
}

// Ports lists the segment's ports.
func (s *Segment) Ports() []*Port { return s.layout.Load().ports }

func (s *Segment) change(edit func(*layout)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := *s.layout.Load()
	edit(&l)
	l.floodFrom = [2][]*Port{Local: l.ports, Link: nil}
	l.behind = make(map[policy.Identity]*Port, len(l.ports))
	for _, p := range l.ports {
		l.behind[p.Identity] = p
		if p.Kind == Local {
			l.floodFrom[Link] = append(l.floodFrom[Link], p)
		}
	}
	s.layout.Store(&l)
}

// FDB is the segment's table of learned addresses.
func (s *Segment) FDB() *fdb.Table[*Port] { return s.fdb }

// Flows is what is remembered of who has begun what.
func (s *Segment) Flows() *policy.Flows { return s.flows }

// Denied returns what was refused since it was asked last, and how many frames more that there was no room to tell apart.
func (s *Segment) Denied() (list []Denial, others uint64) { return s.denied.take() }

// SetReject makes the segment tell its own host at once that a frame was refused, or not.
func (s *Segment) SetReject(on bool) { s.reject.on.Store(on) }

// refuse notes a frame that was refused, and tells its host if that is wanted.
func (s *Segment) refuse(l *layout, c *carriage, drop Drop) {
	if drop.benign() {
		return
	}
	s.denied.note(l, c, drop)
	if s.reject.on.Load() {
		s.reject.answer(c, drop)
	}
}

// Drops lists why frames went nowhere, and how many.
func (s *Segment) Drops() []DropCount { return s.drops.list() }

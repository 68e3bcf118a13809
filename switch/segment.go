package vswitch

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// Segment is one broadcast domain as this node has it.
type Segment struct {
	VNI        policy.VNI
	fdb        *fdb.Table[Place]
	flows      *policy.Flows
	neighbours neighbours
	layout     atomic.Pointer[layout]
	groups     atomic.Pointer[map[policy.Identity]*Group] // by attachment; nil if there was never one
	drops      drops
	denied     denied
	reject     rejecter
	echo       echo
	server     atomic.Pointer[Server] // nil: nobody answers in the name of the segment's DHCP service

	mu sync.Mutex // serialises writers of layout
}

// layout is the configured state: replaced as a whole, never changed.
type layout struct {
	self   policy.Identity
	mtu    int  // the longest payload of a frame, in bytes
	tags   bool // of those who use the segment are carried unchanged
	policy *policy.View
	own    []policy.Identity // for whom this node speaks
	around []policy.Identity // with whom they have anything to do
	limits policy.Limits
	start  time.Time // from which meters count
	ports  []*Port

	attached  []*Port                     // of them, those onto VLANs
	floodFrom [numKinds][]*Port           // by kind of ingress: where a flooded frame may go
	behind    map[policy.Identity][]*Port // by whom frames are for: where they go if the FDB does not know
	leads     map[*Port][]policy.Identity // whom a port leads to, of those with whom there is anything to do
	backups   map[*Port]*Port             // by port
	meters    map[policy.Identity]*meters // of those who send
}

// parse looks at a frame. In a transparent segment it is the one behind its user's tags that is judged, and carried with them.
func (l *layout) parse(data []byte) (ether.Frame, error) {
	if l.tags {
		return ether.ParseInside(data)
	}
	return ether.Parse(data)
}

// NewSegment returns a segment without ports, in which nothing may pass. mtu is the longest payload of a frame, in bytes.
func NewSegment(vni policy.VNI, self policy.Identity, mtu int, limits fdb.Limits) *Segment {
	s := &Segment{VNI: vni, fdb: fdb.New[Place](limits), flows: policy.NewFlows()}
	s.layout.Store(&layout{self: self, mtu: mtu, start: time.Now(), policy: policy.Compile(policy.Rules{})})
	return s
}

// SetPolicy replaces what may pass. Frames judged from now on are judged by it, those of live flows, too; what is remembered
// about peers that this node has nothing to do with any more is forgotten.
func (s *Segment) SetPolicy(v *policy.View, now time.Time) {
	self := s.layout.Load().self
	own, around := v.Own(self), v.Around(self, now)
	s.change(func(l *layout) { l.policy, l.own, l.around = v, own, around })
	s.flows.Retain(around)
	l := s.layout.Load()
	s.neighbours.retain(now, func(id policy.Identity) bool { return v.Station(id) != nil })
	s.fdb.FlushWhere(func(p Place) bool {
		_, known := slices.BinarySearch(around, p.Who)
		return !known && !slices.Contains(own, p.Who) || !l.leadsTo(p)
	})
	s.fdb.Flush(func(e fdb.Entry[Place]) bool {
		byHand := e.Kind == fdb.Static || e.Kind == fdb.Sticky
		return !byHand && !mayBe(v, e.Port.Who, e.MAC)
	}, now)
}

// leadsTo reports whether somebody can be where he was seen.
func (l *layout) leadsTo(p Place) bool {
	if g := p.Port.group; g != nil {
		return l.policy.IsBehind(p.Who, g.Attachment)
	}
	return slices.Contains(l.leads[p.Port], p.Who)
}

// mayBe reports whether an address may be a party's. One that is pinned to a host now was of those whom nobody named, perhaps, and
// what is for it must not be judged as theirs.
func mayBe(v *policy.View, who policy.Identity, mac ether.MAC) bool {
	if owner := v.Owner(mac); owner != 0 {
		return owner == who
	}
	st := v.Station(who)
	return st != nil && st.MAC == ether.MAC{}
}

// Age forgets addresses and flows of which nothing has been seen for too long.
func (s *Segment) Age(now time.Time) {
	s.fdb.Age(now)
	s.flows.Age(s.Policy(), now)
	s.neighbours.retain(now, func(policy.Identity) bool { return true })
}

// SetLimits says how often each identity may send what costs everybody. Without it there are no limits.
func (s *Segment) SetLimits(limits policy.Limits) { s.change(func(l *layout) { l.limits = limits }) }

// SetTransparent makes the segment carry the tags of those who use it unchanged, or not. It is set before there are ports.
func (s *Segment) SetTransparent(on bool) { s.change(func(l *layout) { l.tags = on }) }

// Policy returns what SetPolicy set last.
func (s *Segment) Policy() *policy.View { return s.layout.Load().policy }

// AddPort joins ports to the segment. Many are better joined at once: each time it is worked out anew where everybody is.
func (s *Segment) AddPort(ports ...*Port) {
	if len(ports) > 0 {
		s.change(func(l *layout) { l.ports = slices.Concat(l.ports, ports) })
	}
}

// RemovePort takes ports out of the segment, with every address seen behind them.
func (s *Segment) RemovePort(ports ...*Port) {
	if len(ports) == 0 {
		return
	}
	s.change(func(l *layout) {
		l.ports = slices.DeleteFunc(slices.Clone(l.ports), func(q *Port) bool { return slices.Contains(ports, q) })
	})
	s.fdb.FlushWhere(func(at Place) bool { return slices.Contains(ports, at.Port) })
}

// Ports lists the segment's ports.
func (s *Segment) Ports() []*Port { return s.layout.Load().ports }

func (s *Segment) change(edit func(*layout)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := *s.layout.Load()
	edit(&l)
	l.floodFrom = [numKinds][]*Port{Local: l.ports, Attached: l.ports, Link: nil}
	l.attached = nil
	for _, p := range l.ports {
		if p.Kind == Attached {
			l.attached = append(l.attached, p)
		}
		if p.Kind != Link { // split horizon: the mesh is full
			l.floodFrom[Link] = append(l.floodFrom[Link], p)
		}
	}
	l.place()
	l.pair()
	s.layout.Store(&l)
}

// place works out where everybody is.
func (l *layout) place() {
	machines := make(map[policy.Identity][]policy.Identity) // by the node that may speak for them
	for _, id := range l.around {
		for _, node := range l.policy.Gateways(id) {
			machines[node] = append(machines[node], id)
		}
	}
	before := l.meters
	l.behind = make(map[policy.Identity][]*Port, len(l.ports))
	l.leads = make(map[*Port][]policy.Identity, len(l.ports))
	l.meters = make(map[policy.Identity]*meters, len(before))
	for _, p := range l.ports {
		who := []policy.Identity{p.Identity}
		switch p.Kind {
		case Link:
			who = append(who, machines[p.Identity]...)
		case Attached:
			who = append(who, l.policy.Hosts(p.Identity)...)
		case Local, numKinds:
		}
		l.leads[p] = who
		for _, id := range who {
			l.behind[id] = append(l.behind[id], p)
			switch {
			case l.meters[id] != nil:
			case before[id] != nil:
				before[id].keep(l.policy)
				l.meters[id] = before[id]
			default:
				l.meters[id] = new(meters)
			}
		}
	}
	for id, ports := range l.behind {
		l.behind[id] = l.nearest(id, ports)
	}
}

// nearest picks, of the ports that lead to somebody, where a frame goes of whom nothing was seen: to one, and rather to the VLAN here
// than to another gateway. A host that may be behind one of several attachments is looked for behind all.
func (l *layout) nearest(id policy.Identity, ports []*Port) []*Port {
	if st := l.policy.Station(id); st != nil && len(st.Attachments) > 1 {
		return ports
	}
	for _, p := range ports {
		if p.Kind != Link {
			return []*Port{p}
		}
	}
	return ports[:1]
}

// FDB is the segment's table of learned addresses.
func (s *Segment) FDB() *fdb.Table[Place] { return s.fdb }

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
	s.squat(l, c, drop)
	if s.reject.on.Load() {
		s.reject.answer(l, c, drop)
	}
}

// Drops lists why frames went nowhere, and how many.
func (s *Segment) Drops() []DropCount { return s.drops.list() }

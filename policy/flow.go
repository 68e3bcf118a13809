package policy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Flows remembers, for one segment at one node, who has begun a flow with whom and by which grant, so that answers pass and
// nothing else does in their direction, and so that the next packet costs one look. An entry that another generation of the
// policy has judged is judged again when it is used next: policy cuts live flows by being replaced.
//
// It also remembers the first fragments of datagrams, by which later ones are judged (fragment.go).
//
// Both are bounded for each identity that begins, so that nobody forgets others' by beginning many.
type Flows struct {
	openers   atomic.Pointer[map[Identity]*flowSet]
	mu        sync.Mutex // serialises writers of openers
	datagrams datagrams
	records   records
	fellows   fellows
}

// NewFlows returns an empty one.
func NewFlows() *Flows {
	f := &Flows{}
	f.openers.Store(&map[Identity]*flowSet{})
	f.datagrams.of = map[Identity]*[maxDatagrams]datagram{}
	return f
}

const (
	flowShards    = 16
	maxShardFlows = 1024 // so 16 384 flows of one identity
	evictAmong    = 8
)

// How long a silent flow is remembered: RFC 5382 section 5 (REQ-5) for TCP, RFC 4787 section 4.3 (REQ-5) for UDP, RFC 5508
// section 3.2 (REQ-2) for ICMP.
const (
	tcpEstablished = 2*time.Hour + 4*time.Minute
	tcpTransitory  = 4 * time.Minute
	udpIdle        = 5 * time.Minute
	icmpIdle       = time.Minute
)

// flowSet is what one identity has begun.
type flowSet [flowShards]flowShard

type flowShard struct {
	mu sync.Mutex
	m  map[flowKey]*flow
}

// flowKey names a flow of an opener, in the direction in which it began.
type flowKey struct {
	other Identity
	vlans ether.VLANs // on which it is, inside a transparent segment: on another one the same addresses are other machines'
	tuple Tuple
}

func (k *flowKey) shard() int {
	t := &k.tuple
	h := uint32(t.SrcPort)*31 + uint32(t.DstPort) + uint32(t.Src[15])<<3 + uint32(t.Dst[15])<<5 + uint32(k.other)
	h ^= h >> 8
	return int((h ^ h>>4) % flowShards)
}

// flow is guarded by its shard's lock.
type flow struct {
	grant      GrantID
	observed   GrantID // what it would begin by if grants in mode observe were enforced
	generation uint64  // of the View that last let it pass
	dst        ether.MAC
	seen       time.Time
	answered   bool
	ending     bool
	tally      tally
}

// idle is how long the flow may be silent.
func (f *flow) idle(p ether.Protocol) time.Duration {
	switch {
	case p == ether.ProtoTCP && f.answered && !f.ending:
		return tcpEstablished
	case p == ether.ProtoTCP:
		return tcpTransitory
	case p == ether.ProtoICMP:
		return icmpIdle
	}
	return udpIdle
}

func (f *flow) dead(p ether.Protocol, now time.Time) bool { return now.Sub(f.seen) > f.idle(p) }

// begin remembers a flow that a grant lets opener begin, or that it goes on by another grant than before.
func (f *Flows) begin(v *View, opener Identity, k *flowKey, g *compiled, p *Passage) {
	c, now := &p.class, p.Now
	s := &f.setOf(opener)[k.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[*k]
	if e == nil || e.dead(k.tuple.Protocol, now) {
		if s.m == nil {
			s.m = map[flowKey]*flow{}
		}
		if e != nil {
			f.endLocked(s, opener, *k, e, Idle)
		}
		if len(s.m) >= maxShardFlows {
			k, e := s.oldestLocked(now)
			f.endLocked(s, opener, k, e, Evicted)
		}
		e = &flow{tally: tally{began: now, told: now}}
		s.m[*k] = e
		g.use.flows.Add(1)
	}
	e.grant, e.generation, e.dst = g.id, v.generation, c.Dst
	e.note(c, onward, now)
	e.observed = p.Observed
	e.tally.add(onward, p)
	if p.Shared {
		f.fellows.note(fellowOf(opener, k, e))
	}
}

// note takes what a packet says of the flow's end. One that opens begins it anew: the ports of a connection that has ended may
// be used again (RFC 9293 section 3.6.1).
func (f *flow) note(c *Class, w way, now time.Time) {
	if c.Opens {
		f.answered, f.ending = false, false
	}
	f.seen, f.answered, f.ending = now, f.answered || w == answer, f.ending || c.Ends
}

// oldestLocked is the flow that has been silent longest, of a few.
func (s *flowShard) oldestLocked(now time.Time) (oldest flowKey, flow *flow) {
	var silent time.Duration = -1
	n := 0
	for k, e := range s.m {
		if d := now.Sub(e.seen); d > silent {
			oldest, flow, silent = k, e, d
		}
		if n++; n == evictAmong {
			break
		}
	}
	return oldest, flow
}

func (f *Flows) setOf(opener Identity) *flowSet {
	if s := (*f.openers.Load())[opener]; s != nil {
		return s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := *f.openers.Load()
	if s := old[opener]; s != nil {
		return s
	}
	next := make(map[Identity]*flowSet, len(old)+1)
	for id, s := range old {
		next[id] = s
	}
	s := new(flowSet)
	next[opener] = s
	f.openers.Store(&next)
	return s
}

// way says what a packet is to a flow.
type way uint8

const (
	onward way = iota // from the opener
	answer            // to the opener
	about             // an error about it: nothing of the flow itself
)

// stands returns the grant of a flow that opener has begun, if it is remembered and v still lets it pass; 0 if not. If demanded is
// not 0, it must be that one: a frame that is refused changes nothing.
func (f *Flows) stands(v *View, opener Identity, k *flowKey, w way, p *Passage, demanded GrantID) GrantID {
	set := (*f.openers.Load())[opener]
	if set == nil {
		return 0
	}
	s := &set[k.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.m[*k]
	if e == nil || e.dead(k.tuple.Protocol, p.Now) || demanded != 0 && e.grant != demanded {
		return 0
	}
	// What goes on does so between the same stations.
	if w == onward && p.class.Dst != e.dst || !v.stillAllows(opener, k, e, p.Now) {
		return 0
	}
	if !p.Dry {
		e.generation = v.generation
		if w != about {
			first := w == answer && !e.answered
			e.note(&p.class, w, p.Now)
			e.tally.add(w, p)
			if first && p.Shared {
				f.fellows.note(fellowOf(opener, k, e))
			}
		}
	}
	return e.grant
}

// stillAllows judges a flow by v, unless v has let it pass before. That its grant lasts, and that both are still members, is a
// matter of time, and asked every time.
func (v *View) stillAllows(opener Identity, k *flowKey, e *flow, now time.Time) bool {
	g := v.grants[e.grant]
	if !g.alive(now) || v.apart(opener, k.other) || g.segment && !v.members(opener, k.other, now) {
		return false
	}
	if e.generation == v.generation {
		return true
	}
	c := Class{Kind: Packet, Type: typeOf(&k.tuple), Dst: e.dst, Tuple: k.tuple}
	return !g.observe && v.allows(g, opener, k.other, &c, now)
}

func typeOf(t *Tuple) ether.Type {
	if addrOf(t.Src).Is4() {
		return ether.TypeIPv4
	}
	return ether.TypeIPv6
}

// Age forgets what has been silent too long, and what v does not let pass any more; a nil v lets everything pass.
func (f *Flows) Age(v *View, now time.Time) {
	for opener, set := range *f.openers.Load() {
		for i := range set {
			s := &set[i]
			s.mu.Lock()
			for k, e := range s.m {
				switch {
				case e.dead(k.tuple.Protocol, now):
					f.endLocked(s, opener, k, e, Idle)
				case v != nil && !v.stillAllows(opener, &k, e, now):
					f.endLocked(s, opener, k, e, Cut)
				}
			}
			s.mu.Unlock()
		}
	}
	f.datagrams.age(now)
}

// Retain forgets everything that others than these have begun.
func (f *Flows) Retain(ids []Identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := *f.openers.Load()
	next := map[Identity]*flowSet{}
	for _, id := range ids {
		if s := old[id]; s != nil {
			next[id] = s
		}
	}
	f.openers.Store(&next)
	for opener, set := range old {
		if next[opener] != nil {
			continue
		}
		for i := range set {
			s := &set[i]
			s.mu.Lock()
			for k, e := range s.m {
				f.endLocked(s, opener, k, e, Cut)
			}
			s.mu.Unlock()
		}
	}
	f.datagrams.retain(ids)
}

// Len counts the flows that are remembered.
func (f *Flows) Len() int {
	n := 0
	for _, set := range *f.openers.Load() {
		for i := range set {
			set[i].mu.Lock()
			n += len(set[i].m)
			set[i].mu.Unlock()
		}
	}
	return n
}

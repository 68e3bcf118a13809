package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Rules is what a View is compiled from: the part of the network's policy that concerns one segment and one node.
type Rules struct {
	Generation uint64 // greater for every change
	Self       Identity
	Stations   map[Identity]*Station
	Grants     []Grant
	Expires    time.Time // past it nothing passes; zero: never
	Uses       *Uses     // what is counted into; nil: nothing is

	Service *Service             // the segment's own DHCP service; nil: there is none
	Leases  map[Identity][]Lease // what it has given, by machine
}

// View answers, for one segment, what may pass. It is immutable.
type View struct {
	generation uint64
	expires    time.Time
	stations   map[Identity]*Station
	taken      *taken
	gateways   map[Identity]bool       // who speaks for others; true if somebody else does so for one of these, too
	concerned  map[Identity]struct{}   // whom some grant names, in force or not
	askable    map[Identity][]Identity // by who has a grant to nodes with them, or they with it: machines that may use any address
	carriers   map[Identity][]Identity // by attachment: the nodes that may carry its VLAN
	grants     map[GrantID]*compiled
	ranked     []*compiled
	enforced   index
	observing  index                   // those that only observe; its members are whoever would be one if they were enforced
	watches    bool                    // there are such
	private    bool                    // somebody is isolated, or of a community
	speaks     map[Identity][]Identity // machines, by the node that may speak for them
	hosts      map[Identity][]Identity // those with a name that may be behind an attachment, by it
}

// index is a set of grants by what is asked of them.
type index struct {
	members map[Identity]*compiled // the grant to the segment that each holds and that lasts longest
	open    map[Identity]*compiled // the same, of those without limits
	held    map[Identity]*matcher  // grants to the segment, by who holds them
	back    map[Identity]*matcher  // of them, those by which members may begin towards the holder
	pairs   map[pair]*matcher      // grants to nodes, by who may begin towards whom
}

type pair struct{ source, receiver Identity }

// Compile makes a View. Of grants to nodes it takes what concerns r.Self, at either end.
func Compile(r Rules) *View {
	t := takenBy(&r)
	v := &View{
		generation: r.Generation, expires: r.Expires, taken: t, stations: t.settle(r.Stations),
		grants: make(map[GrantID]*compiled, len(r.Grants)), carriers: carriersOf(r.Stations), gateways: map[Identity]bool{}, concerned: map[Identity]struct{}{},
	}
	for _, s := range r.Stations {
		v.private = v.private || s.Secondary != SecondaryVLAN{}
		for _, node := range s.Gateways {
			v.gateways[node] = v.gateways[node] || len(s.Gateways) > 1
		}
	}
	grants := slices.Clone(r.Grants)
	slices.SortFunc(grants, func(a, b Grant) int { return cmp.Or(-compareEnds(a.Expires, b.Expires), cmp.Compare(a.ID, b.ID)) })
	uses := r.Uses
	if uses == nil {
		uses = NewUses()
	}
	var enforced, observing []*compiled
	for i := range grants {
		c := compileGrant(&grants[i], i)
		c.use = uses.find(c.id)
		v.grants[c.id], v.ranked = c, append(v.ranked, c)
		addAll(v.concerned, c.sources)
		addAll(v.concerned, c.targets)
		if c.observe {
			observing = append(observing, c)
		} else {
			enforced = append(enforced, c)
		}
	}
	v.indexStations()
	own := v.Own(r.Self)
	v.enforced, v.observing = newIndex(enforced, own), newIndex(observing, own)
	v.watches = len(observing) > 0
	v.askable = v.askables()
	for id, g := range v.enforced.members {
		v.observing.members[id] = better(v.observing.members[id], g)
	}
	return v
}

// compareEnds compares times of which the zero one is never.
func compareEnds(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

func newIndex(grants []*compiled, own []Identity) index {
	x := index{
		members: map[Identity]*compiled{}, open: map[Identity]*compiled{},
		held: map[Identity]*matcher{}, back: map[Identity]*matcher{}, pairs: map[pair]*matcher{},
	}
	held, back, pairs := map[Identity][]*compiled{}, map[Identity][]*compiled{}, map[pair][]*compiled{}
	for _, g := range grants {
		for s := range g.sources {
			if g.segment {
				x.members[s] = better(x.members[s], g)
				held[s] = append(held[s], g)
				if g.open {
					x.open[s] = better(x.open[s], g)
				}
				if g.both {
					back[s] = append(back[s], g)
				}
			}
		}
		for p := range g.pairsWith(own) {
			pairs[p] = append(pairs[p], g)
		}
	}
	compileAll(x.held, held)
	compileAll(x.back, back)
	compileAll(x.pairs, pairs)
	return x
}

// pairsWith are the pairs of which one is among own and the grant lets the first begin towards the second.
func (g *compiled) pairsWith(own []Identity) map[pair]struct{} {
	pairs := map[pair]struct{}{}
	reach := func(s, t Identity) {
		pairs[pair{s, t}] = struct{}{}
		if g.both {
			pairs[pair{t, s}] = struct{}{}
		}
	}
	for _, self := range own {
		if _, is := g.sources[self]; is {
			for t := range g.targets {
				reach(self, t)
			}
		}
		if _, is := g.targets[self]; is {
			for s := range g.sources {
				reach(s, self)
			}
		}
	}
	return pairs
}

func compileAll[K comparable](to map[K]*matcher, from map[K][]*compiled) {
	for k, grants := range from {
		to[k] = newMatcher(grants)
	}
}

// find returns the best grant by which source may begin with this frame towards receiver; nil if there is none.
func (x *index) find(c *Class, source, receiver Identity, station *Station, now time.Time) *compiled {
	best := x.pairs[pair{source, receiver}].find(c, station)
	if x.members[source].alive(now) && x.members[receiver].alive(now) {
		best = better(best, x.held[source].find(c, station))
		best = better(best, x.back[receiver].find(c, station))
	}
	if !best.alive(now) {
		return nil
	}
	return best
}

// Generation returns the number that the rules gave it.
func (v *View) Generation() uint64 { return v.generation }

// Station returns what an identity may use; nil if nothing.
func (v *View) Station(id Identity) *Station { return v.stations[id] }

// Knows reports whether there is a grant, in force or not.
func (v *View) Knows(grant GrantID) bool { return v.grants[grant] != nil }

// Owner says whose station has a MAC; 0 if nobody's.
func (v *View) Owner(mac ether.MAC) Identity { return v.taken.macs[mac] }

// Members lists who holds an unexpired grant to the segment, by number.
func (v *View) Members(now time.Time) []Identity {
	var out []Identity
	for id, g := range v.enforced.members {
		if !g.expired(now) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Resolves says how one learns the addresses of the other, or that it must not.
type Resolves uint8

// The ways.
const (
	Never   Resolves = iota // it must not know that the other is there
	Locally                 // its own node answers from the signed state; nothing is sent
	OnWire                  // both are members, or nobody but the machine itself can say: they ask each other
)

// Resolves reports how asker may learn the addresses of another. Who answers a flow must know where to, so it goes both ways.
func (v *View) Resolves(asker, other Identity, now time.Time) Resolves {
	switch {
	case v.void(now), v.apart(asker, other):
		return Never
	case v.enforced.members[asker].alive(now) && v.enforced.members[other].alive(now):
		return OnWire
	}
	for _, p := range [...]pair{{asker, other}, {other, asker}} {
		if v.enforced.pairs[p].alive(now) {
			if v.isUnlisted(other) {
				return OnWire
			}
			return Locally
		}
	}
	return Never
}

// Between says whether any grant lets source begin anything at all towards receiver: Pass, or why not.
func (v *View) Between(source, receiver Identity, now time.Time) Verdict {
	switch {
	case v.void(now):
		return PolicyExpired
	case v.apart(source, receiver):
		return PrivateVLAN
	case v.enforced.pairs[pair{source, receiver}].alive(now), v.members(source, receiver, now):
		return Pass
	}
	return v.whyNot(source, receiver, now)
}

// Stranger reports whether what an identity sends is refused whoever the receiver is, and always as NoGrant: no grant names it.
func (v *View) Stranger(id Identity, now time.Time) bool {
	_, concerned := v.concerned[id]
	return !concerned && !v.private && !v.void(now)
}

// Names reports whether an identity may know another by name: itself, a fellow member, or a target of a grant that it holds.
func (v *View) Names(asker, other Identity, now time.Time) bool {
	if v.void(now) || asker != other && v.apart(asker, other) {
		return false
	}
	return asker == other || v.members(asker, other, now) || v.enforced.pairs[pair{asker, other}].alive(now)
}

// NextExpiry returns when the next grant ends, or the policy itself; zero if nothing ever does, or all has ended.
func (v *View) NextExpiry(now time.Time) time.Time {
	if v.void(now) {
		return time.Time{}
	}
	next := v.expires
	for _, g := range v.grants {
		if !g.expires.IsZero() && !g.expired(now) && (next.IsZero() || g.expires.Before(next)) {
			next = g.expires
		}
	}
	return next
}

func (v *View) void(now time.Time) bool { return !v.expires.IsZero() && !now.Before(v.expires) }

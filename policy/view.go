package policy

import (
	"slices"
	"time"
)

// Rules is what a View is compiled from: the part of the network's policy that concerns one segment and one node.
type Rules struct {
	Generation uint64 // greater for every change
	Stations   map[Identity]*Station
	Grants     []Grant
	Expires    time.Time // past it nothing passes; zero: never
}

// View answers, for one segment, what may pass. It is immutable.
type View struct {
	generation uint64
	expires    time.Time
	stations   map[Identity]*Station
	grants     map[GrantID]*compiled
	held       map[Identity][]*compiled // by source, lowest id first
}

type compiled struct {
	id      GrantID
	expires time.Time
	sources map[Identity]struct{}
}

func (g *compiled) expired(now time.Time) bool { return !g.expires.IsZero() && !now.Before(g.expires) }

// Compile makes a View.
func Compile(r Rules) *View {
	v := &View{
		generation: r.Generation, expires: r.Expires, stations: r.Stations,
		grants: make(map[GrantID]*compiled, len(r.Grants)), held: make(map[Identity][]*compiled),
	}
	grants := slices.Clone(r.Grants)
	slices.SortFunc(grants, func(a, b Grant) int { return int(a.ID) - int(b.ID) })
	for _, g := range grants {
		c := &compiled{id: g.ID, expires: g.Expires, sources: make(map[Identity]struct{}, len(g.Sources))}
		v.grants[g.ID] = c
		for _, s := range g.Sources {
			if _, twice := c.sources[s]; !twice {
				c.sources[s] = struct{}{}
				v.held[s] = append(v.held[s], c)
			}
		}
	}
	return v
}

// Generation returns the number that the rules gave it.
func (v *View) Generation() uint64 { return v.generation }

// Station returns what an identity may use; nil if nothing.
func (v *View) Station(id Identity) *Station { return v.stations[id] }

// Members lists who holds an unexpired grant, by number.
func (v *View) Members(now time.Time) []Identity {
	var out []Identity
	for id := range v.held {
		if v.grantOf(id, now) != nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// NextExpiry returns when the next grant ends, or the policy itself; zero if nothing ever does.
func (v *View) NextExpiry(now time.Time) time.Time {
	next := v.expires
	for _, g := range v.grants {
		if !g.expires.IsZero() && !g.expired(now) && (next.IsZero() || g.expires.Before(next)) {
			next = g.expires
		}
	}
	return next
}

func (v *View) void(now time.Time) bool { return !v.expires.IsZero() && !now.Before(v.expires) }

// grantOf returns the unexpired grant with the lowest id that a source holds.
func (v *View) grantOf(source Identity, now time.Time) *compiled {
	for _, g := range v.held[source] {
		if !g.expired(now) {
			return g
		}
	}
	return nil
}

// Egress says whether a frame of source may be sent to receiver, and under which grant.
func (v *View) Egress(source, receiver Identity, now time.Time) (GrantID, Verdict) {
	if v.void(now) {
		return 0, PolicyExpired
	}
	g := v.grantOf(source, now)
	if g == nil {
		return 0, NoGrant
	}
	if v.grantOf(receiver, now) == nil {
		return 0, NotMember
	}
	return g.id, Pass
}

// Ingress says whether a frame of source that names a grant may be delivered to receiver. It judges by what is known
// here alone: this grant, this source, now.
func (v *View) Ingress(source, receiver Identity, id GrantID, now time.Time) Verdict {
	if v.void(now) {
		return PolicyExpired
	}
	g := v.grants[id]
	if g == nil {
		return UnknownGrant
	}
	if _, names := g.sources[source]; !names {
		return WrongGrant
	}
	if g.expired(now) {
		return GrantExpired
	}
	if v.grantOf(receiver, now) == nil {
		return NotMember
	}
	return Pass
}

package document

import (
	"encoding/binary"
	"maps"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// judge answers what the nodes of a network would do with a frame: it compiles policy as each of them would from what it is told,
// and asks the sender and then the receiver.
type judge struct {
	m        *model.Model
	now      time.Time
	active   func(model.Selector) []identity.ID
	flows    *policy.Flows
	grants   map[model.GrantID]*policy.Grant // nil: a grant that allows nothing
	stations map[place]*station
	views    map[place]*policy.View
	classes  map[place]string
	onVNI    map[model.VNI]map[policy.Identity]*policy.Station
}

// place is a node on a segment.
type place struct {
	id  identity.ID
	vni model.VNI
}

func newJudge(m *model.Model, now time.Time) *judge {
	m = conditionsMet(m)
	j := &judge{
		m: m, now: now, active: m.Active(), flows: policy.NewFlows(), grants: map[model.GrantID]*policy.Grant{},
		stations: map[place]*station{}, views: map[place]*policy.View{}, classes: map[place]string{},
		onVNI: map[model.VNI]map[policy.Identity]*policy.Station{},
	}
	for id := range m.Nodes {
		for vni := range m.Segments {
			s := stationOf(m.Station(id, vni))
			if s == nil {
				continue
			}
			if j.onVNI[vni] == nil {
				j.onVNI[vni] = map[policy.Identity]*policy.Station{}
			}
			j.stations[place{id, vni}], j.onVNI[vni][policy.Identity(id)] = s, s.policy
		}
	}
	return j
}

// conditionsMet is the network as it is when every node meets the conditions of the grants that it may hold: what policy can give is
// what its tests and its differences are about.
func conditionsMet(m *model.Model) *model.Model {
	facts := maps.Clone(m.Facts)
	conditional := false
	for key, f := range facts {
		if g, is := f.(*model.Grant); is && g.When != "" {
			met := *g
			met.When = ""
			facts[key], conditional = &met, true
		}
	}
	if !conditional {
		return m
	}
	return Seated(model.Derive(facts, m.Version, m))
}

// grant is a grant as a node reads it, without its ends; nil if it allows nothing.
func (j *judge) grant(g *model.Grant) *policy.Grant {
	if out, known := j.grants[g.ID]; known {
		return out
	}
	out := &policy.Grant{ID: policy.GrantID(g.ID), Segment: g.Target == nil, Both: g.Both, Observe: g.Observe, Expires: g.Expires}
	for _, text := range g.Allow {
		if t, err := policy.ParseTerm(text); err == nil {
			out.Allow = append(out.Allow, t)
		}
	}
	if len(g.Allow) > 0 && len(out.Allow) == 0 {
		out = nil
	}
	j.grants[g.ID] = out
	return out
}

// view is the policy of a segment as one node compiles it.
func (j *judge) view(at place) *policy.View {
	if v := j.views[at]; v != nil {
		return v
	}
	r := policy.Rules{Generation: 1, Self: policy.Identity(at.id), Stations: j.onVNI[at.vni]}
	add := func(g *model.Grant, from, to []policy.Identity) {
		if p := j.grant(g); p != nil {
			own := *p
			own.Sources, own.Targets = from, to
			r.Grants = append(r.Grants, own)
		}
	}
	for _, v := range j.m.MemberOf(at.id) {
		if v.Segment.VNI != at.vni {
			continue
		}
		for _, a := range v.Grants {
			add(a.Grant, numbers(a.Sources), nil)
		}
	}
	for _, o := range j.m.ReachOf(at.id) {
		if o.Segment.VNI == at.vni {
			add(o.Grant, profiles(o.From), profiles(o.To))
		}
	}
	v := policy.Compile(r)
	j.views[at] = v
	return v
}

func numbers(ids []identity.ID) []policy.Identity {
	out := make([]policy.Identity, 0, len(ids))
	for _, id := range ids {
		out = append(out, policy.Identity(id))
	}
	return out
}

func profiles(list []*model.Profile) []policy.Identity {
	out := make([]policy.Identity, 0, len(list))
	for _, p := range list {
		out = append(out, policy.Identity(p.ID))
	}
	return out
}

// class is equal for nodes that policy treats alike on a segment: the same grants concern them at the same ends, and they have
// addresses of the same kinds. So of many that are alike, two answer for all.
func (j *judge) class(at place) string {
	if c, known := j.classes[at]; known {
		return c
	}
	var b []byte
	if s := j.stations[at]; s != nil {
		kinds := byte(1)
		for _, a := range s.addrs {
			switch {
			case a.Is4():
				kinds |= 2
			case a.IsLinkLocalUnicast():
				kinds |= 4
			default:
				kinds |= 8
			}
		}
		b = append(b, kinds)
	}
	mark := func(id model.GrantID, end byte) { b = append(binary.BigEndian.AppendUint32(b, uint32(id)), end) }
	for _, v := range j.m.MemberOf(at.id) {
		if v.Segment.VNI != at.vni {
			continue
		}
		mark(0, 'm')
		for _, a := range v.Grants {
			if has(a.Sources, at.id) {
				mark(a.Grant.ID, 's')
			}
		}
	}
	for _, r := range j.m.ReachOf(at.id) {
		if r.Segment.VNI != at.vni {
			continue
		}
		if hasProfile(r.From, at.id) {
			mark(r.Grant.ID, 'f')
		}
		if hasProfile(r.To, at.id) {
			mark(r.Grant.ID, 't')
		}
	}
	j.classes[at] = string(b)
	return j.classes[at]
}

// spokesmen are at most two nodes of each class, in the order in which they come.
func (j *judge) spokesmen(ids []identity.ID, vni model.VNI) []identity.ID {
	seen := map[string]int{}
	var out []identity.ID
	for _, id := range ids {
		c := j.class(place{id, vni})
		if seen[c]++; seen[c] <= 2 {
			out = append(out, id)
		}
	}
	return out
}

// found is what becomes of a frame.
type found struct {
	passes bool
	grant  model.GrantID // by which it passes
	why    string        // it does not
}

// ask says what becomes of each frame of a kind from one node to another: one for IPv4, one for IPv6.
func (j *judge) ask(w what, from, to identity.ID, vni model.VNI) []found {
	a, b := j.stations[place{from, vni}], j.stations[place{to, vni}]
	if a == nil || b == nil {
		return []found{{why: policy.NoGrant.String()}}
	}
	frames := w.specimens(a, b)
	if len(frames) == 0 {
		return []found{{why: "the two have no addresses on the segment between which such a frame could go"}}
	}
	var out []found
	for _, data := range frames {
		out = append(out, j.carry(data, place{from, vni}, place{to, vni}))
	}
	return out
}

// carry asks the sender, and then the receiver, as their switches do.
func (j *judge) carry(data []byte, from, to place) found {
	f, err := ether.Parse(data)
	if err != nil {
		return found{why: err.Error()}
	}
	p := &policy.Passage{Frame: f, Source: policy.Identity(from.id), Flows: j.flows, Now: j.now, Dry: true}
	if _, v := j.stations[from].policy.Check(&f, false); v != policy.Pass {
		return found{why: v.String()}
	}
	id, verdict := j.view(from).Egress(p, policy.Identity(to.id))
	if verdict == policy.Pass {
		verdict = j.view(to).Ingress(p, policy.Identity(to.id), id)
	}
	if verdict != policy.Pass {
		return found{why: verdict.String()}
	}
	return found{passes: true, grant: model.GrantID(id)}
}

package document

import (
	"encoding/binary"
	"fmt"
	"maps"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// judge answers what the nodes of a network would do with a frame: it compiles policy as each of them would from what it is told,
// and asks the sender and then the receiver. For a machine its gateway is asked, about the machine alone.
type judge struct {
	m        *model.Model
	now      time.Time
	active   func(model.Selector) []identity.ID
	flows    *policy.Flows
	grants   map[model.GrantID]*policy.Grant // nil: a grant that allows nothing
	stations map[place]*policy.Station       // by which frames are made: of a machine, what one such machine could use
	views    map[place]*policy.View
	classes  map[place]string
	onVNI    map[model.VNI]map[policy.Identity]*policy.Station
}

// place is a node or a machine on a segment.
type place struct {
	id  identity.ID
	vni model.VNI
}

func newJudge(m *model.Model, now time.Time) *judge {
	m = conditionsMet(m)
	j := &judge{
		m: m, now: now, active: m.Meant(), flows: policy.NewFlows(), grants: map[model.GrantID]*policy.Grant{},
		stations: map[place]*policy.Station{}, views: map[place]*policy.View{}, classes: map[place]string{},
		onVNI: map[model.VNI]map[policy.Identity]*policy.Station{},
	}
	for vni := range m.Segments {
		all := map[policy.Identity]*policy.Station{}
		for id := range m.Nodes {
			if st := m.Station(id, vni); st != nil {
				s := reading.Station(st.Proto())
				j.stations[place{id, vni}], all[policy.Identity(id)] = s, s
			}
		}
		for id, one := range m.StandIns(vni) {
			j.stations[place{id, vni}] = reading.Station(one.Proto())
			all[policy.Identity(id)] = reading.Machine(m.Profile(id).MachineProto())
		}
		j.onVNI[vni] = all
	}
	return j
}

// conditionsMet is the network as it is when every node meets the conditions of the grants that it may hold: what policy can give is
// what its tests and its differences are about.
func conditionsMet(m *model.Model) *model.Model {
	facts := maps.Clone(m.Facts)
	conditional := false
	for id, g := range m.Grants {
		if g.When != "" {
			met := &model.Verdict{Grant: id, Holders: m.Candidates(id)}
			facts[met.Key()], conditional = met, true
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
	var ok bool
	if out.Allow, ok = reading.Terms(g.Allow); !ok {
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

// kindsOf says which kinds of addresses a station has.
func kindsOf(s *policy.Station) byte {
	kinds := byte(1)
	for _, a := range s.Addresses() {
		switch {
		case a.Is4():
			kinds |= 2
		case a.IsLinkLocalUnicast():
			kinds |= 4
		default:
			kinds |= 8
		}
	}
	return kinds
}

// machineKind keeps machines apart from nodes, and those of which nobody has listed the addresses from others: what they are asked
// about by is only some of what they may use.
func machineKind(p *model.Profile) byte {
	switch {
	case p.Machine == nil:
		return 0
	case len(p.Stations[0].Addresses) == 0:
		return 16 | 32
	}
	return 16
}

// class is equal for nodes that policy treats alike on a segment: the same grants concern them at the same ends, and they have
// addresses of the same kinds and the same roles. So of many that are alike, two answer for all.
func (j *judge) class(at place) string {
	if c, known := j.classes[at]; known {
		return c
	}
	var b []byte
	if s := j.stations[at]; s != nil {
		b = append(b, kindsOf(s)|machineKind(j.m.Profile(at.id)), byte(s.Roles))
		b = append(b, fmt.Sprint(j.secondary(at.id))...)
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

// secondary is where in a private VLAN somebody is.
func (j *judge) secondary(id identity.ID) policy.SecondaryVLAN {
	if p := j.m.Profile(id); p != nil && p.Machine != nil {
		return policy.SecondaryVLAN(p.Machine.Secondary)
	}
	return policy.SecondaryVLAN{}
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
	frames, err := w.specimens(a, b)
	if err != nil {
		return []found{{why: err.Error()}}
	}
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
	if _, v := j.view(from).Station(p.Source).Check(&f, false); v != policy.Pass {
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

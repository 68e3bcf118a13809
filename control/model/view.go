package model

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"github.com/etherloom/etherloom/identity"
)

// deriveViews works out who is a member of which segment, and by which grants.
func (m *Model) deriveViews(previous *Model) {
	who := m.census()
	grants := map[VNI][]*Access{}
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		if g := m.Grants[id]; g.Target == nil {
			grants[g.VNI] = append(grants[g.VNI], &Access{Grant: g, Sources: m.meeting(g, who.active(g.Source()))})
		}
	}
	revoked := m.revoked()
	for _, vni := range slices.Sorted(maps.Keys(m.Segments)) {
		v := &View{Segment: m.Segments[vni], Grants: grants[vni], Revoked: who.withGateways(revoked[vni], grants[vni])}
		m.seat(v)
		if old := previous.views[vni]; old != nil && v.equal(old) {
			v = old
		}
		m.views[vni] = v
		for _, p := range v.Members {
			m.memberOf[p.ID] = append(m.memberOf[p.ID], v)
		}
		for _, id := range listeners(v.Members) {
			m.viewsFor[id] = append(m.viewsFor[id], v)
		}
	}
	m.deriveReaches(who, previous)
}

// seat fills in a view's members: whoever a grant selects and who has a station. A grant's sources are narrowed to
// them; who has no station yet is vacant. A grant that only observes makes nobody a member.
func (m *Model) seat(v *View) {
	seen := map[identity.ID]bool{}
	for _, a := range v.Grants {
		if a.Grant.Observe {
			continue
		}
		a.Sources = slices.DeleteFunc(a.Sources, func(id identity.ID) bool {
			seated := m.seated(id, v.Segment.VNI)
			if seated && !seen[id] {
				v.Members = append(v.Members, m.profiles[id])
			}
			seen[id] = true
			return !seated
		})
	}
	for _, a := range v.Grants {
		a.Sources = slices.DeleteFunc(a.Sources, func(id identity.ID) bool { return !seen[id] || m.profiles[id].station(v.Segment.VNI) == nil })
	}
	slices.SortFunc(v.Members, byID)
}

func byID(a, b *Profile) int { return cmp.Compare(a.ID, b.ID) }

// seated reports whether a node has a station on a segment; one that has none yet is vacant. A machine is on its one segment and
// never on another.
func (m *Model) seated(id identity.ID, vni VNI) bool {
	if m.profiles[id].station(vni) != nil {
		return true
	}
	if m.profiles[id].Machine != nil {
		return false
	}
	if v := (vacancy{id, vni}); !slices.Contains(m.vacant, v) {
		m.vacant = append(m.vacant, v)
	}
	return false
}

// deriveReaches works out whom each grant to nodes is about.
func (m *Model) deriveReaches(who census, previous *Model) {
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		g := m.Grants[id]
		if g.Target == nil || m.Segments[g.VNI] == nil {
			continue
		}
		r := &Reach{Grant: g, Segment: m.Segments[g.VNI]}
		from, to := m.meeting(g, who.active(g.Source())), who.active(*g.Target)
		if len(from) > 0 && len(to) > 0 {
			r.From, r.To = m.ends(from, g), m.ends(to, g)
		}
		if len(r.From) == 0 || len(r.To) == 0 {
			r.From, r.To = nil, nil // such as a grant to a machine that is on another segment
		}
		r.RevokedFrom, r.RevokedTo = who.revoked(g.Source(), g.VNI), who.revoked(*g.Target, g.VNI)
		if old := previous.reaches[id]; old != nil && r.equal(old) {
			r = old
		}
		m.reaches[id] = r
		for _, p := range r.both() {
			m.reachOf[p.ID] = append(m.reachOf[p.ID], r)
		}
		for _, id := range listeners(r.both()) {
			m.reachesFor[id] = append(m.reachesFor[id], r)
		}
	}
}

// ends are those of the nodes that have a station. A grant that only observes gives nobody one.
func (m *Model) ends(ids []identity.ID, g *Grant) []*Profile {
	var out []*Profile
	for _, id := range ids {
		if g.Observe && m.profiles[id].station(g.VNI) == nil {
			continue
		}
		if m.seated(id, g.VNI) {
			out = append(out, m.profiles[id])
		}
	}
	return out
}

// both are those at either end, each once.
func (r *Reach) both() []*Profile {
	all := slices.Concat(r.From, r.To)
	slices.SortFunc(all, byID)
	return slices.Compact(all)
}

func (r *Reach) equal(o *Reach) bool {
	return sameGrant(r.Grant, o.Grant) && *r.Segment == *o.Segment && slices.Equal(r.From, o.From) && slices.Equal(r.To, o.To) &&
		slices.Equal(r.RevokedFrom, o.RevokedFrom) && slices.Equal(r.RevokedTo, o.RevokedTo)
}

// revoked returns, for each segment, the locked and removed nodes that its members may still hold to be good: those
// that have a station on it and whose certificates could still be valid.
func (m *Model) revoked() map[VNI][]identity.ID {
	out := map[VNI][]identity.ID{}
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		n := m.Nodes[id]
		if !m.cutOff(n) {
			continue
		}
		for _, s := range n.Stations {
			out[s.VNI] = append(out[s.VNI], id)
		}
	}
	return out
}

// withGateways adds to those who are revoked on a segment the gateways, cut off, of machines that are its members or would be.
func (c census) withGateways(revoked []identity.ID, grants []*Access) []identity.ID {
	out := slices.Clone(revoked)
	for _, a := range grants {
		if a.Grant.Observe {
			continue
		}
		for _, id := range c.selected(a.Grant.Source()) {
			if p := c.m.profiles[id]; p.Machine != nil && p.station(a.Grant.VNI) != nil {
				out = append(out, c.m.cutGatewaysOf(id)...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// cutOff reports whether the node is locked or removed, and others may not have heard of it.
func (m *Model) cutOff(n *Node) bool {
	status := m.Status(n)
	return !n.Forgotten && (status == StatusLocked || status == StatusRemoved)
}

// sameGrant reports whether two records say the same.
func sameGrant(a, b *Grant) bool { return a == b || reflect.DeepEqual(a, b) }

func (v *View) equal(o *View) bool {
	return *v.Segment == *o.Segment && slices.Equal(v.Members, o.Members) && slices.Equal(v.Revoked, o.Revoked) &&
		slices.EqualFunc(v.Grants, o.Grants, func(a, b *Access) bool { return sameGrant(a.Grant, b.Grant) && slices.Equal(a.Sources, b.Sources) })
}

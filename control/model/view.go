package model

import (
	"cmp"
	"maps"
	"slices"

	"github.com/etherloom/etherloom/identity"
)

// deriveViews works out who is a member of which segment, and by which grants.
func (m *Model) deriveViews(previous *Model) {
	byLabel := m.nodesByLabel()
	grants := map[VNI][]*Access{}
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		g := m.Grants[id]
		a := &Access{ID: id, VNI: g.VNI, Sources: m.meeting(g, m.selected(g, byLabel)), Expires: g.Expires}
		grants[g.VNI] = append(grants[g.VNI], a)
	}
	revoked := m.revoked()
	for _, vni := range slices.Sorted(maps.Keys(m.Segments)) {
		v := &View{Segment: m.Segments[vni], Grants: grants[vni], Revoked: revoked[vni]}
		m.seat(v)
		if old := previous.views[vni]; old != nil && v.equal(old) {
			v = old
		}
		m.views[vni] = v
		for _, p := range v.Members {
			m.memberOf[p.ID] = append(m.memberOf[p.ID], v)
		}
	}
}

// seat fills in a view's members: whoever a grant selects and who has a station. A grant's sources are narrowed to
// them; who has no station yet is vacant.
func (m *Model) seat(v *View) {
	vni := v.Segment.VNI
	seen := map[identity.ID]bool{}
	for _, a := range v.Grants {
		a.Sources = slices.DeleteFunc(a.Sources, func(id identity.ID) bool {
			p := m.profiles[id]
			seated := p.station(vni) != nil
			if !seen[id] && seated {
				v.Members = append(v.Members, p)
			} else if !seen[id] {
				m.vacant = append(m.vacant, vacancy{id, vni})
			}
			seen[id] = true
			return !seated
		})
	}
	slices.SortFunc(v.Members, func(a, b *Profile) int { return cmp.Compare(a.ID, b.ID) })
}

func (m *Model) nodesByLabel() map[string][]identity.ID {
	byLabel := map[string][]identity.ID{}
	for id, n := range m.Nodes {
		for _, l := range n.Labels {
			byLabel[l] = append(byLabel[l], id)
		}
	}
	return byLabel
}

// selected returns the active nodes that a grant's source selects, by id.
func (m *Model) selected(g *Grant, byLabel map[string][]identity.ID) []identity.ID {
	ids := []identity.ID{g.Node}
	if g.Node == 0 {
		ids = slices.Clone(byLabel[g.Label])
	}
	ids = slices.DeleteFunc(ids, func(id identity.ID) bool {
		n := m.Nodes[id]
		return n == nil || n.Status != StatusActive
	})
	slices.Sort(ids)
	return slices.Compact(ids)
}

// revoked returns, for each segment, the locked and removed nodes that its members may still hold to be good: those
// that have a station on it and whose certificates could still be valid.
func (m *Model) revoked() map[VNI][]identity.ID {
	out := map[VNI][]identity.ID{}
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		n := m.Nodes[id]
		if n.Forgotten || n.Status != StatusLocked && n.Status != StatusRemoved {
			continue
		}
		for _, s := range n.Stations {
			out[s.VNI] = append(out[s.VNI], id)
		}
	}
	return out
}

func (v *View) equal(o *View) bool {
	return *v.Segment == *o.Segment && slices.Equal(v.Members, o.Members) && slices.Equal(v.Revoked, o.Revoked) &&
		slices.EqualFunc(v.Grants, o.Grants, func(a, b *Access) bool {
			return a.ID == b.ID && a.VNI == b.VNI && a.Expires.Equal(b.Expires) && slices.Equal(a.Sources, b.Sources)
		})
}

package model

import (
	"slices"

	"github.com/etherloom/etherloom/identity"
)

// census knows who bears which label and who is in which group.
type census struct {
	m       *Model
	byLabel map[string][]identity.ID
}

func (m *Model) census() census {
	c := census{m, map[string][]identity.ID{}}
	for id, n := range m.Nodes {
		for _, l := range n.Labels {
			c.byLabel[l] = append(c.byLabel[l], id)
		}
	}
	return c
}

// selected returns the nodes and machines that a selector means, whatever their status, by id.
func (c census) selected(s Selector) []identity.ID {
	var ids []identity.ID
	switch {
	case s.Node != 0:
		ids = []identity.ID{s.Node}
	case s.Label != "":
		ids = slices.Clone(c.byLabel[s.Label])
	case s.Group != "":
		if g := c.m.Groups[s.Group]; g != nil {
			ids = slices.Clone(g.Nodes)
			for _, l := range g.Labels {
				ids = append(ids, c.byLabel[l]...)
			}
		}
	}
	ids = slices.DeleteFunc(ids, func(id identity.ID) bool { return c.m.profiles[id] == nil })
	slices.Sort(ids)
	return slices.Compact(ids)
}

// active returns those of them that are active.
func (c census) active(s Selector) []identity.ID {
	return slices.DeleteFunc(c.selected(s), func(id identity.ID) bool { return !c.m.Active(id) })
}

// Meant returns the active nodes and machines that each selector means, by number. It answers many questions about one Model.
func (m *Model) Meant() func(Selector) []identity.ID {
	c := m.census()
	return c.active
}

// revoked returns those of them that are cut off and have a station on a segment, and those who spoke for machines among them and
// are cut off.
func (c census) revoked(s Selector, vni VNI) []identity.ID {
	var out []identity.ID
	for _, id := range c.selected(s) {
		if n := c.m.Nodes[id]; n != nil {
			if c.m.cutOff(n) && n.station(vni) != nil {
				out = append(out, id)
			}
		} else if c.m.profiles[id].station(vni) != nil {
			out = append(out, c.m.cutGatewaysOf(id)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

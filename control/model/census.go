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

// selected returns the nodes that a selector means, whatever their status, by id.
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
	ids = slices.DeleteFunc(ids, func(id identity.ID) bool { return c.m.Nodes[id] == nil })
	slices.Sort(ids)
	return slices.Compact(ids)
}

// active returns those of them that are active.
func (c census) active(s Selector) []identity.ID {
	return slices.DeleteFunc(c.selected(s), func(id identity.ID) bool { return c.m.Status(c.m.Nodes[id]) != StatusActive })
}

// Active returns the active nodes that each selector means, by number. It answers many questions about one Model.
func (m *Model) Active() func(Selector) []identity.ID {
	c := m.census()
	return c.active
}

// revoked returns those of them that are cut off and have a station on a segment.
func (c census) revoked(s Selector, vni VNI) []identity.ID {
	return slices.DeleteFunc(c.selected(s), func(id identity.ID) bool {
		n := c.m.Nodes[id]
		return !c.m.cutOff(n) || n.station(vni) == nil
	})
}

package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/identity"
)

// selectors says how a selector may look, for an error.
const selectors = "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"

// Select resolves a selector: node:NAME, label:KEY=VALUE, group:NAME, or of machines behind a gateway host:NAME, and
// attachment:NODE/PORT for those there whom nobody named.
func (m *Model) Select(text string) (Selector, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "node":
		n := m.NodeNamed(rest)
		if n == nil {
			return Selector{}, fmt.Errorf("no node is called %q: `node list` shows those there are, and label:KEY=VALUE "+
				"selects machines that have yet to join", rest)
		}
		return Selector{Node: n.ID}, nil
	case "label":
		l, err := identity.ParseLabel(rest)
		if err != nil {
			return Selector{}, err
		}
		return Selector{Label: l.String()}, nil
	case "group":
		if m.Groups[rest] == nil {
			return Selector{}, fmt.Errorf("no group is called %q: `group list` shows those there are, `group set` makes one", rest)
		}
		return Selector{Group: rest}, nil
	case "host", "attachment":
		id, err := m.machineCalled(kind, rest)
		return Selector{Node: id}, err
	}
	return Selector{}, fmt.Errorf("who is meant is said by %s, found %q", selectors, text)
}

// Target resolves what a grant reaches: segment:NAME, or those whom Select finds on the segment that on names; if it names
// none, on that of the machine, or on the only one there is.
func (m *Model) Target(text, on string) (VNI, *Selector, error) {
	if name, is := strings.CutPrefix(text, "segment:"); is {
		if on != "" && on != name {
			return 0, nil, fmt.Errorf("the grant is to segment %q, so it cannot hold on segment %q", name, on)
		}
		vni, err := m.segmentCalled(name)
		return vni, nil, err
	}
	s, err := m.Select(text)
	if err != nil {
		return 0, nil, fmt.Errorf("%w; a target may also be segment:NAME", err)
	}
	if home := m.Home(s); on == "" && home != 0 {
		return home, &s, nil
	}
	if on == "" && len(m.Segments) != 1 {
		return 0, nil, fmt.Errorf("there are %d segments (%s): say on which of them with --segment NAME", len(m.Segments),
			strings.Join(slices.Sorted(maps.Keys(m.segments)), ", "))
	}
	if on == "" {
		for vni := range m.Segments {
			return vni, &s, nil
		}
	}
	vni, err := m.segmentCalled(on)
	if err == nil {
		err = m.CheckHome(s, vni)
	}
	return vni, &s, err
}

func (m *Model) segmentCalled(name string) (VNI, error) {
	s := m.SegmentNamed(name)
	if s == nil {
		return 0, fmt.Errorf("no segment is called %q: `segment list` shows those there are, `segment add` makes one", name)
	}
	return s.VNI, nil
}

// NewGroup resolves the members of a group: all that Select knows but groups.
func (m *Model) NewGroup(name string, members []string) (*Group, error) {
	if err := identity.CheckHostName(name); err != nil {
		return nil, fmt.Errorf("group: %w", err)
	}
	g := &Group{Name: name, Members: slices.Compact(slices.Sorted(slices.Values(members)))}
	for _, text := range g.Members {
		s, err := m.Select(text)
		switch {
		case err != nil:
			return nil, err
		case s.Group != "":
			return nil, fmt.Errorf("a group's members are nodes, labels, hosts and attachments, found %q: name its members instead", text)
		case s.Node != 0:
			g.Nodes = append(g.Nodes, s.Node)
		default:
			g.Labels = append(g.Labels, s.Label)
		}
	}
	return g, nil
}

// WithGroups is the Model with other groups, to resolve selectors by. Nothing else that follows from groups is worked out.
func (m *Model) WithGroups(groups map[string]*Group) *Model {
	c := *m
	c.Groups = groups
	return &c
}

// Text writes a selector with the names of today; "" if it means a node or a machine that was removed.
func (m *Model) Text(s Selector) string {
	switch {
	case s.Label != "":
		return "label:" + s.Label
	case s.Group != "":
		return "group:" + s.Group
	}
	if n := m.Nodes[s.Node]; n != nil {
		if n.OwnStatus == StatusRemoved {
			return ""
		}
		return "node:" + n.Name
	}
	if h := m.Hosts[s.Node]; h != nil {
		return "host:" + h.Name
	}
	if a := m.Attachments[s.Node]; a != nil {
		return "attachment:" + m.AttachmentName(a)
	}
	return ""
}

// MembersOf writes the members of a group with the names of today, sorted; those that were removed are left out.
func (m *Model) MembersOf(g *Group) []string {
	var out []string
	for _, id := range g.Nodes {
		if text := m.Text(Selector{Node: id}); text != "" {
			out = append(out, text)
		}
	}
	for _, l := range g.Labels {
		out = append(out, m.Text(Selector{Label: l}))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

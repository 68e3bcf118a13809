package model

import (
	"fmt"
	"slices"
)

// Roles lists the roles that there are.
func Roles() []Role { return []Role{RoleDHCPServer, RoleRouter, RoleQuerier} }

// RoleOf reads a role.
func RoleOf(name string) (Role, error) {
	if r := Role(name); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("a role on a segment is %s, %s or %s, found %q", RoleDHCPServer, RoleRouter, RoleQuerier, name)
}

// WithRoles returns a node's record with roles added and removed on a segment where it has a station. To add one that it has, or
// remove one that it has not, changes nothing.
func (m *Model) WithRoles(n *Node, seg *Segment, add, remove []Role) (*Node, error) {
	for _, r := range add {
		if slices.Contains(remove, r) {
			return nil, fmt.Errorf("role %s cannot be added and removed at once", r)
		}
	}
	s := n.station(seg.VNI)
	if s == nil {
		return nil, fmt.Errorf("node %q has no place on segment %q yet: `etherloom grant add --from node:%s --to segment:%s` gives it one",
			n.Name, seg.Name, n.Name, seg.Name)
	}
	next := *s
	next.Roles = slices.DeleteFunc(append(slices.Clone(s.Roles), add...), func(r Role) bool { return slices.Contains(remove, r) })
	slices.Sort(next.Roles)
	if next.Roles = slices.Compact(next.Roles); len(next.Roles) == 0 {
		next.Roles = nil
	}
	c := n.Clone()
	c.setStation(next)
	return c, nil
}

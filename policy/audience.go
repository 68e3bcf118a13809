package policy

import (
	"slices"
	"time"
)

// This file is about which nodes are to know where a machine is: those that have anything to do with it, or are gateways of a machine that
// has.

// Audience lists these nodes for each machine of which a node is a gateway, without that node, by number. Machines that have to do with the
// same share a list, which must not be changed: there may be thousands of them.
func (v *View) Audience(node Identity, now time.Time) map[Identity][]Identity {
	machines := v.Own(node)[1:]
	grants := v.toNodes(setOf(machines), now)
	members := map[SecondaryVLAN][]Identity{} // the nodes that are to know of members in that place
	out := make(map[Identity][]Identity, len(machines))
	for _, who := range machines {
		place := v.placeOf(who)
		var nodes []Identity
		if v.enforced.members[who].alive(now) {
			all, known := members[place]
			if !known {
				all = v.nodesOf(node, v.within(place, setOf(v.Members(now))))
				members[place] = all
			}
			nodes = all
		}
		others := []Identity{who}
		for _, g := range grants[who] {
			if _, is := g.sources[who]; is {
				others = append(others, v.within(place, g.targets)...)
			}
			if _, is := g.targets[who]; is {
				others = append(others, v.within(place, g.sources)...)
			}
		}
		out[who] = joined(nodes, v.nodesOf(node, others))
	}
	return out
}

// toNodes are the grants to nodes that are in force, by whom of some they concern.
func (v *View) toNodes(some map[Identity]struct{}, now time.Time) map[Identity][]*compiled {
	out := map[Identity][]*compiled{}
	for _, g := range v.ranked {
		if g.segment || g.observe || g.expired(now) {
			continue
		}
		ends := setOf(nil)
		addAll(ends, g.sources)
		addAll(ends, g.targets)
		for id := range ends {
			if _, is := some[id]; is {
				out[id] = append(out[id], g)
			}
		}
	}
	return out
}

// within are those of some who are not kept apart from a place in a private VLAN.
func (v *View) within(place SecondaryVLAN, some map[Identity]struct{}) []Identity {
	out := make([]Identity, 0, len(some))
	for id := range some {
		if !place.Apart(v.placeOf(id)) {
			out = append(out, id)
		}
	}
	return out
}

// nodesOf are the nodes that speak for some, without one, by number.
func (v *View) nodesOf(without Identity, some []Identity) []Identity {
	set := map[Identity]struct{}{}
	for _, id := range some {
		gateways := v.Gateways(id)
		if len(gateways) == 0 {
			gateways = []Identity{id}
		}
		for _, node := range gateways {
			set[node] = struct{}{}
		}
	}
	delete(set, without)
	out := make([]Identity, 0, len(set))
	for node := range set {
		out = append(out, node)
	}
	slices.Sort(out)
	return out
}

// joined is two lists in one, by number: the first itself, if the second adds nothing.
func joined(a, b []Identity) []Identity {
	more := slices.DeleteFunc(b, func(id Identity) bool {
		_, is := slices.BinarySearch(a, id)
		return is
	})
	if len(more) == 0 {
		return a
	}
	out := append(slices.Clone(a), more...)
	slices.Sort(out)
	return out
}

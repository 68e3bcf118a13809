package policy

import (
	"maps"
	"slices"
	"time"
)

// This file says who has to do with whom. A gateway asks it for all of its machines at once, and these may be thousands among thousands: so all are
// answered for together, and not each.

// indexStations notes for whom each node speaks, and who may be behind each attachment.
func (v *View) indexStations() {
	v.speaks, v.hosts = map[Identity][]Identity{}, map[Identity][]Identity{}
	for _, id := range slices.Sorted(maps.Keys(v.stations)) {
		s := v.stations[id]
		for _, node := range unique(s.Gateways) {
			v.speaks[node] = append(v.speaks[node], id)
		}
		for _, a := range unique(s.Attachments) {
			if a != id {
				v.hosts[a] = append(v.hosts[a], id)
			}
		}
	}
}

func unique(ids []Identity) []Identity {
	if len(ids) < 2 {
		return ids
	}
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}

// Neighbours lists with whom an identity can have anything to do on the segment, itself included, by number; nobody if no
// unexpired grant concerns it.
func (v *View) Neighbours(id Identity, now time.Time) []Identity {
	return v.NeighboursOf([]Identity{id}, now)
}

// Around lists with whom those for whom a node speaks can have anything to do on the segment, themselves included, by number.
func (v *View) Around(node Identity, now time.Time) []Identity {
	return v.NeighboursOf(v.Own(node), now)
}

// NeighboursOf lists with whom some of these can have anything to do on the segment, themselves included, by number. All of one place in a
// private VLAN are worked out together: a gateway may speak for thousands, and each may have thousands of fellow members.
func (v *View) NeighboursOf(ids []Identity, now time.Time) []Identity {
	places := map[SecondaryVLAN]map[Identity]struct{}{}
	for _, id := range ids {
		place := v.placeOf(id)
		if places[place] == nil {
			places[place] = map[Identity]struct{}{}
		}
		places[place][id] = struct{}{}
	}
	var out []Identity
	for place, here := range places {
		for other := range v.aroundAll(here, now) {
			if _, is := here[other]; is || !place.Apart(v.placeOf(other)) {
				out = append(out, other)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// placeOf is where somebody is in a private VLAN.
func (v *View) placeOf(id Identity) SecondaryVLAN {
	if s := v.stations[id]; s != nil {
		return s.Secondary
	}
	return SecondaryVLAN{}
}

// aroundAll is everybody with whom some of these have anything to do, and those of them who have, wherever they are in a private VLAN.
func (v *View) aroundAll(ids map[Identity]struct{}, now time.Time) map[Identity]struct{} {
	seen := map[Identity]struct{}{}
	for id := range ids {
		if v.enforced.members[id].alive(now) {
			seen = setOf(v.Members(now))
			break
		}
	}
	for _, g := range v.ranked {
		if g.segment || g.observe || g.expired(now) {
			continue
		}
		joins(seen, ids, g.sources, g.targets)
		joins(seen, ids, g.targets, g.sources)
	}
	return seen
}

// joins adds to seen who of some is at one end of a grant, and then the other end.
func joins(seen, some, end, other map[Identity]struct{}) {
	few, many, met := some, end, false
	if len(many) < len(few) {
		few, many = many, few
	}
	for id := range few {
		if _, is := many[id]; is && len(other) > 0 {
			seen[id], met = struct{}{}, true
		}
	}
	if met {
		addAll(seen, other)
	}
}

// Links lists the nodes to which it needs a link because of them, by number.
func (v *View) Links(node Identity, now time.Time) []Identity {
	var out []Identity
	for _, id := range v.Around(node, now) {
		if s := v.stations[id]; s != nil && s.machine {
			out = append(out, s.Gateways...)
		} else {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(id Identity) bool { return id == node })
}

func addAll(to, from map[Identity]struct{}) {
	for id := range from {
		to[id] = struct{}{}
	}
}

package policy

import (
	"maps"
	"slices"
	"time"
)

// This file says who has to do with whom. A gateway asks it for all of its machines at once, and these may be thousands among thousands: so it is
// asked once for all who are alike, and not for each.

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

// NeighboursOf lists with whom any of several identities can have anything to do: all whom Neighbours lists for one of them, by number.
func (v *View) NeighboursOf(ids []Identity, now time.Time) []Identity {
	out := map[Identity]struct{}{}
	for _, group := range v.together(ids) {
		v.meet(out, group, now)
	}
	return slices.Sorted(maps.Keys(out))
}

// place is where in a private VLAN somebody is, if he is anywhere.
type place struct {
	known bool
	SecondaryVLAN
}

func (v *View) placeOf(id Identity) place {
	if !v.private {
		return place{} // nobody is kept apart
	}
	s := v.stations[id]
	if s == nil {
		return place{}
	}
	return place{true, s.Secondary}
}

// together puts those together who are kept apart from the same others.
func (v *View) together(ids []Identity) map[place][]Identity {
	out := map[place][]Identity{}
	for _, id := range ids {
		at := v.placeOf(id)
		out[at] = append(out[at], id)
	}
	return out
}

// meet adds those with whom any of a group can have anything to do, who are kept apart from the same others.
func (v *View) meet(out map[Identity]struct{}, group []Identity, now time.Time) {
	seen := map[Identity]struct{}{}
	members := slices.DeleteFunc(slices.Clone(group), func(id Identity) bool { return !v.enforced.members[id].alive(now) })
	if len(members) > 0 {
		addAll(seen, setOf(v.Members(now)))
		addAll(out, setOf(members))
	}
	for _, g := range v.ranked {
		if g.segment || g.observe || g.expired(now) {
			continue
		}
		sources, targets := among(group, g.sources), among(group, g.targets)
		if len(sources) > 0 && len(g.targets) > 0 {
			addAll(seen, g.targets)
			addAll(out, setOf(sources))
		}
		if len(targets) > 0 && len(g.sources) > 0 {
			addAll(seen, g.sources)
			addAll(out, setOf(targets))
		}
	}
	for other := range seen {
		if !v.apart(group[0], other) {
			out[other] = struct{}{}
		}
	}
}

// among are those of a list that are in a set.
func among(list []Identity, set map[Identity]struct{}) (out []Identity) {
	for _, id := range list {
		if _, is := set[id]; is {
			out = append(out, id)
		}
	}
	return out
}

// Alike puts identities together that have to do with the same others, but for themselves and each other: they are members or not, are in
// one place of a private VLAN, and no grant to nodes names them.
func (v *View) Alike(ids []Identity, now time.Time) [][]Identity {
	type kind struct {
		place
		member bool
	}
	named := v.named(ids)
	var out [][]Identity
	at := map[kind]int{}
	for _, id := range ids {
		k := kind{v.placeOf(id), v.enforced.members[id].alive(now)}
		i, known := at[k]
		if _, alone := named[id]; alone || !known {
			if !alone {
				at[k] = len(out)
			}
			out = append(out, []Identity{id})
			continue
		}
		out[i] = append(out[i], id)
	}
	return out
}

// named are those of a list whom a grant to nodes names.
func (v *View) named(ids []Identity) map[Identity]struct{} {
	out := map[Identity]struct{}{}
	for _, g := range v.ranked {
		if !g.segment && !g.observe {
			addAll(out, setOf(among(ids, g.sources)))
			addAll(out, setOf(among(ids, g.targets)))
		}
	}
	return out
}

// Around lists with whom those for whom a node speaks can have anything to do on the segment, themselves included, by number.
func (v *View) Around(node Identity, now time.Time) []Identity {
	return v.NeighboursOf(v.Own(node), now)
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

package compile

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// access is a grant to a segment as every member is told it. One with limits is of a kind of its own, so that a program which
// does not know limits gives nobody more than is granted.
func access(a *model.Access) *controlv1.Resource {
	g := a.Grant
	if len(g.Allow) > 0 || g.Both || g.Observe {
		out := reach(g)
		out.Segment, out.Sources = true, numbers(a.Sources)
		return &controlv1.Resource{Kind: &controlv1.Resource_Reach{Reach: out}}
	}
	out := &controlv1.Grant{Id: uint32(g.ID), Vni: uint32(g.VNI), Sources: numbers(a.Sources)}
	if !g.Expires.IsZero() {
		out.Expires = timestamppb.New(g.Expires)
	}
	return &controlv1.Resource{Kind: &controlv1.Resource_Grant{Grant: out}}
}

func reach(g *model.Grant) *controlv1.Reach {
	out := &controlv1.Reach{Id: uint32(g.ID), Vni: uint32(g.VNI), Allow: g.Allow, Both: g.Both, Observe: g.Observe}
	if !g.Expires.IsZero() {
		out.Expires = timestamppb.New(g.Expires)
	}
	return out
}

func numbers(ids []identity.ID) []uint32 {
	var out []uint32
	for _, id := range ids {
		out = append(out, uint32(id))
	}
	return out
}

func idsOf(profiles []*model.Profile) []identity.ID {
	var out []identity.ID
	for _, p := range profiles {
		out = append(out, p.ID)
	}
	return out
}

// addReach adds a grant to nodes, as one of those that it concerns is told it: the other end, and of its own end itself alone.
func (c *Compiler) addReach(s state.State, r *model.Reach, self *model.Profile) error {
	if err := c.addSegment(s, r.Segment); err != nil {
		return err
	}
	from, to := slices.Contains(r.From, self), slices.Contains(r.To, self)
	out := reach(r.Grant)
	out.Sources, out.Targets = []uint32{uint32(self.ID)}, []uint32{uint32(self.ID)}
	if to {
		out.Sources = numbers(idsOf(r.From))
	}
	if from {
		out.Targets = numbers(idsOf(r.To))
	}
	if err := c.add(s, &controlv1.Resource{Kind: &controlv1.Resource_Reach{Reach: out}}); err != nil {
		return err
	}
	if from {
		if err := c.addRevoked(s, r.RevokedTo); err != nil {
			return err
		}
	}
	if to {
		return c.addRevoked(s, r.RevokedFrom)
	}
	return nil
}

// vnis is a set of segments.
type vnis map[model.VNI]struct{}

// text is the set as part of a map's key.
func (v vnis) text() string {
	out := ""
	for _, vni := range slices.Sorted(maps.Keys(v)) {
		out += vniText(vni)
	}
	return out
}

// own are the segments where the node has anything to do.
func (in inputs) own() string {
	set := vnis{}
	for _, v := range in.views {
		set[v.Segment.VNI] = struct{}{}
	}
	for _, r := range in.reaches {
		set[r.Segment.VNI] = struct{}{}
	}
	return set.text()
}

// others are those with whom the node has anything to do, and where.
func (in inputs) others() map[*model.Profile]string {
	shared := map[*model.Profile]vnis{}
	meet := func(vni model.VNI, list []*model.Profile) {
		for _, p := range list {
			if shared[p] == nil {
				shared[p] = vnis{}
			}
			shared[p][vni] = struct{}{}
		}
	}
	for _, v := range in.views {
		meet(v.Segment.VNI, v.Members)
	}
	for _, r := range in.reaches {
		if slices.Contains(r.From, in.profile) {
			meet(r.Segment.VNI, r.To)
		}
		if slices.Contains(r.To, in.profile) {
			meet(r.Segment.VNI, r.From)
		}
	}
	delete(shared, in.profile)
	out := make(map[*model.Profile]string, len(shared))
	for p, set := range shared {
		out[p] = set.text()
	}
	return out
}

package compile

import (
	"fmt"
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

// addReach adds a grant to nodes, as one of those that it concerns is told it: the other end, and of its own end itself alone, with
// the machines there that it may speak for.
func (c *Compiler) addReach(s state.State, r *model.Reach, self *model.Profile) error {
	if err := c.addSegment(s, r.Segment); err != nil {
		return err
	}
	sources, targets := own(r.From, self), own(r.To, self)
	from, to := len(sources) > 0, len(targets) > 0
	out := reach(r.Grant)
	if to {
		sources = r.From
	}
	if from {
		targets = r.To
	}
	out.Sources, out.Targets = numbers(idsOf(sources)), numbers(idsOf(targets))
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

// own are those in a list for whom a node speaks: itself, and machines of which it is a gateway.
func own(list []*model.Profile, self *model.Profile) []*model.Profile {
	var out []*model.Profile
	for _, p := range list {
		if self.SpeaksFor(p) {
			out = append(out, p)
		}
	}
	return out
}

// addOutlet adds an attachment's port, and which of its gateways are revoked. The machines behind it are others.
func (c *Compiler) addOutlet(s state.State, o *model.Outlet) error {
	if err := c.addSegment(s, o.Segment); err != nil {
		return err
	}
	a := o.Proto()
	a.ProbeKey = c.probeKey(o.Segment.VNI)
	if err := c.add(s, &controlv1.Resource{Kind: &controlv1.Resource_Attachment{Attachment: a}}); err != nil {
		return err
	}
	return c.addRevoked(s, o.Revoked)
}

// probeKey is what the gateways of a segment share, by which they know each other's probes. Whoever has the network's wrap key can
// repeat it, so that every controller says the same.
func (c *Compiler) probeKey(vni model.VNI) []byte {
	network := c.model.Network()
	return c.wrap.Derive(fmt.Sprintf("etherloom probe v1 %x %d", network[:], vni))
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

// own are the segments where the node has anything to do itself.
func (in inputs) own() string {
	set := vnis{}
	for _, v := range in.views {
		if slices.Contains(v.Members, in.profile) {
			set[v.Segment.VNI] = struct{}{}
		}
	}
	for _, r := range in.reaches {
		if slices.Contains(r.From, in.profile) || slices.Contains(r.To, in.profile) {
			set[r.Segment.VNI] = struct{}{}
		}
	}
	return set.text()
}

// meetings are those with whom a node has anything to do, and on which segments.
type meetings map[*model.Profile]vnis

func (m meetings) know(p *model.Profile) vnis {
	if m[p] == nil {
		m[p] = vnis{}
	}
	return m[p]
}

// meet adds those in a list. Whoever meets a machine knows its gateways, which is not to meet them on the segment.
func (m meetings) meet(vni model.VNI, list []*model.Profile) {
	for _, p := range list {
		m.know(p)[vni] = struct{}{}
		if p.Machine == nil {
			continue
		}
		for _, g := range p.Machine.Gateways {
			m.know(g)
		}
	}
}

// others are those with whom the node, or a machine that it speaks for, has anything to do by grants to nodes or as a gateway, and where in all: on
// segments of which both are members, too, as they are common.
func (in inputs) others(common meetings) map[*model.Profile]string {
	shared := meetings{}
	for _, r := range in.reaches {
		if len(own(r.From, in.profile)) > 0 {
			shared.meet(r.Segment.VNI, r.To)
		}
		if len(own(r.To, in.profile)) > 0 {
			shared.meet(r.Segment.VNI, r.From)
		}
	}
	for _, o := range in.outlets {
		shared.meet(o.Segment.VNI, o.Machines)
	}
	delete(shared, in.profile)
	out := make(map[*model.Profile]string, len(shared))
	for p, set := range shared {
		maps.Copy(set, common[p])
		out[p] = set.text()
	}
	return out
}

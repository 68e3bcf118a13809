package document

import (
	"fmt"
	"slices"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// mostWork is how many comparisons of terms are made: a second's worth. Beyond it the answer would not be read.
const mostWork = 1 << 25

// crowd is the nodes and machines of a network, of which those that neither policy tells apart are one.
type crowd struct {
	before, after *judge
	numbers       map[string]int
	nodes         [][]identity.ID
	of            map[place]int
}

func newCrowd(before, after *judge) *crowd {
	c := &crowd{before: before, after: after, numbers: map[string]int{}, of: map[place]int{}}
	for _, id := range after.m.Identities() {
		for vni := range after.m.Segments {
			at := place{id, vni}
			key := fmt.Sprint(vni, ",", len(before.class(at)), ",", before.class(at), after.class(at))
			n, known := c.numbers[key]
			if !known {
				n = len(c.nodes)
				c.numbers[key], c.nodes = n, append(c.nodes, nil)
			}
			c.nodes[n], c.of[at] = append(c.nodes[n], id), n
		}
	}
	return c
}

// ends is a pair of classes on a segment.
type ends struct {
	vni      model.VNI
	from, to int
}

// reach collects who may begin what; false if there are too many.
func (c *crowd) reach(j *judge) (map[ends]cans, bool) {
	r := &reaching{crowd: c, j: j, budget: mostWork, out: map[ends]cans{}}
	for vni := range j.m.Segments {
		v := j.m.ViewOf(vni)
		members := c.classes(profiles(v.Members), vni)
		for _, a := range v.Grants {
			r.add(a.Grant, c.classes(numbers(a.Sources), vni), members)
		}
	}
	for _, o := range j.m.Reaches() {
		r.add(o.Grant, c.classes(profiles(o.From), o.Segment.VNI), c.classes(profiles(o.To), o.Segment.VNI))
	}
	return r.out, r.budget >= 0
}

// reaching is the work of reach.
type reaching struct {
	*crowd
	j      *judge
	budget int // comparisons that are left; below 0, nothing more is done
	out    map[ends]cans
}

// add notes what a grant lets its sources begin.
func (r *reaching) add(g *model.Grant, from, to map[int]bool) {
	p := r.j.grant(g)
	if p == nil || g.Observe || !g.Expires.IsZero() && !g.Expires.After(r.j.now) {
		return
	}
	terms := p.Allow
	if len(terms) == 0 {
		terms = []policy.Term{{Scope: policy.Everything}}
	}
	for a := range from {
		for b := range to {
			if a == b && len(r.nodes[a]) == 1 {
				continue // a node and itself
			}
			if r.j.secondary(r.nodes[a][0]).Apart(r.j.secondary(r.nodes[b][0])) {
				continue // no grant is between those
			}
			for _, t := range terms {
				r.note(ends{g.VNI, a, b}, newCan(t, p.Segment))
				if g.Both {
					r.note(ends{g.VNI, b, a}, newCan(t, p.Segment))
				}
			}
		}
	}
}

func (r *reaching) note(e ends, x can) {
	if r.budget -= 1 + len(r.out[e]); r.budget >= 0 {
		r.out[e] = r.out[e].with(x)
	}
}

func (c *crowd) classes(ids []policy.Identity, vni model.VNI) map[int]bool {
	out := map[int]bool{}
	for _, id := range ids {
		out[c.of[place{identity.ID(id), vni}]] = true
	}
	return out
}

func (c *crowd) all(classes []int) []identity.ID {
	var out []identity.ID
	for _, n := range classes {
		out = append(out, c.nodes[n]...)
	}
	slices.Sort(out)
	return out
}

package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// note adds a line that is neither verdict nor remedy.
func (q *question) note(format string, args ...any) {
	q.out.Notes = append(q.out.Notes, fmt.Sprintf(format, args...))
}

// judged adds what a node's switch says of the frame.
func (q *question) judged(node policy.Identity, in *vswitch.Port, sends bool, e vswitch.Explanation, grant policy.GrantID) {
	j := Judgement{
		Node: q.member(node).name, Sends: sends, Here: node == q.d.self(), Passes: served(e.Drop), Check: e.Drop.Code(), Text: e.Drop.String(),
		Grant: uint32(grant), Flooded: e.Flooded, Receivers: []Outcome{},
	}
	if in != nil && in.Kind == vswitch.Attached {
		j.In = in.Name
	}
	for _, r := range e.Receivers {
		who := r.Who
		if who == 0 {
			who = r.Port.Identity
		}
		j.Receivers = append(j.Receivers, Outcome{
			Port: r.Port.Name, Kind: r.Port.Kind.String(), Node: q.member(who).name, Passes: r.Drop == vswitch.Forwarded,
			Check: r.Drop.Code(), Grant: uint32(r.Tag.Grant),
		})
	}
	q.out.Steps = append(q.out.Steps, j)
}

// served reports whether the host gets what it sent the frame for: it passes, or this node answers in the other's name.
func served(d vswitch.Drop) bool { return d == vswitch.Forwarded || d == vswitch.Answered }

// decide makes one judgement the answer. receiver is who would have the frame.
func (q *question) decide(by Judgement, drop vswitch.Drop, grant policy.GrantID, receiver party) {
	o := q.out
	o.Segment, o.VNI = q.on.name, uint32(q.on.vni)
	o.Passes, o.Check, o.Text, o.On = served(drop), drop.Code(), drop.String(), by.Node
	if drop == vswitch.Answered {
		q.note("a grant to nodes is between the two, so the question for an address stays on %s: nobody else on the segment hears it", by.Node)
		return
	}
	if o.Passes {
		o.Grant = uint32(grant)
		return
	}
	if p, nobody := q.nobody(); nobody && q.isGrants(drop) {
		o.Text = p.missing()
		o.Fixes = append(o.Fixes, q.strangerFixes(p)...)
		return
	}
	o.Fixes = append(o.Fixes, q.fixes(drop, receiver)...)
	q.ended(receiver)
}

// ended names grants of the two that have ended: this node may hear no controller that would have taken them away.
func (q *question) ended(receiver party) {
	for _, id := range slices.Sorted(maps.Keys(q.d.contents.Grants)) {
		g := q.d.contents.Grants[id]
		if policy.VNI(g.GetVni()) != q.on.vni || g.GetExpires() == nil || q.now.Before(g.GetExpires().AsTime()) {
			continue
		}
		for _, s := range g.GetSources() {
			if p := policy.Identity(s); p == q.from.id || p == receiver.id {
				q.note("grant %d of %s ended at %s", id, q.member(p).name, g.GetExpires().AsTime().Format(time.RFC3339))
			}
		}
	}
}

// notes says what the answer rests on, and what is no check but may stop the frame all the same.
func (q *question) notes() {
	self := q.d.self()
	from, to := q.carrier(q.from), q.carrier(q.to)
	far := q.member(to)
	switch {
	case from != self && to != self && q.to.id != 0:
		q.note("the frame goes from %s to %s and does not touch this node, which judges by what it knows of the policy", q.from.name, q.to.name)
		return
	case from == self && to == self:
		return
	case from == self:
		q.note("a receiver judges by its own state, which this node cannot see: `etherloom explain` there is certain, `etherloom drops` counts")
	default:
		far = q.member(from)
		q.note("%s judges what it sends by its own state, which this node cannot see: `etherloom explain` there is certain", far.name)
	}
	for _, p := range q.d.endpoint.Peers() {
		if policy.Identity(p.ID) != far.id || p.Link == "open" {
			continue
		}
		q.note("the link to %s is %s; a frame opens it if the peer can be reached: `etherloom peers`", p.Name, p.Link)
	}
}

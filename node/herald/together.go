package herald

import (
	"bytes"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file is about VLANs that several gateways carry at once (switch/group.go; RFC 7432 sections 8.4 and 14.1.2). Each of them says so to
// all that are told of machines there, every beatEvery, and is believed for lostAfter: so whoever sends to such a machine knows by which
// gateways it can be reached, whichever of them has announced it. And what one of them announces, the others believe of their own port.

// Carried is a port of this node whose VLAN other gateways carry at the same time.
type Carried struct {
	Port  *vswitch.Port
	Joins bool // it is open, but is yet to hear of the flows that others carry
}

// Groups is where it is kept who carries what. A *vswitch.Segment is one.
type Groups interface {
	Group(attachment policy.Identity) *vswitch.Group
	SetGroup(attachment policy.Identity, name string, ways []vswitch.Way) *vswitch.Group
	BundleOf(v *policy.View, who policy.Identity) *vswitch.Port
}

// together is what a herald knows of such VLANs.
type together struct {
	own   []Carried                             // by attachment
	to    map[policy.Identity][]policy.Identity // who is to know of each VLAN
	told  map[policy.Identity]*toldCarried      // by peer
	known []policy.Identity
}

// toldCarried is what a peer was told.
type toldCarried struct {
	epoch, version uint64
	list           []byte
	last, believed time.Time // when it was told anything; that there is any
}

// carrying is what a peer has said that it carries.
type carrying struct {
	epoch, version uint64
	last           time.Time
	list           map[policy.Identity]bool // attachments; true for those that it joins
}

// addressCarriedLocked works out who is to know which gateways carry a VLAN: whoever is told of a machine that may be there.
func (h *Herald) addressCarriedLocked() {
	type share struct {
		attachment policy.Identity
		first      *policy.Identity // of a list; machines that are alike have the same one
	}
	seen := map[share]bool{}
	h.tog.to = map[policy.Identity][]policy.Identity{}
	for who, nodes := range h.audience {
		st := h.view.Station(who)
		if st == nil || len(nodes) == 0 {
			continue
		}
		for _, a := range st.Attachments {
			if x := (share{a, &nodes[0]}); !seen[x] {
				seen[x] = true
				h.tog.to[a] = append(h.tog.to[a], nodes...)
			}
		}
	}
	for a, nodes := range h.tog.to {
		slices.Sort(nodes)
		h.tog.to[a] = slices.Compact(nodes)
	}
}

// shareLocked finds out which of this node's VLANs are shared now, and who shares any; then addresses are where those are.
func (h *Herald) shareLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) {
	if h.cfg.Groups == nil {
		return
	}
	own := h.cfg.Together()
	own = own[:min(len(own), maxEntries)]
	changed := !slices.Equal(own, h.tog.own)
	if changed {
		h.tog.own = own
		for _, x := range h.heard {
			for a := range x.carries.list {
				h.fellowLocked(x, a)
			}
		}
	}
	ways := h.waysLocked(ports, now)
	for _, a := range h.tog.known {
		if h.setGroupLocked(a, ways[a]) {
			changed = true
		}
	}
	if !changed {
		return
	}
	for _, x := range h.heard {
		for mac, c := range x.claims {
			if c.shared {
				h.believeLocked(x, mac, c, now)
			}
		}
	}
}

// waysLocked are the gateways that carry each VLAN.
func (h *Herald) waysLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) map[policy.Identity][]vswitch.Way {
	var ways map[policy.Identity][]vswitch.Way // where nobody carries any, this costs nothing
	add := func(a policy.Identity, w vswitch.Way) {
		if !slices.Contains(h.tog.known, a) {
			h.tog.known = append(h.tog.known, a)
		}
		if ways == nil {
			ways = map[policy.Identity][]vswitch.Way{}
		}
		ways[a] = append(ways[a], w)
	}
	for _, c := range h.tog.own {
		if !c.Joins {
			add(c.Port.Identity, vswitch.Way{Node: h.cfg.Self})
		}
	}
	for id, x := range h.heard {
		if ports[id] != x.port || now.Sub(x.carries.last) >= lostAfter {
			continue
		}
		for a, joins := range x.carries.list {
			if !joins && h.mayCarry(id, a) {
				add(a, vswitch.Way{Node: id, Port: x.port})
			}
		}
	}
	for _, list := range ways {
		slices.SortFunc(list, func(a, b vswitch.Way) int { return int(a.Node) - int(b.Node) })
	}
	return ways
}

// mayCarry reports whether a node may say that it carries an attachment's VLAN: it may speak for somebody who may be there.
func (h *Herald) mayCarry(node, attachment policy.Identity) bool {
	for _, who := range h.view.Own(node)[1:] {
		if h.view.IsBehind(who, attachment) {
			return true
		}
	}
	return false
}

func (h *Herald) setGroupLocked(a policy.Identity, ways []vswitch.Way) bool {
	if g := h.cfg.Groups.Group(a); g != nil && slices.Equal(g.Ways(), ways) || g == nil && len(ways) == 0 {
		return false
	}
	name := ""
	for _, w := range ways {
		if w.Port != nil {
			name += "+" + w.Port.Name
		}
	}
	h.cfg.Groups.SetGroup(a, "any of the gateways", ways)
	h.cfg.Log.Info("gateways that carry a VLAN at once", "attachment", uint32(a), "gateways", len(ways), "peers", name)
	return true
}

// placeOf is where an address is that a peer has announced. On a VLAN that is shared with the peer it is behind this node's own port.
func (h *Herald) placeOf(x *hearing, c claim) vswitch.Place {
	at := vswitch.Place{Port: x.port, Who: c.who}
	if !c.shared || h.cfg.Groups == nil {
		return at
	}
	for _, own := range h.tog.own {
		if id := own.Port.Identity; h.view.IsBehind(c.who, id) && h.view.MaySpeak(x.port.Identity, id) {
			at.Port = own.Port
			return at
		}
	}
	if b := h.cfg.Groups.BundleOf(h.view, c.who); b != nil {
		at.Port = b
	}
	return at
}

// tellCarriedLocked tells the others which VLANs this node shares: each what concerns it, by numbers of its own.
func (h *Herald) tellCarriedLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) {
	if len(h.tog.own) == 0 && len(h.tog.told) == 0 {
		return
	}
	for id, port := range ports {
		h.list = h.appendCarriedLocked(h.list[:0], id)
		t := h.tog.told[id]
		if t == nil && len(h.list) == 0 || !h.cfg.Links.Live(port) || !h.isHeeded(id, now) {
			continue
		}
		if t == nil {
			t = &toldCarried{epoch: h.cfg.Epoch()}
			h.tog.told[id] = t
		}
		if len(h.list) == 0 && now.Sub(t.believed) >= lostAfter {
			delete(h.tog.told, id)
			continue
		}
		if t.due(h.list, now) {
			h.emit(port, &notice{kind: kindCarries, parts: 1, epoch: t.epoch, version: t.version, entries: h.list})
		}
	}
	for id := range h.tog.told {
		if ports[id] == nil {
			delete(h.tog.told, id)
		}
	}
}

// appendCarriedLocked appends the entries of the VLANs that a peer is to know of.
func (h *Herald) appendCarriedLocked(b []byte, id policy.Identity) []byte {
	for _, c := range h.tog.own {
		if isIn(h.tog.to[c.Port.Identity], id) {
			e := entry{joins: c.Joins, claim: claim{who: c.Port.Identity}}
			b = e.append(b)
		}
	}
	return b
}

// due reports whether the peer is to be told a list now, and notes that it is.
func (t *toldCarried) due(list []byte, now time.Time) bool {
	same := bytes.Equal(t.list, list)
	if same && now.Sub(t.last) < beatEvery {
		return false
	}
	if !same {
		t.version, t.list = t.version+1, bytes.Clone(list)
	}
	if t.last = now; len(list) > 0 {
		t.believed = now
	}
	return true
}

// isHeeded reports whether a peer's link is in use: notices do not keep one open that nobody needs. Gateways need theirs.
func (h *Herald) isHeeded(id policy.Identity, now time.Time) bool {
	t := h.to[id]
	return t != nil && (!h.isDone(id, t, now) || h.isGateway(id))
}

// hearCarriedLocked takes what a peer says that it carries. What comes late says nothing new.
func (h *Herald) hearCarriedLocked(x *hearing, n *notice, now time.Time) {
	k := &x.carries
	if n.epoch == k.epoch && n.version < k.version {
		return
	}
	k.last = now
	if n.epoch == k.epoch && n.version == k.version && k.list != nil {
		return
	}
	was := k.list
	k.epoch, k.version, k.list = n.epoch, n.version, map[policy.Identity]bool{}
	for i := range min(n.count(), maxEntries) {
		e := n.entry(i)
		k.list[e.who] = e.joins
		if _, before := was[e.who]; !before {
			h.fellowLocked(x, e.who)
		}
	}
	h.shareLocked(h.cfg.Links.Ports(), now)
}

// fellowLocked says that a peer and this node begin to share a VLAN.
func (h *Herald) fellowLocked(x *hearing, attachment policy.Identity) {
	if h.cfg.Fellow == nil || !h.view.MaySpeak(x.port.Identity, attachment) {
		return
	}
	for _, own := range h.tog.own {
		if own.Port.Identity == attachment {
			h.cfg.Fellow(x.port, attachment)
		}
	}
}

// claimant is the node that stands for a place of an address: of several that have announced it there, the lowest.
func (h *Herald) claimant(mac ether.MAC, at vswitch.Place) policy.Identity {
	lowest := policy.Identity(0)
	consider := func(id policy.Identity) {
		if lowest == 0 || id < lowest {
			lowest = id
		}
	}
	shared := at.Port.Kind != vswitch.Link && at.Port.Together()
	switch {
	case at.Port.Kind != vswitch.Link && !shared:
		return h.cfg.Self
	case at.Port.Identity != 0 && at.Port.Kind == vswitch.Link:
		return at.Port.Identity
	case shared && h.mine[mac].who != 0:
		consider(h.cfg.Self)
	}
	for id, x := range h.heard {
		if c := x.claims[mac]; c != nil && c.at == at {
			consider(id)
		}
	}
	if lowest == 0 {
		return h.cfg.Self
	}
	return lowest
}

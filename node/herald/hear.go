package herald

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// hearing is what a peer has told.
type hearing struct {
	port           *vswitch.Port
	known          bool // epoch and version are of a whole list
	epoch, version uint64
	claims         map[ether.MAC]*heardClaim
	whole          *assembly // a list of which parts are missing
	last           time.Time
	lacks          bool // something was missed, so that the list is to be asked for
	asked          time.Time
	lists          uint64 // that have begun to come
	carries        carrying
}

// heardClaim is a claim of a peer's, whether it is believed or not.
type heardClaim struct {
	claim
	list uint64        // the last whole list that it was in
	at   vswitch.Place // where it was announced to the table last; zero: nowhere
}

// assembly is a whole list of which parts are missing.
type assembly struct {
	epoch, version uint64
	have           [maxParts / 64]uint64 // by part
	parts, missing uint16
	full           bool // something did not fit
}

// Hear takes a message that a peer has sent over the link behind port, which must be the peer's.
func (h *Herald) Hear(port *vswitch.Port, message []byte, now time.Time) {
	n, ok := parseNotice(message)
	if !ok || n.vni != h.cfg.VNI {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.followLocked(now)
	from := port.Identity
	if n.kind == kindAsk {
		if t := h.to[from]; t != nil {
			t.asked, t.used = true, now
		}
		return
	}
	if !h.isGateway(from) { // else any peer fills memory with what is never believed
		return
	}
	x := h.heard[from]
	if x == nil || x.port != port { // what was told over another link went with it
		x = &hearing{port: port, claims: map[ether.MAC]*heardClaim{}}
		h.heard[from] = x
	}
	x.last = now
	if n.kind == kindCarries {
		h.hearCarriedLocked(x, &n, now)
		return
	}
	if n.full {
		h.hearWholeLocked(x, &n, now)
	} else {
		h.hearChangeLocked(x, &n, now)
	}
}

// hearChangeLocked takes what leads from one list to the next. What comes again or late says nothing new.
func (h *Herald) hearChangeLocked(x *hearing, n *notice, now time.Time) {
	switch {
	case !x.known || n.epoch != x.epoch:
		x.lacks = true
		return
	case n.version <= x.version:
		return
	case n.base != x.version:
		x.lacks = true
		return
	}
	for i := range n.count() {
		if e := n.entry(i); e.gone {
			h.dropLocked(x, e.mac, now)
		} else {
			h.takeLocked(x, &e, now)
		}
	}
	x.version = n.version
}

// hearWholeLocked takes a part of a whole list.
func (h *Herald) hearWholeLocked(x *hearing, n *notice, now time.Time) {
	a := x.assembly(n)
	if a == nil || !a.add(n.part) {
		return
	}
	for i := range n.count() {
		if e := n.entry(i); !e.gone && !h.takeLocked(x, &e, now) {
			a.full = true
		}
	}
	if a.missing == 0 {
		h.sweepLocked(x, a, now)
	}
}

// assembly is the list of which a notice is a part; nil if it is older than what is known. That of another epoch replaces all.
func (x *hearing) assembly(n *notice) *assembly {
	if x.known && n.epoch == x.epoch && n.version <= x.version {
		return nil
	}
	a := x.whole
	switch {
	case a == nil || a.epoch != n.epoch || n.version > a.version || n.version == a.version && n.parts != a.parts:
		x.whole = &assembly{epoch: n.epoch, version: n.version, parts: n.parts, missing: n.parts}
		x.lists++
	case n.version < a.version:
		return nil
	}
	return x.whole
}

// add notes that a part is there; false if it was before.
func (a *assembly) add(part uint16) bool {
	word, bit := part/64, uint64(1)<<(part%64)
	if a.have[word]&bit != 0 {
		return false
	}
	a.have[word] |= bit
	a.missing--
	return true
}

// sweepLocked withdraws what is not in a list that is whole now.
func (h *Herald) sweepLocked(x *hearing, a *assembly, now time.Time) {
	swept := false
	for mac, c := range x.claims {
		if c.list != x.lists {
			h.dropLocked(x, mac, now)
			swept = true
		}
	}
	x.known, x.epoch, x.version, x.whole, x.lacks = true, a.epoch, a.version, nil, false
	if a.full && swept { // now there is room: the list is asked for as if nothing were known
		x.known, x.lacks = false, true
	}
}

// takeLocked remembers a claim, and believes it if its sender may make it; false if there is no room.
func (h *Herald) takeLocked(x *hearing, e *entry, now time.Time) bool {
	if !e.mac.IsStation() {
		return true
	}
	c := x.claims[e.mac]
	if c == nil {
		if len(x.claims) >= h.cfg.Most {
			return false
		}
		c = &heardClaim{}
		x.claims[e.mac] = c
	}
	was := c.claim
	c.claim, c.list = e.claim, x.lists
	h.believeLocked(x, e.mac, c, now)
	if was.who != 0 && (was.who != c.who || was.seq > c.seq) { // it is worse than it was, so another may be better
		h.reconsiderLocked(e.mac, now)
	}
	return true
}

// retractLocked forgets that an address is where a peer has announced it, and reports whether it was. It stays if another has announced it
// there.
func (h *Herald) retractLocked(x *hearing, mac ether.MAC, c *heardClaim) bool {
	at := c.at
	c.at = vswitch.Place{}
	if at.Port == nil {
		at = vswitch.Place{Port: x.port, Who: c.who}
	}
	for _, o := range h.heard {
		if o != x && at.Port != x.port && o.claims[mac] != nil && o.claims[mac].at == at {
			return false
		}
	}
	return h.cfg.Table.Retract(mac, at)
}

// believeLocked announces a claim to the table, if its sender may make it: for a machine of which it is a gateway, and a MAC that this may use.
func (h *Herald) believeLocked(x *hearing, mac ether.MAC, c *heardClaim, now time.Time) {
	node := x.port.Identity
	if c.who == node || !h.view.MaySpeak(node, c.who) || !h.view.MayUse(c.who, mac) {
		h.retractLocked(x, mac, c) // perhaps it was permitted before
		return
	}
	at := h.placeOf(x, c.claim)
	h.placeLocked(x, mac, c, at, now)
	was, known := h.cfg.Table.Lookup(mac, now)
	// Of equal claims that of the lowest node wins.
	first := func(_, other vswitch.Place) bool { return node < h.claimant(mac, other) }
	outcome := h.cfg.Table.Announce(mac, at, c.seq, now, first)
	if outcome == fdb.Moved && known && was.Port.Kind == vswitch.Attached && h.cfg.Moved != nil {
		h.cfg.Moved(mac, was)
	}
}

// placeLocked says where a claim is from now on. If the same gateway says so, or another way to the same VLAN is known, it is no move.
func (h *Herald) placeLocked(x *hearing, mac ether.MAC, c *heardClaim, at vswitch.Place, now time.Time) {
	if c.at.Port != nil && c.at != at && (c.at.Who != at.Who || !h.cfg.Table.Rename(mac, c.at, at, now)) {
		h.retractLocked(x, mac, c)
	}
	c.at = at
}

// dropLocked forgets a claim that was withdrawn; another one may now be the best.
func (h *Herald) dropLocked(x *hearing, mac ether.MAC, now time.Time) {
	c := x.claims[mac]
	if c == nil {
		return
	}
	delete(x.claims, mac)
	if h.retractLocked(x, mac, c) {
		h.reconsiderLocked(mac, now)
	}
}

// reconsiderLocked announces again what all claim of an address.
func (h *Herald) reconsiderLocked(mac ether.MAC, now time.Time) {
	for _, x := range h.heard {
		if c := x.claims[mac]; c != nil {
			h.believeLocked(x, mac, c, now)
		}
	}
}

func (h *Herald) reconsiderAllLocked(now time.Time) {
	for _, x := range h.heard {
		for mac, c := range x.claims {
			h.believeLocked(x, mac, c, now)
		}
	}
}

// forgetLocked drops, at once, what those have told who are not there any more (RFC 7432 section 8.2).
func (h *Herald) forgetLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) {
	late := now.Sub(h.ticked) - Every
	for id, x := range h.heard {
		if late > Every && !h.ticked.IsZero() {
			x.last = x.last.Add(late) // it was this node that stood still: what came meanwhile has yet to be read
		}
		port := ports[id]
		if port == x.port && now.Sub(x.last) < lostAfter {
			continue
		}
		delete(h.heard, id)
		gone := h.cfg.Table.Withdraw(func(at vswitch.Place) bool { return at.Port == x.port && at.Who != x.port.Identity })
		if gone > 0 {
			h.cfg.Log.Info("a gateway is not heard any more", "peer", x.port.Name, "addresses", gone)
		}
		for mac, c := range x.claims {
			if c.at.Port != nil && c.at.Port != x.port {
				h.retractLocked(x, mac, c)
			}
			h.reconsiderLocked(mac, now)
		}
	}
}

// askLocked asks for the list where something was missed.
func (h *Herald) askLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) {
	for id, x := range h.heard {
		if !x.lacks || ports[id] != x.port || now.Sub(x.asked) < askEvery || !h.cfg.Links.Live(x.port) {
			continue
		}
		x.lacks, x.asked = false, now
		h.emit(x.port, &notice{kind: kindAsk})
	}
}

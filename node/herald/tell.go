package herald

import (
	"bytes"
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// telling is what a peer was told.
type telling struct {
	epoch, number uint64
	listens       bool      // some machine of ours concerns it
	all           bool      // it is to be told the whole list, which is another than that of number
	asked         bool      // it has asked for the list
	count         int       // addresses that it was told of, and that are not withdrawn
	last, full    time.Time // when it was told anything; the whole list
	parting       time.Time // until when it is told that there is none, after the last was withdrawn

	live   bool      // its link was
	frames uint64    // that its link had carried
	used   time.Time // when that number has changed last
	woken  time.Time // when it was asked last although its link was closed
	tries  int       // how often since then, because it may have to take over
}

// change is what has become of an address of ours.
type change struct {
	mac      ether.MAC
	was, now claim
}

// collectLocked asks the table what has changed.
func (h *Herald) collectLocked(now time.Time) {
	h.changes = h.changes[:0]
	before := h.told
	list, next, all := h.cfg.Table.Changes(before)
	h.told = next
	if all {
		h.collectAllLocked(list)
		if before != 0 {
			h.reconsiderAllLocked(now)
		}
		return
	}
	for i := range list {
		h.noteLocked(list[i].MAC, claimOf(&list[i]))
		if list[i].Gone {
			h.reconsiderLocked(list[i].MAC, now)
		}
	}
}

// collectAllLocked finds what has changed in the list of all that are ours.
func (h *Herald) collectAllLocked(list []fdb.Change[vswitch.Place]) {
	there := make(map[ether.MAC]struct{}, len(list))
	for i := range list {
		there[list[i].MAC] = struct{}{}
		h.noteLocked(list[i].MAC, claimOf(&list[i]))
	}
	for mac := range h.mine {
		if _, is := there[mac]; !is {
			h.noteLocked(mac, claim{})
		}
	}
}

// claimOf is what we say of an address: nothing, unless it is that of a machine on a VLAN.
func claimOf(c *fdb.Change[vswitch.Place]) claim {
	if c.Gone || c.Port.Port.Kind != vswitch.Attached {
		return claim{}
	}
	return claim{c.Port.Who, c.Seq, c.Port.Port.Together()}
}

func (h *Herald) noteLocked(mac ether.MAC, now claim) {
	was := h.mine[mac]
	if was == now {
		return
	}
	if now.who == 0 {
		delete(h.mine, mac)
	} else {
		h.mine[mac] = now
	}
	h.changes, h.sorted = append(h.changes, change{mac, was, now}), nil
}

// whoseLocked finds out whose addresses have changed: few, also if a machine makes up thousands.
func (h *Herald) whoseLocked() {
	clear(h.whose)
	for i := range h.changes {
		h.whose[h.changes[i].was.who], h.whose[h.changes[i].now.who] = true, true
	}
	delete(h.whose, 0)
}

// touches reports whether an address has changed that concerns a peer.
func (h *Herald) touches(id policy.Identity) bool {
	for who := range h.whose {
		if h.concerns(id, who) {
			return true
		}
	}
	return false
}

// tellLocked tells every peer what has changed for it. Each is the first in its turn, so that none waits for ever.
func (h *Herald) tellLocked(ports map[policy.Identity]*vswitch.Port, now time.Time) {
	h.turn++
	h.whoseLocked()
	over := 0
	for i := range h.order {
		id := h.order[(i+h.turn)%len(h.order)]
		t, port := h.to[id], ports[id]
		h.tellOneLocked(id, t, port, now)
		if !t.listens && (port == nil || !t.live || !t.believes(now)) {
			delete(h.to, id)
			over++
		}
	}
	if over > 0 {
		h.order = slices.DeleteFunc(h.order, func(id policy.Identity) bool { return h.to[id] == nil })
	}
}

func (h *Herald) tellOneLocked(id policy.Identity, t *telling, port *vswitch.Port, now time.Time) {
	if !h.reaches(t, port, now) {
		// It forgets what it was told when it hears nothing.
		t.all = t.all || len(h.changes) > 0
		h.wakeLocked(id, t, port, now)
		return
	}
	if len(h.changes) > 0 && h.isGateway(id) && h.hasMoved(id) {
		t.used = now
	}
	switch entries, more := h.news(id); {
	case h.isDone(id, t, now):
		h.farewell(t, port, now)
	case t.all, t.asked && now.Sub(t.full) >= askEvery, h.isLong(t, len(entries)/entryLen, more):
		t.all = t.all || len(entries) > 0
		if h.left > 0 {
			h.tellAll(id, t, port, now)
		}
	case len(entries) > 0:
		t.counts(t.count+more, now)
		for part := range slices.Chunk(entries, maxEntries*entryLen) {
			h.say(t, port, &notice{base: t.number, version: t.number + 1, entries: part}, now)
		}
	default:
		h.beat(t, port, now)
	}
}

// beat tells a peer that was told of addresses, now and then, that this node is there.
func (h *Herald) beat(t *telling, port *vswitch.Port, now time.Time) {
	if t.believes(now) && now.Sub(t.last) >= beatEvery {
		h.say(t, port, &notice{base: t.number, version: t.number}, now)
	}
}

// counts notes how many addresses a peer has been told of.
func (t *telling) counts(n int, now time.Time) {
	if n == 0 && t.count > 0 {
		t.parting = now.Add(lostAfter)
	}
	t.count = n
}

// believes reports whether a peer may think that there is any address: for a while after the last withdrawal, too, for that may be lost.
func (t *telling) believes(now time.Time) bool { return t.count > 0 || now.Before(t.parting) }

// isDone reports whether a peer is to be told nothing: no machine of ours concerns it any more, or its link carries nothing. It may
// carry nothing to a gateway that stands by; that is told for the day on which it takes over.
func (h *Herald) isDone(id policy.Identity, t *telling, now time.Time) bool {
	return !t.listens || now.Sub(t.used) >= h.cfg.Quiet && !h.isRedundant(id)
}

// isLong reports whether what has changed needs more messages than the whole list, or than may be sent now; more is by how much the
// list becomes longer.
func (h *Herald) isLong(t *telling, changes, more int) bool {
	n := parts(changes)
	return n > 1 && n >= parts(t.count+more) || n > max(h.left, 1)
}

// reaches reports whether a peer can be told anything, and notes since when.
func (h *Herald) reaches(t *telling, port *vswitch.Port, now time.Time) bool {
	live := port != nil && h.cfg.Links.Live(port)
	if live {
		frames := h.cfg.Links.Frames(port)
		if !t.live || frames != t.frames {
			t.frames, t.used = frames, now
		}
		t.all = t.all || !t.live
	}
	if t.live = live; live {
		t.tries = 0
	}
	return live
}

// wakeLocked asks a gateway whose link is closed what it has, if an address has moved that it may still have on its own side, or if it
// may have to take over. That opens the link, and then both are told all.
func (h *Herald) wakeLocked(id policy.Identity, t *telling, port *vswitch.Port, now time.Time) {
	if port == nil || !t.listens || !h.isGateway(id) {
		return
	}
	switch since := now.Sub(t.woken); {
	case len(h.changes) > 0 && since >= askEvery && h.hasMoved(id):
	case since >= min(wakeEvery<<t.tries, wakeSeldom) && h.isRedundant(id) && h.hasAny(id):
		t.tries = min(t.tries+1, maxTries)
	default:
		return
	}
	t.woken = now
	h.emit(port, &notice{kind: kindAsk})
}

// hasAny reports whether an address concerns a peer.
func (h *Herald) hasAny(id policy.Identity) bool {
	for _, c := range h.mine {
		if h.concerns(id, c.who) {
			return true
		}
	}
	return false
}

// hasMoved reports whether an address that concerns a peer has come here from somewhere else.
func (h *Herald) hasMoved(id policy.Identity) bool {
	return h.touches(id) && slices.ContainsFunc(h.changes, func(c change) bool { return c.now.seq > 0 && h.concerns(id, c.now.who) })
}

// news writes what has changed for a peer, and says how many addresses more that are. What has been somebody's that did not
// concern it is none of its business when it is gone, either.
func (h *Herald) news(id policy.Identity) (entries []byte, more int) {
	h.list = h.list[:0]
	if !h.touches(id) {
		return nil, 0
	}
	for i := range h.changes {
		c := &h.changes[i]
		was, is := h.concerns(id, c.was.who), h.concerns(id, c.now.who)
		e := entry{mac: c.mac, gone: !is}
		switch {
		case is:
			e.claim = c.now
			if !was {
				more++
			}
		case was:
			more--
		default:
			continue
		}
		h.list = e.append(h.list)
	}
	return h.list, more
}

// tellAll tells a peer the whole list, unless that is empty and it believes so.
func (h *Herald) tellAll(id policy.Identity, t *telling, port *vswitch.Port, now time.Time) {
	if h.sorted == nil {
		h.sorted = make([]entry, 0, len(h.mine))
		for mac, c := range h.mine {
			h.sorted = append(h.sorted, entry{mac: mac, claim: c})
		}
		slices.SortFunc(h.sorted, func(a, b entry) int { return bytes.Compare(a.mac[:], b.mac[:]) })
	}
	h.list = h.list[:0]
	for i := range h.sorted {
		if h.concerns(id, h.sorted[i].who) && len(h.list) < maxParts*maxEntries*entryLen {
			h.list = h.sorted[i].append(h.list)
		}
	}
	if len(h.list) == 0 && !t.believes(now) {
		t.all, t.asked = false, false
		return
	}
	h.whole(t, port, h.list, now)
}

// farewell tells a peer that there is no address any more, if it may believe so.
func (h *Herald) farewell(t *telling, port *vswitch.Port, now time.Time) {
	if t.count > 0 || t.asked && t.believes(now) {
		t.all = t.count > 0
		h.whole(t, port, nil, now)
	}
	h.beat(t, port, now)
	t.all, t.asked = true, false // what there is by then
}

// whole sends a list in as many parts as it needs. A list that is the same as before has the same number, so that parts of both make one.
func (h *Herald) whole(t *telling, port *vswitch.Port, list []byte, now time.Time) {
	if t.all {
		t.number++
	}
	count := len(list) / entryLen
	n := parts(count)
	for i := range n {
		part := list[min(i*maxEntries*entryLen, len(list)):min((i+1)*maxEntries*entryLen, len(list))]
		h.emitAddresses(t, port, &notice{full: true, part: uint16(i), parts: uint16(n), version: t.number, entries: part}) //nolint:gosec // at most maxParts
	}
	t.counts(count, now)
	t.all, t.asked, t.last, t.full = false, false, now, now
}

// parts is how many messages so many addresses need.
func parts(count int) int { return max(1, (count+maxEntries-1)/maxEntries) }

// say sends what leads from one list to the next.
func (h *Herald) say(t *telling, port *vswitch.Port, n *notice, now time.Time) {
	n.parts = 1
	h.emitAddresses(t, port, n)
	t.number, t.last = n.version, now
}

func (h *Herald) emitAddresses(t *telling, port *vswitch.Port, n *notice) {
	n.kind, n.epoch = kindAddresses, t.epoch
	h.emit(port, n)
}

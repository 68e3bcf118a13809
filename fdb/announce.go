package fdb

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// MAC mobility, after RFC 7432 sections 7.7 and 15. Nodes tell each other which addresses are behind them. Each says a sequence number
// with an address:
//
//   - Who sees an address behind itself for the first time says 0; if it knew the address somewhere else, one more than the number
//     from there.
//   - The higher number wins. Of equal numbers, that of the node which comes first in an order that all share.
//   - Who has lost an address withdraws it. Nobody else minds, for by then the address is somewhere else.
//
// If every node hears everything of every other in the order in which it was said, and keeps what it was told beside the table, as
// package node/herald does, they agree once all has been heard. The table, which has only the best of it, needs two things more:
//
//   - A number outlives its entry for a while (past). Otherwise one who begins at 0 again, just after a withdrawal, would lose
//     against what was withdrawn, at those who have yet to hear of that.
//   - A frame that comes through one who announces moves nothing that was announced, or is our own (Deferred). It teaches only what
//     nobody has said anything about, and any announcement outranks that.

// SetAnnouncers says behind which places somebody is who announces addresses. It must be called before anything else.
func (t *Table[P]) SetAnnouncers(announces func(P) bool) { t.announces = announces }

// Announce takes the announcement of an address from who is behind port, who must be permitted to have it. first is the order that
// all share: of equal numbers, the place that it puts before the other wins; a place of this node stands for the node.
func (t *Table[P]) Announce(mac ether.MAC, port P, seq uint32, now time.Time, first func(a, b P) bool) Outcome {
	if !mac.IsStation() { // else a peer has all frames for many, or what has no source
		return t.stats.tell(Refused)
	}
	clock := t.clock(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.liveLocked(mac, clock)
	switch {
	case e == nil:
		e = newEntry(mac, port, Announced, clock)
		e.seq = seq
		return t.stats.tell(t.enterLocked(e, clock))
	case e.kind.pinned() && e.port != port:
		return t.stats.tell(Refused)
	case e.kind.pinned():
		return Known
	case e.port == port && t.own(e):
		t.raiseLocked(e, seq)
		return Known
	case e.port == port:
		t.changeLocked(e, func() { e.kind, e.seq = Announced, seq })
		e.seen.Store(clock)
		return Known
	case e.trouble.holds(clock):
		return t.stats.tell(Frozen)
	case t.outranks(e, port, seq, first):
		return t.stats.tell(Outdated)
	}
	return t.moveLocked(e, t.settleLocked(e, port, clock), Announced, seq, clock)
}

// outranks reports whether an entry stays where it is although port announces it. What only frames through an announcer have taught
// gives way to any announcement.
func (t *Table[P]) outranks(e *entry[P], port P, seq uint32, first func(a, b P) bool) bool {
	if e.kind == Dynamic && t.announcer(e.port) {
		return false
	}
	return e.seq > seq || e.seq == seq && !first(port, e.port)
}

// Retract forgets an announced address, because who is behind port has withdrawn it, and reports whether it was there.
func (t *Table[P]) Retract(mac ether.MAC, port P) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.shard(mac).entries[mac]
	if e == nil || e.port != port || t.own(e) || e.kind.pinned() {
		return false
	}
	t.removeLocked(e)
	return true
}

// Withdraw forgets, at once, every address that is not pinned in the places that match, because nobody says any more that it is there, and
// says how many that were (RFC 7432 section 8.2).
func (t *Table[P]) Withdraw(match func(P) bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.removeIfLocked(func(e *entry[P]) bool { return !e.kind.pinned() && match(e.port) })
	t.forsakeLocked(match)
	return n
}

// past remembers the numbers of addresses that are gone: of the last most/2 at least, of most at most.
type past struct {
	most       int
	young, old map[ether.MAC]uint32
}

func (p *past) remember(mac ether.MAC, seq uint32) {
	seq = p.highest(mac, seq)
	if len(p.young) >= max(p.most/2, 1) {
		p.old, p.young = p.young, nil
	}
	if p.young == nil {
		p.young = make(map[ether.MAC]uint32)
	}
	p.young[mac] = seq
}

// highest is the highest number of mac that is remembered, at least seq.
func (p *past) highest(mac ether.MAC, seq uint32) uint32 {
	before, _ := p.recall(mac)
	return max(before, seq)
}

func (p *past) recall(mac ether.MAC) (seq uint32, ok bool) {
	if seq, ok = p.young[mac]; !ok {
		seq, ok = p.old[mac]
	}
	return seq, ok
}

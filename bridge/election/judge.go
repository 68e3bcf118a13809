package election

import (
	"math"
	"time"
)

// judge claims, gives up or renews, as things stand.
func (e *Election) judge(now time.Time) {
	unable := e.unable()
	able := unable == ""
	if !able {
		e.hold = max(e.hold, e.heard+e.span()) // rule 9
	}
	e.able = able
	switch {
	case e.claims && !able:
		e.release(unable, 0)
	case e.claims && !e.granted && !e.heardByAll():
		e.release(Unheard, 0)
	case e.claims:
		if g := e.better(); g != nil && (!e.granted || e.heard-g.steady >= e.cfg.Settle) {
			e.release(Outranked, g.node) // rule 6
		}
	case e.mayClaim():
		e.claims, e.claimSeq, e.claimed = true, e.seq+1, e.heard
		e.due = now
	}
	e.renew(now)
}

// unable is rule 11: why it is not able; empty if it is.
func (e *Election) unable() Reason {
	switch c := e.cond; {
	case e.left:
		return Left
	case !c.Carrier:
		return PortDown
	case !c.Synced && e.heard < e.cfg.Patience:
		return Unsynced
	case c.Peers && !c.Peer, !c.Peer && len(e.gateways) > 0 && !e.hearsAny():
		return PeersGone
	}
	return ""
}

func (e *Election) hearsAny() bool {
	for _, g := range e.gateways {
		if e.alive(g) {
			return true
		}
	}
	return false
}

// mayClaim is rule 4. Of one that is not able the hold is not over.
func (e *Election) mayClaim() bool {
	if !e.heardByAll() || !e.awake() || e.heard < e.hold || e.heard < e.quiet {
		return false
	}
	for _, g := range e.gateways {
		if e.heard < g.bound {
			return false
		}
	}
	return e.better() == nil
}

// heardByAll reports whether every gateway that is alive and able has acknowledged something of late. One to whom nothing
// gets through could not be acknowledged, so it must not be chosen: its claim would keep off those who could.
func (e *Election) heardByAll() bool {
	for _, g := range e.gateways {
		if e.alive(g) && g.hello.Able && e.entered.Sub(g.hears) > 2*e.span() {
			return false
		}
	}
	return true
}

// ready reports whether it may claim before Lease and Margin have passed. Who is not able may not: the hold begins anew all
// the time.
func (e *Election) ready() bool { return e.hold-e.heard < e.span() }

// span is for how long a claim is respected: Margin and the longest lease there is.
func (e *Election) span() time.Duration {
	lease := e.cfg.Lease
	for _, g := range e.gateways {
		lease = max(lease, g.hello.Lease)
	}
	return lease + e.cfg.Margin
}

func (e *Election) alive(g *gateway) bool { return !g.hello.Leaves && e.heard-g.last < e.cfg.Alive }

// absent reports whether a gateway was silent for so long that it no longer keeps a promise, nor expects that one is kept.
func (e *Election) absent(g *gateway) bool { return g.hello.Leaves || e.heard-g.last >= e.span() }

// excused is rule 10.
func (e *Election) excused(g *gateway) bool { return !g.hello.Able && e.heard-e.claimed >= e.span() }

// better finds a gateway that is alive, fit to be chosen and better than this one; the best of them.
func (e *Election) better() *gateway {
	var best *gateway
	rank := rankOf(e.cfg.Attachment, e.cfg.Node, e.cfg.Preference)
	for _, g := range e.gateways {
		if !e.alive(g) || !g.hello.wants() {
			continue
		}
		if r := rankOf(e.cfg.Attachment, g.node, g.hello.Preference); r.over(rank) {
			best, rank = g, r
		}
	}
	return best
}

// rank orders the gateways of an attachment: by preference, then by a hash, so that several attachments spread.
type rank struct {
	preference uint16
	hash       uint64
}

func (r rank) over(o rank) bool {
	return r.preference > o.preference || r.preference == o.preference && r.hash < o.hash
}

// rankOf hashes by the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). It
// is one to one, so no two nodes of an attachment are equal.
func rankOf(attachment, node uint32, preference uint16) rank {
	z := uint64(attachment)<<32 | uint64(node)
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return rank{preference, z ^ z>>31}
}

// renew begins the lease when everybody has acknowledged the claim (rule 3), and sets its end (rule 1).
func (e *Election) renew(now time.Time) {
	if !e.claims || e.seq < e.claimSeq {
		return
	}
	if !e.granted && !e.unopposed(now) {
		return
	}
	from := e.sent
	for _, g := range e.gateways {
		if e.alive(g) && !e.excused(g) {
			from = earlier(from, g.anchor)
		}
	}
	e.until = from.Add(e.cfg.Lease)
	e.lease.Store(int64(e.until.Sub(e.base)))
	if e.until.Sub(now) < e.cfg.Lease/2 {
		// Hellos were lost. There is time for more.
		e.due = earlier(e.due, later(now, e.sent.Add(e.cfg.Hello/4)))
	}
	if !e.granted {
		e.granted = true
		e.report(TookOver, e.why(), 0)
	}
}

// unopposed reports whether everybody who may hear of the claim has acknowledged it.
func (e *Election) unopposed(now time.Time) bool {
	for _, g := range e.gateways {
		if e.awake() && (e.absent(g) || e.excused(g)) {
			continue
		}
		if g.acked < e.claimSeq || !now.Before(g.anchor.Add(e.cfg.Lease)) {
			return false
		}
	}
	return true
}

// revoke ends the lease now.
func (e *Election) revoke() {
	e.granted, e.until = false, time.Time{}
	e.lease.Store(math.MinInt64) // also for a batch whose clock was read before
}

// release gives the claim up, and says so at once.
func (e *Election) release(why Reason, node uint32) {
	forwarded := e.granted
	e.claims = false
	e.revoke()
	e.due = e.entered
	if forwarded {
		e.report(Released, why, node)
	}
}

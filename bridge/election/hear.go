package election

import (
	"errors"
	"time"
)

// Channel is the way by which a hello came.
type Channel uint8

// The channels.
const (
	Overlay Channel = iota // a message over the session with the other gateway
	VLAN                   // a probe on the VLAN itself
)

// Errors of Hear, besides those of ParseHello.
var (
	ErrStranger = errors.New("election: hello of none of the other gateways, or of another attachment")
	ErrOld      = errors.New("election: hello older than one that was heard, or of a run that is not shown to live")
)

// Hear takes a hello that came from a gateway, which the channel has shown: the session that brought the message, or the key
// under which the probe was. It does not keep the bytes. What it refuses changes nothing.
func (e *Election) Hear(from uint32, by Channel, body []byte, now time.Time) error {
	e.enter(now)
	h, err := ParseHello(body)
	if err != nil {
		return err
	}
	g := e.gateways[from]
	if g == nil || h.Node != from || h.Attachment != e.cfg.Attachment {
		return ErrStranger
	}
	if again, err := e.fresh(g, by, &h); err != nil || again {
		if again {
			g.at[by] = now
		}
		return err
	}
	g.at[by] = now
	e.take(g, &h, now)
	e.judge(now)
	return nil
}

// lag is by how many hellos one channel may be behind the other without being counted as old.
const lag = 16

// fresh refuses what is older than what was heard already, and says whether it was heard by the other channel, which is quicker.
//
// On the VLAN whoever listens can play hellos again, also those of a run that has long ended. A hello of another run than the
// one that is alive must come by the overlay, where nothing can be replayed, or acknowledge a hello that was sent just now.
func (e *Election) fresh(g *gateway, by Channel, h *Hello) (again bool, err error) {
	if g.hello.Boot == h.Boot {
		if h.Sequence+lag < g.hello.Sequence {
			return false, ErrOld
		}
		return h.Sequence <= g.hello.Sequence, nil
	}
	if by == VLAN && g.heardOnce() && e.alive(g) && !e.answers(h) {
		return false, ErrOld
	}
	return false, nil
}

func (g *gateway) heardOnce() bool { return g.hello.Node != 0 }

// answers reports whether a hello acknowledges one of the last hellos of this run.
func (e *Election) answers(h *Hello) bool {
	_, sent := e.ackIn(h)
	return e.entered.Sub(sent) <= e.cfg.Lease
}

// ackIn finds what a hello acknowledges of this run, and when that was sent; 0 and no time if nothing. A sequence that was
// not sent yet is further away than any, since differences do not become negative.
func (e *Election) ackIn(h *Hello) (n uint64, sent time.Time) {
	for _, a := range h.Acks {
		if a.Node == e.cfg.Node && a.Boot == e.cfg.Boot && e.seq-a.Sequence < remembered {
			return a.Sequence, e.at[a.Sequence%remembered]
		}
	}
	return 0, time.Time{}
}

// take does what a fresh hello asks for.
func (e *Election) take(g *gateway, h *Hello, now time.Time) {
	wasAlive := e.alive(g)
	if e.absent(g) {
		g.hears = now // or will: it has not heard for as long as it was not heard
	}
	if !wasAlive || !g.hello.wants() {
		g.steady = e.heard
	}
	g.hello, g.last = *h, e.heard
	g.hello.Acks = nil
	n, sent := e.ackIn(h)
	g.hears = later(g.hears, sent)
	if n > 0 { // rule 2; if it claims, there is no claim here that it could be for (rule 5)
		g.acked, g.anchor = n, sent
	}
	if h.Claims {
		e.promise(g, h)
		e.soon(now)
		if e.claims {
			e.release(Contested, g.node) // rule 5
		}
		return
	}
	if g.claimBoot == h.Boot {
		g.bound = 0
	}
	if e.granted && !wasAlive {
		e.meet(g, now)
	}
}

// promise remembers a claim.
func (e *Election) promise(g *gateway, h *Hello) {
	if e.holder == nil || e.holder.bound <= e.heard {
		e.holder = g
	}
	g.claimBoot, g.bound = h.Boot, e.heard+max(h.Lease, e.cfg.Lease)+e.cfg.Margin
}

// promises reports whether a hello may acknowledge g's: not if it claims and another has the promise.
func (e *Election) promises(g *gateway) bool {
	return g.heardOnce() && (!g.hello.Claims || e.holder == g)
}

// meet is what a forwarder does that hears somebody for the first time, or again (rule 9).
func (e *Election) meet(g *gateway, now time.Time) {
	switch {
	case !g.hello.Ready:
		g.anchor = e.sent
	case g.acked < e.claimSeq || !now.Before(g.anchor.Add(e.cfg.Lease)): // no promise of its holds
		e.revoke()
		e.report(Paused, Unaware, g.node)
		e.due = now
	}
}

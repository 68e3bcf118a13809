package node

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// This file shows the switches of a VLAN by which of their ports an address is reached now.

// What is shown to a VLAN's switches, so that they are not flooded.
const (
	shownAtOnce = 100 // frames
	shownEvery  = 5 * time.Millisecond
	mostShown   = 8192 // addresses that wait
)

// showAgain is how long after one frame the next is sent that shows the same. One is not enough: it may be lost, and a switch that
// keeps how it has forwarded may learn from that later than from the frame. Open vSwitch does: when an address has moved it looks
// through its flows, counts what has passed since it did so last, and learns from those that it is where it was before.
var showAgain = [...]time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 1400 * time.Millisecond} //nolint:gochecknoglobals // a constant table

// showing is what is yet to be shown to a VLAN. It belongs to who holds sentinel.mu.
type showing struct {
	carries bool                           // otherwise nobody is reached by this gateway
	rounds  [len(showAgain) + 1][]shownMAC // in the order in which they are due
}

type shownMAC struct {
	mac ether.MAC
	due time.Time
}

// add begins with addresses. What does not fit is not shown: the switches learn it from the first frame from there.
func (w *showing) add(now time.Time, macs ...ether.MAC) {
	for _, mac := range macs {
		if w.carries && len(w.rounds[0]) < mostShown {
			w.rounds[0] = append(w.rounds[0], shownMAC{mac, now})
		}
	}
}

// end forgets all: from now on another gateway carries the VLAN.
func (w *showing) end() { *w = showing{} }

// take returns up to shownAtOnce addresses that are due, and when the next ones are; the zero time if none is.
func (w *showing) take(now time.Time) (macs []ether.MAC, next time.Time) {
	for i := range w.rounds {
		round := w.rounds[i]
		for len(round) > 0 && len(macs) < shownAtOnce && !now.Before(round[0].due) {
			macs = append(macs, round[0].mac)
			if i < len(showAgain) {
				w.rounds[i+1] = append(w.rounds[i+1], shownMAC{round[0].mac, now.Add(showAgain[i])})
			}
			round = round[1:]
		}
		if w.rounds[i] = round; len(round) == 0 {
			w.rounds[i] = nil
			continue
		}
		if due := later(round[0].due, now.Add(shownEvery)); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return macs, next
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// showLocked shows what is due, and says when to come again; the zero time if nothing waits. An address that has come to this VLAN
// in the meantime is not shown: its switches know better.
func (s *sentinel) showLocked(p *post, now time.Time) time.Time {
	if !p.election.Forwards(now) {
		return time.Time{} // for a moment: an event says when it is for longer
	}
	macs, next := p.showing.take(now)
	for _, mac := range macs {
		if at, ok := p.a.seg.sw.FDB().Lookup(mac, now); !ok || at.Port != p.a.port {
			s.sendLocked(p.a, rarpOf(mac))
		}
	}
	return next
}

// show shows that addresses are reached by this gateway now, and not on the VLAN.
func (s *sentinel) show(a *attachment, macs ...ether.MAC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.posts[a.id]; p != nil && p.a == a {
		p.showing.add(time.Now(), macs...)
		s.wake()
	}
}

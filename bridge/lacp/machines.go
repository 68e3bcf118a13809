package lacp

import (
	"time"

	"github.com/etherloom/etherloom/ether"
)

// receive is a state of the receive machine (section 6.4.12).
type receive uint8

const (
	disabled receive = iota
	expired
	defaulted
	current
)

func (r receive) String() string {
	return [...]string{"disabled", "expired", "defaulted", "current"}[r]
}

// mux is a state of the mux machine, with independent control (section 6.4.15).
type mux uint8

const (
	detached mux = iota
	waiting
	attached
	collecting
	distributing
)

func (m mux) String() string {
	return [...]string{"detached", "waiting", "attached", "collecting", "distributing"}[m]
}

// recordDefault forgets the partner (section 6.4.9). To who may be there it speaks every second, until it answers.
func (p *Port) recordDefault() {
	p.partner, p.known = End{State: ShortTimeout}, false
	p.actor.State |= Defaulted
}

// runReceive is the receive machine but for what a LACPDU does.
func (p *Port) runReceive(now time.Time) {
	switch {
	case !p.now.Enabled:
		p.receive, p.ntt = disabled, true // to be said as soon as there is a carrier
		p.partner.State &^= Sync
	case p.receive == disabled, p.receive == current && !now.Before(p.currentUntil):
		p.receive, p.currentUntil = expired, now.Add(shortTimeout)
		p.partner.State = p.partner.State&^Sync | ShortTimeout
		p.actor.State |= Expired
	case p.receive == expired && !now.Before(p.currentUntil):
		p.receive = defaulted
		p.selected = false
		p.recordDefault()
		p.actor.State &^= Expired
	}
}

// hearPDU is what the receive machine does with a LACPDU: update_Selected, update_NTT, recordPDU (section 6.4.9).
func (p *Port) hearPDU(d *PDU, now time.Time) {
	if !d.Actor.same(p.partner) {
		p.selected = false
	}
	const told = Activity | ShortTimeout | Aggregation | Sync
	if d.Partner.under(told) != p.actor.under(told) {
		p.ntt = true
	}
	p.known = d.Partner.same(p.actor)
	p.partner = d.Actor
	// Who does not speak unasked must know that he is asked, or he would fall silent.
	speaks := d.Actor.State&Activity != 0 || d.Partner.State&Activity != 0
	if !p.known || !speaks {
		p.partner.State &^= Sync
	}
	p.actor.State &^= Defaulted | Expired
	p.receive, p.currentUntil = current, now.Add(shortTimeout)
	if d.Actor.System != p.cfg.System {
		p.heard = now
	}
}

// choose is the selection logic (section 6.4.14), for a port that is alone in its aggregator.
func (p *Port) choose() {
	p.selected = p.now.Enabled && p.now.Ready && p.partner.System.MAC != ether.MAC{} && p.partner.System != p.cfg.System &&
		p.partner.State&Aggregation != 0
}

// runMux is the mux machine: it makes all steps that it can.
func (p *Port) runMux(now time.Time) {
	for {
		next := p.nextMux(now)
		if next == p.mux {
			return
		}
		p.mux = next
		p.actor.State &^= Sync | Collecting | Distributing
		switch next {
		case waiting:
			p.waitUntil = now.Add(waitWhile)
			continue // it says the same of itself as before
		case detached:
		case attached:
			p.actor.State |= Sync
		case collecting:
			p.actor.State |= Sync | Collecting
		case distributing:
			p.actor.State |= Sync | Collecting | Distributing
		}
		p.ntt = true
	}
}

func (p *Port) nextMux(now time.Time) mux {
	inSync, collects := p.partner.State&Sync != 0, p.partner.State&Collecting != 0
	switch {
	case !p.selected:
		return detached
	case p.mux == detached:
		return waiting
	case p.mux == waiting && now.Before(p.waitUntil):
		return waiting
	case p.mux == waiting, !inSync:
		return attached
	case p.mux == attached, !collects:
		return collecting
	}
	return distributing
}

package lacp

import "time"

// Reason says why a port is not in use.
type Reason string

// The reasons.
const (
	NoCarrier  Reason = "the NIC has no carrier"
	NotReady   Reason = "this gateway cannot carry its VLANs now"
	NoPartner  Reason = "the switch does not answer"
	OwnSystem  Reason = "what comes in was sent by a gateway of this attachment: the switch passes LACPDUs on in place of answering, or cables join the gateways"
	Individual Reason = "the switch says that its port aggregates with no other"
	Lost       Reason = "the switch has not been heard for 3 s"
	Waits      Reason = "it waits 2 s before it joins"
	Unknown    Reason = "the switch has not heard this gateway, or takes it for another"
	OutOfSync  Reason = "the switch says that its port is not in the aggregation"
	NotTaking  Reason = "the switch does not take frames yet"
)

// Status is how a port is.
type Status struct {
	Actor, Partner End
	Receive, Mux   string    // states, as in the package comment
	Why            Reason    // empty: it is distributing
	Heard          time.Time // when a switch was heard last; zero: never
	Stats          Stats
}

// Status tells how the port is.
func (p *Port) Status() Status {
	return Status{p.actor, p.partner, p.receive.String(), p.mux.String(), p.why(), p.heard, p.stats}
}

// Collects reports whether frames from the switch are to be taken.
func (p *Port) Collects() bool { return p.mux >= collecting }

// Distributes reports whether the switch takes frames.
func (p *Port) Distributes() bool { return p.mux == distributing }

// Partner returns who is at the other end; false if nobody is known there.
func (p *Port) Partner() (system System, key uint16, ok bool) {
	ok = p.receive == current && p.partner.System != p.cfg.System
	return p.partner.System, p.partner.Key, ok
}

// Silent reports whether there has been a carrier, and no LACPDU of a switch, for SilentFor.
func (p *Port) Silent(now time.Time) bool {
	since := p.listens
	if p.heard.After(since) {
		since = p.heard
	}
	return p.now.Enabled && now.Sub(since) >= SilentFor
}

func (p *Port) why() Reason {
	switch {
	case p.mux == distributing:
		return ""
	case !p.now.Enabled:
		return NoCarrier
	case p.receive != defaulted && p.partner.System == p.cfg.System:
		return OwnSystem
	case p.receive == defaulted || p.partner.System == System{}:
		return NoPartner
	case p.receive == expired:
		return Lost
	case p.partner.State&Aggregation == 0:
		return Individual
	case !p.now.Ready:
		return NotReady
	case p.mux == waiting:
		return Waits
	case p.mux == collecting:
		return NotTaking
	case !p.known:
		return Unknown
	}
	return OutOfSync
}

package election

import (
	"cmp"
	"slices"
	"time"
)

// Kind is what has happened.
type Kind string

// The kinds of events.
const (
	TookOver Kind = "took over"
	Released Kind = "released"
	Paused   Kind = "paused" // it claims, and does not forward until it is acknowledged
)

// Reason is why.
type Reason string

// The reasons.
const (
	Acknowledged Reason = "the others have acknowledged it"
	Alone        Reason = "no other gateway is heard"
	RunOut       Reason = "the lease has run out"
	PortDown     Reason = "the port has no carrier, is gone or is blocked"
	PeersGone    Reason = "no peer can be reached"
	Unsynced     Reason = "it has not heard the present state yet"
	Left         Reason = "it leaves"
	Outranked    Reason = "a better gateway is ready"
	Unheard      Reason = "a gateway that is heard does not hear this one"
	Contested    Reason = "another gateway claims to forward"
	Unaware      Reason = "a gateway is heard again that knows of no forwarder"
)

// Event is a change of who forwards, as far as this gateway is concerned.
type Event struct {
	At     time.Time
	Kind   Kind
	Reason Reason
	Node   uint32 // the other gateway that caused it; 0 if none did
}

// maxEvents is how many events wait to be collected; the oldest are lost.
const maxEvents = 64

// Events returns what has happened since it was called last.
func (e *Election) Events() []Event {
	out := e.events
	e.events = nil
	return out
}

func (e *Election) report(k Kind, why Reason, node uint32) {
	e.last = Event{At: e.entered, Kind: k, Reason: why, Node: node}
	if len(e.events) == maxEvents {
		e.events = slices.Delete(e.events, 0, 1)
	}
	e.events = append(e.events, e.last)
}

// why says why it may forward.
func (e *Election) why() Reason {
	if e.hearsAny() {
		return Acknowledged
	}
	return Alone
}

// Phase is where a gateway stands.
type Phase string

// The phases.
const (
	Forwarding Phase = "forwards"
	Claiming   Phase = "claims"
	Waiting    Phase = "waits"
	Blocked    Phase = "not able"
	Standby    Phase = "stands by"
)

// State is an election for people to read.
type State struct {
	Phase      Phase
	Until      time.Time // end of the lease, if it forwards
	Preference uint16
	Unable     Reason // why it is not able; empty if it is
	Last       Event  // the last one; zero if there was none
	Gateways   []Gateway
}

// Gateway is another gateway for people to read.
type Gateway struct {
	Node                uint32
	Overlay, VLAN       time.Time // when it was heard last by each channel; zero: never
	Alive               bool
	Claims, Able, Ready bool // as it said last
	Hears               bool // this gateway, of late
	Preference          uint16
	Better              bool // than this one, by preference and hash
}

// State says how things stand at now. It changes nothing.
func (e *Election) State(now time.Time) State {
	s := State{Phase: e.phase(now), Preference: e.cfg.Preference, Last: e.last}
	if s.Phase == Forwarding {
		s.Until = e.until
	}
	if s.Phase == Blocked {
		s.Unable = e.unable()
	}
	own := rankOf(e.cfg.Attachment, e.cfg.Node, e.cfg.Preference)
	for _, g := range e.gateways {
		s.Gateways = append(s.Gateways, Gateway{
			Node: g.node, Overlay: g.at[Overlay], VLAN: g.at[VLAN], Alive: g.heardOnce() && e.alive(g),
			Claims: g.hello.Claims, Able: g.hello.Able, Ready: g.hello.Ready, Hears: now.Sub(g.hears) <= e.cfg.Lease, Preference: g.hello.Preference,
			Better: rankOf(e.cfg.Attachment, g.node, g.hello.Preference).over(own),
		})
	}
	slices.SortFunc(s.Gateways, func(a, b Gateway) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

func (e *Election) phase(now time.Time) Phase {
	switch {
	case e.Forwards(now):
		return Forwarding
	case e.claims:
		return Claiming
	case !e.able:
		return Blocked
	case e.heard < e.hold:
		return Waiting
	default:
		return Standby
	}
}

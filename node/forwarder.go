package node

import (
	"cmp"
	"strings"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/policy"
)

// PortForwarder is what `etherloom port show` tells of who carries a VLAN's frames.
type PortForwarder struct {
	Phase      string        `json:"phase"` // forwards, claims, stands by, waits, not able
	Preference uint16        `json:"preference"`
	Reason     string        `json:"reason,omitempty"` // of the last change; while it is not able, why
	Since      *time.Time    `json:"since,omitempty"`
	Gateways   []PortGateway `json:"gateways"` // the others
	Loop       []string      `json:"loop,omitempty"`

	Redundancy string `json:"redundancy"` // single-active or all-active
	Together   bool   `json:"together"`   // it carries frames for one while the other gateways do
	// Carriers are the gateways among which flows are spread, by name, this one included.
	Carriers []string `json:"carriers,omitempty"`
}

// PortGateway is another gateway of the VLAN.
type PortGateway struct {
	Name       string `json:"name"`
	Alive      bool   `json:"alive"`
	Forwards   bool   `json:"forwards"` // so it said last
	Able       bool   `json:"able"`
	Preference uint16 `json:"preference"`
}

// state tells how a port is; nil if it is not watched. Daemon.mu is held.
func (s *sentinel) state(a *attachment, now time.Time) *PortForwarder {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[a.id]
	if p == nil {
		return nil
	}
	e := p.election.State(now)
	out := &PortForwarder{Phase: string(e.Phase), Preference: e.Preference, Reason: string(cmp.Or(e.Unable, e.Last.Reason)), Gateways: []PortGateway{}}
	out.Redundancy, out.Together = "single-active", a.port.Together()
	if p.sharing.wanted {
		out.Redundancy = allActive
	}
	if !e.Last.At.IsZero() {
		out.Since = &e.Last.At
	}
	if g := a.seg.sw.Group(a.id); g != nil {
		for _, w := range g.Ways() {
			out.Carriers = append(out.Carriers, partyOf(s.d.contents, w.Node).Name)
		}
	}
	for _, g := range e.Gateways {
		out.Gateways = append(out.Gateways, PortGateway{
			Name: partyOf(s.d.contents, policy.Identity(g.Node)).Name, Alive: g.Alive, Forwards: g.Claims, Able: g.Able, Preference: g.Preference,
		})
	}
	for _, c := range s.guard.Causes(uint32(a.id)) {
		out.Loop = append(out.Loop, s.d.attachmentName(c.Attachment)+" at "+partyOf(s.d.contents, policy.Identity(c.Node)).Name)
	}
	return out
}

// describe says in a word how a port is that is on otherwise, and why. Daemon.mu is held.
func (s *sentinel) describe(a *attachment, state, why string) (string, string) {
	f := s.state(a, time.Now())
	switch {
	case f == nil || state != "on":
		return state, why
	case len(f.Loop) > 0:
		return "blocked", "a loop, by " + strings.Join(f.Loop, ", ")
	case f.Together:
		return state, why
	case f.Phase != string(election.Forwarding):
		if l := s.aggregation(a); l != nil && l.Why != "" {
			return "standby", "LACP: " + l.Why
		}
		return "standby", strings.Trim(f.Phase+": "+f.Reason, ": ")
	}
	return state, why
}

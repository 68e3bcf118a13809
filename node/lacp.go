package node

import (
	"time"

	"github.com/etherloom/etherloom/bridge/lacp"
)

// PortLACP is what `etherloom port show` tells of the site's link aggregation.
type PortLACP struct {
	Actor   LACPEnd    `json:"actor"`             // this gateway's port; all gateways of the attachment say the same system and key
	Partner *LACPEnd   `json:"partner,omitempty"` // the switch's, as it says
	Carries bool       `json:"carries"`           // both take frames and send them
	Why     string     `json:"why,omitempty"`     // it does not
	Receive string     `json:"receive"`           // states of the machines: disabled, expired, defaulted, current
	Mux     string     `json:"mux"`               // detached, waiting, attached, collecting, distributing
	Heard   *time.Time `json:"heard,omitempty"`   // when the switch was heard last
	PDUsIn  uint64     `json:"pdus_in"`
	PDUsOut uint64     `json:"pdus_out"`
	Markers uint64     `json:"markers"` // that were answered
	Refused uint64     `json:"refused"` // frames that were none of these
}

// LACPEnd is what one end of the cable says of itself.
type LACPEnd struct {
	System string `json:"system"` // priority and MAC
	Key    uint16 `json:"key"`
	Port   uint16 `json:"port"`
	State  string `json:"state"`
}

func lacpEnd(e lacp.End) LACPEnd {
	return LACPEnd{System: e.System.String(), Key: e.Key, Port: e.Port, State: e.State.String()}
}

// aggregation tells how the NIC of a port is aggregated; nil if it is not by LACP. Daemon.mu is held.
func (s *sentinel) aggregation(a *attachment) *PortLACP {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, p := s.aggregators[a.trunk], s.posts[a.id]
	if g == nil || p == nil || !p.lag.on {
		return nil
	}
	st := g.port.Status()
	out := &PortLACP{
		Actor: lacpEnd(st.Actor), Carries: st.Why == "", Why: string(st.Why), Receive: st.Receive, Mux: st.Mux,
		PDUsIn: st.Stats.Heard, PDUsOut: st.Stats.Sent, Markers: st.Stats.Markers, Refused: st.Stats.Refused,
	}
	if st.Partner.System != (lacp.System{}) {
		e := lacpEnd(st.Partner)
		out.Partner = &e
	}
	if !st.Heard.IsZero() {
		out.Heard = &st.Heard
	}
	return out
}

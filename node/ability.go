package node

import (
	"context"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/transport"
)

// This file finds out whether this gateway could carry a VLAN's frames anywhere.

// linkless is for how long after the last peer was alive a controller that is heard does not show that there is an underlay.
const linkless = 10 * time.Second

// conditions says what this gateway has of what a forwarder needs. Links that nobody needs are closed, so a gateway may have none
// although it could have; then a controller shows that its underlay works.
func (s *sentinel) conditions(p *post, now time.Time) election.Conditions {
	c := election.Conditions{Carrier: p.a.trunk.wire.Up() && !p.probe.Blocked()}
	controlled := s.d.client.Connected()
	c.Synced = controlled || now.Sub(s.d.began) > linkless
	if len(p.others) == 0 {
		return c // nobody could take over
	}
	for id, port := range *p.a.seg.links.Load() {
		if slices.Contains(p.others, id) {
			continue
		}
		c.Peers = true
		c.Peer = c.Peer || port.Egress().(*link).peer.Live() //nolint:forcetypeassert // the ports of links
	}
	s.doubt(p, now)
	if c.Peer && !p.cut {
		p.linked = now
	}
	c.Peer = c.Peer && !p.cut || controlled && now.Sub(p.linked) > linkless
	return c
}

// doubt has somebody ask the peers when another gateway is heard on the VLAN and not in the overlay any more: one of the two has lost
// its underlay, and the transport would take longer to notice.
func (s *sentinel) doubt(p *post, now time.Time) {
	recent, suspect := 3*s.d.cfg.Timers.Hello, false
	for _, g := range p.election.State(now).Gateways {
		if now.Sub(g.Overlay) <= recent {
			suspect = false
			break
		}
		suspect = suspect || !g.Overlay.IsZero() && now.Sub(g.VLAN) <= recent
	}
	if !suspect {
		p.cut = false
		return
	}
	if p.asking || now.Sub(p.asked) < recent {
		return
	}
	p.asking, p.asked = true, now
	var peers []identity.ID
	for id, port := range *p.a.seg.links.Load() {
		if len(peers) < mostAsked && !slices.Contains(p.others, id) && port.Egress().(*link).peer.Live() { //nolint:forcetypeassert // the ports of links
			peers = append(peers, transportID(id))
		}
	}
	s.d.group.Go(func() error { return s.ask(p, peers) })
}

// mostAsked is how many peers are asked whether the underlay carries anything.
const mostAsked = 4

// ask finds out whether a peer answers.
func (s *sentinel) ask(p *post, peers []identity.ID) error {
	ctx, cancel := context.WithTimeout(s.d.ctx, 4*s.d.cfg.Timers.Hello)
	defer cancel()
	answers := make(chan bool, len(peers))
	for _, id := range peers {
		go func() {
			results, _ := s.d.endpoint.Ping(ctx, id) // who does not answer has none
			answers <- slices.ContainsFunc(results, func(r transport.PingResult) bool { return !r.Lost })
		}()
	}
	alive := false
	for range peers {
		if alive = <-answers; alive {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.asking, p.cut = false, !alive
	s.wake()
	return nil
}

package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/identity"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// This file finds out whether this gateway could carry a VLAN's frames anywhere.

// linkless is for how long after the last peer was alive a controller that is heard does not show that there is an underlay.
const linkless = 10 * time.Second

// conditions says what this gateway has of what a forwarder needs. Links that nobody needs are closed, so a gateway may have none
// although it could have; then a controller shows that its underlay works.
func (s *sentinel) conditions(p *post, now time.Time) election.Conditions {
	c := election.Conditions{Carrier: p.a.trunk.wire.Up() && !p.probe.Blocked() && p.a.open(now)}
	controlled := s.d.client.Connected()
	c.Synced = controlled || now.Sub(s.d.began) > linkless
	if len(p.others) == 0 {
		return c // nobody could take over
	}
	waits := s.awaits(p, now)
	for id, port := range *p.a.seg.links.Load() {
		if slices.Contains(p.others, id) {
			continue
		}
		c.Peers = true
		c.Peer = c.Peer || peerOf(port).Live()
	}
	s.doubt(p, now)
	if c.Peer && !p.cut {
		p.linked = now
	}
	c.Peer = (c.Peer && !p.cut || controlled && now.Sub(p.linked) > linkless) && !waits
	return c
}

func peerOf(port *vswitch.Port) *transport.Peer { return port.Egress().(*link).peer } //nolint:forcetypeassert // the ports of links

// mostAwaited is how many links a gateway opens that begins.
const mostAwaited = 64

// awaits opens the links of a gateway that begins, and reports whether it leaves the VLAN to the one that forwards meanwhile: until they are
// open, or have had the time for it. Who took the VLAN first would cut it off until they are.
func (s *sentinel) awaits(p *post, now time.Time) bool {
	if p.began.IsZero() {
		p.began = now
	}
	if p.opened || now.Sub(p.began) > linkless {
		return false
	}
	waits, n := false, 0
	links := *p.a.seg.links.Load()
	for _, id := range slices.Sorted(maps.Keys(links)) {
		if slices.Contains(p.others, id) {
			continue
		}
		if n++; n > mostAwaited {
			break
		}
		if peer := peerOf(links[id]); !peer.Live() {
			s.d.endpoint.Open(peer)
			waits = true
		}
	}
	p.opened = n > 0 && !waits
	return waits && forwarded(p.election.State(now))
}

// forwarded reports whether another gateway carries the VLAN, as far as is heard.
func forwarded(e election.State) bool {
	return slices.ContainsFunc(e.Gateways, func(g election.Gateway) bool { return g.Alive && g.Claims })
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
		if len(peers) < mostAsked && !slices.Contains(p.others, id) && peerOf(port).Live() {
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

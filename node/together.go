package node

import (
	"errors"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/node/herald"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file is about an attachment that several gateways carry at once (decision 0012). It needs one link aggregation of the site's
// switch to all of them, which never gives one gateway what another has sent. So a hello that comes over the VLAN shows that there is none,
// and then the gateways do as if it were single-active: what is carried twice would loop.

// allActive is the redundancy of such an attachment in the signed state.
const allActive = "all-active"

const (
	// apartFor is how long no hello must come over the VLAN before it is taken for an aggregation again; they are sent ten times a second.
	apartFor = 10 * time.Second
	// joinAfter is how long a gateway that begins hears of flows before any is sent its way.
	joinAfter = time.Second
)

// sharing is how a port shares its VLAN with other gateways. It is guarded by sentinel.mu.
type sharing struct {
	wanted bool      // the attachment is all-active
	apart  time.Time // when another gateway was heard over the VLAN last
	since  time.Time // when it began to be able; zero: it is not
	joined bool      // flows may be sent its way
	news   bool      // follow has yet to act on a change
	wrong  bool      // there is no aggregation, as far as is known
}

// hearVLAN notes that another gateway is heard over the VLAN.
func (h *sharing) hearVLAN(now time.Time) {
	if h.wanted {
		h.apart = now
	}
}

// shareLocked decides whether a port carries its VLAN while other gateways do.
func (s *sentinel) shareLocked(p *post, c election.Conditions, now time.Time) {
	h := &p.sharing
	wrong := h.wanted && !h.apart.IsZero() && now.Sub(h.apart) < apartFor
	able := h.wanted && !wrong && p.lag.split == 0 && len(p.others) > 0 && c.Carrier && c.Synced && (c.Peer || !c.Peers)
	switch {
	case !able:
		h.since = time.Time{}
	case h.since.IsZero():
		h.since = now
	}
	h.joined = able && now.Sub(h.since) >= joinAfter
	h.news = h.news || wrong != h.wrong || able != p.a.port.Together()
	h.wrong = wrong
	p.a.port.SetTogether(able)
}

// shared follows a change of whether a port shares its VLAN. Daemon.mu is held.
func (s *sentinel) shared(p *post, wrong bool) {
	together := p.a.port.Together()
	s.d.log.Info("all-active", "segment", p.a.seg.name, "port", p.a.port.Name, "state", together)
	flushPort(p.a) // what was learned is told anew, as of one gateway or of all
	var err error
	if wrong {
		err = errors.New("attachment is all-active, but what another gateway sends on the VLAN comes back here, so there is no link aggregation to both. " +
			"One gateway carries the VLAN meanwhile. Make the switch's ports to the gateways one static link aggregation, or say " +
			"`etherloom attachment set " + s.d.name() + "/" + p.a.port.Name + " ... --redundancy single-active`")
	}
	s.d.problemLocked(aboutSharing(p.a.port), err)
}

// aboutSharing is how a problem is called that an all-active port has with its switch.
func aboutSharing(port *vswitch.Port) string { return "all-active " + port.Name }

// name is how this node is called.
func (d *Daemon) name() string { return d.contents.Self.GetName() }

// drainFor is how long others have to take over the flows of a gateway that is about to stop: whoever sends this way is told within two ticks of its herald,
// and the switch by LACP at once.
const drainFor = 300 * time.Millisecond

// drain lets the other gateways take over what this one carries with them, and carries it meanwhile. It waits for them.
func (s *sentinel) drain() {
	s.mu.Lock()
	s.draining = true
	shares := false
	for _, p := range s.posts {
		shares = shares || p.a.port.Together()
	}
	s.mu.Unlock()
	if shares {
		s.wake()
		time.Sleep(drainFor)
	}
}

// carried are the ports of a segment whose VLANs other gateways carry, too, by attachment.
func (s *sentinel) carried(seg *segment) (out []herald.Carried) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.posts {
		if p.a.seg == seg && p.a.port.Together() && !s.draining {
			out = append(out, herald.Carried{Port: p.a.port, Joins: !p.sharing.joined})
		}
	}
	slices.SortFunc(out, func(a, b herald.Carried) int { return int(a.Port.Identity) - int(b.Port.Identity) })
	return out
}

// fellows are the links to the other gateways of each VLAN of a segment that is shared, by attachment.
func (s *sentinel) fellows(seg *segment) map[policy.Identity][]*vswitch.Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, links := map[policy.Identity][]*vswitch.Port{}, *seg.links.Load()
	for id, p := range s.posts {
		if p.a.seg != seg || !p.a.port.Together() {
			continue
		}
		for _, node := range p.others {
			if port := links[node]; port != nil {
				out[id] = append(out[id], port)
			}
		}
	}
	return out
}

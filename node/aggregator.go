package node

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/bridge/lacp"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file has NICs speak LACP with the site's switch (package bridge/lacp, decision 0016). It is a matter of the NIC, whatever its VLANs: it
// is in sync while this gateway could carry all of them, and they are carried while the switch has it in its aggregation.

// aggregator is a NIC's end of the site's link aggregation. It is guarded by sentinel.mu.
type aggregator struct {
	cfg  lacp.Config
	port *lacp.Port

	apart   time.Time // since when the switch has had it in no aggregation, though it could carry; zero: it has, or it could not
	problem string
	news    bool // follow has yet to tell of the problem
}

// apartIsWrong is for how long a switch may leave a port out of its aggregation before people are told.
const apartIsWrong = 10 * time.Second

// lacpPriority is what we say of system and port alike: the default of the standard's managed objects (IEEE 802.1AX-2014 section 7.3).
const lacpPriority = 0x8000

// aggregatorOf is who the NIC is to its switch, by the first of its attachments whose gateways speak LACP; false if none is there. All gateways of the
// attachment say the same system, which no other network's say, and each another port.
func (d *Daemon) aggregatorOf(wanted []*controlv1.Attachment) (lacp.Config, bool) {
	i := slices.IndexFunc(wanted, (*controlv1.Attachment).GetLacp)
	if i < 0 {
		return lacp.Config{}, false
	}
	a := wanted[i]
	h := sha256.Sum256(fmt.Appendf(slices.Clone(a.GetProbeKey()), "etherloom lacp %d", a.GetId()))
	system := ether.MAC(h[:6])
	system[0] = system[0]&^1 | 2 // a locally administered address of a station
	return lacp.Config{
		System: lacp.System{Priority: lacpPriority, MAC: system}, Key: 1, PortPriority: lacpPriority,
		Port: lacpPort(d.self(), d.contents.Machines[transportID(policy.Identity(a.GetId()))].GetGateways()),
		MAC:  probeMAC(d.self(), policy.Identity(a.GetId())),
	}, true
}

// lacpPort is the number of a gateway's port: its identity, as far as that fits and no gateway with a lesser one has it.
func lacpPort(self policy.Identity, gateways []uint32) uint16 {
	taken := map[uint16]bool{0: true} // no port has the number 0 (IEEE 802.1AX-2014 section 6.3.4)
	n := uint16(0)
	for _, g := range slices.Sorted(slices.Values(append(slices.Clone(gateways), uint32(self)))) {
		for n = uint16(g); taken[n]; { //nolint:gosec // what does not fit is cut off
			n++
		}
		if g == uint32(self) {
			break
		}
		taken[n] = true
	}
	return n
}

// aggregate makes a NIC speak LACP, or no longer.
func (s *sentinel) aggregate(t *trunk, cfg lacp.Config, on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	old := s.aggregators[t]
	if old != nil && on && old.cfg == cfg {
		return nil
	}
	if old != nil {
		now := time.Now()
		old.port.Leave(now)
		s.speakLocked(t, old, now)
		if s.sender != nil {
			s.sender.Flush()
		}
		delete(s.aggregators, t)
	}
	t.slow.Store(on)
	if !on {
		return nil
	}
	port, err := lacp.New(cfg)
	if err == nil {
		s.aggregators[t] = &aggregator{cfg: cfg, port: port}
	}
	return err
}

// hearSlow takes a frame of a slow protocol from a NIC.
func (s *sentinel) hearSlow(t *trunk, frame []byte, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.aggregators[t]; g != nil && g.port.Hear(frame, now) == nil { // the port has counted what it refuses
		s.wake()
	}
}

// speakLocked sends what is due on a NIC, and says when to come again.
func (s *sentinel) speakLocked(t *trunk, g *aggregator, now time.Time) time.Time {
	frames, next := g.port.Tick(now)
	if s.sender != nil {
		for _, f := range frames {
			t.send(f, s.lane)
		}
	}
	return next
}

// send sends a frame of this gateway's own by the NIC, without a tag.
func (t *trunk) send(frame []byte, n vswitch.Lane) {
	w := t.writer(n)
	w.tag = ether.Tag{}
	_ = w.Write(frame, ether.Offload{}) // a NIC that is down is noticed otherwise
}

// joinLocked lets time pass for all aggregations, and says when to come again. It is told what each port has of what a forwarder needs, and
// takes the carrier from those that the switch has in no aggregation.
func (s *sentinel) joinLocked(able map[*post]election.Conditions, now time.Time) time.Time {
	next := now.Add(idleStep)
	for t, g := range s.aggregators {
		c := lacp.Conditions{Enabled: t.wire.Up(), Ready: !s.draining && t.ready(able, now)}
		g.port.SetConditions(c, now)
		next = earlier(next, s.speakLocked(t, g, now))
		s.judgeLocked(t, g, c, now)
	}
	for p, has := range able {
		if p.lag.on {
			g := s.aggregators[p.a.trunk]
			if !s.draining { // what the switch still sends here is carried
				p.carrier(g, &has)
			}
			able[p] = has
			s.tellPartnerLocked(p, g, now)
		}
	}
	return next
}

// carrier takes the carrier from a port whose switch has it in no aggregation.
func (p *post) carrier(g *aggregator, c *election.Conditions) {
	if p.lag.on && (g == nil || !g.port.Distributes()) {
		c.Carrier = false
	}
}

// ready reports whether this gateway could carry all VLANs of a NIC whose gateways speak LACP: by the switch's hash, frames of each come here.
func (t *trunk) ready(able map[*post]election.Conditions, now time.Time) bool {
	for p, c := range able {
		if p.a.trunk == t && p.lag.on && !p.ready(c, now) {
			return false
		}
	}
	return true
}

// ready reports whether a port could carry its VLAN if the switch let it.
func (p *post) ready(c election.Conditions, now time.Time) bool {
	return c.Carrier && c.Synced && (c.Peer || !c.Peers) && p.a.open(now)
}

// judgeLocked works out what is wrong with the aggregation, for people.
func (s *sentinel) judgeLocked(t *trunk, g *aggregator, c lacp.Conditions, now time.Time) {
	why := g.port.Status().Why
	switch {
	case why == "" || !c.Ready || !c.Enabled:
		g.apart = time.Time{}
	case g.apart.IsZero():
		g.apart = now
	}
	text := s.splitTextLocked(t, g)
	switch {
	case g.port.Silent(now):
		text = "attachment has LACP on, but the switch has said nothing by LACP for 90 s, so this gateway takes no part. Make the switch's ports to the gateways one link " +
			"aggregation with LACP (mode active), or say `etherloom attachment set " + s.nameOf(t) + " --lacp off` if it is a static one"
		if name, _ := t.wire.Moved(); name != "" {
			text = "attachment has LACP on, but the NIC is a port of bridge " + name + ", which passes no LACPDUs on: use a NIC that the host does not need itself, or say " +
				"`etherloom attachment set " + s.nameOf(t) + " --lacp off`"
		}
	case why != lacp.NoPartner && !g.apart.IsZero() && now.Sub(g.apart) >= apartIsWrong:
		text = "the switch does not have it in its link aggregation, so this gateway takes no part: " + string(why) + ". Look at the switch's port with " +
			"`etherloom port show`, and at its aggregation there"
	}
	if text != g.problem {
		g.problem, g.news = text, true
	}
}

// tellAggregators tells people of what is wrong with aggregations. Daemon.mu is held.
func (s *sentinel) tellAggregators() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, g := range s.aggregators {
		if !g.news {
			continue
		}
		g.news = false
		var err error
		if g.problem != "" {
			err = errors.New(g.problem)
		}
		s.d.problemLocked(aboutLACP(t), err)
	}
}

// nameOf is a port of the NIC whose gateways speak LACP, as an administrator calls it.
func (s *sentinel) nameOf(t *trunk) string {
	name := "NODE/PORT"
	for _, p := range s.posts {
		if p.a.trunk == t && p.lag.on {
			name = s.d.member.Name + "/" + p.a.port.Name
		}
	}
	return name
}

// aboutLACP is how a problem of a NIC's aggregation is called.
func aboutLACP(t *trunk) string { return "lacp " + t.to.nic }

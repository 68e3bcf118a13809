package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/bridge/probe"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// This file does what follows when another gateway carries a VLAN, or a loop is found.

// act does what follows from what has happened, and tells people.
func (s *sentinel) act(now time.Time) {
	s.mu.Lock()
	loops := s.guard.Events()
	happened := map[*post][]election.Event{}
	posts := map[uint32]*post{}
	shared, apart := map[*post]bool{}, false
	for _, g := range s.aggregators {
		apart = apart || g.news
	}
	for id, p := range s.posts {
		posts[uint32(id)] = p
		if p.sharing.news {
			p.sharing.news, shared[p] = false, p.sharing.wrong
		}
		if len(p.happened) > 0 {
			happened[p], p.happened = p.happened, nil
		}
	}
	s.mu.Unlock()
	if len(loops) == 0 && len(happened) == 0 && len(shared) == 0 && !apart {
		return
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.tellAggregators()
	for p, wrong := range shared {
		s.shared(p, wrong)
	}
	for p, events := range happened {
		for _, e := range events {
			s.elected(p, e, now)
		}
	}
	for _, e := range loops {
		if p := posts[e.Attachment]; p != nil {
			s.looped(p, e, now)
		}
	}
}

// elected follows a change of who carries a VLAN's frames. Daemon.mu is held.
func (s *sentinel) elected(p *post, e election.Event, now time.Time) {
	other := ""
	if e.Node != 0 {
		other = partyOf(s.d.contents, policy.Identity(e.Node)).Name
	}
	s.d.log.Info("forwarder", "segment", p.a.seg.name, "port", p.a.port.Name, "state", string(e.Kind), "reason", string(e.Reason), "peer", other)
	together := p.a.port.Together() // nobody is reached in another way than before
	if e.Kind != election.TookOver {
		s.mu.Lock()
		p.showing.end()
		s.mu.Unlock()
		if !together {
			flushPort(p.a)
		}
		return
	}
	var macs []ether.MAC
	if !together {
		macs = slices.Collect(maps.Keys(p.a.reached(now)))
	}
	s.mu.Lock()
	p.showing.carries = true
	p.showing.add(now, macs...)
	s.mu.Unlock()
	s.wake()
}

// flushPort forgets who was seen on a VLAN: others say where they are now.
func flushPort(a *attachment) {
	a.seg.sw.FDB().Flush(func(e fdb.Entry[vswitch.Place]) bool { return e.Port.Port == a.port && e.Kind == fdb.Dynamic }, time.Now())
}

// looped follows what was found of loops. Daemon.mu is held.
func (s *sentinel) looped(p *post, e probe.Event, now time.Time) {
	about := "port " + p.a.port.Name
	where := ""
	if e.OtherNode != 0 {
		where = fmt.Sprintf(" (heard of %s, %s)", partyOf(s.d.contents, policy.Identity(e.OtherNode)).Name, s.d.attachmentName(e.OtherAttachment))
	}
	switch e.Kind {
	case probe.Healed:
		s.d.problemLocked(about, nil)
		// What came round the loop has made machines seem to be in two places.
		p.a.seg.sw.FDB().Flush(func(e fdb.Entry[vswitch.Place]) bool { return e.Frozen }, now)
		s.d.log.Info("loop is gone", "segment", p.a.seg.name, "port", p.a.port.Name)
	case probe.Cabled:
		s.d.log.Warn("loop guard", "segment", p.a.seg.name, "port", p.a.port.Name, "reason", string(e.Kind)+where)
	default:
		flushPort(p.a)
		s.d.problemLocked(about, fmt.Errorf("it is blocked: %s%s. It opens by itself when the loop is gone: look for a cable or a bridge between the two VLANs",
			e.Kind, where))
	}
}

// attachmentName is how an attachment is called.
func (d *Daemon) attachmentName(id uint32) string {
	return "attachment " + partyOf(d.contents, policy.Identity(id)).Name
}

// reached is the addresses of everybody in the overlay who has anything to do with machines on a VLAN. Its switches are to know by which
// port they are reached. Daemon.mu is held.
func (a *attachment) reached(now time.Time) map[ether.MAC]bool {
	return a.reachedBeside(a.trunk.d.otherGateways(a.id), now)
}

// reachedBeside is reached of a VLAN that has these other gateways. No lock is needed.
func (a *attachment) reachedBeside(others []policy.Identity, now time.Time) map[ether.MAC]bool {
	view := a.seg.sw.Policy()
	concerned := map[policy.Identity]bool{}
	for _, id := range view.NeighboursOf(append(view.Hosts(a.id), a.id), now) {
		concerned[id] = true
	}
	macs := map[ether.MAC]bool{}
	for id := range concerned {
		if st := view.Station(id); st != nil && st.MAC != (ether.MAC{}) && !view.IsBehind(id, a.id) {
			macs[st.MAC] = true
		}
	}
	for _, e := range a.seg.sw.FDB().Entries(now) {
		// Who may be on this VLAN, and is known by its other gateway, is there.
		here := e.Port.Port == a.port || view.IsBehind(e.Port.Who, a.id) && slices.Contains(others, e.Port.Port.Identity)
		if concerned[e.Port.Who] && !here {
			macs[e.MAC] = true
		}
	}
	return macs
}

// rarpOf is a question by which a machine would ask for its own address (RFC 903), as virtual machines' hosts send them when a machine
// has moved. It is as good as any frame from it.
func rarpOf(mac ether.MAC) []byte {
	b := append(append(make([]byte, 0, 60), ether.Broadcast[:]...), mac[:]...)
	b = append(b, byte(ether.TypeRARP>>8), byte(ether.TypeRARP&0xff))
	b = ether.AppendARP(b, ether.ARP{Op: ether.RARPRequest, SenderMAC: mac, TargetMAC: mac})
	return append(b, make([]byte, 60-len(b))...)
}

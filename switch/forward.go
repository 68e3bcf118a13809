package vswitch

import (
	"slices"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// Forward carries one frame that entered through a port to wherever it goes, and says why if that is nowhere. tag is
// what came with a frame over a link; a frame from a local port has none. undone is what its host has left undone, and
// goes along. now is the time of the batch.
func (s *Segment) Forward(in *Port, data []byte, undone ether.Offload, tag Tag, lane Lane, now time.Time) Drop {
	in.counters.rxFrames.Add(1)
	in.counters.rxOctets.Add(uint64(len(data)))
	drop := s.forward(in, data, undone, tag, lane, now, nil)
	switch drop {
	case Forwarded:
	case Answered:
		in.counters.answered.Add(1)
	default:
		in.counters.dropped.Add(1)
		s.drops[drop].Add(1)
	}
	return drop
}

// carriage is one frame on its way, with all that goes along.
type carriage struct {
	policy.Passage

	in     *Port
	grant  policy.GrantID // of a frame from a link: that which it names
	undone ether.Offload
	lane   Lane
	asked  *Explanation    // nil for a frame that is carried
	budget policy.Budget   // against which it counts
	known  bool            // it has been counted, and is known to be where it came from
	handed bool            // another gateway of its VLAN has handed it over
	behind policy.Identity // of a frame that was looked up: whom it is for
	judged bool            // it goes nowhere, and a receiver has been asked who stands for all that are left
}

// forward is the path itself. asked is nil for a frame that is carried; otherwise somebody only wants to know, so it is filled
// in and nothing else happens: nothing is sent, learned or counted. Explain and Forward cannot differ, for both are this code.
func (s *Segment) forward(
	in *Port, data []byte, undone ether.Offload, tag Tag, lane Lane, now time.Time, asked *Explanation,
) Drop {
	layout := s.layout.Load()

	if in.stopped(now) {
		return DropPort
	}
	f, err := layout.parse(data)
	if err != nil {
		return parseDrop(err)
	}
	c := carriage{
		Passage: policy.Passage{Frame: f, Source: tag.Source, Flows: s.flows, Now: now, Dry: asked != nil},
		in:      in, grant: tag.Grant, undone: undone, lane: lane, asked: asked,
	}
	if asked == nil {
		s.heed(&c)
	}
	if to := s.taken(layout, in, &f, tag); to != nil {
		if to.stopped(now) {
			return DropPort
		}
		c.in, c.handed = to, true
	}
	drop := DropRate
	if !in.exceeds(layout, &c, true) {
		drop = s.carry(layout, &c)
	}
	if drop != Forwarded && asked == nil {
		s.refuse(layout, &c, drop)
	}
	return drop
}

// carry takes a frame that could be read from its admission to its receivers.
func (s *Segment) carry(layout *layout, c *carriage) Drop {
	if drop := layout.admit(c); drop != Forwarded {
		return drop
	}
	if drop := s.unlock(c); drop != Forwarded {
		return drop
	}
	if c.in.Kind != Link { // what a peer sends counts when somebody here may have it
		if drop := s.learn(layout, c); drop != Forwarded {
			return drop
		}
	}

	if drop := s.serve(layout, c); drop != Forwarded {
		return drop
	}
	if drop := s.answer(layout, c); drop != Forwarded {
		return drop
	}

	if c.Frame.Dst.IsGroup() {
		return s.flood(layout, c)
	}
	if at, ok := s.lookup(c); ok {
		return s.unicast(layout, c, at)
	}
	// One that has yet to say a word is where policy says that it is. Only what neither knows is flooded.
	who := layout.policy.Owner(c.Frame.Dst)
	if len(layout.behind[who]) == 0 {
		return s.flood(layout, c)
	}
	return s.believed(layout, c, who)
}

// believed sends a frame to where somebody is believed to be of whom nothing was seen: once for each VLAN.
func (s *Segment) believed(l *layout, c *carriage, who policy.Identity) Drop {
	drop := DropNoReceiver
	var bundle *Port
	for _, out := range l.behind[who] {
		at := s.towards(l, Place{out, who})
		if at.Port != out {
			if at.Port == bundle {
				continue
			}
			bundle = at.Port
		}
		drop = drop.or(s.unicast(l, c, at))
	}
	return drop
}

// learn counts a frame against what its source may send, and remembers where that is.
func (s *Segment) learn(l *layout, c *carriage) Drop {
	if c.known {
		return Forwarded
	}
	if drop := l.meter(c); drop != Forwarded {
		return drop
	}
	// What is in two places at once is believed in one: a frame that comes round a loop goes no further.
	if c.in.attributes.Load().Learning && s.elsewhere(l, c) {
		return DropFrozen
	}
	c.known = true
	if c.asked == nil {
		s.neighbours.note(c)
	}
	return Forwarded
}

// elsewhere remembers where a frame's source is, and reports whether it is believed to be somewhere else.
func (s *Segment) elsewhere(l *layout, c *carriage) bool {
	if l.beside(c) {
		return false
	}
	learn := s.fdb.Learn
	if c.asked != nil {
		learn = s.fdb.WouldLearn
	}
	switch learn(c.Frame.Src, s.towards(l, Place{c.in, c.Source}), c.Now) {
	case fdb.Frozen:
		return true
	case fdb.Deferred:
		return s.roundabout(c)
	default:
		return false
	}
}

// roundabout reports whether a frame from a link is from somebody on a VLAN here. Its other gateway has yet to say that it has moved
// there; and until then it may be a frame of ours that has come round.
func (s *Segment) roundabout(c *carriage) bool {
	was, ok := s.fdb.Lookup(c.Frame.Src, c.Now)
	return ok && was.Port.Kind == Attached && c.in.Kind == Link
}

// unlock holds a frame from a port that is locked against who may use it.
func (s *Segment) unlock(c *carriage) Drop {
	if c.in.Kind != Attached || c.Source != c.in.Identity || !c.in.attributes.Load().Locked || s.fdb.Pinned(c.Frame.Src, Place{c.in, c.Source}) {
		return Forwarded
	}
	return DropLocked
}

// lookup finds where the destination was last seen. What a peer sends is learned only later, and what comes in by a port that does
// not learn, never.
func (s *Segment) lookup(c *carriage) (Place, bool) {
	if c.asked != nil && c.in.Kind != Link && c.in.attributes.Load().Learning {
		return s.fdb.Foresee(c.Frame.Dst, c.Frame.Src, Place{c.in, c.Source}, c.Now)
	}
	return s.fdb.Lookup(c.Frame.Dst, c.Now)
}

// unicast sends to the one place where the destination is.
func (s *Segment) unicast(l *layout, c *carriage, at Place) Drop {
	at = l.instead(at)
	c.behind = at.Who
	// Split horizon: the mesh is full, so what came from a link has reached every node that may have it. So has what is on one
	// VLAN, whichever of its gateways it came through.
	if at.Port == c.in || at.Who == c.Source || c.in.Kind == Link && at.Port.Kind == Link || l.sameVLAN(c, at.Port) {
		return c.asked.note(at, Tag{}, DropHairpin)
	}
	if to := s.owner(l, c, at.Who); to != nil {
		return c.handOver(l, to, at.Who)
	}
	c.Shared = c.in.together.Load() || at.Port.together.Load()
	if at.Port = s.way(l, c, at); at.Port.group != nil {
		return c.asked.note(at, Tag{}, DropNoReceiver) // its last gateway has just gone
	}
	if at.Port.stopped(c.Now) {
		return c.asked.note(at, Tag{}, DropPort)
	}
	if at.Port.isolatedFrom(c.in) {
		return c.asked.note(at, Tag{}, DropIsolated)
	}
	tag, drop := s.judge(l, c, at)
	if drop == Forwarded {
		drop = c.send(l, at.Port, tag)
	}
	return drop
}

// sameVLAN reports whether a frame for an attached port has come from the same VLAN: through this gateway, or another that is on it,
// too. A host may be behind several attachments, and is behind one of them; to the others its gateway carries what it sends. An
// attached port speaks for itself.
func (l *layout) sameVLAN(c *carriage, out *Port) bool {
	return l.policy.IsBehind(c.Source, out.Identity) && l.policy.MaySpeak(c.in.Identity, out.Identity)
}

// flood sends to every port that may hear the frame. The reason for a frame that nobody may hear is that of the last
// receiver judged.
func (s *Segment) flood(l *layout, c *carriage) Drop {
	if !c.Frame.Dst.IsGroup() {
		if to := s.owner(l, c, 0); to != nil {
			return c.handOver(l, to, 0)
		}
	}
	c.asked.flood()
	if drop := l.stormy(c); drop != Forwarded {
		return drop
	}
	if drop := s.returning(l, c); drop != Forwarded {
		return drop
	}
	drop := DropNoReceiver
	for _, out := range l.floodFrom[c.in.Kind] {
		if c.judged {
			break
		}
		if out == c.in || l.sameVLAN(c, out) || !out.floods(c) || !s.carries(out, c) {
			continue
		}
		c.Shared = c.in.together.Load() || out.together.Load()
		drop = drop.or(s.spread(l, c, out))
	}
	return drop
}

// spread sends a flooded frame to those behind one port who may hear it: one copy for each grant by which some of them may.
func (s *Segment) spread(l *layout, c *carriage, out *Port) Drop {
	if out.Kind == Attached {
		return s.spreadVLAN(l, c, out)
	}
	drop := DropNoReceiver
	var room [8]Tag
	sent, full := room[:0], false
	for _, who := range l.leads[out] {
		if who == c.Source {
			continue // it has it, and so have all on one VLAN whom nobody named
		}
		tag, d := s.judge(l, c, Place{out, who})
		if c.judged {
			return d
		}
		switch {
		case d != Forwarded || slices.Contains(sent, tag):
		case full:
			d = c.asked.instead(DropRate) // as the copy before it, which was as long
		default:
			d = c.send(l, out, tag)
			if full = d == DropRate; !full {
				sent = append(sent, tag)
			}
		}
		drop = drop.or(d)
	}
	return drop
}

// spreadVLAN sends a flooded frame to a VLAN, which carries it to everybody who is there. So it does if those may have it whom nobody
// named; otherwise each host that may has a copy in a frame to itself.
func (s *Segment) spreadVLAN(l *layout, c *carriage, out *Port) Drop {
	_, drop := s.judge(l, c, Place{out, out.Identity})
	if drop == Forwarded {
		return c.send(l, out, Tag{})
	}
	if !c.Frame.Dst.IsGroup() || l.everybodyHears(c, out) {
		return drop // it is for nobody's address; or those have another copy
	}
	for _, who := range l.leads[out][1:] {
		if who == c.Source {
			continue
		}
		_, d := s.judge(l, c, Place{out, who})
		if d == Forwarded {
			d = c.sendTo(l, out, l.policy.Station(who).MAC)
		}
		if drop = drop.or(d); c.judged {
			break
		}
	}
	return drop
}

// judge says whether a receiver may have the frame, and what goes along.
func (s *Segment) judge(l *layout, c *carriage, at Place) (Tag, Drop) {
	grant, v := l.mayHave(c, at.Who)
	if v != policy.Pass {
		// On a VLAN most say something to everybody now and then, and most have no grants: so not all are asked for each.
		c.judged = v == policy.NoGrant && c.asked == nil && l.policy.Stranger(c.Source, c.Now)
		return Tag{}, c.asked.note(at, Tag{}, Drop(v))
	}
	if drop := s.learn(l, c); drop != Forwarded {
		c.judged = true
		return Tag{}, c.asked.note(at, Tag{}, drop)
	}
	tag := Tag{}
	if at.Port.Kind == Link {
		tag = Tag{Source: c.Source, Grant: grant}
	}
	return tag, c.asked.note(at, tag, Forwarded)
}

// send gives the frame to a port, unless it exceeds the port's rate, or somebody only asks.
func (c *carriage) send(l *layout, out *Port, tag Tag) Drop {
	if out.exceeds(l, c, false) {
		return c.asked.instead(DropRate)
	}
	if c.asked == nil {
		out.send(c.Frame.Data, c.undone, tag, c.lane)
	}
	return Forwarded
}

// sendTo sends a copy of a frame for many to one of them alone. The bytes are the batch's, and are put back.
func (c *carriage) sendTo(l *layout, out *Port, to ether.MAC) Drop {
	group := c.Frame.Dst
	copy(c.Frame.Data, to[:])
	drop := c.send(l, out, Tag{})
	copy(c.Frame.Data, group[:])
	return drop
}

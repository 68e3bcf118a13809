package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
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
	undone ether.Offload
	lane   Lane
	asked  *Explanation    // nil for a frame that is carried
	behind policy.Identity // of a frame that was looked up: who is behind that port
}

// forward is the path itself. asked is nil for a frame that is carried; otherwise somebody only wants to know, so it is filled
// in and nothing else happens: nothing is sent, learned or counted. Explain and Forward cannot differ, for both are this code.
func (s *Segment) forward(
	in *Port, data []byte, undone ether.Offload, tag Tag, lane Lane, now time.Time, asked *Explanation,
) Drop {
	layout := s.layout.Load()

	f, err := ether.Parse(data)
	if err != nil {
		return parseDrop(err)
	}
	if in.Kind == Local {
		tag = Tag{Source: in.Identity}
	}
	c := carriage{
		Passage: policy.Passage{Frame: f, Source: tag.Source, Flows: s.flows, Now: now, Dry: asked != nil},
		in:      in, undone: undone, lane: lane, asked: asked,
	}
	drop := s.carry(layout, &c, tag)
	if drop != Forwarded && asked == nil {
		s.refuse(layout, &c, drop)
	}
	return drop
}

// carry takes a frame that could be read from its admission to its receivers.
func (s *Segment) carry(layout *layout, c *carriage, tag Tag) Drop {
	if drop := layout.admit(c, tag); drop != Forwarded {
		return drop
	}

	if c.asked == nil {
		s.fdb.Learn(c.Frame.Src, c.in, c.Now)
	}

	if drop := layout.answer(c); drop != Forwarded {
		return drop
	}

	if !c.Frame.Dst.IsGroup() {
		if out, ok := s.lookup(layout, c); ok {
			return layout.unicast(c, out)
		}
	}
	return layout.flood(c)
}

// lookup finds the port behind which the destination was last seen; one that has yet to say a word is where policy says that it
// is. Only what neither knows is flooded.
func (s *Segment) lookup(l *layout, c *carriage) (*Port, bool) {
	out, ok := s.fdb.Lookup(c.Frame.Dst, c.Now)
	if c.asked != nil {
		out, ok = s.fdb.Foresee(c.Frame.Dst, c.Frame.Src, c.in, c.Now)
	}
	if ok {
		return out, true
	}
	out = l.behind[l.policy.Owner(c.Frame.Dst)]
	return out, out != nil
}

// unicast sends to the one port behind which the destination is.
func (l *layout) unicast(c *carriage, out *Port) Drop {
	if out == c.in {
		return c.asked.note(out, Tag{}, DropHairpin)
	}
	// Split horizon: the mesh is full, so what came from a link has reached every node that may have it.
	if c.in.Kind == Link && out.Kind == Link {
		return c.asked.note(out, Tag{}, DropHairpin)
	}
	c.behind = out.Identity
	return l.offer(c, out)
}

// flood sends to every port that may hear the frame. The reason for a frame that nobody may hear is that of the last
// receiver judged.
func (l *layout) flood(c *carriage) Drop {
	c.asked.flood()
	drop := DropNoReceiver
	for _, out := range l.floodFrom[c.in.Kind] {
		if out == c.in {
			continue
		}
		if d := l.offer(c, out); drop != Forwarded {
			drop = d
		}
	}
	return drop
}

// offer judges one receiver, and sends the frame if it may have it.
func (l *layout) offer(c *carriage, out *Port) Drop {
	tag := Tag{}
	if out.Kind == Link {
		grant, v := l.mayHave(&c.Passage, out.Identity)
		if v != policy.Pass {
			return c.asked.note(out, Tag{}, Drop(v))
		}
		tag = Tag{Source: c.Source, Grant: grant}
	}
	if c.asked != nil {
		return c.asked.note(out, tag, Forwarded)
	}
	out.send(c.Frame.Data, c.undone, tag, c.lane)
	return Forwarded
}

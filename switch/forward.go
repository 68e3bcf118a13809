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
	if drop != Forwarded {
		in.counters.dropped.Add(1)
		s.drops[drop].Add(1)
	}
	return drop
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
	if drop := layout.admit(in, &f, undone, tag, now, asked != nil); drop != Forwarded {
		return drop
	}

	if asked == nil {
		s.fdb.Learn(f.Src, in, now)
	}

	if !f.Dst.IsGroup() {
		out, ok := s.fdb.Lookup(f.Dst, now)
		if asked != nil {
			out, ok = s.fdb.Foresee(f.Dst, f.Src, in, now)
		}
		if ok {
			return layout.unicast(in, out, &f, undone, tag.Source, lane, now, asked)
		}
	}
	return layout.flood(in, &f, undone, tag.Source, lane, now, asked)
}

// unicast sends to the one port behind which the destination was last seen.
func (l *layout) unicast(
	in, out *Port, f *ether.Frame, undone ether.Offload, source policy.Identity, lane Lane, now time.Time, asked *Explanation,
) Drop {
	if out == in {
		return asked.note(out, Tag{}, DropHairpin)
	}
	// Split horizon: the mesh is full, so what came from a link has reached every node that may have it.
	if in.Kind == Link && out.Kind == Link {
		return asked.note(out, Tag{}, DropHairpin)
	}
	return l.offer(out, f, undone, source, lane, now, asked)
}

// flood sends to every port that may hear the frame. The reason for a frame that nobody may hear is that of the last
// receiver judged.
func (l *layout) flood(
	in *Port, f *ether.Frame, undone ether.Offload, source policy.Identity, lane Lane, now time.Time, asked *Explanation,
) Drop {
	asked.flood()
	drop := DropNoReceiver
	for _, out := range l.floodFrom[in.Kind] {
		if out == in {
			continue
		}
		if d := l.offer(out, f, undone, source, lane, now, asked); drop != Forwarded {
			drop = d
		}
	}
	return drop
}

// offer judges one receiver, and sends the frame if it may have it.
func (l *layout) offer(
	out *Port, f *ether.Frame, undone ether.Offload, source policy.Identity, lane Lane, now time.Time, asked *Explanation,
) Drop {
	tag := Tag{}
	if out.Kind == Link {
		grant, v := l.mayHave(source, out.Identity, now)
		if v != policy.Pass {
			return asked.note(out, Tag{}, Drop(v))
		}
		tag = Tag{Source: source, Grant: grant}
	}
	if asked != nil {
		return asked.note(out, tag, Forwarded)
	}
	out.send(f.Data, undone, tag, lane)
	return Forwarded
}

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
	drop := s.forward(in, data, undone, tag, lane, now)
	if drop != Forwarded {
		in.counters.dropped.Add(1)
		s.drops[drop].Add(1)
	}
	return drop
}

func (s *Segment) forward(in *Port, data []byte, undone ether.Offload, tag Tag, lane Lane, now time.Time) Drop {
	layout := s.layout.Load()

	f, err := ether.Parse(data)
	if err != nil {
		return parseDrop(err)
	}
	if in.Kind == Local {
		tag = Tag{Source: in.Identity}
	}
	if drop := layout.admit(in, &f, undone, tag, now); drop != Forwarded {
		return drop
	}

	s.fdb.Learn(f.Src, in, now)

	if !f.Dst.IsGroup() {
		if out, ok := s.fdb.Lookup(f.Dst, now); ok {
			return layout.unicast(in, out, &f, undone, tag.Source, lane, now)
		}
	}
	return layout.flood(in, &f, undone, tag.Source, lane, now)
}

// unicast sends to the one port behind which the destination was last seen.
func (l *layout) unicast(
	in, out *Port, f *ether.Frame, undone ether.Offload, source policy.Identity, lane Lane, now time.Time,
) Drop {
	if out == in {
		return DropHairpin
	}
	// Split horizon: the mesh is full, so what came from a link has reached every node that may have it.
	if in.Kind == Link && out.Kind == Link {
		return DropHairpin
	}
	if out.Kind == Local {
		out.send(f.Data, undone, Tag{}, lane)
		return Forwarded
	}
	grant, v := l.mayHave(source, out.Identity, now)
	if v != policy.Pass {
		return Drop(v)
	}
	out.send(f.Data, undone, Tag{Source: source, Grant: grant}, lane)
	return Forwarded
}

// flood sends to every port that may hear the frame. The reason for a frame that nobody may hear is that of the last
// receiver judged.
func (l *layout) flood(
	in *Port, f *ether.Frame, undone ether.Offload, source policy.Identity, lane Lane, now time.Time,
) Drop {
	drop := DropNoReceiver
	for _, out := range l.floodFrom[in.Kind] {
		if out == in {
			continue
		}
		tag := Tag{}
		if out.Kind == Link {
			grant, v := l.mayHave(source, out.Identity, now)
			if v != policy.Pass {
				if drop != Forwarded {
					drop = Drop(v)
				}
				continue
			}
			tag = Tag{Source: source, Grant: grant}
		}
		out.send(f.Data, undone, tag, lane)
		drop = Forwarded
	}
	return drop
}

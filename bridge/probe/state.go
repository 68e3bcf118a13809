package probe

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Kind is what has happened to a port.
type Kind string

// The kinds of events.
const (
	Looped   Kind = "the port is looped to itself"
	Joined   Kind = "two VLANs of this gateway are one"
	Bridged  Kind = "this VLAN and another of the segment are one"
	Unheeded Kind = "this VLAN and another of the segment are one, and the other does not block"
	Cabled   Kind = "this VLAN and one of another segment are one" // reported, not blocked
	Healed   Kind = "what blocked the port is no longer heard"
)

// Event is something that people must hear of.
type Event struct {
	At                         time.Time
	Kind                       Kind
	Attachment, VNI            uint32 // of the port that is concerned
	OtherAttachment, OtherNode uint32 // whose probe it was
	OtherVNI                   uint32
}

// maxEvents is how many events wait to be collected; the oldest are lost.
const maxEvents = 64

// Events returns what has happened since it was called last.
func (g *Guard) Events() []Event {
	out := g.events
	g.events = nil
	return out
}

func (g *Guard) report(e Event) {
	e.At = g.entered
	if len(g.events) == maxEvents {
		g.events = slices.Delete(g.events, 0, 1)
	}
	g.events = append(g.events, e)
}

// Stats counts frames that came in as probes.
type Stats struct {
	Heard     uint64 // authentic and fresh
	Malformed uint64
	Unknown   uint64 // of segments whose key is not here
	Forged    uint64
	Old       uint64
}

func (s *Stats) count(err error) {
	switch {
	case err == nil:
		s.Heard++
	case errors.Is(err, ErrForm):
		s.Malformed++
	case errors.Is(err, ErrKey):
		s.Unknown++
	case errors.Is(err, ErrTag):
		s.Forged++
	default:
		s.Old++
	}
}

// Stats returns the counters.
func (g *Guard) Stats() Stats { return g.stats }

// Cause is whose probes keep a port blocked.
type Cause struct{ Attachment, Node uint32 }

// Causes says by whom a port is blocked, in their order.
func (g *Guard) Causes(attachment uint32) []Cause {
	p := g.ports[attachment]
	if p == nil {
		return nil
	}
	var list []Cause
	for s := range p.causes {
		list = append(list, Cause{s.attachment, s.node})
	}
	slices.SortFunc(list, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(a.Attachment, b.Attachment), cmp.Compare(a.Node, b.Node))
	})
	return list
}

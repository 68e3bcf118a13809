package vswitch

import (
	"hash/maphash"
	"sync"
	"time"
)

// A loop through VLANs carries a flooded frame round and round, a thousand times a second, and nothing in Ethernet ends that. When it
// goes round one way only, no address moves by it, either: each gateway sees the frame always on the same side. What shows it is that
// the very same frame comes again and again. But a machine may send that, too. So such frames are held for a moment while the loop
// guard looks; if it finds no loop in that time, they pass, and are not held again for a while, which grows.

// When a frame is one that goes round.
const (
	echoes     = 4                      // copies pass
	echoWindow = 250 * time.Millisecond // in this time
	echoHold   = 300 * time.Millisecond // as long others are held: in this time each gateway sends a probe, asked or not

	echoTrust = 10 * time.Second // so long they are not held once there was no loop; doubled each time
	mostTrust = 5 * time.Minute

	echoSlots = 1024 // frames that are told apart; what shares a slot pushes another out
)

// echo watches what is flooded from VLANs and to them. The zero value watches nothing.
type echo struct {
	seed maphash.Seed
	look func() bool // nil: nobody looks for loops, so nothing is held

	mu      sync.Mutex
	slots   []echoSlot
	held    time.Time // until when
	trusted time.Time // the same
	trust   time.Duration
}

// echoSlot counts a frame.
type echoSlot struct {
	sum   uint64
	first time.Time
	count int
}

// SetLoopGuard says who looks for loops when a flooded frame has come too often: look begins to, must not block, and reports whether
// it has heard of a loop of late. If there is one, the gate of some port closes soon (Port.SetGate). It is set before there are ports.
func (s *Segment) SetLoopGuard(look func() bool) {
	s.echo.seed, s.echo.slots, s.echo.look = maphash.MakeSeed(), make([]echoSlot, echoSlots), look
}

// returning holds a flooded frame that has come too often to be sent so by a machine.
func (s *Segment) returning(l *layout, c *carriage) Drop {
	e := &s.echo
	if e.look == nil || c.asked != nil || c.in.Kind == Local || len(l.attached) == 0 {
		return Forwarded
	}
	if e.holds(c.sum(e.seed), c.Now) {
		return DropEcho
	}
	return Forwarded
}

// sum stands for a frame that comes in by one port. Of one for several there may be copies, one for each grant.
func (c *carriage) sum(seed maphash.Seed) uint64 {
	const mix = 0x9e3779b97f4a7c15 // 2^64 by the golden ratio (Knuth, volume 3, section 6.4)
	return maphash.Bytes(seed, c.Frame.Data) ^ (uint64(c.in.Identity)<<32|uint64(c.grant))*mix
}

// holds counts a frame, and reports whether it is to go no further.
func (e *echo) holds(sum uint64, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	slot := &e.slots[sum%echoSlots]
	if slot.sum != sum || now.Sub(slot.first) >= echoWindow {
		*slot = echoSlot{sum, now, 1}
		return false
	}
	if slot.count++; slot.count <= echoes || now.Before(e.trusted) {
		return false
	}
	if now.Before(e.held) {
		return true
	}
	if e.look() || now.Sub(e.held) >= 2*echoWindow {
		e.held = now.Add(echoHold)
		return true
	}
	// The loop guard has looked and found none, and frames come still.
	if now.Sub(e.trusted) >= mostTrust {
		e.trust = 0
	}
	e.trust = min(max(echoTrust, 2*e.trust), mostTrust)
	e.trusted = now.Add(e.trust)
	return false
}

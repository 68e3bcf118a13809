package election

import (
	"fmt"
	"slices"
	"time"
)

// MaxGateways is how many other gateways an attachment may have.
const MaxGateways = 16

// Config says who takes part in an election.
type Config struct {
	Attachment uint32
	Node       uint32   // this gateway
	Gateways   []uint32 // the others, by node
	Preference uint16   // higher is better; of equal ones a hash of attachment and node decides, so that attachments spread
	Boot       uint64   // random, anew each time the process starts
	Timers
}

// Timers are the times of the rules. Zero fields mean the defaults. All gateways of an attachment should have the same; a longer
// Lease of another one is respected.
type Timers struct {
	Hello    time.Duration // between two hellos
	Lease    time.Duration // for how long a hello lets its sender forward; whole milliseconds
	Margin   time.Duration // for how much longer the others keep off
	Alive    time.Duration // after this silence a gateway is not asked for acknowledgements
	Hold     time.Duration // how long one listens that has started, or has let its lease run out
	Settle   time.Duration // how long a better gateway must have been ready before the forwarder makes way
	Patience time.Duration // how long one that starts waits for its state
}

// DefaultTimers are the timers of a gateway whose settings say nothing.
func DefaultTimers() Timers {
	const ms = time.Millisecond
	return Timers{
		Hello: 100 * ms, Lease: 400 * ms, Margin: 100 * ms, Alive: 250 * ms, Hold: 600 * ms, Settle: time.Second, Patience: 30 * time.Second,
	}
}

// maxLease is the longest lease (PROTOCOL: a lease of half a second at most; longer ones are for tests on slow machines).
const maxLease = 10 * time.Second

// fill puts the defaults in place of zeros.
func (t *Timers) fill() {
	d := DefaultTimers()
	for _, f := range []struct{ at, from *time.Duration }{
		{&t.Hello, &d.Hello},
		{&t.Lease, &d.Lease},
		{&t.Margin, &d.Margin},
		{&t.Alive, &d.Alive},
		{&t.Hold, &d.Hold},
		{&t.Settle, &d.Settle},
		{&t.Patience, &d.Patience},
	} {
		if *f.at == 0 {
			*f.at = *f.from
		}
	}
}

// check says which timers would make the rules unsafe, or hold up everybody.
func (t *Timers) check() error {
	switch {
	case t.Hello < time.Millisecond:
		return fmt.Errorf("election: hello is %v; it must be 1 ms or more", t.Hello)
	case t.Lease%time.Millisecond != 0 || t.Lease > maxLease:
		return fmt.Errorf("election: lease is %v; it must be whole milliseconds, %v at most", t.Lease, maxLease)
	case t.Margin <= t.Hello/2:
		return fmt.Errorf("election: margin is %v; it must be more than half of hello (%v), or no time counts as listened", t.Margin, t.Hello)
	case t.Alive <= t.Hello || t.Alive >= t.Lease:
		return fmt.Errorf("election: alive is %v; it must lie between hello (%v) and lease (%v)", t.Alive, t.Hello, t.Lease)
	case t.Hold < t.Lease+t.Margin:
		return fmt.Errorf("election: hold is %v; it must be lease and margin (%v) or more", t.Hold, t.Lease+t.Margin)
	case t.Settle < 0 || t.Patience < 0:
		return fmt.Errorf("election: settle is %v and patience %v; neither may be negative", t.Settle, t.Patience)
	}
	return nil
}

// checkGateways says what is wrong with who takes part.
func checkGateways(self uint32, others []uint32) error {
	if len(others) > MaxGateways {
		return fmt.Errorf("election: %d other gateways; an attachment has %d at most", len(others), MaxGateways)
	}
	if slices.Contains(others, self) || slices.Contains(others, 0) {
		return fmt.Errorf("election: the other gateways are %v; neither 0 nor this node (%d) may be among them", others, self)
	}
	return nil
}

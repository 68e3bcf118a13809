package lacp

import (
	"fmt"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Times of the protocol (section 6.4.4).
const (
	fastPeriodic = time.Second
	slowPeriodic = 30 * time.Second
	shortTimeout = 3 * time.Second
	waitWhile    = 2 * time.Second // Aggregate_Wait_Time
)

// SilentFor is how long a switch may say nothing before it is taken for one that does not speak LACP: three times what it may leave between
// two LACPDUs.
const SilentFor = 3 * slowPeriodic

// maxSent is how many LACPDUs are sent in fastPeriodic (section 6.4.16), and maxMarkers how many markers are answered: together no
// more than a slow protocol may send (IEEE 802.3 annex 57A.2).
const (
	maxSent    = 3
	maxMarkers = 5
)

// Config says who an actor is.
type Config struct {
	System       System    // the same at all gateways of an attachment
	Key          uint16    // the same; not 0
	Port         uint16    // another at each; not 0
	PortPriority uint16    // which of several ports a switch prefers that can take only some; lower is better
	MAC          ether.MAC // from which it sends
}

// Conditions are what a port depends on.
type Conditions struct {
	Enabled bool // there is a carrier
	Ready   bool // this gateway could carry frames
}

// Port is one end of a cable. One goroutine at a time may call it, with times that do not go back.
type Port struct {
	cfg  Config
	now  Conditions
	left bool

	actor, partner End
	receive        receive
	currentUntil   time.Time // when what was heard is too old: the receive machine's timer
	mux            mux
	selected       bool
	waitUntil      time.Time
	known          bool // the last LACPDU named this port as its partner

	ntt      bool      // something is to be said
	periodic time.Time // when the next LACPDU is due
	sent     rate
	marked   rate
	out      [][]byte

	listens time.Time // since when a LACPDU could have come
	heard   time.Time // when one of another system came last
	stats   Stats
}

// Stats count a port's frames.
type Stats struct {
	Heard, Sent uint64 // LACPDUs
	Markers     uint64 // that were answered
	Refused     uint64 // that were malformed, of another slow protocol, or too many
}

// New makes a port that has heard nothing yet, and is neither enabled nor ready.
func New(cfg Config) (*Port, error) {
	if cfg.Key == 0 || cfg.Port == 0 || !cfg.System.MAC.IsStation() || !cfg.MAC.IsStation() {
		return nil, fmt.Errorf("lacp: port %d, key %d, system %v, MAC %v; need numbers other than 0, and addresses of stations",
			cfg.Port, cfg.Key, cfg.System, cfg.MAC)
	}
	p := &Port{cfg: cfg}
	p.actor = End{
		System: cfg.System, Key: cfg.Key, PortPriority: cfg.PortPriority, Port: cfg.Port, State: Activity | ShortTimeout | Aggregation,
	}
	p.recordDefault() // BEGIN (section 6.4.12)
	return p, nil
}

// SetConditions says what the port depends on.
func (p *Port) SetConditions(c Conditions, now time.Time) {
	c.Ready = c.Ready && !p.left
	if !p.now.Enabled {
		p.listens = now
	}
	p.now = c
	p.run(now)
}

// Leave says for good that this gateway does not carry frames any more.
func (p *Port) Leave(now time.Time) {
	p.left = true
	p.SetConditions(p.now, now)
}

// Hear takes a frame for which Is holds. What it refuses changes nothing but a counter.
func (p *Port) Hear(frame []byte, now time.Time) error {
	err := p.hear(frame[ether.HeaderLen:], now)
	if err != nil {
		p.stats.Refused++
	}
	return err
}

func (p *Port) hear(b []byte, now time.Time) error {
	switch {
	case !p.now.Enabled:
		return nil // it came before the carrier was lost
	case b[0] == subtypeMarker:
		return p.mark(b, now)
	case b[0] != subtypeLACP:
		return ErrSubtype
	}
	pdu, err := ParsePDU(b)
	if err != nil {
		return err
	}
	p.stats.Heard++
	p.hearPDU(&pdu, now)
	p.run(now)
	return nil
}

func (p *Port) mark(b []byte, now time.Time) error {
	frame, err := answer(b, p.cfg.MAC)
	if err != nil {
		return err
	}
	if _, ok := p.marked.take(maxMarkers, now); !ok {
		return ErrMany
	}
	p.stats.Markers++
	p.out = append(p.out, frame)
	return nil
}

// Tick lets time pass. It returns the frames that are to be sent, and when it must be called next at the latest.
func (p *Port) Tick(now time.Time) (frames [][]byte, next time.Time) {
	p.run(now)
	next = p.transmit(now, now.Add(slowPeriodic))
	for _, at := range []struct {
		runs bool
		due  time.Time
	}{
		{p.now.Enabled, p.periodic},
		{p.receive == current || p.receive == expired, p.currentUntil},
		{p.mux == waiting, p.waitUntil},
	} {
		if at.runs && at.due.Before(next) {
			next = at.due
		}
	}
	frames, p.out = p.out, nil
	return frames, next
}

// run lets all machines make the steps that they can.
func (p *Port) run(now time.Time) {
	p.runReceive(now)
	p.runMux(now) // an aggregation that has become another one is left before the next is joined
	p.choose()
	p.runMux(now)
	p.runPeriodic(now)
}

// runPeriodic is the periodic transmission machine (section 6.4.13). The actor is active, so it speaks while there is a carrier.
func (p *Port) runPeriodic(now time.Time) {
	interval := slowPeriodic
	if p.partner.State&ShortTimeout != 0 {
		interval = fastPeriodic
	}
	// Also when the partner has just asked for the short timeout: then what is due lies too far away.
	if !now.Before(p.periodic) || p.periodic.Sub(now) > interval {
		p.ntt, p.periodic = true, now.Add(interval)
	}
}

// transmit says what is to be said (section 6.4.16), or returns when that may be. Who leaves does not wait: it is not there any more then.
func (p *Port) transmit(now, next time.Time) time.Time {
	if !p.ntt || !p.now.Enabled {
		return next
	}
	if at, ok := p.sent.take(maxSent, now); !ok && !p.left {
		return at
	}
	p.ntt = false
	p.stats.Sent++
	pdu := PDU{p.actor, p.partner}
	p.out = append(p.out, pdu.AppendFrame(make([]byte, 0, ether.HeaderLen+pduLen), p.cfg.MAC))
	return next
}

// rate holds frames to a number in a second.
type rate struct{ at []time.Time }

// take takes the place of one frame, or says when there is one.
func (r *rate) take(most int, now time.Time) (time.Time, bool) {
	for len(r.at) > 0 && now.Sub(r.at[0]) >= fastPeriodic {
		r.at = r.at[1:]
	}
	if len(r.at) >= most {
		return r.at[0].Add(fastPeriodic), false
	}
	r.at = append(r.at, now)
	return now, true
}

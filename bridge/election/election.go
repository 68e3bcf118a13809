package election

import (
	"errors"
	"math"
	"sync/atomic"
	"time"
)

// remembered is how many own hellos are remembered by when they were sent. They are at least a tenth of Hello apart, or a
// change of state each; what is acknowledged later than that extends nothing anyway.
const remembered = 64

// Election is one attachment's election, seen from one gateway. One goroutine at a time may call it, and with times that do not
// go back; Forwards may be called by anybody at any time.
type Election struct {
	cfg      Config
	gateways map[uint32]*gateway
	cond     Conditions

	base    time.Time     // when it was made
	entered time.Time     // when it was called last, and
	woken   time.Time     // when for the last time after a while in which hellos may have come unread
	heard   time.Duration // how long it has listened: since base, less the gaps between calls
	hold    time.Duration // of heard: when it may claim, and
	quiet   time.Duration // when a gateway that was removed no longer forbids it

	left     bool
	able     bool
	claims   bool
	granted  bool
	claimSeq uint64        // the first hello of the present claim
	claimed  time.Duration // of heard: when it was made
	until    time.Time     // end of the lease, while granted
	lease    atomic.Int64  // the same as time since base, for Forwards
	holder   *gateway      // to whom a promise was given last

	seq  uint64
	sent time.Time             // when the last hello was sent
	at   [remembered]time.Time // when hellos were sent, by sequence
	due  time.Time             // of the next one

	last   Event
	events []Event
}

// gateway is another gateway, as far as it was heard. Durations are of Election.heard.
type gateway struct {
	node   uint32
	hello  Hello // its newest one
	at     [2]time.Time
	last   time.Duration // when the newest hello was heard
	steady time.Duration // since when it has been fit to be chosen

	bound     time.Duration // until when its claim was promised not to be contested
	claimBoot uint64        // the run that has claimed

	acked  uint64    // the newest hello of the present run that it has acknowledged
	anchor time.Time // when that was sent
	hears  time.Time // when the newest was sent that it has acknowledged in any way
}

// Conditions are what a forwarder needs.
type Conditions struct {
	Carrier bool // the port can carry frames: link up, neither shut nor blocked
	Synced  bool // this gateway has its state since it has started
	Peer    bool // a peer in the overlay is alive that is no gateway of this attachment, and no link is waited for
	Peers   bool // there are such peers
}

// New makes an election that begins at now. It waits at first.
func New(cfg Config, now time.Time) (*Election, error) {
	cfg.fill()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Attachment == 0 || cfg.Node == 0 {
		return nil, errors.New("election: attachment and node must have numbers")
	}
	e := &Election{cfg: cfg, base: now, entered: now, woken: now, due: now, hold: cfg.Hold, gateways: make(map[uint32]*gateway)}
	e.lease.Store(math.MinInt64)
	return e, e.SetGateways(cfg.Gateways, now)
}

// Forwards reports whether this gateway may forward at now. It is asked for each batch of frames, with the time at which the
// batch begins.
func (e *Election) Forwards(now time.Time) bool { return int64(now.Sub(e.base)) < e.lease.Load() }

// SetGateways says which other gateways the attachment has.
func (e *Election) SetGateways(nodes []uint32, now time.Time) error {
	if err := checkGateways(e.cfg.Node, nodes); err != nil {
		return err
	}
	e.enter(now)
	keep := make(map[uint32]*gateway, len(nodes))
	for _, n := range nodes {
		if keep[n] = e.gateways[n]; keep[n] == nil {
			// It may have been there before we were told, so it is taken for one that was heard just now.
			keep[n] = &gateway{node: n, last: e.heard, anchor: e.sent}
		}
	}
	for n, g := range e.gateways {
		if keep[n] == nil {
			e.quiet = max(e.quiet, g.bound)
		}
	}
	e.gateways = keep
	e.judge(now)
	return nil
}

// Leave ends this gateway's part, and makes a hello due that says so: send what Tick returns, and another takes over at once.
func (e *Election) Leave(now time.Time) {
	e.enter(now)
	e.left = true
	e.judge(now)
	e.due = now
}

// SetConditions says what this gateway has of what a forwarder needs.
func (e *Election) SetConditions(c Conditions, now time.Time) {
	e.enter(now)
	e.cond = c
	e.judge(now)
}

// SetPreference changes how much this gateway is preferred.
func (e *Election) SetPreference(p uint16, now time.Time) {
	e.enter(now)
	e.cfg.Preference = p
	e.judge(now)
}

// Tick lets time pass. It returns a hello if one is due, for every other gateway and on both channels, and when it must be called
// next at the latest. Call it after every Hear and every change, too: they may have made a hello due.
func (e *Election) Tick(now time.Time) (hello []byte, next time.Time) {
	e.enter(now)
	e.judge(now)
	if !now.Before(e.due) {
		hello = e.send(now)
		e.renew(now)
	}
	next = earlier(e.due, now.Add(e.cfg.Hello/2))
	if !e.granted && e.able && !e.awake() {
		next = earlier(next, now.Add(e.cfg.Hello/20))
	}
	return hello, next
}

// enter is what every call does first.
func (e *Election) enter(now time.Time) {
	if gap := now.Sub(e.entered); gap > 0 {
		e.entered = now
		// Rule 8: hellos may lie unread that came in the gap.
		if gap <= e.cfg.Margin {
			e.heard += gap
		}
		if gap > e.cfg.Hello/4 {
			e.woken = now
		}
		if gap >= e.cfg.Alive { // rule 9: the others do without it by now
			e.hold = max(e.hold, e.heard+e.span())
		}
	}
	// Rule 7: asked before anything can renew it.
	if e.granted && !now.Before(e.until) {
		e.release(RunOut, 0)
		e.hold = e.heard + e.cfg.Hold
	}
}

// awake reports whether there was time to read what came before this call.
func (e *Election) awake() bool { return e.entered.Sub(e.woken) >= e.cfg.Hello/20 }

// send makes the next hello. Who has no other gateway sends nothing, and lives by the same rules.
func (e *Election) send(now time.Time) []byte {
	e.seq++
	e.sent, e.at[e.seq%remembered] = now, now
	e.due = now.Add(e.cfg.Hello)
	if len(e.gateways) == 0 {
		return nil
	}
	h := Hello{
		Attachment: e.cfg.Attachment, Node: e.cfg.Node, Preference: e.cfg.Preference, Lease: e.cfg.Lease,
		Claims: e.claims, Able: e.able, Ready: e.ready(), Heard: e.heardByAll(), Leaves: e.left, Boot: e.cfg.Boot, Sequence: e.seq,
	}
	for _, g := range e.gateways {
		if e.promises(g) {
			h.Acks = append(h.Acks, Ack{g.node, g.hello.Boot, g.hello.Sequence})
		}
		if g.hello.Claims && e.alive(g) {
			// Its next hello is answered at once, so that what it sends and what is sent by time do not double.
			e.due = now.Add(e.cfg.Hello + e.cfg.Hello/4)
		}
	}
	return h.AppendTo(make([]byte, 0, headerLen+len(h.Acks)*ackLen))
}

// soon makes a hello due, but no more than ten in the time of one.
func (e *Election) soon(now time.Time) {
	e.due = earlier(e.due, later(now, e.sent.Add(e.cfg.Hello/10)))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

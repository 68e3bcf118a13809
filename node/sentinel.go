package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/bridge/probe"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
	"github.com/etherloom/etherloom/transport"
)

// formatHello is the third format of what crosses the door: a hello of package bridge/election, behind four bytes. The segment is of
// no interest.
const (
	formatHello = 3
	helloHead   = 4
)

// sentinel watches the attached ports of this gateway: which of them carries its VLAN's frames (package election), and whether a VLAN
// leads back to where it came from (package probe). One that must not carry frames is closed by its gate.
type sentinel struct {
	d         *Daemon
	boot      uint64
	poke      chan struct{}
	news      chan struct{} // for follow: something may have happened
	suspected atomic.Bool   // a frame seems to go round
	looping   atomic.Int64  // when a probe has last come by a loop; nanoseconds since 1970

	mu    sync.Mutex // held across sending, and never across Daemon.mu
	guard *probe.Guard
	posts map[policy.Identity]*post // by attachment

	draining    bool                       // about to stop
	aggregators map[*trunk]*aggregator     // of NICs that speak LACP
	names       map[policy.Identity]string // of the other gateways
	lane        vswitch.Lane
	sender      *transport.Sender // nil while run does not
}

// post is one port that is watched.
type post struct {
	a        *attachment
	others   []policy.Identity // the other gateways
	election *election.Election
	probe    *probe.Port
	began    time.Time // when its ability was asked for first
	opened   bool      // its links have been open since
	linked   time.Time // when a peer was alive last
	cut      bool      // no peer answers, although the VLAN shows that another gateway lives
	asking   bool      // somebody finds out
	asked    time.Time // when that was begun last
	showing  showing
	happened []election.Event // that follow has yet to act on
	sharing  sharing
	lag      lag
}

func newSentinel(d *Daemon) (*sentinel, error) {
	var boot [8]byte
	_, _ = rand.Read(boot[:])
	s := &sentinel{d: d, boot: binary.BigEndian.Uint64(boot[:]), poke: make(chan struct{}, 1), news: make(chan struct{}, 1), posts: map[policy.Identity]*post{}, aggregators: map[*trunk]*aggregator{}, names: map[policy.Identity]string{}}
	var err error
	s.guard, err = probe.New(probe.Config{Node: uint32(d.member.ID), Boot: s.boot}, time.Now())
	return s, err
}

// add watches an attachment, and closes its port until it may carry frames.
func (s *sentinel) add(a *attachment, w *controlv1.Attachment, others []policy.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	p := &post{a: a, lag: lag{heard: map[policy.Identity]heardPartner{}}}
	var err error
	p.probe, err = s.guard.Add(probe.Attached{
		VNI: uint32(a.seg.vni), Attachment: uint32(a.id), MAC: probeMAC(s.d.self(), a.id), Key: w.GetProbeKey(),
	}, now)
	if err != nil {
		return err
	}
	p.election, err = election.New(election.Config{
		Attachment: uint32(a.id), Node: uint32(s.d.self()), Boot: s.boot, Timers: s.d.cfg.election(),
	}, now)
	if err != nil {
		s.guard.Remove(uint32(a.id))
		return err
	}
	s.posts[a.id] = p
	a.port.SetLead(p.election.Forwards)
	a.port.SetGate(func(now time.Time) bool { return (p.election.Forwards(now) || a.port.Together()) && !p.probe.Blocked() })
	return s.setLocked(p, w, others, now)
}

// set says anew what is known of an attachment that is watched.
func (s *sentinel) set(a *attachment, w *controlv1.Attachment, others []policy.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[a.id]
	if p == nil {
		return nil
	}
	return s.setLocked(p, w, others, time.Now())
}

func (s *sentinel) setLocked(p *post, w *controlv1.Attachment, others []policy.Identity, now time.Time) error {
	defer s.wake()
	p.others = others
	p.sharing.wanted, p.lag.on = w.GetRedundancy() == allActive, w.GetLacp()
	nodes := make([]uint32, 0, len(others))
	for _, id := range others {
		nodes = append(nodes, uint32(id))
		s.names[id] = partyOf(s.d.contents, id).Name
	}
	p.election.SetPreference(uint16(w.GetPreference()), now) //nolint:gosec // checked by control/state
	return p.election.SetGateways(nodes, now)
}

// remove takes leave of the others, who need not wait then.
func (s *sentinel) remove(a *attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[a.id]
	if p == nil || p.a != a {
		return
	}
	now := time.Now()
	p.election.Leave(now)
	if hello, _ := p.election.Tick(now); hello != nil {
		s.helloLocked(p, hello, now)
	}
	if s.sender != nil {
		s.sender.Flush()
	}
	s.guard.Remove(uint32(a.id))
	a.port.SetTogether(false)
	delete(s.posts, a.id)
}

// probeMAC is from where a port's probes are: nobody else's, and the same over restarts.
func probeMAC(node, attachment policy.Identity) ether.MAC {
	h := sha256.Sum256(fmt.Appendf(nil, "etherloom probe %d %d", node, attachment))
	mac := ether.MAC(h[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// isProbe reports whether a frame is for the sentinel alone.
func isProbe(frame []byte) bool {
	return len(frame) >= ether.HeaderLen && ether.MAC(frame[:6]) == probe.Group()
}

// hear takes a probe from a VLAN.
func (s *sentinel) hear(a *attachment, frame []byte, now time.Time) {
	f, err := ether.Parse(frame)
	if err != nil || !probe.Is(&f) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[a.id]
	if p == nil {
		return
	}
	heard, err := s.guard.Hear(uint32(a.id), &f, now)
	if err != nil {
		return // the guard has counted it
	}
	if heard.Loop {
		s.looping.Store(now.UnixNano())
	}
	if heard.Node != 0 {
		// Who was removed, and does not know it, still has the key: that it is heard says nothing of the switch's aggregation.
		if slices.Contains(p.others, policy.Identity(heard.Node)) {
			p.sharing.hearVLAN(now)
		}
		s.hearLocked(p, policy.Identity(heard.Node), election.VLAN, heard.Hello, now)
	}
	s.wake()
}

// hello takes one that came over the overlay.
func (s *sentinel) hello(from identity.ID, message []byte, now time.Time) {
	if len(message) < helloHead {
		return
	}
	h, err := election.ParseHello(message[helloHead:])
	if err != nil {
		s.d.malformed.Add(1)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.posts[policy.Identity(h.Attachment)]; p != nil {
		s.hearLocked(p, policy.Identity(from), election.Overlay, message[helloHead:], now)
	}
}

func (s *sentinel) hearLocked(p *post, from policy.Identity, by election.Channel, body []byte, now time.Time) {
	if p.election.Hear(uint32(from), by, body, now) == nil { // others are of no concern: strangers, and what came late
		s.wake()
	}
}

func (s *sentinel) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// loopKnown is for how long a loop is known of after a probe has come by it: until the next one may come.
const loopKnown = 2 * probe.DefaultInterval

// look looks for loops at once, because a frame seems to go round. It reports whether one is known, and does not block.
func (s *sentinel) look() bool {
	s.suspected.Store(true)
	s.wake()
	return time.Since(time.Unix(0, s.looping.Load())) < loopKnown
}

// run lets time pass for elections and probes, until the daemon stops.
func (s *sentinel) run(ctx context.Context) error {
	lane, ok := s.d.lanes.take(0)
	if !ok {
		return fmt.Errorf("too many goroutines carry frames: lower tap.queues")
	}
	sender, err := s.d.endpoint.NewSender(0)
	if err != nil {
		s.d.lanes.release(lane)
		return err
	}
	s.mu.Lock()
	s.lane, s.sender = lane, sender
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the port's own end takes leave, and close lets go of what it is sent with
		case <-timer.C:
		case <-s.poke:
		}
		next := s.step(time.Now())
		select {
		case s.news <- struct{}{}:
		default:
		}
		timer.Reset(time.Until(next))
	}
}

// follow does what follows from what has happened, until the daemon stops. It waits for Daemon.mu, which is held while NICs are taken and
// policy is compiled. Hellos cannot wait as long: the other gateways would take over.
func (s *sentinel) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.news:
			s.act(time.Now())
		}
	}
}

// close ends what hellos and probes are sent with. All ports have taken leave.
func (s *sentinel) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sender == nil {
		return
	}
	s.sender.Close()
	s.sender = nil
	s.d.lanes.release(s.lane)
}

// idleStep is how often run looks when nothing is due.
const idleStep = 200 * time.Millisecond

// step sends what is due, and says when to come again.
func (s *sentinel) step(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	able := map[*post]election.Conditions{}
	for _, p := range s.posts {
		able[p] = s.conditions(p, now)
	}
	next := s.joinLocked(able, now)
	for _, p := range s.posts {
		c := able[p]
		p.election.SetConditions(c, now)
		s.shareLocked(p, c, now)
		hello, due := p.election.Tick(now)
		if hello != nil {
			s.helloLocked(p, hello, now)
		}
		next = earlier(next, due)
		if due := s.showLocked(p, now); !due.IsZero() {
			next = earlier(next, due)
		}
		p.happened = append(p.happened, p.election.Events()...)
	}
	if s.suspected.Swap(false) {
		s.guard.Hurry(now)
	}
	frames, due := s.guard.Tick(now)
	for _, f := range frames {
		if p := s.posts[policy.Identity(f.Attachment)]; p != nil {
			s.sendLocked(p.a, f.Data)
		}
	}
	if s.sender != nil {
		s.sender.Flush()
	}
	if len(s.posts) == 0 {
		return next
	}
	return earlier(next, due)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// helloLocked says hello to the other gateways, by both ways.
func (s *sentinel) helloLocked(p *post, hello []byte, now time.Time) {
	if s.sender == nil || len(p.others) == 0 {
		return
	}
	s.overlayLocked(p, []byte{formatHello, 0, 0, 0}, hello)
	if frame, err := s.guard.Carry(uint32(p.a.id), hello, now); err == nil {
		s.sendLocked(p.a, frame)
	}
}

// overlayLocked sends a message to the other gateways.
func (s *sentinel) overlayLocked(p *post, head, body []byte) {
	if s.sender == nil {
		return
	}
	links := *p.a.seg.links.Load()
	for _, id := range p.others {
		if port := links[id]; port != nil {
			s.sender.Send(port.Egress().(*link).peer, head, body) //nolint:forcetypeassert // the ports of links
		}
	}
}

func (s *sentinel) sendLocked(a *attachment, frame []byte) {
	if s.sender != nil {
		a.put(frame, ether.Offload{}, s.lane)
	}
}

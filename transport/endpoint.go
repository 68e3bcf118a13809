package transport

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/identity"
)

// Receiver takes what peers send. Every receiving goroutine has one of its own, so that it can keep state without locks.
type Receiver interface {
	// Receive takes one message, as the peer's Sender.Send was given it. The bytes are borrowed until Receive returns.
	Receive(from identity.ID, message []byte, now time.Time)
	// Flush is called when nothing more has come with the messages before it.
	Flush(now time.Time)
	// Close is called when the goroutine ends.
	Close()
}

// Config is what an Endpoint is made of. Log may be nil; everything else must be set.
type Config struct {
	Network identity.NetworkID
	Self    identity.ID
	Keys    identity.NodeKeys
	AES     bool // this node's signed record says that it has the instructions

	Certificate func() *identity.Certificate         // the node's current leaf
	Verifier    func() *identity.Verifier            // judges the peers' leaves
	Signal      func(identity.ID, []byte)            // passes a sealed signal on through a controller; must not block
	Controlled  func() bool                          // whether a controller can be reached
	NewReceiver func(queue int) Receiver             // for a goroutine that begins to receive
	Listen      func(netip.AddrPort) (Socket, error) // opens an underlay socket: ListenUDP
	Port        uint16                               // of every underlay socket
	Queues      int                                  // sockets for each underlay address; 0: one

	Remembered Remembered       // what Remember was given last, in an earlier process
	Remember   func(Remembered) // keeps it on disk; called seldom, on the control goroutine

	Timers Timers
	Log    *slog.Logger
}

// Timers are how long things take. Zero fields mean the defaults.
type Timers struct {
	Idle    time.Duration // a link without a message is closed; default 5 minutes
	Probe   time.Duration // between probes of a path that carries data; default 500 ms
	Rekey   time.Duration // an epoch is replaced; default and at most 2 minutes
	PathMTU time.Duration // between searches for larger datagrams; default 1 minute
}

func (t *Timers) setDefaults() {
	if t.Idle == 0 {
		t.Idle = 5 * time.Minute
	}
	if t.Probe == 0 {
		t.Probe = 500 * time.Millisecond
	}
	if t.PathMTU == 0 {
		t.PathMTU = time.Minute
	}
	if t.Rekey == 0 || t.Rekey > rekeyAfter {
		t.Rekey = rekeyAfter
	}
}

// PeerConfig is what the signed state says of a peer.
type PeerConfig struct {
	ID             identity.ID
	Name           string
	Static         identity.StaticPublicKey
	AES            bool
	HandshakeNonce uint64
	RelaySlot      uint16 // its place at every relay; 0: none
}

// Endpoint is one node's end of all its links. Its exported methods may be called concurrently.
type Endpoint struct {
	cfg    Config
	log    *slog.Logger
	mux    *iceMux
	coarse atomic.Int64 // unix nanoseconds, at most a tick old

	epochs atomic.Pointer[map[uint32]*epoch] // by our index; replaced under mu
	counts counters

	wakeups    chan *Peer
	handshakes chan inbound // handshake messages for the control loop

	mu          sync.Mutex // guards everything below, and what Peer and Path say it guards
	running     *running
	peers       map[identity.ID]*Peer
	bySlot      map[uint16]*Peer
	initiations map[uint32]*Peer
	cold        map[string]*Peer // by the ICE user fragment of this side, attempt 0
	sockets     map[netip.Addr]*socketLoop
	relays      map[string]*relayClient
	avoid       []netip.Prefix
	paths       map[pathKey]*Path
	jar         cookieJar
	clock       monotone
	nonce       uint64 // own handshake nonce
	dirty       bool   // Remembered has changed
	control     *Sender
	shards      [controlShard]bool
}

// running is what goroutines need while Run runs.
type running struct {
	ctx   context.Context //nolint:containedctx // ends with Run, like the group
	group *errgroup.Group
}

// New returns an Endpoint that knows nobody. It opens no socket and starts nothing until Run.
func New(cfg Config) *Endpoint {
	cfg.Timers.setDefaults()
	cfg.Queues = max(cfg.Queues, 1)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Endpoint{
		cfg: cfg, log: cfg.Log,
		wakeups: make(chan *Peer, 256), handshakes: make(chan inbound, handshakeQueue),
		peers: make(map[identity.ID]*Peer), bySlot: make(map[uint16]*Peer), initiations: make(map[uint32]*Peer),
		cold: make(map[string]*Peer), sockets: make(map[netip.Addr]*socketLoop), relays: make(map[string]*relayClient),
		paths: make(map[pathKey]*Path), clock: resumeClock(cfg.Remembered.Clock),
	}
	e.mux = newICEMux(e.unknownFragment)
	e.epochs.Store(&map[uint32]*epoch{})
	e.coarse.Store(time.Now().UnixNano())
	e.control = &Sender{e: e, shard: controlShard, keys: make(map[*Peer]keyed)}
	return e
}

// Run carries data and control until ctx ends, then closes every link and socket.
func (e *Endpoint) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	e.mu.Lock()
	e.running = &running{ctx, group}
	for _, s := range e.sockets {
		e.startSocketLocked(s)
	}
	for _, r := range e.relays {
		e.startRelayLocked(r)
	}
	e.mu.Unlock()
	group.Go(func() error { return e.runControl(ctx) })
	<-ctx.Done()
	e.shutdown()
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (e *Endpoint) shutdown() {
	e.mu.Lock()
	now := time.Now()
	for _, p := range e.peers {
		e.closeLinkLocked(p, now, "the daemon is stopping")
	}
	for _, r := range e.relays {
		r.stop()
	}
	for _, s := range e.sockets {
		_ = s.close()
	}
	e.running = nil
	e.rememberLocked()
	e.mu.Unlock()
	e.mux.close()
}

// spawnLocked runs f while Run runs. Before and after, it does nothing.
func (e *Endpoint) spawnLocked(f func(context.Context)) {
	if r := e.running; r != nil {
		r.group.Go(func() error {
			f(r.ctx)
			return nil
		})
	}
}

// SetPeers replaces who is known. A peer that is no longer there is cut off at once; one whose key has changed is
// another peer.
func (e *Endpoint) SetPeers(list []PeerConfig) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	keep := make(map[identity.ID]bool, len(list))
	var errs []error
	for _, cfg := range list {
		keep[cfg.ID] = true
		p := e.peers[cfg.ID]
		if p != nil && (p.cfg.Static != cfg.Static || p.cfg.AES != cfg.AES) {
			e.removePeerLocked(p, now)
			p = nil
		}
		if p == nil {
			added, err := e.addPeerLocked(cfg)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			p = added
		}
		if p.cfg.RelaySlot != cfg.RelaySlot {
			delete(e.bySlot, p.cfg.RelaySlot)
		}
		p.cfg = cfg
		if cfg.RelaySlot != 0 {
			e.bySlot[cfg.RelaySlot] = p
		}
	}
	for id, p := range e.peers {
		if !keep[id] {
			e.removePeerLocked(p, now)
		}
	}
	return errors.Join(errs...)
}

// Peer returns a known peer, for Sender.Send; nil if it is not known.
func (e *Endpoint) Peer(id identity.ID) *Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.peers[id]
}

// SetAvoid names addresses that are no underlay: those of the overlay itself, or a tunnel would run inside itself.
func (e *Endpoint) SetAvoid(prefixes []netip.Prefix) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.avoid = prefixes
}

func (e *Endpoint) avoidedLocked(a netip.Addr) bool {
	for _, p := range e.avoid {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// SetHandshakeNonce sets the node's own nonce, as its signed record has it.
func (e *Endpoint) SetHandshakeNonce(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nonce = n
}

// SetIdle sets after how long without a message a link is closed.
func (e *Endpoint) SetIdle(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d > 0 {
		e.cfg.Timers.Idle = d
	}
}

// Discard drops every message that waits for a link to open: policy has changed, and they were judged by the old one.
func (e *Endpoint) Discard() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.peers {
		p.staged.take()
	}
}

// CloseExpired closes every link whose peer's certificate is no longer honoured: it has expired, or been revoked.
func (e *Endpoint) CloseExpired() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, p := range e.peers {
		e.checkCertificateLocked(p, now)
	}
}

// newIndexLocked returns a session index that nothing of this daemon uses.
func (e *Endpoint) newIndexLocked() uint32 {
	for {
		i := rand.Uint32() //nolint:gosec // unique, not secret: every use of an index is authenticated
		_, epoch := (*e.epochs.Load())[i]
		_, initiation := e.initiations[i]
		if i != 0 && !epoch && !initiation {
			return i
		}
	}
}

func (e *Endpoint) addEpochLocked(ep *epoch) {
	next := maps.Clone(*e.epochs.Load())
	next[ep.local] = ep
	e.epochs.Store(&next)
}

func (e *Endpoint) removeEpochLocked(ep *epoch) {
	if ep == nil {
		return
	}
	next := maps.Clone(*e.epochs.Load())
	delete(next, ep.local)
	e.epochs.Store(&next)
}

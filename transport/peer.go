package transport

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/etherloom/etherloom/identity"
)

// Peer is a remote node, known from the signed state, with or without an open link:
//
//	          Send, offer, wake,            a session           no message for Timers.Idle,
//	          initiation                    is confirmed        removed, certificate void
//	closed ---------------------> opening -------------> open -----------------------------> closed
type Peer struct {
	id     identity.ID
	party  party
	pair   *pair
	active atomic.Pointer[sending] // how to send now; nil: not at all
	staged stage
	rejoin rejoiner

	wanted   atomic.Int64 // coarse time of the last Send
	heard    atomic.Int64 // coarse time of the last message received
	sent     atomic.Uint64
	received atomic.Uint64
	sentB    atomic.Uint64
	recvB    atomic.Uint64

	// Guarded by Endpoint.mu.
	cfg      PeerConfig
	gone     bool
	link     linkState
	since    time.Time // of the link's state
	current  *epoch    // sends and receives
	previous *epoch    // still receives
	retire   time.Time // when previous ends
	pending  *epoch    // answered, not yet confirmed
	try      handshakeTry
	last     stamp // of the newest initiation accepted
	heardSig uint64
	signals  *rate.Limiter
	forwards *rate.Limiter
	ice      iceState
	direct   *Path
	relayed  map[string]*Path // by relay
	probes   map[uint64]probe
	why      string // the last reason why there is no session or no direct path
}

type linkState uint8

const (
	linkClosed linkState = iota
	linkOpening
	linkOpen
)

func (s linkState) String() string { return [...]string{"closed", "opening", "open"}[s] }

// sending is the pair of epoch and path that data goes by.
type sending struct {
	epoch *epoch
	path  *Path
}

// ID returns who the peer is.
func (p *Peer) ID() identity.ID { return p.id }

// Live reports whether there is a way to send to the peer now.
func (p *Peer) Live() bool { return p.active.Load() != nil }

func (e *Endpoint) addPeerLocked(cfg PeerConfig) (*Peer, error) {
	pr, err := newPair(e.cfg.Network, e.cfg.Keys, e.cfg.Self, cfg.ID, cfg.Static)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", cfg.Name, err)
	}
	p := &Peer{
		id: cfg.ID, cfg: cfg, pair: pr, relayed: make(map[string]*Path), probes: make(map[uint64]probe),
		party: party{
			network: e.cfg.Network, keys: e.cfg.Keys, remote: cfg.Static, suite: suiteOf(e.cfg.AES, cfg.AES),
			random: rand.Reader,
		},
		signals: rate.NewLimiter(5, 20), forwards: rate.NewLimiter(5, 20),
	}
	if r, ok := e.cfg.Remembered.Peers[cfg.ID]; ok {
		p.last = stamp{r.HandshakeNonce, r.HandshakeTime}
		p.heardSig = r.Signal
		p.ice.remote = r.Candidates
	}
	fragment, _, err := pr.iceCredentials(e.cfg.Self, 0)
	if err != nil {
		return nil, err
	}
	p.ice.coldFragment = fragment
	e.cold[fragment] = p
	e.peers[cfg.ID] = p
	return p, nil
}

func (e *Endpoint) removePeerLocked(p *Peer, now time.Time) {
	e.closeLinkLocked(p, now, "no grant is shared with this peer any more")
	p.gone = true
	delete(e.peers, p.id)
	delete(e.cold, p.ice.coldFragment)
	if e.bySlot[p.cfg.RelaySlot] == p {
		delete(e.bySlot, p.cfg.RelaySlot)
	}
}

// Bounds of what waits for a link to open.
const (
	stageMessages = 32
	stageBytes    = 64 << 10
	stageLife     = 3 * time.Second
)

// stage holds the few messages that were sent to a peer before its link was up, so that the first ping is not lost.
type stage struct {
	mu    sync.Mutex
	list  []stagedMessage
	bytes int
}

type stagedMessage struct {
	data []byte
	at   int64 // coarse time
}

// add keeps a copy of a message, if there is room.
func (s *stage) add(head, body []byte, now int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(head) + len(body)
	if len(s.list) > 0 && now-s.list[0].at > int64(stageLife) {
		s.list, s.bytes = nil, 0
	}
	if len(s.list) >= stageMessages || s.bytes+n > stageBytes {
		return false
	}
	data := append(append(make([]byte, 0, n), head...), body...)
	s.list, s.bytes = append(s.list, stagedMessage{data, now}), s.bytes+n
	return true
}

func (s *stage) take() []stagedMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list, s.bytes = nil, 0
	return list
}

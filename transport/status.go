package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// PeerStatus is what can be said of a peer now.
type PeerStatus struct {
	ID        identity.ID   `json:"id"`
	Name      string        `json:"name"`
	Link      string        `json:"link"` // closed, opening, open
	Since     time.Time     `json:"since"`
	Path      string        `json:"path"`            // direct, relayed, or empty
	Why       string        `json:"why,omitempty"`   // why not direct, or why not at all
	Address   string        `json:"address"`         // of the path in use
	Relay     string        `json:"relay,omitempty"` // of the path in use
	RTT       time.Duration `json:"rtt_ns"`          // of the path in use
	Suite     string        `json:"suite"`
	Handshake time.Time     `json:"handshake"` // when the present epoch was made; zero without one
	CertEnd   time.Time     `json:"certificate_expires"`
	NAT       string        `json:"nat"` // how the peer's NAT maps, as it says

	SentMessages     uint64 `json:"sent_messages"`
	SentBytes        uint64 `json:"sent_bytes"`
	ReceivedMessages uint64 `json:"received_messages"`
	ReceivedBytes    uint64 `json:"received_bytes"`

	Paths []PathStatus `json:"paths"`
}

// PathStatus is what can be said of one path.
type PathStatus struct {
	Kind    string        `json:"kind"` // direct or relayed
	Local   string        `json:"local,omitempty"`
	Remote  string        `json:"remote"`
	Relay   string        `json:"relay,omitempty"`
	Alive   bool          `json:"alive"`
	Shaky   bool          `json:"shaky"` // it loses so many probes that it is used only if there is no better one
	Loss    float64       `json:"loss"`  // of late: the part of its probes that got lost, 0 to 1
	InUse   bool          `json:"in_use"`
	RTT     time.Duration `json:"rtt_ns"`
	MTU     int           `json:"mtu"` // bytes of the largest IP packet that is known to pass, towards the peer
	Probes  uint64        `json:"probes"`
	Replies uint64        `json:"replies"`
}

// Peers describes every peer, by name.
func (e *Endpoint) Peers() []PeerStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]PeerStatus, 0, len(e.peers))
	for _, p := range e.peers {
		out = append(out, e.statusLocked(p))
	}
	slices.SortFunc(out, func(a, b PeerStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (e *Endpoint) statusLocked(p *Peer) PeerStatus {
	s := PeerStatus{
		ID: p.id, Name: p.cfg.Name, Link: p.link.String(), Since: p.since, Suite: p.party.suite.String(),
		NAT: p.ice.mapping.String(), SentMessages: p.sent.Load(), SentBytes: p.sentB.Load(),
		ReceivedMessages: p.received.Load(), ReceivedBytes: p.recvB.Load(), Paths: []PathStatus{},
	}
	if p.current != nil {
		s.Handshake, s.CertEnd = p.current.created, p.current.cert.NotAfter
	}
	way := p.active.Load()
	for _, path := range p.pathsLocked() {
		ps := PathStatus{
			Kind: "direct", Remote: path.addr.String(), Relay: path.relay, Alive: path.alive, Shaky: path.shaky, Loss: path.loss,
			InUse: way != nil && way.path == path, RTT: path.rtt, MTU: path.size.mtu(), Probes: path.sent, Replies: path.back,
		}
		if path.relay != "" {
			ps.Kind = "relayed"
		} else {
			ps.Local = path.local.String()
		}
		if ps.InUse {
			s.Path, s.Address, s.Relay, s.RTT = ps.Kind, ps.Remote, ps.Relay, ps.RTT
		}
		s.Paths = append(s.Paths, ps)
	}
	s.Why = e.whyLocked(p, s.Path)
	return s
}

// whyLocked says why a peer is not reached directly, or not at all.
func (e *Endpoint) whyLocked(p *Peer, path string) string {
	switch {
	case path == "direct":
		return ""
	case path == "relayed":
		return e.whyRelayedLocked(p)
	case p.link == linkClosed:
		return p.why
	case p.why != "":
		return p.why
	case len(p.pathsLocked()) > 0:
		return "no answer to handshakes yet: the peer is down, or does not know this node's present key"
	}
	return "no path: " + e.whyRelayedLocked(p) + "; " + e.whyNoRelayLocked()
}

func (e *Endpoint) whyRelayedLocked(p *Peer) string {
	_, own := e.localLocked()
	switch {
	case p.direct != nil && p.direct.alive && p.direct.shaky:
		return fmt.Sprintf("the direct path loses %.0f %% of its probes", 100*p.direct.loss)
	case own == MappingBlocked:
		return "UDP to the relays is blocked here, so nothing can be sent directly"
	case own == MappingDependent && p.ice.mapping == MappingDependent:
		return "the NATs on both sides give each destination another port (symmetric), so holes cannot be punched"
	case own == MappingDependent:
		return "the NAT of this site gives each destination another port (symmetric), so a hole cannot be punched"
	case p.ice.mapping == MappingDependent:
		return "the NAT of the peer's site gives each destination another port (symmetric), so a hole cannot be punched"
	case len(p.ice.remote) == 0:
		return "the peer has not said yet where it can be reached"
	case p.ice.agent != nil && !p.ice.connected:
		return fmt.Sprintf("still looking for a direct path, %d addresses of the peer to try", len(p.ice.remote))
	case p.ice.failed:
		return fmt.Sprintf("none of the peer's %d addresses answered: a firewall drops UDP between the two, "+
			"or a NAT that accepts packets to itself spoils hole punching", len(p.ice.remote))
	case p.why != "":
		return p.why
	}
	return "the direct path has not answered yet"
}

func (e *Endpoint) whyNoRelayLocked() string {
	if len(e.relays) == 0 {
		return "there is no relay"
	}
	for name, r := range e.relays {
		if r.why != "" {
			return fmt.Sprintf("relay %s is down: %s", name, r.why)
		}
	}
	return "the peer has no place at a relay"
}

// RelayStatus is what can be said of a relay.
type RelayStatus struct {
	Name   string `json:"name"`
	Server string `json:"server"`
	Up     bool   `json:"up"`
	Why    string `json:"why,omitempty"`
}

// Relays describes every relay, by name.
func (e *Endpoint) Relays() []RelayStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []RelayStatus{}
	for name, r := range e.relays {
		s := RelayStatus{Name: name, Up: r.conn.Load() != nil && r.why == "", Why: r.why}
		if r.server.IsValid() {
			s.Server = r.server.String()
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b RelayStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// UnderlayStatus is where this node can be reached from outside.
type UnderlayStatus struct {
	Local  string   `json:"local"`
	Mapped []string `json:"mapped"` // as relays see it
	NAT    string   `json:"nat"`

	Queues        int  `json:"queues"`         // sockets that share the port
	ReceiveBuffer int  `json:"receive_buffer"` // bytes of each socket
	SendBuffer    int  `json:"send_buffer"`    // bytes of each socket
	Segmentation  bool `json:"segmentation"`   // the kernel, or the device, cuts datagrams (UDP_SEGMENT)
}

// SocketBuffer is what is asked of the kernel for each socket and direction, in bytes.
const SocketBuffer = socketBuffer

// Underlay describes the underlay sockets.
func (e *Endpoint) Underlay() []UnderlayStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []UnderlayStatus{}
	for _, s := range e.sockets {
		u := UnderlayStatus{Local: s.local.String(), Mapped: []string{}, NAT: s.mapping.class(s.local).String()}
		u.Queues = len(s.sockets)
		if socket, ok := s.sockets[0].(*udpSocket); ok {
			a := socket.abilities()
			u.ReceiveBuffer, u.SendBuffer, u.Segmentation = a.receive, a.send, a.segments
		}
		for _, m := range s.mapping.mapped() {
			u.Mapped = append(u.Mapped, m.String())
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b UnderlayStatus) int { return cmp.Compare(a.Local, b.Local) })
	return out
}

// Drops counts datagrams and messages that went nowhere, by reason.
func (e *Endpoint) Drops() map[string]uint64 {
	c := &e.counts
	return map[string]uint64{
		"link-not-open": c.unstaged.Load(), "not-sent": c.unsent.Load(), "foreign": c.foreign.Load(),
		"no-session": c.noSession.Load(), "does-not-open": c.unopened.Load(), "replayed": c.replayed.Load(),
		"bad-record": c.badRecord.Load(), "handshake-queue": c.handshakesLost.Load(),
		"handshake-refused": c.handshakesRefused.Load(), "signal-refused": c.signalsRefused.Load(),
		"cookie-sent": c.cookies.Load(),
	}
}

// DropText says in one line what a key of Drops means.
func DropText(key string) string {
	return map[string]string{
		"link-not-open":     "the link was not open and too much waited for it already",
		"not-sent":          "the kernel refused to send, or the key was used up",
		"foreign":           "a datagram from an address that is no path of a peer, or of another protocol",
		"no-session":        "a datagram for a session that is over, or never was",
		"does-not-open":     "a datagram that was forged or damaged",
		"replayed":          "a datagram that had arrived before, or was too old to tell",
		"bad-record":        "a sealed record that makes no sense: a peer with a bug",
		"handshake-queue":   "more handshake messages than can be handled",
		"handshake-refused": "a handshake that was not believed",
		"signal-refused":    "a signal that was old, forged, or one too many",
		"cookie-sent":       "a handshake answered with a cookie, because of load",
	}[key]
}

// Ping measures the round trip to a peer by a sealed probe on every path it has, and returns when all have answered or
// ctx ends. It opens the link if need be.
func (e *Endpoint) Ping(ctx context.Context, id identity.ID) ([]PingResult, error) {
	p := e.Peer(id)
	if p == nil {
		return nil, ErrUnknownPeer
	}
	for {
		paths, waits := e.beginPing(p)
		if len(paths) > 0 {
			return collect(ctx, paths, waits), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no session with %s: %s", p.cfg.Name, e.why(p))
		case <-time.After(tick):
		}
	}
}

// ErrUnknownPeer means that the signed state names no such peer.
var ErrUnknownPeer = errors.New("no such peer: this node shares no grant with it")

// PingResult is one path's answer.
type PingResult struct {
	Path string        `json:"path"`
	RTT  time.Duration `json:"rtt_ns"`
	Lost bool          `json:"lost"`
}

func (e *Endpoint) why(p *Peer) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.statusLocked(p).Why
}

func (e *Endpoint) beginPing(p *Peer) (paths []string, waits []chan time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	p.wanted.Store(now.UnixNano())
	e.openLocked(p, now)
	if p.current == nil {
		return nil, nil
	}
	for _, path := range p.pathsLocked() {
		done := make(chan time.Duration, 1)
		e.probeLocked(path, now, done)
		paths, waits = append(paths, path.String()), append(waits, done)
	}
	return paths, waits
}

func collect(ctx context.Context, paths []string, waits []chan time.Duration) []PingResult {
	out := make([]PingResult, len(paths))
	for i := range paths {
		out[i] = PingResult{Path: paths[i], Lost: true}
		select {
		case rtt := <-waits[i]:
			out[i].RTT, out[i].Lost = rtt, false
		case <-ctx.Done():
		}
	}
	return out
}

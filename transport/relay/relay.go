// Package relay is a switchboard for nodes that cannot reach each other: a TURN server (RFC 8656) that passes datagrams
// between its own allocations and to nowhere else.
//
//	                    +----------------------- relay ------------------------+
//	node a ==UDP==> 3478| allocation, slot 7 ----label:9----> allocation, slot 9|==UDP==> node b
//	                    +------------------------------------------------------+
//
// An allocation has no socket. Its relayed address is a label (192.0.0.8, the IPv4 dummy address of RFC 7600, which
// appears on no wire) and, as its port, the slot that the node's credential names. So a peer's relayed address is known
// before it exists and stays the same over restarts; and the relay cannot be made to send anything to anybody but a node
// that has authenticated: it is no open relay, whatever the credentials.
//
// What passes is sealed between the nodes; the relay sees lengths, times and slots. It answers STUN binding requests from
// anybody, so that nodes learn how their NAT maps, on two ports; it answers nothing shorter than its answer (Pad), so it
// amplifies nothing.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"golang.org/x/sync/errgroup"
)

// Realm is the TURN realm.
const Realm = "etherloom"

// Label is the address part of every relayed address.
func Label() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 8}) }

// MinRequest is the length, in bytes, below which a STUN request gets no answer. The longest answer to a request without
// credentials, an error with realm and nonce, is shorter.
const MinRequest = 200

// Pad appends zeros to a STUN request that is too short for a relay to answer. Anything else it returns as it is.
func Pad(b []byte) []byte {
	if len(b) < 20 || len(b) >= MinRequest || !isRequest(b) {
		return b
	}
	return append(append(make([]byte, 0, MinRequest), b...), make([]byte, MinRequest-len(b))...)
}

// isRequest reports whether b is a STUN message whose class is request (RFC 8489 section 5).
func isRequest(b []byte) bool { return b[0]&0xc1 == 0 && b[1]&0x10 == 0 }

// Config is what a relay needs. Log may be nil.
type Config struct {
	// Authenticate says which slot a user name stands for and what its password is.
	Authenticate func(username string, now time.Time) (slot uint16, password string, err error)
	Log          *slog.Logger
}

// Server is a relay.
type Server struct {
	cfg   Config
	log   *slog.Logger
	board *board
	main  *door
	probe *door
}

// New returns a relay on two sockets: one for STUN and TURN, one for STUN alone. It closes them when Run ends.
func New(cfg Config, main, probe net.PacketConn) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Log, board: newBoard()}
	s.main = &door{PacketConn: main, relay: s, turn: true}
	s.probe = &door{PacketConn: probe, relay: s}
	return s
}

// Listen opens a UDP socket for a relay. A zero address means every one of this machine.
func Listen(addr netip.AddrPort) (net.PacketConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("relay: UDP %s: %w", addr, err)
	}
	_ = conn.SetReadBuffer(socketBuffer) // as much of it as the system allows
	_ = conn.SetWriteBuffer(socketBuffer)
	return conn, nil
}

// socketBuffer is what is asked of the kernel for each socket and direction, in bytes.
const socketBuffer = 8 << 20

// Run relays until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range []*door{s.main, s.probe} {
		server, err := turn.NewServer(turn.ServerConfig{
			Realm: Realm, AuthHandler: d.authenticate, InboundMTU: 1 << 16, LoggerFactory: silent{},
			PacketConnConfigs: []turn.PacketConnConfig{{
				PacketConn: d, RelayAddressGenerator: d, PermissionHandler: onlyLabel,
			}},
		})
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		group.Go(func() error {
			<-ctx.Done()
			if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("relay: close: %w", err)
			}
			return nil
		})
	}
	s.log.Info("relay is ready", "udp", s.main.LocalAddr().String(), "probe", s.probe.LocalAddr().String())
	return group.Wait()
}

// Stats counts what the relay has done.
type Stats struct {
	Allocations int    `json:"allocations"`
	Forwarded   uint64 `json:"forwarded"` // datagrams
	Octets      uint64 `json:"octets"`
	Dropped     uint64 `json:"dropped"` // no such slot, or its queue was full
	Refused     uint64 `json:"refused"` // datagrams that were not STUN or too short to answer
}

// Stats returns the relay's counters.
func (s *Server) Stats() Stats {
	out := s.board.stats()
	out.Refused = s.main.refused.Load() + s.probe.refused.Load()
	return out
}

// onlyLabel permits relaying to other allocations, and to nothing else in the world.
func onlyLabel(_ net.Addr, peer net.IP) bool { return peer.Equal(Label().AsSlice()) }

// silent keeps pion from writing to standard error: it logs every stray datagram as an error.
type silent struct{}

func (silent) NewLogger(scope string) logging.LeveledLogger {
	return logging.NewDefaultLeveledLoggerForScope(scope, logging.LogLevelDisabled, nil)
}

var errSlot = errors.New("relay: this credential has no slot")

// board connects slots.
type board struct {
	mu    sync.RWMutex
	slots map[uint16]*allocation

	counters boardCounters
}

func newBoard() *board { return &board{slots: make(map[uint16]*allocation)} }

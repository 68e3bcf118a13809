// Package dnsd is a node's own DNS server. It answers the private names of one network to the host it runs on, and
// to nobody else.
//
// What there is to answer is a View: names with their addresses, and the prefixes that are the network's own. It holds
// only names that this host may know, never changes, and is replaced as a whole (Server.SetView). The life of a query:
//
//	a program on this host
//	   │  UDP or TCP, to the TAP's address
//	   ▼
//	1 filter    drop what did not arrive on lo                    filter.go
//	2 check     opcode, one question, EDNS, class, type           query.go
//	3 find      whose name is it?                                 view.go, reverse.go
//	   ├── ours ─────► 4 answer from the view                     answer.go
//	   └── not ours ─► 5 pass to the host's upstreams, or REFUSED forward.go
//
// The filter is there because Linux has the weak host model (RFC 1122 section 3.3.4.2): it accepts a packet for the
// TAP's address on any interface, so a neighbour on the LAN or a member of the overlay could otherwise ask this server
// and learn names. What the host sends to its own address arrives on lo; everything else is dropped in the kernel
// before UDP or TCP see it, so it gets no answer, no SYN-ACK, no RST and no ICMP error.
//
// What this package never does:
//   - It never forwards a name of the zone, nor the reverse name of an address of the network's own: either would tell
//     a foreign resolver what this network holds. What the view does not have does not exist (NXDOMAIN).
//   - It never caches. A grant may go at any time, so its own answers live a few seconds, and foreign ones are the
//     upstream's affair.
//   - It never changes a forwarded message but for its id, so EDNS options, the DO bit, signatures and record types
//     nobody had heard of when this was written all pass (RFC 5625 section 3).
//   - It never forwards to itself.
//
// Messages are encoded and decoded by github.com/miekg/dns. Its Server is not used: it hands out decoded messages, of
// which the original bytes cannot be had back, and it bounds neither its goroutines nor its connections.
package dnsd

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how a Server behaves. The zero value is a server with the defaults that forwards nothing.
type Config struct {
	// TTL is how long an answer from the view may be cached, and how long the absence of one (RFC 2308).
	// Whole seconds count. 0 means 5 s.
	TTL time.Duration
	// Upstreams returns the host's resolvers in the order to try them; the first three that are not this server are
	// used, as in glibc. It is called for every query that is forwarded, from several goroutines.
	// nil means that nothing is forwarded: what is not ours is REFUSED.
	Upstreams func() []netip.AddrPort
	// Timeout is how long one upstream may take. 0 means 2 s.
	Timeout time.Duration
	// MaxForwards bounds the forwarded queries in flight. The ones beyond get SERVFAIL at once. 0 means 256.
	MaxForwards int
	// MaxConns bounds the open TCP connections of one listening address. The ones beyond are closed. 0 means 64.
	MaxConns int
	// Idle is how long a TCP connection may stay without a complete query, and how long the asker may take to accept
	// a reply. 0 means 10 s.
	Idle time.Duration
	// Log gets what an operator should know, never a query. nil means no log.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.TTL = cmp.Or(c.TTL, 5*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 2*time.Second)
	c.MaxForwards = cmp.Or(c.MaxForwards, 256)
	c.MaxConns = cmp.Or(c.MaxConns, 64)
	c.Idle = cmp.Or(c.Idle, 10*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// Server answers queries on the addresses of SetListen from the view of SetView, while Run runs.
// All its methods may be called from several goroutines.
type Server struct {
	cfg   Config
	view  atomic.Pointer[View]
	stats counters
	slots chan struct{} // one token for each forwarded query in flight

	// exchange puts a query to one upstream; a field so that a fuzz test can see that no name of ours gets here.
	exchange func(ctx context.Context, upstream netip.AddrPort, q *query) ([]byte, error)
	// admit limits a socket to what arrives on lo; a field so that a test can show what happens without it.
	admit func(fd int) error

	mu        sync.Mutex // guards the fields below; never held across a read or write of a socket
	endpoints map[netip.AddrPort]*endpoint
	ended     bool          // Run has returned
	wake      chan struct{} // of capacity 1: there is an endpoint that Run does not serve yet
}

// New returns a server that listens nowhere and knows nothing: call SetView, SetListen and Run.
func New(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg:       cfg,
		slots:     make(chan struct{}, cfg.MaxForwards),
		admit:     admitLoopback,
		endpoints: make(map[netip.AddrPort]*endpoint),
		wake:      make(chan struct{}, 1),
	}
	s.exchange = s.exchangeNet
	s.view.Store(new(View))
	return s
}

// SetView replaces what the server answers, from the next query on. nil means that no name is ours.
func (s *Server) SetView(v *View) {
	if v == nil {
		v = new(View)
	}
	s.view.Store(v)
}

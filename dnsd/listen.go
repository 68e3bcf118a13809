package dnsd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// endpoint is one address that the server listens on, by UDP and TCP.
type endpoint struct {
	udp *net.UDPConn
	tcp *net.TCPListener

	served bool // guarded by Server.mu: Run has taken it on

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // accepted and open
	closed bool
}

// SetListen replaces the addresses that the server listens on, each by UDP and TCP; nil is none. An address that is
// in the old set and in the new one is not interrupted; the sockets and connections of one that is gone are closed.
// The sockets are bound when SetListen returns, in the network namespace of the calling thread; queries wait in them
// for Run.
//
// An address need not be configured yet, but must be a definite one: without 0.0.0.0 or :: the server knows which
// upstreams are itself. If an address cannot be bound, the others are, and the error names it; the same call again
// tries it again. After Run has returned, SetListen returns net.ErrClosed.
func (s *Server) SetListen(addrs []netip.AddrPort) error {
	want := make(map[netip.AddrPort]bool)
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 {
			return fmt.Errorf("listen on %v: not one address and port", a)
		}
		want[a] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		if len(want) == 0 {
			return nil
		}
		return net.ErrClosed
	}
	for a, e := range s.endpoints {
		if !want[a] {
			e.close()
			delete(s.endpoints, a)
		}
	}
	var errs []error
	for a := range want {
		if s.endpoints[a] == nil {
			errs = append(errs, s.openLocked(a))
		}
	}
	return errors.Join(errs...)
}

// Listening returns the addresses that the server listens on, sorted.
func (s *Server) Listening() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.endpoints), netip.AddrPort.Compare)
}

func (s *Server) isOwn(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endpoints[a] != nil
}

func (s *Server) openLocked(addr netip.AddrPort) error {
	e, err := s.open(addr)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", addr, err)
	}
	s.endpoints[addr] = e
	select {
	case s.wake <- struct{}{}:
	default: // Run has been told already
	}
	return nil
}

func (s *Server) open(addr netip.AddrPort) (*endpoint, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // the filter must sit on the socket that sees the SYN, not on one above it
	// Before bind, so that no packet gets in ahead of the filter.
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) {
			err = errors.Join(s.admit(int(fd)), bindEarly(int(fd), addr.Addr().Is6()))
		})
		return errors.Join(ctlErr, err)
	}
	pc, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, err
	}
	l, err := lc.Listen(context.Background(), "tcp", addr.String())
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	return &endpoint{
		udp:   pc.(*net.UDPConn),    //nolint:forcetypeassert // package net documents it for "udp"
		tcp:   l.(*net.TCPListener), //nolint:forcetypeassert // and this for "tcp"
		conns: make(map[net.Conn]struct{}),
	}, nil
}

// close ends the endpoint: its sockets, its connections, and thereby the goroutines that serve them.
func (e *endpoint) close() {
	e.udp.Close() //nolint:errcheck // nothing is buffered in it
	e.tcp.Close() //nolint:errcheck // nor in this
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for c := range e.conns {
		c.Close() //nolint:errcheck // the asker sees an end of file
	}
}

// hold counts a connection in, unless there are limit already or the endpoint is closed.
func (e *endpoint) hold(c net.Conn, limit int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.conns) >= limit {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

func (e *endpoint) drop(c net.Conn) {
	c.Close() //nolint:errcheck // the asker sees an end of file
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

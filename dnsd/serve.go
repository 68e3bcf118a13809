package dnsd

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run serves the addresses of SetListen until ctx is done. Then it closes them, waits for the queries in hand and
// returns nil. It may be called once.
//
// It starts two goroutines for each address, which read UDP and accept TCP, one for each TCP connection, and one for
// each forwarded UDP query; queries on one TCP connection are answered one after the other.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for ctx.Err() == nil {
		for _, e := range s.unserved() {
			g.Go(func() error { return s.serveUDP(ctx, g, e) })
			g.Go(func() error { return s.serveTCP(ctx, g, e) })
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
		}
	}
	s.end()
	return g.Wait()
}

// unserved returns the endpoints that were opened since the last call.
func (s *Server) unserved() []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*endpoint
	for _, e := range s.endpoints {
		if !e.served {
			e.served = true
			out = append(out, e)
		}
	}
	return out
}

func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for a, e := range s.endpoints {
		e.close()
		delete(s.endpoints, a)
	}
}

// serveUDP answers what it can at once and leaves forwarded queries to a goroutine each.
func (s *Server) serveUDP(ctx context.Context, g *errgroup.Group, e *endpoint) error {
	buf := make([]byte, maxTCP)
	for {
		n, from, err := e.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.pause(ctx, err)
			continue
		}
		reply, ask := s.respond(buf[:n], true)
		if ask != nil && !s.acquire() {
			reply, ask = s.fail(ask), nil
		}
		if ask != nil {
			ask.keep()
			g.Go(func() error {
				defer s.release()
				e.udp.WriteToUDPAddrPort(s.forward(ctx, ask), from) //nolint:errcheck // as good as lost: the asker repeats
				return nil
			})
		}
		if reply != nil {
			e.udp.WriteToUDPAddrPort(reply, from) //nolint:errcheck // as good as lost: the asker repeats
		}
	}
}

// serveTCP accepts connections.
func (s *Server) serveTCP(ctx context.Context, g *errgroup.Group, e *endpoint) error {
	for {
		conn, err := e.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.pause(ctx, err)
			continue
		}
		if !e.hold(conn, s.cfg.MaxConns) {
			s.stats.crowded.Add(1)
			conn.Close() //nolint:errcheck // nothing was written
			continue
		}
		g.Go(func() error {
			defer e.drop(conn)
			s.serveConn(ctx, conn)
			return nil
		})
	}
}

// serveConn answers the queries of one connection until the asker closes it, idles, or sends what is no query.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	for {
		if conn.SetDeadline(time.Now().Add(s.cfg.Idle)) != nil {
			return
		}
		raw, err := readMessage(conn)
		if err != nil {
			return
		}
		reply, ask := s.respond(raw, false)
		if ask != nil {
			reply = s.forwardOne(ctx, ask)
		}
		if reply == nil || conn.SetDeadline(time.Now().Add(s.cfg.Idle)) != nil || writeMessage(conn, reply) != nil {
			return
		}
	}
}

func (s *Server) forwardOne(ctx context.Context, q *query) []byte {
	if !s.acquire() {
		return s.fail(q)
	}
	defer s.release()
	return s.forward(ctx, q)
}

// pause waits after an error of a socket that is still open, such as too many open files, which would else be a busy
// loop.
func (s *Server) pause(ctx context.Context, err error) {
	s.cfg.Log.Warn("dns socket", "err", err)
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
}

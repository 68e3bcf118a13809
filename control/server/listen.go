package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/identity"
)

// What a caller may take its time over, beside Options.Patience. A stream's own deadlines replace these once it is open
// (sync.go).
const (
	answerTime   = 30 * time.Second // reading our answer
	idleTime     = 2 * time.Minute  // a connection without a request
	pingAfter    = 15 * time.Second // of silence on an HTTP/2 connection
	pongWithin   = 10 * time.Second
	shutdownTime = 2 * time.Second
)

// listener bounds how many connections there are, in all and from one source. One too many is closed at once: it must
// not wait, or a flood would keep everybody else waiting too.
type listener struct {
	net.Listener
	limits Limits
	stats  *counters

	mu       sync.Mutex
	total    int
	bySource map[netip.Prefix]int
}

func listen(addr string, limits Limits, stats *counters) (*listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program, perhaps another controller, uses the port: stop it, or choose "+
			"another with --listen: %w", addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: a port below 1024 needs root or CAP_NET_BIND_SERVICE; --listen chooses another: %w",
			addr, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return &listener{Listener: l, limits: limits, stats: stats, bySource: map[netip.Prefix]int{}}, nil
}

// Accept returns the next connection that is within the limits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn.RemoteAddr().String())
		if l.enter(source) {
			return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(source) })}, nil
		}
		l.stats.connectionsRefused.Add(1)
		_ = conn.Close() // whoever it is has been told
	}
}

func (l *listener) enter(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.Connections || l.bySource[source] >= l.limits.ConnectionsPerSource {
		return false
	}
	l.total++
	l.bySource[source]++
	return true
}

func (l *listener) leave(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.bySource[source]--; l.bySource[source] == 0 {
		delete(l.bySource, source)
	}
}

type countedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection and makes room for another.
func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// sourceOf is what counts as one source: an IPv4 address, or the /64 that one IPv6 subscriber has at least.
func sourceOf(addr string) netip.Prefix {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := ap.Addr().Unmap().WithZone(""), 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// serve answers HTTPS until the context ends, which ends all streams too.
func (c *Controller) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           c.gate,
		TLSConfig:         identity.ServerTLS(c.certificate),
		ReadHeaderTimeout: c.opts.Patience,
		ReadTimeout:       c.opts.Patience,
		WriteTimeout:      answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 32, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10,
			SendPingTimeout: pingAfter, PingTimeout: pongWithin, WriteByteTimeout: pongWithin,
		},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(c.log.Handler(), slog.LevelDebug), // scanners' broken handshakes
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.ServeTLS(c.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if err := srv.Shutdown(wait); err != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

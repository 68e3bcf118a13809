package transport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/turn/v5"
	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/transport/relay"
)

// RelayConfig is what the signed state says of a relay, with this node's credential there.
type RelayConfig struct {
	Name      string
	Hosts     []string // IP addresses or names
	Port      uint16   // UDP: STUN and TURN
	ProbePort uint16   // UDP: STUN only
	Username  string
	Password  string
	Slot      uint16 // this node's place
}

func (c RelayConfig) equal(d RelayConfig) bool {
	return c.Name == d.Name && slices.Equal(c.Hosts, d.Hosts) && c.Port == d.Port && c.ProbePort == d.ProbePort &&
		c.Username == d.Username && c.Password == d.Password && c.Slot == d.Slot
}

// relayClient is this node's allocation at one relay. All relayed paths share it: a peer's address there is its slot.
// The relay passes datagrams between its own allocations only (package relay), so there is nothing to arrange before two
// nodes can talk.
type relayClient struct {
	e    *Endpoint
	cfg  RelayConfig
	conn atomic.Pointer[net.PacketConn] // the allocation; nil while there is none
	wake chan struct{}                  // dial again, now
	echo atomic.Uint64                  // the newest echo that came back

	// Guarded by Endpoint.mu.
	cancel context.CancelFunc // ends run; nil before it starts
	server netip.AddrPort     // once resolved
	why    string             // why there is no allocation
	takes  *relayClient       // the one that this replaces once it is up
}

// Intervals of a relay client.
const (
	echoEvery   = 5 * time.Second
	echoRetry   = time.Second
	echoesLost  = 3
	redialFirst = time.Second
	redialMost  = 30 * time.Second
)

// typeEcho is a datagram that a node sends to itself through a relay: first byte, 3 zero bytes, a number (64).
const typeEcho = 6

// SetRelays replaces the relays. One whose credential has changed is replaced without a gap.
func (e *Endpoint) SetRelays(list []RelayConfig) {
	e.mu.Lock()
	defer e.mu.Unlock()
	keep := make(map[string]bool, len(list))
	for _, cfg := range list {
		keep[cfg.Name] = true
		old := e.relays[cfg.Name]
		if old != nil && old.cfg.equal(cfg) {
			continue
		}
		r := &relayClient{e: e, cfg: cfg, why: "connecting", wake: make(chan struct{}, 1)}
		if old != nil && old.conn.Load() != nil {
			r.takes = old
		} else if old != nil {
			old.stop()
		}
		if r.takes == nil {
			e.relays[cfg.Name] = r
		}
		e.startRelayLocked(r)
	}
	for name, r := range e.relays {
		if !keep[name] {
			delete(e.relays, name)
			e.relayDownLocked(r, "the relay is no longer configured")
			r.stop()
		}
	}
}

func (e *Endpoint) startRelayLocked(r *relayClient) {
	if e.running == nil || r.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(e.running.ctx)
	r.cancel = cancel
	e.spawnLocked(func(context.Context) { r.run(ctx) })
}

func (r *relayClient) stop() {
	if r.cancel != nil {
		r.cancel()
	}
}

// redial makes the client look for the relay again, because the way there may have changed.
func (r *relayClient) redial() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *relayClient) writeTo(b []byte, to netip.AddrPort) error {
	conn := r.conn.Load()
	if conn == nil {
		return errNoRelay
	}
	_, err := (*conn).WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

func (r *relayClient) writeRuns(o *outbox, to netip.AddrPort) error {
	return o.each(func(d []byte) error { return r.writeTo(d, to) })
}

var (
	errNoRelay = errors.New("transport: no allocation at this relay")
	errEcho    = errors.New("the relay has stopped passing datagrams on")
	errRedial  = errors.New("this machine's addresses have changed")
)

// run keeps an allocation until ctx ends.
func (r *relayClient) run(ctx context.Context) {
	delay := redialFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := r.allocate(ctx)
		if ctx.Err() != nil {
			return
		}
		r.e.relayDown(r, err.Error())
		if time.Since(began) > redialMost || errors.Is(err, errRedial) {
			delay = redialFirst
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
			delay = redialFirst
		case <-time.After(delay/2 + time.Duration(randomBelow(uint64(delay)))):
			delay = min(2*delay, redialMost)
		}
	}
}

// allocate makes an allocation and serves it until it is lost, and says why.
func (r *relayClient) allocate(ctx context.Context) error {
	server, err := r.resolve(ctx)
	if err != nil {
		return err
	}
	unspecified := netip.IPv4Unspecified()
	if server.Addr().Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	socket, err := r.e.cfg.Listen(netip.AddrPortFrom(unspecified, 0))
	if err != nil {
		return err
	}
	client, err := r.newClient(socket, server)
	if err != nil {
		_ = socket.Close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		pump(socket, client)
		return nil
	})
	group.Go(func() error {
		defer socket.Close() //nolint:errcheck // nothing is lost with it; ends pump
		defer client.Close()
		defer context.AfterFunc(ctx, client.Close)() // ends Allocate, which takes no context
		conn, err := client.Allocate()
		if err != nil {
			return fmt.Errorf("no allocation at %s: %w", server, err)
		}
		group.Go(func() error {
			r.read(conn)
			return nil
		})
		defer conn.Close() //nolint:errcheck // the relay forgets it anyway; ends read
		return r.serve(ctx, conn)
	})
	return group.Wait()
}

func (r *relayClient) newClient(socket Socket, server netip.AddrPort) (*turn.Client, error) {
	client, err := turn.NewClient(&turn.ClientConfig{
		Conn: packetConn{socket}, TURNServerAddr: server.String(), STUNServerAddr: server.String(),
		Username: r.cfg.Username, Password: r.cfg.Password, Realm: relay.Realm,
		RequestedAddressFamily: turn.RequestedAddressFamilyIPv4, // the label's, whatever the relay's is
		LoggerFactory:          quietFactory{r.e.log},
	})
	if err != nil {
		return nil, fmt.Errorf("relay client: %w", err)
	}
	return client, nil
}

// pump feeds the TURN client what arrives for it.
func pump(socket Socket, client *turn.Client) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := socket.ReadFrom(buf)
		if err != nil {
			if isClosed(err) {
				return
			}
			continue
		}
		// An error concerns this datagram alone.
		_, _ = client.HandleInbound(buf[:n], net.UDPAddrFromAddrPort(from))
	}
}

// serve carries datagrams, and sends itself one through the relay now and then: that keeps the NAT's hole open, and shows
// that the relay still knows us.
func (r *relayClient) serve(ctx context.Context, conn net.PacketConn) error {
	self := netip.AddrPortFrom(relayLabel(), r.cfg.Slot)
	// The first datagram to the label makes the permission for all of its ports, and waits for the relay's answer, for as long as it takes.
	// Nobody else may: they send frames, or hold Endpoint.mu.
	if _, err := conn.WriteTo(echoOf(0), net.UDPAddrFromAddrPort(self)); err != nil {
		return fmt.Errorf("relay permission: %w", err)
	}
	r.conn.Store(&conn)
	defer r.conn.CompareAndSwap(&conn, nil)
	r.e.relayUp(r)

	var number uint64
	lost, wait := 0, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
			return errRedial
		case <-time.After(wait):
		}
		if r.echo.Load() == number {
			lost, wait = 0, echoEvery
		} else if lost++; lost >= echoesLost {
			return errEcho
		}
		number = randomBelow(1 << 63)
		if err := r.writeTo(echoOf(number), self); err != nil {
			return fmt.Errorf("send to the relay: %w", err)
		}
		if wait == 0 || lost > 0 {
			wait = echoRetry
		}
	}
}

func echoOf(number uint64) []byte {
	return appendUint64([]byte{firstByte(typeEcho, 0), 0, 0, 0}, number)
}

// read takes what peers send through the relay.
func (r *relayClient) read(conn net.PacketConn) {
	in := r.e.newReader(r, 0)
	defer in.to.Close()
	buf := make([]byte, 1<<16)
	for {
		n, addr, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		udp, ok := addr.(*net.UDPAddr)
		if !ok || n == 0 || buf[0] < firstOurs {
			r.e.counts.foreign.Add(1)
			continue
		}
		from := udp.AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if from == netip.AddrPortFrom(relayLabel(), r.cfg.Slot) && n == 12 {
			r.echo.Store(readUint64(buf[4:]))
			continue
		}
		now := time.Now()
		in.datagram(buf[:n], from, now)
		in.to.Flush(now)
	}
}

// resolve finds the relay's address; a name may have moved.
func (r *relayClient) resolve(ctx context.Context) (netip.AddrPort, error) {
	var last error
	for _, host := range r.cfg.Hosts {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			var list []netip.Addr
			list, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			if err == nil && len(list) > 0 {
				addr = list[0].Unmap()
			}
		}
		if err == nil && addr.IsValid() {
			server := netip.AddrPortFrom(addr, r.cfg.Port)
			r.e.mu.Lock()
			r.server = server
			r.e.mu.Unlock()
			return server, nil
		}
		last = err
	}
	return netip.AddrPort{}, fmt.Errorf("relay %s: %w", r.cfg.Name, last)
}

// stunLocked lists where the relay answers STUN.
func (r *relayClient) stunLocked() []netip.AddrPort {
	if !r.server.IsValid() {
		return nil
	}
	return []netip.AddrPort{r.server, netip.AddrPortFrom(r.server.Addr(), r.cfg.ProbePort)}
}

func (e *Endpoint) relayUp(r *relayClient) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := r.takes; old != nil {
		r.takes = nil
		e.relays[r.cfg.Name] = r
		defer old.stop()
	}
	if e.relays[r.cfg.Name] != r {
		return
	}
	r.why = ""
	e.log.Info("relay is up", "relay", r.cfg.Name)
	now := time.Now()
	for _, p := range e.peers {
		if p.link != linkClosed {
			e.dropPathLocked(p.relayed[r.cfg.Name])
			e.addRelayedPathLocked(p, r)
			p.try.next = now
		}
	}
}

func (e *Endpoint) relayDown(r *relayClient, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.relayDownLocked(r, why)
}

func (e *Endpoint) relayDownLocked(r *relayClient, why string) {
	if r.why == "" || r.why == "connecting" {
		e.log.Warn("relay is down", "relay", r.cfg.Name, "reason", why)
	}
	r.why = why
	for _, p := range e.peers {
		if path := p.relayed[r.cfg.Name]; path != nil && path.out == carrier(r) {
			e.dropPathLocked(path)
		}
	}
}

func (e *Endpoint) addRelayedPathLocked(p *Peer, r *relayClient) {
	if r.conn.Load() == nil || p.cfg.RelaySlot == 0 || p.relayed[r.cfg.Name] != nil {
		return
	}
	addr := netip.AddrPortFrom(relayLabel(), p.cfg.RelaySlot)
	p.relayed[r.cfg.Name] = e.newPathLocked(p, r, addr, netip.AddrPort{}, r.cfg.Name)
	e.chooseLocked(p)
}

// packetConn shows a Socket to pion, and pads its requests as the relay demands.
type packetConn struct{ Socket }

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.Socket.ReadFrom(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

func (c packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("transport: not a UDP address")
	}
	ap := addr.AddrPort()
	if _, err := c.Socket.WriteTo(relay.Pad(b), netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c packetConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.Socket.LocalAddr()) }
func (c packetConn) SetDeadline(time.Time) error      { return nil }
func (c packetConn) SetReadDeadline(time.Time) error  { return nil }
func (c packetConn) SetWriteDeadline(time.Time) error { return nil }

func randomBelow(n uint64) uint64 {
	var b [8]byte
	rand.Read(b[:])
	return readUint64(b[:]) % max(n, 1)
}

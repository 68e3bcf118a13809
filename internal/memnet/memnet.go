// Package memnet is an internet in memory, for tests of package transport: hosts with public addresses, and sites behind
// NATs that behave as RFC 4787 names them. It has delay and loss, and everything that crosses it can be watched. It works
// under testing/synctest, so hours pass in milliseconds.
//
//	10.0.0.2 [Host]--+                                  +--[Host] 10.0.0.2
//	                 [NAT 198.51.100.1]--Internet--[NAT 203.0.113.1]
//	                                        |
//	                                     [Host] 192.0.2.1
package memnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Internet joins everything. Its zero value is not usable.
type Internet struct {
	mu     sync.Mutex
	hosts  map[netip.Addr]receiver
	delay  time.Duration
	loss   float64
	mtu    int
	filter func(from, to netip.AddrPort, data []byte) bool
	watch  func(from, to netip.AddrPort, data []byte)
	rand   *rand.Rand
}

// receiver is what has a public address: a host or a NAT.
type receiver interface {
	receive(from, to netip.AddrPort, data []byte)
}

// New returns an internet without anybody, with a delay of a millisecond each way and an MTU of 1500.
func New() *Internet {
	return &Internet{
		hosts: make(map[netip.Addr]receiver), delay: time.Millisecond, mtu: 1500, rand: rand.New(rand.NewPCG(1, 1)),
	}
}

// SetDelay sets how long a datagram takes.
func (n *Internet) SetDelay(d time.Duration) { n.set(func() { n.delay = d }) }

// SetLoss sets which part of the datagrams is lost, 0 to 1.
func (n *Internet) SetLoss(part float64) { n.set(func() { n.loss = part }) }

// SetMTU sets the largest IP packet that passes, in bytes. Larger ones disappear without a word.
func (n *Internet) SetMTU(mtu int) { n.set(func() { n.mtu = mtu }) }

// SetFilter drops what pass refuses; nil passes everything. Addresses are those on the public side.
func (n *Internet) SetFilter(pass func(from, to netip.AddrPort) bool) {
	if pass == nil {
		n.SetContentFilter(nil)
		return
	}
	n.SetContentFilter(func(from, to netip.AddrPort, _ []byte) bool { return pass(from, to) })
}

// SetContentFilter is SetFilter for a filter that also sees the datagram.
func (n *Internet) SetContentFilter(pass func(from, to netip.AddrPort, data []byte) bool) {
	n.set(func() { n.filter = pass })
}

// Watch shows every datagram that crosses the public side, also those that are lost.
func (n *Internet) Watch(see func(from, to netip.AddrPort, data []byte)) {
	n.set(func() { n.watch = see })
}

func (n *Internet) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// send carries one datagram across the public side.
func (n *Internet) send(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watch != nil {
		n.watch(from, to, data)
	}
	header := 28 // IPv4 and UDP
	if to.Addr().Is6() {
		header = 48
	}
	if len(data)+header > n.mtu {
		return
	}
	if n.filter != nil && !n.filter(from, to, data) || n.loss > 0 && n.rand.Float64() < n.loss {
		return
	}
	data = append([]byte(nil), data...)
	time.AfterFunc(n.delay, func() {
		n.mu.Lock()
		r := n.hosts[to.Addr()]
		n.mu.Unlock()
		if r != nil {
			r.receive(from, to, data)
		}
	})
}

// Host is a machine with one address.
type Host struct {
	addr netip.Addr
	out  func(from, to netip.AddrPort, data []byte)

	mu      sync.Mutex
	sockets map[uint16]*Socket
	next    uint16
}

// Host adds a machine with a public address.
func (n *Internet) Host(addr string) *Host {
	h := newHost(netip.MustParseAddr(addr), n.send)
	n.set(func() { n.hosts[h.addr] = h })
	return h
}

func newHost(addr netip.Addr, out func(from, to netip.AddrPort, data []byte)) *Host {
	return &Host{addr: addr, out: out, sockets: make(map[uint16]*Socket), next: 40000}
}

// Addr returns the machine's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Socket is a UDP socket of a host.
type Socket struct {
	host   *Host
	local  netip.AddrPort
	in     chan datagram
	once   sync.Once
	closed chan struct{}
}

type datagram struct {
	data []byte
	from netip.AddrPort
}

// Listen opens a socket. An unspecified address means the host's, port 0 one that is free.
func (h *Host) Listen(addr netip.AddrPort) (*Socket, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !addr.Addr().IsUnspecified() && addr.Addr() != h.addr {
		return nil, fmt.Errorf("memnet: %s is not an address of this host", addr.Addr())
	}
	port := addr.Port()
	for port == 0 {
		h.next++
		if h.sockets[h.next] == nil {
			port = h.next
		}
	}
	if h.sockets[port] != nil {
		return nil, fmt.Errorf("memnet: port %d is in use", port)
	}
	s := &Socket{
		host: h, local: netip.AddrPortFrom(h.addr, port), in: make(chan datagram, 1024), closed: make(chan struct{}),
	}
	h.sockets[port] = s
	return s, nil
}

func (h *Host) receive(from, to netip.AddrPort, data []byte) {
	h.mu.Lock()
	s := h.sockets[to.Port()]
	h.mu.Unlock()
	if s == nil {
		return
	}
	select {
	case s.in <- datagram{data, from}:
	default:
	}
}

// ReadFrom waits for a datagram.
func (s *Socket) ReadFrom(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-s.in:
		return copy(b, d.data), d.from, nil
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// WriteTo sends a datagram.
func (s *Socket) WriteTo(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	s.host.out(s.local, to, b)
	return len(b), nil
}

// LocalAddr returns the socket's address.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// Close ends the socket.
func (s *Socket) Close() error {
	s.once.Do(func() {
		close(s.closed)
		s.host.mu.Lock()
		delete(s.host.sockets, s.local.Port())
		s.host.mu.Unlock()
	})
	return nil
}

// PacketConn shows a Socket as a net.PacketConn.
type PacketConn struct{ *Socket }

// ReadFrom waits for a datagram.
func (c PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.Socket.ReadFrom(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteTo sends a datagram.
func (c PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errors.New("memnet: not a UDP address")
	}
	ap := addr.AddrPort()
	return c.Socket.WriteTo(b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

// LocalAddr returns the socket's address.
func (c PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// SetDeadline does nothing.
func (PacketConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (PacketConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (PacketConn) SetWriteDeadline(time.Time) error { return nil }

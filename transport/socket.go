package transport

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// Socket is an underlay UDP socket, bound to one address.
type Socket interface {
	ReadFrom(b []byte) (int, netip.AddrPort, error)
	WriteTo(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() netip.AddrPort
	Close() error
}

// batcher is a Socket that takes and gives many datagrams at a time. One that does not gets them one by one.
type batcher interface {
	// Collect returns what reads batches.
	Collect() (*collector, error)
	// writeRuns sends what an outbox holds.
	writeRuns(o *outbox, to netip.AddrPort) error
	// WriteFragmented sends one datagram that routers may take apart.
	WriteFragmented(b []byte, to netip.AddrPort) error
}

// socketBuffer is what we ask of the kernel for each socket and direction, in bytes.
const socketBuffer = 4 << 20

type udpSocket struct {
	*quietfd.FD
	local      netip.AddrPort
	segmenting segmenting
}

// ListenUDP opens a socket on an address of this machine. What it sends is never fragmented: what fits is found by probes
// (mtu.go), since nobody can be believed who says from outside what does not.
func ListenUDP(addr netip.AddrPort) (Socket, error) {
	return listenUDP(addr, func(int) error { return nil })
}

func tuneSocket(fd int, v4 bool) error {
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
			// Without the capability the system's limit stays; that is slower, and no reason to fail.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
		}
	}
	return setFragmenting(fd, v4, false)
}

// abilities is what the kernel has granted a socket.
type abilities struct {
	receive, send int  // bytes of buffer
	segments      bool // takes many datagrams as one message
}

// abilities asks the kernel. It counts twice what was asked for, for its own bookkeeping (socket(7)).
func (s *udpSocket) abilities() (a abilities) {
	_ = s.Control(func(fd uintptr) {
		a.receive, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		a.send, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	a.receive, a.send, a.segments = a.receive/2, a.send/2, !s.segmenting.off.Load()
	return a
}

// setFragmenting lets what the socket sends be fragmented, or forbids it; either way, what ICMP claims about the path is
// not believed (RFC 8899 section 4.6).
func setFragmenting(fd int, v4, on bool) error {
	if v4 {
		how := unix.IP_PMTUDISC_PROBE
		if on {
			how = unix.IP_PMTUDISC_DONT
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how)
	}
	how, never := unix.IPV6_PMTUDISC_PROBE, 1
	if on {
		how, never = unix.IPV6_PMTUDISC_DONT, 0
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, never); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how)
}

// WriteFragmented sends one datagram that may be fragmented: a handshake must cross a path of which nothing is known yet.
// What others send by this socket at the same moment may be, too, which harms nothing.
func (s *udpSocket) WriteFragmented(b []byte, to netip.AddrPort) error {
	set := func(on bool) (err error) {
		if e := s.Control(func(fd uintptr) { err = setFragmenting(int(fd), to.Addr().Is4(), on) }); e != nil {
			return e
		}
		return err
	}
	if err := set(true); err != nil {
		return err
	}
	_, err := s.WriteTo(b, to)
	return errors.Join(err, set(false))
}

// ReadFrom waits for one datagram; one that is longer than b is cut.
func (s *udpSocket) ReadFrom(b []byte) (n int, from netip.AddrPort, err error) {
	var name unix.Sockaddr
	if e := s.Read(func(fd uintptr) bool {
		n, name, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	}); e != nil {
		return 0, from, e
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) //nolint:gosec // a port
	case *unix.SockaddrInet6:
		from = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)) //nolint:gosec // a port
	}
	return n, from, err
}

// WriteTo sends one datagram.
func (s *udpSocket) WriteTo(b []byte, to netip.AddrPort) (int, error) {
	var name unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() && s.local.Addr().Is4() {
		name = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	var err error
	if e := s.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, name)
		return !errors.Is(err, unix.EAGAIN)
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	return len(b), nil
}

// LocalAddr returns the address that the socket is bound to.
func (s *udpSocket) LocalAddr() netip.AddrPort { return s.local }

// socketLoop is an underlay address with what belongs to it.
type socketLoop struct {
	e       *Endpoint
	sockets []Socket // one for each queue, all on one port
	local   netip.AddrPort

	// Guarded by Endpoint.mu.
	started bool
	mapping mappingState
}

func (s *socketLoop) writeTo(b []byte, to netip.AddrPort) error {
	if batch, ok := s.sockets[0].(batcher); ok && len(b) > baseDatagram {
		return batch.WriteFragmented(b, to)
	}
	_, err := s.sockets[0].WriteTo(b, to)
	return err
}

func (s *socketLoop) writeRuns(o *outbox, to netip.AddrPort) error {
	socket := s.sockets[o.queue%len(s.sockets)]
	if batch, ok := socket.(batcher); ok {
		return batch.writeRuns(o, to)
	}
	return o.each(func(d []byte) error {
		_, err := socket.WriteTo(d, to)
		return err
	})
}

// SetAddresses says which addresses of this machine are underlay. Sockets of others are closed; open links look for new
// paths.
func (e *Endpoint) SetAddresses(addrs []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	changed := false
	for addr, s := range e.sockets {
		if !slices.Contains(addrs, addr) || e.avoidedLocked(addr) {
			e.closeSocketLocked(s)
			changed = true
		}
	}
	for _, addr := range addrs {
		if e.sockets[addr] != nil || e.avoidedLocked(addr) {
			continue
		}
		if err := e.openSocketLocked(addr); err != nil {
			e.log.Warn("cannot use an underlay address", "err", err)
			continue
		}
		changed = true
	}
	if !changed {
		return
	}
	for _, r := range e.relays {
		r.redial()
	}
	for _, p := range e.peers {
		if p.link != linkClosed {
			e.restartICELocked(p, now)
		}
	}
}

func (e *Endpoint) openSocketLocked(addr netip.Addr) error {
	socket, err := e.cfg.Listen(netip.AddrPortFrom(addr, e.cfg.Port))
	if err != nil {
		return err
	}
	s := &socketLoop{e: e, sockets: []Socket{socket}, local: socket.LocalAddr()}
	if err := s.share(e.cfg.Queues); err != nil {
		e.log.Warn("an underlay address has fewer queues than were asked for", "path", s.local, "queues", len(s.sockets), "err", err)
	}
	e.sockets[addr] = s
	e.mux.add(s)
	e.startSocketLocked(s)
	return nil
}

func (e *Endpoint) closeSocketLocked(s *socketLoop) {
	delete(e.sockets, s.local.Addr())
	e.mux.remove(s)
	_ = s.close()
	for key, path := range e.paths {
		if key.in == carrier(s) {
			e.dropPathLocked(path)
		}
	}
}

func (e *Endpoint) startSocketLocked(s *socketLoop) {
	if e.running == nil || s.started {
		return
	}
	s.started = true
	for queue := range s.sockets {
		e.spawnLocked(func(context.Context) { s.run(queue) })
	}
}

// run reads the socket of one queue until it is closed.
func (s *socketLoop) run(queue int) {
	r := s.e.newReader(s, queue)
	defer r.to.Close()
	read, err := collectorOf(s.sockets[queue])
	if err != nil {
		s.e.log.Error("cannot read an underlay socket", "path", s.local, "err", err)
		return
	}
	for {
		list, err := read()
		if err != nil {
			if isClosed(err) {
				return
			}
			continue // an ICMP error of some earlier datagram
		}
		s.takeAll(r, list, time.Now())
	}
}

// takeAll hands out what one call of the kernel has given.
func (s *socketLoop) takeAll(r *reader, list []received, now time.Time) {
	for _, m := range list {
		for b := m.data; len(b) > 0; {
			d := b[:min(m.size, len(b))]
			b = b[len(d):]
			s.take(r, d, m.from, now)
		}
	}
	r.to.Flush(now)
}

// collectorOf returns what reads the socket: many datagrams at a time if it can.
func collectorOf(s Socket) (read func() ([]received, error), err error) {
	if b, ok := s.(batcher); ok {
		c, err := b.Collect()
		if err != nil {
			return nil, err
		}
		return c.read, nil
	}
	one, buf := make([]received, 1), make([]byte, 1<<16)
	return func() ([]received, error) {
		n, from, err := s.ReadFrom(buf)
		one[0] = received{buf[:n], n, from}
		return one, err
	}, nil
}

// take hands one datagram to whoever it is for.
func (s *socketLoop) take(r *reader, d []byte, from netip.AddrPort, now time.Time) {
	switch {
	case d[0] >= firstOurs:
		r.datagram(d, from, now)
	case d[0] <= 3:
		s.e.mux.inbound(s, d, from)
	default:
		s.e.counts.foreign.Add(1)
	}
}

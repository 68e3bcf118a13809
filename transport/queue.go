package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// An underlay address has as many sockets as there are queues, all on one port, so that peers and NATs see one. Each queue is
// a goroutine that receives and one that sends, and a datagram names in its header the shard that sent it: the kernel gives
// it to the queue of that number, so that what one goroutine of the peer has sent stays in order here.
//
//	peer's sender   0   1   2   3        shards
//	                 \  |   |  /
//	socket of queue   0  1  0  1         with two queues: shard modulo queues
//
// What is no data goes to the first.

// sharer is a Socket that others can join on its port.
type sharer interface {
	// Share opens another socket on the same port, which is the first's next.
	Share() (Socket, error)
	// Steer says that n sockets share the port.
	Steer(n int) error
}

// Share opens another socket on this one's port. The first was bound alone, so that a port that somebody else uses is
// found to be taken.
func (s *udpSocket) Share() (Socket, error) {
	share := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	var err error
	if e := s.Control(func(fd uintptr) { err = share(int(fd)) }); e != nil || err != nil {
		return nil, fmt.Errorf("share an underlay socket: %w", errors.Join(e, err))
	}
	return listenUDP(s.LocalAddr(), share)
}

// Steer attaches a program that chooses the socket by the header (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
func (s *udpSocket) Steer(n int) error {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: firstOurs},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 2}, // the shard; a datagram that ends before it goes to the first
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	var err error
	if e := s.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	}); e != nil {
		return e
	}
	return err
}

// share opens a socket for each further queue. With fewer than there should be, all work: only more slowly.
func (s *socketLoop) share(queues int) error {
	first, ok := s.sockets[0].(sharer)
	if !ok {
		return nil
	}
	for len(s.sockets) < queues {
		more, err := first.Share()
		if err != nil {
			return err
		}
		s.sockets = append(s.sockets, more)
	}
	if queues == 1 {
		return nil
	}
	return first.Steer(queues)
}

func (s *socketLoop) close() (err error) {
	for _, socket := range s.sockets {
		err = errors.Join(err, socket.Close())
	}
	return err
}

// listenUDP opens a socket; first is done before it is bound.
func listenUDP(addr netip.AddrPort, first func(fd int) error) (*udpSocket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = errors.Join(first(int(fd)), tuneSocket(int(fd), addr.Addr().Is4())) }); e != nil {
			return e
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("open underlay socket on %s: %w", addr, err)
	}
	defer conn.Close()                            //nolint:errcheck // its duplicate stays
	raw, err := conn.(*net.UDPConn).SyscallConn() //nolint:forcetypeassert // what ListenPacket returns for udp
	if err != nil {
		return nil, fmt.Errorf("open underlay socket on %s: %w", addr, err)
	}
	s := &udpSocket{local: conn.LocalAddr().(*net.UDPAddr).AddrPort()} //nolint:forcetypeassert // it is a UDP socket
	s.local = netip.AddrPortFrom(s.local.Addr().Unmap(), s.local.Port())
	if s.FD, err = quietfd.Take(raw); err != nil {
		return nil, fmt.Errorf("open underlay socket on %s: %w", addr, err)
	}
	return s, nil
}

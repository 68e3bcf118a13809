package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// scanPatience is how long a port may stay silent: long enough for the kernel to repeat a lost SYN after its
	// initial timeout of 1 s (RFC 6298 section 2.1).
	scanPatience = 1300 * time.Millisecond
	scanBatch    = 16384 // most connections at a time
)

// Scan is what came of a connection attempt to each port of an address. The four add up to the ports tried.
type Scan struct {
	Open        []uint16 // connected, ascending
	Refused     int      // answered by RST
	Silent      int      // no answer
	Unreachable int      // answered by ICMP, or no route
}

// ScanTCP tries to connect from the host to each of the 65535 ports of an address. It takes about a second
// where ports are refused, and five and more, by how many files the process may open, where they are silent. A scan that says Unreachable proves nothing about the ports.
func (h *Host) ScanTCP(ctx context.Context, addr string) (Scan, error) {
	to, err := netip.ParseAddr(addr)
	if err != nil {
		return Scan{}, err
	}
	batch, err := scanBatchSize()
	if err != nil {
		return Scan{}, err
	}
	var s Scan
	err = h.Do(func() error {
		// One port alone first: until the neighbour is resolved, few packets can wait for it.
		if err := s.ports(to, 1, 1); err != nil {
			return err
		}
		for first := 2; first <= 65535; first += batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.ports(to, first, min(first+batch-1, 65535)); err != nil {
				return err
			}
		}
		return nil
	})
	slices.Sort(s.Open)
	return s, err
}

// scanBatchSize leaves a quarter of the files that the process may open to others.
func scanBatchSize() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	return int(max(16, min(scanBatch, limit.Cur/4*3))), nil
}

// ports tries the ports from first to last at once.
func (s *Scan) ports(to netip.Addr, first, last int) error {
	var pending []unix.PollFd
	var numbers []uint16 // of pending
	defer func() {
		for _, p := range pending {
			_ = unix.Close(int(p.Fd))
		}
	}()
	for port := first; port <= last; port++ {
		fd, err := connectNow(netip.AddrPortFrom(to, uint16(port)))
		if errors.Is(err, unix.EINPROGRESS) {
			pending = append(pending, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
			numbers = append(numbers, uint16(port))
			continue
		}
		if fd >= 0 {
			closeNow(fd)
		}
		if err := s.note(uint16(port), err); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(scanPatience); len(pending) > 0; {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		if _, err := unix.Poll(pending, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		rest, restNumbers := pending[:0], numbers[:0]
		for i, p := range pending {
			if p.Revents == 0 {
				rest, restNumbers = append(rest, p), append(restNumbers, numbers[i])
				continue
			}
			if err := s.finish(int(p.Fd), numbers[i]); err != nil {
				return err
			}
		}
		pending, numbers = rest, restNumbers
	}
	s.Silent += len(pending)
	return nil
}

// connectNow begins to connect. The socket is -1 if there is none.
func connectNow(to netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	return fd, unix.Connect(fd, sa)
}

// finish notes what came of an attempt and closes its socket.
func (s *Scan) finish(fd int, port uint16) error {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	closeNow(fd)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return s.note(port, err)
}

func (s *Scan) note(port uint16, err error) error {
	switch {
	case err == nil:
		s.Open = append(s.Open, port)
	case errors.Is(err, unix.ECONNREFUSED):
		s.Refused++
	case errors.Is(err, unix.ETIMEDOUT):
		s.Silent++
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES):
		s.Unreachable++
	default:
		return fmt.Errorf("connect to port %d: %w", port, err)
	}
	return nil
}

// closeNow closes a connection with RST, so that it does not stay in TIME_WAIT.
func closeNow(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

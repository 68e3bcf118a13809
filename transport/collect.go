package transport

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// collector takes many datagrams from the kernel in one call: recvmmsg(2), each of whose messages may itself be a batch
// that the kernel has joined (UDP_GRO, udp(7)). It belongs to one goroutine.
type collector struct {
	fd   *quietfd.FD
	call func(fd uintptr) bool // made once for all calls

	n     int
	errno syscall.Errno
	busy  bool // the last wait ended at once: peers are sending
	out   [collected]received
	msgs  [collected]message
	iov   [collected]unix.Iovec
	from  [collected]unix.RawSockaddrInet6 // room for either family
	oob   [collected][cmsgRoom]byte
	room  [collected][1 << 16]byte
}

const (
	collected = 16 // messages of one call
	cmsgRoom  = 64
)

// message is struct mmsghdr.
type message struct {
	head   unix.Msghdr
	length uint32
	_      [4]byte
}

// received is what came from one address: datagrams of size bytes each, of which the last may be shorter.
type received struct {
	data []byte
	size int
	from netip.AddrPort
}

// Collect asks the kernel to join datagrams, and returns what reads them. A kernel that cannot gives them one by one.
func (s *udpSocket) Collect() (*collector, error) {
	err := s.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	if err != nil {
		return nil, err
	}
	c := &collector{fd: s.FD}
	for i := range c.msgs {
		c.iov[i].Base = &c.room[i][0]
		c.iov[i].SetLen(len(c.room[i]))
		h := &c.msgs[i].head
		h.Iov = &c.iov[i]
		h.SetIovlen(1)
		c.reset(i)
		h.Name, h.Control = (*byte)(unsafe.Pointer(&c.from[i])), &c.oob[i][0]
	}
	c.call = c.take
	return c, nil
}

// yields is how often a reader lets others run before it sleeps. Peers that are sending have more ready by then, and need
// not wake anybody.
const yields = 2

// take makes one attempt, or a few while peers are busy. It reports false if the caller should sleep. The call does not
// wait, so it is a raw one, of which Go's scheduler need not know.
func (c *collector) take(fd uintptr) bool {
	more := 0
	if c.busy {
		more = yields
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&c.msgs[0])), collected, unix.MSG_DONTWAIT, 0, 0)
		c.n, c.errno = int(n), errno
		if errno != unix.EAGAIN || more == 0 {
			break
		}
		more--
		quietfd.Yield()
	}
	c.busy = c.errno == 0
	return c.errno != unix.EAGAIN
}

// read waits for datagrams. What it returns is the collector's until the next read.
func (c *collector) read() ([]received, error) {
	for i := range c.n {
		c.reset(i)
	}
	if err := c.fd.Read(c.call); err != nil {
		c.n = 0
		return nil, err
	}
	if c.errno != 0 {
		c.n = 0
		return nil, c.errno
	}
	for i := range c.n {
		m := &c.msgs[i]
		r := &c.out[i]
		r.data, r.from = c.room[i][:m.length], peerAddr(&c.from[i])
		r.size = segmentSize(c.oob[i][:m.head.Controllen])
		if r.size <= 0 || r.size > len(r.data) {
			r.size = len(r.data)
		}
	}
	return c.out[:c.n], nil
}

// reset undoes what a call has written over the lengths of a message.
func (c *collector) reset(i int) {
	h := &c.msgs[i].head
	h.Namelen = uint32(unsafe.Sizeof(c.from[i]))
	h.SetControllen(cmsgRoom)
}

// peerAddr reads a socket address of either family; the zero value is for another one.
func peerAddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

// segmentSize finds what UDP_GRO says; 0 if it says nothing.
func segmentSize(oob []byte) int {
	head := unix.CmsgLen(0)
	for len(oob) >= head {
		// struct cmsghdr: length of all (a machine word), level (4 bytes), type (4).
		length := int(nativeWord(oob[:head-8]))
		level, kind := binary.NativeEndian.Uint32(oob[head-8:]), binary.NativeEndian.Uint32(oob[head-4:])
		if length < head || length > len(oob) {
			return 0
		}
		if level == unix.SOL_UDP && kind == unix.UDP_GRO && length >= head+4 {
			return int(binary.NativeEndian.Uint32(oob[head:]))
		}
		next := unix.CmsgSpace(length - head)
		if next > len(oob) {
			return 0
		}
		oob = oob[next:]
	}
	return 0
}

func nativeWord(b []byte) uint64 {
	if len(b) == 4 {
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

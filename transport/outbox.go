package transport

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// outbox is what a Sender has sealed for one path: runs of datagrams of one size, one behind the other, of which the last
// of a run may be shorter. The kernel takes all of them in one call: sendmmsg(2), a message for each run, which it cuts
// (UDP_SEGMENT, udp(7)). It belongs to one goroutine.
type outbox struct {
	queue int // whose sockets send it
	runs  []run
	count int  // datagrams of the last run
	open  bool // the last run may grow
	done  int  // bytes of room
	room  [2*maxRunBytes + maxDatagram]byte
	call  sendCall
}

// run is datagrams of size bytes each in room[from:to]; the last may be shorter.
type run struct{ from, to, size int }

const (
	maxRun      = 64    // datagrams; UDP_MAX_SEGMENTS of older kernels
	maxRunBytes = 65400 // below what one UDP datagram can hold, over IPv4 and IPv6
	maxRuns     = 8
)

// add takes the n bytes behind what is done as one more datagram.
func (o *outbox) add(n int) {
	if last := len(o.runs) - 1; o.open && n <= o.runs[last].size && o.count < maxRun && o.done+n-o.runs[last].from <= maxRunBytes {
		r := &o.runs[last]
		r.to += n
		o.count++
		o.open = n == r.size
	} else {
		o.runs = append(o.runs, run{o.done, o.done + n, n})
		o.count, o.open = 1, true
	}
	o.done += n
}

// full reports whether the next datagram might not fit.
func (o *outbox) full() bool { return len(o.runs) == maxRuns || o.done+maxDatagram > len(o.room) }

func (o *outbox) reset() { o.runs, o.count, o.open, o.done = o.runs[:0], 0, false, 0 }

// each calls f with every datagram. It goes on after an error and returns the first.
func (o *outbox) each(f func([]byte) error) (first error) {
	for _, r := range o.runs {
		for at := r.from; at < r.to; at += r.size {
			if err := f(o.room[at:min(at+r.size, r.to)]); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

// sendCall is the arguments of sendmmsg(2), and what came of it.
type sendCall struct {
	made  bool
	f     func(fd uintptr) bool // made once for all calls
	at, n int                   // messages that have left; all of them
	errno syscall.Errno
	name  unix.RawSockaddrInet6 // room for either family
	msgs  [maxRun]message
	iov   [maxRun]unix.Iovec
	oob   [maxRun][cmsgRoom]byte
}

func (c *sendCall) make() {
	if c.made {
		return
	}
	c.made = true
	for i := range c.msgs {
		c.msgs[i].head.Name = (*byte)(unsafe.Pointer(&c.name))
		c.msgs[i].head.Iov = &c.iov[i]
		c.msgs[i].head.SetIovlen(1)
	}
	c.f = func(fd uintptr) bool {
		for c.at < c.n {
			sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&c.msgs[c.at])), uintptr(c.n-c.at), unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0:
				c.at += int(sent)
			case unix.EINTR:
			default:
				c.errno = errno
				return errno != unix.EAGAIN
			}
		}
		c.errno = 0
		return true
	}
}

// put makes message i be b; size cuts it, unless it is 0.
func (c *sendCall) put(i int, b []byte, size int, namelen uint32) {
	c.iov[i].Base = unsafe.SliceData(b)
	c.iov[i].SetLen(len(b))
	h := &c.msgs[i].head
	h.Namelen = namelen
	h.Control = nil
	h.SetControllen(0)
	if size > 0 {
		h.Control = &c.oob[i][0]
		h.SetControllen(len(putSegmentSize(c.oob[i][:], size)))
	}
}

// send gives the messages from at to n to the kernel, and returns how many of all n are done and why it refuses the next.
func (c *sendCall) send(fd *quietfd.FD, at, n int) (int, error) {
	c.at, c.n = at, n
	if err := fd.Write(c.f); err != nil {
		return n, err
	}
	if c.errno != 0 {
		return c.at, c.errno
	}
	return n, nil
}

// putAddr writes a socket address and returns its length.
func putAddr(sa *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	*sa = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	if to.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		v4.Family, v4.Addr = unix.AF_INET, to.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	sa.Family, sa.Addr = unix.AF_INET6, to.Addr().As16()
	return unix.SizeofSockaddrInet6
}

// writeRuns sends what the outbox holds. A device or kernel that does not cut gets datagrams one by one from then on. The
// error wraps unix.EMSGSIZE if a datagram is larger than the link's MTU.
func (s *udpSocket) writeRuns(o *outbox, to netip.AddrPort) (first error) {
	c := &o.call
	c.make()
	length := putAddr(&c.name, to)
	if s.segmenting.off.Load() {
		return s.writeSingly(o, o.runs, length)
	}
	for i, r := range o.runs {
		size := 0
		if r.to-r.from > r.size {
			size = r.size
		}
		c.put(i, o.room[r.from:r.to], size, length)
	}
	for at := 0; at < len(o.runs); at++ {
		var err error
		at, err = c.send(s.FD, at, len(o.runs))
		switch {
		case err == nil:
		case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EOPNOTSUPP):
			s.segmenting.off.Store(true) // this device, or this kernel, cannot
			return errors.Join(first, s.writeSingly(o, o.runs[at:], length))
		case errors.Is(err, unix.EINVAL): // this kernel takes fewer in one message
			return errors.Join(first, s.writeSingly(o, o.runs[at:], length))
		case first == nil:
			first = err
		}
	}
	return first
}

// writeSingly sends every datagram as a message of its own.
func (s *udpSocket) writeSingly(o *outbox, runs []run, length uint32) (first error) {
	c := &o.call
	for _, r := range runs {
		n := 0
		for at := r.from; at < r.to; at += r.size {
			c.put(n, o.room[at:min(at+r.size, r.to)], 0, length)
			n++
		}
		for at := 0; at < n; at++ {
			var err error
			if at, err = c.send(s.FD, at, n); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}

// cmsgLen is the length of a control message with one int, as the kernel aligns it.
var cmsgLen = unix.CmsgSpace(4) //nolint:gochecknoglobals // a constant of the platform

// segmenting remembers whether a socket takes batches.
type segmenting struct{ off atomic.Bool }

// putSegmentSize writes a control message for UDP_SEGMENT.
func putSegmentSize(oob []byte, size int) []byte {
	head := unix.CmsgLen(0)
	clear(oob)
	if head == 16 {
		binary.NativeEndian.PutUint64(oob, uint64(head+2))
	} else {
		binary.NativeEndian.PutUint32(oob, uint32(head+2))
	}
	binary.NativeEndian.PutUint32(oob[head-8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(oob[head-4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[head:], uint16(size))
	return oob[:unix.CmsgSpace(2)]
}

package transport

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A batch is datagrams of one size one behind the other, the last of which may be shorter. The kernel takes one for a
// peer in one call (UDP_SEGMENT) and gives one from a peer in one call (UDP_GRO), udp(7).
const (
	maxBatch      = 64    // datagrams; UDP_MAX_SEGMENTS of older kernels
	maxBatchBytes = 65000 // below what one UDP datagram can hold, over IPv4 and IPv6
)

// MaxBurst is how many datagrams of full length leave in one call.
const MaxBurst = maxBatchBytes / MaxDatagram

// batcher is a Socket that knows batches. One that does not gets its datagrams one by one.
type batcher interface {
	// Collect returns what reads batches.
	Collect() (*collector, error)
	// WriteBatch sends b as datagrams of size bytes each.
	WriteBatch(b []byte, size int, to netip.AddrPort) error
}

// cmsgLen is the length of a control message with one int, as the kernel aligns it.
var cmsgLen = unix.CmsgSpace(4) //nolint:gochecknoglobals // a constant of the platform

// segmenting remembers whether a socket takes batches.
type segmenting struct{ off atomic.Bool }

func (s *udpSocket) WriteBatch(b []byte, size int, to netip.AddrPort) error {
	if len(b) > size && !s.segmenting.off.Load() {
		var room [64]byte
		oob := putSegmentSize(room[:cmsgLen], size)
		_, _, err := s.WriteMsgUDPAddrPort(b, oob, to)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EOPNOTSUPP):
			s.segmenting.off.Store(true) // this device, or this kernel, cannot
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMSGSIZE):
			// A path whose MTU is below size: one by one they are fragmented.
		default:
			return err
		}
	}
	return eachDatagram(b, size, func(d []byte) error {
		_, err := s.WriteTo(d, to)
		return err
	})
}

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

// eachDatagram takes a batch apart. It goes on after an error and returns the first.
func eachDatagram(b []byte, size int, f func([]byte) error) (first error) {
	for len(b) > 0 {
		n := min(size, len(b))
		if err := f(b[:n]); err != nil && first == nil {
			first = err
		}
		b = b[n:]
	}
	return first
}

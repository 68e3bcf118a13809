package bridge

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/quietfd"
)

// vnetHeader is the length of the header that the kernel puts in front of every frame (struct virtio_net_hdr).
const vnetHeader = 10

// MaxFrame is the room that Queue.Read needs, header included.
const MaxFrame = vnetHeader + 18 + 65535

// Queue is one of a TAP's queues. One goroutine may read while others write.
//
// Its calls never wait in the kernel, so they are made as raw ones: Go's scheduler need not know of them, and its monitor
// does not take the processor away from a goroutine whose frame the kernel happens to carry for long.
type Queue struct {
	fd   *quietfd.FD
	call func(fd uintptr) bool // reads once into buf, made once for all reads

	buf   []byte // of the present call
	n     int
	errno syscall.Errno
	wait  bool // for a frame, if there is none
	busy  bool // the last wait ended at once: the host is sending
}

// yields is how often a reader lets others run before it sleeps. A host that is sending has the next frame ready by then,
// and need not wake anybody.
const yields = 2

func attach(name string) (*Queue, error) {
	dev, err := water.New(water.Config{
		DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: true},
	})
	if err != nil {
		return nil, err
	}
	file, ok := dev.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, errors.New("water's device is not a file")
	}
	defer file.Close() //nolint:errcheck // its duplicate stays
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &Queue{}
	if q.fd, err = quietfd.Take(raw); err != nil { // water does not set close-on-exec; this does
		return nil, err
	}
	q.call = q.read
	var flags uint16
	err = control(q.fd, func(fd int) (err error) {
		flags, err = tapFlags(fd)
		return err
	})
	if err == nil && flags&unix.IFF_VNET_HDR == 0 {
		err = errors.New("the queue has no virtio header")
	}
	if err != nil {
		return nil, errors.Join(err, q.fd.Close())
	}
	return q, nil
}

// read makes one attempt, or a few while the host is busy. It reports false if the caller should sleep.
func (q *Queue) read(fd uintptr) bool {
	more := 0
	if q.wait && q.busy {
		more = yields
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(q.buf))), uintptr(len(q.buf)))
		q.n, q.errno = int(n), errno
		if errno != unix.EAGAIN || more == 0 {
			break
		}
		more--
		quietfd.Yield()
	}
	if q.wait {
		q.busy = q.errno == 0
	}
	return !q.wait || q.errno != unix.EAGAIN
}

// Read waits for a frame from the host and returns it, with what the host has left undone on it; it lies in b, which must
// be MaxFrame long to hold every frame. The error is os.ErrClosed when the TAP has been closed.
func (q *Queue) Read(b []byte) ([]byte, ether.Offload, error) {
	q.buf, q.wait = b, true
	for {
		if err := q.fd.Read(q.call); err != nil {
			return nil, ether.Offload{}, err
		}
		if q.errno != 0 && q.errno != unix.EINTR {
			return nil, ether.Offload{}, os.NewSyscallError("read", q.errno)
		}
		if q.errno == 0 && q.n > vnetHeader {
			return b[vnetHeader:q.n], parseVnet(b[:vnetHeader]), nil
		}
	}
}

// TryRead is Read without waiting: ok is false if the host has nothing to send at the moment, or the TAP has been closed.
func (q *Queue) TryRead(b []byte) (frame []byte, undone ether.Offload, ok bool) {
	q.buf, q.wait = b, false
	if err := q.fd.Read(q.call); err != nil || q.errno != 0 || q.n <= vnetHeader {
		return nil, ether.Offload{}, false
	}
	return b[vnetHeader:q.n], parseVnet(b[:vnetHeader]), true
}

// Writer gives frames to the host. It is for one goroutine.
type Writer struct {
	queue *Queue
	call  func(fd uintptr) bool // made once for all writes
	head  [vnetHeader]byte
	tag   ether.Tag
	parts [4]unix.Iovec // head, then the frame, or its addresses, the tag, and the rest
	count int           // of parts in use
	errno syscall.Errno
}

// NewWriter returns a Writer on the queue.
func (q *Queue) NewWriter() *Writer {
	w := &Writer{queue: q}
	w.part(w.head[:])
	w.call = func(fd uintptr) bool {
		_, _, w.errno = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.parts[0])), uintptr(w.count))
		return w.errno != unix.EAGAIN
	}
	return w
}

// part adds bytes to what is written.
func (w *Writer) part(b []byte) {
	w.parts[w.count].Base = unsafe.SliceData(b)
	w.parts[w.count].SetLen(len(b))
	w.count++
}

// Write gives one frame to the host, as if it had come in on a cable, or a super-frame, as if its card had joined several.
func (w *Writer) Write(frame []byte, undone ether.Offload) error {
	putVnet(w.head[:], frame, undone)
	w.part(frame)
	return w.send()
}

// WriteTagged is Write of a frame of a segment with a tag, which may be none, in the place of its priority tag: what
// Tagging.Egress has returned for it. The frame is not changed, nor copied.
func (w *Writer) WriteTagged(frame []byte, tag ether.Tag, undone ether.Offload) error {
	own, err := ether.OuterTag(frame)
	if err != nil {
		return err
	}
	const addresses = 12
	putVnet(w.head[:], frame, undone)
	w.part(frame[:addresses])
	rest, moved := frame[addresses:], 0
	if own.IsPriority() {
		rest, moved = rest[len(own):], -len(own)
	}
	if tag != (ether.Tag{}) {
		w.tag = tag
		w.part(w.tag[:])
		moved += len(tag)
	}
	w.part(rest)
	moveVnet(w.head[:], moved)
	return w.send()
}

// send writes the parts and forgets them: the frame was borrowed.
func (w *Writer) send() error {
	err := w.queue.fd.Write(w.call)
	for ; w.count > 1; w.count-- {
		w.parts[w.count-1].Base = nil
	}
	if err == nil && w.errno != 0 {
		err = w.errno
	}
	return err
}

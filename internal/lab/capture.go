package lab

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

const (
	captureQueue = 64 << 20  // bytes of frames that may wait in the kernel
	captureFrame = 256 << 10 // the longest frame; super-frames of segmentation offload are up to 64 KiB
)

// ErrIncomplete says that a capture lost frames, so that what it does not show may have been there.
var ErrIncomplete = errors.New("lab: the capture lost frames and proves no absence")

// Capture records every frame that an interface sends or receives, or with CaptureArrivals receives alone, into a
// pcap file. A frame is recorded as it was on the wire, with all its tags: the outermost, which the kernel takes out
// of a frame before a packet socket is shown it, is put back; frames that have a tag and less than two bytes after the
// next EtherType the kernel drops. A frame is in it before any program can have received it. What Link.Drop drops is seen at both ends; what the host's own rules drop on
// arrival is seen, what they drop before it leaves is not.
type Capture struct {
	host *Host
	sock *os.File
	path string
	done chan struct{}
	once sync.Once

	mu     sync.Mutex // held while the socket is read
	closed bool
	file   *os.File
	buf    *bufio.Writer
	pcap   *pcapgo.Writer
	frame  []byte // the next frame
	err    error  // the first there was
	frames uint64
	lost   uint64
}

// Capture starts recording on an interface of the host, which may also be one that a program made, as loom0. It goes
// on until Stop or Close.
func (h *Host) Capture(name string) (*Capture, error) { return h.capture(name, false) }

// CaptureArrivals is Capture without what the interface sends.
func (h *Host) CaptureArrivals(name string) (*Capture, error) { return h.capture(name, true) }

func (h *Host) capture(name string, arrivals bool) (*Capture, error) {
	sock, err := h.openPacketSocket(name, arrivals)
	if err != nil {
		return nil, fmt.Errorf("capture on %s/%s: %w", h.name, name, err)
	}
	file, err := h.newFile(name, "pcap")
	if err != nil {
		_ = sock.Close()
		return nil, err
	}
	c := &Capture{host: h, sock: sock, path: file.Name(), file: file, done: make(chan struct{}), frame: make([]byte, captureFrame)}
	c.buf = bufio.NewWriterSize(file, 1<<18)
	c.pcap = pcapgo.NewWriterNanos(c.buf)
	c.err = c.pcap.WriteFileHeader(captureFrame, layers.LinkTypeEthernet)
	go c.read()
	if err := h.keep(c); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// openPacketSocket returns a non-blocking packet(7) socket on an interface.
func (h *Host) openPacketSocket(name string, arrivals bool) (*os.File, error) {
	fd, ignoreOutgoing := -1, 0
	if arrivals {
		ignoreOutgoing = 1
	}
	err := h.thread.call(func() (err error) {
		// Protocol 0: nothing is queued before all is set and bind names the interface.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		for _, o := range []struct{ level, option, value int }{
			{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureQueue},
			{unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1},
			{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
			{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, ignoreOutgoing},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
				return err
			}
		}
		member := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &member); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index})
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

// read runs until the socket is closed.
func (c *Capture) read() {
	defer close(c.done)
	conn, err := c.sock.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(fd uintptr) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drain(int(fd))
		return c.closed
	})
}

// drainNow takes in what waits in the socket, so that all that has been sent before is in the file.
func (c *Capture) drainNow() error {
	conn, err := c.sock.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Control(func(fd uintptr) { c.drain(int(fd)) })
}

// drain reads the socket until it is empty. The caller holds mu.
func (c *Capture) drain(fd int) {
	if c.closed {
		return
	}
	control := make([]byte, 256)
	for {
		n, cn, flags, _, err := unix.Recvmsg(fd, c.frame, control, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // the interface went down, and may come back
			continue
		case err != nil: // EAGAIN: empty
			c.countLost(fd)
			return
		}
		if flags&unix.MSG_TRUNC != 0 {
			c.lost++
		}
		c.write(c.frame[:n], control[:cn])
	}
}

func (c *Capture) countLost(fd int) {
	// PACKET_STATISTICS starts again from 0 when read.
	if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.lost += uint64(stats.Drops)
	} else {
		c.fail(err)
	}
}

// fail keeps the first error.
func (c *Capture) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *Capture) write(frame, control []byte) {
	at, tag := readControl(control)
	if tag != nil && len(frame) >= 12 {
		frame = bytes.Join([][]byte{frame[:12], tag, frame[12:]}, nil)
	}
	c.frames++
	info := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}
	c.fail(c.pcap.WritePacket(info, frame))
}

// readControl returns when the kernel saw a frame, and the VLAN tag that it took out of it, if any, as four bytes.
func readControl(control []byte) (at time.Time, tag []byte) {
	at = time.Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return at, nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20:
			// struct tpacket_auxdata (linux/if_packet.h): status at 0, vlan_tci at 16, vlan_tpid at 18.
			if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID != 0 {
				tag = binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
				tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
			}
		}
	}
	return at, tag
}

// Path returns the path of the pcap file, which goes with the host.
func (c *Capture) Path() string { return c.path }

// Frames returns how many frames were captured so far, and how many were lost because they came too fast.
func (c *Capture) Frames() (captured, lost uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.drainNow() // after Stop there is nothing to drain
	return c.frames, c.lost
}

// Contains reports whether any frame captured so far contains the marker. That none does is reported only of a
// capture that has lost nothing; otherwise the error is ErrIncomplete. A marker that was cut in two by packets, or
// compressed, is not found.
func (c *Capture) Contains(marker []byte) (bool, error) {
	found := false
	err := c.Each(func(frame []byte) bool {
		found = bytes.Contains(frame, marker)
		return !found
	})
	if found && errors.Is(err, ErrIncomplete) {
		err = nil
	}
	return found, err
}

// Each calls f with each frame captured so far, from the Ethernet header on, until f returns false. It returns
// ErrIncomplete if frames were lost.
func (c *Capture) Each(f func(frame []byte) bool) error {
	return c.EachAt(func(frame []byte, _ time.Time) bool { return f(frame) })
}

// Seen returns how many frames with the marker were captured so far, and when the kernel saw the last.
func (c *Capture) Seen(marker []byte) (n int, last time.Time, err error) {
	err = c.EachAt(func(frame []byte, at time.Time) bool {
		if bytes.Contains(frame, marker) {
			n, last = n+1, at
		}
		return true
	})
	return n, last, err
}

// EachAt is Each with the times at which the kernel saw the frames.
func (c *Capture) EachAt(f func(frame []byte, at time.Time) bool) error {
	if err := c.flush(); err != nil {
		return err
	}
	file, err := os.Open(c.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	reader, err := pcapgo.NewReader(bufio.NewReader(file))
	if err != nil {
		return err
	}
	for {
		frame, info, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the rest was written after flush
			break
		}
		if err != nil {
			return err
		}
		if !f(frame, info.Timestamp) {
			break
		}
	}
	if _, lost := c.Frames(); lost > 0 {
		return fmt.Errorf("%w: %d", ErrIncomplete, lost)
	}
	return nil
}

// flush brings all that was sent so far into the file.
func (c *Capture) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.err
	}
	if err := c.drainNow(); err != nil {
		return err
	}
	c.fail(c.buf.Flush())
	return c.err
}

// Stop ends the recording. The file stays until the host goes, and can be searched.
func (c *Capture) Stop() error {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Capture) stop() {
	c.once.Do(func() {
		_ = c.flush() // kept in err
		c.mu.Lock()
		c.closed = true
		c.fail(c.file.Close())
		c.mu.Unlock()
		_ = c.sock.Close()
		<-c.done
		c.host.release(c)
	})
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

package bridge

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// SinkConfig says where copies of frames go.
type SinkConfig struct {
	Name string
	Make bool // it is made, and goes with the sink; otherwise it is a NIC of this machine
	MTU  int  // of one that is made: of the payload, in bytes
}

// Sink is where copies of frames go that somebody wants to look at, as a switch's SPAN port. They are sent out of a network device:
//
//	Writer ──► packet socket ──► TAP that nobody reads      as a packet socket there sees them (tcpdump, an IDS)
//	                        └──► NIC ──► cable ──► probe
//
// What is sent out of a TAP whose queue is detached has been shown to packet sockets and filters, and is gone. So nothing of it enters
// this machine, where its broadcasts might be believed, and nothing enters a segment by a sink: no frame is ever read from one.
//
// A NIC is refused for the reasons for which a Wire would be, and given up when there is one: copies shall go to nobody but who hangs on
// it. Nobody waits for a sink: what it does not take at once is lost.
type Sink struct {
	cfg   SinkConfig
	h     *netlink.Handle
	tap   *TAP // nil: a NIC
	fd    *quietfd.FD
	index int // of the device to which copies go; 0: to none
}

// sinkBuffer is how much may wait in a NIC, in bytes.
const sinkBuffer = 4 << 20

// NewSink makes a TAP, or takes a NIC, for copies.
func NewSink(cfg SinkConfig) (*Sink, error) {
	h, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("mirror to %s: %w", cfg.Name, err)
	}
	s := &Sink{cfg: cfg, h: h}
	if err := s.open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("mirror to %s: %w", cfg.Name, err)
	}
	return s, nil
}

func (s *Sink) open() error {
	if s.cfg.Make {
		if err := s.makeTAP(); err != nil {
			return err
		}
	}
	// Protocol 0: it receives nothing.
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(sock, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return errors.Join(fmt.Errorf("set PACKET_VNET_HDR: %w", err), unix.Close(sock))
	}
	_ = unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sinkBuffer) // with less, more is lost
	if s.fd, err = quietfd.New(sock); err != nil {
		return err
	}
	_, err = s.Follow()
	return err
}

// makeTAP makes a TAP that takes whatever is sent out of it.
func (s *Sink) makeTAP() error {
	tap, link, err := newSilentTAP(s.h, TAPConfig{Name: s.cfg.Name, MTU: s.cfg.MTU})
	s.tap = tap
	if err != nil {
		return err
	}
	return errors.Join(s.h.LinkSetARPOff(link), tap.SetCarrier(true), tap.Up(), control(tap.queues[0].fd, detachQueue))
}

// Follow finds the device, which may have gone and come back, and says whether something has changed. The error says why no copies go
// to it.
func (s *Sink) Follow() (changed bool, err error) {
	before := s.index
	err = s.follow()
	if err != nil {
		s.index = 0
	}
	if s.index == before {
		return false, err
	}
	bindErr := control(s.fd, func(fd int) error {
		// Without a device, what is written is refused (ENXIO).
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: s.index})
	})
	if bindErr != nil {
		bindErr = fmt.Errorf("bind a packet socket to %s: %w", s.cfg.Name, bindErr)
	}
	return true, errors.Join(err, bindErr)
}

func (s *Sink) follow() error {
	if s.tap != nil {
		s.index = s.tap.Index() // by whatever name
		if _, err := s.h.LinkByIndex(s.index); err != nil {
			return fmt.Errorf("somebody else has removed %s: remove the mirror and add it again", s.cfg.Name)
		}
		return nil
	}
	link, err := findNIC(s.h, s.cfg.Name)
	if err != nil {
		return err
	}
	reasons := []func(*netlink.Handle, netlink.Link) (string, error){wrongKind, enslaved, carriesAddress, carriesRoute, carriesDevice, joinedAlready}
	if link.Attrs().Index == s.index { // this is asked for each event of the kernel's, and a host may have many routes
		reasons = reasons[1:3]
	}
	if err := because(s.h, link, reasons...); err != nil {
		return err
	}
	s.index = link.Attrs().Index
	if !carries(link) {
		return fmt.Errorf("%s is down, or has no carrier: `ip link set %s up`", s.cfg.Name, s.cfg.Name)
	}
	return nil
}

// NewWriter returns a Writer of copies, which never waits.
func (s *Sink) NewWriter() *Writer {
	w := (&Queue{fd: s.fd}).NewWriter()
	once := w.call
	w.call = func(fd uintptr) bool {
		once(fd)
		return true
	}
	return w
}

// Close ends the sink, and removes what it has made.
func (s *Sink) Close() {
	if s.fd != nil {
		_ = s.fd.Close()
	}
	if s.tap != nil {
		s.tap.Close()
	}
	s.h.Close()
}

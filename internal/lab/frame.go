package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// EtherTypes of tags (IEEE 802.1Q-2022 table 9-1), and the one that frames of no protocol have in tests (IEEE 802
// clause 9.2.4: local experimental).
const (
	CustomerTag  = 0x8100
	ServiceTag   = 0x88a8
	Experimental = 0x88b5
)

// Tag is a VLAN tag.
type Tag struct {
	VLAN     uint16 // 12 bits
	Priority uint8  // PCP, 3 bits
	Eligible bool   // DEI: may be dropped first
	Type     uint16 // 0: CustomerTag
}

// Broadcast returns the address of all.
func Broadcast() net.HardwareAddr { return net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// Ethernet returns the head of a frame: destination, source, tags from the outermost in, EtherType.
func Ethernet(dst, src net.HardwareAddr, typ uint16, tags ...Tag) []byte {
	b := append(append(make([]byte, 0, 14+4*len(tags)), dst...), src...)
	for _, t := range tags {
		if t.Type == 0 {
			t.Type = CustomerTag
		}
		tci := t.VLAN&0xfff | uint16(t.Priority)<<13
		if t.Eligible {
			tci |= 1 << 12
		}
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, t.Type), tci)
	}
	return binary.BigEndian.AppendUint16(b, typ)
}

// SendFrames sends frames out of an interface of the host as they are, as a program with root there can. One may be
// longer than the interface's MTU and the Ethernet header by a tag, but not by two.
func (h *Host) SendFrames(name string, frames ...[]byte) error {
	return h.withSender(name, func(fd int) error {
		for _, f := range frames {
			if err := sendFrame(fd, f); err != nil {
				return fmt.Errorf("send %d bytes: %w", len(f), err)
			}
		}
		return nil
	})
}

// withSender calls f with a packet(7) socket that sends on an interface and receives nothing. It is in the host's
// namespace, and f is not.
func (h *Host) withSender(name string, f func(fd int) error) error {
	fd := -1
	err := h.thread.call(func() (err error) {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if fd >= 0 {
		defer func() { _ = unix.Close(fd) }()
	}
	if err == nil {
		err = f(fd)
	}
	if err != nil {
		return fmt.Errorf("%s/%s: %w", h.name, name, err)
	}
	return nil
}

// sendFrame waits while the interface's queue is full.
func sendFrame(fd int, frame []byte) error {
	for {
		err := unix.Send(fd, frame, 0)
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

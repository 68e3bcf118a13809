package lab

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hold keeps what one of the matches chooses for a time, of about a millisecond at least, so that what comes after
// overtakes it: with a chance of 0.01, one packet in a hundred arrives out of order. Only what is held passes through
// this process, so that the cable stays as fast as it was. As with Drop, it carries real packets from then on.
//
//	peer ── cable ── ingress of the link ──────────────────────────────► host
//	  ▲                     └─ chosen ─► TAP ─► queue by due time ─┐
//	  └──────────────────────────── packet socket ◄────────────────┘
//
// A held packet travels the cable again and may be chosen again, so each match must have a chance. Captures at both
// ends see it twice, Drop and Count meet it at its end, after Hold.
func (l *Link) Hold(by time.Duration, matches ...Match) (*Rule, error) {
	for _, m := range matches {
		if m.Chance == 0 {
			return nil, errors.New("a match without a chance would be held for ever")
		}
	}
	if err := l.carryRealPackets(); err != nil {
		return nil, err
	}
	return l.addRule(matches, func(at *Link, match [][]expr.Any) (side, error) { return at.addHold(by, match) })
}

// addHold makes the side of a Hold where packets leave the cable.
func (l *Link) addHold(by time.Duration, match [][]expr.Any) (side, error) {
	d := &delayLine{hosts: [2]*Host{l.host, l.peer.host}}
	d.shape.Store(&Shape{Delay: by})
	index, err := l.openHold(d)
	if err == nil {
		err = errors.Join(l.host.keep(d), l.peer.host.keep(d))
	}
	if err != nil {
		d.stop()
		return side{}, fmt.Errorf("%s: hold: %w", l, err)
	}
	d.wg.Go(func() { d.carry(d.ends[0], d.ends[1]) })
	s, err := l.addSide(match, sentTo(index), nftables.ChainPriorityRaw)
	if err != nil {
		d.stop()
		return side{}, err
	}
	s.line = d
	return s, nil
}

// openHold opens the way of held packets, and returns the index of the TAP where it begins.
func (l *Link) openHold(d *delayLine) (index int, err error) {
	name := fmt.Sprintf("hold%d", l.host.next())
	err = l.host.thread.call(func() (err error) {
		if d.ends[0], err = openTAP(name); err != nil {
			return err
		}
		// All that goes into it shall be what is held.
		if err := writeSysctl("net.ipv6.conf."+name+".disable_ipv6", "1"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
		return netlink.LinkSetUp(link)
	})
	if err != nil {
		return 0, err
	}
	return index, l.peer.do(func(link netlink.Link) (err error) {
		d.ends[1], err = openSender(link.Attrs().Index)
		return err
	})
}

// openSender opens a packet(7) socket that sends on an interface and receives nothing.
func openSender(index int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet"), nil
}

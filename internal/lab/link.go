package lab

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is one end of a cable: a network interface of a host.
type Link struct {
	host  *Host
	name  string
	peer  *Link
	cable *Cable
	level atomic.Int32 // an Offload
}

// Host returns the host that has the interface.
func (l *Link) Host() *Host { return l.host }

// Name returns the interface's name.
func (l *Link) Name() string { return l.name }

// Peer returns the cable's other end.
func (l *Link) Peer() *Link { return l.peer }

// Cable returns the cable.
func (l *Link) Cable() *Cable { return l.cable }

func (l *Link) String() string { return l.host.name + "/" + l.name }

// do runs f on the host's thread with the interface as it is now.
func (l *Link) do(f func(netlink.Link) error) error {
	return l.host.thread.call(func() error {
		link, err := netlink.LinkByName(l.name)
		if err == nil {
			err = f(link)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		return nil
	})
}

func (l *Link) configure(p Plug) error {
	return l.do(func(link netlink.Link) error {
		if l.host.bridge {
			bridge, err := netlink.LinkByName(bridgeName)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return err
			}
		}
		if err := addAddrs(link, p.Addrs); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
}

// Up sets the interface up. The routes that the host's AddRoute made and that went with Down come back, as a network
// daemon would bring them back.
func (l *Link) Up() error {
	if err := l.do(netlink.LinkSetUp); err != nil {
		return err
	}
	if err := l.cable.settle(); err != nil {
		return err
	}
	return l.host.restoreRoutes()
}

// Down sets the interface down. The other end loses its carrier, and with it nothing else: so to pull a cable from
// a host and leave the host's interface as it is, set the other end down.
func (l *Link) Down() error { return l.do(netlink.LinkSetDown) }

// SetMTU sets the interface's MTU, in bytes of IP packet. The other end keeps its own.
func (l *Link) SetMTU(mtu int) error {
	return l.do(func(link netlink.Link) error { return netlink.LinkSetMTU(link, mtu) })
}

// AddAddr adds an address, written with its prefix length.
func (l *Link) AddAddr(addr string) error {
	err := l.do(func(link netlink.Link) error { return addAddrs(link, []string{addr}) })
	return errors.Join(err, l.cable.settle())
}

// SetAddrs replaces all addresses but the link-local ones, as happens to a host that roams. The routes through the
// old ones go; AddRoute adds the new ones.
func (l *Link) SetAddrs(addrs ...string) error {
	err := l.do(func(link netlink.Link) error {
		old, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range old {
			if a.IP.IsLinkLocalUnicast() {
				continue
			}
			if err := netlink.AddrDel(link, &a); err != nil {
				return err
			}
		}
		return addAddrs(link, addrs)
	})
	return errors.Join(err, l.cable.settle())
}

// isReady reports whether the kernel has noticed the interface's carrier and can use all of its addresses, and
// whether the interface is up at all.
func (l *Link) isReady() (ready, up bool, err error) {
	err = l.do(func(link netlink.Link) error {
		attrs := link.Attrs()
		up = attrs.Flags&net.FlagUp != 0
		ready = attrs.OperState == netlink.OperUp || attrs.OperState == netlink.OperUnknown
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
		for _, a := range addrs {
			ready = ready && a.Flags&unix.IFA_F_TENTATIVE == 0
		}
		return err
	})
	return ready, up, err
}

func addAddrs(link netlink.Link, addrs []string) error {
	for _, text := range addrs {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("address %q: %w", text, err)
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s: %w", text, err)
		}
	}
	return nil
}

func setLinkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// Offload says what an interface may leave undone when it sends.
type Offload int

// The levels of offload, from most to least. A veth passes on what is undone, and the far end's kernel takes it as it
// comes: so with FullOffload no packet on the cable need be one that a real wire could carry.
const (
	FullOffload     Offload = iota // packets of up to 64 KiB, no checksums: the kernel's default
	ChecksumOffload                // real packets, no checksums
	NoOffload                      // real packets with checksums: for programs that read them from a raw socket or a TAP
)

// SetOffload sets what the interface leaves undone when it sends. What it receives is set at the other end.
func (l *Link) SetOffload(level Offload) error {
	segments := 1
	if level == FullOffload {
		segments = 65535 // GSO_MAX_SEGS, include/linux/netdevice.h
	}
	l.level.Store(int32(level))
	return l.do(func(link netlink.Link) error {
		// Without transmit checksums the kernel turns off TSO, USO and scatter-gather by itself, and back on with them.
		if err := setEthtool(l.name, unix.ETHTOOL_STXCSUM, level != NoOffload); err != nil {
			return err
		}
		return netlink.LinkSetGSOMaxSegs(link, segments)
	})
}

// setEthtool sets one switch of an interface: struct ifreq with a pointer to struct ethtool_value (ethtool.h).
func setEthtool(name string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command}
	if on {
		value.data = 1
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 && !errors.Is(errno, unix.EOPNOTSUPP) { // a TAP has no checksum to switch off
		return fmt.Errorf("set offload of %s: %w", name, errno)
	}
	return nil
}

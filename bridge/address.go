package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// addr is an address that we have put on a TAP.
type addr struct{ prefix netip.Prefix }

// with runs f with a netlink handle in the namespace that the TAP is in, and the TAP as a link there.
func (t *TAP) with(f func(*netlink.Handle, netlink.Link) error) error {
	return control(t.queues[0].fd, func(fd int) error {
		ns, err := tapNamespace(fd)
		if err != nil {
			return err
		}
		defer unix.Close(ns) //nolint:errcheck // only read
		h, err := netlink.NewHandleAt(netns.NsHandle(ns), unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink in the TAP's namespace: %w", err)
		}
		defer h.Close()
		name, err := tapName(fd)
		if err != nil {
			return err
		}
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find TAP %s: %w", name, err)
		}
		return f(h, link)
	})
}

// SetAddresses puts exactly these addresses of ours on the TAP: those it had from us before and shall not have any more
// are removed, those of others are left alone.
func (t *TAP) SetAddresses(want []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.with(func(h *netlink.Handle, link netlink.Link) error {
		var errs []error
		for _, a := range t.addrs {
			if !slices.Contains(want, a.prefix) {
				if err := h.AddrDel(link, toNetlink(a.prefix)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
					errs = append(errs, fmt.Errorf("remove address %s: %w", a.prefix, err))
				}
			}
		}
		var have []addr
		for _, p := range want {
			if !slices.Contains(t.addrs, addr{p}) {
				if err := h.AddrReplace(link, toNetlink(p)); err != nil {
					errs = append(errs, fmt.Errorf("set address %s: %w", p, err))
					continue
				}
			}
			have = append(have, addr{p})
		}
		t.addrs = have
		return errors.Join(errs...)
	})
}

func toNetlink(p netip.Prefix) *netlink.Addr {
	n := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	a := &netlink.Addr{IPNet: n}
	if p.Addr().Is6() {
		// The controller has made sure that nobody else has it; waiting for an answer that cannot come costs seconds.
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// Addresses lists what is on the TAP now, ours and others'.
func (t *TAP) Addresses() ([]netip.Prefix, error) {
	var out []netip.Prefix
	err := t.with(func(h *netlink.Handle, link netlink.Link) error {
		list, err := h.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range list {
			if p, ok := fromNetlink(a.IPNet); ok {
				out = append(out, p)
			}
		}
		return err
	})
	return out, err
}

func fromNetlink(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// Follow finds where the TAP is now. If it has been moved to another namespace, where it arrives down and without
// addresses, ours are set again there. It says whether something has changed since the last call.
func (t *TAP) Follow() (changed bool, err error) {
	var name string
	var index int
	var home uint64
	err = control(t.queues[0].fd, func(fd int) error {
		ns, err := tapNamespace(fd)
		if err != nil {
			return err
		}
		defer unix.Close(ns) //nolint:errcheck // only read
		if home, err = inode(ns); err != nil {
			return err
		}
		name, err = tapName(fd)
		return err
	})
	if err != nil {
		return false, err
	}
	if err := t.with(func(_ *netlink.Handle, link netlink.Link) error {
		index = link.Attrs().Index
		return nil
	}); err != nil {
		return false, err
	}
	t.mu.Lock()
	moved := home != t.home
	changed = moved || name != t.name || index != t.index
	t.name, t.index, t.home = name, index, home
	addrs := t.addrs
	if moved {
		t.addrs = nil
		own, _ := currentNamespace()
		t.away = home != own
	}
	t.mu.Unlock()
	if !moved {
		return changed, nil
	}
	return true, t.settle(addrs)
}

// settle sets the TAP up in the namespace that it has been moved to.
func (t *TAP) settle(addrs []addr) error {
	if err := t.inNamespace(func() error { return setSysctls(t.Name()) }); err != nil {
		return err
	}
	if err := t.Up(); err != nil {
		return err
	}
	var want []netip.Prefix
	for _, a := range addrs {
		want = append(want, a.prefix)
	}
	return t.SetAddresses(want)
}

// inNamespace runs f on a thread in the TAP's namespace.
func (t *TAP) inNamespace(f func() error) error {
	return control(t.queues[0].fd, func(fd int) error {
		ns, err := tapNamespace(fd)
		if err != nil {
			return err
		}
		defer unix.Close(ns) //nolint:errcheck // only read
		runtime.LockOSThread()
		own, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			return err
		}
		defer own.Close() //nolint:errcheck // only read
		if err := netns.Set(netns.NsHandle(ns)); err != nil {
			runtime.UnlockOSThread()
			return err
		}
		inner := f()
		// A thread that cannot return is never given back to the scheduler: it ends with its goroutine.
		if err := netns.Set(own); err != nil {
			return errors.Join(inner, err)
		}
		runtime.UnlockOSThread()
		return inner
	})
}

// Away reports whether the TAP is in another namespace than the daemon.
func (t *TAP) Away() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.away
}

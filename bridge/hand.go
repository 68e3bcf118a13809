package bridge

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What a host has on one device is put onto another in the kernel's order: of IPv4 a further address is listed last, of IPv6
// first (inet_insert_ifa, ipv6_link_dev_addr). To take it off, in the opposite order, leaves at any moment what is
// listed last, or first; so what is missing can be added again, and all is listed as before.

// inOrder lists addresses as they are to be added.
func inOrder(list []message) []message {
	six := func(m message) bool { return m[0] == unix.AF_INET6 }
	out := slices.DeleteFunc(slices.Clone(list), six)
	for _, m := range slices.Backward(list) {
		if six(m) {
			out = append(out, m)
		}
	}
	return out
}

// addAddresses puts addresses onto a device that lacks them, some time after they were read.
func (r *rawSocket) addAddresses(list []message, from, to netlink.Link, after time.Duration) error {
	for _, m := range inOrder(list) {
		// Nobody else has it: it was ours, a moment ago. So nobody is asked, which would take a second.
		quick, alive := m.at(from, to, after, nodad(m))
		if !alive {
			continue
		}
		err := r.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, quick)
		if there(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("put %s on %s: %w", m.address(), to.Attrs().Name, err)
		}
		if exact, _ := m.at(from, to, after, 0); nodad(m) != 0 {
			if err := r.do(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, exact); err != nil {
				return fmt.Errorf("set the flags of %s on %s: %w", m.address(), to.Attrs().Name, err)
			}
		}
	}
	return nil
}

func nodad(m message) uint32 {
	if m[0] == unix.AF_INET6 {
		return unix.IFA_F_NODAD
	}
	return 0
}

// addRoutes puts routes of a family onto a device that lacks them. One may lead to the gateway of another, so that
// those that cannot be yet are tried again as long as others can.
func (r *rawSocket) addRoutes(list []message, family byte, from, to netlink.Link) error {
	flags := unix.NLM_F_CREATE
	if family == unix.AF_INET {
		flags |= unix.NLM_F_APPEND // after the one that still leads to the other device
	}
	left := slices.DeleteFunc(slices.Clone(list), func(m message) bool { return m[0] != family })
	for len(left) > 0 {
		var later []message
		var errs []error
		for _, m := range left {
			err := r.do(unix.RTM_NEWROUTE, flags, m.by(from.Attrs().Index, to.Attrs().Index))
			if err != nil && !there(err) {
				later = append(later, m)
				errs = append(errs, fmt.Errorf("put route %s on %s: %w", m.destination(), to.Attrs().Name, err))
			}
		}
		if len(later) == len(left) {
			return errors.Join(errs...)
		}
		left = later
	}
	return nil
}

// addNeighbours puts those whose MAC somebody has written down onto a device.
func (r *rawSocket) addNeighbours(list []message, to netlink.Link) error {
	for _, m := range list {
		if err := r.do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m.beside(to.Attrs().Index)); err != nil {
			return fmt.Errorf("write down a neighbour on %s: %w", to.Attrs().Name, err)
		}
	}
	return nil
}

// clear takes from a NIC what a bridge has now. Its link-local addresses of IPv6 stay: they are of no use there, and do no harm.
func (r *rawSocket) clear(plan *relocation, link netlink.Link) error {
	for _, m := range plan.Routes {
		if err := r.do(unix.RTM_DELROUTE, 0, m.by(0, 0)); err != nil && !gone(err) {
			return fmt.Errorf("take route %s off %s: %w", m.destination(), link.Attrs().Name, err)
		}
	}
	for _, m := range slices.Backward(inOrder(plan.Addresses)) {
		if m.linkLocal() {
			continue
		}
		if err := r.do(unix.RTM_DELADDR, 0, m); err != nil && !gone(err) {
			return fmt.Errorf("take %s off %s: %w", m.address(), link.Attrs().Name, err)
		}
	}
	return nil
}

// giveBack makes the NIC have again what the host has on the bridge, and removes that. A NIC that is gone gets nothing.
func (r *rawSocket) giveBack(h *netlink.Handle, c *changes, link netlink.Link, journal string) error {
	bridge, err := ourBridge(h, c.Host.Bridge, c.MAC)
	if err != nil {
		return err
	}
	if link != nil && bridge != nil && c.Host.Done {
		if err := r.takeDown(c, link, bridge, journal); err != nil {
			return err
		}
	}
	if link != nil {
		if err := r.settle(h, c.Host, link, bridge); err != nil {
			return err
		}
	}
	if bridge == nil {
		return nil
	}
	// Its routes, which are the NIC's by now, end at once, and not after its ports have lost all their VLANs.
	if err := h.LinkSetDown(bridge); err != nil && !isGone(err) {
		return fmt.Errorf("set %s down: %w", c.Host.Bridge, err)
	}
	if err := h.LinkDel(bridge); err != nil && !isGone(err) {
		return fmt.Errorf("remove %s: %w", c.Host.Bridge, err)
	}
	return nil
}

// takeDown puts into the journal what is on the bridge now, as what the NIC is to get: on the way there some of it is nowhere for a moment, and a
// daemon that is killed then is to know of it. From here on it is a move that was not done.
func (r *rawSocket) takeDown(c *changes, link netlink.Link, bridge *netlink.Bridge, journal string) error {
	now := &relocation{Bridge: c.Host.Bridge, Read: time.Now()}
	addresses, err := r.addresses(bridge.Index)
	if err != nil {
		return err
	}
	for _, m := range addresses {
		if m, alive := m.at(bridge, link, 0, 0); alive {
			now.Addresses = append(now.Addresses, m)
		}
	}
	routes, err := r.routes(bridge.Index)
	if err != nil {
		return err
	}
	for _, m := range routes {
		now.Routes = append(now.Routes, m.by(bridge.Index, link.Attrs().Index))
	}
	if now.Written, err = r.neighbours(bridge.Index); err != nil {
		return err
	}
	c.Host = now
	_ = c.write(journal) // a disk that is full must not keep the host from what it has
	return nil
}

// settle puts onto a NIC what the host had there.
func (r *rawSocket) settle(h *netlink.Handle, has *relocation, link netlink.Link, bridge *netlink.Bridge) error {
	addresses := slices.DeleteFunc(slices.Clone(has.Addresses), message.linkLocal)
	if err := r.addAddresses(addresses, link, link, time.Since(has.Read)); err != nil {
		return err
	}
	if err := r.addNeighbours(has.Written, link); err != nil {
		return err
	}
	if err := possible(r.addRoutes(has.Routes, unix.AF_INET, link, link)); err != nil {
		return err
	}
	if bridge != nil {
		if err := r.leave(h, has.Routes, link, bridge); err != nil {
			return err
		}
	}
	return possible(r.addRoutes(has.Routes, unix.AF_INET6, link, link))
}

// leave takes a NIC out of the bridge, and routes of IPv6 off that: two ways with one metric would be one route, of which what is left is
// written otherwise.
func (r *rawSocket) leave(h *netlink.Handle, routes []message, link netlink.Link, bridge *netlink.Bridge) error {
	if link.Attrs().MasterIndex == bridge.Index {
		untag(h, link, bridge)
		if err := h.LinkSetNoMaster(link); err != nil {
			return fmt.Errorf("take %s out of %s: %w", link.Attrs().Name, bridge.Name, err)
		}
	}
	for _, m := range routes {
		if m[0] != unix.AF_INET6 {
			continue
		}
		if err := r.do(unix.RTM_DELROUTE, 0, m.by(link.Attrs().Index, bridge.Index)); err != nil && !gone(err) {
			return fmt.Errorf("take route %s off %s: %w", m.destination(), bridge.Name, err)
		}
	}
	return nil
}

// possible leaves out of an error what the kernel calls impossible: a route from an address, or by a gateway, that the host has not any
// more, because the address has come to its end or somebody has removed it. Such a one would be gone without a move, too.
func possible(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return nil
	}
	return err
}

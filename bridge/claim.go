package bridge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A wire takes every frame that its NIC receives. So it is given no NIC that the host itself needs: one with an address or a
// route is the underlay, or what leads to it; one that is a part of a bond or a bridge is somebody else's.

// findNIC finds a device by name.
func findNIC(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if isGone(err) {
		return nil, absent{name, err}
	}
	if err != nil {
		return nil, fmt.Errorf("find network device %s: %w", name, err)
	}
	return link, nil
}

// absent says that there is no device of a name. The kernel's own words would add nothing.
type absent struct {
	name string
	err  error
}

func (a absent) Error() string {
	return fmt.Sprintf("there is no network device %s: `ip link` lists those that there are", a.name)
}

func (a absent) Unwrap() error { return a.err }

func isGone(err error) bool {
	return errors.As(err, &netlink.LinkNotFoundError{})
}

// refusal says why a device cannot be a wire's NIC, and what to do.
func refusal(h *netlink.Handle, link netlink.Link) error {
	if err := needed(h, link); err != nil {
		return err
	}
	return because(h, link, joinedAlready)
}

// needed says what the host needs a device for.
func needed(h *netlink.Handle, link netlink.Link) error {
	return because(h, link, wrongKind, enslaved, movable(carriesAddress), movable(carriesRoute), carriesDevice)
}

// movable adds to a reason that what the host has there can be moved. That is so for who takes a NIC, and for nobody else.
func movable(reason func(*netlink.Handle, netlink.Link) (string, error)) func(*netlink.Handle, netlink.Link) (string, error) {
	return func(h *netlink.Handle, link netlink.Link) (string, error) {
		why, err := reason(h, link)
		if why != "" {
			why += ", or have it moved to a bridge (--move-host)"
		}
		return why, err
	}
}

// because turns the first reason that there is into an error.
func because(h *netlink.Handle, link netlink.Link, reasons ...func(*netlink.Handle, netlink.Link) (string, error)) error {
	for _, reason := range reasons {
		why, err := reason(h, link)
		if err != nil {
			return fmt.Errorf("%s: %w", link.Attrs().Name, err)
		}
		if why != "" {
			return fmt.Errorf("%s %s", link.Attrs().Name, why)
		}
	}
	return nil
}

func wrongKind(_ *netlink.Handle, link netlink.Link) (string, error) {
	a := link.Attrs()
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return "is the loopback device: give the NIC on which the VLAN is", nil
	case a.EncapType != "ether" || len(a.HardwareAddr) != 6:
		return fmt.Sprintf("carries no Ethernet frames (it is of type %s): give the NIC on which the VLAN is", a.EncapType), nil
	case link.Type() == "bridge":
		return fmt.Sprintf("is a bridge: give one end of a veth pair, and make the other a port of it "+
			"(`ip link add loom-a type veth peer name loom-b; ip link set loom-b master %s up`), or give it as the bridge to join", a.Name), nil
	}
	own, err := ownTAPs("/proc/self")
	if err == nil && slices.Contains(own, a.Name) {
		return "is a TAP of this process: give the NIC on which the VLAN is", nil
	}
	return "", err
}

// ownTAPs lists the TAPs whose queues a process has open, by name.
func ownTAPs(proc string) ([]string, error) {
	dir := filepath.Join(proc, "fdinfo")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("find this process's TAPs: %w", err)
	}
	var names []string
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed since
		}
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "iff:"); ok {
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	return names, nil
}

func enslaved(h *netlink.Handle, link netlink.Link) (string, error) {
	a := link.Attrs()
	if a.MasterIndex == 0 {
		return "", nil
	}
	name, kind := fmt.Sprint("device ", a.MasterIndex), "device"
	if master, err := h.LinkByIndex(a.MasterIndex); err == nil {
		name, kind = master.Attrs().Name, master.Type()
	}
	return fmt.Sprintf("is a part of the %s %s: take it out with `ip link set %s nomaster`, or give %s if that is a bond", kind, name, a.Name, name), nil
}

func carriesAddress(h *netlink.Handle, link netlink.Link) (string, error) {
	list, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return "", fmt.Errorf("list its addresses: %w", err)
	}
	for _, addr := range list {
		p, ok := fromNetlink(addr.IPNet)
		if ok && (p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()) {
			return fmt.Sprintf("has the address %s, so that this machine may be reached by it, and would not be any more: "+
				"give a NIC that has none, or remove it with `ip addr del %s dev %s`", p, p, link.Attrs().Name), nil
		}
	}
	return "", nil
}

func carriesRoute(h *netlink.Handle, link netlink.Link) (string, error) {
	index := link.Attrs().Index
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return "", fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			by := r.LinkIndex == index || slices.ContainsFunc(r.MultiPath, func(n *netlink.NexthopInfo) bool { return n.LinkIndex == index })
			dst, ok := fromNetlink(r.Dst)
			// Every device that is up has routes to its link-local network and to groups.
			if !by || r.Type != unix.RTN_UNICAST || ok && dst.Addr().Is6() && (dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast()) {
				continue
			}
			to := "default"
			if ok && dst.Bits() > 0 {
				to = dst.String()
			}
			return fmt.Sprintf("has the route %s, by which this machine sends: give another NIC, or remove it with `ip route del %s dev %s`",
				to, to, link.Attrs().Name), nil
		}
	}
	return "", nil
}

// carriesDevice is about what receives through the device: it would receive nothing any more.
func carriesDevice(h *netlink.Handle, link netlink.Link) (string, error) {
	list, err := h.LinkList()
	if err != nil {
		return "", fmt.Errorf("list links: %w", err)
	}
	for _, upper := range list {
		a := upper.Attrs()
		// What is in another namespace counts its links from there; a veth names its other end.
		if a.ParentIndex != link.Attrs().Index || a.NetNsID >= 0 || upper.Type() == "veth" {
			continue
		}
		return fmt.Sprintf("carries %s (%s), which would receive nothing any more: give another NIC, or %s itself, or remove that "+
			"with `ip link del %s`", a.Name, upper.Type(), a.Name, a.Name), nil
	}
	return "", nil
}

func joinedAlready(h *netlink.Handle, link netlink.Link) (string, error) {
	ours, _, err := redirections(h, link)
	if err != nil {
		return "", err
	}
	for _, f := range ours {
		if other, err := h.LinkByIndex(f.RedirIndex); f.RedirIndex > 0 && err == nil {
			return fmt.Sprintf("is joined to %s already, by another etherloom or another attachment: stop that first", other.Attrs().Name), nil
		}
	}
	return "", nil
}

package bridge

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A redirection takes every frame that a device receives and sends it on another, at the device's ingress hook: before the
// host's bridges, VLANs and IP see it, and after packet sockets such as tcpdump's. It is a filter of tc(8):
//
//	tc filter add dev eth1 ingress prio 65535 u32 … action mirred egress redirect dev wire0
//
// Its selector has no keys, so that it matches frames of any length. It comes after everybody else's filters, at the last priority
// that is free. Ours are known by what they do and by the class that they name, which says "Loom" and is nobody's.
const (
	lastPriority  = 0xffff
	redirectClass = 0x4c6f6f6d
)

// hook is where classifiers hang for what a device receives.
const hook = netlink.HANDLE_MIN_INGRESS

// redirect sends what one device receives out of another. The device must have its hook.
func redirect(h *netlink.Handle, from netlink.Link, to int) error {
	list, err := h.FilterList(from, hook)
	if err != nil {
		return fmt.Errorf("list its filters: %w", err)
	}
	priority := uint16(lastPriority)
	for slices.ContainsFunc(list, func(f netlink.Filter) bool { return f.Attrs().Priority == priority }) {
		priority--
	}
	err = h.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: hook, Priority: priority, Protocol: unix.ETH_P_ALL},
		ClassId:     redirectClass,
		Sel:         &netlink.TcU32Sel{Flags: netlink.TC_U32_TERMINAL},
		Actions:     []netlink.Action{netlink.NewMirredAction(to)},
	})
	if err != nil {
		return fmt.Errorf("redirect what it receives (does the kernel have cls_u32 and act_mirred? `modprobe -a cls_u32 act_mirred`): %w", err)
	}
	return nil
}

// redirections lists ours on a device, and how many filters of others there are at its hook.
func redirections(h *netlink.Handle, link netlink.Link) (ours []*netlink.U32, others int, err error) {
	list, err := h.FilterList(link, hook)
	if err != nil {
		return nil, 0, fmt.Errorf("list its filters: %w", err)
	}
	for _, f := range list {
		u, ok := f.(*netlink.U32)
		if ok && u.ClassId == redirectClass && len(u.Actions) == 1 && u.Actions[0].Type() == "mirred" {
			ours = append(ours, u)
			continue
		}
		others++
	}
	return ours, others, nil
}

// stopRedirecting removes our redirections from a device, and nobody else's.
func stopRedirecting(h *netlink.Handle, link netlink.Link) error {
	ours, _, err := redirections(h, link)
	for _, f := range ours {
		err = errors.Join(err, remove(h, link, f))
	}
	return err
}

func remove(h *netlink.Handle, link netlink.Link, f *netlink.U32) error {
	if err := h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove a redirection: %w", err)
	}
	// An empty table of u32 may stay at its priority. Without a handle that is removed, and all that is there besides.
	left, err := h.FilterList(link, hook)
	if err != nil || slices.ContainsFunc(left, func(other netlink.Filter) bool { return other.Attrs().Priority == f.Priority }) {
		return err
	}
	f.Handle = 0
	if err := h.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the table of a redirection: %w", err)
	}
	return nil
}

// hasHook reports whether a device has a queueing discipline at whose hook a filter can hang.
func hasHook(h *netlink.Handle, link netlink.Link) (bool, error) {
	list, err := h.QdiscList(link)
	if err != nil {
		return false, fmt.Errorf("list its queueing disciplines: %w", err)
	}
	for _, q := range list {
		if q.Attrs().Parent == netlink.HANDLE_CLSACT { // the old ingress has the same
			return true, nil
		}
	}
	return false, nil
}

func clsact(link netlink.Link) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}

// addHook gives a device the hook that it lacks.
func addHook(h *netlink.Handle, link netlink.Link) error {
	if err := h.QdiscAdd(clsact(link)); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	return nil
}

// removeHook takes it away again, unless somebody uses it.
func removeHook(h *netlink.Handle, link netlink.Link) error {
	if has, err := hasHook(h, link); err != nil || !has {
		return err
	}
	for _, parent := range []uint32{hook, netlink.HANDLE_MIN_EGRESS} {
		list, err := h.FilterList(link, parent)
		if err != nil || len(list) > 0 {
			return err
		}
	}
	if err := h.QdiscDel(clsact(link)); err != nil {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

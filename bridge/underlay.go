package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"path"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Underlay lists the addresses of this machine by which others may be reached: of links that are up, not loopback, not
// one of ours (skip, by index), not link-local IPv6, and not tentative. only, if not empty, names links by pattern.
//
// A router may have hundreds of links with addresses. The kernel lists those of all, whoever's are asked for, so it is asked once.
func Underlay(only []string, skip map[int]bool) ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	of := map[int][]netip.Addr{}
	for _, addr := range list {
		const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
		p, ok := fromNetlink(addr.IPNet)
		if ok && addr.Flags&unusable == 0 && p.Addr().IsGlobalUnicast() {
			of[addr.LinkIndex] = append(of[addr.LinkIndex], p.Addr())
		}
	}
	var out []netip.Addr
	for _, link := range links {
		a := link.Attrs()
		if !skip[a.Index] && a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && matches(only, a.Name) {
			out = append(out, of[a.Index]...)
		}
	}
	return out, nil
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); err == nil && ok {
			return true
		}
	}
	return len(patterns) == 0
}

// Routes are this machine's, of the main table, as they are when they are asked for first: a router may have very many.
type Routes struct{ list map[int][]netlink.Route } // by family

// Read reads them all now, for who has time now and not later.
func (r *Routes) Read() error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if _, err := r.of(family); err != nil {
			return err
		}
	}
	return nil
}

func (r *Routes) of(family int) ([]netlink.Route, error) {
	if list, known := r.list[family]; known {
		return list, nil
	}
	list, err := netlink.RouteList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	if r.list == nil {
		r.list = map[int][]netlink.Route{}
	}
	r.list[family] = list
	return list, nil
}

// Overlap says which network of this machine a prefix would collide with, leaving out one link; empty if none.
func (r *Routes) Overlap(p netip.Prefix, skip int) (string, error) {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := r.of(family)
	if err != nil {
		return "", err
	}
	for _, r := range routes {
		dst, ok := fromNetlink(r.Dst)
		if !ok || dst.Bits() == 0 || r.LinkIndex == skip || dst.Addr().IsLinkLocalUnicast() || dst.Addr().IsMulticast() {
			continue
		}
		if dst.Overlaps(p) {
			name := "another link"
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				name = link.Attrs().Name
			}
			return fmt.Sprintf("%s on %s", dst, name), nil
		}
	}
	return "", nil
}

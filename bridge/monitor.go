package bridge

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// settleTime is how long Monitor waits after an event for others that belong to it.
const settleTime = 150 * time.Millisecond

// Monitor calls changed after links, addresses or routes of this machine have changed, until ctx ends. Events that
// follow each other closely are one; if the kernel loses some, that is one too.
func Monitor(ctx context.Context, changed func()) error {
	events := make(chan struct{}, 1)
	note := func() {
		select {
		case events <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		if err := monitorOnce(ctx, events, note, changed); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// monitorOnce follows one subscription until it breaks.
func monitorOnce(ctx context.Context, events chan struct{}, note, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := func(error) { cancel() }
	links := make(chan netlink.LinkUpdate, 64)
	addrs := make(chan netlink.AddrUpdate, 64)
	routes := make(chan netlink.RouteUpdate, 64)
	done := ctx.Done()
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: broken}); err != nil {
		return fmt.Errorf("follow links: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: broken}); err != nil {
		return fmt.Errorf("follow addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: broken}); err != nil {
		return fmt.Errorf("follow routes: %w", err)
	}
	note() // whatever happened before the subscription
	for {
		select {
		case <-done:
			// The subscriptions' goroutines end by closing their channels, which must be read to the end.
			go drain(links, addrs, routes)
			return nil
		case <-links:
			note()
		case <-addrs:
			note()
		case <-routes:
			note()
		case <-events:
			select {
			case <-done:
			case <-time.After(settleTime):
				changed()
			}
		}
	}
}

func drain(links chan netlink.LinkUpdate, addrs chan netlink.AddrUpdate, routes chan netlink.RouteUpdate) {
	for range links {
	}
	for range addrs {
	}
	for range routes {
	}
}

// Underlay lists the addresses of this machine by which others may be reached: of links that are up, not loopback, not
// one of ours (skip, by index), not link-local IPv6, and not tentative. only, if not empty, names links by pattern.
func Underlay(only []string, skip map[int]bool) ([]netip.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []netip.Addr
	for _, link := range links {
		a := link.Attrs()
		if skip[a.Index] || a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0 || !matches(only, a.Name) {
			continue
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			continue // the link has gone since
		}
		for _, addr := range list {
			const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
			p, ok := fromNetlink(addr.IPNet)
			if ok && addr.Flags&unusable == 0 && p.Addr().IsGlobalUnicast() {
				out = append(out, p.Addr())
			}
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

// Overlap says which network of this machine a prefix would collide with, leaving out one link; empty if none.
func Overlap(p netip.Prefix, skip int) (string, error) {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteList(nil, family)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
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

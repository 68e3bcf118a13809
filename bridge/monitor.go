package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
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

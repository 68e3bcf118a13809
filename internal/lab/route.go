package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// AddRoute adds or replaces the route to a prefix, or to "default", by a gateway. The gateway's address says of
// which protocol "default" is.
func (h *Host) AddRoute(dst, gateway string) error {
	route, err := parseRoute(dst, gateway)
	if err != nil {
		return err
	}
	if err := h.thread.call(func() error { return netlink.RouteReplace(route) }); err != nil {
		return fmt.Errorf("%s: route to %s by %s: %w", h.name, dst, gateway, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routes[route.Dst.String()] = route
	return nil
}

// RemoveRoute removes a route that AddRoute added.
func (h *Host) RemoveRoute(dst, gateway string) error {
	route, err := parseRoute(dst, gateway)
	if err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.routes, route.Dst.String())
	h.mu.Unlock()
	if err := h.thread.call(func() error { return netlink.RouteDel(route) }); err != nil {
		return fmt.Errorf("%s: remove route to %s by %s: %w", h.name, dst, gateway, err)
	}
	return nil
}

// restoreRoutes adds the routes again that went with a link. Those whose gateway is not there now stay away.
func (h *Host) restoreRoutes() error {
	h.mu.Lock()
	routes := make([]*netlink.Route, 0, len(h.routes))
	for _, r := range h.routes {
		routes = append(routes, r)
	}
	h.mu.Unlock()
	return h.thread.call(func() error {
		for _, r := range routes {
			_ = netlink.RouteReplace(r) // ENETUNREACH: its link is down
		}
		return nil
	})
}

func parseRoute(dst, gateway string) (*netlink.Route, error) {
	gw := net.ParseIP(gateway)
	if gw == nil {
		return nil, fmt.Errorf("gateway %q is not an address", gateway)
	}
	if dst == "default" {
		dst = "::/0"
		if gw.To4() != nil {
			dst = "0.0.0.0/0"
		}
	}
	_, prefix, err := net.ParseCIDR(dst)
	if err != nil {
		return nil, err
	}
	return &netlink.Route{Dst: prefix, Gw: gw}, nil
}

package node

import (
	"net/netip"

	"github.com/etherloom/etherloom/bridge"
)

// hostChanged is called when links, addresses or routes of this machine have changed.
func (d *Daemon) hostChanged() {
	routes := d.hostRoutes()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	for _, s := range d.segments {
		s.followLocked()
		s.setAddressesLocked(s.addrs, routes)
	}
	for _, t := range d.trunks {
		t.followLocked()
	}
	d.followMirrorsLocked()
	if d.contents != nil {
		d.applyTrunksLocked() // a NIC may be there now
	}
	d.publishNamesLocked()
	d.setUnderlayLocked()
}

// hostRoutes are the routes of this machine, if anybody is going to ask for them: of a router they may be so many that nobody should wait for the
// lock meanwhile. What changes after that, the kernel tells of again.
func (d *Daemon) hostRoutes() *bridge.Routes {
	d.mu.Lock()
	asked := false
	for _, s := range d.segments {
		asked = asked || s.tap != nil && len(s.addrs) > 0
	}
	d.mu.Unlock()
	routes := new(bridge.Routes)
	if asked {
		_ = routes.Read() // who asks is told the error
	}
	return routes
}

// underlayChanged finds the underlay before anything else is known.
func (d *Daemon) underlayChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setUnderlayLocked()
}

// setUnderlayLocked tells the transport which addresses of this machine it may use: never those of the overlay, or the
// tunnel would run inside itself.
func (d *Daemon) setUnderlayLocked() {
	own := make(map[int]bool)
	var avoid []netip.Prefix
	for _, s := range d.segments {
		if s.tap != nil && !s.tap.Away() {
			own[s.tap.Index()] = true
		}
		for _, p := range s.addrs {
			avoid = append(avoid, p.Masked())
		}
	}
	for _, t := range d.trunks {
		own[t.wire.Index()] = true
	}
	addrs, err := bridge.Underlay(d.underlayInterfaces(), own)
	d.problemLocked("underlay", err)
	if err != nil {
		return
	}
	d.endpoint.SetAvoid(avoid)
	d.endpoint.SetAddresses(addrs)
	d.underlay.Store(&addrs)
	d.watcher.Poke()
}

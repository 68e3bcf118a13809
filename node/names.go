package node

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/dnsd"
	"github.com/etherloom/etherloom/dnsd/hostdns"
	"github.com/etherloom/etherloom/policy"
)

const dnsPort = 53

// publishNamesLocked makes the DNS server answer what this host may know, on the addresses of its TAPs, and points the
// host's resolver there.
func (d *Daemon) publishNamesLocked() {
	c := d.contents
	if c == nil || c.Settings == nil {
		return
	}
	names, own := d.namesLocked()
	zone := c.Settings.GetZone()
	view, err := dnsd.NewView(zone, names, own)
	d.problemLocked("names", err)
	if err != nil {
		return
	}
	d.dns.SetView(view)
	var listen []netip.AddrPort
	target := hostdns.Target{Domains: view.Domains()}
	if d.cfg.DNS.Search {
		target.Search = strings.TrimSuffix(zone, ".")
	}
	for _, s := range d.sortedSegmentsLocked() {
		if s.tap == nil || s.tap.Away() {
			continue
		}
		for _, p := range s.fit {
			at := netip.AddrPortFrom(p.Addr(), dnsPort)
			listen = append(listen, at)
			if !target.Server.IsValid() {
				target.Server, target.Link = at, s.tap.Index()
			}
		}
	}
	d.problemLocked("dns", d.dns.SetListen(listen))
	d.setTarget(target)
}

// namesLocked collects the names of this node and of the members of its segments, with the addresses that they have
// there, and the prefixes that only this network can name.
func (d *Daemon) namesLocked() (map[string][]netip.Addr, []netip.Prefix) {
	c := d.contents
	names := make(map[string][]netip.Addr)
	var own []netip.Prefix
	now := time.Now()
	for vni, s := range d.segments {
		view := s.sw.Policy()
		seg := c.Segments[uint32(vni)]
		for _, text := range []string{seg.GetIpv4Prefix(), seg.GetIpv6Prefix()} {
			if p, err := netip.ParsePrefix(text); err == nil {
				own = append(own, p.Masked())
			}
		}
		for _, id := range view.Neighbours(d.self(), now) {
			if !view.Names(d.self(), id, now) {
				continue
			}
			if p := memberOf(c, id); p != nil && !strings.Contains(p.GetName(), "/") {
				full := p.GetName() + "." + c.Settings.GetZone()
				names[full] = append(names[full], addressesOn(p, vni)...)
			}
		}
	}
	return names, own
}

// memberOf finds a party's record: this node's own, or a peer's. A machine's is made to look like one.
func memberOf(c *state.Contents, id policy.Identity) *controlv1.Peer {
	if uint32(id) == c.Self.GetId() {
		return c.Self
	}
	if m := c.Machines[transportID(id)]; m != nil {
		if len(m.GetMac()) == 0 {
			return machineRecord(m) // what those have leased whom nobody named is each one's own
		}
		return withLeases(machineRecord(m), c.Leases[transportID(id)])
	}
	return c.Peers[transportID(id)]
}

func addressesOn(p *controlv1.Peer, vni policy.VNI) []netip.Addr {
	var out []netip.Addr
	for _, st := range p.GetStations() {
		if policy.VNI(st.GetVni()) == vni && st.GetMode() != controlv1.AddressMode_ADDRESS_MODE_NONE {
			for _, p := range reading.Prefixes(st) {
				out = append(out, p.Addr())
			}
		}
	}
	return out
}

func (d *Daemon) sortedSegmentsLocked() []*segment {
	var out []*segment
	for _, s := range d.segments {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *segment) int { return int(a.vni) - int(b.vni) })
	return out
}

// setTarget tells the resolver's goroutine the newest target.
func (d *Daemon) setTarget(t hostdns.Target) {
	if d.cfg.DNS.Resolver == "off" {
		return
	}
	select {
	case <-d.targets:
	default:
	}
	d.targets <- t
}

// keepResolver points the host's resolver at the newest target. It talks to the system bus, which may take its time.
func (d *Daemon) keepResolver(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-d.targets:
			var err error
			if t.Server.IsValid() {
				err = d.resolver.Set(ctx, t)
			} else {
				_, err = d.resolver.Restore(ctx)
			}
			if ctx.Err() == nil {
				d.mu.Lock()
				d.problemLocked("resolver", err)
				d.mu.Unlock()
			}
		}
	}
}

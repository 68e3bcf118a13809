package node

import (
	"net/netip"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/dhcpd"
	"github.com/etherloom/etherloom/policy"
)

// This file reads what the signed state says of DHCP services and leases.

// letLease tells the rules of a segment what its DHCP service has to give, and what it has given.
func letLease(r *policy.Rules, c *state.Contents, vni uint32) {
	d := c.DHCP[vni]
	if d == nil {
		return
	}
	r.Service = &policy.Service{
		Address: addr4(d.GetServer()).As4(), MAC: ether.MAC(d.GetMac()), From: addr4(d.GetPoolFrom()), To: addr4(d.GetPoolTo()),
	}
	r.Leases = map[policy.Identity][]policy.Lease{}
	for machine, list := range c.Leases {
		for _, l := range list {
			if l.GetVni() == vni {
				id := policy.Identity(machine)
				r.Leases[id] = append(r.Leases[id], policy.Lease{Address: addr4(l.GetAddress()), MAC: ether.MAC(l.GetMac())})
			}
		}
	}
}

// addr4 reads an address that control/state has checked; it is not valid if there is none.
func addr4(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// withLeases adds to a host's record the address that it has leased.
func withLeases(p *controlv1.Peer, leases []*controlv1.Lease) *controlv1.Peer {
	st := p.GetStations()[0]
	for _, l := range leases {
		if l.GetVni() == st.GetVni() && l.GetState() == controlv1.LeaseState_LEASE_STATE_BOUND {
			st.Addresses = append(slices.Clip(st.GetAddresses()), netip.PrefixFrom(addr4(l.GetAddress()), 32).String())
		}
	}
	return p
}

// serviceLocked is what a segment's DHCP service is to do at this gateway; nil if it has no attachment of the segment, or no service.
func (d *Daemon) serviceLocked(vni policy.VNI) *dhcpd.State {
	c := d.contents
	p, seg := c.DHCP[uint32(vni)], c.Segments[uint32(vni)]
	prefix, err := netip.ParsePrefix(seg.GetIpv4Prefix())
	here := map[identity.ID]bool{}
	for id, a := range c.Attachments {
		if policy.VNI(a.GetVni()) == vni {
			here[id] = true
		}
	}
	if p == nil || err != nil || len(here) == 0 {
		return nil
	}
	out := &dhcpd.State{
		Server: addr4(p.GetServer()), MAC: ether.MAC(p.GetMac()), Prefix: prefix, MTU: int(seg.GetMtu()),
		From: addr4(p.GetPoolFrom()), To: addr4(p.GetPoolTo()), Lease: time.Duration(p.GetLeaseSeconds()) * time.Second,
		Router: addr4(p.GetRouter()), Domain: p.GetDomain(), Listed: map[policy.Identity]netip.Prefix{}, Expires: d.held.Load().Expires(),
	}
	for _, a := range p.GetDns() {
		out.DNS = append(out.DNS, addr4(a))
	}
	for id, m := range c.Machines {
		if policy.VNI(m.GetVni()) == vni {
			if a, is := listed(m); is {
				out.Listed[policy.Identity(id)] = a
			}
			out.Leases = append(out.Leases, leasesOf(m, c.Leases[id], here)...)
		}
	}
	return out
}

// listed is the IPv4 address of a host that lists one: the first.
func listed(m *controlv1.Machine) (netip.Prefix, bool) {
	list := reading.Prefixes(m)
	i := slices.IndexFunc(list, func(p netip.Prefix) bool { return p.Addr().Is4() })
	if i < 0 || len(m.GetMac()) == 0 {
		return netip.Prefix{}, false
	}
	return list[i], true
}

// leasesOf are a machine's leases; here are the attachments of this gateway.
func leasesOf(m *controlv1.Machine, list []*controlv1.Lease, here map[identity.ID]bool) (out []dhcpd.Lease) {
	var at policy.Identity
	for _, a := range m.GetAttachments() {
		if here[identity.ID(a)] {
			at = policy.Identity(a)
		}
	}
	for _, l := range list {
		x := dhcpd.Lease{
			Machine: policy.Identity(m.GetId()), MAC: ether.MAC(l.GetMac()), Address: addr4(l.GetAddress()), Name: l.GetName(), Here: at,
		}
		switch l.GetState() {
		case controlv1.LeaseState_LEASE_STATE_OFFERED:
			x.Phase = dhcpd.Offered
		case controlv1.LeaseState_LEASE_STATE_BOUND:
			x.Phase = dhcpd.Bound
		default:
			x.Phase = dhcpd.Ended
		}
		if l.GetVni() == m.GetVni() {
			out = append(out, x)
		}
	}
	return out
}

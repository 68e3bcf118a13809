package model

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// DHCP is a segment's own DHCP service: the gateways of its attachments answer machines on their VLANs in its name.
type DHCP struct {
	VNI    VNI        `json:"vni"`
	Server netip.Addr `json:"server"` // that of the service itself
	MAC    MAC        `json:"mac"`
	// From and To are the first and the last address of the pool. Without one only hosts that list an address are given one.
	From   netip.Addr   `json:"from,omitzero"`
	To     netip.Addr   `json:"to,omitzero"`
	Lease  Duration     `json:"lease"`
	Router netip.Addr   `json:"router,omitzero"`
	DNS    []netip.Addr `json:"dns,omitempty"`
	Domain string       `json:"domain,omitempty"`
}

// Key is "dhcp/VNI".
func (d *DHCP) Key() string { return fmt.Sprintf("dhcp/%d", d.VNI) }

// Limits of a service.
const (
	minLease     = time.Minute
	maxLease     = 30 * 24 * time.Hour
	DefaultLease = time.Hour // of who sets none
	maxPool      = 4096
	maxResolvers = 3
)

// number is an IPv4 address as a number.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// PoolSize is how many addresses the pool has.
func (d *DHCP) PoolSize() int {
	if !d.From.IsValid() {
		return 0
	}
	return int(number(d.To)-number(d.From)) + 1
}

// InPool reports whether an address is one of the pool.
func (d *DHCP) InPool(a netip.Addr) bool {
	return d != nil && d.From.IsValid() && a.Is4() && d.From.Compare(a) <= 0 && a.Compare(d.To) <= 0
}

// reserves reports whether an address is the service's to give, or its own.
func (d *DHCP) reserves(a netip.Addr) bool { return d != nil && (a == d.Server || d.InPool(a)) }

// CheckDHCP holds a service against form, its segment and who is there, and gives it an address and a MAC: those that it had.
func (m *Model) CheckDHCP(d *DHCP) error {
	seg := m.Segments[d.VNI]
	if seg.Transparent {
		return fmt.Errorf("segment %q is transparent: each VLAN in it has addresses of its own, so one service cannot lease them; let a server of that VLAN do so", seg.Name)
	}
	if !seg.IPv4.IsValid() {
		return fmt.Errorf("segment %q has no IPv4 prefix, so there is nothing to lease: make one with `etherloom segment add NAME --prefix ADDRESS/LENGTH`", seg.Name)
	}
	if l := time.Duration(d.Lease); l < minLease || l > maxLease || l%time.Second != 0 {
		return fmt.Errorf("lease is %v, expected whole seconds, %v to %v", l, minLease, maxLease)
	}
	if err := d.checkPool(seg); err != nil {
		return err
	}
	if d.Router.IsValid() && (!inside(seg, d.Router) || d.InPool(d.Router)) {
		return fmt.Errorf("router %s is not an address of a host on segment %q (%s) outside the pool", d.Router, seg.Name, seg.IPv4)
	}
	if len(d.DNS) > maxResolvers {
		return fmt.Errorf("%d DNS servers are named, expected at most %d", len(d.DNS), maxResolvers)
	}
	for _, a := range d.DNS {
		if !a.Is4() || !usable(a) {
			return fmt.Errorf("DNS server %s is not an IPv4 address of a host", a)
		}
	}
	if err := checkDomain(d.Domain); err != nil {
		return err
	}
	return m.placeDHCP(d, seg)
}

func (d *DHCP) checkPool(seg *Segment) error {
	switch {
	case !d.From.IsValid() && !d.To.IsValid():
		return nil
	case !inside(seg, d.From) || !inside(seg, d.To):
		return fmt.Errorf("pool %s-%s is not of addresses that hosts can have on segment %q, whose prefix is %s", d.From, d.To, seg.Name, seg.IPv4)
	case d.To.Less(d.From):
		return fmt.Errorf("pool %s-%s ends before it begins", d.From, d.To)
	case d.PoolSize() > maxPool:
		return fmt.Errorf("pool %s-%s has %d addresses, expected at most %d", d.From, d.To, d.PoolSize(), maxPool)
	}
	return nil
}

// inside reports whether a host can have an address on a segment.
func inside(seg *Segment, a netip.Addr) bool {
	return a.Is4() && seg.IPv4.Contains(a) && a != seg.IPv4.Addr() && a != lastOf(seg.IPv4)
}

// checkDomain: RFC 1035 section 2.3.1, as far as clients need it.
func checkDomain(name string) error {
	const most = 253
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	}
	if len(name) > most || slices.ContainsFunc([]rune(name), odd) {
		return fmt.Errorf("domain %q is no DNS name", name)
	}
	return nil
}

// placeDHCP gives a service the address and the MAC that it had, or the highest address that nobody has: the lowest are given to nodes.
func (m *Model) placeDHCP(d *DHCP, seg *Segment) error {
	taken := m.occupied(d.VNI)
	if old := m.DHCP[d.VNI]; old != nil && !d.InPool(old.Server) && inside(seg, old.Server) {
		d.Server, d.MAC = old.Server, old.MAC
		return nil
	}
	for a := lastOf(seg.IPv4).Prev(); a != seg.IPv4.Addr(); a = a.Prev() {
		if taken.addresses[a] == 0 && !d.InPool(a) && a != d.Router && !slices.Contains(d.DNS, a) {
			d.Server, d.MAC = a, m.newMAC(d.VNI, 0, taken)
			return nil
		}
	}
	return fmt.Errorf("no address of segment %q (%s) is left for the service itself: choose a smaller pool", seg.Name, seg.IPv4)
}

// Proto is the service as it travels.
func (d *DHCP) Proto() *controlv1.DhcpService {
	out := &controlv1.DhcpService{
		Vni: uint32(d.VNI), Server: d.Server.String(), Mac: d.MAC[:], Domain: d.Domain,
		LeaseSeconds: uint32(time.Duration(d.Lease) / time.Second), //nolint:gosec // at most maxLease
	}
	if d.From.IsValid() {
		out.PoolFrom, out.PoolTo = d.From.String(), d.To.String()
	}
	if d.Router.IsValid() {
		out.Router = d.Router.String()
	}
	for _, a := range d.DNS {
		out.Dns = append(out.Dns, a.String())
	}
	return out
}

// services are the DHCP services of segments, by VNI.
func (m *Model) services(vnis []VNI) []*DHCP {
	var out []*DHCP
	slices.Sort(vnis)
	for _, vni := range slices.Compact(vnis) {
		if d := m.DHCP[vni]; d != nil {
			out = append(out, d)
		}
	}
	return out
}

// ServicesFor returns the DHCP services of which a node is told, by VNI: those of the segments that it is told of.
func (m *Model) ServicesFor(id identity.ID) []*DHCP {
	var vnis []VNI
	for _, v := range m.viewsFor[id] {
		vnis = append(vnis, v.Segment.VNI)
	}
	for _, r := range m.reachesFor[id] {
		vnis = append(vnis, r.Segment.VNI)
	}
	for _, o := range m.outletsOf[id] {
		vnis = append(vnis, o.Segment.VNI)
	}
	return m.services(vnis)
}

package server

import (
	"context"
	"net/netip"
	"strings"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// SetDhcp makes a segment have a DHCP service, says anew what it does, or ends it. Leases end with it.
func (s *adminService) SetDhcp(ctx context.Context, r *controlv1.SetDhcpRequest) (*controlv1.SetDhcpResponse, error) {
	asked, err := serviceOf(r)
	if err != nil {
		return nil, err
	}
	out := &controlv1.SetDhcpResponse{}
	err = s.update(ctx, func(tx *store.Tx) error {
		seg := tx.Model.SegmentNamed(r.GetSegment())
		if seg == nil {
			return noSuchSegment(r.GetSegment())
		}
		old := tx.Model.DHCP[seg.VNI]
		if r.GetDisable() {
			if old != nil {
				tx.Delete("dhcp.disable", old)
			}
			return nil
		}
		d := *asked
		d.VNI = seg.VNI
		if d.Domain == "" {
			d.Domain = strings.TrimSuffix(tx.Model.Settings.Zone, ".")
		}
		if err := tx.Model.CheckDHCP(&d); err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		tx.Put("dhcp.set", &d)
		out.Service = d.Proto()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// serviceOf is the service that a request asks for, without its place.
func serviceOf(r *controlv1.SetDhcpRequest) (*model.DHCP, error) {
	d := &model.DHCP{Lease: model.Duration(model.DefaultLease), Domain: strings.TrimSuffix(r.GetDomain(), ".")}
	if r.GetDisable() && (r.GetPool() != "" || r.GetLease() != nil || r.GetRouter() != "" || len(r.GetDns()) > 0 || r.GetDomain() != "") {
		return nil, refuse(connect.CodeInvalidArgument, "what a service is to do is said with --enable, found --disable")
	}
	if r.GetLease() != nil {
		if r.GetLease().CheckValid() != nil {
			return nil, refuse(connect.CodeInvalidArgument, "lease is no duration")
		}
		d.Lease = model.Duration(r.GetLease().AsDuration())
	}
	var err error
	if d.From, d.To, err = poolOf(r.GetPool()); err != nil {
		return nil, err
	}
	if r.GetRouter() != "" {
		if d.Router, err = ipv4Of("router", r.GetRouter()); err != nil {
			return nil, err
		}
	}
	for _, text := range r.GetDns() {
		a, err := ipv4Of("DNS server", text)
		if err != nil {
			return nil, err
		}
		d.DNS = append(d.DNS, a)
	}
	return d, nil
}

// poolOf reads FROM-TO; nothing is no pool.
func poolOf(text string) (from, to netip.Addr, err error) {
	if text == "" {
		return from, to, nil
	}
	first, last, is := strings.Cut(text, "-")
	if !is {
		return from, to, refuse(connect.CodeInvalidArgument, "pool %q: expected FROM-TO, two IPv4 addresses", text)
	}
	if from, err = ipv4Of("pool", first); err == nil {
		to, err = ipv4Of("pool", last)
	}
	return from, to, err
}

func ipv4Of(what, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || !a.Is4() {
		return netip.Addr{}, refuse(connect.CodeInvalidArgument, "%s: %q is not an IPv4 address", what, text)
	}
	return a, nil
}

// GetDhcp tells of a segment's DHCP service and its leases.
func (s *adminService) GetDhcp(_ context.Context, r *controlv1.GetDhcpRequest) (*controlv1.GetDhcpResponse, error) {
	m, out := s.c.store.Model(), &controlv1.GetDhcpResponse{}
	seg := m.SegmentNamed(r.GetSegment())
	if seg == nil {
		return nil, noSuchSegment(r.GetSegment())
	}
	d := m.DHCP[seg.VNI]
	if d == nil {
		return out, nil
	}
	out.Service, out.Pool = d.Proto(), uint32(d.PoolSize()) //nolint:gosec // bounded
	for _, l := range m.LeasesOn(seg.VNI) {
		out.Leases = append(out.Leases, m.LeaseProto(l))
	}
	return out, nil
}

// endLeases ends what a MAC that is a host's now has leased as somebody else, or what a host that lists addresses does not need.
func endLeases(tx *store.Tx, h *model.Host) {
	for _, l := range tx.Model.LeasesOn(h.VNI) {
		other := l.MAC == h.MAC && (l.Machine != h.ID || len(h.Addresses) > 0) || l.Machine == h.ID && h.ID != 0 && l.MAC != h.MAC
		if other && (l.State == model.LeaseOffered || l.State == model.LeaseBound) {
			tx.Put("lease.end", l.In(model.LeaseEnded, tx.Now()))
		}
	}
}

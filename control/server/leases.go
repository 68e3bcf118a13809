package server

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// This file heeds what gateways tell of machines that ask a segment's DHCP service (docs/decisions/0014-dhcp-service.md). What becomes of
// it is a fact, and is told in the state.

// maxReports is how many reports are taken at once: each is a fact and an entry of the audit log.
const maxReports = 30

// ReportLeases takes what machines behind a gateway have asked for. What is refused does not keep up the rest.
func (s *nodeService) ReportLeases(ctx context.Context, r *controlv1.ReportLeasesRequest) (*controlv1.ReportLeasesResponse, error) {
	who := callerOf(ctx)
	if len(r.GetReports()) > maxReports {
		return nil, refuse(connect.CodeInvalidArgument, "%d reports at once, expected at most %d", len(r.GetReports()), maxReports)
	}
	if !s.leases.allow(who.leaf.Name.ID, s.c.now()) {
		return nil, refuse(connect.CodeResourceExhausted, "the node tells of leases too often: wait a little and try again")
	}
	out := &controlv1.ReportLeasesResponse{}
	err := s.c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		out.Refused = nil
		n, err := checkNode(tx.Model, who.leaf)
		if err != nil {
			return err
		}
		heed := leaseDesk{tx: tx, node: n.ID, m: tx.Model.Scratch()}
		for i, report := range r.GetReports() {
			if err := heed.take(report); err != nil {
				out.Refused = append(out.Refused, &controlv1.LeaseRefusal{
					Report: uint32(i), Reason: err.Error(), Full: errors.Is(err, model.ErrPool), //nolint:gosec // at most maxReports
				})
			}
		}
		if heed.kept > 0 {
			tx.Note("lease.tell", n.Key(), leaseNote{heed.kept})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// leaseNote is what the audit log keeps of offers and confirmations: they are so many, and each means so little.
type leaseNote struct {
	Leases int `json:"leases"`
}

// leaseDesk takes the reports of one node in one transaction.
type leaseDesk struct {
	tx   *store.Tx
	node identity.ID
	m    *model.Model // a copy, as it is after the reports before
	kept int          // leases that changed without an entry of their own
}

// request is what a report is about.
type request struct {
	attachment *model.Attachment
	machine    identity.ID
	mac        model.MAC
	address    netip.Addr // zero: none
	name       string
}

func (d *leaseDesk) take(r *controlv1.LeaseReport) error {
	x, err := d.resolve(r)
	if err != nil {
		return err
	}
	switch r.GetAct() {
	case controlv1.LeaseAct_LEASE_ACT_ASK:
		return d.ask(x)
	case controlv1.LeaseAct_LEASE_ACT_LET_GO:
		l := d.m.LeaseAt(x.attachment.VNI, x.address)
		if l != nil && l.MAC == x.mac && l.State == model.LeaseEnded {
			d.keep(l.LetGoBy(d.node))
		}
		return nil
	case controlv1.LeaseAct_LEASE_ACT_BIND, controlv1.LeaseAct_LEASE_ACT_RELEASE, controlv1.LeaseAct_LEASE_ACT_DECLINE:
	default:
		return errors.New("act is not known: this controller is older than the node")
	}
	l := d.m.LeaseOf(x.machine, x.mac)
	if l == nil || l.Address != x.address {
		return errors.New("the address is not leased to this machine")
	}
	now := d.tx.Now()
	switch {
	case r.GetAct() == controlv1.LeaseAct_LEASE_ACT_RELEASE:
		d.put("lease.release", l.In(model.LeaseEnded, now))
	case r.GetAct() == controlv1.LeaseAct_LEASE_ACT_DECLINE:
		d.put("lease.decline", l.Declined(x.attachment.ID, now))
	case !d.m.DHCP[l.VNI].InPool(l.Address):
		return errors.New("the address is not of the pool any more")
	case l.State == model.LeaseBound: // it was confirmed again
		d.keep(calling(l.In(model.LeaseBound, now), x.name))
	default:
		d.put("lease.bind", calling(l.In(model.LeaseBound, now), x.name))
	}
	return nil
}

// ask sets an address aside. One that is, stays.
func (d *leaseDesk) ask(x *request) error {
	l, err := d.m.Offer(x.attachment, x.machine, x.mac, x.address, d.tx.Now())
	if err != nil || d.m.LeaseAt(l.VNI, l.Address) == l {
		return err
	}
	if old := d.m.LeaseOf(x.machine, x.mac); old != nil { // outside of the pool that there is now
		d.put("lease.end", old.In(model.LeaseEnded, d.tx.Now()))
	}
	d.keep(calling(l, x.name))
	return nil
}

func calling(l *model.Lease, name string) *model.Lease {
	if name != "" {
		l.Name = name
	}
	return l
}

// resolve reads a report, and refuses what the node cannot speak of.
func (d *leaseDesk) resolve(r *controlv1.LeaseReport) (*request, error) {
	x := &request{attachment: d.m.Attachments[identity.ID(r.GetAttachment())], name: label(r.GetName())}
	if x.attachment == nil || uint32(x.attachment.VNI) != r.GetVni() || !d.speaksFor(x.attachment) {
		return nil, errors.New("the node is no gateway of such an attachment")
	}
	if len(r.GetMac()) != len(x.mac) {
		return nil, errors.New("a MAC has six bytes")
	}
	copy(x.mac[:], r.GetMac())
	if r.GetAddress() != "" {
		var err error
		if x.address, err = netip.ParseAddr(r.GetAddress()); err != nil || !x.address.Is4() {
			return nil, errors.New("the address is none of IPv4")
		}
	}
	if r.GetAct() == controlv1.LeaseAct_LEASE_ACT_LET_GO {
		return x, nil // whose it was may be another's now
	}
	var err error
	x.machine, err = d.m.Tenant(x.attachment, x.mac)
	return x, err
}

// speaksFor reports whether the node is an active gateway of an attachment.
func (d *leaseDesk) speaksFor(a *model.Attachment) bool {
	p := d.m.Profile(a.ID)
	return p != nil && p.Machine != nil && slices.ContainsFunc(p.Machine.Gateways, func(g *model.Profile) bool { return g.ID == d.node })
}

// label is what a host calls itself, cut to what a terminal and a state can bear.
func label(s string) string {
	out := []rune{}
	for _, r := range s {
		if r > ' ' && r <= '~' && len(out) < 63 {
			out = append(out, r)
		}
	}
	return string(out)
}

func (d *leaseDesk) put(action string, l *model.Lease) {
	d.tx.Put(action, l)
	d.m.Place(l)
}

// keep is for what needs no entry of its own in the audit log.
func (d *leaseDesk) keep(l *model.Lease) {
	d.tx.Keep(l)
	d.m.Place(l)
	d.kept++
}

// tendLeases makes of leases what the passing of time makes of them, up to a number, and returns what is left of that.
func tendLeases(tx *store.Tx, left int) int {
	m, now := tx.Model, tx.Now()
	for _, key := range slices.Sorted(maps.Keys(m.Leases)) {
		l := m.Leases[key]
		end, next := m.LeaseEnd(l)
		switch {
		case left <= 0 || end.After(now):
			continue
		case next == nil:
			tx.Delete("lease.expire", l)
		default:
			tx.Put("lease.end", next)
		}
		left--
	}
	return left
}

// nextLease is when that is due, if it is before another time.
func nextLease(m *model.Model, next time.Time) time.Time {
	for _, l := range m.Leases {
		if end, _ := m.LeaseEnd(l); end.Before(next) {
			next = end
		}
	}
	return next
}

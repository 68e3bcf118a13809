package server

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// hostRequest is a request that says what a host is.
type hostRequest interface {
	GetName() string
	GetMac() string
	GetAttachments() []string
	GetAddresses() []string
	GetRoles() []string
}

// hostOf is the host that a request asks for, without its place.
func hostOf(r hostRequest) (*model.Host, error) {
	mac, err := model.ParseMAC(r.GetMac())
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	asked := &model.Host{Name: r.GetName(), MAC: mac}
	for _, text := range r.GetAddresses() {
		p, err := model.ParseAddress(text)
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
		asked.Addresses = append(asked.Addresses, p)
	}
	if asked.Roles, err = stationRoles(r.GetRoles()); err != nil {
		return nil, err
	}
	slices.Sort(asked.Roles)
	asked.Roles = slices.Compact(asked.Roles)
	return asked, nil
}

// placed gives a host its place in a network, and checks it.
func placed(m *model.Model, asked *model.Host, id identity.ID, r hostRequest) (*model.Host, error) {
	h := *asked
	h.ID = id
	var err error
	if h.VNI, h.Attachments, err = attachmentsOf(m, r.GetAttachments()); err != nil {
		return nil, err
	}
	if seg := m.Segments[h.VNI]; seg != nil {
		h.Addresses = slices.Clone(asked.Addresses)
		for i, text := range r.GetAddresses() {
			h.Addresses[i] = seg.Lengthened(h.Addresses[i], text)
		}
	}
	if err := m.CheckHost(&h); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	return &h, nil
}

// AddHost names a machine behind a gateway, and pins its MAC.
func (s *adminService) AddHost(ctx context.Context, r *controlv1.AddHostRequest) (*controlv1.AddHostResponse, error) {
	asked, err := hostOf(r)
	if err != nil {
		return nil, err
	}
	var h *model.Host
	err = s.update(ctx, func(tx *store.Tx) error {
		if h, err = placed(tx.Model, asked, 0, r); err != nil {
			return err
		}
		h.ID = tx.NextNode()
		tx.Put("host.add", h)
		endLeases(tx, h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.AddHostResponse{Host: s.c.store.Model().HostProto(h)}, nil
}

// SetHost says anew all of a host but its name. Its identity, and what names it, stay.
func (s *adminService) SetHost(ctx context.Context, r *controlv1.SetHostRequest) (*controlv1.SetHostResponse, error) {
	asked, err := hostOf(r)
	if err != nil {
		return nil, err
	}
	var h *model.Host
	err = s.update(ctx, func(tx *store.Tx) error {
		old := tx.Model.HostNamed(r.GetName())
		if old == nil {
			return noSuchHost(r.GetName())
		}
		if h, err = placed(tx.Model, asked, old.ID, r); err != nil {
			return err
		}
		if !reflect.DeepEqual(h, old) {
			tx.Put("host.set", h)
			endLeases(tx, h)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetHostResponse{Host: s.c.store.Model().HostProto(h)}, nil
}

func noSuchHost(name string) error {
	return refuse(connect.CodeNotFound, "no host is called %q: `etherloom host list` shows those there are", name)
}

// attachmentsOf resolves the names of attachments, and says of which segment the first one is.
func attachmentsOf(m *model.Model, names []string) (vni model.VNI, ids []identity.ID, err error) {
	for _, name := range names {
		a, _, err := m.FindAttachment(name)
		if err != nil {
			return 0, nil, refuse(connect.CodeNotFound, "%w", err)
		}
		if vni == 0 {
			vni = a.VNI
		}
		ids = append(ids, a.ID)
	}
	slices.Sort(ids)
	return vni, slices.Compact(ids), nil
}

// ListHosts lists all hosts.
func (s *adminService) ListHosts(context.Context, *controlv1.ListHostsRequest) (*controlv1.ListHostsResponse, error) {
	m, out := s.c.store.Model(), &controlv1.ListHostsResponse{}
	for _, h := range inOrder(m.Hosts) {
		out.Hosts = append(out.Hosts, m.HostProto(h))
	}
	return out, nil
}

// RemoveHost removes a host that nothing names any more. Its MAC is nobody's then.
func (s *adminService) RemoveHost(ctx context.Context, r *controlv1.RemoveHostRequest) (*controlv1.RemoveHostResponse, error) {
	err := s.update(ctx, func(tx *store.Tx) error {
		h := tx.Model.HostNamed(r.GetName())
		if h == nil {
			return noSuchHost(r.GetName())
		}
		if err := unnamed(tx.Model, h.ID, fmt.Sprintf("%q", h.Name)); err != nil {
			return refuse(connect.CodeFailedPrecondition, "host %w", err)
		}
		tx.Delete("host.remove", h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RemoveHostResponse{}, nil
}

// unnamed is an error that begins with a name if something still names a machine's identity: a host that is behind it, policy, or the
// policy that a change would be taken back to. To remove the machine takes nothing from others silently.
func unnamed(m *model.Model, id identity.ID, name string) error {
	var hosts []string
	for _, h := range m.HostsBehind(id) {
		hosts = append(hosts, h.Name)
	}
	grants := slices.DeleteFunc(inOrder(m.Grants), func(g *model.Grant) bool { return !grantNames(g, id) })
	groups := slices.DeleteFunc(inOrder(m.Groups), func(g *model.Group) bool { return !slices.Contains(g.Nodes, id) })
	tests := testsNaming(m, func(t *model.Test) bool { return t.From.Node == id || t.To.Node == id })
	switch {
	case len(hosts) > 0:
		return fmt.Errorf("%s is still the place of host %s: remove it first with %s", name, strings.Join(hosts, ", "), removing("host", hosts))
	case len(grants) > 0:
		return fmt.Errorf("%s is still named by grant %s: remove it first with %s", name, joinedNames(grants, grantName), removingGrants(grants))
	case len(groups) > 0:
		return fmt.Errorf("%s is still in group %s: take it out first with `etherloom group set`", name,
			joinedNames(groups, func(g *model.Group) string { return g.Name }))
	case len(tests) > 0:
		return fmt.Errorf("%s is still named by test %s of the policy: take it out first with `etherloom policy apply`", name, strings.Join(tests, ", "))
	case m.Pending != nil && pendingNames(m.Pending, id):
		return fmt.Errorf("%s is named by the policy that is put back unless a change is confirmed: `etherloom policy confirm` it or "+
			"`etherloom policy undo` it first", name)
	}
	return nil
}

// removing is the commands that remove these.
func removing(kind string, names []string) string {
	const most = 5 // to type; the others are named before
	var out []string
	for _, name := range names[:min(len(names), most)] {
		out = append(out, fmt.Sprintf("`etherloom %s remove %s`", kind, name))
	}
	if len(names) > most {
		out = append(out, "and so on")
	}
	return strings.Join(out, ", ")
}

func removingGrants(list []*model.Grant) string {
	var ids []string
	for _, g := range list {
		ids = append(ids, fmt.Sprint(g.ID))
	}
	return removing("grant", ids)
}

func joinedNames[T any](list []T, name func(T) string) string {
	var out []string
	for _, x := range list {
		out = append(out, name(x))
	}
	return strings.Join(out, ", ")
}

func grantNames(g *model.Grant, id identity.ID) bool {
	return g.Node == id || g.Target != nil && g.Target.Node == id
}

func pendingNames(p *model.Pending, id identity.ID) bool {
	return slices.ContainsFunc(p.Grants, func(g *model.Grant) bool { return grantNames(g, id) }) ||
		slices.ContainsFunc(p.Groups, func(g *model.Group) bool { return slices.Contains(g.Nodes, id) }) ||
		slices.ContainsFunc(p.Tests, func(t model.Test) bool { return t.From.Node == id || t.To.Node == id })
}

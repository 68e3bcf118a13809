package server

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/document"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// AddGrant lets nodes reach something.
func (s *adminService) AddGrant(ctx context.Context, r *controlv1.AddGrantRequest) (*controlv1.AddGrantResponse, error) {
	expires, err := timeOf("expiry", r.GetExpires(), s.c.now())
	if err != nil {
		return nil, err
	}
	if r.GetWhen() != "" {
		if _, err := s.c.judge.compiler.Compile(strings.TrimSpace(r.GetWhen())); err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
	}
	asked := document.Grant{
		Name: r.GetName(), From: r.GetFrom(), To: r.GetTo(), Segment: r.GetSegment(), Allow: r.GetAllow(),
		Both: r.GetBoth(), Observe: r.GetObserve(), When: r.GetWhen(), Expires: expires,
	}
	var g *model.Grant
	var m *model.Model
	err = s.updatePolicy(ctx, r.GetForce(), func(tx *store.Tx) error {
		var err error
		if g, err = asked.Resolve(tx.Model); err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		for _, same := range inOrder(tx.Model.Grants) {
			if document.Same(same, g) {
				return refuse(connect.CodeAlreadyExists, "grant %d says this already", same.ID)
			}
			if g.Name != "" && same.Name == g.Name {
				return refuse(connect.CodeAlreadyExists, "grant %d is called %q: choose another name, or remove it first", same.ID, g.Name)
			}
		}
		m, g.ID, g.Created = tx.Model, tx.NextGrant(), tx.Now()
		tx.Put("grant.add", g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.AddGrantResponse{Grant: m.GrantProto(g)}, nil
}

// ListGrants lists all grants.
func (s *adminService) ListGrants(context.Context, *controlv1.ListGrantsRequest) (*controlv1.ListGrantsResponse, error) {
	out := &controlv1.ListGrantsResponse{}
	m := s.c.store.Model()
	for _, g := range inOrder(m.Grants) {
		p := m.GrantProto(g)
		for _, id := range m.Candidates(g.ID) {
			if m.Verdicts[g.ID].Holds(id) {
				p.Holders = append(p.Holders, m.Nodes[id].Name)
			}
		}
		p.LastUsed = s.c.lastUsed(m, g.ID)
		out.Grants = append(out.Grants, p)
	}
	return out, nil
}

// RemoveGrant takes a grant back.
func (s *adminService) RemoveGrant(ctx context.Context, r *controlv1.RemoveGrantRequest) (*controlv1.RemoveGrantResponse, error) {
	err := s.updatePolicy(ctx, r.GetForce(), func(tx *store.Tx) error {
		g := tx.Model.Grants[model.GrantID(r.GetId())]
		if g == nil {
			return refuse(connect.CodeNotFound, "there is no grant %d: `etherloom grant list` shows those there are", r.GetId())
		}
		tx.Delete("grant.remove", g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RemoveGrantResponse{}, nil
}

// SetGroup makes a group, or says anew who is in it.
func (s *adminService) SetGroup(ctx context.Context, r *controlv1.SetGroupRequest) (*controlv1.SetGroupResponse, error) {
	var g *model.Group
	err := s.updatePolicy(ctx, r.GetForce(), func(tx *store.Tx) error {
		var err error
		if g, err = tx.Model.NewGroup(r.GetName(), r.GetMembers()); err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		if old := tx.Model.Groups[g.Name]; old == nil || !slices.Equal(old.Nodes, g.Nodes) || !slices.Equal(old.Labels, g.Labels) {
			tx.Put("group.set", g)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetGroupResponse{Group: g.Proto()}, nil
}

// ListGroups lists all groups.
func (s *adminService) ListGroups(context.Context, *controlv1.ListGroupsRequest) (*controlv1.ListGroupsResponse, error) {
	out := &controlv1.ListGroupsResponse{}
	for _, g := range inOrder(s.c.store.Model().Groups) {
		out.Groups = append(out.Groups, g.Proto())
	}
	return out, nil
}

// RemoveGroup removes a group that no grant names any more.
func (s *adminService) RemoveGroup(ctx context.Context, r *controlv1.RemoveGroupRequest) (*controlv1.RemoveGroupResponse, error) {
	err := s.updatePolicy(ctx, false, func(tx *store.Tx) error {
		g := tx.Model.Groups[r.GetName()]
		if g == nil {
			return refuse(connect.CodeNotFound, "no group is called %q: `etherloom group list` shows those there are", r.GetName())
		}
		named := slices.DeleteFunc(inOrder(tx.Model.Grants), func(o *model.Grant) bool {
			return o.Group != g.Name && (o.Target == nil || o.Target.Group != g.Name)
		})
		if len(named) > 0 {
			return refuse(connect.CodeFailedPrecondition, "group %q is still named by grant %s: remove it first with %s", g.Name,
				joinedNames(named, grantName), removingGrants(named))
		}
		if tests := testsNaming(tx.Model, func(t *model.Test) bool { return t.From.Group == g.Name || t.To.Group == g.Name }); len(tests) > 0 {
			return refuse(connect.CodeFailedPrecondition, "group %q is still named by test %s of the policy: take it out first with "+
				"`etherloom policy apply`", g.Name, strings.Join(tests, ", "))
		}
		tx.Delete("group.remove", g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RemoveGroupResponse{}, nil
}

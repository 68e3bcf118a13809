package server

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// inOrder returns a map's values in the order of its keys.
func inOrder[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// ListNodes lists nodes, removed ones too.
func (s *adminService) ListNodes(_ context.Context, r *controlv1.ListNodesRequest) (*controlv1.ListNodesResponse, error) {
	m, out := s.c.store.Model(), &controlv1.ListNodesResponse{}
	for _, n := range inOrder(m.Nodes) {
		if r.GetName() == "" || r.GetName() == n.Name {
			out.Nodes = append(out.Nodes, s.describe(m, n))
		}
	}
	if r.GetName() != "" && len(out.Nodes) == 0 {
		return nil, noSuchNode(r.GetName())
	}
	return out, nil
}

func (s *adminService) describe(m *model.Model, n *model.Node) *controlv1.Node {
	p := m.NodeProto(n)
	p.Online = s.c.hub.online(n.ID)
	if d, ok := s.c.dossiers.get(n.ID); ok {
		p.Posture, p.PostureReceived = d.report, timestamppb.New(d.received)
	}
	return p
}

// current describes a node as it is now, after a transaction.
func (s *adminService) current(id identity.ID) *controlv1.Node {
	m := s.c.store.Model()
	return s.describe(m, m.Nodes[id])
}

// SetNodeStatus approves, locks, unlocks or removes a node.
func (s *adminService) SetNodeStatus(ctx context.Context, r *controlv1.SetNodeStatusRequest) (*controlv1.SetNodeStatusResponse, error) {
	if err := checkText("message", r.GetMessage()); err != nil {
		return nil, err
	}
	var id identity.ID
	err := s.update(ctx, func(tx *store.Tx) error {
		n := tx.Model.NodeNamed(r.GetName())
		if n == nil {
			return noSuchNode(r.GetName())
		}
		id = n.ID
		return setStatus(tx, n, r, callerOf(ctx).actor().Name)
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetNodeStatusResponse{Node: s.current(id)}, nil
}

// setStatus does what a request wants of a node: a lock on its name is made or lifted, and its record changed for the rest.
func setStatus(tx *store.Tx, n *model.Node, r *controlv1.SetNodeStatusRequest, by string) error {
	target := "node:" + n.Name
	switch r.GetStatus() {
	case controlv1.NodeStatus_NODE_STATUS_ACTIVE:
		if n.OwnStatus == model.StatusPending {
			approved := n.Clone()
			approved.OwnStatus = model.StatusActive
			tx.Put("node.approve", approved)
			return nil
		}
		locks, err := findLocks(tx.Model, &controlv1.RemoveLockRequest{Target: target})
		for _, l := range locks {
			lift(tx, l)
		}
		return err
	case controlv1.NodeStatus_NODE_STATUS_LOCKED:
		_, err := putLock(tx, target, r.GetMessage(), 0, by)
		return err
	case controlv1.NodeStatus_NODE_STATUS_REMOVED:
		if err := removePorts(tx, n); err != nil {
			return err
		}
		tx.Put("node.remove", removed(tx, n, r.GetMessage()))
		return nil
	default:
		return refuse(connect.CodeInvalidArgument, "a node's status can be set to active, locked or removed, found %v", r.GetStatus())
	}
}

// removed is the record of a node that is removed. It notes when the node was cut off first, and until when the TURN
// credential may last that it has.
func removed(tx *store.Tx, n *model.Node, message string) *model.Node {
	c := n.Clone()
	c.OwnStatus, c.Message, c.Forgotten = model.StatusRemoved, message, false
	if c.CutAt = tx.Model.CutAt(n); c.CutAt.IsZero() {
		c.CutAt = tx.Now()
	}
	c.SlotUntil = tx.Model.Settings.CredentialsUntil
	for _, a := range tx.Model.AttachmentsOf(n.ID) {
		c.Spoke = append(c.Spoke, a.ID)
	}
	return c
}

// SetNodeAddress sets how a node comes by its addresses on a segment.
func (s *adminService) SetNodeAddress(ctx context.Context, r *controlv1.SetNodeAddressRequest) (*controlv1.SetNodeAddressResponse, error) {
	mode := model.ModeOf(r.GetMode())
	if mode == "" {
		return nil, refuse(connect.CodeInvalidArgument, "an address mode is auto, static, dhcp or none, found %v", r.GetMode())
	}
	var addresses []netip.Prefix
	for _, text := range r.GetAddresses() {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "address %q is not ADDRESS/LENGTH", text)
		}
		addresses = append(addresses, p)
	}
	var node *model.Node
	err := s.update(ctx, func(tx *store.Tx) error {
		old, seg := tx.Model.NodeNamed(r.GetName()), tx.Model.SegmentNamed(r.GetSegment())
		if old == nil {
			return noSuchNode(r.GetName())
		}
		if seg == nil {
			return noSuchSegment(r.GetSegment())
		}
		next, err := tx.Model.WithMode(old, seg, mode, addresses)
		if err != nil {
			return refuse(connect.CodeFailedPrecondition, "%w", err)
		}
		if node = next; !model.Same(old, next) {
			tx.Put("node.address", next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetNodeAddressResponse{Node: s.current(node.ID)}, nil
}

// SetNodeRoles adds and removes what a node may be for others on a segment.
func (s *adminService) SetNodeRoles(ctx context.Context, r *controlv1.SetNodeRolesRequest) (*controlv1.SetNodeRolesResponse, error) {
	add, err := stationRoles(r.GetAdd())
	if err != nil {
		return nil, err
	}
	remove, err := stationRoles(r.GetRemove())
	if err != nil {
		return nil, err
	}
	if len(add)+len(remove) == 0 {
		return nil, refuse(connect.CodeInvalidArgument, "no role is named: add or remove one of %v", model.Roles())
	}
	var node *model.Node
	err = s.update(ctx, func(tx *store.Tx) error {
		old, seg := tx.Model.NodeNamed(r.GetName()), tx.Model.SegmentNamed(r.GetSegment())
		if old == nil {
			return noSuchNode(r.GetName())
		}
		if seg == nil {
			return noSuchSegment(r.GetSegment())
		}
		next, err := tx.Model.WithRoles(old, seg, add, remove)
		if err != nil {
			return refuse(connect.CodeFailedPrecondition, "%w", err)
		}
		if node = next; !model.Same(old, next) {
			tx.Put("node.role", next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetNodeRolesResponse{Node: s.current(node.ID)}, nil
}

func stationRoles(names []string) (out []model.Role, err error) {
	for _, name := range names {
		r, err := model.RoleOf(name)
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
		out = append(out, r)
	}
	return out, nil
}

package server

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
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
	out := &controlv1.ListNodesResponse{}
	for _, n := range inOrder(s.c.store.Model().Nodes) {
		if r.GetName() == "" || r.GetName() == n.Name {
			out.Nodes = append(out.Nodes, s.describe(n))
		}
	}
	if r.GetName() != "" && len(out.Nodes) == 0 {
		return nil, noSuchNode(r.GetName())
	}
	return out, nil
}

func (s *adminService) describe(n *model.Node) *controlv1.Node {
	p := n.Proto()
	p.Online = s.c.hub.online(n.ID)
	if d, ok := s.c.dossiers.get(n.ID); ok {
		p.Posture, p.PostureReceived = d.report, timestamppb.New(d.received)
	}
	return p
}

// SetNodeStatus approves, locks, unlocks or removes a node.
func (s *adminService) SetNodeStatus(ctx context.Context, r *controlv1.SetNodeStatusRequest) (*controlv1.SetNodeStatusResponse, error) {
	if err := checkText("message", r.GetMessage()); err != nil {
		return nil, err
	}
	var node *model.Node
	err := s.update(ctx, func(tx *store.Tx) error {
		old := tx.Model.NodeNamed(r.GetName())
		if old == nil {
			return noSuchNode(r.GetName())
		}
		action, next, err := withStatus(tx, old, r)
		if err != nil {
			return err
		}
		if node = next; !model.Same(old, next) {
			tx.Put(action, next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetNodeStatusResponse{Node: s.describe(node)}, nil
}

// withStatus returns a node's record with another status, and what the audit log calls the change.
func withStatus(tx *store.Tx, old *model.Node, r *controlv1.SetNodeStatusRequest) (action string, n *model.Node, err error) {
	n = old.Clone()
	n.Message = r.GetMessage()
	switch r.GetStatus() {
	case controlv1.NodeStatus_NODE_STATUS_ACTIVE:
		action = "node.unlock"
		if old.Status == model.StatusPending {
			action = "node.approve"
		}
		n.Status, n.Forgotten = model.StatusActive, false
		n.CutAt, n.SlotUntil = time.Time{}, time.Time{}
	case controlv1.NodeStatus_NODE_STATUS_LOCKED:
		action, n.Status = "node.lock", model.StatusLocked
		markCut(tx, n)
	case controlv1.NodeStatus_NODE_STATUS_REMOVED:
		action, n.Status = "node.remove", model.StatusRemoved
		markCut(tx, n)
	default:
		return "", nil, refuse(connect.CodeInvalidArgument, "a node's status can be set to active, locked or removed, found %v", r.GetStatus())
	}
	return action, n, nil
}

// markCut notes when a node was cut off first, and until when the TURN credential may last that it has.
func markCut(tx *store.Tx, n *model.Node) {
	if n.CutAt.IsZero() {
		n.CutAt = tx.Now()
	}
	n.SlotUntil = tx.Model.Settings.CredentialsUntil
	n.Forgotten = false
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
	return &controlv1.SetNodeAddressResponse{Node: s.describe(node)}, nil
}

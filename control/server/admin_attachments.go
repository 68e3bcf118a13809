package server

import (
	"context"
	"math"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// maxPorts is how many gateways may hang on one VLAN of an attachment.
const maxPorts = 16

// AddAttachment makes a gateway's port onto a VLAN a part of a segment: a new attachment, or a further port of one.
func (s *adminService) AddAttachment(ctx context.Context, r *controlv1.AddAttachmentRequest) (*controlv1.AddAttachmentResponse, error) {
	var a *model.Attachment
	err := s.update(ctx, func(tx *store.Tx) error {
		p, err := portOf(tx.Model, r)
		if err != nil {
			return err
		}
		p.Move = p.Move.Asks(r.GetMoveHost(), confirmOf(r), false, tx.Now())
		if err := tx.Model.CheckPort(p, nil); err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		redundancy, err := model.ParseRedundancy(r.GetRedundancy(), model.SingleActive)
		if err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		secondary := model.SecondaryOf(r.GetSecondary())
		if err := secondary.Check(); err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		if r.GetWith() != "" {
			if a, err = joined(tx.Model, r, p); err == nil {
				err = putAttachment(tx, "attachment.port", a)
			}
			return err
		}
		lacp, err := model.ParseLACP(r.GetLacp(), false)
		if err != nil {
			return refuse(connect.CodeInvalidArgument, "%w", err)
		}
		seg := tx.Model.SegmentNamed(r.GetSegment())
		if r.GetSegment() == "" {
			return refuse(connect.CodeInvalidArgument, "say of which segment the attachment is with --segment NAME, or with which other port it is one with --with NODE/PORT")
		}
		if seg == nil {
			return noSuchSegment(r.GetSegment())
		}
		a = &model.Attachment{
			ID: tx.NextNode(), VNI: seg.VNI, Ports: []model.AttachmentPort{*p}, Secondary: secondary, Redundancy: redundancy, LACP: lacp,
		}
		return putAttachment(tx, "attachment.add", a)
	})
	if err != nil {
		return nil, err
	}
	m := s.c.store.Model()
	return &controlv1.AddAttachmentResponse{Attachment: m.AttachmentProto(a)}, nil
}

// SetAttachment says anew which frames of which link are a port's, or where in a private VLAN its attachment is. Its identity, and what
// names it, stay.
func (s *adminService) SetAttachment(ctx context.Context, r *controlv1.SetAttachmentRequest) (*controlv1.SetAttachmentResponse, error) {
	var a *model.Attachment
	err := s.update(ctx, func(tx *store.Tx) error {
		old, was, err := tx.Model.FindAttachment(r.GetName())
		if err != nil {
			return refuse(connect.CodeNotFound, "%w", err)
		}
		a, err = changed(tx, r, old, was)
		if err == nil && a != old {
			err = putAttachment(tx, "attachment.set", a)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.SetAttachmentResponse{Attachment: s.c.store.Model().AttachmentProto(a)}, nil
}

// putAttachment keeps an attachment, if its gateways can do what they are to.
func putAttachment(tx *store.Tx, action string, a *model.Attachment) error {
	if err := a.CheckLACP(); err != nil {
		return refuse(connect.CodeInvalidArgument, "%w", err)
	}
	tx.Put(action, a)
	return nil
}

// changed is the attachment that a request asks for; the old one itself if nothing is to change.
func changed(tx *store.Tx, r *controlv1.SetAttachmentRequest, old *model.Attachment, was *model.AttachmentPort) (*model.Attachment, error) {
	a := old
	if r.Secondary != nil {
		secondary := model.SecondaryOf(r.GetSecondary())
		if err := secondary.Check(); err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
		if secondary != old.Secondary {
			a = old.WithSecondary(secondary)
		}
	}
	if r.GetRedundancy() != "" {
		redundancy, err := model.ParseRedundancy(r.GetRedundancy(), old.Redundancy)
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
		if redundancy != old.Redundancy {
			a = a.WithRedundancy(redundancy)
		}
	}
	lacp, err := model.ParseLACP(r.GetLacp(), old.LACP)
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	if lacp != old.LACP {
		a = a.WithLACP(lacp)
	}
	if aboutAll(r) {
		return a, nil
	}
	p, err := portOf(tx.Model, r)
	if err != nil {
		return nil, err
	}
	p.Move = was.Move.Asks(r.GetMoveHost(), confirmOf(r), p.NIC == was.NIC, tx.Now())
	if err := tx.Model.CheckPort(p, was); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	if *p != *was {
		a = a.WithOther(*p)
	}
	return a, nil
}

// aboutAll reports whether a request says something of the attachment, and nothing of the port.
func aboutAll(r *controlv1.SetAttachmentRequest) bool {
	if r.Secondary == nil && r.GetRedundancy() == "" && r.GetLacp() == "" {
		return false
	}
	return proto.Equal(r, &controlv1.SetAttachmentRequest{
		Name: r.GetName(), Secondary: r.Secondary, Redundancy: r.GetRedundancy(), Lacp: r.GetLacp(), Confirm: r.Confirm,
	})
}

// ConfirmAttachment leaves a gateway's host moved.
func (s *adminService) ConfirmAttachment(ctx context.Context, r *controlv1.ConfirmAttachmentRequest) (*controlv1.ConfirmAttachmentResponse, error) {
	var a *model.Attachment
	err := s.update(ctx, func(tx *store.Tx) error {
		old, was, err := tx.Model.FindAttachment(r.GetName())
		if err != nil {
			return refuse(connect.CodeNotFound, "%w", err)
		}
		if !was.Move.Host {
			return refuse(connect.CodeFailedPrecondition, "attachment %s moves no host, so there is nothing to confirm: "+
				"`etherloom attachment set %s --move-host` asks for it", r.GetName(), r.GetName())
		}
		a = old
		if p := *was; !p.Move.Confirmed {
			p.Move.Confirmed = true
			a = old.WithOther(p)
			tx.Put("attachment.confirm", a)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.ConfirmAttachmentResponse{Attachment: s.c.store.Model().AttachmentProto(a)}, nil
}

// moveRequest is what a request says of a move.
type moveRequest interface {
	GetMoveHost() bool
	GetConfirm() *durationpb.Duration
}

// confirmOf is how long a move may wait for its confirmation.
func confirmOf(r moveRequest) time.Duration {
	if r.GetConfirm() == nil {
		return model.DefaultConfirm
	}
	return r.GetConfirm().AsDuration()
}

// portRequest is a request that says what a port is.
type portRequest interface {
	GetName() string
	linkRequest
}

// portOf is the port that a request asks for. It has yet to be checked.
func portOf(m *model.Model, r portRequest) (*model.AttachmentPort, error) {
	node, port, found := strings.Cut(r.GetName(), "/")
	if !found {
		return nil, refuse(connect.CodeInvalidArgument, "an attachment is named NODE/PORT, found %q", r.GetName())
	}
	n := m.NodeNamed(node)
	if n == nil {
		return nil, noSuchNode(node)
	}
	return portAt(n, port, r)
}

// linkRequest is what a request says of a port beside where it is.
type linkRequest interface {
	GetNic() string
	GetBridge() string
	GetVlan() uint32
	GetNative() string
	GetService() bool
	GetPriority() string
	GetPreference() uint32
}

func portAt(n *model.Node, port string, r linkRequest) (*model.AttachmentPort, error) {
	if r.GetPreference() > math.MaxUint16 {
		return nil, refuse(connect.CodeInvalidArgument, "a preference is 0 to %d, found %d", math.MaxUint16, r.GetPreference())
	}
	return &model.AttachmentPort{
		Node: n.ID, Name: port, NIC: r.GetNic(), Bridge: r.GetBridge(), VLAN: uint16(min(r.GetVlan(), 1<<16-1)), //nolint:gosec // bounded
		Native: model.Native(r.GetNative()), Service: r.GetService(), Priority: model.Priority(r.GetPriority()),
		Preference: uint16(r.GetPreference()), //nolint:gosec // bounded
	}, nil
}

// joined is the attachment that a request names with the further port.
func joined(m *model.Model, r *controlv1.AddAttachmentRequest, p *model.AttachmentPort) (*model.Attachment, error) {
	a, _, err := m.FindAttachment(r.GetWith())
	if err != nil {
		return nil, refuse(connect.CodeNotFound, "with: %w", err)
	}
	if seg := m.Segments[a.VNI]; r.GetSegment() != "" && (seg == nil || seg.Name != r.GetSegment()) {
		return nil, refuse(connect.CodeInvalidArgument, "attachment %s is of another segment than %q: leave the segment out, or name an attachment of it",
			r.GetWith(), r.GetSegment())
	}
	if r.Secondary != nil && model.SecondaryOf(r.GetSecondary()) != a.Secondary {
		return nil, refuse(connect.CodeInvalidArgument, "the ports of an attachment are alike isolated, of a community, or promiscuous: leave that out, and change it for all "+
			"with `etherloom attachment set %s`", r.GetWith())
	}
	if own := a.Port(p.Node); own != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%s is a port of attachment %s already: its further ports are at other gateways", m.PortName(own), r.GetWith())
	}
	if want, err := model.ParseRedundancy(r.GetRedundancy(), a.Redundancy); err != nil || want != a.Redundancy {
		return nil, refuse(connect.CodeInvalidArgument, "the ports of an attachment share its redundancy, which is %s for %s: leave it out, and change it with "+
			"`etherloom attachment set --redundancy`", a.Redundancy, r.GetWith())
	}
	if want, err := model.ParseLACP(r.GetLacp(), a.LACP); err != nil || want != a.LACP {
		return nil, refuse(connect.CodeInvalidArgument, "the ports of an attachment speak LACP alike: leave it out, and change it for all with `etherloom attachment set %s --lacp`",
			r.GetWith())
	}
	if len(a.Ports) >= maxPorts {
		return nil, refuse(connect.CodeInvalidArgument, "attachment %s has %d ports, expected at most %d", r.GetWith(), len(a.Ports)+1, maxPorts)
	}
	return a.WithPort(*p), nil
}

// ListAttachments lists all attachments.
func (s *adminService) ListAttachments(context.Context, *controlv1.ListAttachmentsRequest) (*controlv1.ListAttachmentsResponse, error) {
	m, out := s.c.store.Model(), &controlv1.ListAttachmentsResponse{}
	for _, a := range inOrder(m.Attachments) {
		out.Attachments = append(out.Attachments, m.AttachmentProto(a))
	}
	return out, nil
}

// RemoveAttachment removes a port, and with its last one an attachment that nothing names any more.
func (s *adminService) RemoveAttachment(ctx context.Context, r *controlv1.RemoveAttachmentRequest) (*controlv1.RemoveAttachmentResponse, error) {
	var left *model.Attachment
	err := s.update(ctx, func(tx *store.Tx) error {
		a, p, err := tx.Model.FindAttachment(r.GetName())
		if err != nil {
			return refuse(connect.CodeNotFound, "%w", err)
		}
		if left, err = removePort(tx, a, p); err != nil {
			return refuse(connect.CodeFailedPrecondition, "attachment %w", err)
		}
		return nil
	})
	if err != nil || left == nil {
		return &controlv1.RemoveAttachmentResponse{}, err
	}
	return &controlv1.RemoveAttachmentResponse{Attachment: s.c.store.Model().AttachmentProto(left)}, nil
}

// removePort takes a port away, and the attachment if it was its last; it returns what is left.
func removePort(tx *store.Tx, a *model.Attachment, p *model.AttachmentPort) (*model.Attachment, error) {
	left := a.WithoutPort(p.Node)
	if left != nil {
		tx.Put("attachment.remove", left)
		return left, nil
	}
	if err := unnamed(tx.Model, a.ID, tx.Model.PortName(p)); err != nil {
		return nil, err
	}
	tx.Delete("attachment.remove", a)
	return nil, nil
}

// removePorts takes a node's ports away, since it is removed. What speaks against that is no reason to let it in until it is settled.
func removePorts(tx *store.Tx, n *model.Node) error {
	for _, a := range tx.Model.AttachmentsOf(n.ID) {
		if _, err := removePort(tx, a, a.Port(n.ID)); err != nil {
			return refuse(connect.CodeFailedPrecondition, "node %q is the only gateway of an attachment: %w; or give the attachment another gateway with "+
				"`etherloom attachment add NODE/PORT --with %s`. Meanwhile `etherloom node lock %s` cuts the node off at once",
				n.Name, err, tx.Model.PortName(a.Port(n.ID)), n.Name)
		}
	}
	return nil
}

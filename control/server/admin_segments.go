package server

import (
	"context"
	"strings"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// AddSegment makes a segment.
func (s *adminService) AddSegment(ctx context.Context, r *controlv1.AddSegmentRequest) (*controlv1.AddSegmentResponse, error) {
	var seg *model.Segment
	err := s.update(ctx, func(tx *store.Tx) (err error) {
		seg, err = addSegment(tx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.AddSegmentResponse{Segment: seg.Proto()}, nil
}

const defaultMTU = 1500

// addSegment puts a segment; empty prefixes are chosen.
func addSegment(tx *store.Tx, r *controlv1.AddSegmentRequest) (*model.Segment, error) {
	name, ipv4, ipv6, mtu := r.GetName(), r.GetIpv4Prefix(), r.GetIpv6Prefix(), r.GetMtu()
	if err := identity.CheckHostName(name); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "segment: %w", err)
	}
	if mtu == 0 {
		mtu = defaultMTU
	}
	if mtu < 576 || mtu > 9216 {
		return nil, refuse(connect.CodeInvalidArgument, "MTU is %d, expected 576 to 9216", mtu)
	}
	m := tx.Preview() // in which the network has settings, even while it is being made
	if m.SegmentNamed(name) != nil {
		return nil, refuse(connect.CodeAlreadyExists, "there is a segment %q: choose another name", name)
	}
	vni, err := tx.NextSegment()
	if err != nil {
		return nil, refuse(connect.CodeResourceExhausted, "%w", err)
	}
	seg := &model.Segment{VNI: vni, Name: name, MTU: mtu, Transparent: r.GetTransparent()}
	if ipv4 == "" {
		seg.IPv4, err = m.ChooseIPv4(ownPrefixes())
	} else {
		seg.IPv4, err = m.CheckIPv4(ipv4)
	}
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	if ipv6 == "" {
		seg.IPv6, err = m.IPv6For(vni)
	} else {
		seg.IPv6, err = m.CheckIPv6(ipv6)
	}
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	tx.Put("segment.add", seg)
	return seg, nil
}

// ListSegments lists all segments.
func (s *adminService) ListSegments(context.Context, *controlv1.ListSegmentsRequest) (*controlv1.ListSegmentsResponse, error) {
	out := &controlv1.ListSegmentsResponse{}
	for _, seg := range inOrder(s.c.store.Model().Segments) {
		out.Segments = append(out.Segments, seg.Proto())
	}
	return out, nil
}

// RemoveSegment removes a segment that no grant names any more, and on which no attachment is.
func (s *adminService) RemoveSegment(ctx context.Context, r *controlv1.RemoveSegmentRequest) (*controlv1.RemoveSegmentResponse, error) {
	err := s.updatePolicy(ctx, false, func(tx *store.Tx) error {
		seg := tx.Model.SegmentNamed(r.GetName())
		if seg == nil {
			return noSuchSegment(r.GetName())
		}
		var named []string
		for _, g := range inOrder(tx.Model.Grants) {
			if g.VNI == seg.VNI {
				named = append(named, grantName(g))
			}
		}
		if len(named) > 0 {
			return refuse(connect.CodeFailedPrecondition, "segment %q is still named by grant %s: remove it first with "+
				"`etherloom grant remove ID`", seg.Name, strings.Join(named, ", "))
		}
		if tests := testsNaming(tx.Model, func(t *model.Test) bool { return t.VNI == seg.VNI }); len(tests) > 0 {
			return refuse(connect.CodeFailedPrecondition, "segment %q is still named by test %s of the policy: take it out first with "+
				"`etherloom policy apply`", seg.Name, strings.Join(tests, ", "))
		}
		var ports []string
		for _, a := range inOrder(tx.Model.Attachments) {
			if a.VNI == seg.VNI {
				ports = append(ports, tx.Model.AttachmentName(a))
			}
		}
		if len(ports) > 0 {
			return refuse(connect.CodeFailedPrecondition, "segment %q still has attachment %s: remove it first with "+
				"`etherloom attachment remove NODE/PORT`", seg.Name, strings.Join(ports, ", "))
		}
		if d := tx.Model.DHCP[seg.VNI]; d != nil {
			tx.Delete("dhcp.disable", d)
		}
		tx.Delete("segment.remove", seg)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RemoveSegmentResponse{}, nil
}

package server

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// maxDeclared is how many ports a node may declare: one transaction takes them all.
const maxDeclared = 32

// DeclareAttachments makes the ports that a gateway has declared be those that it declares now. It may, by its role alone: an attachment
// gives nobody anything until an administrator grants it, and a declared one is always a new one, never a port of one that has grants.
func (s *nodeService) DeclareAttachments(ctx context.Context, r *controlv1.DeclareAttachmentsRequest) (*controlv1.DeclareAttachmentsResponse, error) {
	if n := len(r.GetAttachments()); n > maxDeclared {
		return nil, refuse(connect.CodeInvalidArgument, "the node declares %d attachments, expected at most %d: let an administrator add the others with "+
			"`etherloom attachment add NODE/PORT`", n, maxDeclared)
	}
	var out *controlv1.DeclareAttachmentsResponse
	err := s.change(ctx, func(tx *store.Tx, n *model.Node) error {
		d := declaring{tx: tx, node: n, forbidden: s.c.opts.NoDeclare}
		out = &controlv1.DeclareAttachmentsResponse{}
		d.withdraw(r.GetAttachments(), out)
		for i, w := range r.GetAttachments() {
			result := &controlv1.DeclaredResult{Port: w.GetPort()}
			if slices.ContainsFunc(r.GetAttachments()[:i], func(o *controlv1.DeclaredAttachment) bool { return o.GetPort() == w.GetPort() }) {
				result.Error = fmt.Sprintf("port %q is declared twice: give the second one another name", w.GetPort())
			} else if err := d.put(w); err != nil {
				result.Error = plain(err)
			}
			out.Results = append(out.Results, result)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// plain is an error without the code that a call's would have.
func plain(err error) string {
	var c *connect.Error
	if errors.As(err, &c) {
		return c.Message()
	}
	return err.Error()
}

// declaring is one node's declaration as it is carried out.
type declaring struct {
	tx        *store.Tx
	node      *model.Node
	forbidden bool // only administrators attach VLANs here
}

// withdraw removes the ports that the node has declared and does not any more. One that something still names stays, and the node is told.
func (d *declaring) withdraw(wanted []*controlv1.DeclaredAttachment, out *controlv1.DeclareAttachmentsResponse) {
	for _, a := range d.tx.Model.AttachmentsOf(d.node.ID) {
		p := a.Port(d.node.ID)
		if p.Origin != model.OriginNode || slices.ContainsFunc(wanted, func(w *controlv1.DeclaredAttachment) bool { return w.GetPort() == p.Name }) {
			continue
		}
		if _, err := removePort(d.tx, a, p); err != nil {
			out.Results = append(out.Results, &controlv1.DeclaredResult{Port: p.Name, Error: "it is not declared any more, but stays: " + plain(err)})
		}
	}
}

// put makes one port be as it is declared.
func (d *declaring) put(w *controlv1.DeclaredAttachment) error {
	m := d.tx.Preview()
	seg := m.SegmentNamed(w.GetSegment())
	if seg == nil {
		return noSuchSegment(w.GetSegment())
	}
	p, err := portAt(d.node, w.GetPort(), w)
	if err != nil {
		return err
	}
	p.Origin = model.OriginNode
	a, was := m.AttachmentAt(d.node.Name + "/" + w.GetPort())
	if was != nil && was.Origin != model.OriginNode {
		return administrators(m, a, was, p, seg)
	}
	p.Move = d.move(w, p, was)
	if was != nil && *was == *p && a.VNI == seg.VNI {
		return nil
	}
	if d.forbidden {
		return fmt.Errorf("in this network only administrators attach VLANs: ask for `etherloom attachment add %s/%s`", d.node.Name, p.Name)
	}
	if err := m.CheckPort(p, was); err != nil {
		return err
	}
	return d.write(a, was, p, seg)
}

// move is what is asked for of the host on the NIC. What was asked for before is not asked for anew.
func (d *declaring) move(w *controlv1.DeclaredAttachment, p, was *model.AttachmentPort) model.Move {
	asked := p.Move.Asks(w.GetMoveHost(), confirmOf(w), false, d.tx.Now())
	if was != nil && was.Move.Host && was.NIC == p.NIC && asked.Host {
		asked.Asked, asked.Confirmed = was.Move.Asked, was.Move.Confirmed
	}
	return asked
}

// write keeps a port, in the place of the one that was there. On another segment it is another attachment, with another identity.
func (d *declaring) write(a *model.Attachment, was, p *model.AttachmentPort, seg *model.Segment) error {
	if was != nil && a.VNI == seg.VNI {
		return putAttachment(d.tx, "attachment.set", a.WithOther(*p))
	}
	if was != nil {
		if _, err := removePort(d.tx, a, was); err != nil {
			return err
		}
	}
	d.tx.Put("attachment.add", &model.Attachment{ID: d.tx.NextNode(), VNI: seg.VNI, Ports: []model.AttachmentPort{*p}})
	return nil
}

// administrators is about a port that an administrator has made: nothing is wrong if it is as declared, and nothing is changed if not.
func administrators(m *model.Model, a *model.Attachment, was, p *model.AttachmentPort, seg *model.Segment) error {
	same := *p
	same.Origin, same.Move = was.Origin, was.Move
	if same == *was && a.VNI == seg.VNI {
		return nil
	}
	return fmt.Errorf("there is an attachment %s, which an administrator has made otherwise: declare it as `etherloom attachment list` shows it, or under "+
		"another name, or have it removed", m.PortName(was))
}

package server

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// adminService is what administrators call. The gate has checked the caller, for every method alike.
type adminService struct{ c *Controller }

// update is a transaction in the name of the administrator who calls. It repeats the gate's question: the administrator may have been
// revoked since, by way of another controller of which this one hears with the transaction.
func (s *adminService) update(ctx context.Context, f func(*store.Tx) error) error {
	who := callerOf(ctx)
	return s.c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		if err := checkAdmin(tx.Model, who.leaf, tx.Now()); err != nil {
			return err
		}
		return f(tx)
	})
}

// maxText is how long a free text of an administrator's may be.
const maxText = 256

func checkText(what, text string) error {
	if len(text) > maxText {
		return refuse(connect.CodeInvalidArgument, "%s has %d bytes, expected at most %d", what, len(text), maxText)
	}
	return nil
}

// timeOf reads an optional time: unset is zero. It must lie in the future.
func timeOf(what string, t *timestamppb.Timestamp, now time.Time) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if t.CheckValid() != nil || !t.AsTime().After(now) {
		return time.Time{}, refuse(connect.CodeInvalidArgument, "%s is %s, expected a time in the future", what,
			t.AsTime().UTC().Format(time.RFC3339))
	}
	return t.AsTime(), nil
}

// spanOf reads an optional duration.
func spanOf(what string, d *durationpb.Duration, unset, most time.Duration) (time.Duration, error) {
	if d == nil {
		return unset, nil
	}
	if d.CheckValid() != nil || d.AsDuration() < shortest || d.AsDuration() > most {
		return 0, refuse(connect.CodeInvalidArgument, "%s is %v, expected between %v and %v", what, d.AsDuration(), shortest, most)
	}
	return d.AsDuration(), nil
}

// AddAdmin certifies another administrator's key.
func (s *adminService) AddAdmin(ctx context.Context, r *controlv1.AddAdminRequest) (*controlv1.AddAdminResponse, error) {
	if err := identity.CheckHostName(r.GetName()); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "administrator: %w", err)
	}
	if len(r.GetSignKey()) != 32 {
		return nil, refuse(connect.CodeInvalidArgument, "expected an Ed25519 key of 32 bytes, found %d", len(r.GetSignKey()))
	}
	life, err := spanOf("lifetime", r.GetLifetime(), s.c.opts.AdminLifetime, 366*24*time.Hour)
	if err != nil {
		return nil, err
	}
	var admin *model.Admin
	var leaf *identity.Certificate
	err = s.update(ctx, func(tx *store.Tx) error {
		if owner := tx.Model.KeyOwner(r.GetSignKey()); owner != "" {
			return refuse(connect.CodeAlreadyExists, "the key is registered already, as that of %s: make a new one", owner)
		}
		for _, a := range tx.Model.Admins {
			if a.Name == r.GetName() && !a.Revoked {
				return refuse(connect.CodeAlreadyExists, "there is an administrator %q: choose another name, or revoke that one", a.Name)
			}
		}
		id := tx.NextAdmin()
		if leaf, err = s.c.ca.Issue(adminClaims(id, r.GetSignKey()), life, tx.Now()); err != nil {
			return err
		}
		admin = &model.Admin{ID: id, Name: r.GetName(), Sign: r.GetSignKey(), Created: tx.Now(), Expires: leaf.NotAfter}
		tx.Put("admin.add", admin)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.AddAdminResponse{Certificate: leaf.DER, Admin: admin.Proto()}, nil
}

// ListAdmins lists all administrators that ever were.
func (s *adminService) ListAdmins(context.Context, *controlv1.ListAdminsRequest) (*controlv1.ListAdminsResponse, error) {
	out := &controlv1.ListAdminsResponse{}
	for _, a := range inOrder(s.c.store.Model().Admins) {
		out.Admins = append(out.Admins, a.Proto())
	}
	return out, nil
}

// RevokeAdmin ends an administrator's right, though not that of the last.
func (s *adminService) RevokeAdmin(ctx context.Context, r *controlv1.RevokeAdminRequest) (*controlv1.RevokeAdminResponse, error) {
	err := s.update(ctx, func(tx *store.Tx) error {
		a := tx.Model.Admins[identity.ID(r.GetId())]
		if a == nil {
			return refuse(connect.CodeNotFound, "there is no administrator %d", r.GetId())
		}
		if a.Revoked {
			return nil
		}
		others := 0
		for _, o := range tx.Model.Admins {
			if o != a && !o.Revoked && tx.Now().Before(o.Expires) {
				others++
			}
		}
		if others == 0 {
			return refuse(connect.CodeFailedPrecondition, "administrator %q is the last: add another one first", a.Name)
		}
		revoked := *a
		revoked.Revoked = true
		tx.Put("admin.revoke", &revoked)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RevokeAdminResponse{}, nil
}

// RaiseEpoch makes nodes take the state of a store that was restored from a backup.
func (s *adminService) RaiseEpoch(ctx context.Context, _ *controlv1.RaiseEpochRequest) (*controlv1.RaiseEpochResponse, error) {
	var epoch uint64
	err := s.update(ctx, func(tx *store.Tx) error {
		set := *tx.Model.Settings
		set.Epoch++
		epoch = set.Epoch
		tx.Put("epoch.raise", &set)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RaiseEpochResponse{Epoch: epoch}, nil
}

// ListAudit reads the audit log, and signs the head as it is at that moment.
func (s *adminService) ListAudit(ctx context.Context, r *controlv1.ListAuditRequest) (*controlv1.ListAuditResponse, error) {
	limit := min(r.GetLimit(), 5000)
	if limit == 0 {
		limit = 1000
	}
	entries, head, err := s.c.store.Audit(ctx, r.GetAfter(), int64(limit))
	if err != nil {
		return nil, err
	}
	signer := s.c.self.Load().signer
	return &controlv1.ListAuditResponse{
		Entries: entries, Head: head.Proto(), HeadSignature: head.Sign(signer.Key), Signer: signer.Leaf,
	}, nil
}

// noSuchNode is the error for a name that no node bears.
func noSuchNode(name string) error {
	return refuse(connect.CodeNotFound, "no node is called %q: `etherloom node list` shows those there are", name)
}

func noSuchSegment(name string) error {
	return refuse(connect.CodeNotFound, "no segment is called %q: `etherloom segment list` shows those there are", name)
}

// name is a fact's name for people.
func grantName(g *model.Grant) string { return fmt.Sprintf("%d (%s to %s)", g.ID, g.From, g.To) }

package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// enrolment makes machines into nodes. It is the only service that strangers reach.
type enrolment struct{ c *Controller }

// Begin checks that the token may still be used and returns a challenge.
func (s *enrolment) Begin(_ context.Context, r *controlv1.BeginRequest) (*controlv1.BeginResponse, error) {
	now := s.c.now()
	if _, err := findToken(s.c.store.Model(), r.GetSecret(), now); err != nil {
		return nil, err
	}
	ch, err := s.c.challenger.New(now)
	if err != nil {
		return nil, err
	}
	return &controlv1.BeginResponse{Challenge: ch.Opaque, Ephemeral: ch.Ephemeral}, nil
}

// Enrol uses the token up and certifies the keys that the proof covers.
func (s *enrolment) Enrol(ctx context.Context, r *controlv1.EnrolRequest) (*controlv1.EnrolResponse, error) {
	e, err := s.prove(r)
	if err != nil {
		return nil, err
	}
	var node *model.Node
	var leaf *identity.Certificate
	err = s.c.store.Update(ctx, callerOf(ctx).actor(), func(tx *store.Tx) error {
		node, leaf, err = s.c.enrol(tx, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	m := s.c.store.Model()
	status := m.Status(node)
	s.c.log.Info("node enrolled", slog.String("peer", node.Name), slog.Uint64("id", uint64(node.ID)),
		slog.String("status", string(status)))
	return &controlv1.EnrolResponse{
		Certificate: leaf.DER, Ca: s.c.CA(), Zone: m.Settings.Zone, Controllers: m.Shared.Controllers, Status: status.Proto(),
	}, nil
}

// prove checks everything about a request that needs no transaction.
func (s *enrolment) prove(r *controlv1.EnrolRequest) (identity.Enrolment, error) {
	now := s.c.now()
	if _, err := findToken(s.c.store.Model(), r.GetSecret(), now); err != nil {
		return identity.Enrolment{}, err
	}
	if err := identity.CheckHostName(r.GetName()); err != nil {
		return identity.Enrolment{}, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	if len(r.GetSignKey()) != ed25519.PublicKeySize || len(r.GetStaticKey()) != len(identity.StaticPublicKey{}) {
		return identity.Enrolment{}, refuse(connect.CodeInvalidArgument, "expected two keys of 32 bytes, found %d and %d",
			len(r.GetSignKey()), len(r.GetStaticKey()))
	}
	e := identity.Enrolment{
		Secret: r.GetSecret(), Name: r.GetName(), Sign: r.GetSignKey(), Static: identity.StaticPublicKey(r.GetStaticKey()),
	}
	err := s.c.challenger.Check(r.GetChallenge(), e, identity.Proof{Signature: r.GetSignature(), MAC: r.GetMac()}, now)
	switch {
	case errors.Is(err, identity.ErrChallenge):
		return e, refuse(connect.CodeAborted, "%w", err)
	case err != nil:
		return e, refuse(connect.CodeUnauthenticated, "%w", err)
	}
	return e, nil
}

// enrol makes the node, and uses the token up, in one transaction.
func (c *Controller) enrol(tx *store.Tx, e identity.Enrolment) (*model.Node, *identity.Certificate, error) {
	token, err := findToken(tx.Model, e.Secret, tx.Now())
	if err != nil {
		return nil, nil, err
	}
	if kind := tx.Model.NameTaken(e.Name); kind != "" {
		return nil, nil, refuse(connect.CodeAlreadyExists, "a %s called %q is in the network already: choose another name with --name, "+
			"or have that one removed", kind, e.Name)
	}
	// A key that was ever registered may be in other hands, so it is never accepted again, also not after its node was
	// removed.
	if tx.Model.KeyOwner(e.Sign) != "" || tx.Model.KeyOwner(e.Static[:]) != "" {
		return nil, nil, refuse(connect.CodeAlreadyExists, "one of the machine's keys has been registered before: remove its state "+
			"directory, so that it makes new ones, and join again")
	}
	n := &model.Node{
		ID: tx.NextNode(), Name: e.Name, Site: token.Site, Roles: rolesOf(token.Role), Labels: token.Labels,
		OwnStatus: model.StatusActive, Sign: e.Sign, Static: e.Static[:], Token: token.ID, Enrolled: tx.Now(),
		RelaySlot: tx.Model.FreeSlot(),
	}
	if token.Approve {
		n.OwnStatus = model.StatusPending
	}
	leaf, err := c.certifyNode(n, tx)
	if err != nil {
		return nil, nil, err
	}
	used := *token
	used.Used++
	tx.Put("token.use", &used)
	tx.Put("node.enrol", n)
	return n, leaf, nil
}

// certifyNode issues a certificate for a node and writes it into the record, which the caller puts.
func (c *Controller) certifyNode(n *model.Node, tx *store.Tx) (*identity.Certificate, error) {
	want := identity.Certificate{
		Name: identity.Name{Kind: identity.KindNode, ID: n.ID}, Sign: n.Sign, Static: identity.StaticPublicKey(n.Static),
	}
	for _, r := range n.Roles {
		want.Roles = append(want.Roles, identity.Role(r))
	}
	for _, text := range n.Labels {
		l, err := identity.ParseLabel(text)
		if err != nil {
			return nil, err
		}
		want.Labels = append(want.Labels, l)
	}
	leaf, err := c.ca.Issue(want, time.Duration(tx.Model.Settings.CertificateLifetime), tx.Now())
	if err != nil {
		return nil, err
	}
	n.Serial, n.Expires, n.Forgotten = leaf.Serial, leaf.NotAfter, false
	if leaf.NotAfter.After(n.CertifiedUntil) {
		n.CertifiedUntil = leaf.NotAfter
	}
	return leaf, nil
}

// rolesOf lists the roles that a token's role means: whoever is more is a member too.
func rolesOf(role string) []string {
	if role == string(identity.RoleMember) {
		return []string{role}
	}
	return []string{string(identity.RoleMember), role}
}

// tokenID is how a token is named to people and in the store.
func tokenID(hash []byte) string { return hex.EncodeToString(hash[:6]) }

// findToken returns the token with a secret, or says why it cannot be used.
func findToken(m *model.Model, secret []byte, now time.Time) (*model.Token, error) {
	hash := identity.HashSecret(secret)
	t := m.Tokens[tokenID(hash[:])]
	const again = "ask for a new one (`etherloom token create`)"
	switch {
	case t == nil || !bytes.Equal(t.Hash, hash[:]):
		return nil, refuse(connect.CodeNotFound, "this network does not know the token: it is another network's, or "+again)
	case t.Revoked:
		return nil, refuse(connect.CodeFailedPrecondition, "token %s was revoked by an administrator: "+again, t.ID)
	case !now.Before(t.Expires):
		return nil, refuse(connect.CodeFailedPrecondition, "token %s expired at %s: "+again, t.ID, t.Expires.UTC().Format(time.RFC3339))
	case t.Used >= t.Uses:
		return nil, refuse(connect.CodeFailedPrecondition, "token %s has been used up (%d of %d): "+again, t.ID, t.Used, t.Uses)
	}
	if l := m.LockOnToken(t.ID); l != nil {
		return nil, refuse(connect.CodeFailedPrecondition, "token %s is locked by an administrator%s%s: wait until it is unlocked, or "+again,
			t.ID, untilText(l.Expires), because(l.Message))
	}
	return t, nil
}

package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

const (
	defaultTTL = 3 * time.Hour
	maxTTL     = 366 * 24 * time.Hour
	maxUses    = 100_000
	maxLabels  = 32
)

// CreateToken makes a token. The answer is the only place where its secret is ever seen.
func (s *adminService) CreateToken(ctx context.Context, r *controlv1.CreateTokenRequest) (*controlv1.CreateTokenResponse, error) {
	t, err := tokenFrom(r)
	if err != nil {
		return nil, err
	}
	ttl, err := spanOf("ttl", r.GetTtl(), defaultTTL, maxTTL)
	if err != nil {
		return nil, err
	}
	secret := identity.NewToken(s.c.store.Model().Shared.Controllers, s.c.ca.Pin())
	hash := identity.HashSecret(secret.Secret[:])
	t.ID, t.Hash = tokenID(hash[:]), hash[:]
	err = s.update(ctx, func(tx *store.Tx) error {
		if tx.Model.Tokens[t.ID] != nil {
			return refuse(connect.CodeAborted, "two tokens would have the id %s: try again", t.ID)
		}
		t.Created, t.Expires = tx.Now(), tx.Now().Add(ttl)
		tx.Put("token.create", t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.CreateTokenResponse{Token: secret.String(), Description: t.Proto()}, nil
}

// tokenFrom checks what an administrator asks of a token.
func tokenFrom(r *controlv1.CreateTokenRequest) (*model.Token, error) {
	t := &model.Token{Role: r.GetRole(), Site: r.GetSite(), Uses: r.GetUses(), Approve: r.GetApprove()}
	orElse(&t.Role, string(identity.RoleMember))
	orElse(&t.Uses, 1)
	if _, err := identity.ParseRole(t.Role); err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	if err := checkText("site", t.Site); err != nil {
		return nil, err
	}
	if t.Uses > maxUses {
		return nil, refuse(connect.CodeInvalidArgument, "a token for %d uses: expected at most %d", t.Uses, maxUses)
	}
	if len(r.GetLabels()) > maxLabels {
		return nil, refuse(connect.CodeInvalidArgument, "a token with %d labels: expected at most %d", len(r.GetLabels()), maxLabels)
	}
	for _, text := range r.GetLabels() {
		l, err := identity.ParseLabel(text)
		if err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "%w", err)
		}
		t.Labels = append(t.Labels, l.String())
	}
	return t, nil
}

// ListTokens lists all tokens, without their secrets, which nobody has.
func (s *adminService) ListTokens(context.Context, *controlv1.ListTokensRequest) (*controlv1.ListTokensResponse, error) {
	m, out := s.c.store.Model(), &controlv1.ListTokensResponse{}
	for _, t := range inOrder(m.Tokens) {
		p := t.Proto()
		p.Locked = m.LockOnToken(t.ID) != nil
		out.Tokens = append(out.Tokens, p)
	}
	return out, nil
}

// RevokeToken makes a token useless.
func (s *adminService) RevokeToken(ctx context.Context, r *controlv1.RevokeTokenRequest) (*controlv1.RevokeTokenResponse, error) {
	err := s.update(ctx, func(tx *store.Tx) error {
		t := tx.Model.Tokens[r.GetId()]
		if t == nil {
			return refuse(connect.CodeNotFound, "there is no token %q", r.GetId())
		}
		if t.Revoked {
			return nil
		}
		revoked := *t
		revoked.Revoked = true
		tx.Put("token.revoke", &revoked)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &controlv1.RevokeTokenResponse{}, nil
}

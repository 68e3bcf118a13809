package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/identity"
)

// Admin is an administrator's way to the controllers.
type Admin struct {
	urls     []string
	verifier *identity.Verifier
	cert     *tls.Certificate
}

// NewAdmin returns the way that a credential opens.
func NewAdmin(cred *credential.Admin) (*Admin, error) {
	v, err := identity.NewVerifier(cred.CA)
	if err != nil {
		return nil, err
	}
	leaf, err := v.Inspect(cred.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the credential's certificate: %w", err)
	}
	if err := v.CheckTime(leaf, time.Now()); errors.Is(err, identity.ErrExpired) {
		return nil, fmt.Errorf("the credential expired at %s: have another administrator make a new one, or start the controller with "+
			"--new-admin", leaf.NotAfter.Format(time.RFC3339))
	}
	return &Admin{cred.Controllers, v, identity.TLSCertificate(cred.Certificate, cred.Key)}, nil
}

// Verifier judges what the controllers sign.
func (a *Admin) Verifier() *identity.Verifier { return a.verifier }

// Do calls f with one controller after another, until one can be reached.
func (a *Admin) Do(ctx context.Context, f func(context.Context, controlv1connect.AdminServiceClient) error) error {
	var errs []error
	for _, url := range a.urls {
		h := &http.Client{Transport: http2Transport(identity.ClientTLS(a.verifier, func() *tls.Certificate { return a.cert }))}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		err := f(ctx, controlv1connect.NewAdminServiceClient(h, url, connect.WithReadMaxBytes(maxDelta)))
		cancel()
		h.CloseIdleConnections()
		if err == nil {
			return nil
		}
		if decided(err) {
			return explain(err)
		}
		errs = append(errs, fmt.Errorf("%s: %w", url, explain(err)))
	}
	return errors.Join(errs...)
}

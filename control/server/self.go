package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// ownLeaf is the controller's own certificate, as TLS and the signatures over states use it.
type ownLeaf struct {
	cert   *identity.Certificate
	issued time.Time
	signer state.Signer
	tls    *tls.Certificate
}

// register finds the controller in the store by its key, or adds it, and certifies it.
func (c *Controller) register(ctx context.Context) error {
	key, err := c.dir.controllerKey()
	if err != nil {
		return err
	}
	return c.certify(ctx, key)
}

// certify issues a leaf for the controller. It is used only once the store, and so the audit log, has it.
func (c *Controller) certify(ctx context.Context, key ed25519.PrivateKey) error {
	pub := key.Public().(ed25519.PublicKey) //nolint:forcetypeassert // documented by crypto/ed25519
	var leaf *identity.Certificate
	err := c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
		action := "controller.certify"
		id := controllerWith(tx.Model, pub)
		if id == 0 {
			id, action = tx.NextController(), "controller.add"
		}
		want := identity.Certificate{Name: identity.Name{Kind: identity.KindController, ID: id}, Sign: pub}
		var err error
		leaf, err = c.ca.Issue(want, time.Duration(tx.Model.Settings.CertificateLifetime), tx.Now(), hosts(c.opts.Advertise)...)
		if err != nil {
			return err
		}
		tx.Put(action, &model.Controller{ID: id, Sign: pub, URLs: c.opts.Advertise, Serial: leaf.Serial, Expires: leaf.NotAfter})
		return nil
	})
	if err != nil {
		return fmt.Errorf("certify this controller: %w", err)
	}
	c.self.Store(&ownLeaf{
		cert: leaf, issued: c.now(), signer: state.Signer{Leaf: leaf.DER, Key: key},
		tls: identity.TLSCertificate(leaf.DER, key, c.ca.Certificate()),
	})
	return nil
}

func controllerWith(m *model.Model, sign ed25519.PublicKey) identity.ID {
	for id, c := range m.Controllers {
		if bytes.Equal(c.Sign, sign) {
			return id
		}
	}
	return 0
}

// hosts are the names and addresses in URLs.
func hosts(urls []string) []string {
	var out []string
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil {
			out = append(out, u.Hostname())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// selfID is the controller's id.
func (c *Controller) selfID() identity.ID { return c.self.Load().cert.Name.ID }

// renewSelf renews the controller's leaf at half its life, and if that fails, again and again.
func (c *Controller) renewSelf(ctx context.Context) error {
	for {
		leaf := c.self.Load()
		life := leaf.cert.NotAfter.Sub(leaf.issued)
		wait := max(leaf.issued.Add(life/2).Sub(c.now()), life/20, retryEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := c.certify(ctx, leaf.signer.Key); err != nil && ctx.Err() == nil {
			c.log.Error("controller's certificate was not renewed", slog.Any("err", err),
				slog.Time("expires", leaf.cert.NotAfter))
		}
	}
}

// retryEvery is the shortest time between two attempts at anything that failed.
const retryEvery = 250 * time.Millisecond

// certificate is what TLS shows of the controller.
func (c *Controller) certificate() *tls.Certificate { return c.self.Load().tls }

package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// openNetwork makes the network if the store has none, and opens its CA.
func (c *Controller) openNetwork(ctx context.Context) error {
	if c.store.Model().Authority == nil {
		if err := c.makeNetwork(ctx); err != nil {
			return fmt.Errorf("make the network: %w", err)
		}
	}
	if err := c.openCA(); err != nil {
		return err
	}
	return c.updateSettings(ctx)
}

// caLabel says what the wrapped CA key is. It names the certificate's network, so that the key of another network does
// not pass for it.
func caLabel(network identity.NetworkID) string { return "ca/" + network.String() }

func (c *Controller) openCA() error {
	var err error
	if c.wrap, err = c.dir.wrapKey(); err != nil {
		return err
	}
	m := c.store.Model()
	der, err := c.wrap.Open(m.Authority.Wrapped, caLabel(m.Network()))
	if err != nil {
		return fmt.Errorf("%s does not open the network's CA key in the store: copy ca.wrap from the data directory of a "+
			"controller of this network or from a backup: %w", c.dir.wrapFile(), err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return fmt.Errorf("parse the CA's key: %w", err)
	}
	signer, ok := key.(ed25519.PrivateKey)
	if !ok {
		return errors.New("the CA's key in the store is not an Ed25519 key")
	}
	c.ca, err = identity.ParseCA(m.Authority.Certificate, signer)
	return err
}

// makeNetwork is the first run. The credential files are written first, so that nobody can be left without an
// administrator; they are taken back if another controller made the network meanwhile.
func (c *Controller) makeNetwork(ctx context.Context) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				err = errors.Join(err, os.Remove(name))
			}
		}
	}()
	wrap, err := c.dir.wrapKey()
	if errors.Is(err, fs.ErrNotExist) {
		wrap, err = c.dir.makeWrapKey()
		made = append(made, c.dir.wrapFile())
	}
	if err != nil {
		return err
	}
	ca, err := identity.NewCA(identity.NewNetworkID(), c.now())
	if err != nil {
		return err
	}
	admin, err := c.writeAdmin(ca, 1)
	if err != nil {
		return err
	}
	made = append(made, c.dir.file(adminFile))
	authority, err := wrapCA(ca, wrap)
	if err != nil {
		return err
	}
	err = c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
		if tx.Model.Authority != nil {
			return errLost
		}
		return c.found(tx, authority, admin)
	})
	if errors.Is(err, errLost) {
		return fmt.Errorf("%w: copy its ca.wrap to %s and start again", err, c.dir.wrapFile())
	}
	if err == nil {
		c.log.Info("network was made", slog.String("admin", c.dir.file(adminFile)))
	}
	return err
}

var errLost = errors.New("another controller made the network at the same moment")

func wrapCA(ca *identity.CA, wrap identity.WrapKey) (*model.Authority, error) {
	der, err := x509.MarshalPKCS8PrivateKey(ca.Key())
	if err != nil {
		return nil, fmt.Errorf("encode the CA's key: %w", err)
	}
	sealed, err := wrap.Seal(der, caLabel(ca.Network))
	if err != nil {
		return nil, err
	}
	return &model.Authority{Certificate: ca.Certificate(), Wrapped: sealed}, nil
}

// found puts the first facts: CA, settings, the administrator, and the segment "lan". There is no grant, so nothing
// passes.
func (c *Controller) found(tx *store.Tx, authority *model.Authority, admin *model.Admin) error {
	tx.Put("network.create", authority)
	settings, _ := c.opts.settings(nil)
	settings.ULA = newULA()
	settings.CredentialsUntil = nextCredentials(settings, tx.Now())
	tx.Put("settings.set", settings)
	admin.ID = tx.NextAdmin()
	tx.Put("admin.add", admin)
	_, err := addSegment(tx, &controlv1.AddSegmentRequest{Name: "lan"})
	return err
}

// newULA draws a network's own IPv6 prefix (RFC 4193 section 3.2: fd00::/8 and 40 random bits).
func newULA() netip.Prefix {
	var b [16]byte
	rand.Read(b[1:6])
	b[0] = 0xfd
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// ownPrefixes are those of the controller's host, which a segment had better not overlap.
func ownPrefixes() []netip.Prefix {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // it only makes the choice better
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// updateSettings sets what the options name and the store has otherwise, and adds an administrator if one is asked for.
func (c *Controller) updateSettings(ctx context.Context) error {
	if _, differ := c.opts.settings(c.store.Model().Settings); differ {
		err := c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
			if s, differ := c.opts.settings(tx.Model.Settings); differ {
				tx.Put("settings.set", s)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("set the network's settings: %w", err)
		}
	}
	if c.opts.NewAdmin {
		return c.newAdmin(ctx)
	}
	return nil
}

const adminFile = "admin.json"

// writeAdmin makes an administrator's key and certificate and writes admin.json.
func (c *Controller) writeAdmin(ca *identity.CA, id identity.ID) (*model.Admin, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the administrator's key: %w", err)
	}
	cert, err := ca.Issue(adminClaims(id, pub), c.opts.AdminLifetime, c.now())
	if err != nil {
		return nil, err
	}
	file := credential.Admin{Controllers: c.opts.Advertise, CA: ca.Certificate(), Certificate: cert.DER, Key: key}
	data, err := file.Marshal()
	if err != nil {
		return nil, err
	}
	if err := credential.Write(c.dir.file(adminFile), data); err != nil {
		return nil, err
	}
	return &model.Admin{ID: id, Name: fmt.Sprint("admin", id), Sign: pub, Created: c.now(), Expires: cert.NotAfter}, nil
}

func adminClaims(id identity.ID, sign ed25519.PublicKey) identity.Certificate {
	return identity.Certificate{Name: identity.Name{Kind: identity.KindAdmin, ID: id}, Sign: sign}
}

// newAdmin adds an administrator on the strength of having the data directory, for when all others are lost.
func (c *Controller) newAdmin(ctx context.Context) (err error) {
	// The id is in the certificate, so it is taken before the file is written.
	var id identity.ID
	err = c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
		id = tx.NextAdmin()
		tx.Note("admin.reserve", fmt.Sprint("admin/", id), nil)
		return nil
	})
	if err != nil {
		return fmt.Errorf("add an administrator: %w", err)
	}
	admin, err := c.writeAdmin(c.ca, id)
	if err != nil {
		return err
	}
	err = c.store.Update(ctx, c.actor(), func(tx *store.Tx) error {
		tx.Put("admin.add", admin)
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("add an administrator: %w", err), os.Remove(c.dir.file(adminFile)))
	}
	c.log.Info("administrator was added", slog.String("admin", c.dir.file(adminFile)))
	return nil
}

// nextCredentials is until when newly minted TURN credentials last: so long that a node that meets no controller can
// live through its certificate's life and the grace, and that they are replaced before that is no longer so.
func nextCredentials(s *model.Settings, now time.Time) time.Time {
	return now.Add(2 * credentialLife(s)).Truncate(time.Second)
}

// credentialLife is how much time a TURN credential has left at the very least.
func credentialLife(s *model.Settings) time.Duration {
	return time.Duration(s.CertificateLifetime) + time.Duration(s.Grace) + 24*time.Hour
}

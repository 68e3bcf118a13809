// Package server is the controller: it enrols machines, signs their certificates, tells each node what concerns it,
// passes signals between nodes that share a grant, and lets administrators rule. No frame ever comes its way.
//
//	           HTTPS, TLS 1.3                            in the process
//	machine ──────────────┐
//	node ─────────────────┼─► listener ─► gate ─► enrolment          ─┐
//	administrator ────────┘   (limits)    (who?)  nodeService, sync   ├─► store.Update ─► etcd
//	                                              adminService       ─┘        │
//	                                                  ▲                        ▼
//	                    stream of each node ◄─ compile ◄──────────────────── Model
//	                                                  ▲                        │
//	                                         hub: signals between streams    steward: what time makes true
//	                                         dossiers: reports of nodes ───► judge: who meets a grant's condition
//
// The gate decides who calls before a byte of a body is read, and from nothing but the one leaf that the caller proved
// to hold the key of. A leaf is worth only what the Model says of its identity now: a node must not be locked or
// removed, an administrator not revoked, and the keys must be those that are registered. Every method of a service
// has the same demand, lists included.
//
// Of each node's stream one goroutine writes and one reads. The writer wakes when there is a new Model, compiles what
// its node is told, and sends the difference, signed. The steward acts by the clock: grants that have expired are deleted, a
// policy that nobody confirmed is taken back, certificates that cannot be valid any more are forgotten, TURN credentials are
// replaced in time; each is a change like any other, with an entry in the audit log. The judge makes facts of what nodes report
// of themselves: who meets the conditions of grants (ruling.go has the rules among several controllers). So what a node is told
// depends on the store
// alone, and all controllers say the same.
//
// The data directory holds what must not be in the store: the key that wraps the CA's (ca.wrap), the controller's own
// key (controller.key), and on the first run the administrator's credential (admin.json). One process at a time holds
// its lock.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// Controller is a running controller.
type Controller struct {
	opts Options
	log  *slog.Logger
	now  func() time.Time

	dir      *dataDir
	store    *store.Store
	wrap     identity.WrapKey
	ca       *identity.CA
	verifier *identity.Verifier
	self     atomic.Pointer[ownLeaf]

	listener   *listener
	challenger *identity.Challenger
	compiler   *compile.Compiler
	hub        *hub
	dossiers   *dossiers
	judge      *judge
	gate       *gate
	changes    *buckets[identity.ID]
	stats      counters
}

// Open takes the data directory, opens the store, makes the network if there is none, and binds the port. It serves
// nobody before Run. The context bounds only Open.
func Open(ctx context.Context, opts Options) (*Controller, error) {
	opts, err := opts.complete()
	if err != nil {
		return nil, err
	}
	c := &Controller{opts: opts, log: opts.Log, now: opts.Now, challenger: identity.NewChallenger()}
	if err := c.open(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Controller) open(ctx context.Context) (err error) {
	if c.dir, err = openDataDir(c.opts.DataDir); err != nil {
		return err
	}
	// The port comes first: it is the commonest thing to be wrong, and tells which address to advertise.
	if c.listener, err = listen(c.opts.Listen, c.opts.Limits, &c.stats); err != nil {
		return err
	}
	if len(c.opts.Advertise) == 0 {
		guess, err := guessURL(c.listener.Addr())
		if err != nil {
			return err
		}
		c.opts.Advertise = []string{guess}
	}
	c.store, err = store.Open(ctx, store.Config{
		Network: c.opts.Network, Dir: filepath.Join(c.opts.DataDir, "etcd"), Endpoints: c.opts.EtcdEndpoints,
		CAFile: c.opts.EtcdCA, CertFile: c.opts.EtcdCertificate, KeyFile: c.opts.EtcdKey,
		Quota: c.opts.StoreQuota, Confirm: c.opts.Confirm, Log: c.log, Now: c.opts.Now,
	})
	if err != nil {
		return err
	}
	if err := c.openNetwork(ctx); err != nil {
		return err
	}
	if c.verifier, err = identity.NewVerifier(c.ca.Certificate()); err != nil {
		return err
	}
	if err := c.register(ctx); err != nil {
		return err
	}
	c.compiler, c.hub, c.dossiers = compile.New(c.wrap, c.log), newHub(), newDossiers()
	if c.judge, err = newJudge(c); err != nil {
		return err
	}
	c.changes = newChanges(c.opts.Limits, c.store.Model().Settings)
	c.gate = newGate(c)
	return nil
}

// Close releases what Open took. Run does it too.
func (c *Controller) Close() {
	if c.listener != nil {
		_ = c.listener.Close() // closing it twice is an error that means nothing
	}
	if c.store != nil {
		c.store.Close()
	}
	if c.dir != nil {
		c.dir.close()
	}
}

// Addr is the address that the controller listens on.
func (c *Controller) Addr() net.Addr { return c.listener.Addr() }

// URLs are what this controller is advertised as.
func (c *Controller) URLs() []string { return c.opts.Advertise }

// CA returns the network's CA certificate, DER.
func (c *Controller) CA() []byte { return c.ca.Certificate() }

// Run serves until the context ends or the store dies, and closes the controller.
func (c *Controller) Run(ctx context.Context) error {
	defer c.Close()
	c.warnOfTests()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.store.Run(ctx) })
	g.Go(func() error { return c.serve(ctx) })
	g.Go(func() error { return c.tend(ctx) })
	g.Go(func() error { return c.judge.run(ctx) })
	g.Go(func() error { return c.renewSelf(ctx) })
	c.log.Info("controller is ready", slog.String("addr", c.Addr().String()), slog.Any("urls", c.opts.Advertise),
		slog.String("network", c.ca.Network.String()))
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	return nil
}

// actor is the controller itself, as the audit log names it.
func (c *Controller) actor() store.Actor {
	if leaf := c.self.Load(); leaf != nil {
		return store.Actor{Name: leaf.cert.Name.String()}
	}
	return store.Actor{Name: "controller"}
}

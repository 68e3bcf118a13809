// Package store keeps the facts of one network in etcd, and a Model of them in memory.
//
// etcd runs inside the controller by default; with endpoints, several controllers share a cluster. Either way the same
// client code talks to it. The keys of a network lie under a prefix that names the version of this layout:
//
//	/etherloom/v1/NETWORK/fact/KEY            a fact of package model, JSON
//	/etherloom/v1/NETWORK/fact/head           head of the audit log; changes with every other fact
//	/etherloom/v1/NETWORK/audit/SEQUENCE      an entry of the audit log, protobuf; SEQUENCE has 20 digits
//
// All change goes through Update, which runs a function on the newest Model and then writes, in one etcd transaction,
// what the function put and deleted, one audit entry for each of these, and the new head. The transaction holds only
// if the head is still the one of that Model. Since no fact changes without the head, that one comparison makes
// Updates of all controllers strictly serial, keeps the log's chain whole, and lets every rule (a name is unique, a
// key was never registered, an address is free) be checked on the Model instead of by a key of its own. If another
// controller was faster, the function runs again on the Model as it is then; so it must not do anything but look and
// decide. The first Update of all makes the network: it holds only if there is no head, so two first runs make one.
//
// The Model's version is the revision at which the head changed last. It is the same for all controllers, and nodes
// use it to tell new from old.
//
// Reading needs no etcd: Current returns the newest Model and a channel that is closed when there is a newer one. Run
// keeps it up to date by a watch. Because a controller that has lost its etcd would not notice, Run also asks for the
// head every so often; Confirmed is when the answer was last that the Model is current. States are signed to expire
// counting from then, so a controller that was cut off cannot prolong a policy that has been withdrawn elsewhere.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/control/model"
)

// Config says where the facts are. Zero durations and sizes mean the defaults.
type Config struct {
	Network string // name of the network; part of every key
	Dir     string // for the embedded etcd, made if absent

	Endpoints []string // of an external cluster instead: https://HOST:PORT, or unix:///PATH on the same host
	CAFile    string   // of the cluster's CA, PEM
	CertFile  string   // of this controller's client certificate, PEM
	KeyFile   string

	Quota   int64         // bytes that the embedded etcd may use on disk; default 2 GiB
	Confirm time.Duration // between two confirmations; default 500 ms
	Log     *slog.Logger
	Now     func() time.Time
}

const (
	defaultQuota   = 2 << 30
	defaultConfirm = 500 * time.Millisecond
	// answerWait is how long one question to etcd may take.
	answerWait = 5 * time.Second
	// maxUpdateTries is how often an Update may lose against other controllers before it gives up.
	maxUpdateTries = 100
)

// Store keeps the facts of one network.
type Store struct {
	cfg    Config
	engine *engine
	prefix string

	current   atomic.Pointer[snapshot]
	mu        sync.Mutex    // held to replace current
	turn      chan struct{} // holds one token: one Update of this process at a time
	confirmed atomic.Pointer[time.Time]
}

// snapshot is a Model, the etcd revision up to which it is complete, and the signal that there is a newer one.
type snapshot struct {
	model    *model.Model
	revision int64
	stale    chan struct{}
}

// Open starts or dials etcd and reads all facts. The context bounds only that.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Quota == 0 {
		cfg.Quota = defaultQuota
	}
	if cfg.Confirm == 0 {
		cfg.Confirm = defaultConfirm
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, engine: e, prefix: "/etherloom/v1/" + cfg.Network + "/", turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	s.current.Store(&snapshot{model: model.Derive(model.Facts{}, 0, nil), stale: make(chan struct{})})
	if err := s.load(ctx); err != nil {
		e.close()
		return nil, err
	}
	return s, nil
}

// Close ends the connection to etcd, and the embedded one.
func (s *Store) Close() { s.engine.close() }

// Current returns the newest Model, and a channel that is closed once there is a newer one.
func (s *Store) Current() (*model.Model, <-chan struct{}) {
	now := s.current.Load()
	return now.model, now.stale
}

// Model returns the newest Model.
func (s *Store) Model() *model.Model { return s.current.Load().model }

// Confirmed returns when etcd last said that the Model is the newest.
func (s *Store) Confirmed() time.Time { return *s.confirmed.Load() }

// Run keeps the Model up to date until the context ends, or until etcd is beyond repair.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.watch(ctx) })
	g.Go(func() error { return s.confirm(ctx) })
	g.Go(func() error { return s.engine.wait(ctx) })
	return g.Wait()
}

func (s *Store) factKey(key string) string { return s.prefix + "fact/" + key }

func (s *Store) entryKey(sequence uint64) string {
	return fmt.Sprintf("%saudit/%020d", s.prefix, sequence)
}

// load reads all facts anew.
func (s *Store) load(ctx context.Context) error {
	at := s.cfg.Now()
	resp, err := s.engine.get(ctx, s.factKey(""), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read the network's facts: %w", err)
	}
	facts, version := model.Facts{}, int64(0)
	for _, kv := range resp.Kvs {
		key := strings.TrimPrefix(string(kv.Key), s.factKey(""))
		if key == "head" {
			version = kv.ModRevision
		}
		if err := set(facts, key, kv.Value); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publishLocked(facts, version, resp.Header.GetRevision())
	s.confirmed.Store(&at)
	return nil
}

// set adds a stored fact. One of an unknown kind was written by a newer controller; it is not this one's business.
func set(facts model.Facts, key string, value []byte) error {
	f, err := model.Decode(key, value)
	if errors.Is(err, model.ErrUnknownFact) {
		return nil
	}
	if err != nil {
		return err
	}
	facts[key] = f
	return nil
}

// publishLocked makes facts the current Model, unless a newer one is there.
func (s *Store) publishLocked(facts model.Facts, version, revision int64) {
	old := s.current.Load()
	if revision < old.revision {
		return
	}
	m := model.Derive(facts, uint64(version), old.model)
	s.current.Store(&snapshot{model: m, revision: revision, stale: make(chan struct{})})
	close(old.stale)
}

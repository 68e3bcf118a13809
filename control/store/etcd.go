package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// engine is etcd, embedded or far, behind one client.
type engine struct {
	client *clientv3.Client
	quota  int64
	maxOps int // in one transaction

	etcd    *embed.Etcd // nil if external
	died    atomic.Bool
	closing atomic.Bool
	fatal   chan error // what the embedded etcd died of
	once    sync.Once
}

func open(ctx context.Context, cfg Config) (*engine, error) {
	if len(cfg.Endpoints) > 0 {
		return dial(cfg)
	}
	return embedded(ctx, cfg)
}

// maxSocketPath is what a Unix socket's address can hold (unix(7): sun_path is 108 bytes, one of them 0).
const maxSocketPath = 107

// embedded starts etcd in this process. It listens on one Unix socket in its own directory, which only its owner can
// enter, and on nothing else.
func embedded(ctx context.Context, cfg Config) (*engine, error) {
	socket := filepath.Join(cfg.Dir, "client.sock")
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("the path of the store's socket, %s, has %d bytes and a socket's may have %d: "+
			"choose a data directory with a shorter path", socket, len(socket), maxSocketPath)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's directory: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("close the store's directory to others: %w", err)
	}
	e := &engine{quota: cfg.Quota, maxOps: ownOps, fatal: make(chan error, 1)}
	if err := e.start(ctx, e.config(cfg, socket)); err != nil {
		return nil, fmt.Errorf("start the store in %s: %w", cfg.Dir, err)
	}
	return e, nil
}

// What the embedded etcd takes at once: a policy document of 10 000 grants that replaces another one. etcd recommends to keep
// below 10 MiB.
const (
	ownOps     = 1 << 15
	ownRequest = 10 << 20
)

func (e *engine) config(cfg Config, socket string) *embed.Config {
	c := embed.NewConfig()
	c.Name = "controller"
	c.Dir = cfg.Dir
	client := url.URL{Scheme: "unix", Path: socket}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	// A cluster of one has no peers, so nobody listens for them. (For a peer URL with the scheme unix, etcd would open
	// an abstract socket, which every local user can connect to.) The member still needs some peer URL for a name.
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Path: "/none"}}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	// There is nobody else to elect, so a short election does no harm and makes the start short.
	c.TickMs, c.ElectionMs = 50, 250
	c.QuotaBackendBytes = cfg.Quota
	c.MaxTxnOps, c.MaxRequestBytes = ownOps, ownRequest
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(cfg.Log, e))
	return c
}

// start runs etcd until it is ready. It does so in a goroutine of its own: etcd means to end the process when it meets
// what it cannot repair, and the end of that goroutine (or of one of etcd's) is what is made of that here; see dying.
func (e *engine) start(ctx context.Context, c *embed.Config) error {
	var g errgroup.Group
	started := make(chan error, 1)
	g.Go(func() error {
		etcd, err := embed.StartEtcd(c)
		e.etcd = etcd
		started <- err
		return nil
	})
	var err error
	select {
	case err = <-started:
	case err = <-e.fatal:
		return err
	case <-ctx.Done():
		return fmt.Errorf("etcd took too long: is another process using it? %w", ctx.Err())
	}
	if err != nil {
		return err
	}
	select {
	case <-e.etcd.Server.ReadyNotify():
		e.client = v3client.New(e.etcd.Server)
		// Once full, etcd takes nothing until this is said, also after its quota was raised. If it is still full, it will
		// find that out again.
		if _, err = e.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err == nil {
			return nil
		}
	case err = <-e.etcd.Err():
	case err = <-e.fatal:
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.close()
	return err
}

// wait returns when etcd has died, or nil when the context ends.
func (e *engine) wait(ctx context.Context) error {
	var failed <-chan error
	if e.etcd != nil {
		failed = e.etcd.Err()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.fatal:
		return fmt.Errorf("the store died: %w", err)
	case err := <-failed:
		return fmt.Errorf("the store died: %w", err)
	}
}

// close ends etcd. One that has died cannot be ended; its process is about to.
func (e *engine) close() {
	e.once.Do(func() {
		e.closing.Store(true)
		if e.client != nil {
			_ = e.client.Close() // reports only the end of its own context
		}
		if e.etcd != nil && !e.died.Load() {
			e.etcd.Close()
		}
	})
}

// dial connects to an external cluster.
func dial(cfg Config) (*engine, error) {
	secure := false
	for _, ep := range cfg.Endpoints {
		switch {
		case strings.HasPrefix(ep, "https://"):
			secure = true
		case !strings.HasPrefix(ep, "unix:///"):
			return nil, fmt.Errorf("etcd endpoint %q: expected https://HOST:PORT, or unix:///PATH on this host", ep)
		}
	}
	var config *tls.Config
	if secure {
		var err error
		if config, err = clusterTLS(cfg); err != nil {
			return nil, err
		}
	}
	e := &engine{maxOps: defaultOps, fatal: make(chan error, 1)}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: config, DialTimeout: answerWait,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		Logger: zapLogger(cfg.Log, e),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	e.client = client
	return e, nil
}

// clusterTLS demands a certificate of both sides: whoever can write to the cluster rules the network.
func clusterTLS(cfg Config) (*tls.Config, error) {
	if cfg.CAFile == "" || cfg.CertFile == "" || cfg.KeyFile == "" {
		return nil, errors.New("an etcd cluster at https:// needs the files of its CA, and of this controller's client " +
			"certificate and key (--etcd-ca, --etcd-cert, --etcd-key)")
	}
	pem, err := os.ReadFile(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the etcd cluster's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the etcd cluster's CA: %s holds no certificate in PEM", cfg.CAFile)
	}
	pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the client certificate for etcd: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// errNoAnswer means that etcd did not answer this time.
var errNoAnswer = errors.New("the store does not answer")

// get reads from the majority of the cluster.
func (e *engine) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	resp, err := e.client.Get(ctx, key, opts...)
	return resp, e.explain(err)
}

// explain says what an error of etcd's means for who runs the controller.
func (e *engine) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("the store is full: raise its quota (%d bytes), or defragment the etcd cluster: %w", e.quota, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}

// zapLogger is what etcd writes its log to.
func zapLogger(log *slog.Logger, e *engine) *zap.Logger {
	return zap.New(&zapCore{log: log, engine: e}, zap.WithFatalHook(dying{e}), zap.WithPanicHook(dying{e}))
}

// Unavailable reports whether an error means that etcd did not answer this time.
func Unavailable(err error) bool { return errors.Is(err, errNoAnswer) }

// Package node is the daemon: it builds the parts, applies what the controllers say, and runs them. It is the one place
// where the two worlds meet: frames on one side, datagrams on the other, and link.go the door between.
//
//	                 control/client ── signed state ──► apply.go
//	                                                      │ policy, peers, relays, names
//	      frame world                                     ▼                       datagram world
//	TAP ─► bridge ─► vswitch.Segment ─► link.go ─► transport.Sender ─► ... ─► peer
//	TAP ◄─ bridge ◄─ vswitch.Segment ◄─ ingress.go ◄─ transport.Receiver ◄─ ... ◄─ peer
//
// State flows one way: a delta is verified, written to disk, and applied as a whole by one writer (apply.go). What it
// makes is immutable and hangs behind atomic pointers, so the frame path never waits for it. Everything long-lived is a
// Run(ctx) in one errgroup; docs and tests keep the table of goroutines in ARCHITECTURE.md.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/dnsd"
	"github.com/etherloom/etherloom/dnsd/hostdns"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/statedir"
	"github.com/etherloom/etherloom/policy"
	"github.com/etherloom/etherloom/posture"
	"github.com/etherloom/etherloom/transport"
)

// Version is the program's version, set when it is built.
var Version = "devel" //nolint:gochecknoglobals // set by the linker

// Daemon is one node.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	dir    *statedir.Dir
	member statedir.Membership
	keys   identity.NodeKeys
	began  time.Time

	cert       atomic.Pointer[identity.Certificate]
	verifier   atomic.Pointer[identity.Verifier]
	endpoint   *transport.Endpoint
	client     *client.Client
	dns        *dnsd.Server
	resolver   *hostdns.Resolver
	group      *errgroup.Group
	ctx        context.Context //nolint:containedctx // that of Run, for goroutines that begin later
	lanes      lanes
	resync     limiter
	senderless limiter      // of what is said when a herald cannot send
	settle     atomic.Int64 // nanoseconds; see client.LastHeard

	held  atomic.Pointer[state.Held]              // what the controllers say; stored under mu
	byVNI atomic.Pointer[map[policy.VNI]*segment] // for the receiving goroutines

	watcher  *posture.Watcher
	underlay atomic.Pointer[[]netip.Addr] // for the watcher; stored under mu

	saver    *saver
	recorder *recorder
	targets  chan hostdns.Target // the newest, for the resolver's goroutine

	raiseNonce bool // belongs to renew

	undeclared chan struct{} // for the goroutine that declares attachments: something has changed
	declaring  sync.Mutex    // held while the controllers are told what is declared

	malformed atomic.Uint64 // frames whose offload says what cannot be

	mu         sync.Mutex // guards everything below; held while state is applied
	reader     *state.Reader
	contents   *state.Contents
	applied    uint64 // generation of policy
	segments   map[policy.VNI]*segment
	trunks     map[device]*trunk
	declared   []Declaration        // attachments that were added by command: attachments.json
	refused    map[string]string    // why declared ones are not as they are declared, by port
	waiting    map[string]bool      // ports of which there is a problem about their declaration
	moves      map[string]*hostMove // by NIC: moves.json
	takeBack   *time.Timer
	sentinel   *sentinel
	lessor     *lessor
	portValues map[string]map[string]string // attributes that were set on ports: ports.json
	mirrors    []*mirror                    // mirrors.json
	sinks      map[string]*sink             // by device
	uses       map[policy.VNI]*policy.Uses  // of the grants that the state names
	expiry     *time.Timer
	soon       *time.Timer         // applies what is held and not applied yet; nil: all is
	rested     time.Time           // until when a large state rests
	problems   map[string]string   // by what they are about
	attempts   map[string]*attempt // that have failed, the same
	again      *time.Timer
}

// New reads the state directory and builds the daemon. It starts nothing.
func New(cfg Config, dir *statedir.Dir, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{
		cfg: cfg, log: log, dir: dir, began: time.Now(), segments: make(map[policy.VNI]*segment), trunks: make(map[device]*trunk),
		uses:     make(map[policy.VNI]*policy.Uses),
		problems: make(map[string]string), attempts: make(map[string]*attempt), saver: newSaver(), targets: make(chan hostdns.Target, 1),
		undeclared: make(chan struct{}, 1),
	}
	d.byVNI.Store(&map[policy.VNI]*segment{})
	if err := errors.Join(d.loadPorts(), d.loadMirrors(), d.loadDeclared(), d.loadMoves()); err != nil {
		return nil, err
	}
	if err := d.buildRecorder(); err != nil {
		return nil, fmt.Errorf("records.ipfix: %w", err)
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	if err := d.buildTransport(); err != nil {
		return nil, err
	}
	d.buildClient()
	var err error
	if d.sentinel, err = newSentinel(d); err != nil {
		return nil, err
	}
	d.lessor = newLessor(d)
	d.watcher = posture.New(cfg.Posture, Version, d.underlayAddresses, d.client.Report)
	d.resolver = hostdns.New(hostdns.Config{StateDir: dir.Path(""), Log: log})
	upstreams := d.resolver.Upstreams
	if !cfg.DNS.Forward {
		upstreams = nil
	}
	d.dns = dnsd.New(dnsd.Config{Upstreams: upstreams, Log: log})
	return d, nil
}

// load reads who this machine is, and the last good state.
func (d *Daemon) load() error {
	var err error
	if d.member, err = d.dir.Membership(); err != nil {
		return err
	}
	if d.keys, err = d.dir.Keys(); err != nil {
		return err
	}
	ca, err := d.dir.CA()
	if err != nil {
		return err
	}
	verifier, err := identity.NewVerifier(ca)
	if err != nil {
		return fmt.Errorf("%s: %w", d.dir.Path("ca.crt"), err)
	}
	d.verifier.Store(verifier)
	leaf, err := d.dir.Certificate()
	if err != nil {
		return err
	}
	cert, err := verifier.Inspect(leaf)
	if err == nil && (cert.Name.ID != d.member.ID || cert.Static != d.keys.StaticPublic()) {
		err = errors.New("it belongs to another machine or key")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.dir.Path("node.crt"), err)
	}
	d.cert.Store(cert)
	return d.loadState(verifier)
}

func (d *Daemon) loadState(verifier *identity.Verifier) error {
	d.reader = &state.Reader{Verifier: verifier, Node: d.member.ID}
	data, err := d.dir.State()
	if err != nil || data == nil {
		return err
	}
	held, err := d.reader.Load(data)
	if err != nil {
		return d.dir.DamagedState(err)
	}
	contents, err := held.State.Contents()
	if err != nil {
		return d.dir.DamagedState(err)
	}
	d.held.Store(held)
	d.contents = contents
	return nil
}

// Run is the daemon's life: until ctx ends, or something fails that it cannot live without. When it returns, the TAPs, the
// addresses and the resolver's settings are gone.
func (d *Daemon) Run(ctx context.Context) error {
	if _, err := hostdns.Recover(d.dir.Path("")); err != nil {
		return fmt.Errorf("restore the resolver's settings that a daemon before left: %w", err)
	}
	d.restoreNICs()
	asked := ctx
	ctx, end := context.WithCancel(context.WithoutCancel(asked)) // others take over what this gateway carries before it stops
	defer end()
	group, ctx := errgroup.WithContext(ctx)
	d.group, d.ctx = group, ctx
	group.Go(func() error { return d.endpoint.Run(ctx) })
	group.Go(func() error { return d.dns.Run(ctx) })
	group.Go(func() error { return d.resolver.Run(ctx) })
	group.Go(func() error { return d.serveLocal(ctx) })
	group.Go(func() error { return d.keepSaved(ctx) })
	group.Go(func() error { return d.keepResolver(ctx) })
	group.Go(func() error { return d.record(ctx) })
	group.Go(func() error { return d.sentinel.run(ctx) })
	group.Go(func() error { return d.sentinel.follow(ctx) })
	group.Go(func() error { return d.lessor.run(ctx) })
	group.Go(func() error { return d.lessor.report(ctx) })
	if d.recorder.ipfix != nil {
		group.Go(func() error { return d.recorder.ipfix.Run(ctx) })
	}

	d.openMirrors()
	d.underlayChanged()
	d.mu.Lock()
	d.applyLocked(time.Now())
	d.mu.Unlock()

	group.Go(func() error { return bridge.Monitor(ctx, d.hostChanged) })
	group.Go(func() error { return d.client.Run(ctx) })
	group.Go(func() error { return d.renew(ctx) })
	group.Go(func() error { return d.declare(ctx) })
	group.Go(func() error { return d.watcher.Run(ctx) })
	d.log.Info("daemon is running", "peer", d.member.Name, "network", d.member.Network)
	select {
	case <-ctx.Done():
	case <-asked.Done():
		d.sentinel.drain()
	}
	end()
	d.stop()
	err := group.Wait()
	d.collect(time.Now())
	return errors.Join(err, d.saver.write(d.dir))
}

// stop takes everything of this daemon out of the host.
func (d *Daemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.expiry != nil {
		d.expiry.Stop()
	}
	if d.takeBack != nil {
		d.takeBack.Stop()
	}
	if d.again != nil {
		d.again.Stop()
	}
	if d.soon != nil {
		d.soon.Stop()
	}
	d.closeTrunksLocked()
	d.sentinel.close()
	for vni, s := range d.segments {
		s.close()
		delete(d.segments, vni)
	}
	for _, s := range d.sinks {
		s.close()
	}
	d.publishLocked()
}

// limiter lets something happen at most once in a while.
type limiter struct{ last atomic.Int64 }

func (l *limiter) allow(now time.Time, every time.Duration) bool {
	last := l.last.Load()
	return now.UnixNano()-last >= int64(every) && l.last.CompareAndSwap(last, now.UnixNano())
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/memnet"
	"github.com/etherloom/etherloom/transport/relay"
)

// world is an internet in memory with a certificate authority, a controller that passes signals, and nodes. It lives in
// a synctest bubble: minutes pass at once.
type world struct {
	t          *testing.T
	net        *memnet.Internet
	ca         *identity.CA
	verifier   *identity.Verifier
	lifetime   time.Duration // of certificates
	controller atomic.Bool   // can be reached
	wg         sync.WaitGroup
	ctx        context.Context
	cancel     context.CancelFunc
	relays     []RelayConfig
	stopRelay  context.CancelFunc

	mu    sync.Mutex
	nodes map[identity.ID]*testNode
}

// inWorld runs a test in a world of its own.
func inWorld(t *testing.T, f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca, err := identity.NewCA(identity.NewNetworkID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, net: memnet.New(), ca: ca, nodes: map[identity.ID]*testNode{}, lifetime: 24 * time.Hour}
		w.verifier, err = identity.NewVerifier(ca.Certificate())
		if err != nil {
			t.Fatal(err)
		}
		w.controller.Store(true)
		w.ctx, w.cancel = context.WithCancel(context.Background())
		defer func() {
			w.cancel()
			w.wg.Wait()
			time.Sleep(time.Minute) // what libraries have left running ends by then
		}()
		f(w)
	})
}

// relay adds a relay with a public address.
func (w *world) relay(addr string) {
	host := w.net.Host(addr)
	main, err1 := host.Listen(netip.AddrPortFrom(host.Addr(), 3478))
	probe, err2 := host.Listen(netip.AddrPortFrom(host.Addr(), 3479))
	if err := errors.Join(err1, err2); err != nil {
		w.t.Fatal(err)
	}
	server := relay.New(relay.Config{
		Authenticate: func(user string, _ time.Time) (uint16, string, error) {
			slot, err := strconv.ParseUint(user, 10, 16)
			return uint16(slot), "secret " + user, err
		},
	}, memnet.PacketConn{Socket: main}, memnet.PacketConn{Socket: probe})
	ctx, cancel := context.WithCancel(w.ctx)
	w.stopRelay = cancel
	w.wg.Go(func() {
		if err := server.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
	w.relays = append(w.relays, RelayConfig{Name: "r-" + addr, Hosts: []string{addr}, Port: 3478, ProbePort: 3479})
}

// testNode is a node of a world.
type testNode struct {
	w    *world
	e    *Endpoint
	id   identity.ID
	host *memnet.Host
	keys identity.NodeKeys
	aes  bool

	cancel context.CancelFunc
	done   chan struct{}
	sender *Sender

	mu     sync.Mutex
	cert   *identity.Certificate
	memory Remembered
	got    []string
	from   []identity.ID
}

func (w *world) node(id identity.ID, host *memnet.Host) *testNode {
	keys, err := identity.NewNodeKeys()
	if err != nil {
		w.t.Fatal(err)
	}
	n := &testNode{w: w, id: id, host: host, keys: keys, aes: true}
	n.renew()
	n.start()
	return n
}

// renew gives the node a fresh certificate.
func (n *testNode) renew() {
	cert, err := n.w.ca.Issue(identity.Certificate{
		Name: identity.Name{Kind: identity.KindNode, ID: n.id}, Sign: n.keys.SignPublic(), Static: n.keys.StaticPublic(),
		Roles: []identity.Role{identity.RoleMember},
	}, n.w.lifetime, time.Now())
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.mu.Lock()
	n.cert = cert
	n.mu.Unlock()
}

func (n *testNode) start() {
	w := n.w
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("TRANSPORT_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", n.id)
	}
	n.e = New(Config{
		Network: w.ca.Network, Self: n.id, Keys: n.keys, AES: n.aes, Port: 5000, Log: log,
		Certificate: func() *identity.Certificate {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.cert
		},
		Verifier:    func() *identity.Verifier { return w.verifier },
		Signal:      func(to identity.ID, sealed []byte) { w.signal(n.id, to, sealed) },
		Controlled:  w.controller.Load,
		NewReceiver: func(int) Receiver { return n },
		Listen:      func(a netip.AddrPort) (Socket, error) { return n.host.Listen(a) },
		Remembered:  n.memory,
		Remember:    func(r Remembered) { n.memory = r },
	})
	w.mu.Lock()
	w.nodes[n.id] = n
	w.mu.Unlock()
	n.e.SetAddresses([]netip.Addr{n.host.Addr()})
	ctx, cancel := context.WithCancel(w.ctx)
	n.cancel, n.done = cancel, make(chan struct{})
	w.wg.Go(func() {
		defer close(n.done)
		if err := n.e.Run(ctx); err != nil {
			w.t.Errorf("node %d: Run: %v", n.id, err)
		}
	})
	n.sender = nil
	time.Sleep(10 * time.Millisecond)
}

func (n *testNode) stop() {
	n.cancel()
	<-n.done
}

func (w *world) signal(from, to identity.ID, sealed []byte) {
	if !w.controller.Load() {
		return
	}
	time.AfterFunc(5*time.Millisecond, func() {
		w.mu.Lock()
		n := w.nodes[to]
		w.mu.Unlock()
		if n != nil {
			n.e.HandleSignal(from, sealed)
		}
	})
}

// acquaint makes every node know every other, and the relays.
func (w *world) acquaint(nodes ...*testNode) {
	for _, n := range nodes {
		var peers []PeerConfig
		for _, p := range nodes {
			if p != n {
				peers = append(peers, p.record())
			}
		}
		if err := n.e.SetPeers(peers); err != nil {
			w.t.Fatal(err)
		}
		n.useRelays()
	}
	time.Sleep(time.Second)
}

func (n *testNode) useRelays() {
	var mine []RelayConfig
	for _, r := range n.w.relays {
		r.Slot, r.Username = uint16(n.id), strconv.Itoa(int(n.id))
		r.Password = "secret " + r.Username
		mine = append(mine, r)
	}
	n.e.SetRelays(mine)
}

func (n *testNode) record() PeerConfig {
	return PeerConfig{
		ID: n.id, Name: fmt.Sprintf("n%d", n.id), Static: n.keys.StaticPublic(), AES: n.aes, RelaySlot: uint16(n.id),
	}
}

// Receive remembers a message.
func (n *testNode) Flush(time.Time) {}

func (n *testNode) Receive(from identity.ID, message []byte, _ time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, string(message))
	n.from = append(n.from, from)
}

// Close does nothing.
func (n *testNode) Close() {}

func (n *testNode) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.got
	n.got, n.from = nil, nil
	return got
}

// send sends one message from the test's goroutine.
func (n *testNode) send(to *testNode, message string) {
	n.w.t.Helper()
	if n.sender == nil {
		s, err := n.e.NewSender(0)
		if err != nil {
			n.w.t.Fatal(err)
		}
		n.sender = s
	}
	p := n.e.Peer(to.id)
	if p == nil {
		n.w.t.Fatalf("node %d does not know node %d", n.id, to.id)
	}
	n.sender.Send(p, []byte(message[:len(message)/2]), []byte(message[len(message)/2:]))
	n.sender.Flush()
}

// exchange sends a message each way and checks that both arrive within the time.
func (n *testNode) exchange(to *testNode, within time.Duration) {
	n.w.t.Helper()
	n.deliver(to, within)
	to.deliver(n, within)
}

func (n *testNode) deliver(to *testNode, within time.Duration) {
	n.w.t.Helper()
	to.take()
	message := fmt.Sprintf("from %d at %v", n.id, time.Now())
	deadline := time.Now().Add(within)
	n.send(to, message)
	for time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
		for _, m := range to.take() {
			if m == message {
				return
			}
		}
	}
	n.w.t.Fatalf("message from node %d to node %d did not arrive within %v: %+v", n.id, to.id, within, n.status(to))
}

func (n *testNode) status(of *testNode) PeerStatus {
	for _, s := range n.e.Peers() {
		if s.ID == of.id {
			return s
		}
	}
	return PeerStatus{}
}

// await waits until a condition holds.
func (w *world) await(what string, within time.Duration, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func (n *testNode) awaitPath(to *testNode, path string, within time.Duration) {
	n.w.t.Helper()
	deadline := time.Now().Add(within)
	for n.status(to).Path != path {
		if time.Now().After(deadline) {
			n.w.t.Fatalf("path from node %d to node %d is not %s within %v: %+v", n.id, to.id, path, within, n.status(to))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

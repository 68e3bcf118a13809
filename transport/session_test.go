package transport

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/memnet"
)

// twoOpen returns two nodes with an open, direct link.
func twoOpen(w *world) (a, b *testNode) {
	a, b = w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
	w.acquaint(a, b)
	a.exchange(b, 2*time.Second)
	a.awaitPath(b, "direct", 5*time.Second)
	b.awaitPath(a, "direct", 5*time.Second)
	time.Sleep(time.Second)
	return a, b
}

// X08 and the attack "key rotation under load": no message is lost or doubled over many rekeys.
func TestRekeyLosesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := twoOpen(w)
		b.take()
		a.take()
		first := a.status(b).Handshake
		indices := map[uint32]bool{}
		const rounds = 6000 // ten minutes
		for range rounds {
			a.send(b, "there")
			b.send(a, "back")
			indices[a.e.Peer(2).active.Load().epoch.local] = true
			time.Sleep(100 * time.Millisecond)
		}
		if n, m := len(b.take()), len(a.take()); n != rounds || m != rounds {
			t.Errorf("of %d messages, %d and %d arrived", rounds, n, m)
		}
		if last := a.status(b).Handshake; last.Sub(first) < 8*time.Minute {
			t.Errorf("the last handshake was %v after the first", last.Sub(first))
		}
		if len(indices) < 5 {
			t.Errorf("%d epochs in ten minutes", len(indices))
		}
		if n := len(*a.e.epochs.Load()); n > 2 {
			t.Errorf("%d epochs are kept", n)
		}
	})
}

// Nothing lives past 180 s: without an answer to handshakes the session ends.
func TestSessionEndsWithoutRekey(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := twoOpen(w)
		w.net.SetFilter(func(_, _ netip.AddrPort) bool { return false })
		w.controller.Store(false)
		time.Sleep(rejectAfter + time.Second)
		for _, n := range []*testNode{a, b} {
			n.e.mu.Lock()
			for _, p := range n.e.peers {
				if p.active.Load() != nil || p.current != nil {
					t.Errorf("node %d still has a session", n.id)
				}
			}
			n.e.mu.Unlock()
		}
	})
}

// The responder sends nothing before the initiator has shown, with the session's keys, that it is there.
func TestResponderWaitsForConfirmation(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		c := w.capture()
		// The answers are lost, so the initiator never gets the keys and nothing confirms the sessions.
		w.net.SetContentFilter(func(_, _ addrPort, data []byte) bool { return data[0]&typeMask != typeResponse || data[0] < firstOurs })
		for range 50 {
			a.send(b, "x")
			b.send(a, "y")
			time.Sleep(100 * time.Millisecond)
		}
		if len(c.packets(ofType(typeResponse))) == 0 {
			t.Fatal("the responder has not answered at all")
		}
		if n := len(c.packets(ofType(typeData))); n != 0 {
			t.Errorf("%d data datagrams in sessions that nobody has confirmed", n)
		}
		w.net.SetContentFilter(nil)
		a.exchange(b, 10*time.Second)
	})
}

// capture records what crosses the public side.
type capture struct {
	mu   sync.Mutex
	list []packet
}

type packet struct {
	from, to addrPort
	data     []byte
}

func (w *world) capture() *capture {
	c := &capture{}
	w.net.Watch(func(from, to addrPort, data []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.list = append(c.list, packet{from, to, bytes.Clone(data)})
	})
	return c
}

func (c *capture) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = nil
}

func (c *capture) packets(match func(packet) bool) []packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []packet
	for _, p := range c.list {
		if match(p) {
			out = append(out, p)
		}
	}
	return out
}

func ofType(typ byte) func(packet) bool {
	return func(p packet) bool { return p.data[0] >= firstOurs && p.data[0]&typeMask == typ }
}

// inject delivers a datagram as if it came from an address.
func (w *world) inject(n *testNode, from addrPort, data []byte) {
	n.e.mu.Lock()
	sockets := slices.Collect(maps.Values(n.e.sockets))
	n.e.mu.Unlock()
	for _, s := range sockets {
		r := n.e.newReader(s, 0)
		switch {
		case len(data) == 0:
		case data[0] >= firstOurs:
			r.datagram(bytes.Clone(data), from, time.Now())
		case data[0] <= 3:
			n.e.mux.inbound(s, data, from)
		}
	}
	time.Sleep(50 * time.Millisecond)
}

// The replay attack: every datagram of a session, sent again by whoever saw it, is delivered not once more, answered by
// nothing, and changes nothing.
func TestReplayedDatagrams(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := twoOpen(w)
		c := w.capture()
		for range 50 {
			a.send(b, "once")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		b.take()
		data := c.packets(func(p packet) bool { return ofType(typeData)(p) && p.to.Addr() == b.host.Addr() })
		if len(data) < 50 {
			t.Fatalf("only %d datagrams seen", len(data))
		}
		elsewhere := netip.MustParseAddrPort("198.51.100.66:66")
		before := b.status(a)
		c.reset()
		for _, p := range data {
			w.inject(b, p.from, p.data)
			w.inject(b, elsewhere, p.data)
			w.inject(a, p.from, p.data) // reflected to its sender
		}
		if got := b.take(); len(got) != 0 {
			t.Errorf("%d replayed messages delivered", len(got))
		}
		if n := len(c.packets(func(p packet) bool { return p.to == elsewhere })); n != 0 {
			t.Errorf("%d datagrams were sent to the attacker", n)
		}
		if after := b.status(a); after.Address != before.Address || after.Handshake != before.Handshake {
			t.Errorf("the session has changed: %+v", after)
		}
		if n := b.e.Drops()["replayed"]; n < 100 {
			t.Errorf("%d counted as replayed", n)
		}
	})
}

// Handshakes are sent again by an attacker, from the true address and from its own: no state, no answer.
func TestReplayedHandshakes(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		c := w.capture()
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		time.Sleep(time.Second)
		initiations := c.packets(ofType(typeInitiation))
		responses := c.packets(ofType(typeResponse))
		if len(initiations) == 0 || len(responses) == 0 {
			t.Fatal("no handshake seen")
		}
		before := b.status(a).Handshake
		c.reset()
		refused := b.e.Drops()["handshake-refused"]
		for _, p := range initiations {
			w.inject(b, p.from, p.data)
			w.inject(b, netip.MustParseAddrPort("198.51.100.66:66"), p.data)
		}
		for _, p := range responses {
			w.inject(a, p.from, p.data)
		}
		if n := len(c.packets(ofType(typeResponse))); n != 0 {
			t.Errorf("%d answers to replayed handshakes", n)
		}
		if b.hasPending(a) || b.status(a).Handshake != before {
			t.Error("a replayed handshake has made state")
		}
		if b.e.Drops()["handshake-refused"] == refused {
			t.Error("nothing was refused: the replay did not reach the check")
		}

		// A new process of the responder remembers, too.
		w.net.SetFilter(func(_, _ netip.AddrPort) bool { return false })
		b.stop()
		w.net.SetFilter(nil)
		b.start()
		if err := b.e.SetPeers([]PeerConfig{a.record()}); err != nil {
			t.Fatal(err)
		}
		b.e.mu.Lock()
		p := b.e.peers[1]
		b.e.beginLocked(p, time.Now())
		for _, s := range b.e.sockets {
			p.direct = b.e.newPathLocked(p, s, initiations[0].from, s.local, "")
		}
		b.e.mu.Unlock()
		w.inject(b, initiations[0].from, initiations[0].data)
		if b.hasPending(a) {
			t.Error("after a restart a replayed handshake makes state")
		}
	})
}

// X05, silence: whatever a stranger sends, there is no answer at all.
func TestSilence(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		stranger := w.net.Host("198.51.100.66")
		from, err := stranger.Listen(netip.AddrPortFrom(stranger.Addr(), 66))
		if err != nil {
			t.Fatal(err)
		}
		c := w.capture()
		own := b.keys.StaticPublic()
		for _, data := range [][]byte{
			{0x80},
			{0x84},
			{0},
			bytes.Repeat([]byte{0x84}, 32), bytes.Repeat([]byte{0x81}, 200), bytes.Repeat([]byte{0xff}, 1400),
			appendMACs(append([]byte{firstByte(typeInitiation, 0)}, make([]byte, 200)...), own, nil), // knows the public key
			stunRequest(t, "nobody:nobody"), stunRequest(t, ""), append(stunRequest(t, ""), make([]byte, 300)...),
			{0x40, 0, 0, 1, 1},
			{0x16, 3, 1, 0, 0},
			[]byte("GET / HTTP/1.1\r\n\r\n"),
		} {
			if _, err := from.WriteTo(data, netip.AddrPortFrom(b.host.Addr(), 5000)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		if got := c.packets(func(p packet) bool { return p.to.Addr() == stranger.Addr() }); len(got) != 0 {
			t.Errorf("%d answers to a stranger, the first of type %x", len(got), got[0].data[0])
		}
	})
}

// Who may not speak: every certificate but the right one is refused, and makes no state.
func TestWrongCertificates(t *testing.T) {
	inWorld(t, func(w *world) {
		otherCA, err := identity.NewCA(w.ca.Network, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		otherKeys, _ := identity.NewNodeKeys()
		issue := func(ca *identity.CA, change func(*identity.Certificate)) func(*testNode) {
			return func(n *testNode) {
				c := identity.Certificate{
					Name: identity.Name{Kind: identity.KindNode, ID: n.id}, Sign: n.keys.SignPublic(),
					Static: n.keys.StaticPublic(), Roles: []identity.Role{identity.RoleMember},
				}
				change(&c)
				var err error
				if n.cert, err = ca.Issue(c, time.Hour, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, forge := range map[string]func(*testNode){
			"another CA":     issue(otherCA, func(*identity.Certificate) {}),
			"another node":   issue(w.ca, func(c *identity.Certificate) { c.Name.ID = 77 }),
			"an admin":       issue(w.ca, func(c *identity.Certificate) { c.Name.Kind = identity.KindAdmin }),
			"a controller":   issue(w.ca, func(c *identity.Certificate) { c.Name.Kind = identity.KindController }),
			"another key":    issue(w.ca, func(c *identity.Certificate) { c.Static = otherKeys.StaticPublic() }),
			"no key":         issue(w.ca, func(c *identity.Certificate) { c.Static = identity.StaticPublicKey{} }),
			"no role":        issue(w.ca, func(c *identity.Certificate) { c.Roles = nil }),
			"no certificate": func(n *testNode) { n.cert = &identity.Certificate{} },
			"the CA's":       func(n *testNode) { n.cert = &identity.Certificate{DER: w.ca.Certificate()} },
			"two of them":    func(n *testNode) { n.cert = &identity.Certificate{DER: append(bytes.Clone(n.cert.DER), n.cert.DER...)} },
			"garbage":        func(n *testNode) { n.cert = &identity.Certificate{DER: []byte("garbage")} },
			"expired":        func(n *testNode) { issue(w.ca, func(*identity.Certificate) {})(n); time.Sleep(2 * time.Hour) },
			"not yet valid":  func(n *testNode) { n.cert = future(t, w, n) },
		} {
			for _, liar := range []identity.ID{1, 2} {
				w.nodes = map[identity.ID]*testNode{}
				w.net = memnet.New()
				a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
				bad, good := a, b
				if liar == 2 {
					bad, good = b, a
				}
				good.renew()
				bad.mu.Lock()
				forge(bad)
				bad.mu.Unlock()
				w.acquaint(a, b)
				for range 20 {
					a.send(b, "let me in")
					b.send(a, "let me in")
					time.Sleep(200 * time.Millisecond)
				}
				if got := good.take(); len(got) != 0 {
					t.Errorf("%s, presented by node %d: a message was delivered", name, liar)
				}
				if good.hasPending(bad) || good.status(bad).Handshake != (time.Time{}) {
					t.Errorf("%s, presented by node %d: there is a session", name, liar)
				}
				if s := good.status(bad); s.Why == "" {
					t.Errorf("%s, presented by node %d: the status does not say why", name, liar)
				}
				a.stop()
				b.stop()
			}
		}
	})
}

func future(t *testing.T, w *world, n *testNode) *identity.Certificate {
	t.Helper()
	c, err := w.ca.Issue(identity.Certificate{
		Name: identity.Name{Kind: identity.KindNode, ID: n.id}, Sign: n.keys.SignPublic(),
		Static: n.keys.StaticPublic(), Roles: []identity.Role{identity.RoleMember},
	}, time.Hour, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A certificate that ends cuts the link; renewed ones in time do not lose a message.
func TestCertificateEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lifetime = time.Minute
		a, b := twoOpen(w)
		b.take()
		const rounds = 3000 // five minutes
		for i := range rounds {
			if i%300 == 299 { // every 30 s, half the life
				a.renew()
				b.renew()
			}
			a.send(b, "x")
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(b.take()); n != rounds {
			t.Errorf("%d of %d messages arrived over five lives of a certificate", n, rounds)
		}
		time.Sleep(61 * time.Second)
		if s := a.status(b); s.Handshake != (time.Time{}) {
			t.Errorf("a session with an expired certificate: %+v", s)
		}
	})
}

// Without a controller an expired certificate is honoured for the grace, and no longer; with one it is not at all.
func TestCertificateGrace(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lifetime = time.Minute
		var last atomic.Pointer[time.Time]
		start := time.Now()
		last.Store(&start)
		w.verifier.Grace = 10 * time.Minute
		w.verifier.LastController = func() time.Time { return *last.Load() }
		a, b := twoOpen(w)
		w.controller.Store(false)
		w.keepBusy(a, b, 5*time.Minute)
		a.exchange(b, time.Second)
		w.keepBusy(a, b, 7*time.Minute)
		if a.status(b).Link == "open" {
			t.Error("the link is open past the grace")
		}
		a.renew()
		b.renew()
		now := time.Now()
		last.Store(&now)
		w.controller.Store(true)
		a.deliverRepeatedly(b, 10*time.Second)
		a.exchange(b, 10*time.Second)
	})
}

// X07, revocation: a revoked identity is cut within a tick although its certificate is valid.
func TestRevocation(t *testing.T) {
	inWorld(t, func(w *world) {
		var revoked atomic.Bool
		w.verifier.Revoked = func(c *identity.Certificate) bool { return revoked.Load() && c.Name.ID == 1 }
		a, b := twoOpen(w)
		revoked.Store(true)
		b.e.CloseExpired()
		b.take()
		for range 50 {
			a.send(b, "still here")
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(b.take()); n != 0 {
			t.Errorf("%d messages of a revoked identity arrived", n)
		}
	})
}

// Different suites: a node without AES talks ChaCha20-Poly1305, and the wrong suite is not even looked at.
func TestSuites(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		a.stop()
		a.aes = false
		a.start()
		w.acquaint(a, b)
		c := w.capture()
		a.exchange(b, 2*time.Second)
		if s := b.status(a).Suite; s != "ChaCha20-Poly1305" {
			t.Errorf("suite = %s", s)
		}
		for _, p := range c.packets(func(p packet) bool { return p.data[0] >= firstOurs }) {
			if p.data[0]&suiteBit == 0 {
				t.Fatalf("a datagram of type %x names AES", p.data[0])
			}
		}
	})
}

// A node whose record says otherwise is not understood: nothing is negotiated.
func TestNoNegotiation(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		wrong := a.record()
		wrong.AES = false
		if err := b.e.SetPeers([]PeerConfig{wrong}); err != nil {
			t.Fatal(err)
		}
		if err := a.e.SetPeers([]PeerConfig{b.record()}); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			a.send(b, "hello")
			time.Sleep(200 * time.Millisecond)
		}
		if a.status(b).Link == "open" || len(b.take()) != 0 {
			t.Error("nodes that disagree about the suite talk to each other")
		}
	})
}

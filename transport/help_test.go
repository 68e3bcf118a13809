package transport

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/memnet"
)

// The handshake flood from an address that a peer really has: honest work goes on, and cookies are asked for.
func TestHandshakeFlood(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := twoOpen(w)
		b.take()
		from := netip.AddrPortFrom(a.host.Addr(), 5000)
		own := b.keys.StaticPublic()
		flood := appendMACs(append([]byte{firstByte(typeInitiation, AES256GCM), 0, 0, 0}, make([]byte, 600)...), own, nil)
		c := w.capture()
		for range 50 {
			b.e.mu.Lock()
			var r *reader
			for _, s := range b.e.sockets {
				r = b.e.newReader(s, 0)
			}
			b.e.mu.Unlock()
			for range 1000 {
				r.datagram(append([]byte(nil), flood...), from, time.Now())
			}
			a.send(b, "honest")
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(b.take()); n != 50 {
			t.Errorf("%d of 50 honest messages arrived", n)
		}
		drops := b.e.Drops()
		if drops["handshake-queue"] == 0 || drops["cookie-sent"] == 0 {
			t.Errorf("drops = %v", drops)
		}
		in, out := 0, 0
		for _, p := range c.packets(ofType(typeCookie)) {
			out += len(p.data)
		}
		in = 50 * 1000 * len(flood)
		if out > in/10 {
			t.Errorf("%d bytes of cookies for %d", out, in)
		}
		if b.hasPending(a) {
			t.Error("the flood has made state")
		}
	})
}

// An initiator that is told a cookie uses it, and gets through although the responder is under load.
func TestCookieExchange(t *testing.T) {
	e, r, from, ep := target(t)
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	p := ep.peer
	other := party{network: e.cfg.Network, keys: e.cfg.Keys, remote: p.party.remote, random: p.party.random}
	_, msg, err := other.initiate(9, stamp{0, 1}, []byte("cert"))
	if err != nil {
		t.Fatal(err)
	}
	own := e.cfg.Keys.StaticPublic()
	first := appendMACs(append([]byte(nil), msg...), own, nil)
	path := e.paths[pathKey{r.in, from}]
	if err := e.initiationLocked(path, first, true, now); err != nil || e.counts.cookies.Load() != 1 {
		t.Fatalf("under load, without a cookie: %v, %d cookies", err, e.counts.cookies.Load())
	}
	cookie, err := readCookie(e.jar.reply(first, from, AES256GCM, own, now), own, first)
	if err != nil {
		t.Fatal(err)
	}
	second := appendMACs(append([]byte(nil), msg...), own, cookie)
	if err := e.initiationLocked(path, second, true, now); err == nil || e.counts.cookies.Load() != 1 {
		t.Errorf("with a cookie the message is not looked at: %v, %d cookies", err, e.counts.cookies.Load())
	}
}

// Two nodes without controller and relay are introduced by a third that both have a link to.
func TestCommonPeerPassesSignals(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2")), w.node(3, w.net.Host("192.0.2.3"))
		w.acquaint(a, b, c)
		a.exchange(c, 2*time.Second)
		b.exchange(c, 2*time.Second)
		w.controller.Store(false)
		b.deliverRepeatedly(a, 20*time.Second)
		a.awaitPath(b, "direct", 10*time.Second)
	})
}

// Who is no peer of the third gets nothing passed on.
func TestSignalsForStrangersAreNotPassed(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2")), w.node(3, w.net.Host("192.0.2.3"))
		w.acquaint(a, b, c)
		a.exchange(c, 2*time.Second)
		if err := c.e.SetPeers([]PeerConfig{a.record()}); err != nil {
			t.Fatal(err)
		}
		w.controller.Store(false)
		for range 20 {
			a.send(b, "hello")
			time.Sleep(300 * time.Millisecond)
		}
		if a.status(b).Link == "open" {
			t.Error("a stranger was introduced")
		}
		if c.e.Drops()["signal-refused"] == 0 {
			t.Error("nothing was refused")
		}
	})
}

// The relay dies: direct links notice nothing, the status of the others says why; it comes back, and so do they.
func TestRelayDiesAndComesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		c := w.node(3, w.net.NAT("203.0.113.1", memnet.Blocking).Host("10.0.0.2"))
		c.host = w.net.Host("192.0.2.3")
		c.stop()
		c.start()
		w.net.SetFilter(notBetween("192.0.2.1", "192.0.2.3"))
		w.acquaint(a, b, c)
		a.exchange(b, 2*time.Second)
		a.exchange(c, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		a.awaitPath(c, "relayed", 5*time.Second)
		b.take()

		w.stopRelay()
		for range 300 {
			a.send(b, "direct")
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(b.take()); n != 300 {
			t.Errorf("%d of 300 direct messages arrived", n)
		}
		w.await("status says why", time.Minute, func() bool {
			return strings.Contains(a.status(c).Why, "relay r-192.0.2.100 is down")
		})
		if a.e.Relays()[0].Up {
			t.Error("the relay is said to be up")
		}
		w.relays = nil
		w.relay("192.0.2.100")
		w.await("the relay is up", 2*time.Minute, func() bool { return a.e.Relays()[0].Up && c.e.Relays()[0].Up })
		a.deliverRepeatedly(c, 30*time.Second)
	})
}

// A new credential replaces the old one without losing a message.
func TestCredentialIsReplacedWithoutAGap(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a := w.node(1, w.net.NAT("198.51.100.1", memnet.Symmetric).Host("10.0.0.2"))
		b := w.node(2, w.net.NAT("203.0.113.1", memnet.Symmetric).Host("10.0.0.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		b.take()
		lost := 0
		for i := range 200 {
			if i == 50 {
				cfg := w.relays[0]
				cfg.Slot, cfg.Username, cfg.Password = 1, "01", "secret 01"
				a.e.SetRelays([]RelayConfig{cfg})
			}
			a.send(b, "x")
			time.Sleep(100 * time.Millisecond)
		}
		if lost = 200 - len(b.take()); lost > 1 {
			t.Errorf("%d messages lost", lost)
		}
		a.exchange(b, time.Second)
	})
}

func TestPing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.net.SetDelay(10 * time.Millisecond)
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		got, err := a.e.Ping(w.ctx, 2)
		if err != nil || len(got) != 2 {
			t.Fatalf("Ping = %v, %v", got, err)
		}
		for _, r := range got {
			if r.Lost || r.RTT < 20*time.Millisecond || r.RTT > 200*time.Millisecond {
				t.Errorf("%+v", r)
			}
		}
		if _, err := a.e.Ping(w.ctx, 99); err == nil {
			t.Error("a stranger was pinged")
		}
	})
}

package transport

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/memnet"
)

func TestDirectWithoutNAT(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		b.awaitPath(a, "direct", 5*time.Second)
		if s := a.status(b); s.Link != "open" || s.Why != "" || s.Address != "192.0.2.2:5000" {
			t.Errorf("status = %+v", s)
		}
	})
}

// The node with the higher identity wakes the other.
func TestHigherIdentityOpens(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		b.exchange(a, 2*time.Second)
	})
}

func TestHolePunching(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a := w.node(1, w.net.NAT("198.51.100.1", memnet.Preserving).Host("10.0.0.2"))
		b := w.node(2, w.net.NAT("203.0.113.1", memnet.Preserving).Host("10.0.0.2"))
		w.acquaint(a, b)
		w.await("mapping is known", 5*time.Second, func() bool { return a.e.Underlay()[0].NAT == "endpoint-independent" })
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		b.awaitPath(a, "direct", 5*time.Second)
	})
}

func TestSymmetricIsRelayed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a := w.node(1, w.net.NAT("198.51.100.1", memnet.Preserving).Host("10.0.0.2"))
		c := w.node(3, w.net.NAT("203.0.113.1", memnet.Symmetric).Host("10.0.0.2"))
		w.acquaint(a, c)
		w.await("mapping is known", 5*time.Second, func() bool { return c.e.Underlay()[0].NAT == "symmetric" })
		a.exchange(c, 2*time.Second)
		time.Sleep(20 * time.Second)
		a.exchange(c, time.Second)
		for _, s := range []PeerStatus{a.status(c), c.status(a)} {
			if s.Path != "relayed" || !strings.Contains(s.Why, "symmetric") {
				t.Errorf("status = %+v", s)
			}
		}
	})
}

func TestBlockedUDPBetweenSitesIsRelayed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.net.SetFilter(notBetween("192.0.2.1", "192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		time.Sleep(20 * time.Second)
		if s := a.status(b); s.Path != "relayed" || !strings.Contains(s.Why, "none of the peer's") {
			t.Errorf("status = %+v", s)
		}
		// The way is open again: the direct path is found without anybody's help.
		w.net.SetFilter(nil)
		w.keepBusy(a, b, 4*time.Minute)
		a.awaitPath(b, "direct", time.Minute)
	})
}

// The first message is not lost while the link opens, and the relay makes that quick.
func TestFirstMessageWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a := w.node(1, w.net.NAT("198.51.100.1", memnet.Symmetric).Host("10.0.0.2"))
		b := w.node(2, w.net.NAT("203.0.113.1", memnet.Symmetric).Host("10.0.0.2"))
		w.net.SetDelay(20 * time.Millisecond)
		w.acquaint(a, b)
		a.deliver(b, 500*time.Millisecond)
		time.Sleep(10 * time.Minute)
		if s := b.status(a); s.Link != "closed" {
			t.Fatalf("the idle link is %s", s.Link)
		}
		b.deliver(a, 600*time.Millisecond)
	})
}

// A path that dies is left for the relay within two seconds, and taken again when it is back.
func TestFailoverToRelayAndBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		w.net.SetFilter(notBetween("192.0.2.1", "192.0.2.2"))
		a.deliverRepeatedly(b, 3*time.Second)
		a.awaitPath(b, "relayed", time.Second)
		w.net.SetFilter(nil)
		w.keepBusy(a, b, time.Minute)
		a.awaitPath(b, "direct", time.Minute)
	})
}

// Idle links close, but none while no controller can be reached.
func TestIdle(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		w.controller.Store(false)
		time.Sleep(20 * time.Minute)
		if s := a.status(b); s.Link != "open" {
			t.Errorf("without a controller the link is %s: %s", s.Link, s.Why)
		}
		w.controller.Store(true)
		time.Sleep(time.Minute)
		for _, s := range []PeerStatus{a.status(b), b.status(a)} {
			if s.Link != "closed" {
				t.Errorf("the idle link is %s", s.Link)
			}
		}
		if n := len(*a.e.epochs.Load()) + len(*b.e.epochs.Load()); n != 0 {
			t.Errorf("%d epochs are left", n)
		}
		a.exchange(b, 2*time.Second)
	})
}

func TestRemovedPeerIsCutAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		if err := b.e.SetPeers(nil); err != nil {
			t.Fatal(err)
		}
		b.take()
		for range 100 {
			a.send(b, "late")
			time.Sleep(10 * time.Millisecond)
		}
		if got := b.take(); len(got) != 0 {
			t.Errorf("%d messages of a removed peer arrived", len(got))
		}
		if err := b.e.SetPeers([]PeerConfig{a.record()}); err != nil {
			t.Fatal(err)
		}
		a.deliverRepeatedly(b, 10*time.Second)
	})
}

// Both nodes restart while there is no controller: they find each other by what they remember.
func TestMeetAgainWithoutController(t *testing.T) {
	for _, c := range []struct {
		name  string
		relay bool
		kind  memnet.Kind
		path  string
	}{
		{"direct, without any relay", false, memnet.Preserving, "direct"},
		{"relayed", true, memnet.Symmetric, "relayed"},
		{"direct, with a relay", true, memnet.Preserving, "direct"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.relay("192.0.2.100") // to learn the first candidates
				a := w.node(1, w.net.NAT("198.51.100.1", memnet.Preserving).Host("10.0.0.2"))
				b := w.node(2, w.net.NAT("203.0.113.1", c.kind).Host("10.0.0.3"))
				w.acquaint(a, b)
				time.Sleep(5 * time.Second)
				a.exchange(b, 2*time.Second)
				a.awaitPath(b, c.path, 10*time.Second)

				w.controller.Store(false)
				a.stop()
				b.stop()
				if !c.relay {
					w.stopRelay()
				}
				time.Sleep(10 * time.Second)
				a.start()
				b.start()
				w.acquaint(a, b)
				both := func() { a.send(b, "x"); b.send(a, "y") }
				for deadline := time.Now().Add(30 * time.Second); a.status(b).Path == ""; time.Sleep(100 * time.Millisecond) {
					both()
					if time.Now().After(deadline) {
						t.Fatalf("they did not meet: %+v\n%+v", a.status(b), b.status(a))
					}
				}
				a.exchange(b, 2*time.Second)
				a.awaitPath(b, c.path, 20*time.Second)
			})
		})
	}
}

// One node restarts without controller and relay while the other goes on; only the direct path is left.
func TestOneRestartsAlone(t *testing.T) {
	for _, restarted := range []int{1, 2} {
		inWorld(t, func(w *world) {
			a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
			w.acquaint(a, b)
			a.exchange(b, 2*time.Second)
			a.awaitPath(b, "direct", 10*time.Second)
			w.controller.Store(false)
			n, other := a, b
			if restarted == 2 {
				n, other = b, a
			}
			n.crash()
			n.start()
			if err := n.e.SetPeers([]PeerConfig{other.record()}); err != nil {
				t.Fatal(err)
			}
			n.deliverRepeatedly(other, 30*time.Second)
			other.deliver(n, 2*time.Second)
		})
	}
}

// A node moves to another network: its links follow.
func TestRoaming(t *testing.T) {
	inWorld(t, func(w *world) {
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		b.host = w.net.NAT("203.0.113.1", memnet.Preserving).Host("10.0.0.9")
		b.e.SetAddresses(addrs("10.0.0.9"))
		a.deliverRepeatedly(b, 5*time.Second)
		b.deliver(a, 2*time.Second)
		a.awaitPath(b, "direct", 30*time.Second)
		if s := a.status(b); s.Address != "203.0.113.1:5000" {
			t.Errorf("status = %+v", s)
		}
	})
}

// Large messages are cut and rejoined; the order of sizes does not matter.
func TestMessageSizes(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		b.take()
		var want []string
		for _, n := range []int{0, 1, 60, 1300, 1363, 1364, 1365, 1400, 1514, 1526, 2800, 9014, 65535, 65536} {
			m := strings.Repeat("x", n)
			a.send(b, m)
			if n <= MaxMessage {
				want = append(want, m)
			}
			time.Sleep(10 * time.Millisecond)
		}
		got := b.take()
		if len(got) != len(want) {
			t.Fatalf("%d messages arrived, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("message of %d bytes arrived as %d", len(want[i]), len(got[i]))
			}
		}
	})
}

// What is written into Room arrives like what Send was given, whatever sizes share a burst.
func TestRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		p := a.e.Peer(b.id)
		if a.sender.Room(p, nil, 10) != nil {
			t.Error("there is room without a link")
		}
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		w.await("the path's MTU is known", time.Second, func() bool { return p.Largest() == MaxInOne })
		b.take()
		if a.sender.Room(p, []byte("head"), MaxInOne-3) != nil {
			t.Error("there is room for more than a datagram holds")
		}
		var want []string
		sizes := []int{1300, 1300, 1300, 7, 1300, MaxInOne - 4, MaxInOne - 4, 900, 901, 902, 0, 1, 2000, 5, MaxInOne - 4}
		for range 100 {
			sizes = append(sizes, 1284)
		}
		for i, n := range sizes {
			body := strings.Repeat(string(rune('a'+i%26)), n)
			want = append(want, "head"+body)
			if i%3 == 2 || 4+n > MaxInOne {
				a.sender.Send(p, []byte("head"), []byte(body))
			} else if room := a.sender.Room(p, []byte("head"), n); len(room) != n || copy(room, body) != n {
				t.Fatalf("room for %d bytes is %d", n, len(room))
			}
		}
		a.sender.Flush()
		time.Sleep(50 * time.Millisecond)
		got := b.take()
		if len(got) != len(want) {
			t.Fatalf("%d messages arrived, want %d", len(got), len(want))
		}
		slices.Sort(got) // this internet does not keep the order of what is sent at one moment
		slices.Sort(want)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("message %d of %d bytes arrived as %d others", i, len(want[i]), len(got[i]))
			}
		}
	})
}

// Small messages that are ready together share a datagram.
func TestMessagesShareDatagrams(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		b.take()
		seen := 0
		w.net.Watch(func(_, _ addrPort, data []byte) {
			if data[0]&typeMask == typeData && data[0] >= firstOurs && data[2] != controlShard {
				seen++
			}
		})
		p := a.e.Peer(b.id)
		for range 10 {
			a.sender.Send(p, []byte("head"), []byte("body"))
		}
		a.sender.Flush()
		time.Sleep(50 * time.Millisecond)
		if got := b.take(); len(got) != 10 || seen != 1 {
			t.Errorf("%d messages in %d datagrams", len(got), seen)
		}
	})
}

// A relay that has made an allocation and says no more keeps nobody waiting: the direct path is found and carries.
func TestSilentRelay(t *testing.T) {
	inWorld(t, func(w *world) {
		sent := map[netip.AddrPort]int{}
		w.net.SetFilter(func(from, to netip.AddrPort) bool {
			if to.Addr() != netip.MustParseAddr("192.0.2.100") {
				return true
			}
			sent[from]++
			return sent[from] <= 2 // a request without and one with a credential; the third asks for a permission
		})
		w.relay("192.0.2.100")
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		time.Sleep(time.Second)
		a.exchange(b, 5*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		for _, p := range a.status(b).Paths {
			if p.Kind == "relayed" {
				t.Errorf("a path by a relay that permits nothing: %+v", p)
			}
		}
	})
}

// One node was down for a while, in which the other has tried more and more seldom to reach it. The link is open again within a second of its
// wanting it, whatever the other's turn was.
func TestRestartedOpensAtOnce(t *testing.T) {
	for _, restarted := range []int{1, 2} {
		for _, relayed := range []bool{false, true} {
			for down := 4 * time.Second; down < 14*time.Second; down += 700 * time.Millisecond {
				inWorld(t, func(w *world) {
					if relayed {
						w.relay("192.0.2.100")
					}
					a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
					w.acquaint(a, b)
					a.exchange(b, 2*time.Second)
					a.awaitPath(b, "direct", 10*time.Second)
					n, other := a, b
					if restarted == 2 {
						n, other = b, a
					}
					n.crash()
					for end := time.Now().Add(down); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
						other.send(n, "nobody is there")
					}
					n.start()
					if err := n.e.SetPeers([]PeerConfig{other.record()}); err != nil {
						t.Fatal(err)
					}
					n.useRelays()
					began := time.Now()
					n.deliverRepeatedly(other, 30*time.Second)
					if took := time.Since(began); took > time.Second {
						t.Errorf("node %d restarts after %v, relay %t: %v until it can send", restarted, down, relayed, took)
					}
				})
			}
		}
	}
}

// A link can be opened before there is anything to send.
func TestOpen(t *testing.T) {
	for _, opens := range []int{1, 2} {
		inWorld(t, func(w *world) {
			a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
			w.acquaint(a, b)
			n, other := a, b
			if opens == 2 {
				n, other = b, a
			}
			p := n.e.Peer(other.id)
			if p.Live() {
				t.Fatal("it is open already")
			}
			n.e.Open(p)
			w.await("the link is open", time.Second, p.Live)
		})
	}
}

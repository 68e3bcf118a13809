package transport

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mtu is that of the path in use, in bytes of IP packet.
func (n *testNode) mtu(to *testNode) int {
	for _, p := range n.status(to).Paths {
		if p.InUse {
			return p.MTU
		}
	}
	return 0
}

// A path's MTU is found, its fall within a second and a half although nothing says so, and its rise when it is looked for.
// Messages of every size arrive all the while.
func TestPathMTU(t *testing.T) {
	for _, relayed := range []bool{false, true} {
		inWorld(t, func(w *world) {
			a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
			path, most := "direct", 1500
			if relayed {
				w.relay("192.0.2.100")
				w.net.SetFilter(notBetween("192.0.2.1", "192.0.2.2"))
				path = "relayed"
			}
			w.acquaint(a, b)
			a.exchange(b, 2*time.Second)
			a.awaitPath(b, path, 5*time.Second)
			w.await("1500 is found", time.Second, func() bool { return a.mtu(b) == most && b.mtu(a) == most })
			for _, mtu := range []int{1280, 1500, 1492, 1260, 1500} {
				w.net.SetMTU(mtu)
				began := time.Now()
				want := mtu
				if mtu == 1260 {
					want = baseDatagram + overheadOf(false, relayed) // no candidate fits
				}
				within := 2 * time.Second // three probes 200 ms apart, 300 ms for the last, a search, and ticks
				if mtu == 1500 {
					within = time.Minute + time.Second // until one looks
				}
				w.await("the MTU is known", within, func() bool {
					a.send(b, "busy")
					b.send(a, "busy")
					return a.mtu(b) == want && b.mtu(a) == want
				})
				t.Logf("relayed %v: %d is known after %v", relayed, want, time.Since(began))
				a.deliverSizes(b)
				b.deliverSizes(a)
			}
		})
	}
}

// deliverSizes sends messages of every size and expects them.
func (n *testNode) deliverSizes(to *testNode) {
	n.w.t.Helper()
	to.take()
	sizes := map[int]bool{60: true, 1100: true, 1250: true, 1400: true, 1514: true, 9014: true}
	for size := range sizes {
		n.send(to, strings.Repeat("x", size))
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	for _, m := range to.take() {
		delete(sizes, len(m))
	}
	if len(sizes) > 0 {
		n.w.t.Errorf("messages of %v bytes have not arrived", sizes)
	}
}

// A path that is found to carry more, or less, while an outbox is being filled makes nobody write beyond its room.
func TestPathGrowsUnderASender(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		p := a.e.Peer(b.id)
		w.await("the path's MTU is known", time.Second, func() bool { return p.Largest() == MaxInOne })
		size := &p.active.Load().path.size
		b.take()
		want := 0
		for _, sizes := range [][2]int32{{baseDatagram, FullDatagram}, {FullDatagram, baseDatagram}} {
			size.now.Store(sizes[0])
			a.sender.Send(p, nil, []byte("begins an outbox"))
			size.now.Store(sizes[1])
			for _, n := range []int{1300, MaxInOne, inOne(baseDatagram), 7} {
				if room := a.sender.Room(p, nil, n); room == nil {
					a.sender.Send(p, nil, make([]byte, n))
				} else if len(room) != n {
					t.Errorf("room for %d bytes has %d", n, len(room))
				}
			}
			a.sender.Flush()
			want += 5
		}
		time.Sleep(50 * time.Millisecond)
		if got := len(b.take()); got != want {
			t.Errorf("%d of %d messages arrived", got, want)
		}
	})
}

// Loss alone does not shrink a path for long.
func TestPathMTUUnderLoss(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.node(1, w.net.Host("192.0.2.1")), w.node(2, w.net.Host("192.0.2.2"))
		w.acquaint(a, b)
		a.exchange(b, 2*time.Second)
		a.awaitPath(b, "direct", 5*time.Second)
		w.net.SetLoss(0.05)
		full := 0
		for range 600 {
			a.send(b, "busy")
			if a.mtu(b) == 1500 {
				full++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if full < 590 {
			t.Errorf("only in %d of 600 moments is the MTU known", full)
		}
	})
}

// A socket neither fragments nor believes what ICMP claims, and is so again after it has sent a handshake that may be fragmented.
func TestSocketsDoNotBelieveICMP(t *testing.T) {
	for at, want := range map[string]struct{ level, option, value int }{
		"127.0.0.1:0": {unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		"[::1]:0":     {unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
	} {
		s, err := ListenUDP(netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		u := s.(*udpSocket)
		ask := func(level, option int) (value int) {
			if err := u.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, option) }); err != nil {
				t.Fatal(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
		for _, when := range []string{"at first", "after a handshake"} {
			if got := ask(want.level, want.option); got != want.value {
				t.Errorf("%s, %s: %d, want %d", at, when, got, want.value)
			}
			if want.level == unix.IPPROTO_IPV6 && ask(unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG) != 1 {
				t.Errorf("%s, %s: datagrams are fragmented", at, when)
			}
			if err := u.WriteFragmented(make([]byte, 1280), u.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

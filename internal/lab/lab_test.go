package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestMain also serves as the process that TestSweep kills and as the one that TestFreshThread asks.
func TestMain(m *testing.M) {
	if prefix := os.Getenv(victimVar); prefix != "" {
		victim(prefix)
	}
	if how := os.Getenv(threadsVar); how != "" {
		sayThread(how)
	}
	os.Exit(m.Run())
}

// newLab returns a lab that is closed with the test. Without root the test is skipped, or fails where it must run.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if err := Supported(); err != nil {
		if os.Getenv("ETHERLOOM_E2E") == "1" {
			t.Fatalf("ETHERLOOM_E2E=1 and the lab cannot run: %v", err)
		}
		t.Skip(err)
	}
	return must(New("loomtest"))(t, closeAfter[*Lab])
}

// must returns a function that fails the test if err is set, runs the options and returns v.
func must[T any](v T, err error) func(*testing.T, ...func(*testing.T, T)) T {
	return func(t *testing.T, options ...func(*testing.T, T)) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range options {
			o(t, v)
		}
		return v
	}
}

func closeAfter[T interface{ Close() error }](t *testing.T, v T) {
	t.Cleanup(func() {
		if err := v.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// world is an internet with two servers, and sites behind routers.
type world struct {
	*Lab
	internet *Host
	servers  [2]*Host // 203.0.113.10 and .11, 2001:db8::10 and ::11
	links    [2]*Link // the servers'
}

// site number n: router 203.0.113.n and 2001:db8::n outside, 10.n.0.1/24 and 2001:db8:n::1/64 inside; one host, .2.
type site struct {
	router, host *Host
	outside      *Link
	inside       *Link // the router's
	eth0         *Link // the host's
}

const (
	server1 = "203.0.113.10"
	server2 = "203.0.113.11"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Lab: newLab(t)}
	w.internet = must(w.AddBridge("internet"))(t)
	for i, n := range []string{"10", "11"} {
		w.servers[i] = must(w.AddHost("server" + n))(t)
		w.links[i] = must(w.servers[i].Join(w.internet, "eth0", "203.0.113."+n+"/24", "2001:db8::"+n+"/48"))(t)
	}
	return w
}

func (w *world) site(t *testing.T, n string, kind Guard) *site {
	t.Helper()
	s := &site{router: must(w.AddRouter("router" + n))(t), host: must(w.AddHost("host" + n))(t)}
	s.outside = must(s.router.Join(w.internet, "wan", "203.0.113."+n+"/24", "2001:db8::"+n+"/48"))(t)
	c := must(w.Cable(
		Plug{On: s.router, Name: "lan", Addrs: []string{"10." + n + ".0.1/24", "2001:db8:" + n + "::1/64"}},
		Plug{On: s.host, Name: "eth0", Addrs: []string{"10." + n + ".0.2/24", "2001:db8:" + n + "::2/64"}, MAC: "02:00:00:00:00:0" + n},
	))(t)
	s.inside, s.eth0 = c.A, c.B
	check(t, s.host.AddRoute("default", "10."+n+".0.1"), s.host.AddRoute("default", "2001:db8:"+n+"::1"))
	check(t, s.router.Protect(s.outside, kind))
	for _, server := range w.servers {
		check(t, server.AddRoute("2001:db8:"+n+"::/64", "2001:db8::"+n))
	}
	return s
}

// mac is the address of machine number n.
func mac(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }

// bare says nothing by itself: no ARP, no neighbour discovery.
func bare(t *testing.T, l *Lab, name string) *Host {
	t.Helper()
	h := must(l.AddHost(name))(t)
	check(t, h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	return h
}

func wantPing(t *testing.T, from *Host, to string, want bool) {
	t.Helper()
	e := Echo{Count: 2, Interval: 50 * time.Millisecond, Wait: brief}
	if want {
		e.Wait = patient // it ends with the last reply
	}
	if r := must(from.Ping(t.Context(), to, e))(t); (r.Received > 0) != want {
		t.Errorf("%d replies for %s from %s, want any: %t", r.Received, from.Name(), to, want)
	}
}

// udp opens a socket that is closed with the test.
func udp(t *testing.T, h *Host, address string) net.PacketConn {
	t.Helper()
	return must(h.ListenPacket(t.Context(), "udp", address))(t, closeAfter[net.PacketConn])
}

func send(t *testing.T, from net.PacketConn, to, text string) {
	t.Helper()
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	if _, err := from.WriteTo([]byte(text), addr); err != nil {
		t.Fatal(err)
	}
}

// receive returns the next datagram, or "" if none comes.
func receive(t *testing.T, conn net.PacketConn, wait time.Duration) (text, from string) {
	t.Helper()
	buf := make([]byte, 2048)
	check(t, conn.SetReadDeadline(time.Now().Add(wait)))
	n, addr, err := conn.ReadFrom(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", ""
	}
	check(t, err)
	return string(buf[:n]), addr.String()
}

func TestPingThroughRouter(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	router := must(l.AddRouter("router"))(t)
	a, b := must(l.AddHost("a"))(t), must(l.AddHost("b"))(t)
	must(l.Cable(Plug{On: a, Name: "eth0", Addrs: []string{"10.1.0.2/24", "fd01::2/64"}},
		Plug{On: router, Name: "lan1", Addrs: []string{"10.1.0.1/24", "fd01::1/64"}}))(t)
	must(l.Cable(Plug{On: b, Name: "eth0", Addrs: []string{"10.2.0.2/24", "fd02::2/64"}, MTU: 1400},
		Plug{On: router, Name: "lan2", Addrs: []string{"10.2.0.1/24", "fd02::1/64"}, MTU: 1400}))(t)
	wantUnreachable := func() {
		t.Helper()
		if _, err := a.Ping(t.Context(), "10.2.0.2", Echo{}); err == nil {
			t.Error("ping without a route has no error")
		}
	}
	wantUnreachable()
	check(t, a.AddRoute("default", "10.1.0.1"), a.AddRoute("default", "fd01::1"))
	check(t, b.AddRoute("10.1.0.0/24", "10.2.0.1"), b.AddRoute("fd01::/64", "fd02::1"))
	wantPing(t, a, "10.2.0.2", true)
	wantPing(t, b, "fd01::2", true)
	// The MTU of the second cable counts: 1372 + 28 = 1400.
	for size, want := range map[int]int{1372: 1, 1373: 0} {
		r := must(a.Ping(t.Context(), "10.2.0.2", Echo{Size: size, DontFragment: true, Wait: 300 * time.Millisecond}))(t)
		if r.Received != want {
			t.Errorf("%d bytes over an MTU of 1400: %d replies, want %d", size, r.Received, want)
		}
	}
	// What is stopped waits for the answers that are due.
	stop := make(chan struct{})
	time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	r := must(a.Ping(t.Context(), "10.2.0.2", Echo{Count: 1000, Interval: 10 * time.Millisecond, Stop: stop}))(t)
	if r.Sent < 2 || r.Sent == 1000 || r.Received != r.Sent {
		t.Errorf("stopped after 0.2 s: %+v", r)
	}
	check(t, a.RemoveRoute("default", "10.1.0.1"))
	wantUnreachable()
}

// A cable carries IPv4 and IPv6 as soon as it is there.
func TestCableIsReadyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	start := time.Now()
	for i := range 8 {
		a, b := must(l.AddHost(fmt.Sprint("a", i)))(t), must(l.AddHost(fmt.Sprint("b", i)))(t)
		c := must(l.Cable(Plug{On: a, Name: "eth0", Addrs: []string{"10.0.0.1/24", "fd00::1/64"}},
			Plug{On: b, Name: "eth0", Addrs: []string{"10.0.0.2/24", "fd00::2/64"}}))(t)
		for _, end := range []*Link{c.A, c.B} {
			check(t, end.do(func(link netlink.Link) error {
				if state := link.Attrs().OperState; state != netlink.OperUp {
					t.Errorf("%s of a new cable is %s", end, state)
				}
				return nil
			}))
		}
		for from, to := range map[string]string{"10.0.0.1:0": "10.0.0.2:5000", "[fd00::1]:0": "[fd00::2]:5000"} {
			receiver := udp(t, b, to)
			send(t, udp(t, a, from), to, "once")
			if text, _ := receive(t, receiver, patient); text != "once" {
				t.Errorf("a new cable does not carry a datagram to %s", to)
			}
		}
	}
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("8 cables took %s", d)
	}
}

func TestRoaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h := must(w.AddHost("roamer"))(t)
	eth0 := must(h.Join(w.internet, "eth0", "203.0.113.50/24", "2001:db8::50/48"))(t)
	check(t, h.AddRoute("198.51.100.0/24", "203.0.113.10"))
	wantPing(t, h, server1, true)

	check(t, eth0.SetAddrs("203.0.113.60/24", "2001:db8::60/48"))
	wantPing(t, h, server1, true)
	wantPing(t, w.servers[1], "203.0.113.60", true)
	wantPing(t, w.servers[1], "2001:db8::60", true)
	wantPing(t, w.servers[1], "203.0.113.50", false)

	// Another network: the old cable goes, one to elsewhere comes.
	elsewhere := must(w.AddBridge("elsewhere"))(t)
	check(t, eth0.Cable().Remove())
	must(h.Join(elsewhere, "eth0", "192.0.2.2/24"))(t)
	if _, err := h.Ping(t.Context(), server1, Echo{}); err == nil {
		t.Error("the old network is still there")
	}
	must(w.servers[0].Join(elsewhere, "eth1", "192.0.2.1/24"))(t)
	wantPing(t, h, "192.0.2.1", true)
}

func TestLinkDownAndUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.site(t, "2", PortPreserving)
	wantPing(t, s.host, server1, true)
	for _, pull := range []*Link{s.eth0, s.eth0.Peer(), s.outside, s.outside.Peer()} {
		check(t, pull.Down())
		if r, err := s.host.Ping(t.Context(), server1, Echo{Wait: 100 * time.Millisecond}); err == nil && r.Received > 0 {
			t.Errorf("%s is down and a ping gets through", pull)
		}
		check(t, pull.Up()) // and the default route is there again
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		must(s.host.WaitPing(ctx, server1))(t)
		must(s.host.WaitPing(ctx, "2001:db8::10"))(t)
		cancel()
	}
}

func TestRemoveHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	check(t, w.servers[0].Remove())
	if _, err := w.servers[0].Run(t.Context(), "true"); !errors.Is(err, ErrClosed) {
		t.Errorf("a command on a removed host: %v, want %v", err, ErrClosed)
	}
	again := must(w.AddHost("server10"))(t)
	must(again.Join(w.internet, "eth0", server1+"/24"))(t)
	wantPing(t, w.servers[1], server1, true)
}

func TestBadNames(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, name := range []string{"", "-a", "a b", "../x", strings.Repeat("x", 33)} {
		if _, err := l.AddHost(name); err == nil {
			t.Errorf("host name %q was accepted", name)
		}
	}
	h := must(l.AddHost("a"))(t)
	if _, err := l.AddHost("a"); err == nil {
		t.Error("two hosts may have one name")
	}
	b := must(l.AddBridge("b"))(t)
	for _, p := range []Plug{
		{On: h, Name: "eth0", Addrs: []string{"10.0.0.1"}}, // no prefix length is /32 to the library
		{On: h, Name: "eth0", Addrs: []string{"10.0.0.300/24"}},
		{On: h, Name: "a-name-that-is-too-long"},
		{On: h, Name: "eth0", MAC: "02:00"},
	} {
		if c, err := l.Cable(p, Plug{On: b}); err == nil && len(p.Addrs) == 1 && p.Addrs[0] == "10.0.0.1" {
			check(t, c.Remove())
		} else if err == nil {
			t.Errorf("plug %+v was accepted", p)
		}
	}
	must(h.Join(b, "eth0"))(t) // what was refused left no interface
	for _, prefix := range []string{"", "Loom", "a-b", "a/b"} {
		if _, err := New(prefix); err == nil {
			t.Errorf("prefix %q was accepted", prefix)
		}
	}
}

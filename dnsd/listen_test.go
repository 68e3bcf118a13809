package dnsd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestServe(t *testing.T) {
	s, addr := start(t, Config{})
	for _, network := range []string{"udp", "tcp"} {
		r := ask(t, network, addr, newQuery("a.etherloom.internal.", dns.TypeA))
		if firstA(r) != "10.77.0.1" {
			t.Errorf("%s: %v", network, r)
		}
		if r := ask(t, network, addr, newQuery("example.com.", dns.TypeA)); r.Rcode != dns.RcodeRefused {
			t.Errorf("%s: %v", network, r)
		}
	}
	if got := s.Stats(); got.Answered != 2 || got.Refused != 2 {
		t.Errorf("%+v", got)
	}
}

// Go's own resolver is an asker that nobody here wrote.
func TestServeGoResolver(t *testing.T) {
	_, addr := start(t, Config{})
	r := &net.Resolver{PreferGo: true}
	var d net.Dialer
	r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, addr.String())
	}
	got, err := r.LookupNetIP(t.Context(), "ip", "a.etherloom.internal.")
	slices.SortFunc(got, netip.Addr.Compare)
	if err != nil || !slices.Equal(got, addrs("10.77.0.1", "fd00:77::1")) {
		t.Errorf("%v, %v", got, err)
	}
	names, err := r.LookupAddr(t.Context(), "10.77.0.9")
	if err != nil || !slices.Equal(names, []string{"db.site1.etherloom.internal."}) {
		t.Errorf("%v, %v", names, err)
	}
	var dnsErr *net.DNSError
	if _, err := r.LookupHost(t.Context(), "gone.etherloom.internal."); !errors.As(err, &dnsErr) || !dnsErr.IsNotFound {
		t.Errorf("%v", err)
	}
}

func TestSetListenRefuses(t *testing.T) {
	s := New(Config{})
	for _, a := range []netip.AddrPort{
		{},
		netip.MustParseAddrPort("0.0.0.0:53"),
		netip.MustParseAddrPort("[::]:53"),
		netip.MustParseAddrPort("[ff02::1]:53"),
		netip.MustParseAddrPort("127.0.0.1:0"),
	} {
		if err := s.SetListen([]netip.AddrPort{a}); err == nil {
			t.Errorf("%v: no error", a)
		}
	}
}

// Addresses come and go while the server runs; what stays is not interrupted.
func TestSetListenReplaces(t *testing.T) {
	s, kept := start(t, Config{})
	gone, added := newAddr(), newAddr()
	set := func(list ...netip.AddrPort) {
		t.Helper()
		if err := s.SetListen(list); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(list, netip.AddrPort.Compare)
		if got := s.Listening(); !slices.Equal(got, list) {
			t.Errorf("listening on %v, want %v", got, list)
		}
	}
	q := newQuery("a.etherloom.internal.", dns.TypeA)
	set(kept, gone)
	stays, goes := dial(t, kept), dial(t, gone)
	exchange(t, stays, q)
	exchange(t, goes, q)
	set(added, kept)
	exchange(t, stays, q)
	goes.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection to the address that is gone: %v", err)
	}
	for _, network := range []string{"udp", "tcp"} {
		ask(t, network, added, q)
		c := dns.Client{Net: network, Timeout: time.Second}
		if r, _, err := c.Exchange(q, gone.String()); err == nil {
			t.Errorf("%s to the address that is gone: %v", network, r)
		}
	}
	set()
}

func dial(t *testing.T, addr netip.AddrPort) *dns.Conn {
	t.Helper()
	c, err := dns.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func exchange(t *testing.T, c *dns.Conn, q *dns.Msg) {
	t.Helper()
	if err := c.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if r, err := c.ReadMsg(); err != nil || r.Id != q.Id {
		t.Fatalf("%v, %v", r, err)
	}
}

// One address that is taken does not keep the others from being served, and can be had later.
func TestSetListenPartly(t *testing.T) {
	s, taken := start(t, Config{})
	other := New(Config{})
	other.SetView(testView(t))
	run(t, other)
	free := newAddr()
	if err := other.SetListen([]netip.AddrPort{taken, free}); err == nil {
		t.Fatal("no error for an address that is taken")
	}
	if got := other.Listening(); !slices.Equal(got, []netip.AddrPort{free}) {
		t.Errorf("listening on %v", got)
	}
	if err := s.SetListen(nil); err != nil {
		t.Fatal(err)
	}
	if err := other.SetListen([]netip.AddrPort{taken, free}); err != nil {
		t.Fatal(err)
	}
	ask(t, "udp", taken, newQuery("a.etherloom.internal.", dns.TypeA))
}

// Sockets bound before Run hold the queries for it; after Run there are none.
func TestSetListenAroundRun(t *testing.T) {
	s, addr := New(Config{}), newAddr()
	s.SetView(testView(t))
	if err := s.SetListen([]netip.AddrPort{addr}); err != nil {
		t.Fatal(err)
	}
	got := make(chan *dns.Msg)
	go func() { got <- ask(t, "udp", addr, newQuery("a.etherloom.internal.", dns.TypeA)) }()
	time.Sleep(20 * time.Millisecond)
	t.Run("running", func(t *testing.T) {
		run(t, s)
		if r := <-got; firstA(r) != "10.77.0.1" {
			t.Error(r)
		}
	})
	if err := s.SetListen([]netip.AddrPort{addr}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Run: %v", err)
	}
	if got := s.Listening(); len(got) != 0 {
		t.Errorf("after Run: listening on %v", got)
	}
	if l, err := net.Listen("tcp", addr.String()); err != nil {
		t.Errorf("the address is not free: %v", err)
	} else {
		l.Close()
	}
}

// Many queries on one connection, written at once, come back in order.
func TestTCPPipeline(t *testing.T) {
	_, addr := start(t, Config{})
	c := dial(t, addr)
	const n = 50
	for i := range n {
		q := newQuery("a.etherloom.internal.", dns.TypeA)
		q.Id = uint16(i)
		if err := c.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if r, err := c.ReadMsg(); err != nil || r.Id != uint16(i) {
			t.Fatalf("%v, %v", r, err)
		}
	}
}

func TestTCPBounds(t *testing.T) {
	s, addr := start(t, Config{MaxConns: 2, Idle: 300 * time.Millisecond})
	q := newQuery("a.etherloom.internal.", dns.TypeA)
	a, b := dial(t, addr), dial(t, addr)
	exchange(t, a, q)
	exchange(t, b, q)
	third := dial(t, addr)
	third.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is served")
	}
	if got := s.Stats().Crowded; got != 1 {
		t.Errorf("%d crowded", got)
	}
	// Idle connections are closed, even if they send a byte now and then, and make room.
	begin := time.Now()
	a.Write([]byte{0})
	a.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := a.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v after %v", err, time.Since(begin))
	}
	b.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := b.Conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("an idle connection: %v after %v", err, time.Since(begin))
	}
	time.Sleep(20 * time.Millisecond)
	ask(t, "tcp", addr, q)
}

// Garbage ends a TCP connection and is passed over on UDP.
func TestServeGarbage(t *testing.T) {
	s, addr := start(t, Config{})
	c := dial(t, addr)
	c.Conn.Write([]byte{0, 3, 1, 2, 3})
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Conn.Read(make([]byte, 1)); err == nil {
		t.Error("an answer to garbage")
	}
	u, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, raw := range [][]byte{{}, {1}, make([]byte, 11), append(make([]byte, 2), 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0)} {
		u.Write(raw)
	}
	ask(t, "udp", addr, newQuery("a.etherloom.internal.", dns.TypeA))
	if got := s.Stats().Dropped; got != 5 {
		t.Errorf("%d dropped, want 5", got)
	}
}

// SetView, SetListen, Stats and queries from everywhere at once, for the race detector.
func TestConcurrent(t *testing.T) {
	s, addr := start(t, Config{})
	other := newAddr()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				ask(t, "udp", addr, newQuery("a.etherloom.internal.", dns.TypeA))
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			s.SetView(testView(t))
			s.Stats()
		}
	})
	wg.Go(func() {
		for range 20 {
			s.SetListen([]netip.AddrPort{addr, other})
			s.SetListen([]netip.AddrPort{addr})
		}
	})
	wg.Wait()
}

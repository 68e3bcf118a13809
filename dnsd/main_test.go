package dnsd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestMain fails if a goroutine of this package outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
		code = 1
	}
	os.Exit(code)
}

func leaked() string {
	var left []string
	for range 50 {
		buf := make([]byte, 1<<20)
		left = nil
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "etherloom/dnsd.") && !strings.Contains(g, "dnsd.TestMain") {
				left = append(left, g)
			}
		}
		if left == nil {
			return ""
		}
		time.Sleep(20 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}

var lastAddr atomic.Uint32

// newAddr returns a loopback address that nobody else uses.
func newAddr() netip.AddrPort {
	pid := os.Getpid()
	a := netip.AddrFrom4([4]byte{127, 64 | byte(pid>>8)&63, byte(pid), byte(lastAddr.Add(1))})
	return netip.AddrPortFrom(a, 5300)
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// testView is the view of the tests: two hosts, an empty non-terminal, and a service with a name of its own.
func testView(t testing.TB) *View {
	t.Helper()
	v, err := NewView("etherloom.internal", map[string][]netip.Addr{
		"a.etherloom.internal.":             addrs("10.77.0.1", "fd00:77::1"),
		"B.Etherloom.internal":              addrs("10.77.0.2"),
		"db.site1.etherloom.internal":       addrs("10.77.0.9"),
		"_six.etherloom.internal":           addrs("fd00:77::6"),
		"wiki.corp.example":                 addrs("10.77.0.2"),
		"outside-prefix.etherloom.internal": addrs("192.0.2.7"),
	}, prefixes("10.77.0.0/16", "fd00:77::/64", "100.64.0.0/12"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// start runs a server on a fresh address until the test ends.
func start(t *testing.T, cfg Config) (*Server, netip.AddrPort) {
	t.Helper()
	s, addr := New(cfg), newAddr()
	s.SetView(testView(t))
	if err := s.SetListen([]netip.AddrPort{addr}); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return s, addr
}

func run(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func newQuery(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

// ask sends one query over a socket, "udp" or "tcp".
func ask(t *testing.T, network string, server netip.AddrPort, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, server.String())
	if err != nil {
		t.Fatalf("%s query %v: %v", network, m.Question, err)
	}
	return r
}

// local asks a server without a socket. It returns nil if the query would be forwarded or is not answered.
func local(t *testing.T, s *Server, m *dns.Msg) *dns.Msg {
	t.Helper()
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, first(s.respond(raw, true)))
}

func first(reply []byte, _ *query) []byte { return reply }

func decode(t testing.TB, raw []byte) *dns.Msg {
	t.Helper()
	if raw == nil {
		return nil
	}
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("reply does not decode: %v: %x", err, raw)
	}
	return m
}

func rrs(list []dns.RR) string {
	var out []string
	for _, rr := range list {
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	return strings.Join(out, " | ")
}

// upstream is a resolver of the test: it answers each message, on UDP or TCP, with the messages that reply returns.
type upstream struct {
	addr netip.AddrPort
	mu   sync.Mutex
	seen []seen
}

type seen struct {
	raw  []byte
	from netip.AddrPort
	tcp  bool
}

func newUpstream(t *testing.T, reply func(raw []byte, tcp bool) [][]byte) *upstream {
	t.Helper()
	u := &upstream{addr: newAddr()}
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(u.addr))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(u.addr))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); l.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			raw := append([]byte(nil), buf[:n]...)
			u.note(seen{raw, from, false})
			wg.Go(func() {
				for _, r := range reply(raw, false) {
					pc.WriteToUDPAddrPort(r, from)
				}
			})
		}
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			raw, err := readMessage(conn)
			if err == nil {
				u.note(seen{raw, netip.MustParseAddrPort(conn.RemoteAddr().String()), true})
				for _, r := range reply(raw, true) {
					writeMessage(conn, r)
				}
			}
			conn.Close()
		}
	})
	return u
}

func (u *upstream) note(s seen) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, s)
}

func (u *upstream) queries() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seen(nil), u.seen...)
}

func to(list ...*upstream) func() []netip.AddrPort {
	var out []netip.AddrPort
	for _, u := range list {
		out = append(out, u.addr)
	}
	return func() []netip.AddrPort { return out }
}

// says makes a reply to raw with one A record or, if it is no address, with an rcode.
func says(t testing.TB, raw []byte, what any) []byte {
	m, r := new(dns.Msg), new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Error(err)
		return nil
	}
	r.SetReply(m)
	switch what := what.(type) {
	case string:
		r.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
			A:   net.ParseIP(what),
		}}
	case int:
		r.Rcode = what
	}
	out, err := r.Pack()
	if err != nil {
		t.Error(err)
	}
	return out
}

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	brief   = 200 * time.Millisecond // for what must not come
	patient = 5 * time.Second        // for what must come
)

// reflect answers every datagram with the address that it came from, as a STUN server does, until the test ends.
func reflect(t *testing.T, h *Host, address string) net.PacketConn {
	t.Helper()
	conn := udp(t, h, address)
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo([]byte(from.String()), from)
		}
	}()
	return conn
}

// mapping returns how a server sees a socket.
func mapping(t *testing.T, conn net.PacketConn, server string) string {
	t.Helper()
	send(t, conn, server, "?")
	text, from := receive(t, conn, patient)
	if from != server {
		t.Fatalf("answer %q from %q, want one from %s", text, from, server)
	}
	return text
}

func (w *world) reflectors(t *testing.T) (first, second string) {
	t.Helper()
	first, second = server1+":3478", server2+":3478"
	reflect(t, w.servers[0], first)
	reflect(t, w.servers[1], second)
	return first, second
}

func TestMapping(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.reflectors(t)
	for n, c := range []struct {
		kind Guard
		same bool   // for both servers
		want string // the first server's view, if it is certain
	}{
		{Firewall, true, "10.2.0.2:40000"},
		{PortPreserving, true, "203.0.113.3:40000"},
		{AcceptingInput, true, "203.0.113.4:40000"},
		{Symmetric, false, ""},
	} {
		number := fmt.Sprint(n + 2)
		s := w.site(t, number, c.kind)
		for _, server := range w.servers { // the firewalled site's addresses are routed
			check(t, server.AddRoute("10."+number+".0.0/24", "203.0.113."+number))
		}
		conn := udp(t, s.host, ":40000")
		m1, m2 := mapping(t, conn, first), mapping(t, conn, second)
		if (m1 == m2) != c.same || c.want != "" && m1 != c.want {
			t.Errorf("kind %d: the servers see %s and %s, want the same %t, %s", c.kind, m1, m2, c.same, c.want)
		}
		if again := mapping(t, conn, first); again != m1 {
			t.Errorf("kind %d: the mapping to one server was %s and is %s", c.kind, m1, again)
		}
	}
}

// punch has two sites send to each other's mapping, as the reflector told it, and reports whether both hear the other.
// The first round of the second site starts only when the first site's packets have arrived.
func punch(t *testing.T, reflector string, first, second *site) bool {
	t.Helper()
	a, b := udp(t, first.host, ":40000"), udp(t, second.host, ":40000")
	toA, toB := mapping(t, a, reflector), mapping(t, b, reflector)
	heardA, heardB := false, false
	for range 3 {
		send(t, a, toB, "from first")
		if text, _ := receive(t, b, brief); text == "from first" {
			heardA = true
		}
		send(t, b, toA, "from second")
		if text, _ := receive(t, a, brief); text == "from second" {
			heardB = true
		}
	}
	return heardA && heardB
}

func TestHolePunching(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		first, second Guard
		want          bool
	}{
		{"port preserving on both sides", PortPreserving, PortPreserving, true},
		{"port preserving, symmetric", PortPreserving, Symmetric, false},
		{"symmetric, port preserving", Symmetric, PortPreserving, false},
		{"symmetric on both sides", Symmetric, Symmetric, false},
		{"accepting input sends first", AcceptingInput, PortPreserving, true},
		{"accepting input is sent to first", PortPreserving, AcceptingInput, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			reflector, _ := w.reflectors(t)
			if got := punch(t, reflector, w.site(t, "2", c.first), w.site(t, "3", c.second)); got != c.want {
				t.Errorf("hole punched: %t, want %t", got, c.want)
			}
		})
	}
}

// What AcceptingInput does to hole punching: the packet that arrives first takes the port that the answer's mapping
// would have kept. A router that drops it remembers nothing of it.
func TestAcceptingInputTakesThePort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reflector, _ := w.reflectors(t)
	for n, kind := range map[string]Guard{"2": PortPreserving, "3": AcceptingInput} {
		s := w.site(t, n, kind)
		conn := udp(t, s.host, ":40000")
		if m := mapping(t, conn, reflector); m != "203.0.113."+n+":40000" {
			t.Fatalf("the mapping is %s", m)
		}
		const address = server2 + ":5000"
		remote := must(w.servers[1].ListenPacket(t.Context(), "udp", address))(t)
		send(t, remote, "203.0.113."+n+":40000", "too early")
		if text, _ := receive(t, conn, brief); text != "" {
			t.Errorf("kind %d lets in what nobody asked for: %q", kind, text)
		}
		send(t, conn, address, "answer")
		_, from := receive(t, remote, patient)
		check(t, remote.Close())
		port := netip.MustParseAddrPort(from).Port()
		if kept := port == 40000; kept != (kind == PortPreserving) {
			t.Errorf("kind %d: after an early packet the remote sees port %d", kind, port)
		}
	}
}

func TestUnsolicitedIsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n, kind := range map[string]Guard{"2": Firewall, "3": PortPreserving, "4": Symmetric, "5": AcceptingInput} {
		s := w.site(t, n, kind)
		inside, outside, inside6 := "10."+n+".0.2", "203.0.113."+n, "2001:db8:"+n+"::2"
		check(t, w.servers[0].AddRoute("10."+n+".0.0/24", outside)) // an attacker next door
		conn := udp(t, s.host, ":40000")
		stranger := udp(t, w.servers[0], ":0")
		for _, addr := range []string{inside, outside, "[" + inside6 + "]"} {
			send(t, stranger, addr+":40000", "unsolicited")
		}
		if text, from := receive(t, conn, brief); text != "" {
			t.Errorf("kind %d: %q came in from %s", kind, text, from)
		}
		wantPing(t, w.servers[0], inside, false)
		wantPing(t, w.servers[0], inside6, false)
		wantPing(t, w.servers[0], outside, kind == AcceptingInput)
		if refused := must(s.router.Refused())(t); refused < 6 { // 2 datagrams and 4 pings to the inside at least
			t.Errorf("kind %d: the router counts %d refused packets", kind, refused)
		}
		// The same paths carry what the inside begins.
		if kind != Firewall {
			wantPing(t, s.host, server1, true)
		}
		wantPing(t, s.host, "2001:db8::10", true)
	}
}

func TestUDPTimeoutAndFlush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.site(t, "2", PortPreserving)
	check(t, s.router.SetUDPTimeout(time.Second, time.Second))
	server, conn := udp(t, w.servers[0], server1+":5000"), udp(t, s.host, ":40000")
	open := func() {
		t.Helper()
		send(t, conn, server1+":5000", "open")
		if _, from := receive(t, server, patient); from != "203.0.113.2:40000" {
			t.Fatalf("the server sees %s", from)
		}
	}
	answered := func() bool {
		t.Helper()
		send(t, server, "203.0.113.2:40000", "answer")
		text, _ := receive(t, conn, brief)
		return text != ""
	}
	open()
	if !answered() {
		t.Error("no answer through a new mapping")
	}
	time.Sleep(2500 * time.Millisecond) // the kernel looks at most once a second
	if answered() {
		t.Error("an answer through a mapping that has timed out")
	}
	open()
	check(t, s.router.FlushConntrack())
	if answered() {
		t.Error("an answer through a mapping that was flushed")
	}
	if err := s.router.SetUDPTimeout(100*time.Millisecond, time.Second); err == nil {
		t.Error("a timeout of a tenth of a second was accepted")
	}
}

// Protect replaces the kind of a router at run time.
func TestProtectAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.reflectors(t)
	s := w.site(t, "2", PortPreserving)
	conn := udp(t, s.host, ":40000")
	if a, b := mapping(t, conn, first), mapping(t, conn, second); a != b {
		t.Errorf("before: %s and %s", a, b)
	}
	check(t, s.router.Protect(s.outside, Symmetric), s.router.FlushConntrack())
	if a, b := mapping(t, conn, first), mapping(t, conn, second); a == b {
		t.Errorf("after: %s and %s", a, b)
	}
	if err := s.router.Protect(s.eth0, Symmetric); err == nil || !strings.Contains(err.Error(), "no link of") {
		t.Errorf("protecting another host's link: %v", err)
	}
	check(t, s.router.Sysctl("net.ipv4.ip_forward", "0"))
	if r, err := s.host.Ping(t.Context(), server1, Echo{Wait: brief}); err == nil && r.Received > 0 {
		t.Error("a router that does not forward forwards")
	}
}

func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	reflector, _ := w.reflectors(t)
	ln := must(w.servers[0].Listen(t.Context(), "tcp", server1+":443"))(t, closeAfter[net.Listener])
	s := w.site(t, "2", PortPreserving)
	conn := udp(t, s.host, ":40000")
	mapping(t, conn, reflector)
	block := must(s.outside.Drop(Match{Protocol: unix.IPPROTO_UDP}))(t)
	send(t, conn, reflector, "?")
	if text, _ := receive(t, conn, brief); text != "" {
		t.Error("UDP passes where it is blocked")
	}
	if n := must(block.Packets())(t); n != 1 {
		t.Errorf("the rule counts %d packets, want 1", n)
	}
	tcp := must(s.host.Dial(t.Context(), "tcp", ln.Addr().String()))(t, closeAfter[net.Conn])
	if peer := must(ln.Accept())(t, closeAfter[net.Conn]); !strings.HasPrefix(peer.RemoteAddr().String(), "203.0.113.2:") {
		t.Errorf("%s appears as %s", tcp.LocalAddr(), peer.RemoteAddr())
	}
	check(t, block.Remove(), block.Remove())
	mapping(t, conn, reflector)
}

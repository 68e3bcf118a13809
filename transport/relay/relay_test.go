package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v3"
	"github.com/pion/turn/v5"
)

// start runs a relay on loopback whose users are their slots.
func start(t *testing.T) (s *Server, main, probe *net.UDPAddr) {
	t.Helper()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	m, err1 := Listen(any)
	p, err2 := Listen(any)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s = New(Config{Authenticate: func(user string, _ time.Time) (uint16, string, error) {
		slot, expired, _ := strings.Cut(user, ".")
		if expired == "old" {
			return 0, "", errors.New("expired")
		}
		n, err := strconv.ParseUint(slot, 10, 16)
		return uint16(n), "secret", err
	}}, m, p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, m.LocalAddr().(*net.UDPAddr), p.LocalAddr().(*net.UDPAddr)
}

// padded is a socket that pads requests as nodes do.
type padded struct{ net.PacketConn }

func (p padded) WriteTo(b []byte, to net.Addr) (int, error) {
	_, err := p.PacketConn.WriteTo(Pad(b), to)
	return len(b), err
}

func socket(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dial(t *testing.T, server *net.UDPAddr, user, password string) (*turn.Client, net.PacketConn, error) {
	t.Helper()
	c, err := turn.NewClient(&turn.ClientConfig{
		Conn: padded{socket(t)}, TURNServerAddr: server.String(), STUNServerAddr: server.String(),
		Username: user, Password: password, Realm: Realm,
		LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Allocate()
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return c, conn, err
}

func slotAddr(slot uint16) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(Label(), slot))
}

func expect(t *testing.T, conn net.PacketConn, want string, from uint16) {
	t.Helper()
	buf := make([]byte, 2000)
	if err := conn.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, addr, err := conn.ReadFrom(buf)
	if err != nil || string(buf[:n]) != want || addr.String() != slotAddr(from).String() {
		t.Fatalf("got %q from %v, %v; want %q from slot %d", buf[:n], addr, err, want, from)
	}
}

func TestSwitchboard(t *testing.T) {
	s, server, _ := start(t)
	_, a, err := dial(t, server, "7", "secret")
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := dial(t, server, "9", "secret")
	if err != nil {
		t.Fatal(err)
	}
	if got := a.LocalAddr().String(); got != "192.0.0.8:7" {
		t.Errorf("relayed address %s", got)
	}
	// A permission for the label covers every slot, so the first datagram may come from anybody.
	if _, err := b.WriteTo([]byte("x"), slotAddr(9)); err != nil {
		t.Fatal(err)
	}
	expect(t, b, "x", 9)
	for i := range 20 {
		msg := fmt.Sprintf("message %d %s", i, strings.Repeat("z", i*70))
		if _, err := a.WriteTo([]byte(msg), slotAddr(9)); err != nil {
			t.Fatal(err)
		}
		expect(t, b, msg, 7)
	}
	if got := s.Stats(); got.Allocations != 2 || got.Forwarded < 20 {
		t.Errorf("Stats = %+v", got)
	}
}

// The attack "relay abuse": whatever a node with a credential asks, the relay sends to nobody but its own allocations.
func TestNoOpenRelay(t *testing.T) {
	_, server, _ := start(t)
	victim := socket(t)
	c, a, err := dial(t, server, "7", "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []net.Addr{victim.LocalAddr(), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: server.Port}, server} {
		if err := c.CreatePermission(to); err == nil {
			t.Errorf("permission for %v granted", to)
		}
		if _, err := a.WriteTo([]byte("attack"), to); err == nil {
			t.Errorf("datagram to %v accepted", to)
		}
	}
	_ = victim.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if n, _, err := victim.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("the victim was sent %d bytes", n)
	}
}

func TestCredentials(t *testing.T) {
	_, server, _ := start(t)
	for name, c := range map[string][2]string{
		"wrong password": {"7", "guess"}, "expired": {"7.old", "secret"}, "no slot": {"0", "secret"}, "no user": {"", ""},
	} {
		if _, _, err := dial(t, server, c[0], c[1]); err == nil {
			t.Errorf("%s: an allocation was made", name)
		}
	}
}

// A node that comes back from another address gets its slot again at once, and its old allocation is dead.
func TestTakeover(t *testing.T) {
	s, server, _ := start(t)
	_, old, err := dial(t, server, "7", "secret")
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := dial(t, server, "9", "secret")
	if err != nil {
		t.Fatal(err)
	}
	_, fresh, err := dial(t, server, "7.new", "secret")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fresh.WriteTo([]byte("x"), slotAddr(7))
	expect(t, fresh, "x", 7)
	if _, err := other.WriteTo([]byte("hello"), slotAddr(7)); err != nil {
		t.Fatal(err)
	}
	expect(t, fresh, "hello", 9)
	_ = old.Close() // must not take the slot away
	time.Sleep(100 * time.Millisecond)
	if _, err := other.WriteTo([]byte("again"), slotAddr(7)); err != nil {
		t.Fatal(err)
	}
	expect(t, fresh, "again", 9)
	if got := s.Stats().Allocations; got != 2 {
		t.Errorf("%d allocations", got)
	}
}

// The attack "amplification": for whatever a stranger sends, no more bytes come back than went in.
func TestNoAmplification(t *testing.T) {
	s, main, probe := start(t)
	c := socket(t)
	build := func(typ stun.MessageType, attrs ...stun.Setter) []byte {
		m, err := stun.Build(append([]stun.Setter{stun.TransactionID, typ}, attrs...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m.Raw
	}
	allocate := stun.NewType(stun.MethodAllocate, stun.ClassRequest)
	var datagrams [][]byte
	for _, b := range [][]byte{
		build(stun.BindingRequest), build(allocate), build(stun.NewType(stun.MethodRefresh, stun.ClassRequest)),
		build(stun.NewType(stun.MethodCreatePermission, stun.ClassRequest)),
		build(stun.NewType(stun.MethodChannelBind, stun.ClassRequest)), build(stun.NewType(stun.MethodSend, stun.ClassIndication)),
		build(allocate, stun.NewUsername("7"), stun.NewRealm(Realm), stun.NewNonce("x"), stun.NewShortTermIntegrity("y")),
		build(stun.NewType(stun.Method(0x7ff), stun.ClassRequest)),
		{0},
		{0, 1},
		make([]byte, 19), make([]byte, 300),
		{0x40, 0, 0, 4, 1, 2, 3, 4},
		{0x84, 1, 2, 3},
		bytes.Repeat([]byte{0xff}, 500), []byte("\x00\x01\xff\xff\x21\x12\xa4\x42"),
	} {
		datagrams = append(datagrams, b, Pad(b), append(bytes.Clone(b), make([]byte, 100)...), append(bytes.Clone(b), make([]byte, 1000)...))
	}
	for _, server := range []*net.UDPAddr{main, probe} {
		for _, b := range datagrams {
			if len(b) == 0 {
				continue
			}
			if _, err := c.WriteTo(b, server); err != nil {
				t.Fatal(err)
			}
			in, buf := 0, make([]byte, 2000)
			for {
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					break
				}
				in += n
			}
			if in > len(b) {
				t.Errorf("%d bytes for %d: %x", in, len(b), b[:min(len(b), 24)])
			}
			if len(b) < MinRequest && in > 0 {
				t.Errorf("an answer to %d bytes", len(b))
			}
		}
	}
	if s.Stats().Refused == 0 {
		t.Error("nothing was refused")
	}
}

// Padded requests are answered, on both sockets, with the address that the relay sees.
func TestBinding(t *testing.T) {
	_, main, probe := start(t)
	for _, server := range []*net.UDPAddr{main, probe} {
		c := socket(t)
		req, _ := stun.Build(stun.TransactionID, stun.BindingRequest)
		if _, err := c.WriteTo(Pad(req.Raw), server); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatalf("%v: %v", server, err)
		}
		m := &stun.Message{Raw: buf[:n]}
		var x stun.XORMappedAddress
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		if err := x.GetFrom(m); err != nil || x.Port != c.LocalAddr().(*net.UDPAddr).Port {
			t.Errorf("%v, %v", x, err)
		}
	}
	// The probe socket relays nothing.
	if _, _, err := dial(t, probe, "7", "secret"); err == nil {
		t.Error("an allocation on the probe socket")
	}
}

func TestPad(t *testing.T) {
	req := make([]byte, 20)
	req[1] = 1
	if got := Pad(req); len(got) != MinRequest || !bytes.Equal(got[:20], req) {
		t.Errorf("Pad made %d bytes", len(got))
	}
	for _, b := range [][]byte{{1, 1}, append([]byte{1, 1}, make([]byte, 30)...), append([]byte{0x40}, make([]byte, 30)...), append([]byte{0x84}, make([]byte, 30)...)} {
		if got := Pad(b); !bytes.Equal(got, b) {
			t.Errorf("Pad changed %x", b[:2])
		}
	}
}

// FuzzAdmit holds the door against arbitrary datagrams.
func FuzzAdmit(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42})
	f.Add(append([]byte{0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 220)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, d := range []*door{{turn: true}, {}} {
			n, ok := d.admit(b)
			if ok && (n > len(b) || n < 4) {
				t.Fatalf("%d of %d bytes admitted", n, len(b))
			}
			if ok && b[0] <= 3 && isRequest(b) && len(b) < MinRequest {
				t.Fatal("a short request is admitted")
			}
		}
	})
}

package dnsd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// lab is three network namespaces. In the one called host the server listens on the addresses of loom0. A neighbour on
// the LAN has a route to them, which the weak host model would honour; a member of the overlay has them on its own link.
//
//	lan  192.0.2.2 ────── lan0  192.0.2.1   ┐
//	     2001:db8::2            2001:db8::1 │
//	                                        ├ host
//	over 10.77.0.2 ────── loom0 10.77.0.1   │
//	     fd00:77::2             fd00:77::1  ┘
type lab struct {
	t     *testing.T
	name  string
	asked uint64 // by programs on host
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need ip of iproute2")
	}
	l := &lab{t: t, name: fmt.Sprintf("dnsd%d-%d-", os.Getpid(), lastAddr.Add(1))}
	for _, ns := range []string{"host", "lan", "over"} {
		l.ip("netns add %s", l.name+ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "delete", l.name+ns).Run() })
		l.ip("-n %s link set lo up", l.name+ns)
	}
	l.wire("lan0", "lan", "192.0.2.", "2001:db8::")
	l.wire("loom0", "over", "10.77.0.", "fd00:77::")
	l.ip("-n %s route add 10.77.0.0/24 via 192.0.2.1", l.name+"lan")
	l.ip("-n %s route add fd00:77::/64 via 2001:db8::1", l.name+"lan")
	return l
}

// wire makes a link between host and another namespace. loom0 gets its addresses later, in addLoom.
func (l *lab) wire(dev, peer, v4, v6 string) {
	host, ns := l.name+"host", l.name+peer
	l.ip("-n %s link add %s type veth peer name eth0 netns %s", host, dev, ns)
	l.ip("-n %s link set %s up", host, dev)
	l.ip("-n %s link set eth0 up", ns)
	l.ip("-n %s addr add %s2/24 dev eth0", ns, v4)
	l.ip("-n %s addr add %s2/64 dev eth0 nodad", ns, v6)
	if dev != "loom0" {
		l.ip("-n %s addr add %s1/24 dev %s", host, v4, dev)
		l.ip("-n %s addr add %s1/64 dev %s nodad", host, v6, dev)
	}
}

func (l *lab) addLoom() {
	l.ip("-n %s addr add 10.77.0.1/24 dev loom0", l.name+"host")
	l.ip("-n %s addr add fd00:77::1/64 dev loom0 nodad", l.name+"host")
}

func (l *lab) ip(format string, args ...any) {
	l.t.Helper()
	args = append([]any(nil), args...)
	cmd := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.Command("ip", cmd...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(cmd, " "), err, out)
	}
}

// in runs f on a thread of a namespace. Sockets that f makes belong to it for good.
func (l *lab) in(ns string, f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		fd, err := unix.Open("/run/netns/"+l.name+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		l.t.Fatal(err)
	}
}

const (
	answered = "answered"
	silence  = "silence"
)

// probe asks for a name and says what came of it. bind is a local address or device to ask from, or empty.
func probe(network, server, bind string) string {
	d := net.Dialer{Timeout: 300 * time.Millisecond, Control: bindTo(bind)}
	conn, err := d.Dial(network, server)
	if err != nil {
		return outcome(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	c := dns.Conn{Conn: conn}
	if err := c.WriteMsg(newQuery("a.etherloom.internal.", dns.TypeA)); err != nil {
		return outcome(err)
	}
	r, err := c.ReadMsg()
	if err != nil {
		return outcome(err)
	}
	if firstA(r) != "10.77.0.1" {
		return r.String()
	}
	return answered
}

// outcome is silence if nothing came, not even a refusal.
func outcome(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return silence
	}
	return err.Error()
}

func bindTo(bind string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) {
			if a, parseErr := netip.ParseAddr(bind); parseErr == nil {
				var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: a.Unmap().As4()}
				err = unix.Bind(int(fd), sa)
			} else if bind != "" {
				err = unix.BindToDevice(int(fd), bind)
			}
		})
		return err
	}
}

// sniff collects what comes in on eth0 from host, apart from what finds neighbours and groups: ARP, ND, MLD.
func sniff() (stop func() []string, err error) {
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, all&0xffff)
	if err != nil {
		return nil, err
	}
	return func() []string {
		defer unix.Close(fd)
		var out []string
		buf := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return out
			}
			if ll := from.(*unix.SockaddrLinklayer); ll.Pkttype != unix.PACKET_OUTGOING && !isNeighbourhood(buf[:n]) {
				out = append(out, fmt.Sprintf("%x", buf[:n]))
			}
		}
	}, nil
}

func isNeighbourhood(frame []byte) bool {
	if len(frame) < 14+40+9 {
		return true
	}
	switch uint16(frame[12])<<8 | uint16(frame[13]) {
	case unix.ETH_P_IP:
		return false
	case unix.ETH_P_IPV6:
		switch next, kind := frame[20], frame[54]; next {
		case 0: // hop-by-hop options, then MLD
			return true
		case unix.IPPROTO_ICMPV6:
			return kind >= 133 && kind <= 137
		}
		return false
	}
	return true
}

// What the LAN and the overlay send to the server's address gets no answer of any kind; the host gets all. The same
// questions with the filter off are answered, so it is the filter that this test sees. (Row "DNS poisoning / rebinding"
// of the attacks in notes/l2-conformance.md: no answer to underlay sources.)
func TestOnlyThisHostIsAnswered(t *testing.T) {
	for _, tt := range []struct {
		name    string
		admit   func(int) error
		outside string
	}{
		{"filtered", admitLoopback, silence},
		{"control without the filter", func(int) error { return nil }, answered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			s := New(Config{})
			s.admit = tt.admit
			s.SetView(testView(t))
			servers := []string{"10.77.0.1:53", "[fd00:77::1]:53"}
			l.in("host", func() error {
				// The addresses are not there yet.
				return s.SetListen([]netip.AddrPort{netip.MustParseAddrPort(servers[0]), netip.MustParseAddrPort(servers[1])})
			})
			run(t, s)
			l.addLoom()
			for _, server := range servers {
				for _, network := range []string{"udp", "tcp"} {
					l.checkInside(network, server)
					l.checkOutside(network, server, tt.outside)
				}
			}
			if got := s.Stats().Answered; tt.outside == silence && got != l.asked {
				t.Errorf("%d queries answered, want the host's %d", got, l.asked)
			}
		})
	}
}

// The host's programs, also those that choose a source address or a device.
func (l *lab) checkInside(network, server string) {
	l.t.Helper()
	binds := []string{"", "loom0"}
	if !strings.HasPrefix(server, "[") {
		binds = append(binds, "192.0.2.1", "127.0.0.1")
	}
	for _, bind := range binds {
		l.asked++
		l.in("host", func() error {
			if got := probe(network, server, bind); got != answered {
				return fmt.Errorf("host (from %q) %s %s: %s", bind, network, server, got)
			}
			return nil
		})
	}
}

func (l *lab) checkOutside(network, server, want string) {
	l.t.Helper()
	for _, ns := range []string{"lan", "over"} {
		l.in(ns, func() error {
			stop, err := sniff()
			if err != nil {
				return err
			}
			got := probe(network, server, "")
			frames := stop()
			if got != want {
				l.t.Errorf("%s %s %s: %s, want %s", ns, network, server, got, want)
			}
			if (len(frames) == 0) != (want == silence) {
				l.t.Errorf("%s %s %s: frames from the host: %v", ns, network, server, frames)
			}
			return nil
		})
	}
}

// A connection that was accepted keeps the filter, so nobody outside can put a segment into it either.
func TestAcceptedConnectionsAreFiltered(t *testing.T) {
	s, addr := New(Config{}), newAddr()
	e, err := s.open(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	dial(t, addr)
	conn, err := e.tcp.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for what, c := range map[string]interface {
		SyscallConn() (syscall.RawConn, error)
	}{"udp": e.udp, "tcp": e.tcp, "accepted": conn} {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if n := filterLen(fd); n != 4 {
				t.Errorf("%s: a filter of %d instructions, want 4", what, n)
			}
		})
	}
}

func filterLen(fd uintptr) uint32 {
	var prog [16]unix.SockFilter
	n := uint32(len(prog))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_GET_FILTER,
		uintptr(unsafe.Pointer(&prog)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0
	}
	return n
}

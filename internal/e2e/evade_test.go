package e2e

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// What is granted at the target, and what is not.
const (
	openTCP, openUDP, closedPort = 80, 5000, 445
)

func towardsClosed(protocol byte) (hidden, decoy uint16) {
	_, open := towardsOpen(protocol)
	return closedPort, open
}

func towardsOpen(protocol byte) (hidden, decoy uint16) {
	if protocol == unix.IPPROTO_UDP {
		return openUDP, openUDP
	}
	return openTCP, openTCP
}

// target is a host that serves what is granted and what is not.
type target struct {
	party
	host   *lab.Host
	tap    *lab.Capture
	kernel *tally
}

// attacker is a host that wants to reach a port of a target that it is not granted.
type attacker struct {
	party
	name   string
	host   *lab.Host
	socket int
	at     *target
}

// evading is a network where two nodes have a grant of some ports of bravo: alpha's own node judges what it sends, and liar's judges
// nothing. Beside it is a cable, to show what the attacks do where there is no guard.
type evading struct {
	*rig
	node               *world.Node // bravo's
	alpha, liar, cable *attacker
	bravo, bare        *target
}

func newEvading(t *testing.T) *evading {
	e := &evading{rig: newRig(t)}
	liar := e.rig.liar("liar")
	alpha, bravo := e.site("alpha", lab.PortPreserving), e.site("bravo", lab.PortPreserving)
	for _, name := range []string{"liar", "alpha"} { // liar has grant 1, which it always names
		_, err := e.Grant(e.ctx, "node:"+name, "node:bravo", "--segment", "lan", "--allow", "tcp:80", "--allow", "udp:5000", "--allow", "icmp")
		e.ok(err)
	}
	_, err := e.Grant(e.ctx, "node:bravo", "node:alpha", "--segment", "lan", "--allow", "icmp")
	e.ok(err)
	e.addresses(liar, alpha, bravo)
	e.node = bravo
	e.bravo = e.target(bravo.Host, e.party(bravo))
	e.alpha = e.attacker("alpha", alpha.Host, e.party(alpha), e.bravo)
	e.liar = e.attacker("liar", liar.Host, e.party(liar), e.bravo)

	from, err := e.Lab.AddHost("bare-a")
	e.ok(err)
	to, err := e.Lab.AddHost("bare-b")
	e.ok(err)
	ends := []party{
		{net.HardwareAddr{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:5::1"), netip.Addr{}},
		{net.HardwareAddr{2, 0, 0, 0, 0, 2}, netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:5::2"), netip.Addr{}},
	}
	plug := func(h *lab.Host, p party) lab.Plug {
		return lab.Plug{On: h, Name: "loom0", MAC: p.mac.String(), Addrs: []string{p.v4.String() + "/24", p.v6.String() + "/64"}}
	}
	_, err = e.Lab.Cable(plug(from, ends[0]), plug(to, ends[1]))
	e.ok(err)
	e.bare = e.target(to, ends[1])
	e.cable = e.attacker("cable", from, ends[0], e.bare)

	// Nobody answers liar's questions for addresses: its node judges nothing, and bravo's refuses them.
	e.sh(liar.Host, "ip neigh replace "+e.bravo.v4.String()+" lladdr "+e.bravo.mac.String()+" dev loom0")
	e.sh(liar.Host, "ip neigh replace "+e.bravo.v6.String()+" lladdr "+e.bravo.mac.String()+" dev loom0")
	e.answersItself(e.liar)
	for _, from := range []*attacker{e.alpha, e.liar, e.cable} {
		e.pings(from.host, from.at.v4.String(), 10*time.Second)
		e.pings(from.host, from.at.v6.String(), 10*time.Second)
	}
	e.awaitPath(alpha, "bravo", "direct", 20*time.Second)
	e.awaitPath(liar, "bravo", "direct", 20*time.Second)
	return e
}

// target serves the ports of a host.
func (r *rig) target(h *lab.Host, p party) *target {
	r.Helper()
	tap, err := h.Capture("loom0")
	r.ok(err)
	for _, port := range []string{"80", "445"} {
		r.echo(h, "[::]:"+port)
	}
	for _, port := range []string{"5000", "445"} {
		conn, err := h.ListenPacket(r.ctx, "udp", "[::]:"+port)
		r.ok(err)
		r.ok(conn.(*net.UDPConn).SetReadBuffer(4 << 20))
		r.Cleanup(func() { _ = conn.Close() })
		go func() {
			for b := make([]byte, 1<<16); ; {
				n, from, err := conn.ReadFrom(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = conn.WriteTo(b[:n], from)
				}
			}
		}()
	}
	return &target{party: p, host: h, tap: tap, kernel: r.listens(h)}
}

func (r *rig) attacker(name string, h *lab.Host, p party, at *target) *attacker {
	r.Helper()
	return &attacker{party: p, name: name, host: h, socket: r.packetSocket(h), at: at}
}

// However a node that may reach two ports of another cuts its packets, hides them behind headers, or calls them, no other port is
// reached: its own node refuses it, and where that does not, the receiver does. What is granted arrives whole, in fragments of any size.
func TestEvasion(t *testing.T) {
	e := newEvading(t)
	t.Run("long datagrams", func(t *testing.T) { e.on(t).longDatagrams(25) })
	t.Run("fragments", func(t *testing.T) { e.on(t).fragmentsEvade() })
	t.Run("programs", func(t *testing.T) { e.on(t).programsEvade() })
	t.Run("after all that", func(t *testing.T) {
		e.on(t).longDatagrams(3)
		e.on(t).verdict()
	})
}

func (e evading) on(t *testing.T) *evading {
	again := *e.rig
	again.T = t
	e.rig = &again
	return &e
}

// longDatagrams: so many of each size, and their answers of the same size, arrive, every one of them.
func (e *evading) longDatagrams(each int) {
	for _, to := range []netip.Addr{e.bravo.v4, e.bravo.v6} {
		conn, err := e.alpha.host.Dial(e.ctx, "udp", netip.AddrPortFrom(to, openUDP).String())
		e.ok(err)
		r := rand.NewChaCha8([32]byte{1})
		got := make([]byte, 1<<16)
		for _, size := range []int{2000, 8000, 30_000, 65_000} {
			arrived := 0
			for range each {
				sent := make([]byte, size)
				_, _ = r.Read(sent)
				_, err := conn.Write(sent)
				e.ok(err)
				e.ok(conn.SetReadDeadline(time.Now().Add(2 * time.Second)))
				n, err := conn.Read(got)
				switch {
				case errors.Is(err, os.ErrDeadlineExceeded):
				case err != nil:
					e.Errorf("%d bytes to %s: %v", size, to, err)
				case !bytes.Equal(got[:n], sent):
					e.Errorf("%d bytes to %s: what comes back is another: %d bytes", size, to, n)
				default:
					arrived++
				}
			}
			if arrived != each {
				e.Errorf("of %d datagrams of %d bytes to %s %d were answered", each, size, to, arrived)
			}
		}
		e.ok(conn.Close())
	}
	for _, c := range []struct {
		from *lab.Host
		to   party
	}{{e.alpha.host, e.bravo.party}, {e.bravo.host, e.alpha.party}} {
		for _, to := range []netip.Addr{c.to.v4, c.to.v6} {
			replies, err := c.from.Ping(e.ctx, to.String(), lab.Echo{Count: each, Interval: 20 * time.Millisecond, Size: 8000, Wait: 2 * time.Second})
			e.ok(err)
			if replies.Received != each {
				e.Errorf("of %d echo requests of 8000 bytes from %s to %s %d were answered", each, c.from.Name(), to, replies.Received)
			}
		}
	}
}

// sendAll sends evasions, one after the other, no faster than anybody can read them.
func (e *evading) sendAll(from *attacker, all []*evasion) {
	for _, v := range all {
		for _, frame := range v.frames {
			var err error
			for range 100 {
				if err = unix.Send(from.socket, frame, 0); !errors.Is(err, unix.ENOBUFS) {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				e.Fatalf("%s: %s: send %d bytes: %v", from.name, v.name, len(frame), err)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// fragmentsEvade: none of the evasions makes bravo's host take a segment for a port that is not granted, or could make another
// host take it; where there is no guard each could, and most do. Towards a port that is granted those that an honest host
// sends arrive.
func (e *evading) fragmentsEvade() {
	bare := evasions(e.cable.party, e.bare.party, 20_000, towardsClosed)
	e.sendAll(e.cable, bare)
	for _, from := range []*attacker{e.alpha, e.liar} {
		e.sendAll(from, evasions(from.party, from.at.party, 20_000, towardsClosed))
	}
	granted := evasions(e.alpha.party, e.bravo.party, 30_000, towardsOpen)
	e.sendAll(e.alpha, granted)
	granted = append(granted, evasions(e.liar.party, e.bravo.party, 40_000, towardsOpen)...)
	e.sendAll(e.liar, granted[len(granted)/2:])
	e.pings(e.alpha.host, e.bravo.v4.String(), 5*time.Second)
	e.pings(e.liar.host, e.bravo.v4.String(), 5*time.Second)
	time.Sleep(200 * time.Millisecond)

	taken, could := e.bare.kernel.to(closedPort), e.assembled(e.bare.tap, e.cable.mac, false).whole
	accepted, cut := map[string]bool{}, 0
	for _, v := range bare {
		accepted[v.name] = taken[v.segment] > 0
		if taken[v.segment] == 0 && could[v.segment] == 0 {
			e.Errorf("%s: nothing could come of it where there is no guard: the attack is none", v.name)
		}
		if len(v.frames) > 1 && taken[v.segment] > 0 {
			cut++
		}
	}
	e.Logf("%d evasions; without a guard the kernel falls for %d, %d of them in fragments", len(bare), len(taken), cut)
	if cut < 30 {
		e.Errorf("without a guard the kernel takes %d of the segments that come in fragments", cut)
	}
	e.nothingHidden()

	served, want := e.bravo.kernel.to(openTCP), 0
	for s, n := range e.bravo.kernel.to(openUDP) {
		served[s] += n
	}
	for _, v := range granted {
		if !v.sound || !accepted[v.name] {
			continue
		}
		if want++; served[v.segment] == 0 {
			e.Errorf("%s, from port %d to port %d, which is granted: has not arrived", v.name, v.from, v.to)
		}
	}
	if want < 100 {
		e.Errorf("%d evasions are what honest hosts send: too few", want)
	}
}

// nothingHidden looks at all that has reached bravo so far.
func (e *evading) nothingHidden() {
	e.Helper()
	for s, n := range e.bravo.kernel.to(closedPort) {
		e.Errorf("bravo's kernel has taken %d segments for a port that is not granted: %+v", n, s)
	}
	for _, from := range []*attacker{e.alpha, e.liar} {
		p := e.assembled(e.bravo.tap, from.mac, true)
		for s, n := range p.whole {
			if s.to == closedPort {
				e.Errorf("of what %s has sent some host could take %d segments for a port that is not granted: %+v", from.name, n, s)
			}
		}
		if p.overlaps > 0 {
			e.Errorf("%s: %d fragments that overlap have reached bravo", from.name, p.overlaps)
		}
		if len(p.whole) == 0 {
			e.Errorf("nothing of %s has reached bravo: the test shows nothing", from.name)
		}
	}
}

// verdict is what remains to be said when all is over.
func (e *evading) verdict() {
	e.nothingHidden()
	if out := e.sh(e.bravo.host, "ss -Htan sport = :445"); strings.Count(out, "\n") > 1 {
		e.Errorf("bravo has connections at port 445:\n%s", out)
	}
	for _, from := range []*attacker{e.alpha, e.liar} {
		out := e.sh(from.host, "echo hello | socat -t 3 STDIO TCP:"+from.at.v4.String()+":80,connect-timeout=5")
		if out != "hello\n" {
			e.Errorf("%s to port 80: %q", from.name, out)
		}
	}
}

// within runs a program on a host for some time at most, and returns what it prints.
func (r *rig) within(most time.Duration, h *lab.Host, command []string) string {
	ctx, cancel := context.WithTimeout(r.ctx, most)
	defer cancel()
	out, err := h.Run(ctx, command[0], command[1:]...) // many of them end with an error if they are not answered
	if errors.Is(err, exec.ErrNotFound) {
		r.Errorf("%v: run `make e2e`, which installs it", err)
	}
	return out
}

// sum adds up what was counted.
func sum(n map[segment]int) (total int) {
	for _, some := range n {
		total += some
	}
	return total
}

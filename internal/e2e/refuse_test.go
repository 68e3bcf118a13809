package e2e

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

const (
	attackRate  = 500                   // frames a second of each attack, at most
	attackTotal = 6000                  // frames a second of all attacks together, at most
	attackTime  = 5 * time.Second       // of all attacks of one kind together
	attackProbe = 40 * time.Millisecond // of one attack alone
)

// party is who a node is on the segment.
type party struct {
	mac         net.HardwareAddr
	v4, v6, own netip.Addr // own is link-local
}

// refusal is three nodes on a segment. The daemon of mallory judges nothing; victim and bob are honest, and mallory wants
// victim to take it for bob.
type refusal struct {
	*rig
	mallory, victim, bob *world.Node
	m, v, b              party
	grants               map[string]string // by node
	socket               int               // on mallory's TAP
}

// newRefusal makes the three nodes, granted one after the other: the first has grant 1, which mallory names in every frame.
func newRefusal(t *testing.T, granted ...string) *refusal {
	t.Helper()
	r := &refusal{rig: newRigFor(t, 88*time.Second), grants: map[string]string{}}
	r.mallory = r.liar("mallory")
	r.victim = r.site("victim", lab.PortPreserving)
	r.bob = r.site("bob", lab.PortPreserving)
	for _, name := range granted {
		id, err := r.Grant(r.ctx, "node:"+name, "segment:lan")
		r.ok(err)
		r.grants[name] = id
	}
	if r.grants[granted[0]] != "1" {
		t.Fatalf("the first grant is %s and not 1", r.grants[granted[0]])
	}
	r.addresses(r.mallory, r.victim, r.bob)
	r.m, r.v, r.b = r.party(r.mallory), r.party(r.victim), r.party(r.bob)
	r.pings(r.victim.Host, r.b.v4.String(), 10*time.Second)
	r.pings(r.victim.Host, r.b.v6.String(), 5*time.Second)
	r.socket = r.packetSocket(r.mallory.Host)
	return r
}

// party asks a node who it is.
func (r *rig) party(n *world.Node) (p party) {
	r.Helper()
	r.await(n.Name+" has an IPv4 and an IPv6 address", 5*time.Second, func() bool {
		port := r.local(n)
		p.mac, _ = net.ParseMAC(port.MAC)
		for _, text := range port.Addresses {
			if a, err := netip.ParsePrefix(text); err == nil && a.Addr().Is4() {
				p.v4 = a.Addr()
			} else if err == nil && !a.Addr().IsLinkLocalUnicast() {
				p.v6 = a.Addr()
			}
		}
		return p.mac != nil && p.v4.IsValid() && p.v6.IsValid()
	})
	p.own = netip.AddrFrom16([16]byte(linkLocal(p.mac)))
	return p
}

// packetSocket opens a socket that sends frames out of a host's TAP, for as long as the test runs.
func (r *rig) packetSocket(h *lab.Host) int {
	r.Helper()
	fd := r.tapSocket(h)
	r.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// tapSocket opens such a socket, which the caller closes.
func (r *rig) tapSocket(h *lab.Host) (fd int) {
	r.Helper()
	r.ok(h.Do(func() error {
		ifi, err := net.InterfaceByName("loom0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	}))
	return fd
}

// attack is a frame that the receiver must refuse, and its reason.
type attack struct {
	name   string
	reason string
	frame  []byte
	bare   bool // ends where it ends: its last byte is what is wrong with it
	sent   int
}

// send sends the attacks in turn for some time, as fast as the bounds allow.
func (r *refusal) send(most time.Duration, attacks ...*attack) {
	r.Helper()
	every := time.Second / time.Duration(min(attackRate, attackTotal/len(attacks)))
	for start, n := time.Now(), time.Duration(0); n*every < most; n++ {
		time.Sleep(time.Until(start.Add(n * every)))
		for _, a := range attacks {
			err := unix.Send(r.socket, a.frame, 0)
			switch {
			case err == nil:
				a.sent++
			case !errors.Is(err, unix.ENOBUFS): // the TAP's queue is full: it was not sent
				r.Fatalf("%s: send %d bytes: %v", a.name, len(a.frame), err)
			}
		}
	}
}

// reaches checks that what mallory sends reaches victim at all, if there is nothing wrong with it: otherwise nothing that is
// not seen there proves anything.
func (r *refusal) reaches() {
	r.Helper()
	r.pings(r.mallory.Host, r.v.v4.String(), 10*time.Second)
	r.awaitPath(r.mallory, "victim", "direct", 20*time.Second)
	tap, err := r.victim.Host.Capture("loom0")
	r.ok(err)
	honest := &attack{name: "honest", frame: append(ethernet(r.v.mac, r.m.mac, 0x88b5), "let-me-in"...)}
	r.send(attackProbe, honest)
	r.await("honest frames of mallory reach victim", 5*time.Second, func() bool {
		yes, err := tap.Contains([]byte("let-me-in"))
		return err == nil && yes
	})
	r.ok(tap.Stop())
}

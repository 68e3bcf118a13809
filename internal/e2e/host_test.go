package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// pair is two nodes at two sites that share the segment lan.
func (r *rig) pair() (a, b *world.Node, addr []string) {
	r.Helper()
	a = r.site("a", lab.PortPreserving, "--label", "team=x")
	b = r.site("b", lab.PortPreserving, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr = r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	return a, b, addr
}

func (r *rig) sh(h *lab.Host, script string) string {
	r.Helper()
	out, err := h.Run(r.ctx, "sh", "-c", script)
	if err != nil {
		r.Fatalf("on %s: %s: %v\n%s", h.Name(), script, err, out)
	}
	return out
}

// The daemon leaves the host as it found it: on exit, and, for what survives a crash, at the next start.
func TestHostIsRestored(t *testing.T) {
	r := newRig(t)
	s, err := r.Site("a", lab.PortPreserving)
	r.ok(err)
	a, err := s.Node("a")
	r.ok(err)
	const original = "# as it was\nnameserver 192.0.2.53\nsearch example.com\noptions ndots:2\n"
	r.ok(a.Host.SetResolvConf(original))
	before := r.sh(a.Host, "ip -br addr; ip route; cat /etc/resolv.conf")
	r.ok(a.Join(r.ctx))
	_, err = r.Grant(r.ctx, "node:a", "segment:lan")
	r.ok(err)
	r.ok(a.Start(r.ctx))
	r.addresses(a)
	mac := r.sh(a.Host, "cat /sys/class/net/loom0/address")
	r.await("resolv.conf names our server", 5*time.Second, func() bool {
		return strings.Contains(r.sh(a.Host, "cat /etc/resolv.conf"), "nameserver 10.")
	})
	r.ok(a.Stop())
	if after := r.sh(a.Host, "ip -br addr; ip route; cat /etc/resolv.conf"); after != before {
		t.Errorf("after the daemon's end:\n%s\nbefore:\n%s", after, before)
	}

	// A crash: the TAP and its addresses go with the process; resolv.conf is put right by the next start.
	r.ok(a.Restart(r.ctx))
	r.addresses(a)
	r.await("resolv.conf names our server", 5*time.Second, func() bool {
		return strings.Contains(r.sh(a.Host, "cat /etc/resolv.conf"), "nameserver 10.")
	})
	r.ok(a.Daemon.Signal(syscall.SIGKILL))
	<-a.Daemon.Done()
	if out := r.sh(a.Host, "ip -br link"); strings.Contains(out, "loom") {
		t.Errorf("after a crash a TAP is left:\n%s", out)
	}
	r.ok(a.Restart(r.ctx))
	r.addresses(a)
	if again := r.sh(a.Host, "cat /sys/class/net/loom0/address"); again != mac {
		t.Errorf("the MAC was %s and is %s", mac, again)
	}
	r.ok(a.Stop())
	if after := r.sh(a.Host, "cat /etc/resolv.conf"); after != original {
		t.Errorf("after crash, start and end resolv.conf is %q", after)
	}
}

// What others do to the host is followed or reported, and never fought.
func TestForeignChanges(t *testing.T) {
	r := newRig(t)
	a, b, addr := r.pair()

	r.sh(a.Host, "ip link set loom0 name office")
	r.await("the new name is known", 5*time.Second, func() bool { return strings.Contains(r.local(a).Port, "office") })
	r.pings(b.Host, addr[0], 2*time.Second)

	r.sh(a.Host, "ip addr add 198.51.100.9/32 dev office")
	r.await("the foreign address is reported", 5*time.Second, func() bool {
		return strings.Contains(strings.Join(r.local(a).Changed, "\n"), "198.51.100.9/32 was added")
	})
	r.sh(a.Host, "ip addr del "+addr[0]+"/20 dev office")
	r.await("the missing address is reported", 5*time.Second, func() bool {
		return strings.Contains(strings.Join(r.local(a).Changed, "\n"), addr[0]+"/20 was removed")
	})
	time.Sleep(time.Second)
	if out := r.sh(a.Host, "ip -br addr show office"); strings.Contains(out, addr[0]) {
		t.Errorf("the daemon has put back what somebody had removed: %s", out)
	}
	r.sh(a.Host, "ip addr add "+addr[0]+"/20 dev office")
	r.pings(b.Host, addr[0], 3*time.Second)

	// To another namespace of the machine: followed, with its addresses.
	r.sh(a.Host, "ip netns add loome2e-inner && ip link set office netns loome2e-inner && sleep 1")
	defer r.sh(a.Host, "ip netns del loome2e-inner")
	r.await("the move is reported", 5*time.Second, func() bool {
		return strings.Contains(strings.Join(r.local(a).Changed, "\n"), "another network namespace")
	})
	out := r.sh(a.Host, "ip netns exec loome2e-inner ip -br addr show office")
	if !strings.Contains(out, addr[0]) || !strings.Contains(out, "UP") && !strings.Contains(out, "UNKNOWN") {
		t.Errorf("in the other namespace: %s", out)
	}
	r.sh(a.Host, "ip netns exec loome2e-inner ping -c 3 -i 0.2 -W 2 "+addr[1])
}

// A TAP that somebody removes is missed and said so; the daemon lives, and brings it back when it is started again.
func TestTAPRemoved(t *testing.T) {
	r := newRig(t)
	a, b, addr := r.pair()
	r.sh(a.Host, "ip link set loom0 down")
	r.awaitProblem(a, "port loom0", "set down")
	r.sh(a.Host, "ip link del loom0")
	r.awaitProblem(a, "port loom0", "removed the TAP of segment lan")
	time.Sleep(time.Second)
	if out := r.sh(a.Host, "ip -br link"); strings.Contains(out, "loom0") {
		t.Errorf("the daemon has made it again: %s", out)
	}
	r.ok(a.Stop())
	r.ok(a.Restart(r.ctx))
	r.pings(b.Host, addr[0], 10*time.Second)
}

// awaitProblem waits until a node's status tells a problem.
func (r *rig) awaitProblem(n *world.Node, about, words string) {
	r.Helper()
	var s node.Status
	err := world.Await(r.ctx, "the problem "+words+" is told", 5*time.Second, func() bool {
		s = node.Status{}
		return n.Ask(r.ctx, &s, "status") == nil && slices.ContainsFunc(s.Problems, func(p node.Problem) bool {
			return p.About == about && strings.Contains(p.Text, words)
		})
	})
	if err != nil {
		r.Fatalf("%v: %+v", err, s.Problems)
	}
}

// awaitNoProblem waits until a node's status says nothing of something.
func (r *rig) awaitNoProblem(n *world.Node, about string) {
	r.Helper()
	r.await("no problem is told of "+about, 5*time.Second, func() bool {
		s := node.Status{}
		return n.Ask(r.ctx, &s, "status") == nil && !slices.ContainsFunc(s.Problems, func(p node.Problem) bool { return p.About == about })
	})
}

// local is the node's own port.
func (r *rig) local(n *world.Node) node.Port {
	r.Helper()
	var list struct {
		Ports []node.Port `json:"ports"`
	}
	r.ok(n.Ask(r.ctx, &list, "ports"))
	for _, p := range list.Ports {
		if p.Kind == "local" {
			return p
		}
	}
	return node.Port{}
}

// A machine whose LAN uses the segment's prefix keeps its LAN, and is told.
func TestOverlappingPrefix(t *testing.T) {
	r := newRig(t)
	_, err := r.Admin(r.ctx, "segment", "add", "clash", "--prefix", "192.0.2.0/24")
	r.ok(err)
	a := r.site("a", lab.PortPreserving)
	_, err = r.Grant(r.ctx, "node:a", "segment:clash")
	r.ok(err)
	r.await("the clash is reported", 5*time.Second, func() bool {
		var s node.Status
		return a.Ask(r.ctx, &s, "status") == nil && len(s.Problems) > 0 && strings.Contains(s.Problems[0].Text, "192.0.2.0/24 on eth0")
	})
	if out := r.sh(a.Host, "ip -4 -br addr show loom0"); strings.Contains(out, "192.0.2") {
		t.Errorf("the address is set all the same: %s", out)
	}
	r.pings(a.Host, "192.0.2.1", 2*time.Second)
}

// A router across the overlay never becomes the host's default, not even where its advertisements get through: here neither
// daemon judges anything.
func TestRouterAdvertisementIsNotHeard(t *testing.T) {
	r := newRig(t)
	a, b := r.liar("a", "--label", "team=x"), r.liar("b", "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	r.pings(a.Host, r.addresses(a, b)[1], 10*time.Second)
	before := r.sh(a.Host, "ip -6 route")
	capture, err := a.Host.Capture("loom0")
	r.ok(err)
	ra := routerAdvertisement(r.mac(b))
	for range 5 {
		r.inject(b.Host, "loom0", ra)
		time.Sleep(100 * time.Millisecond)
	}
	if yes, err := capture.Contains(ra); err != nil || !yes {
		t.Fatalf("the advertisements did not arrive, so that nothing is shown: %v, %v", yes, err)
	}
	if after := r.sh(a.Host, "ip -6 route"); after != before {
		t.Errorf("routes after router advertisements:\n%s\nbefore:\n%s", after, before)
	}
}

// inject sends a frame out of a host's device, as a program with root there can.
func (r *rig) inject(h *lab.Host, dev string, frame []byte) {
	r.Helper()
	r.ok(h.SendFrames(dev, frame))
}

// Root on one site cannot be somebody else: every spoofed frame is dropped at its own node, counted by reason.
func TestSpoofing(t *testing.T) {
	r := newRig(t)
	a, b, addr := r.pair()
	own, victim := r.mac(a), r.mac(b)
	capture, err := b.Host.Capture("loom0")
	r.ok(err)
	time.Sleep(200 * time.Millisecond)
	attacks := map[string][]byte{}
	for i, f := range spoofs(own, victim, addr) {
		marker := fmt.Sprintf("spoof-%02d-marker", i)
		attacks[f.reason+" "+marker] = append(f.frame, marker...)
	}
	for _, frame := range attacks {
		r.inject(a.Host, "loom0", frame)
	}
	r.inject(a.Host, "loom0", append(ethernet(broadcast(), own, 0x88b5), "honest-frame-marker"...))
	time.Sleep(time.Second)
	if yes, err := capture.Contains([]byte("honest-frame-marker")); err != nil || !yes {
		t.Fatalf("the honest frame did not arrive: %v, %v", yes, err)
	}
	if yes, err := capture.Contains([]byte("-marker")); err != nil || !yes {
		t.Fatal(yes, err)
	}
	for name := range attacks {
		marker := name[strings.LastIndex(name, " ")+1:]
		if yes, err := capture.Contains([]byte(marker)); err != nil || yes {
			t.Errorf("%s reached b: %v, %v", name, yes, err)
		}
	}
	var drops struct {
		Drops []node.Drop `json:"drops"`
	}
	r.ok(a.Ask(r.ctx, &drops, "drops"))
	counts := map[string]uint64{}
	for _, d := range drops.Drops {
		counts[d.Reason] = d.Count
	}
	for _, f := range spoofs(own, victim, addr) {
		if counts[f.reason] == 0 {
			t.Errorf("nothing is counted as %s: %v", f.reason, counts)
		}
	}
	r.pings(a.Host, addr[1], 2*time.Second)
	r.pings(b.Host, addr[0], 2*time.Second)
}

// Names: only granted ones, from this host alone; others go to the host's own resolver.
func TestNames(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.PortPreserving, "--label", "team=y")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	_, err = r.Admin(r.ctx, "segment", "add", "other")
	r.ok(err)
	_, err = r.Grant(r.ctx, "label:team=y", "segment:other")
	r.ok(err)
	_, err = r.Grant(r.ctx, "node:b", "segment:other")
	r.ok(err)
	addr := r.addresses(a, b, c)
	// b has two addresses by now, or will have; a is to hear of the one on the segment that they share.
	addr[1], _, _ = strings.Cut(strings.Fields(r.sh(b.Host, "ip -4 -o addr show dev loom0"))[3], "/")
	resolves := func(n *world.Node, name string) string {
		out, _ := n.Host.Run(r.ctx, "getent", "ahostsv4", name+".etherloom.internal")
		first, _, _ := strings.Cut(out, " ")
		return first
	}
	r.await("a resolves b", 5*time.Second, func() bool { return resolves(a, "b") == addr[1] })
	if got := resolves(a, "c"); got != "" {
		t.Errorf("a, who shares nothing with c, resolves it to %s", got)
	}
	if got := resolves(c, "a"); got != "" {
		t.Errorf("c resolves a to %s", got)
	}
	if got := resolves(c, "b"); got == "" || got == addr[1] {
		t.Errorf("c resolves b to %q, which should be b's address on the segment that they share", got)
	}
	// From the overlay and from the LAN the server is not there.
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	out, err := b.Host.Run(ctx, "dig", "+time=1", "+tries=1", "@"+addr[0], "a.etherloom.internal")
	if err == nil || strings.Contains(out, "ANSWER: 1") {
		t.Errorf("a answers b's question over the overlay: %s", out)
	}
	if out, err := b.Host.Run(ctx, "dig", "+tcp", "+time=1", "+tries=1", "@"+addr[0], "a.etherloom.internal"); err == nil {
		t.Errorf("a answers b's question by TCP: %s", out)
	}
}

// The same again with static addresses, with none, and with a DHCP server on the segment.
func TestAddressModes(t *testing.T) {
	r := newRig(t)
	_, err := r.Admin(r.ctx, "segment", "add", "office", "--prefix", "198.51.100.0/24")
	r.ok(err)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	_, err = r.Grant(r.ctx, "label:team=x", "segment:office")
	r.ok(err)
	r.addresses(a, b)
	set := func(n, mode string, args ...string) {
		t.Helper()
		_, err := r.Admin(r.ctx, append([]string{"node", "address", n, "--segment", "office", "--mode", mode}, args...)...)
		r.ok(err)
	}
	set("a", "static", "--address", "198.51.100.200/24")
	r.await("a has its static address", 5*time.Second, func() bool { return strings.Contains(r.sh(a.Host, "ip -br addr show loom0"), "198.51.100.200/24") })
	r.pings(b.Host, "198.51.100.200", 5*time.Second)
	if _, err := r.Admin(r.ctx, "node", "address", "b", "--segment", "office", "--mode", "static", "--address", "198.51.100.200/24"); err == nil {
		t.Error("two machines were given one address")
	}

	set("b", "none")
	r.await("b has no address", 5*time.Second, func() bool { return !strings.Contains(r.sh(b.Host, "ip -br addr show loom0"), "198.51.100.") })

	server, err := a.Host.Start(r.ctx, "dnsmasq", "-d", "--port=0", "-i", "loom0", "--bind-interfaces",
		"--dhcp-range=198.51.100.210,198.51.100.219,2m", "--dhcp-leasefile="+filepath.Join(r.Dir(), "leases"), "--conf-file=/dev/null")
	r.ok(err)
	defer func() { _ = server.Stop(time.Second) }()
	set("b", "dhcp")
	// A machine that is no DHCP server is not heard (case I08), neither by its own node.
	r.await("a's answers are refused", 30*time.Second, func() bool { return r.dropped(a)["not-dhcp-server"] >= 3 })
	if out := r.sh(b.Host, "ip -br addr show loom0"); strings.Contains(out, "198.51.100.") {
		t.Errorf("b has an address from a machine that is no DHCP server: %s", out)
	}
	_, err = r.Admin(r.ctx, "node", "role", "a", "--segment", "office", "--add", "dhcp-server")
	r.ok(err)
	r.await("b has a leased address", 30*time.Second, func() bool { return strings.Contains(r.sh(b.Host, "ip -br addr show loom0"), "198.51.100.21") })
	r.pings(b.Host, "198.51.100.200", 5*time.Second)
	if data, _ := os.ReadFile(filepath.Join(r.Dir(), "leases")); !strings.Contains(string(data), "198.51.100.21") {
		t.Errorf("the server knows no lease: %s", data)
	}
}

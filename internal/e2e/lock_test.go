package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// lockBar is how long after a lock's command the last frame may come, either way.
const lockBar = time.Second

// lockPair is two nodes under traffic, of which one, b, has a label to be locked by.
func lockPair(t *testing.T) (r *rig, a, b *world.Node, macs [2]net.HardwareAddr) {
	t.Helper()
	r = newRig(t)
	a = r.site("a", lab.PortPreserving, "--label", "team=x")
	b = r.site("b", lab.PortPreserving, "--label", "team=x", "--label", "lost=yes")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	r.pings(a.Host, r.addresses(a, b)[1], 10*time.Second)
	return r, a, b, [2]net.HardwareAddr{r.mac(a), r.mac(b)}
}

// TestLockCuts: a lock by label cuts what flows, both ways, at both ends. Each end does so without the other: where b does
// not hear of the lock a refuses what it goes on sending, and where a does not hear of it b sends and takes nothing more.
func TestLockCuts(t *testing.T) {
	r, a, b, macs := lockPair(t)
	for _, c := range []struct {
		name string
		deaf *world.Node // hears nothing of the controller
	}{{"both hear of it", nil}, {"b does not", b}, {"a does not", a}} {
		w := r.beating(a, b, macs[0], macs[1], 30*time.Second)
		var deaf *lab.Rule
		if c.deaf != nil {
			var err error
			deaf, err = c.deaf.Uplink.Drop(lab.Match{Protocol: unix.IPPROTO_TCP})
			r.ok(err)
		}
		_, err := r.Admin(r.ctx, "node", "lock", "--label", "lost=yes", "--message", "lost laptop")
		r.ok(err)
		for i, after := range r.silence(w, time.Now(), 2*lockBar) {
			t.Logf("%s, %s: the last frame came %v after the command's end", c.name, w[i].name, after)
			if after > lockBar {
				t.Errorf("%s, %s: frames flowed for %v after the lock", c.name, w[i].name, after)
			}
		}
		if c.deaf != a {
			r.forgotten(a, "b", macs[1])
		}
		if c.deaf != b {
			r.closed(b)
		}
		if deaf != nil {
			r.ok(deaf.Remove())
			r.await("both know", 30*time.Second, func() bool {
				return r.peer(a, "b").ID == 0 && len(r.status(b).Segments) == 0
			})
		}
		_, err = r.Admin(r.ctx, "node", "unlock", "--label", "lost=yes")
		r.ok(err)
		r.await("b is back", 15*time.Second, func() bool { return len(r.status(b).Segments) == 1 })
	}
}

func (r *rig) status(n *world.Node) (s node.Status) {
	r.Helper()
	r.ok(n.Ask(r.ctx, &s, "status"))
	return s
}

// forgotten checks that a node knows nothing of another any more: no peer, no port, no address in the FDB, no name.
func (r *rig) forgotten(n *world.Node, name string, mac net.HardwareAddr) {
	r.Helper()
	if p := r.peer(n, name); p.ID != 0 {
		r.Errorf("%s still knows %s: %+v", n.Name, name, p)
	}
	var ports struct {
		Ports []node.Port `json:"ports"`
	}
	r.ok(n.Ask(r.ctx, &ports, "ports"))
	for _, p := range ports.Ports {
		if p.Port == name {
			r.Errorf("%s has a port to %s: %+v", n.Name, name, p)
		}
	}
	var fdb struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	r.ok(n.Ask(r.ctx, &fdb, "fdb"))
	for _, e := range fdb.FDB {
		if e.MAC == mac.String() {
			r.Errorf("%s's FDB has %s's address: %+v", n.Name, name, e)
		}
	}
	if out, err := n.Host.Run(r.ctx, "getent", "hosts", name+".etherloom.internal"); err == nil {
		r.Errorf("%s resolves %s: %s", n.Name, name, out)
	}
}

// closed checks that a locked node has closed its own end, too, and says why.
func (r *rig) closed(n *world.Node) {
	r.Helper()
	r.await(n.Name+" says that it is locked", 10*time.Second, func() bool { return r.status(n).Lock != nil })
	s := r.status(n)
	if s.Lock.Message != "lost laptop" || len(s.Segments) != 0 || len(s.Relays) != 0 {
		r.Errorf("%s: lock %+v, segments %v, relays %v", n.Name, s.Lock, s.Segments, s.Relays)
	}
	out, err := n.Loom(r.ctx, "status")
	r.ok(err)
	if !strings.Contains(out, "LOCKED") || !strings.Contains(out, "lost laptop") {
		r.Errorf("%s's status is\n%s", n.Name, out)
	}
	r.noTAP(n)
}

func (r *rig) noTAP(n *world.Node) {
	r.Helper()
	if out, err := n.Host.Run(r.ctx, "ip", "-br", "link"); err != nil || strings.Contains(out, "loom") {
		r.Errorf("%s has a TAP: %s, %v", n.Name, out, err)
	}
}

// TestLockSurvivesRestarts: the controller, the peer and the locked node itself are started again, the last also while no
// controller is there; nothing lets it in but the end of the lock's time, which does within a few seconds.
func TestLockSurvivesRestarts(t *testing.T) {
	r, a, b, macs := lockPair(t)
	w := r.beating(a, b, macs[0], macs[1], 30*time.Second)
	ttl := 30 * time.Second // in which all is started again
	if raced() {
		ttl = 80 * time.Second
	}
	_, err := r.Admin(r.ctx, "node", "lock", "--label", "lost=yes", "--ttl", ttl.String(), "--message", "lost laptop")
	r.ok(err)
	end := time.Now().Add(ttl)
	r.silence(w, time.Now(), lockBar)
	r.closed(b)

	r.killController()
	r.ok(a.Stop())
	r.ok(a.Restart(r.ctx))
	r.ok(b.Stop())
	r.ok(b.Restart(r.ctx))
	r.forgotten(a, "b", macs[1])
	r.noTAP(b)
	r.ok(r.StartController(r.ctx))
	r.await("a is back", 10*time.Second, func() bool { return r.status(a).Controllers[0].Connected })
	r.closed(b)
	r.forgotten(a, "b", macs[1])
	if s := r.status(b); s.Lock == nil || s.Lock.Until.Sub(end).Abs() > 5*time.Second {
		t.Errorf("b's lock is %+v, want until %v", s.Lock, end)
	}
	if left := time.Until(end); left < 0 {
		t.Fatalf("all this took %v longer than the lock", -left)
	}
	out, err := r.Admin(r.ctx, "node", "show", "b")
	r.ok(err)
	if !strings.Contains(out, "lock 1 on label:lost=yes (until ") {
		t.Errorf("node show b:\n%s", out)
	}
	time.Sleep(time.Until(end))
	r.await("b is back", 10*time.Second, func() bool { return len(r.status(b).Segments) == 1 })
	r.silence(r.beating(a, b, macs[0], macs[1], 10*time.Second), time.Now(), 0)
	t.Logf("frames flow both ways %v after the end of the lock", time.Since(end))
	if out, err := r.Admin(r.ctx, "node", "locks", "--json"); err != nil || !strings.Contains(out, `"locks": []`) {
		t.Errorf("node locks: %s, %v", out, err)
	}
}

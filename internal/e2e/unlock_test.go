package e2e

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// Two locked ports, of which one is let in again (case I03): a bridge flushes what it keeps of that one alone. Here two nodes are
// locked, one after the other, and a third one's tables show that a lock, and its end, touch nobody else: not the entries, not
// the flows. The one that stays locked does not hear of it, and goes on sending, so that it is the third that keeps it out.
func TestUnlockOne(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.PortPreserving, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b, c)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.pings(a.Host, addr[2], 10*time.Second)
	macA, macB, macC := r.mac(a), r.mac(b), r.mac(c)
	toB, toC := r.beating(a, b, macA, macB, 30*time.Second), r.beating(a, c, macA, macC, 30*time.Second)
	deaf, err := c.Uplink.Drop(lab.Match{Protocol: unix.IPPROTO_TCP})
	r.ok(err)

	r.lock("lock", "b")
	for i, after := range r.silence(toB, time.Now(), 2*lockBar) {
		if after > lockBar {
			t.Errorf("%s: frames flowed for %v after the lock", toB[i].name, after)
		}
	}
	r.forgotten(a, "b", macB)
	r.at(a, macC.String(), "c")
	r.flowing(toC)

	r.lock("lock", "c")
	locked := time.Now()
	time.Sleep(lockBar)
	r.forgotten(a, "b", macB)
	r.forgotten(a, "c", macC)

	r.lock("unlock", "b")
	r.await("b is back", 15*time.Second, func() bool { return len(r.status(b).Segments) == 1 })
	r.silence(r.beating(a, b, macA, macB, 15*time.Second), time.Now(), 0)
	r.at(a, macB.String(), "b")
	r.forgotten(a, "c", macC)
	for i, after := range r.silence(toC, locked, 3*lockBar) {
		if t.Logf("%s: the last frame came %v after the lock", toC[i].name, after); after > lockBar {
			t.Errorf("%s: frames flowed for %v after the lock, or again when b was let in", toC[i].name, after)
		}
	}

	r.ok(deaf.Remove())
	r.await("c knows that it is locked", 30*time.Second, func() bool { return len(r.status(c).Segments) == 0 })
	r.lock("unlock", "c")
	r.await("c is back", 15*time.Second, func() bool { return len(r.status(c).Segments) == 1 })
	r.silence(r.beating(a, c, macA, macC, 30*time.Second), time.Now(), 0)
	r.at(a, macB.String(), "b")
	r.at(a, macC.String(), "c")
}

func (r *rig) lock(what, name string) {
	r.Helper()
	_, err := r.Admin(r.ctx, "node", what, name)
	r.ok(err)
}

// at checks that a node's FDB has a MAC at the port of a peer.
func (r *rig) at(n *world.Node, mac, port string) {
	r.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	r.ok(n.Ask(r.ctx, &list, "fdb"))
	for _, e := range list.FDB {
		if e.MAC == mac && e.Port == port {
			return
		}
	}
	r.Errorf("%s's FDB does not have %s at %s: %+v", n.Name, mac, port, list.FDB)
}

// flowing checks that beats still come, either way, half as often as they are meant to be sent, for the machine may be busy.
func (r *rig) flowing(w beats) {
	r.Helper()
	const last = time.Second
	var was [2]int
	seen := func(b *beat) int {
		n, _, err := b.tap.Seen(b.marker)
		r.ok(err)
		return n
	}
	for i, b := range w {
		was[i] = seen(b)
	}
	time.Sleep(last)
	for i, b := range w {
		if n := seen(b) - was[i]; n < int(last/beatEvery)/2 {
			r.Errorf("%s: %d frames came in %v, want one every %v", b.name, n, last, beatEvery)
		}
	}
}

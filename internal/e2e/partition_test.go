package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/transport"
)

// forwarders are how many gateways say that they carry the VLAN.
func (r *redundant) forwarders() (n int) {
	for _, gw := range r.gateways {
		var p node.PortDetail
		if gw.Ask(r.ctx, &p, "port", "show", "lan") == nil && p.Forwarder != nil && p.Forwarder.Phase == "forwards" {
			n++
		}
	}
	return n
}

// reaches reports whether a node has a path to a peer that carries something.
func (r *rig) reaches(n *world.Node, peer string) bool {
	r.Helper()
	return slices.ContainsFunc(r.peer(n, peer).Paths, func(p transport.PathStatus) bool { return p.Alive })
}

// G13: the overlay between two gateways is cut, directly and by the relay, while both see the VLAN and other nodes. One goes on to carry it,
// for they hear each other there; and within five seconds after the overlay has healed there is exactly one. All the while no frame comes
// twice.
func TestPartitionG13(t *testing.T) {
	r := newRedundant(t)
	r.settled()
	gw1, gw2 := r.gateways[0], r.gateways[1]
	cut := append(lab.Address("203.0.113.23"), lab.Address(world.ControllerAddr)...) // the third site, gw2's; the controller, and the relay beside it
	var rule *lab.Rule
	gap := r.through("cut", func() {
		var err error
		rule, err = gw1.Uplink.Drop(cut...)
		r.ok(err)
	})
	t.Logf("cut: nothing for %v at most", gap.Round(time.Millisecond))
	if gap > time.Second {
		t.Errorf("cut: nothing came for %v", gap)
	}
	r.await("the gateways have no path to each other", 30*time.Second, func() bool {
		return !r.reaches(gw1, "gw2") && !r.reaches(gw2, "gw1")
	})
	for range 20 {
		if n := r.forwarders(); n != 1 {
			r.await("one gateway forwards again", time.Second, func() bool { return r.forwarders() == 1 })
		}
		time.Sleep(100 * time.Millisecond)
	}
	if gap := r.through("while it is cut", func() {}); gap > time.Second {
		t.Errorf("while it is cut nothing came for %v", gap)
	}
	var healed time.Time
	gap = r.through("healed", func() {
		r.ok(rule.Remove())
		healed = time.Now()
		r.await("exactly one gateway forwards", 5*time.Second, func() bool { return r.forwarders() == 1 })
		t.Logf("one forwards %v after the overlay has healed", time.Since(healed).Round(time.Millisecond))
	})
	if gap > time.Second {
		t.Errorf("healed: nothing came for %v", gap)
	}
	r.await("the gateways reach each other", 30*time.Second, func() bool {
		return r.reaches(gw1, "gw2")
	})
	r.forwarder(10 * time.Second)
}

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// blocked returns the gateways one of whose ports the loop guard blocks.
func (r *rig) blocked(gateways ...*world.Node) (out []string) {
	r.Helper()
	for _, n := range gateways {
		if slices.ContainsFunc(r.ports(n), func(p node.Port) bool { return p.State == "blocked" }) {
			out = append(out, n.Name)
		}
	}
	return out
}

// awaitBlocked waits until the loop guard blocks a port, which takes a second at most.
func (r *rig) awaitBlocked(began time.Time, gateways ...*world.Node) {
	r.Helper()
	r.await("a port is blocked", 3*time.Second, func() bool { return len(r.blocked(gateways...)) > 0 })
	took := time.Since(began)
	r.Logf("blocked at %v after %v", r.blocked(gateways...), took.Round(time.Millisecond))
	if took > time.Second {
		r.Errorf("a port is blocked after %v, want 1 s at most", took)
	}
}

// Two VLANs that the overlay joins already are joined by a cable, too: no frame comes more than 20 times, one of the ports is
// blocked and says so within three seconds, and all is as before within ten seconds of the cable's removal.
func TestLoopByCable(t *testing.T) {
	b := newBridged(t, 1500)
	here, there := b.machine(b.officeLAN, "here", 10, "192.168.10.2/24"), b.machine(b.plantLAN, "there", 30, "192.168.10.3/24")
	b.awaitAttached(b.office, b.plant)
	b.pings(here, "192.168.10.3", 10*time.Second)
	atHere, atThere := b.arrivals(here, "eth0"), b.arrivals(there, "eth0")
	mac := b.macOn(here, "eth0")

	patch, err := b.Lab.AddBridge("patch")
	b.ok(err)
	frames := lab.NewTrain(lab.Ethernet(lab.Broadcast(), mac, lab.Experimental), 500, 10*time.Millisecond)
	sent := make(chan error, 1)
	go func() { _, err := here.SendTrain(b.ctx, "eth0", frames); sent <- err }()
	time.Sleep(500 * time.Millisecond)
	_, err = b.plantLAN.Access(b.ctx, lab.Plug{On: patch}, 30)
	b.ok(err)
	cable, err := b.officeLAN.Access(b.ctx, lab.Plug{On: patch}, 10)
	b.ok(err)
	began := time.Now()
	b.awaitBlocked(began, b.office, b.plant)
	for _, name := range b.blocked(b.office, b.plant) {
		for _, n := range []*world.Node{b.office, b.plant} {
			if n.Name == name {
				b.awaitProblem(n, "port lan", "blocked")
			}
		}
	}
	b.ok(<-sent)
	b.pings(here, "192.168.10.3", 5*time.Second) // the cable carries it now
	for _, c := range []*lab.Capture{atHere, atThere} {
		if most := b.copies(c, frames); most > 20 {
			t.Errorf("a frame came %d times", most)
		}
	}

	b.ok(b.officeLAN.Unplug(b.ctx, cable))
	began = time.Now()
	b.await("no port is blocked", 10*time.Second, func() bool { return len(b.blocked(b.office, b.plant)) == 0 })
	b.pings(here, "192.168.10.3", 10*time.Second-time.Since(began))
	t.Logf("healed after %v", time.Since(began).Round(time.Millisecond))
}

// The cable carries frames one way only, as a fibre does of which one strand is dead: what goes round moves no address, and whoever
// would block may not hear of the other. No frame comes more than 20 times for all that.
func TestLoopOneWay(t *testing.T) {
	for _, way := range []string{"from the greater", "from the lesser"} {
		t.Run(way, func(t *testing.T) {
			b := newBridged(t, 1500)
			here, there := b.machine(b.officeLAN, "here", 10, "192.168.10.2/24"), b.machine(b.plantLAN, "there", 30, "192.168.10.3/24")
			b.awaitAttached(b.office, b.plant)
			b.pings(here, "192.168.10.3", 10*time.Second)
			atHere, atThere := b.arrivals(here, "eth0"), b.arrivals(there, "eth0")

			// On the patch the office's port is p1, and the plant's p2: one of them gives nothing out.
			patch, err := b.Lab.AddBridge("patch")
			b.ok(err)
			b.sh(patch, "ip link set br0 down")
			_, err = b.officeLAN.Access(b.ctx, lab.Plug{On: patch}, 10)
			b.ok(err)
			_, err = b.plantLAN.Access(b.ctx, lab.Plug{On: patch}, 30)
			b.ok(err)
			dumb, from, mac := "p2", here, b.macOn(here, "eth0")
			if way == "from the lesser" {
				dumb, from, mac = "p1", there, b.macOn(there, "eth0")
			}
			frames := lab.NewTrain(lab.Ethernet(lab.Broadcast(), mac, lab.Experimental), 500, 10*time.Millisecond)
			sent := make(chan error, 1)
			go func() { _, err := from.SendTrain(b.ctx, "eth0", frames); sent <- err }()
			time.Sleep(500 * time.Millisecond)
			b.sh(patch, "bridge link set dev "+dumb+" flood off mcast_flood off bcast_flood off learning off && ip link set br0 up")
			began := time.Now()
			b.awaitBlocked(began, b.office, b.plant)
			b.ok(<-sent)
			for _, c := range []*lab.Capture{atHere, atThere} {
				if most := b.copies(c, frames); most > 20 {
					t.Errorf("a frame came %d times", most)
				}
			}
		})
	}
}

// copies is how often the frame came that came most often, by whatever way.
func (r *rig) copies(c *lab.Capture, t lab.Train) int {
	r.Helper()
	counts, most := map[string]int{}, 0
	r.ok(c.Each(func(frame []byte) bool {
		if strings.HasPrefix(string(frame), string(t.Head)) {
			counts[string(frame)]++
			most = max(most, counts[string(frame)])
		}
		return true
	}))
	r.Logf("%d different frames came, one %d times", len(counts), most)
	return most
}

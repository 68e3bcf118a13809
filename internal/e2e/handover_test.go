package e2e

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// A gateway whose port is shut, or disabled by a fault, hands its VLAN over, and has it back when the port is open again. One that is preferred and has
// restarted takes it only when its links are open, so that the VLAN is silent for no longer than at any takeover.
func TestShutHandsOver(t *testing.T) {
	r := newRedundant(t)
	r.ok(r.sw.Configure(r.ctx, "set", "Bridge", "sw0", "other_config:forward-bpdu=true"))
	_, err := r.Admin(r.ctx, "attachment", "set", "gw1/lan", "--nic", "lan", "--vlan", "10", "--preference", strconv.Itoa(100))
	r.ok(err)
	first := r.gateways[0]
	r.preferred()
	r.setPort(first, "set", "lan", "guard=on", "recovery=0s")
	bpdu := spanning(r.macOn(r.machine, "eth0"))["RSTP"]
	for _, c := range []struct {
		what      string
		end, mend func()
	}{
		{"shut", func() { r.setPort(first, "set", "lan", "shut=on") }, func() { r.setPort(first, "set", "lan", "shut=off") }},
		{"disabled by guard", func() { r.inject(r.machine, "eth0", bpdu) }, func() { r.setPort(first, "enable", "lan") }},
	} {
		gap := r.through(c.what, c.end)
		t.Logf("%s: nothing for %v", c.what, gap.Round(time.Millisecond))
		if gap > 1500*time.Millisecond {
			t.Errorf("%s: nothing came for %v", c.what, gap)
		}
		back := r.through(c.what+", and open again", c.mend)
		t.Logf("open again: nothing for %v", back.Round(time.Millisecond))
		if back > time.Second {
			t.Errorf("%s, and open again: nothing came for %v", c.what, back)
		}
		r.preferred()
	}
	for _, down := range []time.Duration{5 * time.Second, 8 * time.Second} {
		r.ok(first.Daemon.Signal(syscall.SIGKILL))
		<-first.Daemon.Done()
		silence := r.silence(down + 20*time.Second)
		time.Sleep(down)
		began := time.Now()
		r.ok(first.Restart(r.ctx))
		r.preferred()
		t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
		gap := silence()
		t.Logf("down for %v: nothing for %v", down, gap.Round(time.Millisecond))
		if gap > time.Second {
			t.Errorf("restarted after %v: nothing came for %v", down, gap)
		}
	}
}

// preferred waits until the first gateway forwards.
func (r *redundant) preferred() {
	r.Helper()
	r.await("the preferred gateway forwards", 30*time.Second, func() bool {
		d := r.portOf(r.gateways[0], "lan")
		return d.Forwarder != nil && d.Forwarder.Phase == "forwards"
	})
}

// silence sends frames both ways from a second after now on, for a while; what it returns waits for the end, and says for how long nothing came at
// either end.
func (r *redundant) silence(during time.Duration) func() time.Duration {
	r.Helper()
	const every = 5 * time.Millisecond
	up := lab.NewTrain(lab.Ethernet(lab.Broadcast(), r.macOn(r.machine, "eth0"), lab.Experimental), int(during/every), every)
	down := lab.NewTrain(lab.Ethernet(lab.Broadcast(), r.macOn(r.far.Host, "loom0"), lab.Experimental), int(during/every), every)
	done := make(chan error, 2)
	time.Sleep(time.Second) // so that the other gateway has taken over
	ctx, cancel := context.WithTimeout(r.ctx, during+10*time.Second)
	go func() { _, err := r.machine.SendTrain(ctx, "eth0", up); done <- err }()
	go func() { _, err := r.far.Host.SendTrain(ctx, "loom0", down); done <- err }()
	return func() (worst time.Duration) {
		r.Helper()
		defer cancel()
		for range 2 {
			r.ok(<-done)
		}
		for _, end := range []struct {
			at *lab.Capture
			t  lab.Train
		}{{r.atFar, up}, {r.atMachine, down}} {
			a, err := end.at.AwaitTrain(r.ctx, end.t, end.t.Head, quiet)
			r.ok(err)
			if a.Extra != 0 || a.Changed != 0 || a.Whole == 0 {
				r.Errorf("of a train %d frames came, %d further copies, %d changed", a.Whole, a.Extra, a.Changed)
			}
			worst = max(worst, a.Gap)
		}
		return worst
	}
}

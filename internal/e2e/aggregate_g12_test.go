package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// G12: a machine behind a link aggregation to two gateways. A hundred flows from elsewhere are carried by both, each direction as the hash of
// its end has it, though a firewall's rule lets only one end begin; what is for all comes once. When one gateway dies, all go on by the other
// within a second, connections included over which the machine alone sends; and when it is back, it carries its part again.
func TestGatewayG12(t *testing.T) {
	a := newAggregated(t, static)
	a.both(20 * time.Second)
	a.pings(a.far.Host, a.at, 10*time.Second)
	a.observe()
	a.broadcasts("at rest", 500)

	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	flows, pushes := a.exchanges(ctx, 100, 100*time.Millisecond), a.pushes(ctx, 10)
	began := time.Now()
	time.Sleep(5 * time.Second)
	a.spread("at rest", began)
	if longest, late := worst(flows, began.Add(time.Second)); late > 0 {
		t.Errorf("at rest %d flows are without an answer for up to %v", late, longest)
	}
	a.refused()
	a.broadcasts("with flows", 300)

	const dies = 0
	gw := a.gateways[dies]
	at := time.Now()
	a.ok(gw.Daemon.Signal(syscall.SIGKILL))
	a.ok(a.nics[dies].Peer().Down()) // a machine that dies takes its carrier along
	time.Sleep(4 * time.Second)
	longest, late := worst(flows, at)
	t.Logf("killed: nothing for %v at most", longest.Round(time.Millisecond))
	if late > 0 {
		t.Errorf("%d of 100 flows are without an answer for more than a second, up to %v", late, longest)
	}
	for i, x := range pushes {
		a.await(fmt.Sprint("connection ", i, " goes on"), 20*time.Second, func() bool { return x.silence(time.Now().Add(-time.Second)) < time.Second })
	}
	survivor := 1 - dies
	since := time.Now()
	time.Sleep(2 * time.Second)
	if in, out := a.flowsAt(a.in[survivor], since), a.flowsAt(a.out[survivor], since); len(in) != 100 || len(out) != 100 {
		t.Errorf("the other gateway carries %d flows from the VLAN and %d to it, want 100", len(in), len(out))
	}
	a.refused()
	a.broadcasts("by one gateway", 300)

	<-gw.Daemon.Done()
	at = time.Now()
	a.ok(gw.Restart(a.ctx))
	a.await("it runs", 20*time.Second, func() bool { return a.state(dies) != nil })
	a.ok(a.nics[dies].Peer().Up())
	t.Logf("plugged in after %v", time.Since(at).Round(time.Millisecond))
	a.both(20 * time.Second)
	t.Logf("carries after %v", time.Since(at).Round(time.Millisecond))
	time.Sleep(4 * time.Second)
	longest, late = worst(flows, at)
	t.Logf("back: nothing for %v at most", longest.Round(time.Millisecond))
	if late > 0 {
		t.Errorf("back: %d of 100 flows are without an answer for more than a second, up to %v", late, longest)
	}
	since = time.Now()
	time.Sleep(3 * time.Second)
	a.spread("after its return", since)
	for i, x := range pushes {
		a.await(fmt.Sprint("connection ", i, " lives"), 20*time.Second, func() bool { return x.silence(time.Now().Add(-time.Second)) < time.Second })
	}
	a.refused()
	a.broadcasts("after its return", 300)
}

// spread checks that each gateway carries at least 30 of a hundred flows each way, and that some go by one and come back by the other.
func (a *aggregated) spread(what string, since time.Time) {
	a.Helper()
	crossing := 0
	for i, n := range a.gateways {
		in, out := a.flowsAt(a.in[i], since), a.flowsAt(a.out[i], since)
		a.Logf("%s: %s carries %d flows from the VLAN, %d to it", what, n.Name, len(in), len(out))
		if len(in) < 30 || len(out) < 30 {
			a.Errorf("%s: %s carries %d of 100 flows from the VLAN and %d to it, want 30 at least", what, n.Name, len(in), len(out))
		}
		for port := range out {
			if !in[port] {
				crossing++
			}
		}
	}
	a.Logf("%s: %d flows have their answers by the other gateway", what, crossing)
	if crossing == 0 {
		a.Errorf("%s: no flow has its answers by the other gateway, so nothing is shown of that", what)
	}
}

// refused begins flows from the machine, by either gateway, and fails if anything of them comes.
func (a *aggregated) refused() {
	a.Helper()
	sink, err := a.far.Host.ListenPacket(a.ctx, "udp4", a.addr+":0")
	a.ok(err)
	defer sink.Close()
	for range 40 { // from as many ports, so that both gateways get some
		conn, err := a.machine.Dial(a.ctx, "udp4", sink.LocalAddr().String())
		a.ok(err)
		_, _ = conn.Write([]byte("nobody may begin this"))
		_ = conn.Close()
	}
	a.ok(sink.SetReadDeadline(time.Now().Add(time.Second)))
	b := make([]byte, 100)
	if n, from, err := sink.ReadFrom(b); err == nil {
		a.Errorf("%q came from %v, which no grant lets begin", b[:n], from)
	}
}

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/node"
)

// G12 with LACP: what only the daemon's death tells, and no carrier, the switch learns in three seconds, and what a gateway says of itself at
// once. All flows go on by the other gateway, no connection breaks, and nothing comes twice; one that is back takes its part.
func TestGatewayLACP(t *testing.T) {
	a := newAggregated(t, byLACP)
	a.both(30 * time.Second)
	a.aggregatedByLACP()
	a.pings(a.far.Host, a.at, 10*time.Second)
	a.observe()
	a.ok(a.sw.Rehash(a.ctx, "lag")) // or what has come before the second cable was in use stays on the first
	a.broadcasts("at rest", 500)

	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	flows, pushes := a.exchanges(ctx, 100, 100*time.Millisecond), a.pushes(ctx, 10)
	began := time.Now()
	time.Sleep(5 * time.Second)
	a.spread("at rest", began)
	a.refused()

	// lives waits until all flows go by one gateway, or by both, and says for how long any was without an answer.
	lives := func(what string, since time.Time, most time.Duration) {
		t.Helper()
		for i, x := range append(flows, pushes...) {
			a.await(fmt.Sprint(what, ": flow ", i, " goes on"), 20*time.Second, func() bool { return x.silence(time.Now().Add(-time.Second)) < time.Second })
		}
		longest, late := worst(flows, since)
		t.Logf("%s: nothing for %v at most, %d flows for more than a second", what, longest.Round(time.Millisecond), late)
		if longest > most {
			t.Errorf("%s: flows are without an answer for up to %v, want %v at most", what, longest, most)
		}
		for i, x := range flows {
			if x.mu.Lock(); len(x.answered) > x.sent {
				t.Errorf("%s: flow %d has %d answers to %d datagrams", what, i, len(x.answered), x.sent)
			}
			x.mu.Unlock()
		}
	}
	back := func(what string, since time.Time) {
		t.Helper()
		a.both(30 * time.Second)
		t.Logf("%s: it carries again after %v", what, time.Since(since).Round(time.Millisecond))
		lives(what, since, time.Second)
		a.ok(a.sw.Rehash(a.ctx, "lag"))
		time.Sleep(time.Second)
		since = time.Now()
		time.Sleep(3 * time.Second)
		a.spread(what, since)
		a.refused()
	}

	const dies = 0
	gw := a.gateways[dies]
	at := time.Now()
	a.ok(gw.Daemon.Signal(syscall.SIGKILL)) // and its cable stays as it is
	time.Sleep(5 * time.Second)
	lives("killed", at, 4*time.Second)
	a.broadcasts("by one gateway", 300)
	<-gw.Daemon.Done()
	at = time.Now()
	a.ok(gw.Restart(a.ctx))
	back("restarted", at)
	a.broadcasts("after its return", 300)

	at = time.Now()
	_, err := gw.Loom(a.ctx, "port", "set", "lan", "shut=on")
	a.ok(err)
	time.Sleep(3 * time.Second)
	lives("shut", at, time.Second)
	if p := a.lacp(dies); p == nil || p.Carries || !strings.Contains(p.Why, "cannot carry") || strings.Contains(p.Actor.State, "sync") {
		t.Errorf("one that is shut says %+v", p)
	}
	a.broadcasts("while one is shut", 300)
	at = time.Now()
	_, err = gw.Loom(a.ctx, "port", "set", "lan", "shut=off")
	a.ok(err)
	back("opened", at)

	at = time.Now()
	a.ok(gw.Daemon.Signal(syscall.SIGTERM))
	<-gw.Daemon.Done()
	time.Sleep(3 * time.Second)
	lives("stopped", at, time.Second)
	at = time.Now()
	a.ok(gw.Restart(a.ctx))
	back("started again", at)
}

// lacp is what a gateway says of its aggregation; nil if it does not answer.
func (a *aggregated) lacp(i int) *node.PortLACP {
	var p node.PortDetail
	if a.gateways[i].Ask(a.ctx, &p, "port", "show", "lan") != nil {
		return nil
	}
	return p.LACP
}

// aggregatedByLACP checks that both gateways are one system to one switch, with a port each.
func (a *aggregated) aggregatedByLACP() {
	a.Helper()
	one, two := a.lacp(0), a.lacp(1)
	if one == nil || two == nil || one.Partner == nil || two.Partner == nil {
		a.Fatalf("gateways say %+v and %+v", one, two)
	}
	if !one.Carries || !two.Carries || one.Actor.System != two.Actor.System || one.Actor.Port == two.Actor.Port ||
		one.Partner.System != two.Partner.System || one.Partner.Key != two.Partner.Key || one.Partner.Port == two.Partner.Port {
		a.Errorf("gateways say %+v of %+v, and %+v of %+v", one, one.Partner, two, two.Partner)
	}
}

// A switch that aggregates statically, or not at all, does not speak LACP: with it on, no gateway carries the VLAN, and both say why.
func TestNoLACP(t *testing.T) {
	a := newAggregated(t, static)
	a.both(20 * time.Second)
	_, err := a.Admin(a.ctx, "attachment", "set", "gw2/lan", "--lacp", "on")
	a.ok(err)
	for i, n := range a.gateways {
		a.await(n.Name+" says that the switch does not answer", 20*time.Second, func() bool {
			p := a.lacp(i)
			return p != nil && !p.Carries && p.Why == "the switch does not answer" && !a.state(i).Together
		})
	}
	_, err = a.Admin(a.ctx, "attachment", "set", "gw2/lan", "--lacp", "off")
	a.ok(err)
	a.both(20 * time.Second)
	if p := a.lacp(0); p != nil {
		a.Errorf("without LACP it says %+v", p)
	}
}

// Two aggregations, one for each gateway, are two ways into the VLAN. Both gateways find out by LACP, say so, and one carries it, each frame once.
func TestTwoAggregations(t *testing.T) {
	a := newAggregated(t, apart)
	for i, n := range a.gateways {
		a.await(n.Name+" says that there are two aggregations", 30*time.Second, func() bool {
			var s node.Status
			return n.Ask(a.ctx, &s, "status") == nil && slices.ContainsFunc(s.Problems, func(p node.Problem) bool {
				return strings.Contains(p.Text, "do not end in one link aggregation") && strings.Contains(p.Text, "that of "+a.gateways[1-i].Name+" is ")
			}) && !a.state(i).Together
		})
	}
	a.await("one gateway forwards", 20*time.Second, func() bool {
		n := 0
		for i := range a.gateways {
			if f := a.state(i); f != nil && f.Phase == "forwards" {
				n++
			}
		}
		return n == 1
	})
	a.broadcasts("by two aggregations", 300)
}

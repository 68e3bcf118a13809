package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// Both of two known nodes restart while the controller is down: they find each other again, directly and by the relay.
func TestRestartWithoutController(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.Symmetric, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b, c)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.pings(a.Host, addr[2], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)
	time.Sleep(time.Second) // what is remembered is written

	r.killController()
	for _, n := range []*world.Node{a, b, c} {
		r.ok(n.Stop())
	}
	for _, n := range []*world.Node{a, b, c} {
		r.ok(n.Restart(r.ctx))
	}
	if got := r.addresses(a, b, c); got[0] != addr[0] || got[1] != addr[1] || got[2] != addr[2] {
		t.Errorf("addresses after the restart: %v, before: %v", got, addr)
	}
	r.pings(a.Host, addr[1], 20*time.Second)
	r.pings(c.Host, addr[0], 20*time.Second)
	r.awaitPath(a, "b", "direct", 30*time.Second)
	r.awaitPath(c, "a", "relayed", 10*time.Second)

	var s node.Status
	r.ok(a.Ask(r.ctx, &s, "status"))
	if len(s.Problems) == 0 || s.Problems[0].About != "controllers" {
		t.Errorf("status does not say that there is no controller: %+v", s.Problems)
	}

	// Without the relay, too, the direct pair finds itself.
	r.killRelay()
	for _, n := range []*world.Node{a, b} {
		r.ok(n.Stop())
	}
	for _, n := range []*world.Node{a, b} {
		r.ok(n.Restart(r.ctx))
	}
	// Each side must want the other: a hole is punched from both sides.
	go func() { _, _ = b.Host.Ping(r.ctx, addr[0], lab.Echo{Count: 60, Interval: 500 * time.Millisecond}) }()
	r.pings(a.Host, addr[1], 30*time.Second)
}

// killController kills the controller; its relay lives on.
func (r *rig) killController() {
	r.Helper()
	r.ok(r.ControllerProcess().Signal(syscall.SIGKILL))
	<-r.ControllerProcess().Done()
}

// killRelay kills the relay that a controller, now dead, has left.
func (r *rig) killRelay() {
	r.Helper()
	_, err := r.Controller.Run(r.ctx, "sh", "-c", "kill -9 $(head -n1 "+r.Dir()+"/controller/relay.json.lock)")
	r.ok(err)
}

// steady pings all the time and counts what is lost.
type steady struct {
	end  chan struct{}
	done chan lab.Replies
}

func (r *rig) steady(from *world.Node, to string) *steady {
	s := &steady{make(chan struct{}), make(chan lab.Replies, 1)}
	go func() {
		replies, _ := from.Host.Ping(r.ctx, to, lab.Echo{Count: 100_000, Interval: 50 * time.Millisecond, Wait: time.Second, Stop: s.end})
		s.done <- replies
	}()
	return s
}

func (s *steady) stop() lab.Replies {
	close(s.end)
	return <-s.done
}

// The controller is killed, not the relay: what runs goes on, direct and relayed, and so do new flows between nodes that
// know each other, past the certificates' life. It comes back: the nodes are there within ten seconds. The relay is killed:
// direct pairs notice nothing, and `peers` says why the others are down.
func TestControllerOutage(t *testing.T) {
	const life = 12 * time.Second
	r := newRig(t, "--certificate-lifetime", life.String(), "--grace", "5m")
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.Symmetric, "--label", "team=x")
	d := r.site("d", lab.PortPreserving, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b, c, d)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.pings(a.Host, addr[2], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)

	// Renewal at half life, several times, without a lost frame.
	direct := r.steady(a, addr[1])
	time.Sleep(2*life + life/2)
	if got := direct.stop(); got.Received+1 < got.Sent || got.Sent < 100 {
		t.Errorf("while certificates were renewed, %d of %d pings came back", got.Received, got.Sent)
	}

	r.killController()
	direct, relayed := r.steady(a, addr[1]), r.steady(a, addr[2])
	time.Sleep(2 * life) // every certificate has ended by now
	r.pings(d.Host, addr[1], 10*time.Second)
	r.pings(d.Host, addr[2], 10*time.Second)
	if got := direct.stop(); got.Received+2 < got.Sent {
		t.Errorf("direct, without a controller: %d of %d pings came back", got.Received, got.Sent)
	}
	if got := relayed.stop(); got.Received+2 < got.Sent {
		t.Errorf("relayed, without a controller: %d of %d pings came back", got.Received, got.Sent)
	}

	direct = r.steady(a, addr[1])
	began := time.Now()
	r.ok(r.StartController(r.ctx, "--certificate-lifetime", life.String(), "--grace", "5m"))
	for _, n := range []*world.Node{a, b, c, d} {
		r.await(n.Name+" is back", 10*time.Second-time.Since(began), func() bool {
			var s node.Status
			return n.Ask(r.ctx, &s, "status") == nil && s.Controllers[0].Connected && s.Certificate.After(time.Now())
		})
	}
	t.Logf("all nodes were back %v after the controller's start", time.Since(began))
	time.Sleep(life)
	if got := direct.stop(); got.Received+2 < got.Sent {
		t.Errorf("while the controller came back, %d of %d pings came back", got.Received, got.Sent)
	}

	direct = r.steady(a, addr[1])
	r.killController() // or it would start another relay
	r.killRelay()
	r.await("a's status says that the relay is down", 30*time.Second, func() bool {
		p := r.peer(a, "c")
		return p.Path == "" && strings.Contains(p.Why, "relay") && strings.Contains(p.Why, "down")
	})
	if got := direct.stop(); got.Received+1 < got.Sent {
		t.Errorf("without the relay, %d of %d direct pings came back", got.Received, got.Sent)
	}
}

// A node whose controller is not there when it starts keeps trying, and says so.
func TestControllerDownAtStart(t *testing.T) {
	r := newRig(t)
	s, err := r.Site("a", lab.PortPreserving)
	r.ok(err)
	a, err := s.Node("a")
	r.ok(err)
	r.ok(a.Join(r.ctx, "--label", "team=x"))
	r.killController()
	r.ok(a.Start(r.ctx))
	var st node.Status
	r.ok(a.Ask(r.ctx, &st, "status"))
	if len(st.Problems) == 0 || !strings.Contains(st.Problems[0].Text, "keeps trying") {
		t.Errorf("status = %+v", st.Problems)
	}
	r.ok(r.StartController(r.ctx))
	_, err = r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	r.addresses(a)
}

package node

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// A port that is shut, or disabled by a fault, carries nothing; one whose gate another gateway's claim closes is none of them.
func TestAttachmentIsOpen(t *testing.T) {
	now := time.Now()
	fault := func(p *vswitch.Port) { p.Disable("a bridge", now) }
	for name, c := range map[string]struct {
		edit func(p *vswitch.Port)
		at   time.Duration
		want bool
	}{
		"new":      {func(*vswitch.Port) {}, 0, true},
		"shut":     {func(p *vswitch.Port) { p.SetAttributes(vswitch.Attributes{Shut: true}) }, 0, false},
		"disabled": {fault, 0, false},
		"enabled":  {func(p *vswitch.Port) { fault(p); p.Enable() }, 0, true},
		"recovers": {fault, time.Hour, true},
		"gated":    {func(p *vswitch.Port) { p.SetGate(func(time.Time) bool { return false }) }, 0, true},
	} {
		a := &attachment{port: vswitch.NewPort("lan", vswitch.Attached, 50, nil)}
		c.edit(a.port)
		if got := a.open(now.Add(c.at)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A gateway that begins leaves a VLAN that another one carries to it while its links open, and no longer.
func TestAwaits(t *testing.T) {
	const other, node policy.Identity = 9, 8
	start := time.Now()
	for name, c := range map[string]struct {
		claims bool
		to     policy.Identity // who the only link is to
		after  time.Duration
		opened bool
		want   bool
	}{
		"another carries it":     {true, node, 0, false, true},
		"nobody carries it":      {false, node, 0, false, false},
		"the other has gone":     {true, node, time.Second, false, false},
		"links were open before": {true, node, 0, true, false},
		"nobody to speak to":     {true, other, 0, false, false},
	} {
		d, p := awaiting(t, c.to, c.claims, start)
		p.opened = c.opened
		for at := time.Duration(0); at < c.after; at += 50 * time.Millisecond {
			p.election.Tick(start.Add(at))
		}
		if got := d.sentinel.awaits(p, start.Add(c.after)); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	d, p := awaiting(t, node, true, start)
	p.began = start.Add(-linkless - 1)
	if d.sentinel.awaits(p, start) {
		t.Error("it waits for a dead node without end")
	}
}

// awaiting is a port of a daemon that has one link, to a node that is not there, and hears another gateway.
func awaiting(t *testing.T, to policy.Identity, claims bool, now time.Time) (*Daemon, *post) {
	t.Helper()
	site := newSite(t)
	d := site.daemon()
	must(t, d.take(site.delta(told{version: 5, resources: []*controlv1.Resource{netSettings(), self(), site.peer(8, "b"), site.peer(9, "c")}})))
	seg := &segment{d: d}
	links := map[policy.Identity]*vswitch.Port{
		to: vswitch.NewPort("b", vswitch.Link, to, &link{peer: d.endpoint.Peer(identity.ID(to))}),
	}
	seg.links.Store(&links)
	e, err := election.New(election.Config{Attachment: 50, Node: 1, Gateways: []uint32{9}}, now)
	must(t, err)
	h := election.Hello{Attachment: 50, Node: 9, Able: true, Claims: claims, Ready: true, Lease: 400 * time.Millisecond, Boot: 1, Sequence: 1}
	must(t, e.Hear(9, election.VLAN, h.AppendTo(nil), now))
	return d, &post{a: &attachment{id: 50, seg: seg}, others: []policy.Identity{9}, election: e}
}

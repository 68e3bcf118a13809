package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/bridge/lacp"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// Gateways of one attachment are one system with one key and different ports, over restarts; other attachments, and other networks, are others.
func TestAggregatorOf(t *testing.T) {
	d := newSite(t).daemon()
	gateways := func(ids ...uint32) {
		d.contents = &state.Contents{Machines: map[identity.ID]*controlv1.Machine{50: {Id: 50, Gateways: ids}}}
	}
	gateways(3, selfID)
	at := func(id uint32, key byte, on bool) *controlv1.Attachment {
		return &controlv1.Attachment{Id: id, ProbeKey: slices.Repeat([]byte{key}, 32), Lacp: on}
	}
	if _, on := d.aggregatorOf([]*controlv1.Attachment{at(50, 1, false)}); on {
		t.Error("without LACP it speaks LACP")
	}
	a, on := d.aggregatorOf([]*controlv1.Attachment{at(49, 1, false), at(50, 1, true), at(51, 1, true)})
	again, _ := d.aggregatorOf([]*controlv1.Attachment{at(50, 1, true)})
	if !on || a != again || a.Port != selfID || a.Key != 1 || a.System.MAC[0]&3 != 2 || a.MAC == a.System.MAC {
		t.Errorf("%v: %+v, then %+v", on, a, again)
	}
	if _, err := lacp.New(a); err != nil {
		t.Error(err)
	}
	for name, other := range map[string]*controlv1.Attachment{"attachment": at(51, 1, true), "network": at(50, 2, true)} {
		if b, _ := d.aggregatorOf([]*controlv1.Attachment{other}); b.System == a.System {
			t.Errorf("another %s is the same system", name)
		}
	}
}

// Ports of gateways are numbered alike at each, by their identities, and never alike.
func TestLACPPort(t *testing.T) {
	all := []uint32{7, 3, 65536, 65536 + 7, 65536 + 8, 131072 + 7, 65535}
	seen := map[uint16]uint32{}
	for _, id := range all {
		n := lacpPort(policy.Identity(id), all)
		if other, twice := seen[n]; twice || n == 0 {
			t.Errorf("%d and %d have port %d", id, other, n)
		}
		seen[n] = id
	}
	if seen[7] != 7 || seen[3] != 3 || seen[65535] != 65535 || seen[8] != 65536+7 {
		t.Errorf("ports: %v", seen)
	}
	if n := lacpPort(9, nil); n != 9 {
		t.Errorf("one that is not told of itself has port %d", n)
	}
}

// lagged is a gateway with two VLANs on a NIC that speaks LACP, one that does not, and one on another NIC.
func lagged(t *testing.T) (*sentinel, *trunk, *aggregator, []*post) {
	t.Helper()
	d := newSite(t).daemon()
	s, tr, elsewhere := d.sentinel, &trunk{d: d, to: device{nic: "eth1"}, wire: &bridge.Wire{}}, &trunk{}
	none, _ := bridge.NewTrunk[*attachment]()
	tr.members.Store(none)
	must(t, s.aggregate(tr, lacp.Config{System: lacp.System{MAC: ether.MAC{2, 1}}, Key: 1, Port: 7, MAC: ether.MAC{2, 7}}, true))
	var posts []*post
	for i, in := range []*trunk{tr, tr, tr, elsewhere} {
		id := policy.Identity(50 + i)
		p := &post{a: &attachment{id: id, trunk: in, port: vswitch.NewPort("lan", vswitch.Attached, id, nil)}, others: []policy.Identity{2, 3}}
		p.lag.on, p.lag.heard = i < 2, map[policy.Identity]heardPartner{}
		posts = append(posts, p)
		s.posts[id] = p
	}
	return s, tr, s.aggregators[tr], posts
}

// A NIC is ready while this gateway could carry all of its VLANs that are aggregated by LACP; one that somebody has shut is none of them.
func TestAggregatorReady(t *testing.T) {
	_, tr, _, posts := lagged(t)
	good := election.Conditions{Carrier: true, Synced: true, Peer: true, Peers: true}
	for name, c := range map[string]struct {
		edit func(able map[*post]election.Conditions)
		want bool
	}{
		"all well": {func(map[*post]election.Conditions) {}, true},
		"no peers to have": {func(able map[*post]election.Conditions) {
			able[posts[1]] = election.Conditions{Carrier: true, Synced: true}
		}, true},
		"no live peer": {func(able map[*post]election.Conditions) {
			able[posts[1]] = election.Conditions{Carrier: true, Synced: true, Peers: true}
		}, false},
		"no carrier, or a loop": {func(able map[*post]election.Conditions) {
			able[posts[0]] = election.Conditions{Synced: true, Peer: true}
		}, false},
		"no state": {func(able map[*post]election.Conditions) {
			able[posts[0]] = election.Conditions{Carrier: true, Peer: true}
		}, false},
		"one without LACP":   {func(able map[*post]election.Conditions) { able[posts[2]] = election.Conditions{} }, true},
		"one of another NIC": {func(able map[*post]election.Conditions) { able[posts[3]] = election.Conditions{} }, true},
	} {
		able := map[*post]election.Conditions{}
		for _, p := range posts {
			able[p] = good
		}
		c.edit(able)
		if got := tr.ready(able, time.Now()); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	a := posts[0].a.port.Attributes()
	a.Shut = true
	posts[0].a.port.SetAttributes(a)
	if tr.ready(map[*post]election.Conditions{posts[0]: good}, time.Now()) {
		t.Error("one that is shut is ready")
	}
}

// What a port has of what a forwarder needs is nothing while the switch has it in no aggregation; a port without LACP has it as before.
func TestNotAggregated(t *testing.T) {
	s, _, g, posts := lagged(t)
	now := time.Now()
	joined := join(t, g, now)
	for _, in := range []bool{false, true} {
		able := map[*post]election.Conditions{}
		for _, p := range posts {
			able[p] = election.Conditions{Carrier: true, Synced: true}
		}
		if in {
			g.port, now = joined, now.Add(3*time.Second)
		}
		for p, c := range able {
			p.carrier(g, &c)
			if c.Carrier != (in || !p.lag.on) {
				t.Errorf("attachment %d, aggregated: %v: %+v", p.a.id, in, c)
			}
		}
	}
	c := election.Conditions{Carrier: true}
	if posts[0].carrier(nil, &c); c.Carrier {
		t.Error("without an aggregator it carries")
	}
	if l := s.aggregation(posts[0].a); l == nil || !l.Carries || l.Partner.Key != 5 || l.Partner.System != "0,00:00:5e:00:53:09" || l.Heard == nil || l.PDUsIn == 0 {
		t.Errorf("it shows %+v", l)
	}
	if l := s.aggregation(posts[2].a); l != nil {
		t.Errorf("without LACP it shows %+v", l)
	}
}

// join lets a port of the same gateway be joined by a switch.
func join(t *testing.T, g *aggregator, now time.Time) *lacp.Port {
	t.Helper()
	p, err := lacp.New(g.cfg)
	must(t, err)
	p.SetConditions(lacp.Conditions{Enabled: true, Ready: true}, now)
	for at := now; at.Before(now.Add(3 * time.Second)); at = at.Add(500 * time.Millisecond) {
		must(t, p.Hear(switchSays(p), at))
		p.Tick(at)
	}
	return p
}

// switchSays is the LACPDU of a switch that has heard a port, and has it in its aggregation.
func switchSays(p *lacp.Port) []byte {
	const all = lacp.Activity | lacp.ShortTimeout | lacp.Aggregation | lacp.Sync | lacp.Collecting | lacp.Distributing
	mac := ether.MAC{0, 0, 0x5e, 0, 0x53, 9}
	pdu := lacp.PDU{Actor: lacp.End{System: lacp.System{MAC: mac}, Key: 5, Port: 3, State: all}, Partner: p.Status().Actor}
	return pdu.AppendFrame(nil, mac)
}

// A slow protocol's frame from the NIC is the aggregator's, and nobody else's, while it speaks LACP; and not afterwards.
func TestSlowFrames(t *testing.T) {
	s, tr, g, _ := lagged(t)
	g.port.SetConditions(lacp.Conditions{Enabled: true}, time.Now())
	frame := switchSays(g.port)
	tr.forward(frame, ether.Offload{}, 0, time.Now())
	if n := g.port.Status().Stats.Heard; n != 1 || tr.foreign.Load() != 0 {
		t.Errorf("%d heard, %d foreign", n, tr.foreign.Load())
	}
	other := slices.Clone(frame)
	other[5] = 0x0e
	tr.forward(other, ether.Offload{}, 0, time.Now())
	if n := g.port.Status().Stats.Heard; n != 1 || tr.foreign.Load() != 1 {
		t.Errorf("another frame: %d heard, %d foreign", n, tr.foreign.Load())
	}
	must(t, s.aggregate(tr, g.cfg, true))
	if s.aggregators[tr] != g {
		t.Error("what is set again is made anew")
	}
	must(t, s.aggregate(tr, lacp.Config{}, false))
	tr.forward(frame, ether.Offload{}, 0, time.Now())
	if len(s.aggregators) != 0 || tr.foreign.Load() != 2 || g.port.Status().Stats.Heard != 1 {
		t.Errorf("without LACP: %d foreign, %d heard", tr.foreign.Load(), g.port.Status().Stats.Heard)
	}
	if err := s.aggregate(tr, lacp.Config{}, true); err == nil {
		t.Error("who has no system speaks LACP")
	}
}

// People are told of a switch that says nothing, that leaves the port out for long, or that is another one than the other gateway's; and that it is over.
func TestAggregationProblems(t *testing.T) {
	s, tr, g, posts := lagged(t)
	s.d.trunks[tr.to] = tr
	start := time.Now()
	both := lacp.Conditions{Enabled: true, Ready: true}
	problem := func(c lacp.Conditions, at time.Duration) string {
		s.judgeLocked(tr, g, c, start.Add(at))
		s.tellAggregators()
		return s.d.problems["lacp eth1"]
	}
	g.port.SetConditions(both, start)
	g.port.Tick(start.Add(4 * time.Second))
	g.port.Tick(start.Add(8 * time.Second))
	if text := problem(both, 89*time.Second); text != "" {
		t.Errorf("soon: %s", text)
	}
	if text := problem(both, 90*time.Second); !strings.Contains(text, "nothing by LACP for 90 s") || !strings.Contains(text, "attachment set self/lan --lacp off") {
		t.Errorf("of a silent switch: %q", text)
	}
	pdu, err := lacp.ParsePDU(switchSays(g.port)[ether.HeaderLen:])
	must(t, err)
	pdu.Actor.State &^= lacp.Aggregation
	must(t, g.port.Hear(pdu.AppendFrame(nil, ether.MAC{2, 9}), start.Add(91*time.Second)))
	if text := problem(lacp.Conditions{Enabled: true}, 95*time.Second); text != "" {
		t.Errorf("of one that could not carry: %s", text)
	}
	problem(both, 96*time.Second)
	if text := problem(both, 96*time.Second+apartIsWrong-1); text != "" {
		t.Errorf("soon: %s", text)
	}
	if text := problem(both, 96*time.Second+apartIsWrong); !strings.Contains(text, string(lacp.Individual)) {
		t.Errorf("of one that is left out: %q", text)
	}
	g.port = join(t, g, start)
	posts[1].lag.split, posts[1].lag.heard = 2, map[policy.Identity]heardPartner{2: {partner{lacp.System{Priority: 1, MAC: ether.MAC{2, 8}}, 9}, start}}
	s.names[2] = "gw2"
	if text := problem(both, 0); !strings.Contains(text, "that of gw2 is 1,02:08:00:00:00:00, key 9") || !strings.Contains(text, "switch is 0,00:00:5e:00:53:09, key 5") {
		t.Errorf("of another switch: %q", text)
	}
	posts[1].lag.split = 0
	if text := problem(both, time.Second); text != "" {
		t.Errorf("afterwards: %s", text)
	}
}

// A partner of another gateway's counts if that is one of the same VLAN, says so now, and has said so for a while.
func TestPartnersDiffer(t *testing.T) {
	start := time.Now()
	one, two := partner{lacp.System{Priority: 1, MAC: ether.MAC{2, 1}}, 1}, partner{lacp.System{Priority: 1, MAC: ether.MAC{2, 1}}, 2}
	for name, c := range map[string]struct {
		own, theirs partner
		from        policy.Identity
		want        policy.Identity
	}{
		"the same":        {one, one, 2, 0},
		"another":         {one, two, 2, 2},
		"none here":       {partner{}, two, 2, 0},
		"none there":      {one, partner{}, 2, 0},
		"of no gateway":   {one, two, 9, 0},
		"of a third":      {one, two, 3, 3},
		"another, either": {two, one, 2, 2},
	} {
		l := lag{heard: map[policy.Identity]heardPartner{c.from: {c.theirs, start.Add(splitAfter)}}}
		for _, at := range []time.Duration{0, splitAfter - 1} {
			if l.compare(c.own, []policy.Identity{2, 3}, start.Add(at)); l.split != 0 {
				t.Errorf("%s: it counts after %v", name, at)
			}
		}
		if l.compare(c.own, []policy.Identity{2, 3}, start.Add(splitAfter)); l.split != c.want {
			t.Errorf("%s: %d", name, l.split)
		}
		if l.compare(c.own, []policy.Identity{2, 3}, start.Add(splitAfter+partnerFor)); l.split != 0 {
			t.Errorf("%s: what is old counts", name)
		}
	}
	a := &attachment{port: vswitch.NewPort("lan", vswitch.Attached, 50, nil)}
	p := &post{a: a, others: []policy.Identity{2}, sharing: sharing{wanted: true}, lag: lag{split: 2}}
	if (&sentinel{}).shareLocked(p, election.Conditions{Carrier: true, Synced: true}, start); a.port.Together() {
		t.Error("with two switches the VLAN is carried by both")
	}
}

// Another gateway is told of a partner at once, and each second.
func TestPartnerDue(t *testing.T) {
	l, start := lag{}, time.Now()
	for i, c := range []struct {
		at   time.Duration
		what string
		want bool
	}{{0, "a", true}, {0, "a", false}, {1, "b", true}, {partnerEvery, "b", false}, {partnerEvery + 1, "b", true}, {partnerEvery + 2, "b", false}} {
		if l.due([]byte(c.what), start.Add(c.at)) != c.want {
			t.Errorf("step %d: %v", i, !c.want)
		}
	}
}

// What another gateway says is taken if it is one of the VLAN, and formed as it should be.
func TestHearPartner(t *testing.T) {
	s, _, _, posts := lagged(t)
	in := s.d.newIngress(0)
	defer in.Close()
	who := partner{lacp.System{Priority: 1, MAC: ether.MAC{2, 1}}, 1}
	for name, c := range map[string]struct {
		from       identity.ID
		attachment policy.Identity
		cut        int
		heard, bad bool
	}{
		"a gateway":          {2, 50, 0, true, false},
		"no gateway of it":   {9, 50, 0, false, false},
		"of no VLAN of ours": {2, 60, 0, false, false},
		"without LACP":       {2, 52, 0, false, false},
		"cut":                {2, 50, 1, false, true},
	} {
		was := s.d.malformed.Load()
		clear(posts[0].lag.heard)
		b := partnerMessage(c.attachment, who)
		in.Receive(c.from, b[:len(b)-c.cut], time.Now())
		got := posts[0].lag.heard[policy.Identity(c.from)].partner == who
		if got != c.heard || len(posts[2].lag.heard) != 0 || (s.d.malformed.Load() > was) != c.bad {
			t.Errorf("%s: heard %v, malformed %v", name, got, s.d.malformed.Load()-was)
		}
	}
}

// FuzzPartner: what is read is written again as it was, and nothing else is read.
func FuzzPartner(f *testing.F) {
	f.Add(partnerMessage(50, partner{lacp.System{Priority: 1, MAC: ether.MAC{2, 1}}, 1}))
	f.Add([]byte{formatPartner})
	f.Add(make([]byte, partnerLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, p, ok := parsePartner(b)
		if want := len(b) >= partnerLen && b[0] == formatPartner; ok != want {
			t.Fatalf("%x: %v", b, ok)
		}
		if again := partnerMessage(id, p); ok && string(again[4:]) != string(b[4:partnerLen]) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}

package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/bridge/election"
	"github.com/etherloom/etherloom/bridge/probe"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// A port shares its VLAN if it is to, can, and there is another gateway; it takes its part of flows after a while; and it does not share as
// long as another gateway is heard over the VLAN, nor for a while afterwards.
func TestSharing(t *testing.T) {
	able := election.Conditions{Carrier: true, Synced: true, Peer: true, Peers: true}
	start := time.Now()
	for name, c := range map[string]struct {
		wanted bool
		others []policy.Identity
		edit   func(*election.Conditions)
		heard  time.Duration // before start; 0: never
		shares bool
	}{
		"as it should be":            {true, []policy.Identity{2}, nil, 0, true},
		"not asked for":              {false, []policy.Identity{2}, nil, 0, false},
		"no other gateway":           {true, nil, nil, 0, false},
		"no carrier":                 {true, []policy.Identity{2}, func(c *election.Conditions) { c.Carrier = false }, 0, false},
		"no state":                   {true, []policy.Identity{2}, func(c *election.Conditions) { c.Synced = false }, 0, false},
		"no peer is alive":           {true, []policy.Identity{2}, func(c *election.Conditions) { c.Peer = false }, 0, false},
		"there are no peers":         {true, []policy.Identity{2}, func(c *election.Conditions) { c.Peer, c.Peers = false, false }, 0, true},
		"heard over the VLAN":        {true, []policy.Identity{2}, nil, time.Second, false},
		"heard over the VLAN before": {true, []policy.Identity{2}, nil, apartFor, true},
	} {
		a := &attachment{port: vswitch.NewPort("lan", vswitch.Attached, 50, nil)}
		p := &post{a: a, others: c.others, sharing: sharing{wanted: c.wanted}}
		if c.heard > 0 {
			p.sharing.hearVLAN(start.Add(-c.heard))
		}
		cond := able
		if c.edit != nil {
			c.edit(&cond)
		}
		s := &sentinel{}
		s.shareLocked(p, cond, start)
		if a.port.Together() != c.shares || p.sharing.joined {
			t.Errorf("%s: it shares: %v, takes flows: %v", name, a.port.Together(), p.sharing.joined)
		}
		if p.sharing.news != (c.shares || p.sharing.wrong) {
			t.Errorf("%s: that is news: %v", name, p.sharing.news)
		}
		s.shareLocked(p, cond, start.Add(joinAfter-1))
		if p.sharing.joined {
			t.Errorf("%s: it takes flows at once", name)
		}
		s.shareLocked(p, cond, start.Add(joinAfter))
		if p.sharing.joined != c.shares {
			t.Errorf("%s: later it takes flows: %v", name, p.sharing.joined)
		}
		if !c.shares {
			continue
		}
		p.sharing.news = false
		s.shareLocked(p, election.Conditions{}, start.Add(2*joinAfter))
		if a.port.Together() || p.sharing.joined || !p.sharing.news {
			t.Errorf("%s: when it cannot any more, it shares: %v", name, a.port.Together())
		}
		s.shareLocked(p, cond, start.Add(3*joinAfter))
		if !a.port.Together() || p.sharing.joined {
			t.Errorf("%s: when it can again, it takes flows: %v", name, p.sharing.joined)
		}
	}
}

// One that stops waits while others take over what it shares with them, and not if it shares nothing.
func TestDrain(t *testing.T) {
	for _, shares := range []bool{false, true} {
		a := &attachment{port: vswitch.NewPort("lan", vswitch.Attached, 50, nil)}
		a.port.SetTogether(shares)
		s := &sentinel{poke: make(chan struct{}, 1), posts: map[policy.Identity]*post{50: {a: a}}}
		began := time.Now()
		s.drain()
		if waited := time.Since(began) >= drainFor; waited != shares || !s.draining || (len(s.poke) == 1) != shares || a.port.Together() != shares {
			t.Errorf("shares: %v; waited: %v; draining: %v; shares then: %v", shares, waited, s.draining, a.port.Together())
		}
	}
}

// One who is not to share does not mind who is heard over the VLAN: so gateways hear each other that take turns.
func TestHearVLAN(t *testing.T) {
	h := sharing{}
	h.hearVLAN(time.Now())
	if !h.apart.IsZero() {
		t.Error("it is noted")
	}
}

// That another gateway is heard over the VLAN says that there is no aggregation; of one that is none any more it does not.
func TestHeardOverVLAN(t *testing.T) {
	const vlan policy.Identity = 50
	now, key := time.Now(), make([]byte, probe.KeyLen)
	guardOf := func(node uint32) *probe.Guard {
		g, err := probe.New(probe.Config{Node: node, Boot: uint64(node)}, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Add(probe.Attached{VNI: 7, Attachment: uint32(vlan), MAC: probeMAC(policy.Identity(node), vlan), Key: key}, now); err != nil {
			t.Fatal(err)
		}
		return g
	}
	e, err := election.New(election.Config{Attachment: uint32(vlan), Node: 1, Gateways: []uint32{2}}, now)
	if err != nil {
		t.Fatal(err)
	}
	a := &attachment{id: vlan, port: vswitch.NewPort("lan", vswitch.Attached, vlan, nil)}
	p := &post{a: a, others: []policy.Identity{2}, election: e, sharing: sharing{wanted: true}}
	s := &sentinel{guard: guardOf(1), posts: map[policy.Identity]*post{vlan: p}, poke: make(chan struct{}, 1)}
	for node, counts := range map[uint32]bool{9: false, 2: true} {
		p.sharing.apart = time.Time{}
		frame, err := guardOf(node).Carry(uint32(vlan), nil, now)
		if err != nil {
			t.Fatal(err)
		}
		s.hear(a, frame, now)
		if got := !p.sharing.apart.IsZero(); got != counts {
			t.Errorf("node %d: %v", node, got)
		}
	}
	if got := s.guard.Stats(); got.Heard != 2 {
		t.Errorf("probes: %+v", got)
	}
}

// The ports of a segment that share are told by attachment, and flows to the other gateways to which there is a link.
func TestCarried(t *testing.T) {
	seg, elsewhere := &segment{}, &segment{}
	links := map[policy.Identity]*vswitch.Port{2: vswitch.NewPort("gw2", vswitch.Link, 2, nil)}
	seg.links.Store(&links)
	elsewhere.links.Store(&links)
	s := &sentinel{posts: map[policy.Identity]*post{}}
	for i, in := range []*segment{seg, seg, elsewhere, seg} {
		id := policy.Identity(50 + i)
		a := &attachment{seg: in, port: vswitch.NewPort(fmt.Sprint(id), vswitch.Attached, id, nil)}
		a.port.SetTogether(i != 3)
		s.posts[id] = &post{a: a, others: []policy.Identity{2, 3}, sharing: sharing{joined: i == 0}}
	}
	got := s.carried(seg)
	if len(got) != 2 || got[0].Port.Identity != 50 || got[0].Joins || got[1].Port.Identity != 51 || !got[1].Joins {
		t.Errorf("carried: %+v", got)
	}
	if s.draining = true; len(s.carried(seg)) != 0 {
		t.Error("one that is about to stop says that it carries")
	}
	for id, ports := range s.fellows(seg) {
		if id != 50 && id != 51 || !slices.Equal(ports, []*vswitch.Port{links[2]}) {
			t.Errorf("attachment %d: %v", id, ports)
		}
	}
}

// What another gateway tells of flows is believed of machines of which both are gateways.
func TestHearFlows(t *testing.T) {
	_, d, in := newDoor(t)
	self, user := d.self(), policy.Identity(90)
	address := func(n byte) [16]byte { return ether.Mapped([4]byte{192, 0, 2, n}) }
	machine := func(gateways ...policy.Identity) *policy.Station {
		m := policy.NewMachine(ether.MAC{2, 0, 5: byte(len(gateways))}, nil)
		m.Gateways, m.Attachments = gateways, []policy.Identity{50}
		return m
	}
	seg := &segment{d: d, vni: 7, sw: vswitch.NewSegment(7, self, 1500, d.cfg.fdb())}
	seg.sw.SetPolicy(policy.Compile(policy.Rules{
		Generation: 1, Self: self,
		Stations: map[policy.Identity]*policy.Station{user: policy.NewStation(ether.MAC{2, 9}, nil, false), 51: machine(self, 70), 52: machine(self)},
		Grants:   []policy.Grant{{ID: 3, Sources: []policy.Identity{user}, Targets: []policy.Identity{51, 52}}},
	}), time.Now())
	d.byVNI.Store(&map[policy.VNI]*segment{7: seg})
	tell := func(from policy.Identity, vni byte, other policy.Identity, mac byte, cut int) int {
		x := policy.Fellow{
			Opener: user, Other: other, Grant: 3, Dst: ether.MAC{2, 0, 5: mac},
			Tuple: policy.Tuple{Src: address(1), Dst: address(2), SrcPort: uint16(from), DstPort: 53, Protocol: ether.ProtoUDP},
		}
		b := flowsMessage([]policy.Fellow{x})
		b[3] = vni
		in.Receive(identity.ID(from), b[:len(b)-cut], time.Now())
		return seg.sw.Flows().Len()
	}
	if n := tell(70, 7, 52, 1, 0); n != 0 {
		t.Error("of a machine of which the other is no gateway it is believed")
	}
	if n := tell(71, 7, 51, 2, 0); n != 0 {
		t.Error("of one who is no gateway it is believed")
	}
	if n := tell(70, 8, 51, 2, 0); n != 0 {
		t.Error("of another segment it is believed")
	}
	if n := tell(70, 7, 51, 2, 1); n != 0 || d.malformed.Load() != 1 {
		t.Errorf("of a message that is cut there are %d flows, %d are counted as malformed", n, d.malformed.Load())
	}
	if n := tell(70, 7, 51, 2, 0); n != 1 {
		t.Errorf("%d flows are known", n)
	}
}

package vswitch

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// together has gateways 3 and 4 carry attachment 20 at once. Gateway 3 is elected, until elect says otherwise.
func newTogether(t *testing.T) *mesh { return newTogetherOf(t, 3) }

// newTogetherOf has another gateway of attachment 30, which it carries alone.
func newTogetherOf(t *testing.T, ofB policy.Identity) *mesh {
	m := newMeshOf(t, []policy.Identity{3, 4}, []policy.Identity{ofB})
	for node, s := range m.segments {
		var ways []Way
		for _, gateway := range []policy.Identity{3, 4} {
			w := Way{Node: gateway, Port: m.ports[node][fmt.Sprint("link ", gateway)]}
			ways = append(ways, w)
		}
		s.SetGroup(siteA, "either", ways)
	}
	for _, node := range []policy.Identity{3, 4} {
		m.ports[node]["vlan 20"].SetTogether(true)
	}
	m.elect(3)
	return m
}

func (m *mesh) elect(node policy.Identity) {
	for _, n := range []policy.Identity{3, 4} {
		m.ports[n]["vlan 20"].SetLead(func(time.Time) bool { return n == node })
	}
}

// flowOf is a UDP datagram between two parties, from one port to another.
func flowOf(from, to policy.Identity, source, target uint16) []byte {
	b := datagram(from, macAt(to), v4(to))
	binary.BigEndian.PutUint16(b[34:], source)
	binary.BigEndian.PutUint16(b[36:], target)
	return b
}

// carriers says how often each gateway has sent onto the VLAN since the last look.
func (m *mesh) carriers() (third, fourth int) {
	for _, d := range m.out {
		if d.port.Kind == Attached && d.port.Identity == siteA {
			if d.node == 3 {
				third++
			} else {
				fourth++
			}
		}
	}
	return third, fourth
}

// enters has a frame come from the VLAN through a gateway.
func (m *mesh) enters(gateway policy.Identity, frame []byte) Drop {
	m.t.Helper()
	drop := m.forward(gateway, m.ports[gateway]["vlan 20"], frame, Tag{})
	m.run()
	return drop
}

func (m *mesh) between() uint64 {
	return m.ports[3]["link 4"].Stats().TxFrames + m.ports[4]["link 3"].Stats().TxFrames
}

// share has each gateway told of what the other has let begin.
func (m *mesh) share() {
	for _, w := range [][2]policy.Identity{{3, 4}, {4, 3}} {
		news, _ := m.segments[w[0]].Flows().News()
		for i := range news {
			m.segments[w[1]].Flows().Adopt(m.views[w[1]], &news[i], m.now)
		}
	}
}

var onlyUDP = policy.Term{Scope: policy.AnyPort, Protocol: ether.ProtoUDP}

// Flows to a host spread over both gateways. An answer passes whichever it comes through, at once by way of the gateway that knows the flow, and by
// itself as soon as the other has heard of it; and what no grant lets begin is refused at both.
func TestGroupFlows(t *testing.T) {
	m := newTogether(t)
	m.grant(reaches(7, 1, 21, onlyUDP))
	third, fourth := 0, 0
	for port := uint16(1000); port < 1200; port++ {
		if d := m.says(1, flowOf(1, 21, port, 53)); d != Forwarded {
			t.Fatalf("flow %d: %q", port, d.Code())
		}
		a, b := m.carriers()
		third, fourth = third+a, fourth+b
		m.expect("a flow", sent{21: 1})
		other := policy.Identity(4)
		if b == 1 {
			other = 3
		}
		before := m.between()
		if d := m.enters(other, flowOf(21, 1, 53, port)); d != Forwarded {
			t.Errorf("its answer by the other gateway: %q", d.Code())
		}
		if n := m.between() - before; n != 1 {
			t.Errorf("the gateways exchange %d frames, want one that is handed over", n)
		}
		m.expect("an answer", sent{1: 1})
		m.share()
		if m.enters(other, flowOf(21, 1, 53, port)); m.between()-before != 1 {
			t.Error("a gateway that knows of the flow hands its frame over")
		}
		m.expect("an answer by itself", sent{1: 1})
	}
	if third < 60 || fourth < 60 {
		t.Errorf("of 200 flows, one gateway carries %d and the other %d", third, fourth)
	}
	for port := uint16(1000); port < 1020; port++ {
		for _, gateway := range []policy.Identity{3, 4} {
			m.enters(gateway, flowOf(21, 1, 54, port))
			m.expect("what only answers may be", sent{})
		}
	}
}

// One gateway's state is not needed where everything may pass: nothing is handed over.
func TestGroupMembers(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, 2, 21, siteA))
	for port := uint16(1000); port < 1050; port++ {
		for _, gateway := range []policy.Identity{3, 4} {
			if d := m.enters(gateway, flowOf(21, 1, 54, port)); d != Forwarded {
				t.Errorf("%q", d.Code())
			}
			m.expect("among members", sent{1: 1})
		}
	}
	if n := m.between(); n != 0 {
		t.Errorf("%d frames were handed over", n)
	}
}

// What is for many goes onto the VLAN by the gateway that is elected, and comes from it once; what is for an address that nobody knows
// goes by the one to which its flow belongs. None comes back to its own VLAN.
func TestGroupFlood(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, 2, 3, 4, siteA, 21, 22))
	for _, elected := range []policy.Identity{3, 4} {
		m.elect(elected)
		for _, from := range []policy.Identity{1, 3, 4} {
			m.says(from, datagram(from, ether.Broadcast, everybody4))
			if third, fourth := m.carriers(); third != boolInt(elected == 3) || fourth != boolInt(elected == 4) {
				t.Errorf("from %d, with %d elected, the VLAN has it %d and %d times", from, elected, third, fourth)
			}
			m.heard()
		}
		for _, gateway := range []policy.Identity{3, 4} {
			if d := m.enters(gateway, datagram(21, ether.Broadcast, everybody4)); d != Forwarded {
				t.Errorf("%q", d.Code())
			}
			m.expect("from the VLAN", sent{1: 1, 2: 1, 3: 1, 4: 1})
		}
	}
	third, fourth := 0, 0
	for port := uint16(1000); port < 1100; port++ {
		b := flowOf(1, 21, port, 53)
		copy(b, []byte{2, 0, 0, 0, 9, 9}) // of those whom nobody named, and not seen yet
		m.says(1, b)
		a, b2 := m.carriers()
		third, fourth = third+a, fourth+b2
		if a+b2 != 1 {
			t.Errorf("an unknown address: the VLAN has it %d times", a+b2)
		}
		m.heard()
	}
	if third < 25 || fourth < 25 {
		t.Errorf("of 100, one gateway carries %d and the other %d", third, fourth)
	}
	// Until they know of each other, the elected one carries it.
	for _, node := range []policy.Identity{3, 4} {
		m.segments[node].SetGroup(siteA, "either", nil)
	}
	b := flowOf(1, 21, 1000, 53)
	copy(b, []byte{2, 0, 0, 0, 9, 9})
	m.says(1, b)
	if third, fourth := m.carriers(); third != 0 || fourth != 1 {
		t.Errorf("before they know of each other the VLAN has it %d and %d times", third, fourth)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A machine that is seen through both gateways has moved never, whoever sees it, and its place is kept when the policy changes.
func TestGroupPlace(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, 3, 4, 21))
	for range 20 {
		for _, gateway := range []policy.Identity{3, 4} {
			m.enters(gateway, datagram(21, ether.Broadcast, everybody4))
		}
	}
	bundle := m.segments[1].Group(siteA).Bundle()
	check := func(what string) {
		t.Helper()
		for node, want := range map[policy.Identity]*Port{1: bundle, 3: m.ports[3]["vlan 20"], 4: m.ports[4]["vlan 20"]} {
			for _, e := range m.segments[node].FDB().Entries(m.now) {
				if e.MAC == macAt(21) && (e.Port.Port != want || e.Moves != 0 || e.Frozen) {
					t.Errorf("%s: at node %d it is at %q, moved %d times", what, node, e.Port.Port.Name, e.Moves)
				}
			}
			if _, ok := m.segments[node].FDB().Lookup(macAt(21), m.now); !ok {
				t.Errorf("%s: node %d does not know it", what, node)
			}
		}
	}
	check("seen by both")
	m.grant(members(1, 3, 4, 21))
	check("after a policy")
	m.grant(members(1, 3, 4))
	if _, ok := m.segments[1].FDB().Lookup(macAt(21), m.now); ok {
		t.Error("one with whom there is nothing to do any more is still known")
	}
	// A gateway that sees it through the other alone learns nothing: it is at its own port, too, or will be announced.
	m = newTogether(t)
	m.grant(members(1, 3, 4, 21))
	m.enters(3, datagram(21, ether.Broadcast, everybody4))
	m.learned(4, macAt(21), "", 0)
	if _, ok := m.segments[4].FDB().Lookup(macAt(21), m.now); ok {
		t.Error("the other gateway has learned it over the link")
	}
	m.heard()
	m.says(1, flowOf(1, 21, 9, 9))
	m.expect("to it", sent{21: 1})
}

// Who hands a frame over must be a gateway of the VLAN, and it must be what a flow may be; one goes no further than the first that takes it.
func TestHandedOver(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1), reaches(7, 1, 21, onlyUDP), reaches(8, 2, 1), reaches(9, 21, 1, onlyUDP))
	frame := flowOf(21, 1, 53, 1000)
	hand := func(from policy.Identity, f []byte, tag Tag) Drop {
		t.Helper()
		d := m.forward(4, m.ports[4][fmt.Sprint("link ", from)], f, tag)
		m.run()
		return d
	}
	if d := hand(3, frame, Tag{Source: siteA}); d != Forwarded {
		t.Errorf("by the other gateway: %q", d.Code())
	}
	m.expect("handed over", sent{1: 1})
	for name, c := range map[string]struct {
		from  policy.Identity
		frame []byte
		tag   Tag
	}{
		"by a node that is no gateway":  {2, frame, Tag{Source: siteA}},
		"of a VLAN that is not there":   {3, frame, Tag{Source: siteB}},
		"for many":                      {3, datagram(21, ether.Broadcast, everybody4), Tag{Source: siteA}},
		"of a machine instead":          {3, frame, Tag{Source: 21}},
		"as if it had come by itself":   {3, frame, Tag{}},
		"of a MAC that is another's":    {3, datagram(31, macAt(1), v4(1)), Tag{Source: siteA}},
		"what nothing lets begin":       {3, flowOf(22, 1, 53, 1000), Tag{Source: siteA}},
		"to the bridge of the VLAN":     {3, data(ether.MAC{1, 0x80, 0xc2, 0, 0, 0}, macAt(21), experimental, ""), Tag{Source: siteA}},
		"with a grant that is not told": {3, frame, Tag{Source: siteA, Grant: 9}},
	} {
		if d := hand(c.from, c.frame, c.tag); d == Forwarded {
			t.Errorf("%s: it is taken", name)
		}
		m.expect(name, sent{})
	}
	m.ports[4]["vlan 20"].SetTogether(false)
	if d := hand(3, frame, Tag{Source: siteA}); d == Forwarded {
		t.Errorf("where one alone carries the VLAN: %q", d.Code())
	}
	m.ports[4]["vlan 20"].SetTogether(true)
	m.ports[4]["vlan 20"].SetGate(func(time.Time) bool { return false })
	if d := hand(3, frame, Tag{Source: siteA}); d != DropPort {
		t.Errorf("by a port that is closed: %q", d.Code())
	}
	m.ports[4]["vlan 20"].SetGate(func(time.Time) bool { return true })
	m.heard()

	// Each believes that the other is to judge: the second one does.
	for _, node := range []policy.Identity{3, 4} {
		m.segments[node].SetGroup(siteA, "either", []Way{{7 - node, m.ports[node][fmt.Sprint("link ", 7-node)]}})
	}
	before := m.between()
	m.enters(3, flowOf(21, 1, 53, 2000))
	if n := m.between() - before; n != 1 {
		t.Errorf("it was handed over %d times", n)
	}
	m.expect("judged by the second", sent{1: 1})
}

// A flow that a gateway's own host begins goes by the gateway to which it belongs, so that its answers are known there; and without any way
// left nothing is sent.
func TestGroupOwnHost(t *testing.T) {
	m := newTogether(t)
	m.grant(reaches(7, 3, 21, onlyUDP))
	third, fourth := 0, 0
	for port := uint16(1000); port < 1100; port++ {
		m.says(3, flowOf(3, 21, port, 53))
		a, b := m.carriers()
		third, fourth = third+a, fourth+b
		m.expect("to the host", sent{21: 1})
		for _, gateway := range []policy.Identity{3, 4} {
			m.enters(gateway, flowOf(21, 3, 53, port))
			m.expect("its answer", sent{3: 1})
		}
	}
	if third < 25 || fourth < 25 {
		t.Errorf("of 100, one gateway carries %d and the other %d", third, fourth)
	}
	m = newTogether(t)
	m.grant(members(1, 21))
	bundle := m.segments[1].Group(siteA).Bundle()
	m.segments[1].FDB().Learn(macAt(21), Place{bundle, 21}, m.now)
	m.segments[1].SetGroup(siteA, "either", nil)
	if d := m.says(1, flowOf(1, 21, 9, 9)); d != DropNoReceiver {
		t.Errorf("without a way: %q", d.Code())
	}
}

// To a host that may be on two VLANs, and has said nothing yet, one frame goes by the gateways that carry one of them at once.
func TestGroupBelieved(t *testing.T) {
	m := newTogetherOf(t, 4)
	m.grant(members(1, 3, roaming))
	for port := uint16(1000); port < 1010; port++ {
		if d := m.forward(1, m.ports[1]["tap"], flowOf(1, roaming, port, 53), Tag{}); d != Forwarded || len(m.sends[1]) != 1 {
			t.Errorf("%q, sent %d times", d.Code(), len(m.sends[1]))
		}
	}
}

// An answer to somebody of whom a gateway has seen nothing is handed over as well, if it does not know of the flow.
func TestGroupFloodedAnswer(t *testing.T) {
	m := newTogetherOf(t, 2)
	m.grant(reaches(7, siteB, 21, onlyUDP))
	for port := uint16(1000); port < 1050; port++ {
		if d := m.says(siteB, flowOf(siteB, 21, port, 53)); d != Forwarded {
			t.Fatalf("flow %d: %q", port, d.Code())
		}
		third, _ := m.carriers()
		m.heard()
		other := policy.Identity(3)
		if third == 1 {
			other = 4
		}
		before := m.between()
		m.enters(other, flowOf(21, siteB, 53, port))
		if m.between() == before {
			t.Errorf("flow %d: its answer by the other gateway is not handed over", port)
		}
		m.expect("its answer", sent{siteB: 1, 31: 1, roaming: 1}) // the VLAN's: the address is nobody's
	}
}

// A host that may be on two VLANs that are both carried so is at no bundle: which one, its place alone can say.
func TestBundleOf(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, siteA, siteB, 21, roaming))
	s, v := m.segments[1], m.views[1]
	a := s.Group(siteA).Bundle()
	if s.BundleOf(v, 21) != a || s.BundleOf(v, roaming) != a || s.BundleOf(v, 1) != nil || s.BundleOf(v, 31) != nil || s.BundleOf(v, 77) != nil {
		t.Error("somebody is in the wrong bundle")
	}
	s.SetGroup(siteB, "either", []Way{{3, m.ports[1]["link 3"]}})
	if s.BundleOf(v, roaming) != nil || s.BundleOf(v, 21) != a {
		t.Error("a host of two such VLANs is in a bundle")
	}
	s.SetGroup(siteA, "either", nil)
	if s.BundleOf(v, 21) != nil || s.BundleOf(v, roaming) != s.Group(siteB).Bundle() {
		t.Error("a bundle without ways is one")
	}
}

// When a gateway goes, only its own flows move.
func TestPickIsStable(t *testing.T) {
	g := &Group{}
	three, two := []Way{{Node: 3}, {Node: 4}, {Node: 9}}, []Way{{Node: 3}, {Node: 9}}
	moved := map[policy.Identity]int{}
	for flow := range uint64(3000) {
		g.ways.Store(&three)
		before := g.pick(policy.Mix(flow)).Node
		g.ways.Store(&two)
		if after := g.pick(policy.Mix(flow)).Node; before != after {
			moved[before]++
		}
	}
	if len(moved) != 1 || moved[4] < 900 || moved[4] > 1100 {
		t.Errorf("flows have moved from %v, want a third, of 4 alone", moved)
	}
}

// nowhere is a way out that keeps nothing.
type nowhere struct{}

func (nowhere) Send([]byte, ether.Offload, Tag, Lane) {}

// Nothing that is carried by way of a group allocates.
func TestGroupAllocates(t *testing.T) {
	m := newTogether(t)
	m.grant(reaches(7, 1, 21, onlyUDP))
	out, back := flowOf(1, 21, 1000, 53), flowOf(21, 1, 53, 1000)
	m.says(1, out)
	m.share()
	for _, c := range []struct {
		node  policy.Identity
		port  string
		frame []byte
	}{{1, "tap", out}, {3, "vlan 20", back}, {4, "vlan 20", back}} {
		s, p := m.segments[c.node], m.ports[c.node][c.port]
		for _, q := range s.Ports() {
			q.out = nowhere{}
		}
		if n := testing.AllocsPerRun(100, func() { s.Forward(p, c.frame, ether.Offload{}, Tag{}, 0, m.now) }); n != 0 {
			t.Errorf("at node %d a frame from %s allocates %v times", c.node, c.port, n)
		}
	}
}

package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// These tests are about gateways of a VLAN that do not know the same, as it is for a while after one comes or goes: none loses a frame
// for it, nor sends one twice.

// unseen is a flow from a party to an address on a VLAN that nobody has seen.
func unseen(from policy.Identity, port uint16) []byte {
	b := flowOf(from, 21, port, 53)
	copy(b, []byte{2, 0, 0, 0, 9, 9})
	return b
}

// A gateway that carries a VLAN alone does so with all that is for it, whatever group it remembers and whoever was elected.
func TestGroupIsOver(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, 2, siteA), reaches(17, 3, 21, onlyUDP), reaches(18, 21, 1, onlyUDP))
	m.elect(4)
	if !m.ports[3]["vlan 20"].Together() {
		t.Error("a VLAN of two gateways is one's alone")
	}
	for _, node := range []policy.Identity{3, 4} {
		m.ports[node]["vlan 20"].SetTogether(false)
	}
	m.ports[4]["vlan 20"].SetGate(func(time.Time) bool { return false })
	if m.ports[3]["vlan 20"].Together() {
		t.Error("a VLAN that is one gateway's alone is that of several")
	}
	check := func(what string) {
		t.Helper()
		if third, fourth := m.carriers(); third != 1 || fourth != 0 {
			t.Errorf("%s: the VLAN has it %d and %d times", what, third, fourth)
		}
		m.heard()
	}
	m.says(1, datagram(1, ether.Broadcast, everybody4))
	check("for many")
	before := m.between()
	for port := uint16(1000); port < 1020; port++ {
		m.says(3, flowOf(3, 21, port, 53))
		check("of its own host")
		m.forward(3, m.ports[3]["link 1"], unseen(1, port), Tag{Source: 1, Grant: grantID})
		check("for an address that nobody knows")
		m.enters(3, flowOf(21, 1, port, 54))
		m.expect("from the VLAN", sent{1: 1})
	}
	m.enters(3, flowOf(21, 2, 1, 1))
	m.expect("what nothing allows", sent{})
	if n := m.between() - before; n != 0 {
		t.Errorf("%d frames went by the other gateway", n)
	}
}

// A gateway that has yet to hear of any other carries and judges by itself, although its VLAN is one of several gateways.
func TestGroupIsNotKnown(t *testing.T) {
	for name, ways := range map[string][]Way{"none is told": nil, "it has no way": {}} {
		m := newMesh(t, false)
		m.grant(members(1, siteA), reaches(17, 3, 21, onlyUDP), reaches(18, 21, 1, onlyUDP))
		if p := m.segments[1].BundleOf(m.views[1], 21); p != nil {
			t.Errorf("%s: a host is at %q", name, p.Name)
		}
		if ways != nil {
			m.segments[3].SetGroup(siteA, "either", ways)
		}
		m.ports[3]["vlan 20"].SetTogether(true)
		m.says(1, datagram(1, ether.Broadcast, everybody4))
		m.expect(name+": for many", sent{21: 1, 22: 1, siteA: 1})
		m.says(1, unseen(1, 1000))
		m.expect(name+": for an address that nobody knows", sent{21: 1, 22: 1, siteA: 1})
		m.says(3, flowOf(3, 21, 1000, 53))
		m.expect(name+": of its own host", sent{21: 1})
		m.enters(3, flowOf(21, 1, 1000, 54))
		m.expect(name+": from the VLAN", sent{1: 1})
	}
}

// What a link brings for the VLAN goes there, by whichever gateway its sender has chosen, and never on to another gateway.
func TestGroupSplitHorizon(t *testing.T) {
	m := newTogether(t)
	m.grant(reaches(7, 1, 21, onlyUDP))
	m.segments[1].SetGroup(siteA, "either", []Way{{3, m.ports[1]["link 3"]}})
	for port := uint16(1000); port < 1020; port++ {
		m.says(1, flowOf(1, 21, port, 53))
		if third, fourth := m.carriers(); third != 1 || fourth != 0 {
			t.Errorf("the VLAN has it %d and %d times", third, fourth)
		}
		m.heard()
	}
	if n := m.between(); n != 0 {
		t.Errorf("%d frames went on to the other gateway", n)
	}
}

// Where everything may pass, no gateway need know of a flow, and what a gateway's own host says goes onto the VLAN at once.
func TestGroupOwnMember(t *testing.T) {
	m := newTogether(t)
	m.grant(members(3, 21))
	for port := uint16(1000); port < 1020; port++ {
		m.says(3, flowOf(3, 21, port, 53))
		m.expect("to the host", sent{21: 1})
	}
	if n := m.between(); n != 0 {
		t.Errorf("%d frames went by the other gateway", n)
	}
}

// A gateway that has just become one may still know a host behind the others: its frames go by them, and none by a way that it is itself.
func TestGroupOwnWay(t *testing.T) {
	m := newTogether(t)
	m.grant(members(3, 21))
	m.segments[3].FDB().Learn(macAt(21), Place{m.segments[3].Group(siteA).Bundle(), 21}, m.now)
	drops := map[Drop]int{}
	for port := uint16(1000); port < 1100; port++ {
		d := m.says(3, flowOf(3, 21, port, 53))
		drops[d]++
		m.expect("to the host", sent{21: boolInt(d == Forwarded)})
	}
	if by := drops[Forwarded]; by < 25 || by > 75 || drops[DropNoReceiver] != 100-by || m.ports[3]["link 4"].Stats().TxFrames != uint64(by) {
		t.Errorf("%v, and %d go by the other gateway", drops, m.ports[3]["link 4"].Stats().TxFrames)
	}
}

// A host that may be on a VLAN of several gateways, and is on one that another node carries, is where that node is. So is a gateway itself.
func TestGroupElsewhere(t *testing.T) {
	m := newTogetherOf(t, 2)
	m.grant(members(1, 3, 4, roaming))
	m.says(roaming, datagram(roaming, ether.Broadcast, everybody4))
	m.says(4, datagram(4, ether.Broadcast, everybody4))
	m.heard()
	for _, node := range []policy.Identity{1, 3} {
		m.learned(node, macAt(roaming), "link 2", roaming)
		m.learned(node, macAt(4), "link 4", 4)
	}
	for _, who := range []policy.Identity{1, 3} {
		for port := uint16(1000); port < 1010; port++ {
			m.says(who, flowOf(who, roaming, port, 53))
			m.expect("to who is elsewhere", sent{roaming: 1})
		}
	}
}

// What is for many is never handed over: each gateway carries it by itself. And what a node's own host says is from a VLAN by no tag.
func TestHandedOverByNobody(t *testing.T) {
	m := newTogether(t)
	m.grant(members(1, 21, 22), reaches(18, 21, 1, onlyUDP))
	for name, c := range map[string]struct {
		port  string
		frame []byte
	}{
		"for many":   {"link 3", datagram(21, ether.Broadcast, everybody4)},
		"by no link": {"tap", flowOf(21, 1, 53, 1000)},
	} {
		if d := m.forward(4, m.ports[4][c.port], c.frame, Tag{Source: siteA}); d == Forwarded {
			t.Errorf("%s: it is taken", name)
		}
		m.run()
		m.expect(name, sent{})
	}
}

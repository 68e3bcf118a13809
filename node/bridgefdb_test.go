package node

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// neighbourhood is a VLAN, attachment 50, with another gateway, node 8, and machines elsewhere: behind gateway 9, attachment 60.
type neighbourhood struct {
	*mirrored

	fellow, far *vswitch.Port
}

const (
	hereVLAN, farVLAN         policy.Identity = 50, 60
	pinned, roams, unrelated  policy.Identity = 61, 62, 63
	fellowGateway, farGateway policy.Identity = 8, 9
)

func newNeighbourhood(t *testing.T) *neighbourhood {
	t.Helper()
	n := &neighbourhood{mirrored: newMirrored(t)}
	n.d.contents = &state.Contents{Machines: map[identity.ID]*controlv1.Machine{identity.ID(hereVLAN): {Gateways: []uint32{uint32(selfID), uint32(fellowGateway)}}}}
	n.fellow, n.far = vswitch.NewPort("gw2", vswitch.Link, fellowGateway, nil), vswitch.NewPort("gw3", vswitch.Link, farGateway, nil)
	machine := func(mac ether.MAC, attachments ...policy.Identity) *policy.Station {
		m := policy.NewMachine(mac, nil)
		m.Attachments = attachments
		return m
	}
	n.seg.sw.SetPolicy(policy.Compile(policy.Rules{
		Generation: 1, Self: selfID,
		Stations: map[policy.Identity]*policy.Station{
			hereVLAN: machine(ether.MAC{}, hereVLAN), farVLAN: machine(ether.MAC{}, farVLAN),
			pinned: machine(numbered(61), farVLAN), roams: machine(numbered(62), hereVLAN, farVLAN), unrelated: machine(numbered(63), farVLAN),
			farGateway: policy.NewStation(numbered(9), nil, false),
		},
		Grants: []policy.Grant{
			{ID: 1, Segment: true, Sources: []policy.Identity{hereVLAN, farVLAN, pinned, roams}},
			{ID: 2, Sources: []policy.Identity{farGateway}, Targets: []policy.Identity{roams}},
		},
	}), time.Now())
	for _, a := range []*attachment{n.v10, n.v20} {
		a.id, a.tagging = hereVLAN, bridge.Tagging{VLAN: 10}
	}
	n.v20.tagging.VLAN = 20
	return n
}

func numbered(last byte) ether.MAC { return ether.MAC{2, 0, 0, 0, 0, last} }

// Who is reached through a gateway is who is elsewhere and has to do with machines on the VLAN: pinned ones, nodes, and whom the switch
// knows; but nobody who is on this VLAN, by whichever of its gateways.
func TestReached(t *testing.T) {
	n := newNeighbourhood(t)
	reached := func() []byte {
		var out []byte
		for mac := range maps.Keys(n.v10.reached(time.Now())) {
			out = append(out, mac[5])
		}
		slices.Sort(out)
		return out
	}
	if got := reached(); !slices.Equal(got, []byte{9, 61}) {
		t.Errorf("before anybody has spoken %d are reached, want the pinned one and the node", got)
	}
	for _, c := range []struct {
		what string
		mac  byte
		at   vswitch.Place
		want bool
	}{
		{"unnamed, elsewhere", 1, vswitch.Place{Port: n.far, Who: farVLAN}, true},
		{"unnamed, here", 2, vswitch.Place{Port: n.v10.port, Who: hereVLAN}, false},
		{"unnamed, here by the other gateway", 3, vswitch.Place{Port: n.fellow, Who: hereVLAN}, false},
		{"one with whom nobody here has to do", 63, vswitch.Place{Port: n.far, Who: unrelated}, false},
		{"who may be here or there, here", 62, vswitch.Place{Port: n.v10.port, Who: roams}, false},
		{"who may be here or there, here by the other gateway", 62, vswitch.Place{Port: n.fellow, Who: roams}, false},
		{"who may be here or there, there", 62, vswitch.Place{Port: n.far, Who: roams}, true},
	} {
		table := n.seg.sw.FDB()
		table.Flush(func(fdb.Entry[vswitch.Place]) bool { return true }, time.Now())
		table.Learn(numbered(c.mac), c.at, time.Now())
		if got := reached(); slices.Contains(got, c.mac) != c.want {
			t.Errorf("%s: %d are reached", c.what, got)
		}
	}
}

// A bridge is told for as long as the gateway carries the VLAN, and never of transparent segments.
func TestKnownOnVLANs(t *testing.T) {
	n := newNeighbourhood(t)
	tr := n.v10.trunk
	now := func() []bridge.Known {
		list := known(tr.sidesLocked(), time.Now())
		slices.SortFunc(list, func(a, b bridge.Known) int { return int(a.VLAN) - int(b.VLAN) + int(a.MAC[5]) - int(b.MAC[5]) })
		return list
	}
	at := func(vlan uint16) []bridge.Known {
		return []bridge.Known{{VLAN: vlan, MAC: numbered(9)}, {VLAN: vlan, MAC: numbered(61)}}
	}
	if got := now(); len(got) != 4 || !slices.Contains(got, at(10)[1]) || !slices.Contains(got, at(20)[1]) {
		t.Errorf("of two VLANs it knows %v", got)
	}
	gate := func(time.Time) bool { return false }
	n.v10.port.SetGate(gate)
	if got := now(); !slices.Equal(got, at(20)) {
		t.Errorf("when another gateway carries VLAN 10 it knows %v", got)
	}
	a := n.v20.port.Attributes()
	a.Shut = true
	n.v20.port.SetAttributes(a)
	if got := now(); len(got) != 0 {
		t.Errorf("when VLAN 20 is shut, too, it knows %v", got)
	}
	open := func(time.Time) bool { return true }
	n.v10.port.SetGate(open)
	if got := now(); !slices.Equal(got, at(10)) {
		t.Errorf("when VLAN 10 is carried again it knows %v", got)
	}
	n.seg.transparent = true
	if got := now(); len(got) != 0 {
		t.Errorf("of a transparent segment it knows %v", got)
	}
}

// When a bond fails over, its switches are shown all who are reached by it, on the VLANs that this gateway carries; not when it has lost all
// its parts, or has its first one.
func TestFailedOver(t *testing.T) {
	n := newNeighbourhood(t)
	a, p := n.v10, &post{a: n.v10, showing: showing{carries: true}}
	n.d.sentinel = &sentinel{d: n.d, posts: map[policy.Identity]*post{hereVLAN: p}, poke: make(chan struct{}, 1)}
	shown := func(before, now int) int {
		p.showing.rounds[0] = nil
		a.trunk.failedOver(before, now)
		return len(p.showing.rounds[0])
	}
	for _, c := range []struct{ before, now, want int }{{0, 3, 0}, {3, 4, 2}, {4, 0, 0}, {0, 0, 0}} {
		if got := shown(c.before, c.now); got != c.want {
			t.Errorf("from part %d to %d: %d are shown, want %d", c.before, c.now, got, c.want)
		}
	}
	p.showing.carries = false
	if got := shown(3, 4); got != 0 {
		t.Errorf("another gateway carries the VLAN: %d are shown", got)
	}
}

// toldBridge is a bridge that looks whether Daemon.mu is held while it is told.
type toldBridge struct {
	d    *Daemon
	told []bridge.Known
	held bool
}

func (b *toldBridge) TellsVLANs() bool { return true }

func (b *toldBridge) Tell(want []bridge.Known) error {
	b.told, b.held = want, !b.d.mu.TryLock()
	if !b.held {
		b.d.mu.Unlock()
	}
	return errTest
}

// While a bridge is told nobody waits for the daemon. What it cannot be told is said until it can.
func TestTellingHoldsUpNobody(t *testing.T) {
	n := newNeighbourhood(t)
	tr, b := n.v10.trunk, &toldBridge{d: n.d}
	tr.tellBridge(b, time.Now())
	if b.told != nil {
		t.Error("a NIC is told as if it were a bridge")
	}
	tr.to = device{bridge: "br0"}
	tr.tellBridge(b, time.Now())
	if len(b.told) != 4 || b.held || tr.untold == nil {
		t.Errorf("told is %v, while the lock is held: %v; known of it: %v", b.told, b.held, tr.untold)
	}
	tr.to.bridge = ""
	tr.tellBridge(b, time.Now())
	if tr.untold != nil {
		t.Errorf("what could not be told is said for ever: %v", tr.untold)
	}
}

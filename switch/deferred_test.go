package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// What is seen in two places in turn is believed in one after a while, and frames from the other go no further.
func TestFrozen(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, roaming))
	frozen := 0
	for i := range 40 {
		m.at[roaming] = []policy.Identity{siteA, siteB}[i%2]
		d := m.says(roaming, datagram(roaming, macAt(1), v4(1)))
		want := sent{1: 1}
		if d == DropFrozen {
			frozen++
			want = sent{}
		} else if d != Forwarded {
			t.Errorf("frame %d: %q", i, d.Code())
		}
		m.expect("a frame", want)
		m.now = m.now.Add(100 * time.Millisecond)
	}
	if frozen < 10 || frozen > 20 { // half of those after it was noticed
		t.Errorf("%d of 40 frames are refused", frozen)
	}
}

// A port that does not learn has not learned where a frame's source is: one that a machine sends to itself goes wherever one to a MAC
// goes that nobody has seen.
func TestToItselfUnlearned(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 3, siteA))
	m.set(3, "vlan 20", "learning=off")
	if d := m.says(siteA, data(macAt(siteA), macAt(siteA), experimental, "")); d != Forwarded {
		t.Errorf("%q", d.Code())
	}
	m.expect("to itself", sent{1: 1, 3: 1})
}

// A frame that is seen where its source was not announced goes no further if it may have come round: over a link, from a
// machine that is on a VLAN here. Every other one goes on, and moves nothing.
func TestDeferred(t *testing.T) {
	const here, there, further, vlan, machine policy.Identity = 1, 2, 3, 50, 60
	for _, c := range []struct {
		name     string
		was, now string // the ports where it was announced, and where it is seen
		want     Drop
	}{
		{"from another gateway, of a machine behind a third", "there", "further", Forwarded},
		{"from another gateway, of a machine here", "lan", "further", DropFrozen},
		{"on a VLAN, of a machine that was on another", "lan", "lan 2", Forwarded},
		{"on a VLAN, of a machine behind another gateway", "there", "lan", Forwarded},
	} {
		seg, now := NewSegment(5, here, 1500, fdb.Limits{}), time.Now()
		seg.FDB().SetAnnouncers(func(Place) bool { return true })
		host := &sink{}
		ports := map[string]*Port{
			"host": NewPort("host", Local, here, host), "lan": NewPort("lan", Attached, vlan, &sink{}), "lan 2": NewPort("lan 2", Attached, vlan+1, &sink{}),
			"there": NewPort("there", Link, there, &sink{}), "further": NewPort("further", Link, further, &sink{}),
		}
		for _, p := range ports {
			seg.AddPort(p)
		}
		pinned := policy.NewMachine(macOf(9), nil)
		pinned.Gateways, pinned.Attachments = []policy.Identity{here, there, further}, []policy.Identity{vlan, vlan + 1}
		seg.SetPolicy(policy.Compile(policy.Rules{
			Self: here, Stations: map[policy.Identity]*policy.Station{here: policy.NewStation(macOf(1), nil, false), machine: pinned},
			Grants: []policy.Grant{members(here, machine)},
		}), now)
		was := Place{ports[c.was], machine}
		seg.FDB().Announce(macOf(9), was, 1, now, func(Place, Place) bool { return true })
		frame, tag := data(macOf(1), macOf(9), experimental, "hello"), Tag{}
		if ports[c.now].Kind == Link {
			tag = Tag{Source: machine, Grant: grantID}
		}
		if e := seg.Explain(ports[c.now], frame, tag, now); e.Drop != c.want {
			t.Errorf("%s: explained as %q, want %q", c.name, e.Drop.Code(), c.want.Code())
		}
		if d := seg.Forward(ports[c.now], frame, ether.Offload{}, tag, 0, now); d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d.Code(), c.want.Code())
		}
		if n := host.take(); (n == 1) != (c.want == Forwarded) {
			t.Errorf("%s: the host is given %d", c.name, n)
		}
		if at, ok := seg.FDB().Lookup(macOf(9), now); !ok || at != was {
			t.Errorf("%s: it is at %+v now", c.name, at)
		}
	}
}

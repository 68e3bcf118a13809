package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// A gate shuts a port by the time of each frame: nothing enters there and nothing leaves, and all other ports carry on. While it
// is open, the port is as one without.
func TestGate(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 3, siteA))
	opens, shuts := m.now.Add(time.Minute), m.now.Add(time.Hour)
	m.ports[3]["vlan 20"].SetGate(func(now time.Time) bool { return !now.Before(opens) && now.Before(shuts) })
	for _, c := range []struct {
		name    string
		at      time.Time
		drop    Drop
		out, in sent // what is heard of a frame of the VLAN, and of one of node 1
	}{
		{"before", opens.Add(-1), DropPort, sent{}, sent{3: 1}},
		{"open", opens, Forwarded, sent{1: 1, 3: 1}, sent{3: 1, siteA: 1, 21: 1, 22: 1}},
		{"at last", shuts.Add(-1), Forwarded, sent{1: 1, 3: 1}, sent{3: 1, siteA: 1, 21: 1, 22: 1}},
		{"after", shuts, DropPort, sent{}, sent{3: 1}},
	} {
		m.now = c.at
		if d := m.says(siteA, datagram(siteA, ether.Broadcast, everybody4)); d != c.drop {
			t.Errorf("%s: %q", c.name, d.Code())
		}
		m.expect(c.name+", from the VLAN", c.out)
		m.says(1, datagram(1, ether.Broadcast, everybody4))
		m.expect(c.name+", to the VLAN", c.in)
	}
}

// F11: nothing goes back to where it comes from, not even if policy does not say that those behind an attachment are there.
func TestNoEchoUnplaced(t *testing.T) {
	const here, vlan policy.Identity = 1, 50
	seg, now := NewSegment(5, here, 1500, fdb.Limits{}), time.Now()
	host, lan := &sink{}, &sink{}
	attached := NewPort("lan", Attached, vlan, lan)
	seg.AddPort(NewPort("host", Local, here, host))
	seg.AddPort(attached)
	seg.SetPolicy(policy.Compile(policy.Rules{
		Self: here, Stations: map[policy.Identity]*policy.Station{here: policy.NewStation(macOf(1), nil, false), vlan: policy.NewMachine(ether.MAC{}, nil)},
		Grants: []policy.Grant{members(here, vlan)},
	}), now)
	if d := seg.Forward(attached, data(ether.Broadcast, macOf(9), experimental, ""), ether.Offload{}, Tag{}, 0, now); d != Forwarded {
		t.Errorf("%q", d.Code())
	}
	if n, echoed := host.take(), lan.take(); n != 1 || echoed != 0 {
		t.Errorf("the host is given %d, and the VLAN %d", n, echoed)
	}
}

// What is for many is flooded, whatever the FDB says of its address: an entry for a group would keep it from all others.
func TestGroupInFDB(t *testing.T) {
	r := newRig(t)
	r.seg.FDB().AddStatic(groupMAC, Place{r.ports[2], 2})
	if d := r.enter(1, data(groupMAC, macOf(1), experimental, "")); d != Forwarded {
		t.Errorf("%q", d.Code())
	}
	r.seen(sent{2: 1, 3: 1})
}

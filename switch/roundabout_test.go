package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// A frame from a machine on a VLAN here that comes over the link to the VLAN's other gateway has come round a loop, for all that is
// known: it goes no further until that gateway has said that the machine is there now.
func TestRoundabout(t *testing.T) {
	const here, there, vlan policy.Identity = 1, 2, 50
	seg, now := NewSegment(5, here, 1500, fdb.Limits{}), time.Now()
	seg.FDB().SetAnnouncers(func(at Place) bool { return at.Port.Kind == Link && at.Who != at.Port.Identity })
	host, attached := &sink{}, NewPort("lan", Attached, vlan, &sink{})
	link := NewPort("there", Link, there, &sink{})
	for _, p := range []*Port{NewPort("loom0", Local, here, host), attached, link} {
		seg.AddPort(p)
	}
	machines := policy.NewMachine(ether.MAC{}, nil)
	machines.Gateways, machines.Attachments = []policy.Identity{here, there}, []policy.Identity{vlan}
	seg.SetPolicy(policy.Compile(policy.Rules{
		Self: here, Stations: map[policy.Identity]*policy.Station{here: policy.NewStation(macOf(1), nil, false), vlan: machines},
		Grants: []policy.Grant{{ID: grantID, Segment: true, Sources: []policy.Identity{here, vlan}}},
	}), now)

	m, tag := macOf(9), Tag{Source: vlan, Grant: grantID}
	hello := data(ether.Broadcast, m, experimental, "hello")
	from := func(p *Port, tag Tag) Drop {
		e := seg.Explain(p, hello, tag, now)
		drop := seg.Forward(p, hello, ether.Offload{}, tag, 0, now)
		if e.Drop != drop {
			t.Errorf("explained as %q, and %q", e.Drop.Code(), drop.Code())
		}
		return drop
	}
	if d := from(link, tag); d != Forwarded || host.take() != 1 {
		t.Fatalf("from one who was seen nowhere: %q", d)
	}
	if d := from(attached, Tag{}); d != Forwarded || host.take() != 1 {
		t.Fatalf("from the VLAN: %q", d)
	}
	if d := from(link, tag); d != DropFrozen || host.take() != 0 {
		t.Errorf("from the VLAN, by the other gateway: %q", d)
	}
	seg.FDB().Announce(m, Place{link, vlan}, 9, now, func(a, _ Place) bool { return a.Port == link })
	if d := from(link, tag); d != Forwarded || host.take() != 1 {
		t.Errorf("after it has moved there: %q", d)
	}
}

package lab

import (
	"testing"
	"time"
)

// What a machine sends over an aggregation comes out at one of its cables, tagged, at that which has a carrier if one has none; and what a
// gateway sends comes to the machine alone, without its tag.
func TestAggregate(t *testing.T) {
	t.Parallel()
	needPrograms(t, "ovs-vswitchd", "ovs-ofctl")
	l := newLab(t)
	sw := must(l.AddVLANSwitch(t.Context(), "switch"))(t)
	machine := must(l.AddHost("machine"))(t)
	cable := must(sw.Access(t.Context(), Plug{On: machine, Name: "eth0"}, 10))(t)
	var gateways []*Link
	var at []*Capture
	for _, name := range []string{"a", "b"} {
		h := must(l.AddHost(name))(t)
		gateways = append(gateways, must(sw.Trunk(t.Context(), Plug{On: h, Name: "lan"}, 10))(t))
		at = append(at, must(h.CaptureArrivals("lan"))(t))
	}
	atMachine := must(machine.CaptureArrivals("eth0"))(t)
	if err := sw.Aggregate(t.Context(), cable, 10, gateways...); err != nil {
		t.Fatal(err)
	}
	const count, quiet = 50, 300 * time.Millisecond
	plain, tagged := Ethernet(Broadcast(), mac(9), Experimental), Ethernet(Broadcast(), mac(9), Experimental, Tag{VLAN: 10})
	came := func(c *Capture, train Train, head []byte) int {
		t.Helper()
		a := must(c.AwaitTrain(t.Context(), train, head, quiet))(t)
		if a.Extra != 0 || a.Changed != 0 {
			t.Errorf("%d further copies, %d changed", a.Extra, a.Changed)
		}
		return a.Whole
	}
	send := func(from *Host, dev string, head []byte) Train {
		t.Helper()
		train := NewTrain(head, count, time.Millisecond)
		must(from.SendTrain(t.Context(), dev, train))(t)
		return train
	}
	train := send(machine, "eth0", plain)
	one := 0
	if came(at[0], train, tagged) == 0 {
		one = 1
	}
	if n, m := came(at[one], train, tagged), came(at[1-one], train, tagged); n != count || m != 0 {
		t.Errorf("of %d frames %d came to one gateway and %d to the other", count, n, m)
	}
	for i, g := range gateways {
		train := send(g.Host(), "lan", tagged)
		if n, other := came(atMachine, train, plain), came(at[1-i], train, tagged); n != count || other != 0 {
			t.Errorf("of %d frames of gateway %d, %d came to the machine and %d to the other gateway", count, i, n, other)
		}
	}
	if err := gateways[one].Peer().Down(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for came(at[1-one], send(machine, "eth0", plain), tagged) != count { // it takes the switch a moment to see it
		if time.Now().After(deadline) {
			t.Fatal("without its carrier, the frames do not go to the other gateway")
		}
	}
}

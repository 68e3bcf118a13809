package state

import (
	"testing"

	"github.com/etherloom/etherloom/control/controlv1"
)

// What a machine's place in a private VLAN may be.
func TestCheckSecondary(t *testing.T) {
	for _, c := range []struct {
		s    *controlv1.SecondaryVLAN
		good bool
	}{
		{nil, true},
		{&controlv1.SecondaryVLAN{}, true},
		{&controlv1.SecondaryVLAN{Isolated: true}, true},
		{&controlv1.SecondaryVLAN{Community: "shops"}, true},
		{&controlv1.SecondaryVLAN{Isolated: true, Community: "shops"}, false},
		{&controlv1.SecondaryVLAN{Community: "no label"}, false},
	} {
		m := &controlv1.Machine{Id: 5, Vni: 1, Gateways: []uint32{1}, Attachments: []uint32{5}, Secondary: c.s}
		if err := check(&controlv1.Resource{Kind: &controlv1.Resource_Machine{Machine: m}}); (err == nil) != c.good {
			t.Errorf("%v: %v", c.s, err)
		}
	}
}

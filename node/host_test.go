package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/controlv1"
)

// Of two segments whose addresses collide the first has its own, and stays so however often the host is looked at: routes are read once for all
// segments, but anew after an address was set.
func TestSegmentsThatCollide(t *testing.T) {
	elsewhere(t, func() {
		s := newSite(t)
		d := s.daemon()
		t.Cleanup(d.stop)
		static := controlv1.AddressMode_ADDRESS_MODE_STATIC
		resources := []*controlv1.Resource{netSettings(), self(station(1, 7, static, "192.0.2.7/24"), station(2, 8, static, "192.0.2.8/25"))}
		for vni, name := range map[uint32]string{1: "one", 2: "two"} {
			resources = append(resources, &controlv1.Resource{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: vni, Name: name, Mtu: 1400}}},
				&controlv1.Resource{Kind: &controlv1.Resource_Grant{Grant: &controlv1.Grant{Id: vni, Vni: vni, Sources: []uint32{selfID}}}})
		}
		must(t, d.take(s.delta(told{version: 1, resources: resources})))
		for round := range 3 {
			d.mu.Lock()
			var fit []string
			for _, seg := range d.sortedSegmentsLocked() {
				have, err := seg.tap.Addresses()
				must(t, err)
				for _, p := range seg.fit {
					if slices.Contains(have, p) {
						fit = append(fit, p.String())
					}
				}
			}
			text := d.problems["segment two"]
			d.mu.Unlock()
			if !slices.Equal(fit, []string{"192.0.2.7/24"}) || !strings.Contains(text, "collides with 192.0.2.0/24") {
				t.Errorf("round %d: the host has %v, the problem is %q", round, fit, text)
			}
			d.hostChanged()
		}
	})
}

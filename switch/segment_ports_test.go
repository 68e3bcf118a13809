package vswitch

import (
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
)

// Many ports are joined and taken out at once, with the addresses behind them; and of none nothing is made.
func TestManyPortsAtOnce(t *testing.T) {
	s := NewSegment(1, 1, 1500, fdb.Limits{})
	ports := []*Port{NewPort("a", Link, 2, nil), NewPort("b", Link, 3, nil), NewPort("c", Link, 4, nil)}
	before := s.layout.Load()
	s.AddPort()
	s.RemovePort()
	if s.layout.Load() != before {
		t.Error("of no port something is made")
	}
	s.AddPort(ports...)
	if !slices.Equal(s.Ports(), ports) {
		t.Errorf("there are %v", s.Ports())
	}
	now := time.Now()
	for i, p := range ports {
		s.fdb.Learn(ether.MAC{2, 5: byte(i)}, Place{Port: p, Who: p.Identity}, now)
	}
	s.RemovePort(ports[0], ports[2])
	left := s.fdb.Entries(now)
	if !slices.Equal(s.Ports(), ports[1:2]) || len(left) != 1 || left[0].Port.Port != ports[1] {
		t.Errorf("left are %v with %v", s.Ports(), left)
	}
}

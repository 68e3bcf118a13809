package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// drain is a way out for frames that nobody looks at.
type drain struct{}

func (drain) Send([]byte, ether.Offload, Tag, Lane) {}

// crowd is a gateway's segment with so many hosts that are members, half of them behind another gateway, and its port onto the VLAN of
// those of whom nobody has granted anything.
func crowd(hosts int) (*Segment, *Port) {
	stations := map[policy.Identity]*policy.Station{1: policy.NewStation(macOf(1), nil, false), 2: policy.NewStation(macOf(2), nil, false)}
	machine := func(id policy.Identity, mac ether.MAC, gateway, at policy.Identity) {
		s := policy.NewMachine(mac, nil)
		s.Gateways, s.Attachments = []policy.Identity{gateway}, []policy.Identity{at}
		stations[id] = s
	}
	machine(3, ether.MAC{}, 1, 3)
	machine(4, ether.MAC{}, 1, 4)
	machine(5, ether.MAC{}, 2, 5)
	all := policy.Grant{ID: 1, Segment: true}
	for i := range hosts {
		id := policy.Identity(10 + i)
		machine(id, ether.MAC{2, 9, 3: byte(i >> 16), 4: byte(i >> 8), 5: byte(i)}, policy.Identity(1+i%2), policy.Identity(4+i%2))
		all.Sources = append(all.Sources, id)
	}
	s := NewSegment(5, 1, 1500, fdb.Limits{})
	here := NewPort("here", Attached, 3, drain{})
	for _, p := range []*Port{here, NewPort("there", Attached, 4, drain{}), NewPort("link", Link, 2, drain{}), NewPort("there, too", Attached, 4, drain{})} {
		s.AddPort(p)
	}
	s.SetPolicy(policy.Compile(policy.Rules{Generation: 1, Self: 1, Stations: stations, Grants: []policy.Grant{all}}), time.Now())
	return s, here
}

// What a machine says to everybody that has no grants costs no look at each of ten thousand hosts.
func TestStrangersCostLittle(t *testing.T) {
	s, here := crowd(10_000)
	for i, dst := range []ether.MAC{ether.Broadcast, {3, 3}, {2, 8, 8}, ether.Broadcast} {
		if i == 3 {
			s.RemovePort(s.Ports()[1]) // so that the link is asked first
		}
		frame := data(dst, ether.MAC{2, 7, 7, 7, 7, 7}, experimental, "hello")
		const frames, most = 10, time.Millisecond
		best := time.Hour
		for range 10 {
			began := time.Now()
			for range frames {
				if d := s.Forward(here, frame, ether.Offload{}, Tag{}, 0, began); d != Drop(policy.NoGrant) {
					t.Fatalf("to %v: %s", dst, d.Code())
				}
			}
			best = min(best, time.Since(began))
		}
		if best > most {
			t.Errorf("to %v: %d frames take %v, expected %v at most", dst, frames, best, most)
		}
	}
}

// What a peer sends beyond its limit costs no look at each of ten thousand hosts, either.
func TestExcessCostsLittle(t *testing.T) {
	s, _ := crowd(10_000)
	s.SetLimits(policy.Limits{Broadcast: 1})
	link, frame := s.Ports()[2], data(ether.Broadcast, ether.MAC{2, 9, 5: 1}, experimental, "hello")
	const frames, most = 10, time.Millisecond
	best := time.Hour
	for range 20 {
		began := time.Now()
		for range frames {
			s.Forward(link, frame, ether.Offload{}, Tag{11, 1}, 0, began)
		}
		best = min(best, time.Since(began))
	}
	if best > most {
		t.Errorf("%d frames take %v, expected %v at most", frames, best, most)
	}
}

// What one's own machines say to everybody counts, also if nobody may have it.
func TestStrangersCount(t *testing.T) {
	s, here := crowd(10)
	s.SetLimits(policy.Limits{Broadcast: 100})
	refused, now := map[Drop]int{}, time.Now()
	for range 1000 {
		refused[s.Forward(here, data(ether.Broadcast, ether.MAC{2, 7}, experimental, ""), ether.Offload{}, Tag{}, 0, now)]++
	}
	if refused[Drop(policy.NoGrant)] != 200 || refused[Drop(policy.BroadcastRate)] != 800 {
		t.Errorf("refused: %v", refused)
	}
}

// Who has no grants is refused as if each receiver had been asked: what the others say to nobody is explained and refused alike (mesh.forward).
func TestStrangersAreRefusedAlike(t *testing.T) {
	for _, isolated := range []bool{false, true} {
		m := newMesh(t, false)
		if isolated {
			m.secondary = map[policy.Identity]policy.SecondaryVLAN{siteA: {Isolated: true}, siteB: {Isolated: true}}
		}
		m.grant(members(1, 2, siteB, 31))
		for _, dst := range []ether.MAC{ether.Broadcast, {3, 3}, {2, 8, 8}} {
			if d := m.says(siteA, data(dst, macAt(siteA), experimental, "")); !isolated && d != Drop(policy.NoGrant) || d == Forwarded {
				t.Errorf("to %v: %s", dst, d.Code())
			}
		}
		m.expect("from who has no grants", nil)
	}
	// What would pass is counted all the same.
	m := newMesh(t, false)
	observed := members(siteA)
	observed.ID, observed.Observe = grantID+1, true
	m.grant(members(1, 2, siteB, 31), observed)
	m.says(siteA, data(ether.Broadcast, macAt(siteA), experimental, ""))
	list, _ := m.segments[3].Denied()
	if len(list) != 1 || list[0].Observed != observed.ID {
		t.Errorf("denied: %+v", list)
	}
}

func BenchmarkStrangersBroadcast(b *testing.B) {
	s, here := crowd(10_000)
	frame, now := data(ether.Broadcast, ether.MAC{2, 7, 7, 7, 7, 7}, experimental, "hello"), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		s.Forward(here, frame, ether.Offload{}, Tag{}, 0, now)
	}
}

package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/internal/cputime"
	vswitch "github.com/etherloom/etherloom/switch"
)

// A large network: as many nodes, of which the first are gateways, and as many hosts behind these. This node is a gateway, too.
const (
	manyNodes    = 1000
	manyGateways = 10
	manyHosts    = 10_000
	manyLeases   = 4096 // more are no pool's
)

// large is what this gateway is told of it: all are members of one segment.
func (s *site) large() []*controlv1.Resource {
	address := func(i int) string { return fmt.Sprintf("10.64.%d.%d/16", i>>8, i&255) }
	mac := func(kind byte, i int) []byte { return []byte{2, kind, 0, 0, byte(i >> 8), byte(i)} }
	out := []*controlv1.Resource{
		netSettings(), self(),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500, Ipv4Prefix: "10.64.0.0/16"}}},
		signedPort(2000, "lan", func(a *controlv1.Attachment) { a.Declared = false }),
		{Kind: &controlv1.Resource_Dhcp{Dhcp: &controlv1.DhcpService{
			Vni: 1, Server: "10.64.255.254", Mac: mac(9, 9), PoolFrom: "10.64.200.0", PoolTo: "10.64.215.255", LeaseSeconds: 3600,
		}}},
	}
	var members []uint32
	add := func(id uint32, r *controlv1.Resource) { members, out = append(members, id), append(out, r) }
	key := s.peer(1, "x").GetPeer().GetStaticKey()
	for i := range manyNodes {
		id := uint32(1000 + i)
		static := slices.Clone(key)
		static[0], static[1] = byte(i), byte(i>>8)
		add(id, &controlv1.Resource{Kind: &controlv1.Resource_Peer{Peer: &controlv1.Peer{
			Id: id, Name: fmt.Sprint("n", i), StaticKey: static, Stations: []*controlv1.Station{{Vni: 1, Mac: mac(1, i), Addresses: []string{address(i)}}},
		}}})
	}
	gateway := func(i int) []uint32 {
		if i%manyGateways == 0 {
			return []uint32{selfID}
		}
		return []uint32{uint32(1000 + i%manyGateways)}
	}
	for i := range manyGateways {
		at := uint32(2000 + i)
		add(at, &controlv1.Resource{Kind: &controlv1.Resource_Machine{Machine: &controlv1.Machine{
			Id: at, Name: fmt.Sprintf("n%d/lan", i), Vni: 1, Gateways: gateway(i), Attachments: []uint32{at},
		}}})
	}
	for i := range manyHosts {
		id := uint32(10_000 + i)
		m := &controlv1.Machine{
			Id: id, Name: fmt.Sprint("h", i), Vni: 1, Mac: mac(2, i), Gateways: gateway(i), Attachments: []uint32{uint32(2000 + i%manyGateways)},
		}
		if i >= manyLeases {
			m.Addresses = []string{address(2000 + i)}
		} else {
			out = append(out, &controlv1.Resource{Kind: &controlv1.Resource_Lease{Lease: &controlv1.Lease{
				Vni: 1, Address: fmt.Sprintf("10.64.%d.%d", 200+i>>8, i&255), Machine: id, Mac: m.Mac, State: boundLease,
			}}})
		}
		add(id, &controlv1.Resource{Kind: &controlv1.Resource_Machine{Machine: m}})
	}
	return append(out, &controlv1.Resource{Kind: &controlv1.Resource_Grant{Grant: &controlv1.Grant{Id: 1, Vni: 1, Sources: append(members, selfID)}}})
}

// What a gateway does when policy changes, and where its VLAN's switches are to look for whom, does not take seconds in a large network. Each is a
// tenth of what is allowed, or less, on a machine of 2026, and took seconds when it was done for each machine by itself.
func TestLargeNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := newSite(t)
	d := s.daemon()
	delta := s.delta(told{version: 1, resources: s.large()})
	within := func(what string, most time.Duration, do func()) {
		t.Helper()
		if d := cputime.Took(do); d > most {
			t.Errorf("%s takes %v, want at most %v", what, d, most)
		}
	}
	within("the first state", 5*time.Second, func() { must(t, d.take(delta)) })
	t.Cleanup(d.stop)
	d.mu.Lock()
	defer d.mu.Unlock()
	within("a change of policy", time.Second, func() { d.applyLocked(time.Now()) })
	seg := d.segments[1]
	h := newHerald(seg)
	within("a tick of the herald", 500*time.Millisecond, func() { h.Tick(time.Now()) })
	a := &attachment{id: 2000, seg: seg, trunk: &trunk{d: d}}
	a.port = vswitch.NewPort("lan", vswitch.Attached, a.id, a)
	within("who is reached", 500*time.Millisecond, func() {
		if n := len(a.reached(time.Now())); n != manyNodes+manyHosts-manyHosts/manyGateways {
			t.Errorf("%d are reached", n)
		}
	})
}

// Changes of a large network that come fast are held at once, and applied together: the last one does not wait until each before has been applied.
func TestLargeStateRests(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := newSite(t)
	d := s.daemon()
	resources := s.large()
	must(t, d.take(s.delta(told{version: 1, resources: resources})))
	t.Cleanup(d.stop)
	const changes = 8
	var deltas []*controlv1.Delta
	for i := range uint64(changes) { // each machine's end
		resources = slices.Clone(resources[:len(resources)-1])
		deltas = append(deltas, s.delta(told{version: i + 2, resources: resources}))
	}
	d.mu.Lock()
	d.rested = time.Now().Add(time.Minute) // all come meanwhile
	before := d.applied
	d.mu.Unlock()
	for i, delta := range deltas {
		must(t, d.take(delta))
		if v := d.held.Load().Header.GetVersion(); v != uint64(i)+2 {
			t.Errorf("version %d is held, want %d", v, i+2)
		}
	}
	d.mu.Lock()
	if d.applied != before || d.soon == nil {
		t.Errorf("meanwhile it is applied %d times; soon again: %v", d.applied-before, d.soon != nil)
	}
	d.mu.Unlock()
	d.applySoon() // what the timer does
	d.applySoon()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.applied != before+1 || d.soon != nil || len(d.contents.Grants) != 0 {
		t.Errorf("then it is applied %d times, and the grant that has ended is there: %v", d.applied-before, len(d.contents.Grants) != 0)
	}
	if rest := time.Until(d.rested); rest > restMost {
		t.Errorf("it rests for %v", rest)
	}
}

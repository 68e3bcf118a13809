package compile

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/cputime"
)

// plain works out what a node is told, for this node alone.
func plain(t testing.TB, m *model.Model, id identity.ID) state.State {
	t.Helper()
	c := New(identity.WrapKey{}, quiet)
	c.model, c.entries = m, map[any]entry{}
	n, p := m.Nodes[id], m.Profile(id)
	in := inputs{shared: m.Shared, profile: p, status: m.Status(n), views: m.ViewsFor(id), reaches: m.ReachesFor(id), outlets: m.OutletsOf(id)}
	s, others := state.State{}, meetings{}
	must(t, c.addShared(s, in))
	for _, v := range in.views {
		must(t, c.addView(s, v))
		others.meet(v.Segment.VNI, v.Members)
	}
	for _, r := range in.reaches {
		must(t, c.addReach(s, r, p))
		if len(own(r.From, p)) > 0 {
			others.meet(r.Segment.VNI, r.To)
		}
		if len(own(r.To, p)) > 0 {
			others.meet(r.Segment.VNI, r.From)
		}
	}
	for _, o := range in.outlets {
		must(t, c.addOutlet(s, o))
		others.meet(o.Segment.VNI, o.Machines)
	}
	must(t, c.addServices(s, m.ServicesFor(id)))
	delete(others, p)
	for other, set := range others {
		must(t, c.addOther(s, other, set.text()))
	}
	self := peer(p, in.own())
	self.Complete = in.status == model.StatusActive
	must(t, c.add(s, &controlv1.Resource{Kind: &controlv1.Resource_Self{Self: self}}))
	return s
}

const anyNodes = 9

// anyFacts is a network of a few nodes, gateways and hosts, of which anything may be.
func anyFacts(t testing.TB, r *rand.Rand) model.Facts {
	more := []model.Fact{relay(t, identity.WrapKey{}, "r")}
	for vni := model.VNI(1); vni <= 3; vni++ {
		more = append(more, segment(vni))
		if vni < 3 {
			base := netip.MustParseAddr(fmt.Sprintf("10.64.%d.0", vni*16+8))
			more = append(more, &model.DHCP{VNI: vni, Server: base, MAC: model.MAC{2, 9, byte(vni)}, From: base.Next(), To: base.Next().Next().Next(), Lease: model.Duration(time.Hour)})
		}
	}
	for id := identity.ID(1); id <= anyNodes; id++ {
		n := node(id, "all=1", fmt.Sprint("g=", r.IntN(3)))
		if id <= 4 {
			n.Roles = []string{"member", "gateway"}
		}
		if r.IntN(8) == 0 {
			n.OwnStatus = model.StatusLocked
		}
		more = append(more, n)
	}
	for id := identity.ID(20); id < 24; id++ {
		ports := []model.AttachmentPort{{Node: 1 + id%4, Name: fmt.Sprint("p", id), NIC: "eth1", VLAN: uint16(id)}}
		if r.IntN(2) == 0 {
			ports = append(ports, model.AttachmentPort{Node: 1 + (id+1)%4, Name: fmt.Sprint("q", id), NIC: "eth2", VLAN: uint16(id)})
		}
		more = append(more, &model.Attachment{ID: id, VNI: model.VNI(1 + id%2), Ports: ports})
	}
	for id := identity.ID(30); id < 38; id++ {
		vni := model.VNI(1 + id%2)
		more = append(more, &model.Host{ID: id, Name: fmt.Sprint("h", id), MAC: model.MAC{2, 7, byte(id)}, VNI: vni, Attachments: []identity.ID{20 + id%2 + 2*identity.ID(r.IntN(2))}})
		if r.IntN(2) == 0 {
			more = append(more, &model.Lease{VNI: vni, Address: netip.MustParseAddr(fmt.Sprintf("10.64.%d.%d", vni*16+8, id)), Machine: id, MAC: model.MAC{2, 7, byte(id)}, State: model.LeaseBound, Since: until})
		}
	}
	party := func() model.Selector {
		switch r.IntN(4) {
		case 0:
			return model.Selector{Label: "all=1"}
		case 1:
			return model.Selector{Label: fmt.Sprint("g=", r.IntN(3))}
		case 2:
			return model.Selector{Node: identity.ID(1 + r.IntN(anyNodes))}
		}
		return model.Selector{Node: []identity.ID{20, 21, 22, 23, 30, 31, 32, 33, 34, 35, 36, 37}[r.IntN(12)]}
	}
	for id := range model.GrantID(1 + r.IntN(8)) {
		from := party()
		g := &model.Grant{ID: id + 1, Node: from.Node, Label: from.Label, VNI: model.VNI(1 + r.IntN(3))}
		if r.IntN(2) == 0 {
			to := party()
			g.Target = &to
		}
		more = append(more, g)
	}
	return facts(more...)
}

// What is kept in common changes nothing of what each node is told, of its hash, or of what leads there from what it was told before.
func TestCommonIsNoDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := New(identity.WrapKey{}, quiet)
	told := map[identity.ID]*Result{}
	var m *model.Model
	own, less := 0, 0
	for version := range uint64(400) {
		f := anyFacts(t, r)
		if m != nil && r.IntN(4) > 0 { // a step from what was
			f = maps.Clone(m.Facts)
			maps.DeleteFunc(f, func(string, model.Fact) bool { return r.IntN(20) == 0 })
			for key, x := range anyFacts(t, r) {
				if r.IntN(10) == 0 {
					f[key] = x
				}
			}
			f["settings"] = settings()
		}
		m = seated(t, f, version+1, m)
		for id := range told {
			if m.Nodes[id] == nil {
				delete(told, id)
			}
		}
		for id := range m.Nodes {
			x, err := c.Compile(m, id, told[id])
			must(t, err)
			s, want := x.State(), plain(t, m, id)
			if !maps.EqualFunc(s, want, bytes.Equal) || x.Hash != want.Hash() {
				t.Fatalf("version %d: node %d is told %v, want %v", version, id, keys(x), slices.Sorted(maps.Keys(want)))
			}
			for key := range want {
				if value, ok := x.Get(key); !ok || !bytes.Equal(value, want[key]) {
					t.Fatalf("version %d: node %d is told something else of %s", version, id, key)
				}
			}
			if _, ok := x.Get(peerName(m.Profile(id))); ok {
				t.Fatalf("node %d is told of itself as of a peer", id)
			}
			for _, from := range []*Result{nil, told[id], told[1+id%anyNodes]} {
				var before state.State
				if from != nil {
					before = from.State()
				}
				set, removed := c.Delta(from, x)
				wantSet, wantRemoved := state.Diff(before, want)
				if !maps.EqualFunc(set, wantSet, bytes.Equal) || !slices.Equal(removed, wantRemoved) {
					t.Fatalf("version %d: to node %d leads %v less %v, want %v less %v", version, id, slices.Sorted(maps.Keys(set)), removed, slices.Sorted(maps.Keys(wantSet)), wantRemoved)
				}
			}
			told[id] = x
			own += len(x.own)
			if x.without != "" {
				less++
			}
		}
	}
	if own < 1000 || less < 500 {
		t.Errorf("%d entries are nodes' own, %d nodes are left out: this proves little", own, less)
	}
}

// large is a thousand nodes, a hundred of them gateways, and ten thousand hosts behind these, each with a lease: all members of three segments.
func large() model.Facts {
	const nodes, gateways, hosts, segments = 1000, 100, 10_000, 3
	var more []model.Fact
	address := func(vni model.VNI, a, b int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(64 + vni), byte(a), byte(b)})
	}
	groups := map[model.VNI]*model.Group{}
	for vni := model.VNI(1); vni <= segments; vni++ {
		seg := segment(vni)
		seg.IPv4 = netip.PrefixFrom(address(vni, 0, 0), 16)
		groups[vni] = &model.Group{Name: fmt.Sprint("g", vni), Labels: []string{"all=1"}}
		more = append(more, seg, groups[vni], &model.Grant{ID: model.GrantID(vni), Group: groups[vni].Name, VNI: vni}, &model.DHCP{
			VNI: vni, Server: address(vni, 255, 254), MAC: model.MAC{2, 9, byte(vni)}, From: address(vni, 200, 0), To: address(vni, 215, 255), Lease: model.Duration(time.Hour),
		})
	}
	for id := identity.ID(1); id <= nodes; id++ {
		n := node(id, "all=1")
		if id <= gateways {
			n.Roles = []string{"member", "gateway"}
			more = append(more, &model.Attachment{ID: 2000 + id, VNI: model.VNI(1 + id%segments), Ports: []model.AttachmentPort{{Node: id, Name: "lan", NIC: "eth1", VLAN: 10}}})
		}
		more = append(more, n)
	}
	for i := range identity.ID(hosts) {
		at := 1 + i%gateways
		h := &model.Host{ID: 10_000 + i, Name: fmt.Sprint("h", i), MAC: model.MAC{2, 7, 4: byte(i >> 8), 5: byte(i)}, VNI: model.VNI(1 + at%segments), Attachments: []identity.ID{2000 + at}}
		groups[h.VNI].Nodes = append(groups[h.VNI].Nodes, h.ID)
		more = append(more, h, &model.Lease{
			VNI: h.VNI, Address: address(h.VNI, 200+int(i/segments)>>8, int(i/segments)), Machine: h.ID, MAC: h.MAC, State: model.LeaseBound, Since: until,
		})
	}
	return facts(more...)
}

// To tell a thousand nodes what has become of one of ten thousand leases takes half a second, not the forty that it takes to work it out for each of
// them. Who is cut off meanwhile would wait for it.
func TestLargeNetwork(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("takes seconds, or many")
	}
	m := seated(t, large(), 1, nil)
	c := New(identity.WrapKey{}, quiet)
	told := map[identity.ID]*Result{}
	round := func(m *model.Model, each int) {
		t.Helper()
		d := cputime.Took(func() {
			for id := range m.Nodes {
				r, err := c.Compile(m, id, told[id])
				must(t, err)
				if told[id] != nil {
					if set, removed := c.Delta(told[id], r); len(set)+len(removed) != each {
						t.Fatalf("node %d is told %d changes, want %d", id, len(set)+len(removed), each)
					}
				}
				told[id] = r
			}
		})
		t.Logf("told in %v", d)
		if d > 5*time.Second {
			t.Errorf("a thousand nodes are told in %v, want at most 5 s", d)
		}
	}
	round(m, 0)
	for _, id := range []identity.ID{1, 100, 500} { // by marks, and not
		if told[id].Hash != told[id].State().Hash() {
			t.Errorf("the hash of what node %d is told is another", id)
		}
	}
	f := maps.Clone(m.Facts)
	l := m.LeasesOn(1)[0]
	f[l.Key()] = l.In(model.LeaseEnded, until.Add(time.Minute))
	round(model.Derive(f, 2, m), 1)
}

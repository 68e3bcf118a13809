package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

func gateway(id identity.ID) *model.Node {
	n := node(id)
	n.Roles = []string{"member", "gateway"}
	return n
}

// site has gateways 1 and 2 at attachment 10, gateway 1 alone at attachment 11, gateway 9 at attachment 12 of segment 2; hosts 20
// behind 10 and 21 behind 11; nodes 3 to 6.
func site(more ...model.Fact) model.Facts {
	port := func(id identity.ID, name string, vlan uint16) model.AttachmentPort {
		return model.AttachmentPort{Node: id, Name: name, NIC: "eth1", VLAN: vlan}
	}
	return facts(append([]model.Fact{
		segment(1), segment(2), gateway(1), gateway(2), gateway(9), node(3), node(4), node(5), node(6),
		&model.Attachment{ID: 10, VNI: 1, Ports: []model.AttachmentPort{port(1, "a", 10), port(2, "b", 30)}},
		&model.Attachment{ID: 11, VNI: 1, Ports: []model.AttachmentPort{port(1, "c", 11)}},
		&model.Attachment{ID: 12, VNI: 2, Ports: []model.AttachmentPort{port(9, "d", 12)}},
		&model.Host{ID: 20, Name: "printer", MAC: model.MAC{2, 20}, VNI: 1, Attachments: []identity.ID{10}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.20/24")}},
		&model.Host{ID: 21, Name: "camera", MAC: model.MAC{2, 21}, VNI: 1, Attachments: []identity.ID{11}},
	}, more...)...)
}

// told is what every node is told, but for its own and the network's.
func told(t testing.TB, m *model.Model) map[identity.ID]string {
	t.Helper()
	out := map[identity.ID]string{}
	c := New(identity.WrapKey{}, quiet)
	for id := range m.Nodes {
		r, err := c.Compile(m, id, nil)
		must(t, err)
		out[id] = strings.TrimSuffix(strings.TrimSuffix(keys(r), "self settings"), " ")
		if _, err := r.State().Contents(); err != nil {
			t.Errorf("node %d cannot read it: %v", id, err)
		}
	}
	return out
}

// TestMachines: who is told what of machines behind gateways. Nobody is told of one that no grant concerns but its gateways.
func TestMachines(t *testing.T) {
	const (
		alone1 = "attachment/10 attachment/11 machine/10 machine/11 machine/20 machine/21 peer/2 segment/1"
		alone2 = "attachment/10 machine/10 machine/20 peer/1 segment/1"
		alone9 = "attachment/12 machine/12 segment/2"
	)
	for name, c := range map[string]struct {
		more []model.Fact
		want map[identity.ID]string // of those who are told otherwise than without any grant
	}{
		"no grant": {nil, nil},
		"host and node are members": {
			[]model.Fact{&model.Grant{ID: 1, Node: 20, VNI: 1}, &model.Grant{ID: 2, Node: 3, VNI: 1}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 grant/1 grant/2 machine/10 machine/11 machine/20 machine/21 peer/2 peer/3 segment/1",
				2: "attachment/10 grant/1 grant/2 machine/10 machine/20 peer/1 peer/3 segment/1",
				3: "grant/1 grant/2 machine/20 peer/1 peer/2 segment/1",
			},
		},
		"those whom nobody named are members": {
			[]model.Fact{&model.Grant{ID: 1, Node: 11, VNI: 1}, &model.Grant{ID: 2, Node: 3, VNI: 1}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 grant/1 grant/2 machine/10 machine/11 machine/20 machine/21 peer/2 peer/3 segment/1",
				3: "grant/1 grant/2 machine/11 peer/1 segment/1",
			},
		},
		"node to host": {
			[]model.Fact{&model.Grant{ID: 1, Node: 3, Target: &model.Selector{Node: 20}, VNI: 1, Allow: []string{"tcp:631"}}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 machine/10 machine/11 machine/20 machine/21 peer/2 peer/3 reach/1 segment/1",
				2: "attachment/10 machine/10 machine/20 peer/1 peer/3 reach/1 segment/1",
				3: "machine/20 peer/1 peer/2 reach/1 segment/1",
			},
		},
		"host to node": {
			[]model.Fact{&model.Grant{ID: 1, Node: 21, Target: &model.Selector{Node: 4}, VNI: 1}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 machine/10 machine/11 machine/20 machine/21 peer/2 peer/4 reach/1 segment/1",
				4: "machine/21 peer/1 reach/1 segment/1",
			},
		},
		"gateway to its own host": {
			[]model.Fact{&model.Grant{ID: 1, Node: 1, Target: &model.Selector{Node: 20}, VNI: 1}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 machine/10 machine/11 machine/20 machine/21 peer/2 reach/1 segment/1",
				2: "attachment/10 machine/10 machine/20 peer/1 reach/1 segment/1",
			},
		},
		"host to host": {
			[]model.Fact{&model.Grant{ID: 1, Node: 20, Target: &model.Selector{Node: 21}, VNI: 1}},
			map[identity.ID]string{
				1: "attachment/10 attachment/11 machine/10 machine/11 machine/20 machine/21 peer/2 reach/1 segment/1",
				2: "attachment/10 machine/10 machine/20 machine/21 peer/1 reach/1 segment/1",
			},
		},
		"only observed": {
			[]model.Fact{&model.Grant{ID: 1, Node: 20, VNI: 1, Observe: true}}, nil,
		},
		"gateway 1 is locked": {
			[]model.Fact{&model.Grant{ID: 1, Node: 3, Target: &model.Selector{Node: 20}, VNI: 1}, &model.Lock{ID: 1, Node: 1}},
			map[identity.ID]string{
				1: "", 2: "attachment/10 machine/10 machine/20 peer/3 reach/1 revocation/1 segment/1",
				3: "machine/20 peer/2 reach/1 revocation/1 segment/1",
			},
		},
		"all gateways are locked": {
			[]model.Fact{&model.Grant{ID: 1, Node: 20, VNI: 1}, &model.Grant{ID: 2, Node: 3, VNI: 1}, &model.Lock{ID: 1, Node: 1}, &model.Lock{ID: 2, Node: 2}},
			map[identity.ID]string{1: "", 2: "", 3: "grant/1 grant/2 revocation/1 revocation/2 segment/1"},
		},
		"a gateway of another segment": {
			[]model.Fact{&model.Grant{ID: 1, Node: 12, VNI: 2}, &model.Grant{ID: 2, Node: 5, VNI: 2}},
			map[identity.ID]string{
				5: "grant/1 grant/2 machine/12 peer/9 segment/2", 9: "attachment/12 grant/1 grant/2 machine/12 peer/5 segment/2",
			},
		},
	} {
		want := map[identity.ID]string{1: alone1, 2: alone2, 9: alone9, 3: "", 4: "", 5: "", 6: ""}
		maps.Copy(want, c.want)
		got := told(t, seated(t, site(c.more...), 1, nil))
		for _, id := range slices.Sorted(maps.Keys(got)) {
			if got[id] != want[id] {
				t.Errorf("%s: node %d is told\n%s\nwant\n%s", name, id, got[id], want[id])
			}
		}
	}
}

func contents(t testing.TB, c *Compiler, m *model.Model, id identity.ID) *state.Contents {
	t.Helper()
	r, err := c.Compile(m, id, nil)
	must(t, err)
	out, err := r.State().Contents()
	must(t, err)
	return out
}

// TestMachineContents: what is in what is told.
func TestMachineContents(t *testing.T) {
	m := seated(t, site(&model.Group{Name: "g", Nodes: []identity.ID{1, 20, 21}}, &model.Grant{ID: 1, Group: "g", Target: &model.Selector{Node: 3}, VNI: 1},
		&model.Grant{ID: 2, Node: 2, VNI: 1}, &model.Grant{ID: 3, Node: 1, Target: &model.Selector{Node: 20}, VNI: 1}), 1, nil)
	c := New(identity.WrapKey{}, quiet)
	one, two, three := contents(t, c, m, 1), contents(t, c, m, 2), contents(t, c, m, 3)
	// At its own end a gateway is told of itself and of its machines; each machine is there as its own.
	if got := fmt.Sprint(one.Reaches[1].Sources, one.Reaches[1].Targets, two.Reaches[1].Sources, two.Reaches[1].Targets, three.Reaches[1].Sources, three.Reaches[1].Targets); got !=
		"[1 20 21] [3] [20] [3] [1 20 21] [3]" {
		t.Errorf("grant 1 is told as %s", got)
	}
	if got := fmt.Sprint(one.Reaches[3].Sources, one.Reaches[3].Targets, two.Reaches[3].Sources, two.Reaches[3].Targets); got != "[1] [20] [1] [20]" {
		t.Errorf("grant 3, from a gateway to its machine, is told as %s", got)
	}
	if p := three.Machines[20]; p.GetName() != "printer" || p.GetMac()[1] != 20 || fmt.Sprint(p.GetAddresses(), p.GetGateways(), p.GetAttachments(), p.GetVni()) != "[192.0.2.20/24] [1 2] [10] 1" {
		t.Errorf("node 3 is told of machine %v", p)
	}
	if p := one.Machines[11]; p.GetName() != "n1/c" || p.GetMac() != nil || fmt.Sprint(p.GetGateways(), p.GetAttachments()) != "[1] [11]" {
		t.Errorf("gateway 1 is told of those whom nobody named: %v", p)
	}
	// A gateway of machines is a peer without a station, unless it has to do with the segment itself.
	if len(three.Peers[2].GetStations()) != 0 || len(three.Peers[1].GetStations()) != 1 || len(two.Self.GetStations()) != 1 {
		t.Errorf("stations: %v, %v, %v", three.Peers[2], three.Peers[1], two.Self)
	}
	if a := one.Attachments[10]; a.GetPort() != "a" || a.GetVlan() != 10 || two.Attachments[10].GetPort() != "b" || two.Attachments[10].GetVlan() != 30 {
		t.Errorf("each gateway is told its own port: %v, %v", a, two.Attachments[10])
	}
}

// TestMachinesLast: the same Result comes back for those whom a change of machines does not concern.
func TestMachinesLast(t *testing.T) {
	before := seated(t, site(&model.Grant{ID: 1, Node: 3, Target: &model.Selector{Node: 20}, VNI: 1}, &model.Grant{ID: 2, Node: 4, VNI: 1}, &model.Grant{ID: 3, Node: 5, VNI: 1}), 1, nil)
	c := New(identity.WrapKey{}, quiet)
	results := map[identity.ID]*Result{}
	for id := range before.Nodes {
		var err error
		results[id], err = c.Compile(before, id, nil)
		must(t, err)
	}
	for name, x := range map[string]struct {
		edit    func(model.Facts)
		changed []identity.ID
	}{
		"host made": {func(f model.Facts) {
			f["host/30"] = &model.Host{ID: 30, Name: "x", MAC: model.MAC{2, 30}, VNI: 1, Attachments: []identity.ID{11}}
		}, []identity.ID{1}},
		"host's address changed": {func(f model.Facts) {
			h := *before.Hosts[20]
			h.Addresses = nil
			f["host/20"] = &h
		}, []identity.ID{1, 2, 3}},
		"attachment made": {func(f model.Facts) {
			f["attachment/30"] = &model.Attachment{ID: 30, VNI: 1, Ports: []model.AttachmentPort{{Node: 2, Name: "x", NIC: "eth9"}}}
		}, []identity.ID{2}},
		"isolated": {func(f model.Facts) {
			f["attachment/10"] = before.Attachments[10].WithSecondary(model.SecondaryVLAN{Isolated: true})
		}, []identity.ID{1, 2, 3}},
		"port removed": {func(f model.Facts) { f["attachment/10"] = before.Attachments[10].WithoutPort(2) }, []identity.ID{1, 2, 3}},
		"host removed": {func(f model.Facts) { delete(f, "host/21") }, []identity.ID{1}},
		"a gateway was renewed": {func(f model.Facts) {
			n := before.Nodes[1].Clone()
			n.Serial = "2"
			f[n.Key()] = n
		}, nil},
		"a gateway has another nonce": {func(f model.Facts) {
			n := before.Nodes[2].Clone()
			n.HandshakeNonce++
			f[n.Key()] = n
		}, []identity.ID{1, 2, 3}},
		"a gateway is locked": {func(f model.Facts) { f["lock/1"] = &model.Lock{ID: 1, Node: 2} }, []identity.ID{1, 2, 3}},
	} {
		f := maps.Clone(before.Facts)
		x.edit(f)
		after := model.Derive(f, 2, before)
		for id := range before.Nodes {
			r, err := c.Compile(after, id, results[id])
			must(t, err)
			if anew := r != results[id]; anew != slices.Contains(x.changed, id) || (r.Hash != results[id].Hash) != anew {
				t.Errorf("%s: node %d is compiled anew: %v, told otherwise: %v", name, id, anew, r.Hash != results[id].Hash)
			}
		}
		// Another controller, which reads everything anew, says the same.
		for id := range after.Nodes {
			x, err := c.Compile(after, id, nil)
			must(t, err)
			y, err := New(identity.WrapKey{}, quiet).Compile(model.Derive(maps.Clone(f), 2, nil), id, nil)
			must(t, err)
			if x.Hash != y.Hash {
				t.Errorf("%s: node %d is told two things", name, id)
			}
		}
	}
}

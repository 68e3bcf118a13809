package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// key32 is a key that only this node has.
func key32(kind byte, id identity.ID) []byte {
	return append(bytes.Repeat([]byte{kind}, 28), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func node(id identity.ID, labels ...string) *Node {
	return &Node{
		ID: id, Name: fmt.Sprint("n", id), Roles: []string{"member"}, Labels: labels, OwnStatus: StatusActive,
		Sign: key32('s', id), Static: key32('x', id), RelaySlot: uint32(id),
	}
}

func segment(vni VNI, ipv4 string) *Segment {
	return &Segment{VNI: vni, Name: fmt.Sprint("seg", vni), MTU: 1500, IPv4: pfx(ipv4), IPv6: pfx(fmt.Sprintf("fd00:0:0:%x::/64", vni))}
}

// facts are those of a network with the given additions.
func facts(more ...Fact) Facts {
	f := Facts{}
	for _, x := range append([]Fact{&Settings{Name: "default", Pool: DefaultPool(), ULA: pfx("fd00::/48"), Epoch: 1}}, more...) {
		f[x.Key()] = x
	}
	return f
}

// seated derives a Model in which every member has a station.
func seated(t testing.TB, f Facts) *Model {
	t.Helper()
	m := Derive(f, 1, nil)
	nodes, err := m.Seat(1000, nil)
	must(t, err)
	f = maps.Clone(f)
	for _, n := range nodes {
		f[n.Key()] = n
	}
	m = Derive(f, 2, m)
	if m.Vacant() {
		t.Fatal("seats are still vacant")
	}
	return m
}

func members(v *View) []identity.ID {
	var out []identity.ID
	for _, p := range v.Members {
		out = append(out, p.ID)
	}
	return out
}

func TestMembership(t *testing.T) {
	pending, locked, removed, forgotten := node(4, "site=a"), node(5, "site=a"), node(6, "site=a"), node(7, "site=a")
	pending.OwnStatus, locked.OwnStatus, removed.OwnStatus, forgotten.OwnStatus = StatusPending, StatusLocked, StatusRemoved, StatusLocked
	forgotten.Forgotten, forgotten.Stations = true, []Station{{VNI: 1, MAC: MAC{2, 7}, Mode: ModeNone}}
	locked.Stations = []Station{{VNI: 1, MAC: MAC{2, 5}, Mode: ModeNone}}
	removed.Stations = []Station{{VNI: 1, MAC: MAC{2, 6}, Mode: ModeNone}, {VNI: 2, MAC: MAC{2, 6}, Mode: ModeNone}}
	m := seated(t, facts(
		segment(1, "10.64.0.0/20"), segment(2, "10.64.16.0/20"),
		node(1, "site=a", "role=db"), node(2, "site=a"), node(3, "site=b"), pending, locked, removed, forgotten,
		&Grant{ID: 1, Label: "site=a", VNI: 1}, &Grant{ID: 2, Node: 3, VNI: 1}, &Grant{ID: 3, Label: "role=db", VNI: 1},
		&Grant{ID: 4, Node: 3, VNI: 2}, &Grant{ID: 5, Label: "role=none", VNI: 2},
		&Grant{ID: 6, Node: 6, VNI: 2}, &Grant{ID: 7, Node: 99, VNI: 2},
	))
	lan, other := m.MemberOf(3)[0], m.MemberOf(3)[1]
	if got := members(lan); !slices.Equal(got, []identity.ID{1, 2, 3}) {
		t.Errorf("members of segment 1: %v", got)
	}
	if got := members(other); !slices.Equal(got, []identity.ID{3}) {
		t.Errorf("members of segment 2: %v", got)
	}
	sources := map[GrantID][]identity.ID{}
	for _, g := range append(slices.Clone(lan.Grants), other.Grants...) {
		sources[g.Grant.ID] = g.Sources
	}
	want := map[GrantID][]identity.ID{1: {1, 2}, 2: {3}, 3: {1}, 4: {3}, 5: {}, 6: {}, 7: {}}
	for id := range want {
		if !slices.Equal(sources[id], want[id]) {
			t.Errorf("sources of grant %d: %v, want %v", id, sources[id], want[id])
		}
	}
	if !slices.Equal(lan.Revoked, []identity.ID{5, 6}) || !slices.Equal(other.Revoked, []identity.ID{6}) {
		t.Errorf("revoked: %v and %v", lan.Revoked, other.Revoked)
	}
	for _, id := range []identity.ID{4, 5, 6, 99} {
		if len(m.MemberOf(id)) != 0 {
			t.Errorf("node %d, which is not active, is a member", id)
		}
	}
	if m.NodeNamed("n1") == nil || m.NodeNamed("n5") == nil || m.NodeNamed("n6") != nil {
		t.Error("names: a removed node bears one, or another bears none")
	}
	if m.KeyOwner(removed.Sign) != "node/6" || m.KeyOwner(removed.Static) != "node/6" || m.KeyOwner(key32('s', 77)) != "" {
		t.Error("a removed node's keys are free")
	}
}

// TestUnchangedIsShared: what did not change is the same pointer in the next Model, and what did is not.
func TestUnchangedIsShared(t *testing.T) {
	base := seated(t, facts(
		segment(1, "10.64.0.0/20"), segment(2, "10.64.16.0/20"), node(1, "a=1"), node(2, "a=1"), node(3, "b=1"),
		&Grant{ID: 1, Label: "a=1", VNI: 1}, &Grant{ID: 2, Label: "b=1", VNI: 2},
		&Relay{Name: "r", Hosts: []string{"192.0.2.1"}}, &Controller{ID: 1, Sign: key32('c', 1), URLs: []string{"https://a"}},
	))
	reread := func(f Facts) Facts { // as after a reconnect to etcd: equal facts, all at new addresses
		out := Facts{}
		for key, x := range f {
			b, err := Encode(x)
			must(t, err)
			y, err := Decode(key, b)
			must(t, err)
			out[key] = y
		}
		return out
	}
	change := func(edit func(Facts)) Facts {
		f := maps.Clone(base.Facts)
		edit(f)
		return f
	}
	editNode := func(id identity.ID, edit func(*Node)) Facts {
		return change(func(f Facts) {
			n := base.Nodes[id].Clone()
			edit(n)
			f[n.Key()] = n
		})
	}
	for _, c := range []struct {
		name                 string
		f                    Facts
		shared, view1, view2 bool // kept
	}{
		{"nothing", maps.Clone(base.Facts), true, true, true},
		{"everything read anew", reread(base.Facts), true, true, true},
		{"certificate renewed", editNode(1, func(n *Node) { n.Serial = "x"; n.Expires = time.Unix(9, 0) }), true, true, true},
		{"token made", change(func(f Facts) { f["token/x"] = &Token{ID: "x"} }), true, true, true},
		{"program changed", editNode(1, func(n *Node) { n.MaxWire = 2 }), true, false, true},
		{"node locked", editNode(3, func(n *Node) { n.OwnStatus = StatusLocked }), true, true, false},
		{"lock on a node", change(func(f Facts) { f["lock/1"] = &Lock{ID: 1, Node: 3} }), true, true, false},
		{"lock on nobody", change(func(f Facts) { f["lock/1"] = &Lock{ID: 1, Label: "no=body"} }), true, true, true},
		{"grant removed", change(func(f Facts) { delete(f, "grant/2") }), true, true, false},
		{"grant expires", change(func(f Facts) { f["grant/1"] = &Grant{ID: 1, Label: "a=1", VNI: 1, Expires: time.Unix(9, 0)} }), true, false, true},
		{"segment renamed", change(func(f Facts) {
			s := *base.Segments[2]
			s.MTU = 1400
			f["segment/2"] = &s
		}), true, true, false},
		{"zone changed", change(func(f Facts) {
			s := *base.Settings
			s.Zone = "x"
			f["settings"] = &s
		}), false, true, true},
		{"controller moved", change(func(f Facts) {
			f["controller/1"] = &Controller{ID: 1, Sign: key32('c', 1), URLs: []string{"https://b"}}
		}), false, true, true},
		{"controller renewed", change(func(f Facts) {
			f["controller/1"] = &Controller{ID: 1, Sign: key32('c', 1), URLs: []string{"https://a"}, Serial: "2"}
		}), true, true, true},
	} {
		m := Derive(c.f, 3, base)
		if kept := m.Shared == base.Shared; kept != c.shared {
			t.Errorf("%s: shared kept: %v", c.name, kept)
		}
		if kept := m.views[1] == base.views[1]; kept != c.view1 {
			t.Errorf("%s: view of segment 1 kept: %v", c.name, kept)
		}
		if kept := m.views[2] == base.views[2]; kept != c.view2 {
			t.Errorf("%s: view of segment 2 kept: %v", c.name, kept)
		}
	}
}

// TestDeriveIsDeterministic: the order in which a map is walked leaves no trace.
func TestDeriveIsDeterministic(t *testing.T) {
	more := []Fact{segment(1, "10.64.0.0/20"), segment(2, "10.64.16.0/20")}
	for id := range identity.ID(30) {
		more = append(more, node(id+1, fmt.Sprint("m=", id%3)), &Grant{ID: GrantID(id + 1), Label: fmt.Sprint("m=", id%4), VNI: VNI(id%2 + 1)})
	}
	first := seated(t, facts(more...))
	for range 20 {
		m := seated(t, facts(more...))
		if Derive(m.Facts, 2, first).views[1] != first.views[1] {
			t.Fatal("two derivations of the same facts differ")
		}
	}
}

func TestFreeSlot(t *testing.T) {
	a, b, c := node(1), node(2), node(3)
	a.RelaySlot, b.RelaySlot, c.RelaySlot = 1, 2, 3
	b.OwnStatus = StatusRemoved
	if slot := Derive(facts(a, b, c), 1, nil).FreeSlot(); slot != 4 {
		t.Errorf("slot %d is free while the removed node may still use its own", slot)
	}
	b.Forgotten = true
	if slot := Derive(facts(a, b, c), 1, nil).FreeSlot(); slot != 2 {
		t.Errorf("slot %d is free after the removed node was forgotten", slot)
	}
}

func TestSelectors(t *testing.T) {
	m := Derive(facts(segment(1, "10.64.0.0/20"), node(1), &Group{Name: "g"}), 1, nil)
	for _, c := range []struct{ from, want string }{
		{"node:n1", ""},
		{"label:site=a", ""},
		{"node:n2", "`node list`"},
		{"node:", "no node"},
		{"label:site", "KEY=VALUE"},
		{"group:g", ""},
		{"group:x", "`group list`"},
		{"service:x", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"},
		{"segment:seg1", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"},
		{"", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"},
		{"n1", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"},
	} {
		s, err := m.Select(c.from)
		if c.want == "" && (err != nil || !one(s)) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Select(%q) = %+v, %v", c.from, s, err)
		}
	}
}

// one reports whether exactly one field of a selector is set.
func one(s Selector) bool {
	n := 0
	for _, set := range []bool{s.Node != 0, s.Label != "", s.Group != ""} {
		if set {
			n++
		}
	}
	return n == 1
}

func TestTargets(t *testing.T) {
	single := Derive(facts(segment(1, "10.64.0.0/20"), node(1)), 1, nil)
	double := Derive(facts(segment(1, "10.64.0.0/20"), segment(2, "10.65.0.0/20"), node(1)), 1, nil)
	for _, c := range []struct {
		m        *Model
		to, on   string
		vni      VNI
		segment  bool
		expected string
	}{
		{single, "segment:seg1", "", 1, true, ""},
		{single, "segment:seg1", "seg1", 1, true, ""},
		{single, "node:n1", "", 1, false, ""},
		{double, "node:n1", "seg2", 2, false, ""},
		{double, "node:n1", "", 0, false, "seg1, seg2"},
		{double, "node:n1", "seg3", 0, false, "`segment list`"},
		{double, "segment:seg1", "seg2", 0, false, "cannot hold on"},
		{single, "segment:x", "", 0, false, "`segment list`"},
		{single, "", "", 0, false, "segment:NAME"},
		{single, "service:x", "", 0, false, "segment:NAME"},
	} {
		vni, s, err := c.m.Target(c.to, c.on)
		if c.expected != "" {
			if err == nil || !strings.Contains(err.Error(), c.expected) {
				t.Errorf("Target(%q, %q): %v, want ...%s...", c.to, c.on, err, c.expected)
			}
			continue
		}
		if err != nil || vni != c.vni || (s == nil) != c.segment {
			t.Errorf("Target(%q, %q) = %d, %v, %v", c.to, c.on, vni, s, err)
		}
	}
}

func TestGroups(t *testing.T) {
	m := Derive(facts(segment(1, "10.64.0.0/20"), node(1), node(2, "a=b"), &Group{Name: "g"}), 1, nil)
	g, err := m.NewGroup("dba", []string{"node:n1", "label:a=b", "node:n1"})
	if err != nil || len(g.Nodes) != 1 || len(g.Labels) != 1 || len(g.Members) != 2 {
		t.Errorf("NewGroup = %+v, %v", g, err)
	}
	for name, members := range map[string][]string{"d b": nil, "a": {"node:x"}, "b": {"group:g"}, "c": {"segment:seg1"}} {
		if _, err := m.NewGroup(name, members); err == nil {
			t.Errorf("group %q of %v was taken", name, members)
		}
	}
}

func FuzzSelectors(f *testing.F) {
	f.Add("node:n1")
	f.Add("label:a=b")
	f.Add("segment:seg1")
	f.Add("10.64.0.0/20")
	f.Add("token:t1")
	f.Add("host:h")
	f.Add("attachment:n1/p")
	m := Derive(facts(segment(1, "10.64.0.0/20"), gateway(1), &Token{ID: "t1"}, &Attachment{ID: 2, VNI: 1, Ports: []AttachmentPort{{Node: 1, Name: "p", NIC: "eth0"}}},
		&Host{ID: 3, Name: "h", MAC: MAC{2, 3}, VNI: 1, Attachments: []identity.ID{2}}), 1, nil)
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := m.Select(text); err == nil && !one(s) {
			t.Fatalf("Select(%q) = %+v", text, s)
		}
		if l, err := m.LockOf(text); err == nil {
			means := 0
			for _, set := range []bool{l.Node == 1, l.Label != "", l.Token == "t1"} {
				if set {
					means++
				}
			}
			if means != 1 || l.Target != text {
				t.Fatalf("LockOf(%q) = %+v", text, l)
			}
		}
		if vni, _, err := m.Target(text, ""); err == nil && vni != 1 {
			t.Fatalf("Target(%q) = %d", text, vni)
		}
		if p, err := m.CheckIPv4(text); err == nil && (p.Overlaps(m.Segments[1].IPv4) || p != p.Masked()) {
			t.Fatalf("CheckIPv4(%q) = %v", text, p)
		}
		if p, err := m.CheckIPv6(text); err == nil && (p.Bits() != 64 || p != p.Masked()) {
			t.Fatalf("CheckIPv6(%q) = %v", text, p)
		}
	})
}

func TestRecords(t *testing.T) {
	all := []Fact{
		&Authority{Certificate: []byte{1}, Wrapped: []byte{2}},
		&Settings{Name: "n", Zone: "z", CertificateLifetime: Duration(time.Hour), ULA: pfx("fd00::/48"), Pool: DefaultPool(), Epoch: 3},
		&Counters{Node: 1, Grant: 5}, &Head{Sequence: 4, Hash: make([]byte, 32)},
		&Controller{ID: 1, Sign: make([]byte, 32), URLs: []string{"https://a"}}, &Admin{ID: 1, Sign: make([]byte, 32)},
		&Token{ID: "ab", Hash: make([]byte, 32)}, node(7, "a=b"), segment(1, "10.64.0.0/20"), &Grant{ID: 2, VNI: 1, When: "true", Target: &Selector{Group: "g"}, Allow: []string{"tcp:22"}}, &Group{Name: "g", Labels: []string{"a=b"}}, &Relay{Name: "r"},
		&Lock{ID: 3, Target: "label:a=b", Label: "a=b", By: "x", Expires: time.Unix(1, 0).UTC()},
		&Verdict{Grant: 2, Holders: []identity.ID{7}, Doubts: []Doubt{{Node: 7}}, Flips: []Flip{{Node: 7, Report: 1, By: 1}}},
	}
	for _, f := range all {
		b, err := Encode(f)
		must(t, err)
		back, err := Decode(f.Key(), b)
		must(t, err)
		again, err := Encode(back)
		must(t, err)
		if !bytes.Equal(b, again) {
			t.Errorf("%s: %s became %s", f.Key(), b, again)
		}
		if _, err := Decode(f.Key()+"0", b); err == nil {
			t.Errorf("%s in the place of %s0 was taken", f.Key(), f.Key())
		}
	}
	// Whatever is shown of a fact holds no secret.
	for _, f := range []Fact{&Authority{Wrapped: []byte("geheim")}, &Relay{Wrapped: []byte("geheim")}, &Token{Hash: []byte("geheim")}} {
		b, err := json.Marshal(Public(f))
		if err != nil || bytes.Contains(b, []byte("Z2VoZWlt")) {
			t.Errorf("public form of %s is %s, %v", f.Key(), b, err)
		}
	}
	for key, value := range map[string]string{
		"node/7": `{"id":7,"sign":"AA==","static":"AA=="}`, "head": `{"sequence":1}`, "settings": `[]`, "token/x": `{"id":"x","hash":"AA=="}`,
		"grant/1": `{"id":1,"vni":-1}`, "segment/1": `{"vni":1,"ipv4":"10.0.0.0"}`,
	} {
		if f, err := Decode(key, []byte(value)); err == nil {
			t.Errorf("%s: %s was taken as %v", key, value, f)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, x := range []Fact{
		node(7, "a=b"), segment(1, "10.64.0.0/20"), &Verdict{Grant: 9, Holders: []identity.ID{1}}, &Token{ID: "ab", Hash: make([]byte, 32)},
		&Attachment{ID: 9, VNI: 9, Ports: []AttachmentPort{{Node: 1, Name: "p", NIC: "eth0"}}}, &Host{ID: 9, Name: "h", VNI: 9, Attachments: []identity.ID{8}},
	} {
		b, _ := Encode(x)
		f.Add(x.Key(), b)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		x, err := Decode(key, value)
		if err != nil {
			return
		}
		if x.Key() != key {
			t.Fatalf("%q was read as %q", key, x.Key())
		}
		// Whatever can be read can be derived from without harm.
		m := Derive(facts(x, node(1, "a=b"), segment(9, "10.64.0.0/20"), &Grant{ID: 9, Label: "a=b", VNI: 9, When: "true"}, gateway(2),
			&Attachment{ID: 8, VNI: 9, Ports: []AttachmentPort{{Node: 2, Name: "p", NIC: "eth0"}}}, &Grant{ID: 8, Node: 9, VNI: 9}), 1, nil)
		_ = m.StandIns(9)
		_ = m.AuditHead()
		_, _ = m.Seat(10, nil)
		if _, err := Encode(x); err != nil {
			t.Fatal(err)
		}
	})
}

func TestProtoForms(t *testing.T) {
	for _, s := range []Status{StatusPending, StatusActive, StatusLocked, StatusRemoved} {
		if s.Proto() == controlv1.NodeStatus_NODE_STATUS_UNSPECIFIED {
			t.Errorf("status %s has no form", s)
		}
	}
	for _, m := range []Mode{ModeAuto, ModeStatic, ModeDHCP, ModeNone} {
		if ModeOf(m.Proto()) != m {
			t.Errorf("mode %s becomes %s", m, ModeOf(m.Proto()))
		}
	}
	if ModeOf(0) != "" || ModeOf(99) != "" {
		t.Error("a mode that is none is one")
	}
	n := node(7, "a=b")
	n.Stations = []Station{{VNI: 1, MAC: MAC{2}, Mode: ModeAuto, Addresses: []netip.Prefix{pfx("10.64.0.1/20")}}}
	if p := (&Model{}).NodeProto(n); p.Id != 7 || p.Status != controlv1.NodeStatus_NODE_STATUS_ACTIVE || p.Stations[0].Addresses[0] != "10.64.0.1/20" || p.Enrolled != nil {
		t.Errorf("node travels as %v", p)
	}
}

// TestSeatProperty: over random histories of grants and nodes, no two nodes ever have the same address or MAC on a
// segment, and nobody's changes.
func TestSeatProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	m := Derive(facts(segment(1, "10.64.0.0/24"), segment(2, "10.65.0.0/25")), 1, nil)
	for step := range 300 {
		f := maps.Clone(m.Facts)
		switch r.IntN(4) {
		case 0, 1:
			if len(m.Nodes) < 100 {
				n := node(identity.ID(len(m.Nodes)+1), fmt.Sprint("l=", r.IntN(3)))
				f[n.Key()] = n
			}
		case 2:
			g := &Grant{ID: GrantID(step + 1), Label: fmt.Sprint("l=", r.IntN(3)), VNI: VNI(1 + r.IntN(2))}
			f[g.Key()] = g
		case 3:
			for id := range m.Grants {
				delete(f, fmt.Sprint("grant/", id))
				break
			}
		}
		next := Derive(f, uint64(step+2), m)
		nodes, err := next.Seat(1000, m)
		must(t, err)
		for _, n := range nodes {
			f[n.Key()] = n
		}
		next = Derive(f, uint64(step+2), next)
		seen := map[string]identity.ID{}
		for id, n := range next.Nodes {
			for _, s := range n.Stations {
				if before := m.Nodes[id]; before != nil && before.station(s.VNI) != nil && before.station(s.VNI).Addresses[0] != s.Addresses[0] {
					t.Fatalf("step %d: node %d's address went from %v to %v", step, id, before.station(s.VNI), s)
				}
				if s.MAC[0]&3 != 2 {
					t.Fatalf("MAC %v is not a local unicast one", s.MAC)
				}
				for _, text := range []string{fmt.Sprint(s.VNI, s.MAC), fmt.Sprint(s.VNI, s.Addresses[0].Addr()), fmt.Sprint(s.VNI, s.Addresses[1].Addr())} {
					if seen[text] != 0 {
						t.Fatalf("step %d: nodes %d and %d share %s", step, id, seen[text], text)
					}
					seen[text] = id
				}
			}
		}
		m = next
	}
}

package model

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/etherloom/etherloom/identity"
)

func profileIDs(list []*Profile) []identity.ID {
	var out []identity.ID
	for _, p := range list {
		out = append(out, p.ID)
	}
	return out
}

// TestMachines: machines are members by grants, without a seat, and their gateways are told what concerns them without being members.
func TestMachines(t *testing.T) {
	m := site(t, &Grant{ID: 1, Node: 10, VNI: 1}, &Grant{ID: 2, Node: 3, VNI: 1}, &Grant{ID: 3, Node: 4, Target: &Selector{Node: 20}, VNI: 1},
		&Grant{ID: 4, Node: 20, VNI: 2}, &Grant{ID: 5, Node: 21, Target: &Selector{Node: 5}, VNI: 2}, &Grant{ID: 6, Node: 1, Target: &Selector{Node: 21}, VNI: 1})
	if got := members(m.ViewOf(1)); !slices.Equal(got, []identity.ID{3, 10}) {
		t.Errorf("members of segment 1: %v", got)
	}
	if got := members(m.ViewOf(2)); len(got) != 0 {
		t.Errorf("members of segment 2, where no machine is: %v", got)
	}
	r := m.Reaches()
	if got := fmt.Sprint(profileIDs(r[3].From), profileIDs(r[3].To), profileIDs(r[5].From), profileIDs(r[6].From), profileIDs(r[6].To)); got != "[4] [20] [] [1] [21]" {
		t.Errorf("grants to nodes are about %s", got)
	}
	for id, want := range map[identity.ID]string{1: "1 [3 6]", 2: "1 [3 6]", 3: "1 []", 4: "0 [3]", 5: "0 []"} {
		var ids []GrantID
		for _, r := range m.ReachesFor(id) {
			ids = append(ids, r.Grant.ID)
		}
		if got := fmt.Sprint(len(m.ViewsFor(id)), ids); got != want {
			t.Errorf("node %d is told of %s, want %s", id, got, want)
		}
	}
	if len(m.MemberOf(1)) != 0 || len(m.MemberOf(10)) != 1 || len(m.ReachOf(1)) != 1 || len(m.ReachOf(2)) != 0 {
		t.Error("a gateway is a member because its machines are")
	}
	for id, want := range map[identity.ID]string{10: "[1 2] [10]", 11: "[1] [11]", 20: "[1 2] [10]", 21: "[1 2] [10 11]"} {
		x := m.Profile(id).Machine
		if got := fmt.Sprint(profileIDs(x.Gateways), x.Attachments); got != want {
			t.Errorf("machine %d: %s, want %s", id, got, want)
		}
	}
	outlets := func(id identity.ID) (out []string) {
		for _, o := range m.OutletsOf(id) {
			out = append(out, fmt.Sprintln(o.Attachment, o.Port.Name, profileIDs(o.Machines)))
		}
		return out
	}
	if got := fmt.Sprint(outlets(1), outlets(2), outlets(3)); got != "[10 site [10 20 21]\n 11 lab [11 21]\n] [10 site [10 20 21]\n] []" {
		t.Errorf("ports are %s", got)
	}
	if !m.Profile(1).SpeaksFor(m.Profile(20)) || m.Profile(2).SpeaksFor(m.Profile(11)) || m.Profile(1).SpeaksFor(m.Profile(2)) || !m.Profile(3).SpeaksFor(m.Profile(3)) {
		t.Error("who speaks for whom")
	}
}

// TestMachineStatus: a machine is active while one of its gateways is, and only nodes with the role are gateways.
func TestMachineStatus(t *testing.T) {
	base := siteFacts(&Grant{ID: 1, Node: 11, VNI: 1}, &Grant{ID: 2, Node: 10, VNI: 1}, &Grant{ID: 3, Node: 3, VNI: 1},
		&Grant{ID: 4, Node: 4, Target: &Selector{Node: 21}, VNI: 1})
	for name, c := range map[string]struct {
		edit    func(Facts)
		active  []identity.ID // of 10, 11, 20, 21
		members []identity.ID
		revoked string // of the view, and of grant 4's target
	}{
		"as it is":           {func(Facts) {}, []identity.ID{10, 11, 20, 21}, []identity.ID{3, 10, 11}, "[] []"},
		"gateway 1 locked":   {func(f Facts) { f["lock/1"] = &Lock{ID: 1, Node: 1} }, []identity.ID{10, 20, 21}, []identity.ID{3, 10}, "[1] [1]"},
		"gateway 2 locked":   {func(f Facts) { f["lock/1"] = &Lock{ID: 1, Node: 2} }, []identity.ID{10, 11, 20, 21}, []identity.ID{3, 10, 11}, "[2] [2]"},
		"both locked":        {func(f Facts) { f["lock/1"], f["lock/2"] = &Lock{ID: 1, Node: 1}, &Lock{ID: 2, Node: 2} }, nil, []identity.ID{3}, "[1 2] [1 2]"},
		"gateway 1 pending":  {func(f Facts) { f["node/1"].(*Node).OwnStatus = StatusPending }, []identity.ID{10, 20, 21}, []identity.ID{3, 10}, "[] []"},
		"no longer gateways": {func(f Facts) { f["node/1"], f["node/2"] = node(1), node(2) }, nil, []identity.ID{3}, "[] []"},
		"removed, and its port with it": {func(f Facts) {
			n := gateway(2)
			n.OwnStatus, n.Spoke = StatusRemoved, []identity.ID{10}
			a := *f["attachment/10"].(*Attachment)
			f["node/2"], f["attachment/10"] = n, a.WithoutPort(2)
		}, []identity.ID{10, 11, 20, 21}, []identity.ID{3, 10, 11}, "[2] [2]"},
		"removed and forgotten": {func(f Facts) {
			n := gateway(2)
			n.OwnStatus, n.Spoke = StatusRemoved, []identity.ID{10}
			a := *f["attachment/10"].(*Attachment)
			f["node/2"], f["attachment/10"] = n.Forget(), a.WithoutPort(2)
		}, []identity.ID{10, 11, 20, 21}, []identity.ID{3, 10, 11}, "[] []"},
		"attachment of another segment": {func(f Facts) {
			f["attachment/11"] = &Attachment{ID: 11, VNI: 2, Ports: []AttachmentPort{{Node: 1, Name: "lab", NIC: "eth1"}}}
		}, []identity.ID{10, 11, 20, 21}, []identity.ID{3, 10}, "[] []"},
		"no attachment": {func(f Facts) { delete(f, "attachment/10") }, []identity.ID{11, 21}, []identity.ID{3, 11}, "[] []"},
	} {
		f := Facts{}
		for key, x := range base { // each with records of its own
			b, err := Encode(x)
			must(t, err)
			f[key], err = Decode(key, b)
			must(t, err)
		}
		c.edit(f)
		m := seated(t, f)
		var active []identity.ID
		for _, id := range []identity.ID{10, 11, 20, 21} {
			if m.Active(id) {
				active = append(active, id)
			}
		}
		if !slices.Equal(active, c.active) || !slices.Equal(members(m.ViewOf(1)), c.members) {
			t.Errorf("%s: active are %v, members %v", name, active, members(m.ViewOf(1)))
		}
		if got := fmt.Sprint(m.ViewOf(1).Revoked, m.Reaches()[4].RevokedTo); got != c.revoked {
			t.Errorf("%s: revoked are %s", name, got)
		}
	}
}

// TestMachinesAreShared: what did not change is the same pointer in the next Model, also if all facts were read anew.
func TestMachinesAreShared(t *testing.T) {
	base := site(t, &Grant{ID: 1, Node: 10, VNI: 1}, &Grant{ID: 2, Node: 3, VNI: 1})
	for name, c := range map[string]struct {
		edit                     func(Facts)
		view, outlet10, outlet11 bool // kept
	}{
		"nothing": {func(Facts) {}, true, true, true},
		"everything read anew": {func(f Facts) {
			for key, x := range f {
				b, err := Encode(x)
				must(t, err)
				f[key], err = Decode(key, b)
				must(t, err)
			}
		}, true, true, true},
		"certificate renewed": {func(f Facts) {
			n := base.Nodes[1].Clone()
			n.Serial = "2"
			f[n.Key()] = n
		}, true, true, true},
		"gateway's nonce raised": {func(f Facts) {
			n := base.Nodes[1].Clone()
			n.HandshakeNonce++
			f[n.Key()] = n
		}, false, false, false},
		"host made": {func(f Facts) {
			f["host/30"] = &Host{ID: 30, Name: "x", MAC: MAC{2, 30}, VNI: 1, Attachments: []identity.ID{11}}
		}, true, true, false},
		"host removed": {func(f Facts) { delete(f, "host/20") }, true, false, true},
		"port moved": {func(f Facts) {
			a := *base.Attachments[11]
			a.Ports = []AttachmentPort{{Node: 1, Name: "lab", NIC: "eth9"}}
			f[a.Key()] = &a
		}, true, true, false},
		"other gateway locked": {func(f Facts) { f["lock/1"] = &Lock{ID: 1, Node: 2} }, false, false, false},
	} {
		f := maps.Clone(base.Facts)
		c.edit(f)
		m := Derive(f, 3, base)
		if kept := m.views[1] == base.views[1]; kept != c.view {
			t.Errorf("%s: view kept: %v", name, kept)
		}
		for i, want := range []bool{c.outlet10, c.outlet11} {
			if kept := m.outletsOf[1][i] == base.outletsOf[1][i]; kept != want {
				t.Errorf("%s: port %d kept: %v", name, i, kept)
			}
		}
	}
}

// TestConditionsAndMachines: a machine never meets a condition, nor is it a candidate.
func TestConditionsAndMachines(t *testing.T) {
	m := Derive(siteFacts(&Group{Name: "g", Nodes: []identity.ID{3, 20}}, &Grant{ID: 1, Group: "g", VNI: 1, When: "true"},
		&Verdict{Grant: 1, Holders: []identity.ID{3, 20}}), 1, nil)
	if got := m.Candidates(1); !slices.Equal(got, []identity.ID{3}) {
		t.Errorf("candidates are %v", got)
	}
	m = seated(t, m.Facts)
	if got := members(m.ViewOf(1)); !slices.Equal(got, []identity.ID{3}) {
		t.Errorf("members are %v", got)
	}
}

// TestStandIns: who may use anything is asked about by what is nobody's, each by its own.
func TestStandIns(t *testing.T) {
	m := site(t, &Grant{ID: 1, Node: 3, VNI: 1})
	in := m.StandIns(1)
	if len(in) != 4 || len(m.StandIns(2)) != 0 || len(m.StandIns(9)) != 0 {
		t.Fatalf("stand-ins are %v", in)
	}
	if in[20].MAC != (MAC{2, 20}) || !slices.Equal(in[20].Addresses, m.Hosts[20].Addresses) || in[21].MAC != (MAC{2, 21}) {
		t.Errorf("hosts: %v, %v", in[20], in[21])
	}
	taken := m.occupied(1)
	for _, id := range []identity.ID{10, 11, 21} {
		s := in[id]
		if len(s.Addresses) != 2 || id != 21 && (s.MAC[0]&3 != 2 || taken.macs[s.MAC] != 0) {
			t.Errorf("stand-in of %d is %v", id, s)
		}
		for _, a := range s.Addresses {
			if taken.addresses[a.Addr()] != 0 {
				t.Errorf("stand-in of %d has %s, which is somebody's", id, a)
			}
			taken.addresses[a.Addr()] = id
		}
		taken.macs[s.MAC] = id
	}
	if m.Station(10, 1).MAC != (MAC{}) || len(m.Station(10, 1).Addresses) != 0 {
		t.Error("the stand-in was written into the station itself")
	}
}

func TestMachineRecords(t *testing.T) {
	m := site(t)
	for _, key := range []string{"attachment/10", "attachment/11", "host/20", "host/21"} {
		b, err := Encode(m.Facts[key])
		must(t, err)
		back, err := Decode(key, b)
		must(t, err)
		again, err := Encode(back)
		must(t, err)
		if !bytes.Equal(b, again) {
			t.Errorf("%s: %s became %s", key, b, again)
		}
	}
	p := m.Profile(20).MachineProto()
	if p.Id != 20 || p.Name != "printer" || p.Vni != 1 || len(p.Mac) != 6 || fmt.Sprint(p.Addresses, p.Gateways, p.Attachments) != "[10.64.0.1/24 fd00:0:0:1::3/64] [1 2] [10]" {
		t.Errorf("host travels as %v", p)
	}
	if p := m.Profile(10).MachineProto(); p.Name != "n1/site" || p.Mac != nil || p.Addresses != nil || fmt.Sprint(p.Attachments) != "[10]" {
		t.Errorf("those whom nobody named travel as %v", p)
	}
	if a := m.OutletsOf(1)[1].Proto(); a.Id != 11 || a.Vni != 1 || a.Port != "lab" || a.Nic != "eth1" || a.Vlan != 11 || a.Native != "untagged" {
		t.Errorf("port travels as %v", a)
	}
	if r := m.AttachmentProto(m.Attachments[10]); r.Segment != "seg1" || !r.Active || fmt.Sprint(r.Hosts) != "[printer camera]" || r.Ports[1].Name != "n2/site" {
		t.Errorf("attachment is shown as %v", r)
	}
	if h := m.HostProto(m.Hosts[21]); h.Mac != "02:15:00:00:00:00" || fmt.Sprint(h.Attachments, h.Gateways) != "[n1/site n1/lab] [n1 n2]" {
		t.Errorf("host is shown as %v", h)
	}
}

func TestHostForms(t *testing.T) {
	for text, want := range map[string]string{
		"02:00:5e:00:53:01": "02:00:5e:00:53:01", "02-00-5E-00-53-01": "02:00:5e:00:53:01", " 0200.5e00.5301 ": "02:00:5e:00:53:01",
		"02:00:5e:00:53": "", "02:00:5e:00:53:01:02:03": "", "": "", "x": "",
	} {
		mac, err := ParseMAC(text)
		if (err == nil) != (want != "") || err == nil && mac.String() != want {
			t.Errorf("MAC %q is %v, %v", text, mac, err)
		}
	}
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.1/24": "192.0.2.1/24", "2001:db8::1": "2001:db8::1/128", "2001:db8::1/64": "2001:db8::1/64",
		"fe80::1%eth0": "", "192.0.2.1/33": "", "192.0.2": "", "": "",
	} {
		p, err := ParseAddress(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("address %q is %v, %v", text, p, err)
		}
	}
}

// FuzzHostForms: what is read is written so that it is read again as the same, and can be held against a network.
func FuzzHostForms(f *testing.F) {
	f.Add("02:00:5e:00:53:01")
	f.Add("192.0.2.1/24")
	f.Add("fe80::1%eth0")
	m := Derive(siteFacts(), 1, nil)
	f.Fuzz(func(t *testing.T, text string) {
		h := &Host{Name: "new", MAC: MAC{2, 99}, VNI: 1, Attachments: []identity.ID{10}}
		if mac, err := ParseMAC(text); err == nil {
			h.MAC = mac
			if again, err := ParseMAC(mac.String()); err != nil || again != mac {
				t.Fatalf("%q is %v, and that is %v, %v", text, mac, again, err)
			}
		}
		if p, err := ParseAddress(text); err == nil {
			h.Addresses = append(h.Addresses, p)
			if again, err := ParseAddress(p.String()); err != nil || again != p {
				t.Fatalf("%q is %v, and that is %v, %v", text, p, again, err)
			}
		}
		if m.CheckHost(h) == nil && (h.MAC[0]&1 != 0 || len(h.Addresses) > 0 && h.Addresses[0].Addr().IsMulticast()) {
			t.Fatalf("%q made the host %+v", text, h)
		}
	})
}

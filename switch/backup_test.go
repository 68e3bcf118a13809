package vswitch

import (
	"testing"

	"github.com/etherloom/etherloom/policy"
)

// F09: what is for one behind a port goes to its backup port while it has no carrier, and back; without a backup port it goes nowhere.
func TestBackupPortF09(t *testing.T) {
	m := newMesh(t, false)
	m.grant(members(1, 3, siteA, 21, siteB, 31, roaming))
	table, primary := m.segments[3].FDB(), m.ports[3]["vlan 20"]
	table.AddStatic(macAt(siteA), Place{primary, siteA})
	table.AddStatic(macAt(roaming), Place{primary, roaming})
	table.AddStatic(macAt(21), Place{primary, 21})
	backup := func(name string) {
		a := primary.Attributes()
		must(t, a.Set("backup_port", name))
		m.segments[3].SetAttributes(primary, a)
	}
	// came says by which port what node 1 or the gateway itself sends comes out at node 3.
	came := func(from, to policy.Identity) string {
		m.says(from, data(macAt(to), macAt(from), experimental, ""))
		ports := ""
		for _, d := range m.out {
			ports += d.port.Name + ";"
		}
		m.out = nil
		return ports
	}
	check := func(what string, from, to policy.Identity, want string) {
		t.Helper()
		if got := came(from, to); got != want {
			t.Errorf("%s: from %d to %d: by %q, want %q", what, from, to, got, want)
		}
	}
	backup("vlan30") // there is none
	if m.segments[3].Backup(primary) != nil {
		t.Error("a port that is not there is a backup port")
	}
	for _, name := range []string{"vlan 20", "tap"} { // itself, and this machine
		a := primary.Attributes()
		a.BackupPort = name
		m.segments[3].SetAttributes(primary, a)
		if m.segments[3].Backup(primary) != nil {
			t.Errorf("%s is a backup port", name)
		}
	}
	m.ports[3]["vlan 30"].Name = "vlan30"
	backup("attached:vlan30")
	if m.segments[3].Backup(primary) != m.ports[3]["vlan 30"] {
		t.Error("the backup port is not found")
	}
	for range 3 {
		primary.SetCarrier(false)
		for _, from := range []policy.Identity{1, 3} {
			check("no carrier", from, siteA, "vlan30;")
			check("no carrier", from, roaming, "vlan30;")
		}
		check("a host that may not be there", 1, 21, "vlan 20;") // as without: there is no gate in this test
		check("what comes from the backup port", 31, siteA, "")
		primary.SetCarrier(true)
		for _, from := range []policy.Identity{1, 3} {
			check("carrier", from, siteA, "vlan 20;")
			check("carrier", from, roaming, "vlan 20;")
		}
	}
	// It is judged for those who are there.
	m.grant(members(1, siteA, roaming))
	primary.SetCarrier(false)
	check("who is there may not have it", 1, siteA, "")
	m.grant(members(1, 3, siteA, 21, siteB, 31, roaming))
	check("who is there may have it", 1, siteA, "vlan30;")
	backup("none")
	check("no backup port", 1, siteA, "vlan 20;")
	backup("vlan30")
	m.ports[3]["vlan 30"].SetAttributes(Attributes{Shut: true})
	check("the backup port is shut", 1, siteA, "")
	m.segments[3].RemovePort(m.ports[3]["vlan 30"])
	if m.segments[3].Backup(primary) != nil {
		t.Error("a port that is gone is a backup port")
	}
}

// The other gateway of a VLAN is a way to its machines, too: for this node's own, since what comes over a link goes to no other.
func TestBackupByLink(t *testing.T) {
	m := newMesh(t, true)
	m.grant(members(1, 3, siteA, 21))
	primary := m.ports[3]["vlan 20"]
	a := primary.Attributes()
	m.ports[3]["link 4"].Name = "gw4"
	a.BackupPort = "gw4"
	m.segments[3].SetAttributes(primary, a)
	m.says(21, data(macAt(3), macAt(21), experimental, "here I am"))
	m.heard()
	primary.SetCarrier(false)
	if d := m.forward(3, m.ports[3]["tap"], data(macAt(21), macAt(3), experimental, ""), Tag{}); d != Forwarded {
		t.Errorf("from the gateway: %q", d.Code())
	}
	if s := m.sends[3]; len(s) != 1 || s[0].port.Name != "gw4" || s[0].tag.Source != 3 {
		t.Errorf("it was sent %+v", s)
	}
	m.queue, m.out = nil, nil
	if d := m.says(1, data(macAt(21), macAt(1), experimental, "")); d != Forwarded {
		t.Errorf("node 1: %q", d.Code())
	}
	if m.dropped(3, DropHairpin) == 0 {
		t.Error("what came over a link went to another")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each port has a backup port of its own, and who names none has none, though there be a port without a name.
func TestBackupsOfSeveral(t *testing.T) {
	m := newMesh(t, false)
	ports, s := m.ports[3], m.segments[3]
	pairs := map[*Port]*Port{ports["vlan 20"]: ports["vlan 30"], ports["vlan 30"]: ports["vlan 20"], ports["link 1"]: nil}
	ports["link 2"].Name = ""
	for p, to := range pairs {
		a := p.Attributes()
		if to != nil {
			a.BackupPort = to.Name
		}
		s.SetAttributes(p, a)
	}
	for p, want := range pairs {
		if got := s.Backup(p); got != want {
			t.Errorf("the backup port of %q is %+v, want %+v", p.Name, got, want)
		}
	}
}

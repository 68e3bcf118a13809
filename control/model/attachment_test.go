package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/identity"
)

// gateway is a node that may bridge.
func gateway(id identity.ID, labels ...string) *Node {
	n := node(id, labels...)
	n.Roles = []string{"member", "gateway"}
	return n
}

// site is a network with two gateways, 1 and 2, at the VLAN of attachment 10 on segment 1, gateway 1 alone at that of attachment 11;
// hosts printer (20) behind attachment 10, and camera (21) behind both; and nodes 3, 4 and 5.
func site(t testing.TB, more ...Fact) *Model {
	t.Helper()
	return seated(t, siteFacts(more...))
}

func siteFacts(more ...Fact) Facts {
	return facts(append([]Fact{
		segment(1, "10.64.0.0/24"), segment(2, "10.65.0.0/24"), gateway(1), gateway(2), node(3), node(4, "a=b"), node(5),
		&Attachment{ID: 10, VNI: 1, Ports: []AttachmentPort{{Node: 1, Name: "site", NIC: "eth1", VLAN: 10}, {Node: 2, Name: "site", NIC: "eth1", VLAN: 10}}},
		&Attachment{ID: 11, VNI: 1, Ports: []AttachmentPort{{Node: 1, Name: "lab", NIC: "eth1", Native: NativeUntagged, VLAN: 11}}},
		&Host{ID: 20, Name: "printer", MAC: MAC{2, 20}, VNI: 1, Attachments: []identity.ID{10}, Addresses: []netip.Prefix{pfx("10.64.0.1/24"), pfx("fd00:0:0:1::3/64")}},
		&Host{ID: 21, Name: "camera", MAC: MAC{2, 21}, VNI: 1, Attachments: []identity.ID{10, 11}},
	}, more...)...)
}

// TestCheckPort: each row is one good port with one thing other.
func TestCheckPort(t *testing.T) {
	removed := gateway(6)
	removed.OwnStatus = StatusRemoved
	m := site(t, removed)
	for name, c := range map[string]struct {
		edit func(*AttachmentPort)
		want string // "": it is taken
	}{
		"as it is":                      {func(*AttachmentPort) {}, ""},
		"VLAN 1":                        {func(p *AttachmentPort) { p.VLAN = 1 }, ""},
		"VLAN 4094":                     {func(p *AttachmentPort) { p.VLAN = 4094 }, ""},
		"VLAN 4095":                     {func(p *AttachmentPort) { p.VLAN = 4095 }, "VLAN is 4095"},
		"bridge":                        {func(p *AttachmentPort) { p.NIC, p.Bridge = "", "br0" }, ""},
		"NIC and bridge":                {func(p *AttachmentPort) { p.Bridge = "br0" }, "one of the two"},
		"neither":                       {func(p *AttachmentPort) { p.NIC = "" }, "with --nic, such as --nic eth1"},
		"NIC of 15":                     {func(p *AttachmentPort) { p.NIC = "enp0s31f6abcdef"[:15] }, ""},
		"NIC of 16":                     {func(p *AttachmentPort) { p.NIC = "enp0s31f6abcdefg" }, "`ip link`"},
		"path":                          {func(p *AttachmentPort) { p.NIC = "../x" }, "`ip link`"},
		"dots":                          {func(p *AttachmentPort) { p.NIC = ".." }, "`ip link`"},
		"alias":                         {func(p *AttachmentPort) { p.NIC = "eth0:1" }, "`ip link`"},
		"space":                         {func(p *AttachmentPort) { p.NIC = "eth 0" }, "`ip link`"},
		"port's name":                   {func(p *AttachmentPort) { p.Name = "A/b" }, "not a DNS label"},
		"no name":                       {func(p *AttachmentPort) { p.Name = "" }, "not a DNS label"},
		"native untagged":               {func(p *AttachmentPort) { p.NIC, p.Native = "eth2", NativeUntagged }, ""},
		"native tagged":                 {func(p *AttachmentPort) { p.NIC, p.Native = "eth2", NativeTagged }, ""},
		"native of another kind":        {func(p *AttachmentPort) { p.Native = "x" }, "untagged or tagged"},
		"native without VLAN":           {func(p *AttachmentPort) { p.NIC, p.VLAN, p.Native = "eth2", 0, NativeTagged }, "native is said of a VLAN"},
		"service":                       {func(p *AttachmentPort) { p.Service = true }, ""},
		"service without VLAN":          {func(p *AttachmentPort) { p.NIC, p.VLAN, p.Service = "eth2", 0, true }, "a service tag is that of a VLAN"},
		"untagged":                      {func(p *AttachmentPort) { p.NIC, p.VLAN = "eth2", 0 }, ""},
		"priority of untagged":          {func(p *AttachmentPort) { p.NIC, p.VLAN, p.Priority = "eth2", 0, PriorityAlways }, ""},
		"priority of native untagged":   {func(p *AttachmentPort) { p.NIC, p.Native, p.Priority = "eth2", NativeUntagged, PriorityNonzero }, ""},
		"priority of native tagged":     {func(p *AttachmentPort) { p.NIC, p.Native, p.Priority = "eth2", NativeTagged, PriorityNonzero }, "leave priority out"},
		"priority of tagged":            {func(p *AttachmentPort) { p.Priority = PriorityAlways }, "leave priority out"},
		"priority of another kind":      {func(p *AttachmentPort) { p.NIC, p.VLAN, p.Priority = "eth2", 0, "x" }, "nonzero or always"},
		"name taken":                    {func(p *AttachmentPort) { p.Name = "lab" }, "attachment remove n1/lab"},
		"name of another node's":        {func(p *AttachmentPort) { p.Node, p.Name = 2, "lab" }, ""},
		"VLAN taken":                    {func(p *AttachmentPort) { p.VLAN = 10 }, "frames of VLAN 10 of NIC eth1 are taken by attachment n1/site"},
		"VLAN taken on another NIC":     {func(p *AttachmentPort) { p.NIC, p.VLAN = "eth2", 10 }, ""},
		"VLAN taken, service":           {func(p *AttachmentPort) { p.VLAN, p.Service = 10, true }, ""},
		"VLAN taken at another node":    {func(p *AttachmentPort) { p.Node, p.VLAN = 2, 11 }, ""},
		"NIC taken, bridge of the name": {func(p *AttachmentPort) { p.NIC, p.Bridge, p.VLAN = "", "eth1", 10 }, ""},
		"second native":                 {func(p *AttachmentPort) { p.Native = NativeTagged }, "untagged frames of NIC eth1 are taken by attachment n1/lab"},
		"untagged beside native":        {func(p *AttachmentPort) { p.VLAN = 0 }, "untagged frames of NIC eth1 are taken"},
		"no gateway":                    {func(p *AttachmentPort) { p.Node = 3 }, "token create --role gateway"},
		"removed":                       {func(p *AttachmentPort) { p.Node = 6 }, "is not in the network"},
		"nobody":                        {func(p *AttachmentPort) { p.Node = 99 }, "is not in the network"},
		"a host":                        {func(p *AttachmentPort) { p.Node = 20 }, "is not in the network"},
	} {
		p := AttachmentPort{Node: 1, Name: "new", NIC: "eth1", VLAN: 12}
		c.edit(&p)
		err := m.CheckPort(&p, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", name, err, c.want)
		}
	}
}

// TestSetPort: a port that replaces another is not in its own way, but in that of others.
func TestSetPort(t *testing.T) {
	m := site(t)
	old := m.Attachments[11].Port(1)
	for name, c := range map[string]struct {
		edit func(*AttachmentPort)
		want string
	}{
		"as it is":        {func(*AttachmentPort) {}, ""},
		"another VLAN":    {func(p *AttachmentPort) { p.VLAN = 12 }, ""},
		"another NIC":     {func(p *AttachmentPort) { p.NIC = "eth2" }, ""},
		"no native VLAN":  {func(p *AttachmentPort) { p.Native = "" }, ""},
		"another's VLAN":  {func(p *AttachmentPort) { p.VLAN = 10 }, "taken by attachment n1/site"},
		"not well-formed": {func(p *AttachmentPort) { p.VLAN = 0 }, "native is said of a VLAN"},
	} {
		p := *old
		c.edit(&p)
		err := m.CheckPort(&p, old)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", name, err, c.want)
		}
	}
	a := m.Attachments[10]
	other := a.WithOther(AttachmentPort{Node: 2, Name: "site", NIC: "eth5"})
	if other.Ports[1].NIC != "eth5" || other.Ports[0] != a.Ports[0] || a.Ports[1].NIC != "eth1" {
		t.Errorf("with another port %+v, and it was %+v", other, a)
	}
}

// TestSetHost: a host that replaces its record is not in its own way, but in that of others.
func TestSetHost(t *testing.T) {
	m := site(t, &Attachment{ID: 12, VNI: 2, Ports: []AttachmentPort{{Node: 1, Name: "x", NIC: "eth2"}}})
	for name, c := range map[string]struct {
		edit func(*Host)
		want string
	}{
		"as it is":        {func(*Host) {}, ""},
		"another MAC":     {func(h *Host) { h.MAC = MAC{2, 99} }, ""},
		"another's MAC":   {func(h *Host) { h.MAC = MAC{2, 21} }, `that of host "camera"`},
		"another's name":  {func(h *Host) { h.Name = "camera" }, `a host is called "camera"`},
		"another place":   {func(h *Host) { h.Attachments = []identity.ID{11} }, ""},
		"another segment": {func(h *Host) { h.VNI, h.Attachments, h.Addresses = 2, []identity.ID{12}, nil }, `is on segment "seg1"`},
		"any address":     {func(h *Host) { h.Addresses = nil }, ""},
		"one of its own":  {func(h *Host) { h.Addresses = h.Addresses[:1] }, ""},
		"one that is not": {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.0/24")} }, "can have"},
	} {
		h := *m.Hosts[20]
		c.edit(&h)
		err := m.CheckHost(&h)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", name, err, c.want)
		}
	}
}

func TestAttachmentNames(t *testing.T) {
	m := site(t)
	for text, want := range map[string]identity.ID{"n1/site": 10, "n2/site": 10, "n1/lab": 11, "n2/lab": 0, "n3/site": 0, "n1": 0, "": 0, "n1/": 0, "/site": 0} {
		a, p := m.AttachmentAt(text)
		if (a == nil) != (want == 0) || a != nil && (a.ID != want || m.PortName(p) != text) {
			t.Errorf("attachment %q is %+v, %+v", text, a, p)
		}
		if _, _, err := m.FindAttachment(text); (err == nil) != (want != 0) {
			t.Errorf("attachment %q: %v", text, err)
		}
	}
	a := m.Attachments[10]
	if name := m.AttachmentName(a); name != "n1/site" {
		t.Errorf("attachment 10 is called %s", name)
	}
	rest := a.WithoutPort(1)
	if name := m.AttachmentName(rest); name != "n2/site" || len(a.Ports) != 2 || rest.WithoutPort(2) != nil {
		t.Errorf("without its first port it is called %s, and it was %+v", name, a)
	}
	if more := rest.WithPort(AttachmentPort{Node: 3}); len(more.Ports) != 2 || len(rest.Ports) != 1 {
		t.Errorf("with another port: %+v of %+v", more, rest)
	}
}

// TestCheckHost: each row is one good host with one thing other.
func TestCheckHost(t *testing.T) {
	gone := node(7)
	gone.OwnStatus = StatusRemoved
	gone.Stations = []Station{{VNI: 1, MAC: MAC{2, 7}, Mode: ModeStatic, Addresses: []netip.Prefix{pfx("10.64.0.77/24")}}}
	static := node(6)
	static.Stations = []Station{{VNI: 1, MAC: MAC{2, 6}, Mode: ModeStatic, Addresses: []netip.Prefix{pfx("10.64.0.9/24")}}}
	m := site(t, static, gone, &Attachment{ID: 12, VNI: 2, Ports: []AttachmentPort{{Node: 1, Name: "x", NIC: "eth2"}}},
		&Host{ID: 22, Name: "other", MAC: MAC{2, 22}, VNI: 2, Attachments: []identity.ID{12}},
		&Host{ID: 23, Name: "odd", MAC: MAC{2, 23}, VNI: 1, Attachments: []identity.ID{10}, Addresses: []netip.Prefix{pfx("fe80::62:ff:fe00:0/64")}})
	many := make([]netip.Prefix, maxHostAddresses+1)
	for i := range many {
		many[i] = pfx(fmt.Sprintf("10.64.0.%d/24", 100+i))
	}
	for name, c := range map[string]struct {
		edit func(*Host)
		want string
	}{
		"as it is":                  {func(*Host) {}, ""},
		"name of a node":            {func(h *Host) { h.Name = "n3" }, `a node is called "n3"`},
		"name of a removed node":    {func(h *Host) { h.Name = "n7" }, ""},
		"name of a host":            {func(h *Host) { h.Name = "camera" }, "host remove camera"},
		"name of another kind":      {func(h *Host) { h.Name = "a.b" }, "not a DNS label"},
		"no attachment":             {func(h *Host) { h.Attachments = nil }, "behind no attachment"},
		"no segment":                {func(h *Host) { h.VNI = 9 }, "behind no attachment"},
		"two attachments":           {func(h *Host) { h.Attachments = []identity.ID{10, 11} }, ""},
		"of two segments":           {func(h *Host) { h.Attachments = []identity.ID{10, 12} }, "a host for each segment"},
		"unknown attachment":        {func(h *Host) { h.Attachments = []identity.ID{99} }, "a host for each segment"},
		"group MAC":                 {func(h *Host) { h.MAC = MAC{3} }, "unicast"},
		"broadcast":                 {func(h *Host) { h.MAC = MAC{255, 255, 255, 255, 255, 255} }, "unicast"},
		"zero MAC":                  {func(h *Host) { h.MAC = MAC{} }, "unicast"},
		"MAC of another's address":  {func(h *Host) { h.MAC = MAC{0, 0x62} }, ""},
		"MAC that makes an address": {func(h *Host) { h.MAC = MAC{2, 0x62} }, `in use on segment "seg1" by host "odd"`},
		"universal MAC":             {func(h *Host) { h.MAC = MAC{0, 0, 0x5e, 0, 0x53, 1} }, ""},
		"node's MAC":                {func(h *Host) { h.MAC = MAC{2, 6} }, `that of node "n6"`},
		"host's MAC":                {func(h *Host) { h.MAC = MAC{2, 20} }, `that of host "printer"`},
		"MAC of another segment":    {func(h *Host) { h.MAC = MAC{2, 22} }, ""},
		"addresses":                 {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.50/24"), pfx("fd00:0:0:1::50/64")} }, ""},
		"one twice":                 {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.50/24"), pfx("10.64.0.50/32")} }, "named twice"},
		"node's address":            {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.9/24")} }, `by node "n6"`},
		"removed node's address":    {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.77/24")} }, ""},
		"host's address":            {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.1/32")} }, `by host "printer"`},
		"other segment's":           {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.65.0.50/24")} }, `prefix of segment "seg2"`},
		"outside of all":            {func(h *Host) { h.Addresses = []netip.Prefix{pfx("192.0.2.50/24")} }, ""},
		"first of the prefix":       {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.0/32")} }, "can have"},
		"last of the prefix":        {func(h *Host) { h.Addresses = []netip.Prefix{pfx("10.64.0.255/24")} }, "can have"},
		"prefix":                    {func(h *Host) { h.Addresses = []netip.Prefix{pfx("192.0.2.0/28")} }, "is a prefix"},
		"IPv6 prefix":               {func(h *Host) { h.Addresses = []netip.Prefix{pfx("2001:db8::/64")} }, "is a prefix"},
		"end of two (RFC 3021)":     {func(h *Host) { h.Addresses = []netip.Prefix{pfx("192.0.2.4/31")} }, ""},
		"multicast":                 {func(h *Host) { h.Addresses = []netip.Prefix{pfx("239.1.1.1/32")} }, "can have"},
		"loopback":                  {func(h *Host) { h.Addresses = []netip.Prefix{pfx("::1/128")} }, "can have"},
		"mapped":                    {func(h *Host) { h.Addresses = []netip.Prefix{pfx("::ffff:192.0.2.1/128")} }, "can have"},
		"link-local of its choice":  {func(h *Host) { h.Addresses = []netip.Prefix{pfx("fe80::1234/64")} }, ""},
		"its own link-local":        {func(h *Host) { h.Addresses = []netip.Prefix{pfx("fe80::63:ff:fe00:0/64")} }, ""}, // of 02:63:00:00:00:00
		"link-local of a node":      {func(h *Host) { h.Addresses = []netip.Prefix{pfx("fe80::6:ff:fe00:0/64")} }, `made of the MAC of node "n6"`},
		"link-local of a host":      {func(h *Host) { h.Addresses = []netip.Prefix{pfx("fe80::14:ff:fe00:0/64")} }, `made of the MAC of host "printer"`},
		"as many as there may be":   {func(h *Host) { h.Addresses = many[1:] }, ""},
		"more than there may be":    {func(h *Host) { h.Addresses = many }, "at most"},
	} {
		h := &Host{Name: "new", MAC: MAC{2, 99}, VNI: 1, Attachments: []identity.ID{10}}
		c.edit(h)
		err := m.CheckHost(h)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", name, err, c.want)
		}
	}
}

// TestLengthened: an address that is named without a length has that of the segment's prefix.
func TestLengthened(t *testing.T) {
	seg := &Segment{IPv4: pfx("198.51.100.0/24"), IPv6: pfx("2001:db8:1::/64")}
	for text, want := range map[string]string{
		"198.51.100.31": "198.51.100.31/24", "198.51.100.31/32": "198.51.100.31/32", "192.0.2.31": "192.0.2.31/32",
		"2001:db8:1::5": "2001:db8:1::5/64", "2001:db8::5": "2001:db8::5/128",
	} {
		p, err := ParseAddress(text)
		if got := seg.Lengthened(p, text).String(); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
}

// TestAddressesOfHosts: nobody else is given what a host's record names.
func TestAddressesOfHosts(t *testing.T) {
	m := site(t, &Grant{ID: 1, Node: 3, VNI: 1})
	if got := fmt.Sprint(m.Nodes[3].Stations[0].Addresses); got != "[10.64.0.2/24 fd00::1:0:1:0:3/64]" {
		t.Errorf("node 3 was given %s, beside the host that has 10.64.0.1 and fd00:0:0:1::3", got)
	}
	seg := m.Segments[1]
	if _, err := m.WithMode(m.Nodes[4], seg, ModeStatic, []netip.Prefix{pfx("10.64.0.1/24")}); err == nil || !strings.Contains(err.Error(), `by host "printer"`) {
		t.Errorf("node 4 was given the host's address: %v", err)
	}
	dhcp := m.Nodes[5].Clone()
	dhcp.setStation(Station{VNI: 1, MAC: MAC{2, 5}, Mode: ModeDHCP})
	if _, err := m.WithLease(dhcp, seg, pfx("10.64.0.1/24")); err == nil || !strings.Contains(err.Error(), `by host "printer"`) {
		t.Errorf("a lease of the host's address was taken: %v", err)
	}
	taken := m.occupied(1)
	if taken.macs[MAC{2, 20}] != 20 || m.occupied(2).macs[MAC{2, 20}] != 0 {
		t.Errorf("MACs in use on segment 1 are %v", taken.macs)
	}
}

func TestMachineSelectors(t *testing.T) {
	m := site(t)
	for text, want := range map[string]string{
		"host:printer": "host:printer", "attachment:n1/site": "attachment:n1/site", "attachment:n2/site": "attachment:n1/site",
		"host:n1": "`host list`", "host:": "`host list`", "attachment:n1/x": "`attachment list`", "attachment:n1": "NODE/PORT",
		"node:printer": "`node list`",
	} {
		s, err := m.Select(text)
		if err != nil {
			if !strings.Contains(err.Error(), strings.ReplaceAll(want, "`attachment", "`etherloom attachment")) {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got := m.Text(s); got != want || !one(s) {
			t.Errorf("%s means %+v, which is %q", text, s, got)
		}
	}
	for _, c := range []struct {
		to, on string
		vni    VNI
		want   string
	}{
		{"host:printer", "", 1, ""}, // of two segments, the one where it is
		{"host:printer", "seg1", 1, ""},
		{"attachment:n1/lab", "", 1, ""},
		{"host:printer", "seg2", 0, `host "printer" is on segment "seg1"`},
		{"attachment:n1/lab", "seg2", 0, `attachment n1/lab is on segment "seg1"`},
	} {
		vni, s, err := m.Target(c.to, c.on)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || err == nil && (vni != c.vni || s == nil) {
			t.Errorf("target %s on %q is %d, %v, %v", c.to, c.on, vni, s, err)
		}
	}
	g, err := m.NewGroup("g", []string{"host:printer", "attachment:n1/lab", "node:n3"})
	must(t, err)
	if !slices.Equal(g.Nodes, []identity.ID{11, 20, 3}) {
		t.Errorf("group is %+v", g)
	}
	f := maps.Clone(m.Facts)
	f[g.Key()] = g
	delete(f, "host/20")
	if got := Derive(f, 9, m).MembersOf(g); !slices.Equal(got, []string{"attachment:n1/lab", "node:n3"}) {
		t.Errorf("without the host, members are %v", got)
	}
	for _, c := range []struct {
		id   identity.ID
		name string
	}{{1, "n1"}, {10, "n1/site"}, {20, "printer"}, {99, ""}} {
		if got := m.Name(c.id); got != c.name {
			t.Errorf("identity %d is called %q", c.id, got)
		}
	}
}

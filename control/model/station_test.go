package model

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/identity"
)

func TestSeat(t *testing.T) {
	first := node(1, "a=b")
	first.Stations = []Station{{VNI: 1, MAC: MAC{2, 1}, Mode: ModeStatic, Addresses: []netip.Prefix{pfx("10.64.0.1/28")}}}
	m := seated(t, facts(segment(1, "10.64.0.0/28"), first, node(2, "a=b"), node(0x1f, "a=b"), &Grant{ID: 1, Label: "a=b", VNI: 1}))
	for id, want := range map[identity.ID]string{
		1:    "[10.64.0.1/28]",
		2:    "[10.64.0.2/28 fd00:0:0:1::2/64]",
		0x1f: "[10.64.0.3/28 fd00:0:0:1::1f/64]",
	} {
		if got := fmt.Sprint(m.Nodes[id].Stations[0].Addresses); got != want {
			t.Errorf("node %d has %s, want %s", id, got, want)
		}
	}
}

// TestMACVector pins how MACs are derived: they must be the same after the loss of the store.
func TestMACVector(t *testing.T) {
	m := Derive(facts(segment(1, "10.64.0.0/20")), 1, nil)
	if got := m.newMAC(1, 2, m.occupied(1)).String(); got != "6e:75:3e:b5:17:be" {
		t.Errorf("MAC of node 2 on segment 1 is %s", got)
	}
	taken := m.occupied(1)
	taken.macs[m.newMAC(1, 2, taken)] = 9
	if got := m.newMAC(1, 2, taken).String(); got != "fa:96:63:8f:83:d2" {
		t.Errorf("MAC of node 2 on segment 1 after a collision is %s", got)
	}
}

func TestSegmentFull(t *testing.T) {
	more := []Fact{segment(1, "10.64.0.0/29"), segment(2, "10.65.0.0/24"), &Grant{ID: 1, Label: "a=b", VNI: 1}, &Grant{ID: 2, Label: "a=b", VNI: 2}}
	for id := range identity.ID(8) {
		more = append(more, node(id+1, "a=b"))
	}
	m := Derive(facts(more...), 1, nil)
	if _, err := m.Seat(100, nil); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), `"seg1"`) {
		t.Errorf("the seventh address of six: %v", err)
	}
	// It is said also if it would be found out only by a later call.
	if _, err := m.Seat(3, nil); !errors.Is(err, ErrFull) {
		t.Errorf("the seventh address of six, three at a time: %v", err)
	}
	// Who had no room before is no error, and the others are seated.
	nodes, err := m.Seat(100, m)
	must(t, err)
	on := map[VNI]int{}
	for _, n := range nodes {
		for _, s := range n.Stations {
			on[s.VNI]++
		}
	}
	if on[1] != 6 || on[2] != 8 {
		t.Errorf("seats on the full segment %d, on the other %d", on[1], on[2])
	}
	if nodes, err := m.Seat(3, m); len(nodes) != 3 || err != nil {
		t.Errorf("at most 3 nodes: %d, %v", len(nodes), err)
	}
}

// desk is a segment with three nodes on it, and another segment.
func desk(t *testing.T) *Model {
	gone := node(4, "a=b")
	gone.OwnStatus = StatusRemoved
	gone.Stations = []Station{{VNI: 1, MAC: MAC{2, 4}, Mode: ModeStatic, Addresses: []netip.Prefix{pfx("10.64.0.3/24"), pfx("10.64.0.9/24")}}}
	dhcp := node(3, "a=b")
	dhcp.Stations = []Station{{VNI: 1, MAC: MAC{2, 3}, Mode: ModeDHCP, Addresses: []netip.Prefix{pfx("fd00:0:0:1::3/64")}}}
	return seated(t, facts(segment(1, "10.64.0.0/24"), segment(2, "10.65.0.0/24"), node(1, "a=b"), node(2, "a=b"), dhcp, gone,
		&Grant{ID: 1, Label: "a=b", VNI: 1}))
}

func TestWithMode(t *testing.T) {
	m := desk(t)
	for _, c := range []struct {
		name      string
		mode      Mode
		addresses []string
		want      string // addresses, or
		err       string
	}{
		{"auto again", ModeAuto, nil, "[10.64.0.1/24 fd00:0:0:1::1/64]", ""},
		{"none", ModeNone, nil, "[]", ""},
		{"dhcp", ModeDHCP, nil, "[fd00:0:0:1::1/64]", ""},
		{"static inside", ModeStatic, []string{"10.64.0.50/24"}, "[10.64.0.50/24]", ""},
		{"static, its own", ModeStatic, []string{"10.64.0.1/24"}, "[10.64.0.1/24]", ""},
		{"static outside any segment", ModeStatic, []string{"192.168.1.5/24", "2001:db8::5/64"}, "[192.168.1.5/24 2001:db8::5/64]", ""},
		{"static, a removed node's", ModeStatic, []string{"10.64.0.9/24"}, "[10.64.0.9/24]", ""},
		{"static without addresses", ModeStatic, nil, "", "1 to 16 addresses"},
		{"auto with addresses", ModeAuto, []string{"10.64.0.50/24"}, "", "mode static only"},
		{"another node's", ModeStatic, []string{"10.64.0.2/24"}, "", `in use on segment "seg1" by node "n2"`},
		{"another node's IPv6", ModeStatic, []string{"fd00:0:0:1::2/64"}, "", `by node "n2"`},
		{"in another segment", ModeStatic, []string{"10.65.0.7/24"}, "", `prefix of segment "seg2"`},
		{"overlaps another segment", ModeStatic, []string{"10.66.0.7/8"}, "", "overlaps the prefix"},
		{"network address", ModeStatic, []string{"10.64.0.0/24"}, "", "a host can have"},
		{"broadcast address", ModeStatic, []string{"10.64.0.255/24"}, "", "a host can have"},
		{"loopback", ModeStatic, []string{"127.0.0.1/8"}, "", "a host can have"},
		{"multicast", ModeStatic, []string{"224.0.0.1/4"}, "", "a host can have"},
		{"link-local", ModeStatic, []string{"169.254.0.1/16"}, "", "a host can have"},
		{"IPv4 in IPv6", ModeStatic, []string{"::ffff:10.64.0.50/120"}, "", "a host can have"},
	} {
		var addresses []netip.Prefix
		for _, a := range c.addresses {
			addresses = append(addresses, pfx(a))
		}
		n, err := m.WithMode(m.Nodes[1], m.Segments[1], c.mode, addresses)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		must(t, err)
		s := n.Stations[0]
		if got := fmt.Sprint(s.Addresses); got != c.want || s.Mode != c.mode || s.MAC != m.Nodes[1].Stations[0].MAC {
			t.Errorf("%s: station is %+v, want %s", c.name, s, c.want)
		}
	}
	// A node may be given its addresses before it is a member.
	n, err := m.WithMode(m.Nodes[1], m.Segments[2], ModeStatic, []netip.Prefix{pfx("10.65.0.7/24")})
	if err != nil || len(n.Stations) != 2 || len(m.Nodes[1].Stations) != 1 {
		t.Errorf("before membership: %v, %v", n, err)
	}
}

func TestWithLease(t *testing.T) {
	m := desk(t)
	dhcp, lan := m.Nodes[3], m.Segments[1]
	for _, c := range []struct {
		name  string
		node  *Node
		lease netip.Prefix
		want  string
		err   string
	}{
		{"lease", dhcp, pfx("10.64.0.77/24"), "[fd00:0:0:1::3/64 10.64.0.77/24]", ""},
		{"no lease", dhcp, netip.Prefix{}, "[fd00:0:0:1::3/64]", ""},
		{"in another mode", m.Nodes[1], pfx("10.64.0.77/24"), "", "not in address mode dhcp"},
		{"not on the segment", node(9), pfx("10.64.0.77/24"), "", "not in address mode dhcp"},
		{"another node's", dhcp, pfx("10.64.0.2/24"), "", `in use on segment "seg1" by node "n2"`},
		{"outside", dhcp, pfx("10.65.0.2/24"), "", "outside"},
		{"broadcast", dhcp, pfx("10.64.0.255/24"), "", "a host can have"},
	} {
		n, err := m.WithLease(c.node, lan, c.lease)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		must(t, err)
		if got := fmt.Sprint(n.Stations[0].Addresses); got != c.want {
			t.Errorf("%s: addresses %s, want %s", c.name, got, c.want)
		}
	}
	first, err := m.WithLease(dhcp, lan, pfx("10.64.0.77/24"))
	must(t, err)
	second, err := m.WithLease(first, lan, pfx("10.64.0.78/24"))
	must(t, err)
	if got := fmt.Sprint(second.Stations[0].Addresses); got != "[fd00:0:0:1::3/64 10.64.0.78/24]" {
		t.Errorf("a second lease leaves %s", got)
	}
}

// TestForget: a removed node's address is not given to another until it is forgotten.
func TestWithRoles(t *testing.T) {
	m := desk(t)
	one, two := m.Segments[1], m.Segments[2]
	with := func(n *Node, add, remove string) (*Node, string) {
		var lists [2][]Role
		for i, text := range []string{add, remove} {
			for _, name := range strings.Fields(text) {
				r, err := RoleOf(name)
				must(t, err)
				lists[i] = append(lists[i], r)
			}
		}
		c, err := m.WithRoles(n, one, lists[0], lists[1])
		must(t, err)
		return c, fmt.Sprint(c.Stations[0].Roles)
	}
	before := m.Nodes[1].Clone()
	a, got := with(m.Nodes[1], "router dhcp-server router", "")
	if got != "[dhcp-server router]" || !Same(m.Nodes[1], before) {
		t.Errorf("roles are %s; the old record is %v", got, m.Nodes[1])
	}
	if p := a.Stations[0].Proto(); fmt.Sprint(p.GetRoles()) != "[dhcp-server router]" {
		t.Errorf("as it travels: %v", p)
	}
	if b, got := with(a, "querier router", "dhcp-server"); got != "[querier router]" || fmt.Sprint(a.Stations[0].Roles) != "[dhcp-server router]" {
		t.Errorf("roles are %s, and were %v, %v", got, a.Stations, b.Stations)
	}
	if again, _ := with(a, "router", "querier"); !Same(again, a) {
		t.Errorf("nothing new is a change: %v", again)
	}
	if back, got := with(a, "", "router dhcp-server"); got != "[]" || !Same(back, before) {
		t.Errorf("without roles: %v", back)
	}
	// Another address mode leaves them.
	if c, err := m.WithMode(a, one, ModeNone, nil); err != nil || fmt.Sprint(c.Stations[0].Roles) != "[dhcp-server router]" {
		t.Errorf("after another mode: %v, %v", c, err)
	}
	if _, err := RoleOf("oracle"); err == nil || !strings.Contains(err.Error(), `"oracle"`) || !strings.Contains(err.Error(), "dhcp-server, router or querier") {
		t.Errorf("an unknown role: %v", err)
	}
	if _, err := m.WithRoles(m.Nodes[1], two, []Role{RoleRouter}, nil); err == nil || !strings.Contains(err.Error(), "etherloom grant add --from node:") {
		t.Errorf("where it has no station: %v", err)
	}
	if _, err := m.WithRoles(m.Nodes[1], one, []Role{RoleRouter}, []Role{RoleRouter}); err == nil || !strings.Contains(err.Error(), "router") {
		t.Errorf("added and removed at once: %v", err)
	}
}

func TestForget(t *testing.T) {
	m := desk(t)
	if free, err := m.occupied(1).lowestFree(m.Segments[1]); err != nil || free.String() != "10.64.0.4" {
		t.Errorf("lowest free address is %v, %v: 1 and 2 are in use, 3 was the removed node's", free, err)
	}
	f := facts()
	for _, x := range m.Facts {
		f[x.Key()] = x
	}
	f["node/4"] = m.Nodes[4].Forget()
	if free, _ := Derive(f, 3, m).occupied(1).lowestFree(m.Segments[1]); free.String() != "10.64.0.3" {
		t.Errorf("lowest free address after that is %v", free)
	}
	locked := m.Nodes[1].Clone()
	locked.OwnStatus = StatusLocked
	if n := locked.Forget(); len(n.Stations) != 1 {
		t.Error("a locked node lost its addresses")
	}
}

func TestPrefixes(t *testing.T) {
	m := Derive(facts(segment(1, "10.64.0.0/20"), segment(2, "192.168.0.0/16")), 1, nil)
	for range 200 {
		p, err := m.ChooseIPv4([]netip.Prefix{pfx("10.64.0.0/11"), pfx("10.100.0.0/16")})
		must(t, err)
		if p.Bits() != 20 || !DefaultPool().Contains(p.Addr()) || p != p.Masked() || p.Overlaps(pfx("10.64.0.0/11")) || p.Overlaps(pfx("10.100.0.0/16")) {
			t.Fatalf("chose %v", p)
		}
	}
	if _, err := m.ChooseIPv4([]netip.Prefix{pfx("10.0.0.0/8")}); err == nil || !strings.Contains(err.Error(), "name the segment's") {
		t.Errorf("with nothing left: %v", err)
	}
	small := Derive(facts(&Settings{Pool: pfx("172.16.5.0/24")}), 1, nil)
	if p, err := small.ChooseIPv4(nil); err != nil || p != pfx("172.16.5.0/24") {
		t.Errorf("from a pool of a /24: %v, %v", p, err)
	}
	for _, c := range []struct{ text, want string }{
		{"10.128.0.0/24", ""},
		{"10.64.8.0/24", `"seg1"`},
		{"10.0.0.0/8", `"seg1"`},
		{"10.128.0.1/24", "did you mean 10.128.0.0/24"},
		{"10.128.0.0", "ADDRESS/LENGTH"},
		{"10.128.0.0/31", "ADDRESS/LENGTH"},
		{"fd00::/64", "ADDRESS/LENGTH"},
		{"224.0.0.0/24", "unicast"},
		{"127.0.0.0/8", "unicast"},
	} {
		if _, err := m.CheckIPv4(c.text); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("CheckIPv4(%q): %v, want %q", c.text, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"fd12::/64", ""},
		{"fd00:0:0:1::/64", `"seg1"`},
		{"fd12::1/64", "did you mean"},
		{"fd12::/48", "ADDRESS/64"},
		{"10.0.0.0/8", "ADDRESS/64"},
		{"ff00::/64", "unicast"},
	} {
		if _, err := m.CheckIPv6(c.text); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("CheckIPv6(%q): %v, want %q", c.text, err, c.want)
		}
	}
	if p, err := m.IPv6For(0xabcdef); err != nil || p != pfx("fd00:0:0:cdef::/64") {
		t.Errorf("IPv6For(0xabcdef) = %v, %v", p, err)
	}
	if _, err := m.IPv6For(0x10001); err == nil || !strings.Contains(err.Error(), `"seg1"`) {
		t.Errorf("IPv6For of a VNI with the same low bits: %v", err)
	}
}

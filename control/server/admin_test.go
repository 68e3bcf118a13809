package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/credential"
)

func TestSegments(t *testing.T) {
	d := newDesk(t)
	add := func(name, v4, v6 string, mtu uint32) (*controlv1.Segment, error) {
		r, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: name, Ipv4Prefix: v4, Ipv6Prefix: v6, Mtu: mtu})
		return r.GetSegment(), err
	}
	dmz, err := add("dmz", "192.168.50.0/24", "fd99::/64", 9000)
	must(t, err)
	if dmz.Vni != 2 || dmz.Ipv4Prefix != "192.168.50.0/24" || dmz.Ipv6Prefix != "fd99::/64" || dmz.Mtu != 9000 {
		t.Errorf("segment is %v", dmz)
	}
	tunnel, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "tunnel", Transparent: true})
	must(t, err)
	listed, err := d.admin.ListSegments(t.Context(), &controlv1.ListSegmentsRequest{})
	must(t, err)
	for _, seg := range append(listed.GetSegments(), tunnel.GetSegment(), dmz) {
		if seg.GetTransparent() != (seg.GetName() == "tunnel") {
			t.Errorf("segment is %v", seg)
		}
	}
	for _, c := range []struct {
		name, v4, v6 string
		mtu          uint32
		code         connect.Code
		text         string
	}{
		{"lan", "", "", 0, connect.CodeAlreadyExists, `there is a segment "lan"`},
		{"L", "", "", 0, connect.CodeInvalidArgument, "not a DNS label"},
		{"x", "192.168.50.128/25", "", 0, connect.CodeInvalidArgument, `overlaps that of segment "dmz"`},
		{"x", "192.168.51.1/24", "", 0, connect.CodeInvalidArgument, "did you mean 192.168.51.0/24"},
		{"x", "", "fd99::/64", 0, connect.CodeInvalidArgument, `overlaps that of segment "dmz"`},
		{"x", "", "fd98::/56", 0, connect.CodeInvalidArgument, "ADDRESS/64"},
		{"x", "", "", 100, connect.CodeInvalidArgument, "MTU is 100"},
	} {
		_, err := add(c.name, c.v4, c.v6, c.mtu)
		wantError(t, err, c.code, c.text)
	}
	d.join("a", d.token())
	id := d.grant("node:a", "segment:dmz")
	_, err = d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: "node:a", To: "segment:dmz"})
	wantError(t, err, connect.CodeAlreadyExists, "grant 1 says this already")
	remove := func(name string) error {
		_, err := d.admin.RemoveSegment(t.Context(), &controlv1.RemoveSegmentRequest{Name: name})
		return err
	}
	wantError(t, remove("dmz"), connect.CodeFailedPrecondition, "grant 1 (node:a to segment:dmz): remove it first")
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	must(t, remove("dmz"))
	wantError(t, remove("dmz"), connect.CodeNotFound, "`etherloom segment list`")
	again, err := add("dmz", "", "", 0)
	must(t, err)
	if again.Vni != 4 || again.Ipv4Prefix == "" {
		t.Errorf("a segment of the same name is %v", again)
	}
}

func TestGrants(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	add := func(from, to string, expires *timestamppb.Timestamp) error {
		_, err := d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: from, To: to, Expires: expires})
		return err
	}
	for _, c := range []struct{ from, to, text string }{
		{"node:x", "segment:lan", `no node is called "x"`},
		{"group:x", "segment:lan", `no group is called "x"`},
		{"attachment:x/y", "segment:lan", `no attachment "x/y"`},
		{"host:x", "segment:lan", `no host is called "x"`},
		{"service:x", "segment:lan", "node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT"},
		{"label:x", "segment:lan", "KEY=VALUE"},
		{"node:a", "segment:x", `no segment is called "x"`},
		{"node:a", "service:x", "segment:NAME"},
		{"node:a", "node:y", `no node is called "y"`},
	} {
		wantError(t, add(c.from, c.to, nil), connect.CodeInvalidArgument, c.text)
	}
	wantError(t, add("node:a", "segment:lan", timestamppb.New(time.Now().Add(-time.Second))), connect.CodeInvalidArgument, "in the future")
	must(t, add("node:a", "segment:lan", timestamppb.New(time.Now().Add(time.Hour))))
	must(t, add("label:k=v", "segment:lan", nil))
	list, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
	must(t, err)
	if g := list.Grants; len(g) != 2 || g[0].From != "node:a" || g[0].Expires == nil || g[1].From != "label:k=v" || g[1].Expires != nil || g[1].To != "segment:lan" {
		t.Errorf("grants are %v", g)
	}
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: 9})
	wantError(t, err, connect.CodeNotFound, "`etherloom grant list`")
}

// A grant to nodes says where it holds and what it allows; a group that it names stays.
func TestGrantsToNodes(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	d.join("b", d.token())
	_, err := d.admin.SetGroup(t.Context(), &controlv1.SetGroupRequest{Name: "dba", Members: []string{"node:a", "label:team=dba"}})
	must(t, err)
	_, err = d.admin.SetGroup(t.Context(), &controlv1.SetGroupRequest{Name: "x", Members: []string{"group:dba"}})
	wantError(t, err, connect.CodeInvalidArgument, "name its members instead")
	r, err := d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{
		Name: "db", From: "group:dba", To: "node:b", Allow: []string{"tcp:5432,5433", "icmp", "icmp"}, Both: true,
	})
	must(t, err)
	if g := r.GetGrant(); g.GetName() != "db" || g.GetSegment() != "lan" || !slices.Equal(g.GetAllow(), []string{"tcp:5432", "tcp:5433", "icmp"}) || !g.GetBoth() {
		t.Errorf("grant is %v", g)
	}
	for _, c := range []struct {
		r    *controlv1.AddGrantRequest
		code connect.Code
		text string
	}{
		{&controlv1.AddGrantRequest{From: "group:dba", To: "node:b", Allow: []string{"tcp:5432", "tcp:5433", "icmp"}, Both: true}, connect.CodeAlreadyExists, "says this already"},
		{&controlv1.AddGrantRequest{Name: "db", From: "node:a", To: "node:b"}, connect.CodeAlreadyExists, `is called "db"`},
		{&controlv1.AddGrantRequest{From: "node:a", To: "node:b", Allow: []string{"http"}}, connect.CodeInvalidArgument, "a term is"},
		{&controlv1.AddGrantRequest{From: "node:a", To: "node:b", Segment: "x"}, connect.CodeInvalidArgument, "`segment list`"},
		{&controlv1.AddGrantRequest{Name: "a b", From: "node:a", To: "node:b"}, connect.CodeInvalidArgument, "name of a grant"},
		{&controlv1.AddGrantRequest{From: "node:a", To: "segment:lan", Both: true}, connect.CodeInvalidArgument, "leave the direction out"},
	} {
		_, err := d.admin.AddGrant(t.Context(), c.r)
		wantError(t, err, c.code, c.text)
	}
	_, err = d.admin.RemoveGroup(t.Context(), &controlv1.RemoveGroupRequest{Name: "dba"})
	wantError(t, err, connect.CodeFailedPrecondition, fmt.Sprintf("`etherloom grant remove %d`", r.GetGrant().GetId()))
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: r.GetGrant().GetId()})
	must(t, err)
	_, err = d.admin.RemoveGroup(t.Context(), &controlv1.RemoveGroupRequest{Name: "dba"})
	must(t, err)
	list, err := d.admin.ListGroups(t.Context(), &controlv1.ListGroupsRequest{})
	if err != nil || len(list.GetGroups()) != 0 {
		t.Errorf("groups are %v, %v", list, err)
	}
}

func TestAddresses(t *testing.T) {
	d, a, b := pair(t)
	seg := d.ctl.store.Model().SegmentNamed("lan")
	host := func(n int) string {
		addr := seg.IPv4.Addr()
		for range n {
			addr = addr.Next()
		}
		return fmt.Sprintf("%s/%d", addr, seg.IPv4.Bits())
	}
	set := func(name, segment string, mode controlv1.AddressMode, addresses ...string) error {
		_, err := d.admin.SetNodeAddress(t.Context(), &controlv1.SetNodeAddressRequest{Name: name, Segment: segment, Mode: mode, Addresses: addresses})
		return err
	}
	const static, dhcp, none = controlv1.AddressMode_ADDRESS_MODE_STATIC, controlv1.AddressMode_ADDRESS_MODE_DHCP, controlv1.AddressMode_ADDRESS_MODE_NONE
	if got := a.contents().Self.Stations[0].Addresses; got[0] != host(1) || b.contents().Self.Stations[0].Addresses[0] != host(2) {
		t.Errorf("a has %v", got)
	}
	must(t, set("a", "lan", static, host(9)))
	eventually(t, "b sees a's new address", func() bool {
		s := b.contents().Peers[a.id].GetStations()
		return len(s) == 1 && len(s[0].Addresses) == 1 && s[0].Addresses[0] == host(9) && s[0].Mode == static
	})
	wantError(t, set("b", "lan", static, host(9)), connect.CodeFailedPrecondition, `by node "a"`)
	wantError(t, set("x", "lan", static, host(9)), connect.CodeNotFound, "`etherloom node list`")
	wantError(t, set("a", "x", static, host(9)), connect.CodeNotFound, "`etherloom segment list`")
	wantError(t, set("a", "lan", static, "10.0.0.1"), connect.CodeInvalidArgument, "ADDRESS/LENGTH")
	wantError(t, set("a", "lan", 0), connect.CodeInvalidArgument, "auto, static, dhcp or none")
	must(t, set("b", "lan", none))
	eventually(t, "b has no address", func() bool { return len(b.contents().Self.Stations[0].Addresses) == 0 })

	report := func(m *machine, vni uint32, address string) error {
		_, err := m.api.ReportAddress(t.Context(), &controlv1.ReportAddressRequest{Vni: vni, Address: address})
		return err
	}
	wantError(t, report(b, 1, host(20)), connect.CodeFailedPrecondition, "not in address mode dhcp")
	must(t, set("b", "lan", dhcp))
	wantError(t, report(b, 1, host(9)), connect.CodeFailedPrecondition, `by node "a"`)
	wantError(t, report(b, 1, "192.0.2.1/24"), connect.CodeFailedPrecondition, "outside")
	wantError(t, report(b, 1, "x"), connect.CodeInvalidArgument, "ADDRESS/LENGTH")
	wantError(t, report(b, 1, "fd00::1/64"), connect.CodeInvalidArgument, "IPv4")
	wantError(t, report(b, 99, host(20)), connect.CodeNotFound, "no segment 99")
	must(t, report(b, 1, host(20)))
	has := func(want string) func() bool {
		return func() bool { return strings.Contains(fmt.Sprint(a.contents().Peers[b.id].GetStations()), want) }
	}
	eventually(t, "a sees b's lease", has(host(20)))
	version := d.ctl.store.Model().Version
	must(t, report(b, 1, host(20)))
	if d.ctl.store.Model().Version != version {
		t.Error("the same report twice is a change")
	}
	must(t, report(b, 1, ""))
	eventually(t, "a sees that b has none", func() bool { return !has(host(20))() })
}

func TestRoles(t *testing.T) {
	d, a, b := pair(t)
	set := func(name, segment string, add, remove []string) error {
		_, err := d.admin.SetNodeRoles(t.Context(), &controlv1.SetNodeRolesRequest{Name: name, Segment: segment, Add: add, Remove: remove})
		return err
	}
	router := []string{"router"}
	wantError(t, set("x", "lan", router, nil), connect.CodeNotFound, "`etherloom node list`")
	wantError(t, set("a", "x", router, nil), connect.CodeNotFound, "`etherloom segment list`")
	wantError(t, set("a", "lan", []string{"oracle"}, nil), connect.CodeInvalidArgument, `"oracle"`)
	wantError(t, set("a", "lan", nil, []string{"oracle"}), connect.CodeInvalidArgument, `"oracle"`)
	wantError(t, set("a", "lan", nil, nil), connect.CodeInvalidArgument, "no role is named")
	wantError(t, set("a", "lan", router, router), connect.CodeFailedPrecondition, "at once")
	must(t, set("a", "lan", []string{"router", "dhcp-server"}, nil))
	told := func(m *machine, want string) func() bool {
		return func() bool {
			st := m.contents().Self.GetStations()
			if m != a {
				st = m.contents().Peers[a.id].GetStations()
			}
			return len(st) == 1 && fmt.Sprint(st[0].GetRoles()) == want
		}
	}
	eventually(t, "a is told its roles", told(a, "[dhcp-server router]"))
	eventually(t, "b is told a's roles", told(b, "[dhcp-server router]"))
	version := d.ctl.store.Model().Version
	must(t, set("a", "lan", router, []string{"querier"}))
	if d.ctl.store.Model().Version != version {
		t.Error("what a has already is a change")
	}
	must(t, set("a", "lan", nil, router))
	eventually(t, "b is told that a is no router", told(b, "[dhcp-server]"))
}

// TestChangesAreLimited: a node cannot fill the store and the audit log.
func TestChangesAreLimited(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.Limits.Changes, o.Limits.ChangeBurst = 0.001, 4 })
	a, b := d.join("a", d.token()), d.join("b", d.token())
	refused := 0
	for range 10 {
		if _, err := a.api.RaiseHandshakeNonce(t.Context(), &controlv1.RaiseHandshakeNonceRequest{}); connect.CodeOf(err) == connect.CodeResourceExhausted {
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("%d of 10 changes were refused, with a burst of 4", refused)
	}
	if r, err := b.api.RaiseHandshakeNonce(t.Context(), &controlv1.RaiseHandshakeNonceRequest{}); err != nil || r.HandshakeNonce != 1 {
		t.Errorf("another node: %v, %v", r, err)
	}
}

func TestRelays(t *testing.T) {
	d, a, b := pair(t)
	add := func(edit func(*controlv1.AddRelayRequest)) (*controlv1.AddRelayResponse, error) {
		r := &controlv1.AddRelayRequest{Name: "r", Hosts: []string{"192.0.2.1", "relay.example.net"}, Port: 3478, ProbePort: 3479}
		edit(r)
		return d.admin.AddRelay(t.Context(), r)
	}
	for _, c := range []struct {
		edit func(*controlv1.AddRelayRequest)
		text string
	}{
		{func(r *controlv1.AddRelayRequest) { r.Name = "" }, "not a DNS label"},
		{func(r *controlv1.AddRelayRequest) { r.Hosts = nil }, "1 to 8"},
		{func(r *controlv1.AddRelayRequest) { r.Hosts = []string{"a b"} }, "neither an IP address nor a DNS name"},
		{func(r *controlv1.AddRelayRequest) { r.Port = 0 }, "port 0"},
		{func(r *controlv1.AddRelayRequest) { r.ProbePort = 70000 }, "port 70000"},
		{func(r *controlv1.AddRelayRequest) { r.ProbePort = 3478 }, "given twice"},
	} {
		_, err := add(c.edit)
		wantError(t, err, connect.CodeInvalidArgument, c.text)
	}
	resp, err := add(func(*controlv1.AddRelayRequest) {})
	must(t, err)
	cred, err := credential.ParseRelay([]byte(resp.Credential))
	must(t, err)
	_, err = add(func(*controlv1.AddRelayRequest) {})
	wantError(t, err, connect.CodeAlreadyExists, `there is a relay "r"`)
	eventually(t, "a is told of the relay", func() bool { return a.contents().Relays["r"] != nil })
	told := a.contents().Relays["r"]
	slot, password, err := cred.Secret.Check(told.Username, time.Now())
	if err != nil || password != told.Password || slot != a.contents().Self.RelaySlot || cred.Port != 3478 || cred.ProbePort != 3479 ||
		cred.Network != d.ctl.ca.Network || cred.Name != "r" {
		t.Errorf("relay %v, credential %+v: %v", told, cred, err)
	}
	if left := time.Until(told.Expires.AsTime()); left < (24+72+24)*time.Hour {
		t.Errorf("the credential lasts %v", left)
	}
	eventually(t, "b is told, with a credential of its own", func() bool {
		r := b.contents().Relays["r"]
		return r != nil && r.Username != told.Username
	})
	// The one beside the controller keeps its secret over restarts, and moves.
	local, err := d.ctl.LocalRelay(t.Context(), "local", []string{"192.0.2.9"}, credential.Relay{Port: 3478, ProbePort: 3479})
	must(t, err)
	again, err := d.ctl.LocalRelay(t.Context(), "local", []string{"192.0.2.10"}, credential.Relay{Port: 3478, ProbePort: 3479})
	must(t, err)
	if *local != *again {
		t.Errorf("credential went from %+v to %+v", local, again)
	}
	eventually(t, "b is told of it", func() bool {
		r := b.contents().Relays["local"]
		return r != nil && r.Hosts[0] == "192.0.2.10"
	})
	version := d.ctl.store.Model().Version
	_, err = d.ctl.LocalRelay(t.Context(), "local", []string{"192.0.2.10"}, credential.Relay{Port: 3478, ProbePort: 3479})
	must(t, err)
	if d.ctl.store.Model().Version != version {
		t.Error("the same relay again is a change")
	}
	list, err := d.admin.ListRelays(t.Context(), &controlv1.ListRelaysRequest{})
	must(t, err)
	if len(list.Relays) != 2 || list.Relays[0].Name != "local" {
		t.Errorf("relays are %v", list.Relays)
	}
	_, err = d.admin.RemoveRelay(t.Context(), &controlv1.RemoveRelayRequest{Name: "r"})
	must(t, err)
	_, err = d.admin.RemoveRelay(t.Context(), &controlv1.RemoveRelayRequest{Name: "r"})
	wantError(t, err, connect.CodeNotFound, "`etherloom relay list`")
	eventually(t, "a is told that it is gone", func() bool { return a.contents().Relays["r"] == nil })
}

func TestAdmins(t *testing.T) {
	d := newDesk(t)
	newAdmin(t, d, "second")
	for _, c := range []struct {
		r    *controlv1.AddAdminRequest
		code connect.Code
		text string
	}{
		{&controlv1.AddAdminRequest{Name: "x", SignKey: []byte{1}}, connect.CodeInvalidArgument, "32 bytes"},
		{&controlv1.AddAdminRequest{Name: "", SignKey: make([]byte, 32)}, connect.CodeInvalidArgument, "not a DNS label"},
		{&controlv1.AddAdminRequest{Name: "second", SignKey: make([]byte, 32)}, connect.CodeAlreadyExists, `there is an administrator "second"`},
		{&controlv1.AddAdminRequest{Name: "x", SignKey: d.ctl.store.Model().Admins[1].Sign}, connect.CodeAlreadyExists, "as that of admin/1"},
		{&controlv1.AddAdminRequest{Name: "x", SignKey: make([]byte, 32), Lifetime: durationpb.New(10000 * time.Hour)}, connect.CodeInvalidArgument, "lifetime"},
	} {
		_, err := d.admin.AddAdmin(t.Context(), c.r)
		wantError(t, err, c.code, c.text)
	}
	revoke := func(id uint32) error {
		_, err := d.admin.RevokeAdmin(t.Context(), &controlv1.RevokeAdminRequest{Id: id})
		return err
	}
	wantError(t, revoke(9), connect.CodeNotFound, "no administrator 9")
	must(t, revoke(2))
	must(t, revoke(2))
	wantError(t, revoke(1), connect.CodeFailedPrecondition, "is the last")
	list, err := d.admin.ListAdmins(t.Context(), &controlv1.ListAdminsRequest{})
	must(t, err)
	if a := list.Admins; len(a) != 2 || a[0].Revoked || !a[1].Revoked || a[1].Name != "second" {
		t.Errorf("administrators: %v", a)
	}
}

func TestStatusRequests(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	set := func(name string, s controlv1.NodeStatus, message string) error {
		_, err := d.admin.SetNodeStatus(t.Context(), &controlv1.SetNodeStatusRequest{Name: name, Status: s, Message: message})
		return err
	}
	wantError(t, set("a", controlv1.NodeStatus_NODE_STATUS_PENDING, ""), connect.CodeInvalidArgument, "active, locked or removed")
	wantError(t, set("a", 99, ""), connect.CodeInvalidArgument, "active, locked or removed")
	wantError(t, set("x", controlv1.NodeStatus_NODE_STATUS_LOCKED, ""), connect.CodeNotFound, "`etherloom node list`")
	wantError(t, set("a", controlv1.NodeStatus_NODE_STATUS_LOCKED, strings.Repeat("x", 300)), connect.CodeInvalidArgument, "at most 256")
	version := d.ctl.store.Model().Version
	must(t, set("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, ""))
	if d.ctl.store.Model().Version != version {
		t.Error("unlocking a node that is not locked is a change")
	}
	_, err := d.admin.ListNodes(t.Context(), &controlv1.ListNodesRequest{Name: "x"})
	wantError(t, err, connect.CodeNotFound, "`etherloom node list`")
}

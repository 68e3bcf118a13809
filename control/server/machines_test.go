package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// gateway joins a node that may bridge.
func (d *desk) gateway(name string) *machine {
	return d.join(name, d.token(func(r *controlv1.CreateTokenRequest) { r.Role = "gateway" }))
}

func (d *desk) attach(r *controlv1.AddAttachmentRequest) (*controlv1.AttachmentRule, error) {
	out, err := d.admin.AddAttachment(d.t.Context(), r)
	return out.GetAttachment(), err
}

func (d *desk) host(r *controlv1.AddHostRequest) (*controlv1.HostRule, error) {
	out, err := d.admin.AddHost(d.t.Context(), r)
	return out.GetHost(), err
}

func (d *desk) detach(name string) (*controlv1.AttachmentRule, error) {
	out, err := d.admin.RemoveAttachment(d.t.Context(), &controlv1.RemoveAttachmentRequest{Name: name})
	return out.GetAttachment(), err
}

func (d *desk) removeHost(name string) error {
	_, err := d.admin.RemoveHost(d.t.Context(), &controlv1.RemoveHostRequest{Name: name})
	return err
}

// TestAttachments: what an administrator may say of attachments, and what not.
func TestAttachments(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	gw2 := d.gateway("gw2")
	d.join("member", d.token())
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	site, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	if site.GetId() != 4 || site.GetSegment() != "lan" || !site.GetActive() || site.GetPorts()[0].GetName() != "gw1/site" {
		t.Errorf("attachment is %v", site)
	}
	both, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/b", With: "gw1/site", Bridge: "br0", Vlan: 30, Native: "untagged", Priority: "nonzero"})
	must(t, err)
	if p := both.GetPorts(); both.GetId() != 4 || len(p) != 2 || p[1].GetName() != "gw2/b" || p[1].GetBridge() != "br0" || p[1].GetVlan() != 30 ||
		p[1].GetNative() != "untagged" || p[1].GetPriority() != "nonzero" || p[1].GetStatus() != controlv1.NodeStatus_NODE_STATUS_ACTIVE {
		t.Errorf("with a further port it is %v", both)
	}
	for _, c := range []struct {
		r    *controlv1.AddAttachmentRequest
		code connect.Code
		text string
	}{
		{&controlv1.AddAttachmentRequest{Name: "gw1", Segment: "lan", Nic: "eth1"}, connect.CodeInvalidArgument, "NODE/PORT"},
		{&controlv1.AddAttachmentRequest{Name: "x/y", Segment: "lan", Nic: "eth1"}, connect.CodeNotFound, "`etherloom node list`"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "x", Nic: "eth1"}, connect.CodeNotFound, "`etherloom segment list`"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Nic: "eth1"}, connect.CodeInvalidArgument, "--segment NAME"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan"}, connect.CodeInvalidArgument, "with --nic"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan", Nic: "eth1", Vlan: 4095}, connect.CodeInvalidArgument, "VLAN is 4095"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan", Nic: "eth1", Vlan: 65536 + 11}, connect.CodeInvalidArgument, "VLAN is"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan", Nic: "eth1", Native: "tagged"}, connect.CodeInvalidArgument, "native"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan", Nic: "eth1", Service: true}, connect.CodeInvalidArgument, "service"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "lan", Nic: "eth1", Vlan: 11, Priority: "always"}, connect.CodeInvalidArgument, "priority"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", Segment: "dmz", Nic: "eth1", Vlan: 10}, connect.CodeInvalidArgument, "taken by attachment gw1/site"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1", Vlan: 11}, connect.CodeInvalidArgument, "there is an attachment gw1/site"},
		{&controlv1.AddAttachmentRequest{Name: "member/y", Segment: "lan", Nic: "eth1"}, connect.CodeInvalidArgument, "token create --role gateway"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", With: "gw2/b", Nic: "eth9"}, connect.CodeInvalidArgument, "gw1/site is a port of attachment gw2/b already"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", With: "gw2/x", Nic: "eth9"}, connect.CodeNotFound, "`etherloom attachment list`"},
		{&controlv1.AddAttachmentRequest{Name: "gw1/y", With: "gw2/b", Segment: "dmz", Nic: "eth9"}, connect.CodeInvalidArgument, `of another segment than "dmz"`},
	} {
		_, err := d.attach(c.r)
		wantError(t, err, c.code, c.text)
	}

	d.setStatus("gw2", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	list, err := d.admin.ListAttachments(t.Context(), &controlv1.ListAttachmentsRequest{})
	must(t, err)
	if l := list.GetAttachments(); len(l) != 1 || !l[0].GetActive() || l[0].GetPorts()[1].GetStatus() != controlv1.NodeStatus_NODE_STATUS_LOCKED {
		t.Errorf("attachments are %v", l)
	}
	left, err := d.detach("gw1/site")
	must(t, err)
	if left.GetActive() || len(left.GetPorts()) != 1 || left.GetPorts()[0].GetName() != "gw2/b" {
		t.Errorf("left is %v", left)
	}
	left, err = d.detach("gw2/b")
	must(t, err)
	if left != nil {
		t.Errorf("of the last port is left %v", left)
	}
	_, err = d.detach("gw2/b")
	wantError(t, err, connect.CodeNotFound, "`etherloom attachment list`")
	again, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	if again.GetId() <= site.GetId() {
		t.Errorf("identity %d was given again, after %d", again.GetId(), site.GetId())
	}
	if n := d.join("later", d.token()); n.id <= identity.ID(again.GetId()) || n.id == gw2.id {
		t.Errorf("a node was given identity %d", n.id)
	}
	var actions []string
	entries, _ := auditEntries(t, d)
	for _, e := range entries {
		if strings.HasPrefix(e.GetAction(), "attachment.") {
			actions = append(actions, e.GetAction()+" "+e.GetObject())
		}
	}
	if got := strings.Join(actions, ", "); got != "attachment.add attachment/4, attachment.port attachment/4, attachment.remove attachment/4, attachment.remove attachment/4, attachment.add attachment/5" {
		t.Errorf("the audit log has %s", got)
	}
	must(t, auditWhole(t, d))
}

// TestHosts: what an administrator may say of hosts; names are those of nodes, too.
func TestHosts(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	for name, segment := range map[string]string{"gw1/a": "lan", "gw1/b": "lan", "gw1/far": "dmz"} {
		_, err := d.attach(&controlv1.AddAttachmentRequest{Name: name, Segment: segment, Nic: "eth-" + name[4:]})
		must(t, err)
	}
	h, err := d.host(&controlv1.AddHostRequest{
		Name: "printer", Mac: "02-00-5E-00-53-01", Attachments: []string{"gw1/b", "gw1/a", "gw1/b"}, Addresses: []string{"192.0.2.9/24", "2001:db8::9"},
		Roles: []string{"router", "dhcp-server", "router"},
	})
	must(t, err)
	got := fmt.Sprintf("%s %s %s %d %v %v %v", h.GetName(), h.GetMac(), h.GetSegment(), len(h.GetAttachments()), h.GetAddresses(), h.GetRoles(), h.GetGateways())
	if got != "printer 02:00:5e:00:53:01 lan 2 [192.0.2.9/24 2001:db8::9/128] [dhcp-server router] [gw1]" {
		t.Errorf("host is %s", got)
	}
	good := func(edit func(*controlv1.AddHostRequest)) *controlv1.AddHostRequest {
		r := &controlv1.AddHostRequest{Name: "new", Mac: "02:00:5e:00:53:02", Attachments: []string{"gw1/a"}}
		edit(r)
		return r
	}
	for _, c := range []struct {
		edit func(*controlv1.AddHostRequest)
		code connect.Code
		text string
	}{
		{func(r *controlv1.AddHostRequest) { r.Name = "printer" }, connect.CodeInvalidArgument, `a host is called "printer"`},
		{func(r *controlv1.AddHostRequest) { r.Name = "gw1" }, connect.CodeInvalidArgument, `a node is called "gw1"`},
		{func(r *controlv1.AddHostRequest) { r.Mac = "x" }, connect.CodeInvalidArgument, "six bytes"},
		{func(r *controlv1.AddHostRequest) { r.Mac = "01:00:5e:00:53:02" }, connect.CodeInvalidArgument, "unicast"},
		{func(r *controlv1.AddHostRequest) { r.Mac = "02:00:5e:00:53:01" }, connect.CodeInvalidArgument, `that of host "printer"`},
		{func(r *controlv1.AddHostRequest) { r.Attachments = nil }, connect.CodeInvalidArgument, "behind no attachment"},
		{func(r *controlv1.AddHostRequest) { r.Attachments = []string{"gw1/x"} }, connect.CodeNotFound, "`etherloom attachment list`"},
		{func(r *controlv1.AddHostRequest) { r.Attachments = []string{"gw1/a", "gw1/far"} }, connect.CodeInvalidArgument, "a host for each segment"},
		{func(r *controlv1.AddHostRequest) { r.Addresses = []string{"x"} }, connect.CodeInvalidArgument, "ADDRESS/LENGTH"},
		{func(r *controlv1.AddHostRequest) { r.Addresses = []string{"192.0.2.9/24"} }, connect.CodeInvalidArgument, `by host "printer"`},
		{func(r *controlv1.AddHostRequest) { r.Roles = []string{"king"} }, connect.CodeInvalidArgument, "a role on a segment is"},
	} {
		_, err := d.host(good(c.edit))
		wantError(t, err, c.code, c.text)
	}
	_, err = d.host(&controlv1.AddHostRequest{Name: "printer-far", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw1/far"}})
	must(t, err) // the same machine on another segment
	keys, err := identity.NewNodeKeys()
	must(t, err)
	token := d.token()
	_, err = d.enrol(token.Secret[:], "printer", keys)
	wantError(t, err, connect.CodeAlreadyExists, `a host called "printer"`)
	list, err := d.admin.ListHosts(t.Context(), &controlv1.ListHostsRequest{})
	must(t, err)
	if l := list.GetHosts(); len(l) != 2 || l[0].GetName() != "printer" || l[1].GetName() != "printer-far" {
		t.Errorf("hosts are %v", l)
	}
	must(t, d.removeHost("printer"))
	wantError(t, d.removeHost("printer"), connect.CodeNotFound, "`etherloom host list`")
	d.join("printer", token) // the name is free
	again, err := d.host(good(func(r *controlv1.AddHostRequest) { r.Mac = "02:00:5e:00:53:01" }))
	must(t, err)
	if again.GetId() <= h.GetId() {
		t.Errorf("identity %d was given again", again.GetId())
	}
}

// TestSetMachines: what a host or a port is can be said anew; its identity, and the grants that name it, stay.
func TestSetMachines(t *testing.T) {
	d := newDesk(t)
	gw, a := d.gateway("gw").sync(), d.join("a", d.token()).sync()
	for _, r := range []*controlv1.AddAttachmentRequest{{Name: "gw/a", Segment: "lan", Nic: "eth1", Vlan: 10}, {Name: "gw/b", Segment: "lan", Nic: "eth1", Vlan: 11}} {
		_, err := d.attach(r)
		must(t, err)
	}
	h, err := d.host(&controlv1.AddHostRequest{Name: "printer", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw/a"}, Addresses: []string{"192.0.2.9/24"}, Roles: []string{"router"}})
	must(t, err)
	id := identity.ID(h.GetId())
	d.grant("node:a", "host:printer")
	setHost := func(r *controlv1.SetHostRequest) error {
		_, err := d.admin.SetHost(t.Context(), r)
		return err
	}
	same := &controlv1.SetHostRequest{Name: "printer", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw/a"}, Addresses: []string{"192.0.2.9/24"}, Roles: []string{"router"}}
	before := d.ctl.store.Model().Version
	must(t, setHost(same))
	set := func(r *controlv1.SetAttachmentRequest) error {
		_, err := d.admin.SetAttachment(t.Context(), r)
		return err
	}
	must(t, set(&controlv1.SetAttachmentRequest{Name: "gw/a", Nic: "eth1", Vlan: 10}))
	if after := d.ctl.store.Model().Version; after != before {
		t.Errorf("what changes nothing was written, at version %d after %d", after, before)
	}
	must(t, setHost(&controlv1.SetHostRequest{Name: "printer", Mac: "02:00:5e:00:53:02", Attachments: []string{"gw/b", "gw/a"}}))
	must(t, set(&controlv1.SetAttachmentRequest{Name: "gw/a", Nic: "eth2", Native: "tagged", Vlan: 12}))
	eventually(t, "those whom it concerns are told", func() bool {
		x := a.contents().Machines[id]
		var port *controlv1.Attachment
		for _, p := range gw.contents().Attachments {
			if p.GetPort() == "a" {
				port = p
			}
		}
		return len(x.GetMac()) == 6 && x.GetMac()[5] == 2 && len(x.GetAddresses())+len(x.GetRoles()) == 0 && len(x.GetAttachments()) == 2 &&
			port.GetNic() == "eth2" && port.GetVlan() == 12 && port.GetNative() == "tagged" && len(a.contents().Reaches) == 1
	})
	wantError(t, setHost(&controlv1.SetHostRequest{Name: "x", Mac: "02:00:5e:00:53:02"}), connect.CodeNotFound, "`etherloom host list`")
	wantError(t, setHost(&controlv1.SetHostRequest{Name: "printer", Mac: "02:00:5e:00:53:02"}), connect.CodeInvalidArgument, "behind no attachment")
	wantError(t, setHost(&controlv1.SetHostRequest{Name: "printer"}), connect.CodeInvalidArgument, "six bytes")
	wantError(t, set(&controlv1.SetAttachmentRequest{Name: "gw/x", Nic: "eth1"}), connect.CodeNotFound, "`etherloom attachment list`")
	wantError(t, set(&controlv1.SetAttachmentRequest{Name: "gw/a", Nic: "eth1", Vlan: 11}), connect.CodeInvalidArgument, "taken by attachment gw/b")
	wantError(t, set(&controlv1.SetAttachmentRequest{Name: "gw/a"}), connect.CodeInvalidArgument, "with --nic")
}

// TestMachinesThatAreNamed: what something still names is not removed; the error says by what, and what to do.
func TestMachinesThatAreNamed(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	d.gateway("gw2")
	d.join("a", d.token())
	for _, r := range []*controlv1.AddAttachmentRequest{
		{Name: "gw1/site", Segment: "lan", Nic: "eth1"}, {Name: "gw2/site", With: "gw1/site", Nic: "eth1"}, {Name: "gw1/other", Segment: "lan", Nic: "eth2"},
	} {
		_, err := d.attach(r)
		must(t, err)
	}
	_, err := d.host(&controlv1.AddHostRequest{Name: "printer", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw1/site"}})
	must(t, err)
	remove := func(name string) error {
		_, err := d.admin.SetNodeStatus(t.Context(), &controlv1.SetNodeStatusRequest{Name: name, Status: controlv1.NodeStatus_NODE_STATUS_REMOVED})
		return err
	}
	refused := func(err error, text string) {
		t.Helper()
		wantError(t, err, connect.CodeFailedPrecondition, text)
	}
	_, err = d.admin.RemoveSegment(t.Context(), &controlv1.RemoveSegmentRequest{Name: "lan"})
	refused(err, `segment "lan" still has attachment gw1/site, gw1/other`)

	id := d.grant("node:a", "host:printer")
	refused(d.removeHost("printer"), `host "printer" is still named by grant 1 (node:a to host:printer): remove it first with `+"`etherloom grant remove 1`")
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	group := func(members ...string) {
		t.Helper()
		_, err := d.admin.SetGroup(t.Context(), &controlv1.SetGroupRequest{Name: "g", Members: members})
		must(t, err)
	}
	group("host:printer", "attachment:gw1/other")
	refused(d.removeHost("printer"), "is still in group g")
	_, err = d.detach("gw1/other")
	refused(err, "attachment gw1/other is still in group g")
	group()

	// The last gateway of what something names is not removed, but it can be locked; another one can.
	must(t, remove("gw2"))
	_, err = d.detach("gw1/site")
	refused(err, "attachment gw1/site is still the place of host printer: remove it first with `etherloom host remove printer`")
	refused(remove("gw1"), `node "gw1" is the only gateway of an attachment: gw1/site is still the place of host printer`)
	d.setStatus("gw1", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	refused(remove("gw1"), "`etherloom node lock gw1`")

	// While a change waits to be confirmed that took the host from the policy, it stays: it may be put back.
	d.grant("node:a", "host:printer")
	policy, err := d.admin.GetPolicy(t.Context(), &controlv1.GetPolicyRequest{})
	must(t, err)
	_, err = d.admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{Document: fmt.Sprintf("version: %d\ngrants: []\n", policy.GetVersion()), Confirm: durationpb.New(time.Minute)})
	must(t, err)
	refused(d.removeHost("printer"), "`etherloom policy confirm`")
	_, err = d.admin.ConfirmPolicy(t.Context(), &controlv1.ConfirmPolicyRequest{})
	must(t, err)
	_, err = d.admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{AnyVersion: true, Document: "grants: []\ntests: [{from: node:a, to: host:printer, what: icmp, expect: deny}]\n"})
	must(t, err)
	refused(d.removeHost("printer"), "is still named by test 1 of the policy")
	_, err = d.admin.ApplyPolicy(t.Context(), &controlv1.ApplyPolicyRequest{AnyVersion: true, Document: "grants: []\n"})
	must(t, err)

	must(t, d.removeHost("printer"))
	must(t, remove("gw1")) // its ports go with it
	list, err := d.admin.ListAttachments(t.Context(), &controlv1.ListAttachmentsRequest{})
	must(t, err)
	if len(list.GetAttachments()) != 0 {
		t.Errorf("attachments of removed nodes: %v", list)
	}
	_, err = d.admin.RemoveSegment(t.Context(), &controlv1.RemoveSegmentRequest{Name: "lan"})
	must(t, err)
	must(t, auditWhole(t, d))
}

// TestMachinesAreTold: gateways and those who reach machines are told of them as it happens, over their streams, and may signal.
func TestMachinesAreTold(t *testing.T) {
	d := newDesk(t)
	gw1, gw2, a, b := d.gateway("gw1").sync(), d.gateway("gw2").sync(), d.join("a", d.token()).sync(), d.join("b", d.token()).sync()
	_, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	eventually(t, "gateway 1 is told its port", func() bool { return len(gw1.contents().Attachments) == 1 })
	h, err := d.host(&controlv1.AddHostRequest{Name: "printer", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw1/site"}, Addresses: []string{"192.0.2.9/24"}})
	must(t, err)
	id := identity.ID(h.GetId())
	d.grant("node:a", "host:printer")
	eventually(t, "a is told of the host and its gateway", func() bool {
		c := a.contents()
		return c.Machines[id].GetName() == "printer" && c.Peers[gw1.id] != nil && len(c.Reaches) == 1
	})
	eventually(t, "the gateway is told of a", func() bool { return gw1.contents().Peers[a.id] != nil && gw1.contents().Machines[id] != nil })
	if c := b.contents(); len(c.Machines)+len(c.Peers)+len(c.Segments) != 0 {
		t.Errorf("b, whom no grant concerns, is told %v", c)
	}
	a.signal(gw1, []byte("hello"))
	eventually(t, "the signal arrives", func() bool {
		select {
		case msg := <-gw1.seen:
			return msg.GetSignal().GetPeer() == uint32(a.id)
		default:
			return false
		}
	})
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/site", With: "gw1/site", Nic: "eth7", Vlan: 10})
	must(t, err)
	eventually(t, "the further gateway is told, and of it", func() bool {
		return slices.Equal(a.contents().Machines[id].GetGateways(), []uint32{uint32(gw1.id), uint32(gw2.id)}) && a.contents().Peers[gw2.id] != nil &&
			gw2.contents().Peers[a.id] != nil && gw2.contents().Attachments[identity.ID(4+1)].GetNic() == "eth7"
	})
	d.setStatus("gw1", controlv1.NodeStatus_NODE_STATUS_REMOVED, "")
	eventually(t, "a removed gateway speaks for nobody, and is revoked", func() bool {
		c := a.contents()
		return slices.Equal(c.Machines[id].GetGateways(), []uint32{uint32(gw2.id)}) && c.Peers[gw1.id] == nil && c.Revocations[gw1.id] != nil
	})
	if _, err := d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without the grant nothing is left", func() bool {
		c := a.contents()
		return len(c.Machines)+len(c.Peers)+len(c.Segments)+len(c.Revocations) == 0
	})
	must(t, d.removeHost("printer"))
	eventually(t, "the gateway forgets the host", func() bool { return gw2.contents().Machines[id] == nil && len(gw2.contents().Machines) == 1 })
}

// TestAddressesAndHosts: a node is never given what a host has.
func TestAddressesAndHosts(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	a := d.join("a", d.token()).sync()
	_, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw1/site", Segment: "lan", Nic: "eth1"})
	must(t, err)
	seg := d.ctl.store.Model().SegmentNamed("lan")
	first := seg.IPv4.Addr().Next()
	h, err := d.host(&controlv1.AddHostRequest{Name: "printer", Mac: "02:00:5e:00:53:01", Attachments: []string{"gw1/site"}, Addresses: []string{first.String()}})
	must(t, err)
	if got, want := h.GetAddresses()[0], netip.PrefixFrom(first, seg.IPv4.Bits()).String(); got != want {
		t.Errorf("the host has %s, want %s", got, want)
	}
	d.grant("node:a", "segment:lan")
	want := first.Next().String()
	eventually(t, "a has the address after the host's", func() bool {
		s := a.contents().Self.GetStations()
		return len(s) == 1 && strings.HasPrefix(s[0].GetAddresses()[0], want+"/")
	})
	_, err = d.admin.SetNodeAddress(t.Context(), &controlv1.SetNodeAddressRequest{
		Name: "a", Segment: "lan", Mode: controlv1.AddressMode_ADDRESS_MODE_STATIC, Addresses: []string{first.String() + "/20"},
	})
	wantError(t, err, connect.CodeFailedPrecondition, `by host "printer"`)
}

package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
)

// declare declares ports of a machine's, and returns what was refused, in words.
func (m *machine) declare(list ...*controlv1.DeclaredAttachment) (string, error) {
	r, err := m.api.DeclareAttachments(m.d.t.Context(), &controlv1.DeclareAttachmentsRequest{Attachments: list})
	var out []string
	for _, result := range r.GetResults() {
		if result.GetError() != "" {
			out = append(out, result.GetPort()+": "+result.GetError())
		}
	}
	return strings.Join(out, "; "), err
}

// ports lists all ports, in words.
func (d *desk) ports() string {
	d.t.Helper()
	list, err := d.admin.ListAttachments(d.t.Context(), &controlv1.ListAttachmentsRequest{})
	must(d.t, err)
	var out []string
	for _, a := range list.GetAttachments() {
		for _, p := range a.GetPorts() {
			out = append(out, fmt.Sprintf("%d %s %s %s %d by %s", a.GetId(), a.GetSegment(), p.GetName(), p.GetNic()+p.GetBridge(), p.GetVlan(), p.GetOrigin()))
		}
	}
	return strings.Join(out, ", ")
}

// TestDeclare: a gateway's own ports are as it declares them, and nothing else of the network is changed by that.
func TestDeclare(t *testing.T) {
	d := newDesk(t)
	gw, other := d.gateway("gw"), d.gateway("other")
	member := d.join("member", d.token())
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw/hand", Segment: "lan", Nic: "eth9", Vlan: 9})
	must(t, err)
	lan := func() *controlv1.DeclaredAttachment {
		return &controlv1.DeclaredAttachment{Port: "lan", Segment: "lan", Nic: "eth1", Vlan: 10}
	}
	with := func(edit func(*controlv1.DeclaredAttachment)) *controlv1.DeclaredAttachment {
		a := lan()
		edit(a)
		return a
	}
	const hand = "4 lan gw/hand eth9 9 by administrator"
	for _, c := range []struct {
		name  string
		who   *machine
		list  []*controlv1.DeclaredAttachment
		wrong string // of what is refused
		want  string // what is there then
	}{
		{"one", gw, []*controlv1.DeclaredAttachment{lan()}, "", hand + ", 5 lan gw/lan eth1 10 by node"},
		{"the same", gw, []*controlv1.DeclaredAttachment{lan()}, "", hand + ", 5 lan gw/lan eth1 10 by node"},
		{"another VLAN", gw, []*controlv1.DeclaredAttachment{with(func(a *controlv1.DeclaredAttachment) { a.Vlan = 11 })}, "", hand + ", 5 lan gw/lan eth1 11 by node"},
		{
			"another segment is another attachment", gw,
			[]*controlv1.DeclaredAttachment{with(func(a *controlv1.DeclaredAttachment) { a.Segment = "dmz" })},
			"",
			hand + ", 6 dmz gw/lan eth1 10 by node",
		},
		{
			"of another gateway, under the same name", other,
			[]*controlv1.DeclaredAttachment{lan()},
			"",
			hand + ", 6 dmz gw/lan eth1 10 by node, 7 lan other/lan eth1 10 by node",
		},
		{"that gateway's none", other, nil, "", hand + ", 6 dmz gw/lan eth1 10 by node"},
		{"a member", member, []*controlv1.DeclaredAttachment{lan()}, "has not the role gateway", hand + ", 6 dmz gw/lan eth1 10 by node"},
		{
			"no such segment", gw,
			[]*controlv1.DeclaredAttachment{lan(), with(func(a *controlv1.DeclaredAttachment) { a.Port, a.Segment = "x", "nowhere" })},
			`x: no segment is called "nowhere"`,
			hand + ", 8 lan gw/lan eth1 10 by node",
		},
		{"an administrator's", gw, []*controlv1.DeclaredAttachment{with(func(a *controlv1.DeclaredAttachment) { a.Port = "hand" })}, "gw/hand, which an administrator has made otherwise", hand},
		{"an administrator's, as it is", gw, []*controlv1.DeclaredAttachment{{Port: "hand", Segment: "lan", Nic: "eth9", Vlan: 9}}, "", hand},
		{"frames of an administrator's", gw, []*controlv1.DeclaredAttachment{{Port: "lan", Segment: "dmz", Nic: "eth9", Vlan: 9}}, "taken by attachment gw/hand already", hand},
		{
			"frames of its own", gw,
			[]*controlv1.DeclaredAttachment{lan(), with(func(a *controlv1.DeclaredAttachment) { a.Port = "two" })},
			"two: frames of VLAN 10 of NIC eth1 are taken by attachment gw/lan already",
			hand + ", 9 lan gw/lan eth1 10 by node",
		},
		{"twice", gw, []*controlv1.DeclaredAttachment{lan(), lan()}, "is declared twice", hand + ", 9 lan gw/lan eth1 10 by node"},
		{"two", gw, []*controlv1.DeclaredAttachment{lan(), {Port: "br", Segment: "dmz", Bridge: "br0"}}, "", hand + ", 9 lan gw/lan eth1 10 by node, 10 dmz gw/br br0 0 by node"},
		{
			"a bridge's host", gw,
			[]*controlv1.DeclaredAttachment{lan(), {Port: "br", Segment: "dmz", Bridge: "br0", MoveHost: true}},
			"a bridge is joined",
			hand + ", 9 lan gw/lan eth1 10 by node, 10 dmz gw/br br0 0 by node",
		},
		{"none", gw, nil, "", hand},
	} {
		d.clock.advance(10 * time.Minute)
		wrong, err := c.who.declare(c.list...)
		must(t, err)
		if c.wrong == "" && wrong != "" || !strings.Contains(wrong, c.wrong) {
			t.Errorf("%s: refused is %q, want %q", c.name, wrong, c.wrong)
		}
		if got := d.ports(); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	_, err = gw.declare(make([]*controlv1.DeclaredAttachment, 33)...)
	wantError(t, err, connect.CodeInvalidArgument, "33 attachments, expected at most 32")
	entries, _ := auditEntries(t, d)
	byNode := 0
	for _, e := range entries {
		if strings.HasPrefix(e.GetAction(), "attachment.") && e.GetObject() != "attachment/4" {
			byNode++
			if !strings.Contains(e.GetActor(), "node") {
				t.Errorf("entry %s %s is by %q", e.GetAction(), e.GetObject(), e.GetActor())
			}
		}
	}
	if byNode < 8 {
		t.Errorf("the audit log has %d entries", byNode)
	}
	must(t, auditWhole(t, d))
}

// TestDeclareGivesNothing: what grants and hosts name stays as it is, and a gateway cannot put itself into their place.
func TestDeclareGivesNothing(t *testing.T) {
	d := newDesk(t)
	gw, other := d.gateway("gw"), d.gateway("other")
	lan := &controlv1.DeclaredAttachment{Port: "lan", Segment: "lan", Nic: "eth1", Vlan: 10}
	_, err := gw.declare(lan)
	must(t, err)
	gw.sync()
	eventually(t, "the gateway is told of its port", func() bool { c := gw.contents(); return c != nil && len(c.Attachments) == 1 })
	c := gw.contents()
	if len(c.Grants)+len(c.Reaches) != 0 || len(c.Machines) != 1 {
		t.Errorf("a declared attachment has %d grants, %d reaches, %d machines", len(c.Grants), len(c.Reaches), len(c.Machines))
	}
	for _, a := range c.Attachments {
		if !a.GetDeclared() {
			t.Errorf("the gateway is told %v", a)
		}
	}
	d.grant("attachment:gw/lan", "segment:lan")
	wrong, err := gw.declare()
	must(t, err)
	if !strings.Contains(wrong, "lan: it is not declared any more, but stays: attachment gw/lan is still named by grant") && !strings.Contains(wrong, "is still named by grant") {
		t.Errorf("refused is %q", wrong)
	}
	moved := &controlv1.DeclaredAttachment{Port: "lan", Segment: "dmz", Nic: "eth1", Vlan: 10}
	_, err = d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	if wrong, err = gw.declare(moved); err != nil || !strings.Contains(wrong, "is still named by grant") {
		t.Errorf("refused is %q, %v", wrong, err)
	}
	if wrong, err = other.declare(&controlv1.DeclaredAttachment{Port: "lan", Segment: "lan", Nic: "eth1", Vlan: 10}); err != nil || wrong != "" {
		t.Errorf("refused is %q, %v", wrong, err)
	}
	if got := d.ports(); got != "3 lan gw/lan eth1 10 by node, 4 lan other/lan eth1 10 by node" {
		t.Errorf("there are %s", got)
	}
	// An administrator takes it over by setting it.
	_, err = d.admin.SetAttachment(t.Context(), &controlv1.SetAttachmentRequest{Name: "other/lan", Nic: "eth1", Vlan: 10})
	must(t, err)
	if wrong, err = other.declare(); err != nil || wrong != "" {
		t.Errorf("refused is %q, %v", wrong, err)
	}
	if got := d.ports(); got != "3 lan gw/lan eth1 10 by node, 4 lan other/lan eth1 10 by administrator" {
		t.Errorf("there are %s", got)
	}
}

// TestDeclareForbidden: where administrators alone attach VLANs, a gateway may still withdraw what it had.
func TestDeclareForbidden(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.NoDeclare = true })
	gw := d.gateway("gw")
	wrong, err := gw.declare(&controlv1.DeclaredAttachment{Port: "lan", Segment: "lan", Nic: "eth1"})
	must(t, err)
	if !strings.Contains(wrong, "only administrators attach VLANs: ask for `etherloom attachment add gw/lan`") || d.ports() != "" {
		t.Errorf("refused is %q; there are %s", wrong, d.ports())
	}
}

// TestMoveRequests: each request to move a host has a number of its own, until one is confirmed.
func TestMoveRequests(t *testing.T) {
	d := newDesk(t)
	gw := d.gateway("gw")
	gw.sync()
	told := func() *controlv1.Attachment {
		for _, a := range gw.contents().Attachments {
			return a
		}
		return nil
	}
	_, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw/lan", Segment: "lan", Nic: "eth0", Vlan: 10})
	must(t, err)
	_, err = d.admin.ConfirmAttachment(t.Context(), &controlv1.ConfirmAttachmentRequest{Name: "gw/lan"})
	wantError(t, err, connect.CodeFailedPrecondition, "moves no host")
	_, err = d.admin.ConfirmAttachment(t.Context(), &controlv1.ConfirmAttachmentRequest{Name: "gw/x"})
	wantError(t, err, connect.CodeNotFound, "`etherloom attachment list`")
	var asked uint64
	set := func(nic string, confirm *durationpb.Duration, wantNew bool, seconds time.Duration) {
		t.Helper()
		d.clock.advance(time.Second)
		_, err := d.admin.SetAttachment(t.Context(), &controlv1.SetAttachmentRequest{Name: "gw/lan", Nic: nic, Vlan: 10, MoveHost: true, Confirm: confirm})
		must(t, err)
		eventually(t, "the gateway is told", func() bool {
			a := told()
			return a.GetNic() == nic && a.GetMoveHost() && a.GetConfirm().AsDuration() == seconds
		})
		if is := told().GetAsked() != asked; is != wantNew {
			t.Errorf("asked is %d, was %d", told().GetAsked(), asked)
		}
		asked = told().GetAsked()
	}
	set("eth0", nil, true, time.Minute)
	set("eth0", durationpb.New(5*time.Second), true, 5*time.Second)
	r, err := d.admin.ConfirmAttachment(t.Context(), &controlv1.ConfirmAttachmentRequest{Name: "gw/lan"})
	must(t, err)
	if p := r.GetAttachment().GetPorts()[0]; !p.GetConfirmed() || !p.GetMoveHost() {
		t.Errorf("confirmed is %v", p)
	}
	eventually(t, "the gateway is told of it", func() bool { return told().GetConfirmed() })
	set("eth0", durationpb.New(0), false, 0)
	set("eth1", nil, true, time.Minute)
	if told().GetConfirmed() {
		t.Error("another NIC is confirmed, too")
	}
	for _, wrong := range []*controlv1.AddAttachmentRequest{
		{Name: "gw/two", Segment: "lan", Nic: "eth2", MoveHost: true, Confirm: durationpb.New(-time.Second)},
		{Name: "gw/two", Segment: "lan", Nic: "eth2", MoveHost: true, Confirm: durationpb.New(time.Millisecond)},
		{Name: "gw/two", Segment: "lan", Nic: "eth2", MoveHost: true, Confirm: durationpb.New(25 * time.Hour)},
	} {
		_, err := d.attach(wrong)
		wantError(t, err, connect.CodeInvalidArgument, "a move is to be confirmed within")
	}
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw/two", Segment: "lan", Bridge: "br0", MoveHost: true})
	wantError(t, err, connect.CodeInvalidArgument, "its host stays where it is")
}

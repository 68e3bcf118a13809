package server

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
)

// TestLACP: it is the attachment's, at all its gateways; only where they carry the VLAN at once, each by a NIC; and saying nothing keeps it.
func TestLACP(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	d.gateway("gw2")
	const all = "all-active"
	told := func(want bool) {
		t.Helper()
		for _, name := range []string{"gw1", "gw2"} {
			m := d.ctl.store.Model()
			if outlets := m.OutletsOf(m.NodeNamed(name).ID); outlets[0].Proto().GetLacp() != want {
				t.Errorf("%s is told %v, want %v", name, !want, want)
			}
		}
	}
	set := func(r *controlv1.SetAttachmentRequest, want bool) {
		t.Helper()
		r.Name = "gw2/a"
		out, err := d.admin.SetAttachment(t.Context(), r)
		must(t, err)
		if out.GetAttachment().GetLacp() != want {
			t.Errorf("after %v it is %v", r, !want)
		}
		told(want)
	}
	a, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw1/a", Segment: "lan", Nic: "eth1", Redundancy: all, Lacp: "on"})
	must(t, err)
	if !a.GetLacp() {
		t.Error("it is off")
	}
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/a", With: "gw1/a", Nic: "eth1"})
	must(t, err)
	told(true)
	set(&controlv1.SetAttachmentRequest{Nic: "eth2"}, true)
	set(&controlv1.SetAttachmentRequest{Lacp: "off"}, false)
	if p := d.ctl.store.Model().Attachments; len(p) != 1 {
		t.Errorf("%d attachments", len(p))
	}
	set(&controlv1.SetAttachmentRequest{Nic: "eth2"}, false)
	set(&controlv1.SetAttachmentRequest{Redundancy: "single-active"}, false)
	set(&controlv1.SetAttachmentRequest{Redundancy: all, Lacp: "on"}, true)

	refused := func(err error, text string) {
		t.Helper()
		wantError(t, err, connect.CodeInvalidArgument, text)
		told(true)
	}
	for _, c := range []struct {
		r    *controlv1.SetAttachmentRequest
		text string
	}{
		{&controlv1.SetAttachmentRequest{Redundancy: "single-active"}, "--redundancy all-active, too, or --lacp off"},
		{&controlv1.SetAttachmentRequest{Lacp: "maybe"}, `found "maybe"`},
		{&controlv1.SetAttachmentRequest{Bridge: "br0"}, "is on bridge br0, which passes no LACPDUs on"},
	} {
		c.r.Name = "gw2/a"
		_, err := d.admin.SetAttachment(t.Context(), c.r)
		refused(err, c.text)
	}
	_, err = d.detach("gw2/a")
	must(t, err)
	for _, c := range []struct {
		r    *controlv1.AddAttachmentRequest
		text string
	}{
		{&controlv1.AddAttachmentRequest{With: "gw1/a", Nic: "eth1", Lacp: "off"}, "speak LACP alike"},
		{&controlv1.AddAttachmentRequest{With: "gw1/a", Nic: "eth1", Lacp: "x"}, "speak LACP alike"},
		{&controlv1.AddAttachmentRequest{With: "gw1/a", Bridge: "br0"}, "attach its NIC itself"},
		{&controlv1.AddAttachmentRequest{Segment: "lan", Nic: "eth2", Lacp: "on"}, "--redundancy all-active, too"},
		{&controlv1.AddAttachmentRequest{Segment: "lan", Nic: "eth2", Lacp: "yes"}, `found "yes"`},
	} {
		c.r.Name = "gw2/a"
		_, err := d.attach(c.r)
		wantError(t, err, connect.CodeInvalidArgument, c.text)
	}
}

// TestDeclaredLACP: a gateway that declares a bridge in the place of a NIC is refused where an administrator has set LACP.
func TestDeclaredLACP(t *testing.T) {
	d := newDesk(t)
	gw := d.gateway("gw1")
	declare := func(w *controlv1.DeclaredAttachment) string {
		t.Helper()
		w.Port, w.Segment = "a", "lan"
		text, err := gw.declare(w)
		must(t, err)
		return text
	}
	if text := declare(&controlv1.DeclaredAttachment{Nic: "eth1"}); text != "" {
		t.Fatal(text)
	}
	_, err := d.admin.SetAttachment(t.Context(), &controlv1.SetAttachmentRequest{Name: "gw1/a", Redundancy: "all-active", Lacp: "on"})
	must(t, err)
	if text := declare(&controlv1.DeclaredAttachment{Nic: "eth2"}); text != "" {
		t.Error(text)
	}
	if text := declare(&controlv1.DeclaredAttachment{Bridge: "br0"}); !strings.Contains(text, "passes no LACPDUs on") {
		t.Errorf("of a bridge it says %q", text)
	}
}

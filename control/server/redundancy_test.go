package server

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
)

// TestRedundancy: it is the attachment's, whichever port it is said of; a further port takes it over, and saying nothing keeps it.
func TestRedundancy(t *testing.T) {
	d := newDesk(t)
	d.gateway("gw1")
	d.gateway("gw2")
	add := func(r *controlv1.AddAttachmentRequest, want string) {
		t.Helper()
		a, err := d.attach(r)
		must(t, err)
		if a.GetRedundancy() != want {
			t.Errorf("%s is %q, want %q", r.GetName(), a.GetRedundancy(), want)
		}
	}
	set := func(asked, want string) {
		t.Helper()
		r, err := d.admin.SetAttachment(t.Context(), &controlv1.SetAttachmentRequest{Name: "gw2/a", Nic: "eth1", Redundancy: asked})
		must(t, err)
		if got := r.GetAttachment().GetRedundancy(); got != want {
			t.Errorf("set to %q it is %q, want %q", asked, got, want)
		}
		for _, name := range []string{"gw1", "gw2"} {
			outlets := d.ctl.store.Model().OutletsOf(d.ctl.store.Model().NodeNamed(name).ID)
			told := map[string]string{"single-active": ""}[want]
			if want == "all-active" {
				told = want
			}
			if got := outlets[0].Proto().GetRedundancy(); got != told {
				t.Errorf("%s is told %q, want %q", name, got, told)
			}
		}
	}
	add(&controlv1.AddAttachmentRequest{Name: "gw1/plain", Segment: "lan", Nic: "eth9"}, "single-active")
	_, err := d.detach("gw1/plain")
	must(t, err)
	add(&controlv1.AddAttachmentRequest{Name: "gw1/a", Segment: "lan", Nic: "eth1", Redundancy: "all-active"}, "all-active")
	add(&controlv1.AddAttachmentRequest{Name: "gw2/a", With: "gw1/a", Nic: "eth1"}, "all-active")
	set("", "all-active")
	set("single-active", "single-active")
	set("", "single-active")
	set("all-active", "all-active")

	for _, c := range []struct {
		r    *controlv1.AddAttachmentRequest
		text string
	}{
		{&controlv1.AddAttachmentRequest{Name: "gw1/b", Segment: "lan", Nic: "eth2", Redundancy: "both"}, `all do; for one link aggregation`},
		{&controlv1.AddAttachmentRequest{Name: "gw2/b", With: "gw1/a", Nic: "eth2", Redundancy: "both"}, `all do; for one link aggregation`},
	} {
		_, err := d.attach(c.r)
		wantError(t, err, connect.CodeInvalidArgument, c.text)
	}
	_, err = d.detach("gw2/a")
	must(t, err)
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/a", With: "gw1/a", Nic: "eth1", Redundancy: "single-active"})
	wantError(t, err, connect.CodeInvalidArgument, "share its redundancy, which is all-active")
	_, err = d.admin.SetAttachment(t.Context(), &controlv1.SetAttachmentRequest{Name: "gw1/a", Nic: "eth1", Redundancy: "x"})
	wantError(t, err, connect.CodeInvalidArgument, `found "x"`)
}

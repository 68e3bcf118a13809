package server

import (
	"testing"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// TestPrivateVLAN: where in a private VLAN an attachment is, is of all its ports, stays when a port is set anew, and is told to those who
// judge frames of its machines.
func TestPrivateVLAN(t *testing.T) {
	d := newDesk(t)
	gw, a := d.gateway("gw").sync(), d.join("a", d.token()).sync()
	d.gateway("gw2")
	isolated, shops := &controlv1.SecondaryVLAN{Isolated: true}, &controlv1.SecondaryVLAN{Community: "shops"}
	site, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw/site", Segment: "lan", Nic: "eth1", Vlan: 10, Secondary: isolated})
	must(t, err)
	if !site.GetSecondary().GetIsolated() {
		t.Errorf("attachment is %v", site)
	}
	id := identity.ID(site.GetId())
	d.grant("attachment:gw/site", "segment:lan")
	d.grant("node:a", "segment:lan")
	set := func(r *controlv1.SetAttachmentRequest) (*controlv1.AttachmentRule, error) {
		out, err := d.admin.SetAttachment(t.Context(), r)
		return out.GetAttachment(), err
	}
	told := func(what string, isolated bool, community string) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, m := range []*machine{gw, a} {
				if s := m.contents().Machines[id].GetSecondary(); s.GetIsolated() != isolated || s.GetCommunity() != community {
					return false
				}
			}
			return true
		})
	}
	told("isolated", true, "")
	site, err = set(&controlv1.SetAttachmentRequest{Name: "gw/site", Nic: "eth1", Vlan: 12})
	must(t, err)
	if !site.GetSecondary().GetIsolated() || site.GetPorts()[0].GetVlan() != 12 {
		t.Errorf("with another VLAN it is %v", site)
	}
	site, err = set(&controlv1.SetAttachmentRequest{Name: "gw/site", Secondary: shops})
	must(t, err)
	if site.GetSecondary().GetCommunity() != "shops" || site.GetPorts()[0].GetVlan() != 12 || site.GetPorts()[0].GetNic() != "eth1" {
		t.Errorf("of a community it is %v", site)
	}
	told("of a community", false, "shops")
	_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/site", With: "gw/site", Nic: "eth1", Secondary: isolated})
	wantError(t, err, connect.CodeInvalidArgument, "`etherloom attachment set gw/site`")
	both, err := d.attach(&controlv1.AddAttachmentRequest{Name: "gw2/site", With: "gw/site", Nic: "eth1", Secondary: shops})
	must(t, err)
	if both.GetSecondary().GetCommunity() != "shops" || len(both.GetPorts()) != 2 {
		t.Errorf("with a further port it is %v", both)
	}
	for _, s := range []*controlv1.SecondaryVLAN{{Isolated: true, Community: "x"}, {Community: "X"}} {
		_, err = set(&controlv1.SetAttachmentRequest{Name: "gw/site", Secondary: s})
		wantError(t, err, connect.CodeInvalidArgument, "ommunity")
		_, err = d.attach(&controlv1.AddAttachmentRequest{Name: "gw/other", Segment: "lan", Nic: "eth2", Secondary: s})
		wantError(t, err, connect.CodeInvalidArgument, "ommunity")
	}
	before := d.ctl.store.Model().Version
	_, err = set(&controlv1.SetAttachmentRequest{Name: "gw/site", Secondary: shops})
	must(t, err)
	if after := d.ctl.store.Model().Version; after != before {
		t.Error("what changes nothing was written")
	}
	_, err = set(&controlv1.SetAttachmentRequest{Name: "gw/site", Secondary: &controlv1.SecondaryVLAN{}})
	must(t, err)
	told("promiscuous", false, "")
}

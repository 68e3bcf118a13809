package main

import (
	"bytes"
	"strings"
	"testing"

	v1 "github.com/etherloom/etherloom/control/controlv1"
)

// TestAttachmentRows: a row for each port, with what of its link is the segment's.
func TestAttachmentRows(t *testing.T) {
	active, locked := v1.NodeStatus_NODE_STATUS_ACTIVE, v1.NodeStatus_NODE_STATUS_LOCKED
	rows := attachmentRows([]*v1.AttachmentRule{
		{Id: 4, Segment: "lan", Hosts: []string{"printer", "camera"}, Ports: []*v1.AttachmentPort{
			{Name: "gw1/site", Nic: "eth1", Vlan: 10, Status: active, Origin: "administrator"},
			{Name: "gw2/site", Bridge: "br0", Vlan: 10, Native: "untagged", Priority: "nonzero", Status: locked, Origin: "node"},
		}},
		{Id: 5, Segment: "dmz", Redundancy: "all-active", Lacp: true, Secondary: &v1.SecondaryVLAN{Isolated: true}, Ports: []*v1.AttachmentPort{{Name: "gw1/x", Nic: "eth2", Priority: "always", Status: active, Origin: "administrator"}}},
		{Id: 6, Segment: "dmz", Secondary: &v1.SecondaryVLAN{Community: "shops"}, Ports: []*v1.AttachmentPort{{Name: "gw1/y", Nic: "eth2", Vlan: 30, Service: true, Native: "tagged", Status: active, Origin: "node"}}},
	})
	want := `gw1/site|4|lan|eth1|VLAN 10|administrator|active|-|printer,camera
gw2/site|4|lan|bridge br0|VLAN 10, native untagged, priority tag if not 0|node|locked|-|printer,camera
gw1/x|5|dmz|eth2|untagged, priority tag always, all-active by LACP|administrator|active|isolated|-
gw1/y|6|dmz|eth2|service VLAN 30, native tagged|node|active|community shops|-`
	var got []string
	for _, r := range rows {
		got = append(got, strings.Join(r, "|"))
	}
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("rows are\n%s\nwant\n%s", text, want)
	}
}

func TestHostRows(t *testing.T) {
	rows := hostRows([]*v1.HostRule{
		{Id: 7, Name: "printer", Segment: "lan", Mac: "02:00:5e:00:53:01", Addresses: []string{"192.0.2.9/24"}, Attachments: []string{"gw1/site", "gw1/lab"}, Roles: []string{"router"}, Gateways: []string{"gw1"}},
		{Id: 8, Name: "camera", Segment: "lan", Mac: "02:00:5e:00:53:02"},
	})
	for i, want := range []string{
		"printer|7|lan|02:00:5e:00:53:01|192.0.2.9/24|router|gw1/site,gw1/lab|gw1", "camera|8|lan|02:00:5e:00:53:02|any|-|-|-",
	} {
		if got := strings.Join(rows[i], "|"); got != want {
			t.Errorf("row %d is %s", i, got)
		}
	}
}

func TestRemovedPort(t *testing.T) {
	if got := removedPort("gw1/a", nil); got != "attachment gw1/a is gone" {
		t.Error(got)
	}
	left := &v1.AttachmentRule{Ports: []*v1.AttachmentPort{{Name: "gw2/a"}, {Name: "gw3/b"}}}
	if got := removedPort("gw1/a", left); got != "port gw1/a is gone; the attachment still has gw2/a, gw3/b" {
		t.Error(got)
	}
}

// TestMachineCommands: the flags that docs/operations.md names exist, and a command says what it lacks.
func TestMachineCommands(t *testing.T) {
	for line, flags := range map[string]string{
		"attachment add":  "segment nic bridge vlan native service priority redundancy lacp with isolated community promiscuous move-host confirm state-dir",
		"attachment set":  "nic bridge vlan native service priority redundancy lacp isolated community promiscuous move-host confirm",
		"attachment list": "state-dir", "attachment remove": "state-dir", "attachment confirm": "state-dir", "attachment move": "state-dir confirm",
		"host add": "mac attachment address role", "host set": "mac attachment address role", "host list": "", "host remove": "",
	} {
		cmd, rest, err := root().Find(strings.Fields(line))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: %v, %v", line, rest, err)
		}
		for _, name := range append(strings.Fields(flags), "admin", "json") {
			if cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", line, name)
			}
		}
	}
	t.Setenv("ETHERLOOM_ADMIN", "/nonexistent/env.json")
	for _, c := range []struct{ line, want string }{
		{"attachment add", "accepts 1 arg(s)"},
		{"host remove", "accepts 1 arg(s)"},
		{"attachment set gw1/a --isolated --community x", "none of the others can be"},
		{"attachment add site --segment lan --nic eth1 --lacp on", "--redundancy and --lacp are an administrator's"},
		{"attachment add site --segment lan --nic eth1 --redundancy all-active", "--redundancy and --lacp are an administrator's"},
		{"attachment add gw-a --segment office --nic eth1 --state-dir /nonexistent", "names NODE/PORT, such as gw-a/site if gw-a is a node"},
		{"attachment set gw1/a --preference 5", "say the port's --nic or --bridge, too"},
		{"host add mb --attachment gw1/a", "say which MAC mb has with --mac, such as"},
		{"host set mb --address 192.0.2.9", "02:00:5e:00:53:01, and all else that is to stay, for it is said anew"},
		{"host set mb --mac 02:00:5e:00:53:01", "say behind which attachment it is with --attachment NODE/PORT, and all else"},
		{"token create --uses 0", "--uses is 0"},
		{"group set dba label:x=y node:z", "`etherloom group set dba --member label:x=y --member node:z`"},
		{"group set", "accepts 1 arg(s)"},
		{"node address a --mode static", "--mode static --address 192.0.2.9/24`"},
		{"host list --admin /nonexistent/admin.json", "/nonexistent/admin.json"},
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(c.line))
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ...%s...", c.line, err, c.want)
		}
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/node"
)

// TestOwnTable: a line for each port of a gateway, and what there is to do about it.
func TestOwnTable(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	var out bytes.Buffer
	cmd := new(cobra.Command)
	cmd.SetOut(&out)
	if err := ownTable(cmd, []node.AttachmentStatus{
		{Declaration: node.Declaration{Port: "lan", Segment: "lan", NIC: "eth0", VLAN: 10}, Origin: "config", State: "signed", Moved: "br-eth0", Until: &at},
		{Declaration: node.Declaration{Port: "two", Segment: "dmz", Bridge: "br7"}, Origin: "command", State: "refused", Why: "no role"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PORT  SEGMENT  LINK        FRAMES    BY       STATE    HOST-ON", "lan   lan      eth0        VLAN 10   config   signed   br-eth0",
		"two   dmz      bridge br7  untagged  command  refused  -", "two: no role", "unless you confirm that you still reach it: `etherloom attachment confirm lan`", until(at),
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, out.String())
		}
	}
}

// TestOwnPorts: PORT is this gateway's, NODE/PORT the network's, and one is not taken for the other.
func TestOwnPorts(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"attachment add lan --segment lan --nic eth1 --with gw1/lan --state-dir " + dir: "--with is an administrator's",
		"attachment remove lan --admin x.json":                                          "an administrator's command names NODE/PORT",
		"attachment confirm lan --admin x.json":                                         "an administrator's command names NODE/PORT",
		"attachment confirm gw1/lan --admin /does/not/exist":                            "/does/not/exist",
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(line))
		cmd.SetOut(new(bytes.Buffer))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", line, err, want)
		}
	}
	r := &v1.AddAttachmentRequest{Segment: "lan", Nic: "eth0", Vlan: 10, Native: "tagged", Priority: "always", Preference: 7, MoveHost: true, Service: true}
	want := node.Declaration{
		Port: "p", Segment: "lan", NIC: "eth0", VLAN: 10, Native: "tagged", Priority: "always", Preference: 7, MoveHost: true, Service: true, Confirm: "1m0s",
	}
	if got := declarationOf("p", r, time.Minute); got != want {
		t.Errorf("declared is %+v", got)
	}
	r.MoveHost = false
	if got := declarationOf("p", r, time.Minute); got.Confirm != "" {
		t.Errorf("without a move, confirm is %q", got.Confirm)
	}
}

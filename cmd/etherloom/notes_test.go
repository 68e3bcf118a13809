package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
)

// TestUngrantedNote: an attachment of which no grant speaks, by itself, by a host or by a group, carries nothing.
func TestUngrantedNote(t *testing.T) {
	at := &v1.AttachmentRule{Segment: "office", Hosts: []string{"printer"}, Ports: []*v1.AttachmentPort{{Name: "gw-a/site"}, {Name: "gw-b/site"}}}
	groups := []*v1.Group{{Name: "sites", Members: []string{"attachment:gw-a/site"}}, {Name: "others", Members: []string{"host:camera"}}}
	for name, c := range map[string]struct {
		from, to string
		silent   bool
	}{
		"nobody":       {"node:a", "segment:office", false},
		"itself":       {"attachment:gw-a/site", "segment:office", true},
		"further port": {"attachment:gw-b/site", "segment:office", true},
		"reached":      {"node:a", "attachment:gw-a/site", true},
		"its host":     {"node:a", "host:printer", true},
		"its group":    {"group:sites", "segment:office", true},
		"other group":  {"group:others", "segment:office", false},
	} {
		got := ungrantedNote(at, namedBy([]*v1.GrantRule{{From: c.from, To: c.to}}, groups))
		if (got == "") != c.silent || got != "" && !strings.Contains(got, "`etherloom grant add --from attachment:gw-a/site --to segment:office`") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestSelectsAny: a label that no machine has, and a group in which there is nobody, select nobody.
func TestSelectsAny(t *testing.T) {
	nodes := []*v1.Node{
		{Labels: []string{"team=office"}},
		{Labels: []string{"team=gone"}, Status: v1.NodeStatus_NODE_STATUS_REMOVED},
	}
	groups := []*v1.Group{
		{Name: "empty"},
		{Name: "none", Members: []string{"label:team=gone"}},
		{Name: "all", Members: []string{"label:team=gone", "label:team=office"}},
		{Name: "one", Members: []string{"node:a"}},
	}
	for selector, want := range map[string]bool{
		"label:team=office": true, "label:taem=office": false, "label:team=gone": false, "group:empty": false, "group:none": false,
		"group:all": true, "group:one": true, "node:a": true, "segment:lan": true,
	} {
		if got := selectsAny(selector, nodes, groups); got != want {
			t.Errorf("%s selects somebody: %v", selector, got)
		}
	}
}

// TestOutsideNotes: an IPv4 address that is not of the segment's prefix may be misspelt.
func TestOutsideNotes(t *testing.T) {
	h := &v1.HostRule{Addresses: []string{"192.0.2.30/24", "198.51.100.30/24", "2001:db8::1/64", "169.254.0.1/16"}}
	got := outsideNotes(h, &v1.Segment{Name: "office", Ipv4Prefix: "198.51.100.0/24"})
	if len(got) != 1 || !strings.Contains(got[0], "192.0.2.30 is outside of segment office's prefix 198.51.100.0/24") {
		t.Errorf("notes are %q", got)
	}
}

// TestNotes: notes are beside the answer, and whoever wants JSON gets none.
func TestNotes(t *testing.T) {
	for _, json := range []bool{false, true} {
		var out, errs bytes.Buffer
		cmd := new(cobra.Command)
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		(&admin{json: json}).note(cmd, "", "look")
		if got := errs.String(); out.Len() > 0 || json && got != "" || !json && got != "note: look\n" {
			t.Errorf("with JSON %v: %q, %q", json, out.String(), got)
		}
	}
}

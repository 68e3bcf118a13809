package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/policy"
)

// aReach is a grant to nodes.
func aReach(id, vni uint32, from, to []uint32, allow ...string) *controlv1.Resource {
	return &controlv1.Resource{Kind: &controlv1.Resource_Reach{Reach: &controlv1.Reach{Id: id, Vni: vni, Sources: from, Targets: to, Allow: allow}}}
}

// reaching is a state in which this node may reach b, and c may reach this node.
func reaching(s *site) []*controlv1.Resource {
	return []*controlv1.Resource{
		netSettings(), aSegment(1, "one", "10.64.0.0/24", "fd00:1::/64"),
		self(station(1, selfID, auto, "10.64.0.7/24", "fd00:1::7/64")),
		s.peer(8, "b", station(1, 8, auto, "10.64.0.8/24", "fd00:1::8/64")),
		s.peer(9, "c", station(1, 9, auto, "10.64.0.9/24")),
		aReach(3, 1, []uint32{selfID}, []uint32{8}, "tcp:22", "icmp"), aReach(4, 1, []uint32{9}, []uint32{selfID}),
	}
}

// Who is reached is known by name, and who may only reach this node is not.
func TestNamesOfNodeGrants(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, reaching(s)...)
	var got []string
	for _, n := range d.Names() {
		got = append(got, n.Name)
	}
	if want := []string{"b.etherloom.internal", "self.etherloom.internal"}; !slices.Equal(got, want) {
		t.Errorf("names are %v, want %v", got, want)
	}
}

// A question for an address is answered by the node of the host that asks, and explain says so: on either end, of either's host.
func TestExplainAnswers(t *testing.T) {
	s := newSite(t)
	d := explainer(t, s, time.Time{}, append(reaching(s), s.peer(10, "d", station(1, 10, auto, "10.64.0.10/24")))...)
	for _, c := range []struct {
		name  string
		ask   ExplainRequest
		check string
		on    string
		fix   string
		note  string
	}{
		{name: "one that is reached", ask: ExplainRequest{To: "b", Kind: "arp"}, check: "answered", on: "self", note: "stays on self"},
		{name: "one that may reach", ask: ExplainRequest{To: "c", Kind: "arp"}, check: "answered", on: "self", note: "a grant to nodes"},
		{name: "the other end", ask: ExplainRequest{From: "c", To: "self", Kind: "arp"}, check: "answered", on: "c", note: "stays on c"},
		{name: "another that is known", ask: ExplainRequest{To: "d", Kind: "arp"}, check: "unknown-address", on: "self", fix: "etherloom grant add"},
		{
			name: "given, for nobody's", check: "unknown-address", on: "self", fix: "etherloom names",
			ask: ExplainRequest{Segment: "one", Frame: append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, selfID, 8, 6},
				"\x00\x01\x08\x00\x06\x04\x00\x01"+"\x02\x00\x00\x00\x00\x07\x0a\x40\x00\x07"+"\x00\x00\x00\x00\x00\x00\x0a\x40\x00\x63"...)},
		},
		{name: "what is granted", ask: ExplainRequest{To: "b", Kind: "tcp", Port: 22}, check: "pass", on: "b"},
		{name: "what is not", ask: ExplainRequest{To: "b", Kind: "tcp", Port: 23}, check: "not-allowed", on: "self", fix: "--allow tcp:23"},
	} {
		e, err := d.Explain(c.ask)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		passes := c.check == "pass" || c.check == "answered"
		if e.Check != c.check || e.On != c.on || e.Passes != passes || e.Passes != (len(e.Fixes) == 0) || e.Steps[0].Check != c.check && passes {
			t.Errorf("%s: %+v", c.name, e)
		}
		if !strings.Contains(fmt.Sprint(e.Fixes), c.fix) || !strings.Contains(strings.Join(e.Notes, "\n"), c.note) {
			t.Errorf("%s: fixes %v, notes %q", c.name, e.Fixes, e.Notes)
		}
	}
	if drops := d.Drops(); len(drops) != 0 || d.segments[policy.VNI(1)].local.Stats().Answered != 0 {
		t.Errorf("asking has counted %v", drops)
	}
}

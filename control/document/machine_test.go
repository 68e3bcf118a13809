package document

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// bridged is the network of the other tests with a gateway, gw: at a VLAN of lan (gw/site) are printer, which has addresses, camera,
// which may use any, and whoever nobody named; at one of dmz (gw/far) is server.
func bridged(more ...model.Fact) *model.Model {
	gw := &model.Node{
		ID: 8, Name: "gw", Roles: []string{"member", "gateway"}, OwnStatus: model.StatusActive, RelaySlot: 8,
		Sign: bytes.Repeat([]byte{8}, 32), Static: bytes.Repeat([]byte{108}, 32),
	}
	port := func(name string, vlan uint16) []model.AttachmentPort {
		return []model.AttachmentPort{{Node: 8, Name: name, NIC: "eth1", VLAN: vlan}}
	}
	return network(append([]model.Fact{
		gw, &model.Attachment{ID: 20, VNI: 1, Ports: port("site", 10)}, &model.Attachment{ID: 21, VNI: 2, Ports: port("far", 11)},
		&model.Host{ID: 30, Name: "printer", MAC: model.MAC{2, 30}, VNI: 1, Attachments: []identity.ID{20}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.100.1.200/24")}},
		&model.Host{ID: 31, Name: "camera", MAC: model.MAC{2, 31}, VNI: 1, Attachments: []identity.ID{20}},
		&model.Host{ID: 32, Name: "server", MAC: model.MAC{2, 32}, VNI: 2, Attachments: []identity.ID{21}},
	}, more...)...)
}

const machines = `
groups:
  - {name: things, members: ["host:camera", "host:printer", "attachment:gw/site"]}
grants:
  - {from: node:laptop, to: host:printer, allow: ["tcp:631", icmp]}
  - {from: host:camera, to: node:db1, allow: ["udp:554"]}
  - {from: node:web, to: attachment:gw/site, allow: ["tcp:80"]}
  - {from: node:gw, to: host:printer, allow: ["tcp:22"]}
  - {from: attachment:gw/far, to: segment:dmz}
  - {from: node:guest, to: segment:dmz}
  - {from: group:things, to: node:phone, segment: lan, allow: ["udp:514"]}
`

// TestCheckMachines asks what policy lets pass from and to machines behind a gateway.
func TestCheckMachines(t *testing.T) {
	m := apply(t, bridged(), parse(t, machines))
	for _, c := range []struct{ from, to, on, what, want string }{
		{"node:laptop", "host:printer", "", "tcp:631", "laptop to printer: allowed by grant"},
		{"node:laptop", "host:printer", "lan", "tcp:22", "denied"},
		{"node:laptop", "host:camera", "", "tcp:631", "denied"},
		{"node:laptop", "attachment:gw/site", "", "tcp:631", "denied"},
		{"host:printer", "node:laptop", "", "tcp:631", "denied"},
		{"host:camera", "node:db1", "", "udp:554", "camera to db1: allowed"},
		{"attachment:gw/site", "node:db1", "", "udp:554", "gw/site to db1: denied"},
		{"node:web", "attachment:gw/site", "", "tcp:80", "web to gw/site: allowed"},
		{"node:web", "attachment:gw/site", "", "arp", "allowed"}, // nobody has listed their addresses, so they are asked
		{"attachment:gw/site", "node:web", "", "arp", "denied"},
		{"node:laptop", "host:printer", "", "arp", "denied"}, // its own node answers
		{"node:web", "host:printer", "", "tcp:80", "denied"}, // it has a name, so it is not among those whom nobody named
		{"node:gw", "host:printer", "", "tcp:22", "gw to printer: allowed"},
		{"node:gw", "host:camera", "", "tcp:22", "denied"},
		{"group:things", "node:phone", "", "udp:514", "allowed"},
		{"group:things", "node:phone", "lan", "tcp:514", "denied"},
		{"attachment:gw/far", "node:guest", "", "arp", "allowed"},
		{"node:guest", "attachment:gw/far", "dmz", "multicast:239.1.1.1", "allowed"},
		{"node:guest", "host:server", "dmz", "icmp", "denied"},
		{"host:server", "node:guest", "dmz", "icmp", "denied"},
	} {
		if c.on == "" && strings.HasPrefix(c.from+c.to, "group") {
			c.on = "lan"
		}
		for _, allow := range []bool{true, false} {
			w := Test{From: c.from, To: c.to, Segment: c.on, What: c.what, Allow: allow}
			x, err := w.Resolve(m)
			must(t, err)
			r := Check(m, []model.Test{x}, start)[0]
			want := Failed
			if allow == strings.Contains(c.want, "allowed") {
				want = Passed
			}
			if r.Outcome != want || !strings.Contains(r.Found, c.want) {
				t.Errorf("%s, expect %s: %v, %s", w, expectation(allow), r.Outcome, r.Found)
			}
		}
	}
}

// A machine without an active gateway is nobody a test is about.
func TestCheckMachinesCutOff(t *testing.T) {
	m := apply(t, bridged(&model.Lock{ID: 1, Node: 8}), parse(t, machines))
	for _, to := range []string{"host:printer", "attachment:gw/site"} {
		w := Test{From: "node:laptop", To: to, What: "tcp:631", Allow: true}
		x, err := w.Resolve(m)
		must(t, err)
		if r := Check(m, []model.Test{x}, start)[0]; r.Outcome != Void {
			t.Errorf("%s: %s", w, r.String())
		}
	}
}

func TestMachinesAsWritten(t *testing.T) {
	m := bridged()
	for _, c := range []struct {
		g    Grant
		want string
	}{
		{Grant{From: "host:printer", To: "node:db1"}, ""},      // two segments, but it is on one
		{Grant{From: "node:db1", To: "attachment:gw/far"}, ""}, // the same
		{Grant{From: "host:printer", To: "host:camera"}, ""},
		{Grant{From: "host:printer", To: "segment:lan"}, ""},
		{Grant{From: "host:printer", To: "segment:dmz"}, `from: host "printer" is on segment "lan"`},
		{Grant{From: "host:printer", To: "host:server"}, `to: host "server" is on segment "dmz"`},
		{Grant{From: "host:printer", To: "node:db1", Segment: "dmz"}, `from: host "printer" is on segment "lan"`},
		{Grant{From: "node:db1", To: "host:printer", Segment: "dmz"}, `to: host "printer" is on segment "lan"`},
		{Grant{From: "node:db1", To: "node:db2"}, "there are 2 segments"},
		{Grant{From: "host:nobody", To: "node:db1"}, `no host is called "nobody"`},
		{Grant{From: "attachment:gw/x", To: "node:db1"}, "attachment list"},
		{Grant{From: "host:camera", To: "node:db1", When: "true"}, "a condition is about a node"},
		{Grant{From: "attachment:gw/site", To: "node:db1", When: "true"}, "a condition is about a node"},
		{Grant{From: "node:db1", To: "host:camera", When: "true"}, ""},
	} {
		g, err := c.g.Resolve(m)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want ...%s...", &c.g, g, err, c.want)
		}
	}
}

// TestMachinesDocument: what names machines is written as it is read, is changed and told as for nodes, and is left out when they go.
func TestMachinesDocument(t *testing.T) {
	m := apply(t, bridged(), parse(t, machines+`
tests:
  - {from: node:laptop, to: host:printer, what: "tcp:631", expect: allow}
  - {from: attachment:gw/site, to: node:db1, what: "tcp:22", expect: deny}
`))
	text := yamlOf(t, Of(m))
	for _, want := range []string{"members: ['attachment:gw/site', 'host:camera', 'host:printer']", "to: host:printer", "from: attachment:gw/site"} {
		if !strings.Contains(text, want) && !strings.Contains(text, strings.ReplaceAll(want, "'", "")) {
			t.Errorf("the document has no %q:\n%s", want, text)
		}
	}
	if p := plan(t, m, parse(t, text)); !p.Empty() {
		t.Errorf("what there is changes %+v", p)
	}
	_, gained, _ := strings.Cut(diff(t, bridged(), parse(t, machines)).Text(100), "Gained:\n")
	if want := `  camera to db1 on lan: udp:554
  group:things (3 machines) to phone on lan: udp:514
  guest to gw/far on dmz: everything as a member of the segment
  gw to printer on lan: tcp:22
  gw/far to guest on dmz: everything as a member of the segment
  laptop to printer on lan: icmp, tcp:631
  web to gw/site on lan: tcp:80
`; gained != want {
		t.Errorf("what is gained is told as\n%s", gained)
	}
	if failed := Failures(Check(m, m.Tests, start)); len(failed) > 0 {
		t.Errorf("%s", failed[0].String())
	}
	f := m.Facts
	delete(f, "host/30")
	gone := model.Derive(f, 9, m)
	if text := yamlOf(t, Of(gone)); strings.Contains(text, "printer") || strings.Contains(text, "to: \"\"") {
		t.Errorf("without the host the document is\n%s", text)
	}
}

// A grant with a condition, to a group of machines and nodes, is a grant to the nodes.
func TestMachinesMeetNoCondition(t *testing.T) {
	m := apply(t, bridged(&model.Group{Name: "mixed", Nodes: []identity.ID{1, 31}},
		&model.Grant{ID: 1, From: "group:mixed", To: "node:db1", Group: "mixed", Target: &model.Selector{Node: 3}, VNI: 1, When: "true"}), parse(t, `
groups:
  - {name: mixed, members: ["node:laptop", "host:camera"]}
grants:
  - {from: group:mixed, to: node:db1, segment: lan, when: "true"}
`))
	for from, want := range map[string]Outcome{"node:laptop": Passed, "host:camera": Failed} {
		x, err := (&Test{From: from, To: "node:db1", Segment: "lan", What: "icmp", Allow: true}).Resolve(m)
		must(t, err)
		if r := Check(m, []model.Test{x}, start)[0]; r.Outcome != want {
			t.Errorf("%s", r.String())
		}
	}
}

// The judge's machines send what their gateway would let pass: their own MAC, and addresses that are theirs or nobody's.
func TestMachineSpecimens(t *testing.T) {
	m := apply(t, bridged(), parse(t, machines))
	j := newJudge(m, start)
	for _, id := range []identity.ID{20, 30, 31} {
		at := place{id, 1}
		s := j.stations[at]
		if s == nil {
			t.Fatalf("%d has no station", id)
		}
		for _, a := range s.Addresses() {
			for other, o := range j.stations {
				if other != at && other.vni == 1 && slices.Contains(o.Addresses(), a) {
					t.Errorf("%d is asked about with %s, which is %d's", id, a, other.id)
				}
			}
		}
		for _, text := range []string{"tcp:22", "icmp", "arp", "broadcast", "multicast:ff02::fb"} {
			w, err := parseWhat(text)
			must(t, err)
			frames, err := w.specimens(s, j.stations[place{1, 1}])
			must(t, err)
			if len(frames) == 0 && text != "multicast:ff02::fb" {
				t.Errorf("%d sends no %s", id, text)
			}
			for _, data := range frames {
				if f := j.carry(data, at, place{1, 1}); !f.passes && f.why == policy.SourceMAC.String() {
					t.Errorf("%d: %s: %s", id, text, f.why)
				}
			}
		}
	}
	if s := j.stations[place{32, 1}]; s != nil {
		t.Error("a machine has a station on another segment than its own")
	}
	if a, b := j.class(place{30, 1}), j.class(place{31, 1}); a == b {
		t.Error("who may use any address is taken to be like who may not")
	}
}

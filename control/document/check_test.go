package document

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// TestCheck asks what a policy of every kind of grant lets pass.
func TestCheck(t *testing.T) {
	m := apply(t, network(), parse(t, `
groups:
  - {name: dba, members: ["label:team=dba"]}
grants:
  - {from: group:dba, to: label:role=db, segment: lan, allow: ["tcp:5432", icmp]}
  - {from: node:web, to: node:db1, segment: lan, direction: both, allow: ["udp:53"]}
  - {from: node:guest, to: node:web, segment: lan, mode: observe}
  - {from: node:guest, to: node:db1, segment: lan}
  - {from: node:laptop, to: node:web, segment: lan, allow: ["ethertype:0x88b5", "multicast:239.1.0.0/16", broadcast, "proto:47"]}
  - {from: node:laptop, to: segment:dmz}
  - {from: node:phone, to: segment:dmz}
  - {from: node:web, to: segment:dmz, allow: ["tcp:443"]}
`))
	for _, c := range []struct{ from, to, on, what, want string }{
		{"node:laptop", "node:db1", "lan", "tcp:5432", "allowed by grant 1"},
		{"node:laptop", "node:db1", "lan", "tcp:5433", "no grant between the two"},
		{"node:laptop", "node:db2", "lan", "icmp", "allowed"},
		{"node:laptop", "node:db2", "lan", "arp", "denied"},
		{"group:dba", "label:role=db", "lan", "tcp:5432", "allowed"},
		{"label:team=dba", "label:role=db", "lan", "udp:5432", "denied"},
		{"node:db1", "node:laptop", "lan", "tcp:5432", "denied"},
		{"node:web", "node:db1", "lan", "udp:53", "allowed"},
		{"node:db1", "node:web", "lan", "udp:53", "allowed"},
		{"node:web", "node:db2", "lan", "udp:53", "denied"},
		{"node:guest", "node:web", "lan", "icmp", "denied"},
		{"node:guest", "node:db1", "lan", "tcp:1", "allowed"},
		{"node:guest", "node:db1", "lan", "ethertype:0x88b5", "allowed"},
		{"node:guest", "node:db1", "lan", "broadcast", "denied"},
		{"node:laptop", "node:web", "lan", "ethertype:0x88b5", "allowed"},
		{"node:laptop", "node:web", "lan", "ethertype:0x88b6", "denied"},
		{"node:laptop", "node:web", "lan", "multicast:239.1.2.3", "allowed"},
		{"node:laptop", "node:web", "lan", "multicast:239.2.2.3", "denied"},
		{"node:laptop", "node:web", "lan", "multicast:ff02::fb", "denied"},
		{"node:laptop", "node:web", "lan", "broadcast", "allowed"},
		{"node:laptop", "node:web", "lan", "proto:47", "allowed"},
		{"node:laptop", "node:web", "lan", "proto:132", "denied"},
		{"node:laptop", "node:phone", "dmz", "multicast:ff02::fb", "allowed"},
		{"node:laptop", "node:phone", "dmz", "arp", "allowed"},
		{"node:laptop", "node:web", "dmz", "arp", "allowed"},
		{"node:web", "node:laptop", "dmz", "tcp:443", "allowed"},
		{"node:web", "node:laptop", "dmz", "tcp:80", "denied"},
		{"node:guest", "node:laptop", "dmz", "icmp", "denied"},
		{"node:lost", "node:db1", "lan", "tcp:5432", "void"},
		{"node:laptop", "node:laptop", "lan", "tcp:5432", "void"},
		{"label:nobody=here", "node:db1", "lan", "tcp:5432", "void"},
	} {
		for _, allow := range []bool{true, false} {
			w := Test{From: c.from, To: c.to, Segment: c.on, What: c.what, Allow: allow}
			x, err := w.Resolve(m)
			must(t, err)
			r := Check(m, []model.Test{x}, start)[0]
			want, words := Failed, strings.TrimPrefix(c.want, "no grant between the two")
			switch {
			case c.want == "void":
				want = Void
			case allow == strings.HasPrefix(c.want, "allowed"):
				want = Passed
			}
			if r.Outcome != want || want != Void && !strings.Contains(r.Found, words) {
				t.Errorf("%s, expect %s: %v, %s", w, expectation(allow), r.Outcome, r.Found)
			}
		}
	}
}

// A test between several holds only if it holds for each pair; what is found names one for which it does not.
func TestCheckAll(t *testing.T) {
	m := apply(t, network(), parse(t, `
grants:
  - {from: label:team=dba, to: node:db1, segment: lan}
tests:
  - {from: label:team=dba, to: label:role=db, segment: lan, what: icmp, expect: allow}
  - {from: label:team=dba, to: label:role=db, segment: lan, what: icmp, expect: deny}
`))
	r := Check(m, m.Tests, start)
	if r[0].Outcome != Failed || !strings.Contains(r[0].Found, "laptop to db2: denied") {
		t.Errorf("expect allow: %s", r[0].String())
	}
	if r[1].Outcome != Failed || !strings.Contains(r[1].Found, "laptop to db1: allowed by grant 1 (label:team=dba to node:db1 on lan, everything)") {
		t.Errorf("expect deny: %s", r[1].String())
	}
}

// Two nodes of one class answer for each other: among members of one label, too.
func TestCheckAmongAlike(t *testing.T) {
	m := apply(t, network(), parse(t, `
grants:
  - {from: label:team=dba, to: label:team=dba, segment: lan, allow: ["tcp:22"]}
tests:
  - {from: label:team=dba, to: label:team=dba, segment: lan, what: "tcp:22", expect: allow}
  - {from: label:team=dba, to: label:team=dba, segment: lan, what: "tcp:23", expect: deny}
`))
	for _, r := range Check(m, m.Tests, start) {
		if r.Outcome != Passed {
			t.Error(r.String())
		}
	}
}

// What a station may do by its role counts, also if others who are named alike have none; and a client's question is one that a
// server would take.
func TestCheckRoles(t *testing.T) {
	querier := func(m *model.Model) *model.Node {
		n := m.Nodes[6].Clone()
		for i := range n.Stations {
			n.Stations[i].Roles = []model.Role{"querier"}
		}
		return n
	}
	text := `
groups:
  - {name: alike, members: ["node:laptop", "node:phone", "node:guest"]}
grants:
  - {from: group:alike, to: node:db1, segment: lan}
tests:
  - {from: node:guest, to: node:db1, segment: lan, what: "proto:103", expect: allow}
  - {from: node:phone, to: node:db1, segment: lan, what: "proto:103", expect: deny}
  - {from: group:alike, to: node:db1, segment: lan, what: "proto:103", expect: deny}
  - {from: group:alike, to: node:db1, segment: lan, what: "udp:67", expect: allow}
  - {from: group:alike, to: node:db1, segment: lan, what: "udp:547", expect: allow}
`
	d := parse(t, text)
	m := apply(t, network(querier(apply(t, network(), d))), d)
	for i, want := range []Outcome{Passed, Passed, Failed, Passed, Passed} {
		if r := Check(m, m.Tests, start)[i]; r.Outcome != want {
			t.Error(r.String())
		}
	}
}

// A grant that has ended allows nothing, though nobody has deleted it yet.
func TestCheckExpired(t *testing.T) {
	m := apply(t, network(), parse(t, `
grants:
  - {from: node:laptop, to: node:db1, segment: lan, expires: 2030-01-01T13:00:00Z}
tests:
  - {from: node:laptop, to: node:db1, segment: lan, what: icmp, expect: allow}
`))
	if r := Check(m, m.Tests, start); r[0].Outcome != Passed {
		t.Error(r[0].String())
	}
	end := m.Grants[1].Expires
	if r := Check(m, m.Tests, end); r[0].Outcome != Failed {
		t.Error(r[0].String())
	}
}

// What failed before a change hinders it no more.
func TestBroken(t *testing.T) {
	d := parse(t, `
grants:
  - {from: node:laptop, to: node:db1, segment: lan}
tests:
  - {from: node:laptop, to: node:db1, segment: lan, what: icmp, expect: allow}
  - {from: node:phone, to: node:db1, segment: lan, what: icmp, expect: allow}
`)
	before := apply(t, network(), d)
	d.Grants = nil
	after := apply(t, before, d)
	if b := Broken(before, after, start); len(b) != 1 || b[0].From != "node:laptop" {
		t.Errorf("broken are %v", b)
	}
	if b := Broken(before, before, start); len(b) != 0 {
		t.Errorf("nothing changed, and broken are %v", b)
	}
	if b := Broken(after, before, start); len(b) != 0 {
		t.Errorf("put right, and broken are %v", b)
	}
}

// TestSpecimens: what is asked about is what a host sends: another decoder reads it, the sender may send it, and package policy
// names it as the test does.
func TestSpecimens(t *testing.T) {
	stationOf := func(s model.Station) *policy.Station { return reading.Station(s.Proto()) }
	a := stationOf(model.Station{MAC: model.MAC{2, 0, 0, 0, 0, 1}, Mode: model.ModeAuto, Addresses: prefixes("10.0.0.1/24", "fd00::1/64")})
	b := stationOf(model.Station{MAC: model.MAC{2, 0, 0, 0, 0, 2}, Mode: model.ModeAuto, Addresses: prefixes("10.0.0.2/24", "fd00::2/64")})
	only6 := stationOf(model.Station{MAC: model.MAC{2, 0, 0, 0, 0, 3}, Mode: model.ModeDHCP})
	dumb := stationOf(model.Station{MAC: model.MAC{2, 0, 0, 0, 0, 4}, Mode: model.ModeNone})
	for _, c := range []struct {
		what   string
		layers []gopacket.LayerType // of each frame's last one
	}{
		{"tcp:22", []gopacket.LayerType{layers.LayerTypeTCP, layers.LayerTypeTCP}},
		{"udp:53", []gopacket.LayerType{layers.LayerTypeUDP, layers.LayerTypeUDP}},
		{"udp:67", []gopacket.LayerType{layers.LayerTypeDHCPv4, layers.LayerTypeUDP}},
		{"udp:547", []gopacket.LayerType{layers.LayerTypeUDP, layers.LayerTypeDHCPv6}},
		{"icmp", []gopacket.LayerType{layers.LayerTypeICMPv4, layers.LayerTypeICMPv6Echo}},
		{"proto:132", []gopacket.LayerType{layers.LayerTypeIPv4, layers.LayerTypeIPv6}},
		{"broadcast", []gopacket.LayerType{layers.LayerTypeUDP}},
		{"multicast:239.129.2.3", []gopacket.LayerType{layers.LayerTypeUDP}},
		{"multicast:ff02::fb", []gopacket.LayerType{layers.LayerTypeUDP}},
		{"arp", []gopacket.LayerType{layers.LayerTypeARP}},
		{"ethertype:0x88b5", []gopacket.LayerType{layers.LayerTypeEthernet}},
	} {
		w, err := parseWhat(c.what)
		must(t, err)
		if w.String() != c.what {
			t.Errorf("%s is written %s", c.what, w)
		}
		frames, err := w.specimens(a, b)
		must(t, err)
		if len(frames) != len(c.layers) {
			t.Fatalf("%s: %d frames", c.what, len(frames))
		}
		for i, data := range frames {
			p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
			if p.Layer(c.layers[i]) == nil {
				t.Errorf("%s: frame %d is %v", c.what, i, p)
			}
			f, err := ether.Parse(data)
			must(t, err)
			if _, v := a.Check(&f, false); v != policy.Pass {
				t.Errorf("%s: the sender may not send frame %d: %v", c.what, i, v)
			}
			if got, ok := policy.TermOf(&f); !w.arp && (!ok || got.String() != c.what) {
				t.Errorf("%s: frame %d is named %v", c.what, i, got)
			}
		}
	}
	w := what{term: policy.Term{Scope: policy.AnyPort, Protocol: ether.ProtoICMP}}
	if got, _ := w.specimens(a, only6); len(got) != 1 || got[0][12] != 0x86 {
		t.Errorf("to one that has a link-local address only: %x", got)
	}
	if got, _ := w.specimens(a, dumb); len(got) != 0 {
		t.Errorf("to one without addresses: %x", got)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

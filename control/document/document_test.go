package document

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

var update = flag.Bool("update", false, "write the golden files anew")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var start = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// network has laptop and phone (team=dba), db1 and db2 (role=db), web, guest, and a lost one (team=dba) that is locked.
func network(more ...model.Fact) *model.Model {
	f := model.Facts{}
	add := func(x model.Fact) { f[x.Key()] = x }
	add(&model.Settings{Name: "default", Pool: netip.MustParsePrefix("10.100.0.0/16"), ULA: netip.MustParsePrefix("fd00::/48"), Epoch: 1})
	for i, name := range []string{"lan", "dmz"} {
		vni := model.VNI(i + 1)
		add(&model.Segment{
			VNI: vni, Name: name, MTU: 1500, IPv4: netip.MustParsePrefix(fmt.Sprintf("10.100.%d.0/24", vni)),
			IPv6: netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", vni)),
		})
	}
	for i, n := range []struct {
		name, label string
		status      model.Status
	}{
		{"laptop", "team=dba", model.StatusActive},
		{"phone", "team=dba", model.StatusActive},
		{"db1", "role=db", model.StatusActive},
		{"db2", "role=db", model.StatusActive},
		{"web", "", model.StatusActive},
		{"guest", "", model.StatusActive},
		{"lost", "team=dba", model.StatusLocked},
	} {
		x := &model.Node{ID: identity.ID(i + 1), Name: n.name, Roles: []string{"member"}, OwnStatus: n.status, RelaySlot: uint32(i + 1)} //nolint:gosec // seven
		x.Sign, x.Static = bytes.Repeat([]byte{byte(i)}, 32), bytes.Repeat([]byte{byte(i) + 100}, 32)
		if n.label != "" {
			x.Labels = []string{n.label}
		}
		add(x)
	}
	for _, x := range more {
		add(x)
	}
	return model.Derive(f, 1, nil)
}

func parse(t testing.TB, text string) *Document {
	t.Helper()
	d, err := Parse([]byte(text))
	must(t, err)
	return d
}

// counter numbers grants on from those of a network.
func counter(m *model.Model) func() model.GrantID {
	last := m.Counters.Grant
	return func() model.GrantID { last++; return last }
}

func plan(t testing.TB, m *model.Model, d *Document) *Plan {
	t.Helper()
	p, err := d.Plan(m, start, counter(m))
	must(t, err)
	return p
}

// apply makes a network have a document's policy, as the controller does.
func apply(t testing.TB, m *model.Model, d *Document) *model.Model {
	t.Helper()
	p := plan(t, m, d)
	f := p.Facts(m)
	c := m.Counters
	c.Policy++
	for _, g := range p.Added {
		c.Grant = max(c.Grant, g.ID)
	}
	f[c.Key()] = &c
	return Seated(model.Derive(f, m.Version+1, m))
}

func yamlOf(t testing.TB, d *Document) string {
	t.Helper()
	b, err := d.YAML()
	must(t, err)
	return string(b)
}

const example = `
groups:
  - name: dba
    members: [node:web, "label:team=dba"]
grants:
  - {name: db, from: group:dba, to: label:role=db, segment: lan, allow: ["tcp:5432,5433", icmp]}
  - from: node:laptop
    to: node:db1
    segment: lan
    allow: [tcp:22]
    direction: both
    expires: 2031-01-01T00:00:00+02:00
  - {from: node:guest, to: node:web, segment: dmz, mode: observe}
  - {from: label:role=db, to: segment:lan}
tests:
  - {from: node:laptop, to: node:db1, segment: lan, what: tcp:5432, expect: allow}
  - {from: group:dba, to: label:role=db, segment: lan, what: tcp:25, expect: deny}
  - {from: node:guest, to: label:role=db, segment: lan, what: arp, expect: deny}
`

// golden holds text against a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(file, []byte(text), 0o600))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if text != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s\n(-update writes it anew)", name, text, want)
	}
}

func TestRendering(t *testing.T) {
	m := apply(t, network(), parse(t, example))
	text := yamlOf(t, Of(m))
	golden(t, "policy.yaml", text)
	again := parse(t, text)
	if p := plan(t, m, again); !p.Empty() {
		t.Errorf("the rendering changes %+v", p)
	}
	if again.Version != 1 {
		t.Errorf("version is %d", again.Version)
	}
}

// TestNamesOfToday: what is meant is a node, not what it was called when it was written down.
func TestNamesOfToday(t *testing.T) {
	m := apply(t, network(), parse(t, example))
	f := maps.Clone(m.Facts)
	renamed, removed := m.Nodes[1].Clone(), m.Nodes[6].Clone()
	renamed.Name, removed.OwnStatus = "notebook", model.StatusRemoved
	f[renamed.Key()], f[removed.Key()] = renamed, removed
	text := yamlOf(t, Of(model.Derive(f, 3, m)))
	if !strings.Contains(text, "from: node:notebook") || strings.Contains(text, "laptop") {
		t.Errorf("a node that was renamed:\n%s", text)
	}
	if strings.Contains(text, "guest") || strings.Contains(text, "node:\n") {
		t.Errorf("a node that was removed:\n%s", text)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "`etherloom policy show` prints one"},
		{"comment", "# later\n", "`etherloom policy show` prints one"},
		{"no YAML", "grants: [", "is not YAML"},
		{"two documents", "grants: []\n---\ngrants: []\n", "behind the end"},
		{"a list", "- a\n", "line 1: the policy document: expected keys and values"},
		{"no grants", "groups: []\n", `the key "grants" is missing`},
		{"unknown key", "grants: []\nservices: []\n", `line 2: the policy document has no key "services": expected grants, groups, tests, version`},
		{"unknown key of a grant", "grants:\n  - form: node:a\n    to: node:b\n", `line 2: a grant has no key "form": expected allow, direction`},
		{"allows an empty list", "grants:\n  - {from: node:a, to: node:b, allow: []}\n", "line 2: allow: the list is empty: name what may begin"},
		{"allows nothing", "grants:\n  - from: node:a\n    to: node:b\n    allow:\n", "line 4: allow: the list is empty"},
		{"missing key", "grants:\n  - to: node:b\n", `line 2: a grant: the key "from" is missing`},
		{"key twice", "grants:\n  - {from: node:a, to: node:b, from: node:c}\n", `line 2: a grant: the key "from" is there twice`},
		{"alias", "grants: &g []\ntests: *g\n", "line 2: tests: expected a list, found an alias"},
		{"merge", "grants:\n  - {<<: {from: node:a}, to: node:b}\n", `a grant has no key "<<"`},
		{"list for text", "grants:\n  - {from: [node:a], to: node:b}\n", "line 2: from: expected a text, found a list"},
		{"null for text", "grants:\n  - {from: , to: node:b}\n", "line 2: from: expected a text, found nothing"},
		{"text for list", "grants:\n  - {from: node:a, to: node:b, allow: tcp:22}\n", `line 2: allow: expected a list, found "tcp:22"`},
		{"direction", "grants:\n  - {from: node:a, to: node:b, direction: in}\n", `direction is out or both, found "in"`},
		{"mode", "grants:\n  - {from: node:a, to: node:b, mode: audit}\n", `mode is enforce or observe, found "audit"`},
		{"expect", "grants: []\ntests:\n  - {from: node:a, to: node:b, what: icmp, expect: pass}\n", `line 3: expect is deny or allow, found "pass"`},
		{"expires", "grants:\n  - {from: node:a, to: node:b, expires: 8h}\n", `expires: expected a time such as`},
		{"when", "grants:\n  - {from: node:a, to: node:b, when: [true]}\n", "when: expected a text, found a list"},
		{"version", "version: x\ngrants: []\n", "version: expected the number"},
		{"long", "grants:\n  - {from: " + strings.Repeat("x", 300) + ", to: node:b}\n", "from has 300 bytes, expected at most 256"},
		{"size", strings.Repeat("#", MaxSize+1), "expected at most"},
		{"too many", "grants: [" + strings.Repeat("a,", maxGrants+1) + "]\n", "grants: there are 10001, expected at most 10000"},
	} {
		if _, err := Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", c.name, err, c.want)
		}
	}
	_, err := Parse([]byte("grants: [" + strings.Repeat("a,", 100) + "]\n"))
	if err == nil || !strings.Contains(err.Error(), "and 80 more") || strings.Count(err.Error(), "\n") != maxErrors {
		t.Errorf("a hundred errors are %v", err)
	}
}

func TestPlanErrors(t *testing.T) {
	grant := func(rest string) string { return "grants:\n  - {from: node:laptop, segment: lan, " + rest + "}\n" }
	for _, c := range []struct{ name, text, want string }{
		{"node", grant("to: node:x"), `line 2: grant node:laptop to node:x on lan, everything: to: no node is called "x"`},
		{"group", grant("to: group:x"), `no group is called "x"`},
		{"segment", "grants:\n  - {from: node:laptop, to: node:db1, segment: x}\n", `no segment is called "x"`},
		{"which segment", "grants:\n  - {from: node:laptop, to: node:db1}\n", "there are 2 segments (dmz, lan)"},
		{"term", grant("to: node:db1, allow: [http]"), "a term is"},
		{"name", grant("to: node:db1, name: A_b"), "not a DNS label"},
		{"ended", grant("to: node:db1, expires: 2020-01-01T00:00:00Z"), "it has ended"},
		{"two names", grant("to: node:db1, name: a") + "  - {name: a, from: node:laptop, to: node:db2, segment: lan}\n", "line 3: grant a: node:laptop to node:db2 on lan, everything: the one in line 2 has the same name"},
		{"twice", grant("to: node:db1, name: a, allow: [tcp:1, 'tcp:2']") + "  - {from: node:laptop, to: node:db1, segment: lan, allow: ['tcp:1,2']}\n", "the one in line 2 says this already"},
		{"two groups", "grants: []\ngroups:\n  - {name: a, members: []}\n  - {name: a, members: []}\n", "line 4: there are two groups"},
		{"group in a group", "grants: []\ngroups:\n  - {name: a, members: []}\n  - {name: b, members: [group:a]}\n", "line 4"},
		{"test to a segment", "grants: []\ntests:\n  - {from: node:laptop, to: segment:lan, what: icmp, expect: deny}\n", "a frame is for a node"},
		{"test of two ports", "grants: []\ntests:\n  - {from: node:laptop, to: node:db1, segment: lan, what: tcp:1-2, expect: deny}\n", "one kind of frame"},
		{"test of anything", "grants: []\ntests:\n  - {from: node:laptop, to: node:db1, segment: lan, what: any, expect: deny}\n", "one kind of frame"},
		{"test of TCP", "grants: []\ntests:\n  - {from: node:laptop, to: node:db1, segment: lan, what: tcp, expect: deny}\n", "one kind of frame"},
		{"test of groups", "grants: []\ntests:\n  - {from: node:laptop, to: node:db1, segment: lan, what: 'multicast:239.0.0.0/8', expect: deny}\n", "one kind of frame"},
	} {
		m := network()
		if _, err := parse(t, c.text).Plan(m, start, counter(m)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", c.name, err, c.want)
		}
	}
}

// The document that docs/operations.md shows is one, and means something.
func TestDocumentedExample(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	must(t, err)
	_, rest, ok := strings.Cut(string(manual), "```yaml\nversion:")
	text, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/operations.md shows no document")
	}
	m := apply(t, network(), parse(t, "version:"+text))
	if len(m.Groups) != 1 || len(m.Grants) != 2 || len(m.Tests) != 2 || m.Grants[1].Name != "db" {
		t.Errorf("it makes %v, %v, %v", m.Groups, m.Grants, m.Tests)
	}
	for i, r := range Check(m, m.Tests, start) {
		if want := []Outcome{Passed, Void}[i]; r.Outcome != want { // nobody is at site a here
			t.Error(r.String())
		}
	}
}

// A condition is kept as it is written. What tests and differences say of a grant, they say of those who meet its condition.
func TestConditions(t *testing.T) {
	const text = `grants:
  - {name: ops, from: node:laptop, to: node:db1, segment: lan, allow: [tcp:22], when: posture.disk_encrypted}
tests:
  - {from: node:laptop, to: node:db1, segment: lan, what: tcp:22, expect: allow}
  - {from: node:laptop, to: node:db1, segment: lan, what: tcp:23, expect: deny}
`
	m := apply(t, network(), parse(t, text))
	var g *model.Grant
	for _, g = range m.Grants {
	}
	if len(m.Grants) != 1 || g.When != "posture.disk_encrypted" || len(m.ReachOf(1)) > 0 && len(m.ReachOf(1)[0].From) > 0 {
		t.Fatalf("grants are %+v; nobody was seen to meet the condition", m.Grants)
	}
	for _, r := range Check(m, m.Tests, start) {
		if r.Outcome != Passed {
			t.Error(r.String())
		}
	}
	if p := plan(t, m, Of(m)); !p.Empty() {
		t.Error("what was rendered would change something")
	}
	d := Of(m)
	d.Grants[0].When = ""
	if p := plan(t, m, d); p.Empty() {
		t.Error("a grant without its condition is another grant")
	}
}

// A grant that says the same and bears the same name keeps its id.
func TestPlanKeeps(t *testing.T) {
	m := apply(t, network(), parse(t, example))
	ids := slices.Sorted(maps.Keys(m.Grants))
	d := Of(m)
	d.Grants[0], d.Grants[1] = d.Grants[1], d.Grants[0]
	if p := plan(t, m, d); !p.Empty() {
		t.Errorf("another order changes %+v", p)
	}
	i := slices.IndexFunc(d.Grants, func(e Entry) bool { return e.Name == "db" })
	d.Grants[i].Name = "database"
	p := plan(t, m, d)
	if len(p.Added) != 1 || len(p.Removed) != 1 || p.Added[0].Name != "database" || p.Added[0].ID != ids[len(ids)-1]+1 {
		t.Errorf("another name changes %+v", p)
	}
	d.Groups[0].Members = []string{"label:team=dba", "node:web", "node:web"}
	if p := plan(t, m, d); len(p.Groups) != 0 {
		t.Errorf("a member that is named twice changes %+v", p.Groups)
	}
}

package document

import (
	"fmt"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/policy"
)

func diff(t testing.TB, m *model.Model, d *Document) *Diff {
	t.Helper()
	p := plan(t, m, d)
	return p.Diff(Seated(m), p.Preview(m), start)
}

func TestDiffInWords(t *testing.T) {
	m := apply(t, network(), parse(t, example))
	changed := parse(t, `
groups:
  - name: dba
    members: [node:guest, "label:team=dba"]
  - name: ops
    members: [node:phone, node:web]
grants:
  - {name: db, from: group:dba, to: label:role=db, segment: lan, allow: [tcp:5432, icmp]}
  - {from: node:laptop, to: node:db1, segment: lan}
  - {from: label:role=db, to: segment:lan, allow: [tcp, "multicast:239.1.1.1"]}
  - {name: all, from: group:ops, to: segment:dmz}
tests:
  - {from: node:laptop, to: node:db1, segment: lan, what: tcp:5432, expect: allow}
  - {from: group:ops, to: group:ops, segment: dmz, what: arp, expect: allow}
  - {from: group:dba, to: label:role=db, segment: lan, what: tcp:25, expect: allow}
`)
	golden(t, "diff.txt", diff(t, m, changed).Text(100))
	if text := diff(t, m, changed).Text(1); strings.Count(text, "and ") < 3 {
		t.Errorf("a short diff is\n%s", text)
	}
	if d := diff(t, m, Of(m)); !d.Empty() || d.Text(10) != "nothing changes\n" {
		t.Errorf("a policy and itself differ by %+v", d)
	}
	reordered := Of(m)
	reordered.Tests[0], reordered.Tests[1] = reordered.Tests[1], reordered.Tests[0]
	if d := diff(t, m, reordered); len(d.Access) != 0 || len(d.Tests) != 1 || !strings.Contains(d.Text(10), "Nobody gains or loses") {
		t.Errorf("tests in another order: %+v", d)
	}
}

func TestCovers(t *testing.T) {
	// Each row covers those below it that are named in it, and itself.
	list := []string{"any@", "any", "ip@", "ip", "tcp@", "tcp", "tcp:20-30@", "tcp:20-30", "tcp:22@", "tcp:22", "udp:22", "icmp", "ethertype:0x88b5", "multicast:239.0.0.0/8", "multicast:239.1.1.1", "broadcast"}
	covers := map[string]string{
		"any@":                  strings.Join(list, " "),
		"any":                   "any ip tcp tcp:20-30 tcp:22 udp:22 icmp",
		"ip@":                   "ip@ ip tcp@ tcp tcp:20-30@ tcp:20-30 tcp:22@ tcp:22 udp:22 icmp",
		"ip":                    "ip tcp tcp:20-30 tcp:22 udp:22 icmp",
		"tcp@":                  "tcp@ tcp tcp:20-30@ tcp:20-30 tcp:22@ tcp:22",
		"tcp":                   "tcp tcp:20-30 tcp:22",
		"tcp:20-30@":            "tcp:20-30@ tcp:20-30 tcp:22@ tcp:22",
		"tcp:20-30":             "tcp:20-30 tcp:22",
		"tcp:22@":               "tcp:22@ tcp:22",
		"multicast:239.0.0.0/8": "multicast:239.0.0.0/8 multicast:239.1.1.1",
	}
	read := func(s string) can {
		text, segment := strings.CutSuffix(s, "@")
		term, err := policy.ParseTerm(text)
		must(t, err)
		return newCan(term, segment)
	}
	for _, a := range list {
		want, known := covers[a]
		if !known {
			want = a
		}
		var got []string
		for _, b := range list {
			if x, y := read(a), read(b); x.covers(&y) {
				got = append(got, b)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s covers %v, want %s", a, got, want)
		}
	}
}

// Who gains what is what the frames say: over all pairs of a random change, a frame that passes after it and did not before is
// of something that was gained, and one that passed before and does not after is of something that was lost.
func TestDiffIsWhatFramesDo(t *testing.T) {
	// An EtherType to one station is less than its term, which is also about groups: everything to a node is enough for it.
	asks := []string{"tcp:22", "tcp:5432", "udp:53", "icmp", "ethertype:0x88b5", "multicast:239.1.1.1", "broadcast"}
	r := newRandom(1)
	for round := range 60 {
		m := apply(t, network(), r.document())
		d := r.document()
		p := plan(t, m, d)
		after := p.Preview(m)
		before := Seated(m)
		was, is := newJudge(before, start), newJudge(after, start)
		c := newCrowd(was, is)
		had, _ := c.reach(was)
		has, _ := c.reach(is)
		for vni := range m.Segments {
			for a := range m.Nodes {
				for b := range m.Nodes {
					if a == b {
						continue
					}
					e := ends{vni, c.of[place{a, vni}], c.of[place{b, vni}]}
					for _, ask := range asks {
						w, err := parseWhat(ask)
						must(t, err)
						x := newCan(w.term, false)
						for name, side := range map[string]struct {
							j    *judge
							cans cans
						}{"before": {was, had[e]}, "after": {is, has[e]}} {
							passes := side.j.ask(w, a, b, vni)[0].passes
							if told := side.cans.cover(x) || w.term.Scope == policy.EtherType && side.cans.cover(can{}); passes != told {
								t.Fatalf("round %d, %s: %s from %s to %s on %d passes: %v, told: %v (%v)\n%s", round, name, ask, m.Nodes[a].Name,
									m.Nodes[b].Name, vni, passes, told, side.cans, yamlOf(t, d))
							}
						}
					}
				}
			}
		}
	}
}

// A change that concerns too many is not worked out, and says so.
func TestDiffIsBounded(t *testing.T) {
	d := &Document{}
	for i := range 600 {
		e := Entry{Grant: Grant{From: "label:team=dba", To: "label:role=db", Segment: "lan"}}
		for k := range 250 {
			e.Allow = append(e.Allow, fmt.Sprintf("tcp:%d", 1+(i*250+k)%65000))
		}
		d.Grants = append(d.Grants, e)
	}
	m := network()
	p := &Plan{}
	for i := range d.Grants {
		g, err := d.Grants[i].Resolve(m)
		must(t, err)
		g.ID = model.GrantID(i + 1) //nolint:gosec // small
		p.Added = append(p.Added, g)
	}
	got := p.Diff(m, p.Preview(m), start)
	if _, ok := newCrowd(newJudge(m, start), newJudge(m, start)).reach(newJudge(m, start)); !ok {
		t.Error("nothing is too much")
	}
	if !got.Untold || len(got.Access) != 0 || !strings.Contains(got.Text(3), "is not told") || !strings.Contains(got.Text(3), "and 597 more") {
		t.Errorf("the change is %s", got.Text(3))
	}
}

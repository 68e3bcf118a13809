package document

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/model"
)

// random makes documents for the network of these tests.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, seed))} } //nolint:gosec // repeatable

func (r random) of(list ...string) string { return list[r.IntN(len(list))] }

func (r random) selector(groups []Group) string {
	list := []string{"node:laptop", "node:phone", "node:db1", "node:db2", "node:web", "node:guest", "label:team=dba", "label:role=db", "label:new=one"}
	for _, g := range groups {
		list = append(list, "group:"+g.Name)
	}
	return r.of(list...)
}

func (r random) document() *Document {
	d := &Document{}
	for i := range r.IntN(3) {
		g := Group{Name: fmt.Sprint("g", i)}
		for range r.IntN(4) {
			g.Members = append(g.Members, r.selector(nil))
		}
		slices.Sort(g.Members)
		g.Members = slices.Compact(g.Members)
		d.Groups = append(d.Groups, g)
	}
	for i := range r.IntN(7) {
		e := Entry{Grant: Grant{From: r.selector(d.Groups), To: r.selector(d.Groups), Segment: r.of("lan", "dmz"), Observe: r.IntN(5) == 0}}
		for range r.IntN(3) {
			e.Allow = append(e.Allow, r.of("tcp:22", "tcp", "udp:50-60", "icmp", "ip", "ethertype:0x88b5", "multicast:239.1.0.0/16", "broadcast", "proto:47"))
		}
		slices.Sort(e.Allow)
		e.Allow = slices.Compact(e.Allow)
		if r.IntN(3) == 0 {
			e.To = "segment:" + e.Segment
		}
		if r.IntN(2) == 0 {
			e.Name = fmt.Sprint("n", i)
		}
		if r.IntN(4) == 0 {
			e.Expires = start.Add(time.Duration(1+r.IntN(100)) * time.Second)
		}
		e.Both = r.IntN(3) == 0 && (e.Allow != nil || e.To[:4] == "node")
		if !slices.ContainsFunc(d.Grants, func(o Entry) bool { o.Name = e.Name; return o.String() == e.String() }) {
			d.Grants = append(d.Grants, e)
		}
	}
	for range r.IntN(4) {
		d.Tests = append(d.Tests, Test{
			From: r.selector(d.Groups), To: r.selector(d.Groups), Segment: r.of("lan", "dmz"), What: r.of("tcp:22", "icmp", "arp"), Allow: r.IntN(2) == 0,
		})
	}
	return d
}

// TestProperties: over random documents, what is read and written is the same, applying what there is changes nothing, and there
// and back again is where one was, but for the ids.
func TestProperties(t *testing.T) {
	r := newRandom(7)
	for round := range 300 {
		a, b := r.document(), r.document()
		text := yamlOf(t, a)
		if again := yamlOf(t, parse(t, text)); again != text {
			t.Fatalf("round %d: written, read and written again, it is\n%s\nand was\n%s", round, again, text)
		}
		m := apply(t, network(), a)
		canonical := Of(m)
		if p := plan(t, m, canonical); !p.Empty() {
			t.Fatalf("round %d: what there is changes %+v:\n%s", round, p, text)
		}
		if d := diff(t, m, parse(t, text)); !d.Empty() {
			t.Fatalf("round %d: a document and itself differ by %+v", round, d)
		}
		there := apply(t, m, b)
		back := apply(t, there, canonical)
		got, want := Of(back), canonical
		got.Version, want.Version = 0, 0
		if yamlOf(t, got) != yamlOf(t, want) {
			t.Fatalf("round %d: there and back again, it is\n%s\nand was\n%s", round, yamlOf(t, got), yamlOf(t, want))
		}
		for id := range back.Grants {
			if there.Grants[id] == nil && m.Grants[id] != nil {
				t.Fatalf("round %d: a removed grant's id %d was given again", round, id)
			}
		}
		p := plan(t, m, b)
		if restored := undo(p.Facts(m), p.Undo(m)); yamlOf(t, Of(model.Derive(restored, 9, m))) != yamlOf(t, Of(m)) {
			t.Fatalf("round %d: what is put back is not what was", round)
		}
	}
}

// undo puts back what was, as the controller does.
func undo(f model.Facts, p *model.Pending) model.Facts {
	for _, id := range p.NewGrants {
		delete(f, (&model.Grant{ID: id}).Key())
	}
	for _, name := range p.NewGroups {
		delete(f, (&model.Group{Name: name}).Key())
	}
	for _, g := range p.Grants {
		f[g.Key()] = g
	}
	for _, g := range p.Groups {
		f[g.Key()] = g
	}
	tests := &model.Tests{List: p.Tests}
	f[tests.Key()] = tests
	return f
}

// Ten thousand grants take seconds, not minutes.
func TestLargeDocument(t *testing.T) {
	d := &Document{}
	for i := range maxGrants {
		d.Grants = append(d.Grants, Entry{Grant: Grant{
			From: []string{"node:laptop", "label:team=dba", "node:web", "label:role=db"}[i%4], To: []string{"node:db1", "label:role=db", "node:guest"}[i%3],
			Segment: "lan", Allow: []string{fmt.Sprintf("tcp:%d", 1+i)},
		}})
	}
	for i := range maxTests {
		d.Tests = append(d.Tests, Test{From: "node:laptop", To: "node:db1", Segment: "lan", What: fmt.Sprintf("tcp:%d", 1+12*(i%800)), Allow: true})
	}
	text := yamlOf(t, d)
	t.Logf("%d bytes", len(text))
	begun := time.Now()
	m := network()
	p := plan(t, m, parse(t, text))
	after := p.Preview(m)
	if failed := Failures(Check(after, p.Tests, start)); len(failed) > 0 {
		t.Errorf("%d tests fail, the first %s", len(failed), failed[0].String())
	}
	if words := p.Diff(m, after, start); len(words.Grants) != maxGrants {
		t.Errorf("%d grants are told of", len(words.Grants))
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("it took %v", took)
	}
}

// FuzzParse: whatever is read is read again as it is written, and nothing panics.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("version: 3\ngrants: []\n"))
	f.Add([]byte("grants: &a [*a]\n"))
	f.Add([]byte("grants:\n- {from: 'node:a', to: !!binary bm9kZTpi, allow: [0x10, 1.5, true, null]}\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("grants: !!set {a, b}\ntests: ~\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		begun := time.Now()
		d, err := Parse(data)
		if took := time.Since(begun); took > 2*time.Second {
			t.Fatalf("%d bytes took %v", len(data), took)
		}
		if err != nil {
			return
		}
		text := yamlOf(t, d)
		again, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if yamlOf(t, again) != text {
			t.Fatalf("it is\n%s\nand was\n%s", yamlOf(t, again), text)
		}
		m := network()
		_, _ = again.Plan(m, start, counter(m))
	})
}

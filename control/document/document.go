package document

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/etherloom/etherloom/control/model"
)

// Document is a whole policy: all groups, all grants, all tests. Segments are no part of it.
//
//	version: 12
//	groups:
//	  - name: dba
//	    members: [label:team=dba, node:laptop]
//	grants:
//	  - name: db
//	    from: group:dba
//	    to: node:db1
//	    segment: lan
//	    allow: [tcp:5432, icmp]
//	tests:
//	  - from: node:laptop
//	    to: node:db1
//	    segment: lan
//	    what: tcp:5432
//	    expect: allow
type Document struct {
	Version uint64 // that it was made from; 0: none is named
	Groups  []Group
	Grants  []Entry
	Tests   []Test
}

// Group is a group as it is written.
type Group struct {
	Name    string
	Members []string
	Line    int // of the document
}

// Entry is a grant with its place.
type Entry struct {
	Grant
	Line int
}

// Test is a test as it is written.
type Test struct {
	From, To string // node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT
	Segment  string // empty: that of a machine it names, or the only segment there is
	What     string // such as tcp:5432
	Allow    bool
	Line     int
}

// What a document may have at most.
const (
	MaxSize   = 2 << 20 // bytes
	maxGroups = 1000
	maxGrants = 10000
	maxTests  = 1000
	maxList   = 1000 // members of a group
)

// Of is the policy that a network has. Its order is that of what is said, so equal policies are equal documents; what a node
// that was removed still held is left out.
func Of(m *model.Model) *Document {
	d := &Document{Version: m.Counters.Policy}
	for _, name := range slices.Sorted(maps.Keys(m.Groups)) {
		d.Groups = append(d.Groups, Group{Name: name, Members: m.MembersOf(m.Groups[name])})
	}
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		if e := entryOf(m, m.Grants[id]); e.From != "" && e.To != "" && e.Segment != "" {
			d.Grants = append(d.Grants, e)
		}
	}
	slices.SortStableFunc(d.Grants, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Name, b.Name),
			slices.Compare(a.Allow, b.Allow), compareBool(a.Both, b.Both), compareBool(a.Observe, b.Observe), strings.Compare(a.When, b.When), a.Expires.Compare(b.Expires))
	})
	for _, t := range m.Tests {
		if w := testOf(m, &t); w.From != "" && w.To != "" && w.Segment != "" {
			d.Tests = append(d.Tests, w)
		}
	}
	return d
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// entryOf writes a grant with the names of today.
func entryOf(m *model.Model, g *model.Grant) Entry {
	e := Entry{Grant: Grant{Name: g.Name, From: m.Text(g.Source()), Allow: g.Allow, Both: g.Both, Observe: g.Observe, When: g.When, Expires: g.Expires}}
	if s := m.Segments[g.VNI]; s != nil {
		e.Segment = s.Name
		e.To = "segment:" + s.Name
	}
	if g.Target != nil {
		e.To = m.Text(*g.Target)
	}
	return e
}

func testOf(m *model.Model, t *model.Test) Test {
	w := Test{From: m.Text(t.From), To: m.Text(t.To), What: t.What, Allow: t.Allow}
	if s := m.Segments[t.VNI]; s != nil {
		w.Segment = s.Name
	}
	return w
}

// String is the test in one line.
func (t Test) String() string {
	on := ""
	if t.Segment != "" {
		on = " on " + t.Segment
	}
	return fmt.Sprintf("%s to %s%s: %s", t.From, t.To, on, t.What)
}

// String is the grant in one line.
func (g *Grant) String() string {
	text := fmt.Sprintf("%s to %s", g.From, g.To)
	if g.Name != "" {
		text = g.Name + ": " + text
	}
	if g.Segment != "" && !strings.HasPrefix(g.To, "segment:") {
		text += " on " + g.Segment
	}
	if len(g.Allow) == 0 {
		text += ", everything"
	} else {
		text += ", " + strings.Join(g.Allow, " ")
	}
	if g.Both {
		text += ", both ways"
	}
	if g.Observe {
		text += ", only observed"
	}
	if g.When != "" {
		text += ", when " + strings.Join(strings.Fields(g.When), " ")
	}
	if !g.Expires.IsZero() {
		text += ", until " + g.Expires.UTC().Format(time.RFC3339)
	}
	return text
}

// The document as YAML is written. How it is read is in parse.go.
type (
	writtenDocument struct {
		Version uint64         `yaml:"version,omitempty"`
		Groups  []writtenGroup `yaml:"groups"`
		Grants  []writtenGrant `yaml:"grants"`
		Tests   []writtenTest  `yaml:"tests"`
	}
	writtenGroup struct {
		Name    string   `yaml:"name"`
		Members []string `yaml:"members,flow"`
	}
	writtenGrant struct {
		Name      string   `yaml:"name,omitempty"`
		From      string   `yaml:"from"`
		To        string   `yaml:"to"`
		Segment   string   `yaml:"segment,omitempty"`
		Allow     []string `yaml:"allow,flow,omitempty"`
		Direction string   `yaml:"direction,omitempty"`
		Mode      string   `yaml:"mode,omitempty"`
		When      string   `yaml:"when,omitempty"`
		Expires   string   `yaml:"expires,omitempty"`
	}
	writtenTest struct {
		From    string `yaml:"from"`
		To      string `yaml:"to"`
		Segment string `yaml:"segment,omitempty"`
		What    string `yaml:"what"`
		Expect  string `yaml:"expect"`
	}
)

// YAML writes the document as Parse reads it.
func (d *Document) YAML() ([]byte, error) {
	w := writtenDocument{Version: d.Version, Groups: []writtenGroup{}, Grants: []writtenGrant{}, Tests: []writtenTest{}}
	for _, g := range d.Groups {
		w.Groups = append(w.Groups, writtenGroup{g.Name, g.Members})
	}
	for _, g := range d.Grants {
		e := writtenGrant{Name: g.Name, From: g.From, To: g.To, Segment: g.Segment, Allow: g.Allow, When: g.When}
		if strings.HasPrefix(g.To, "segment:") {
			e.Segment = ""
		}
		if g.Both {
			e.Direction = "both"
		}
		if g.Observe {
			e.Mode = "observe"
		}
		if !g.Expires.IsZero() {
			e.Expires = g.Expires.UTC().Format(time.RFC3339Nano)
		}
		w.Grants = append(w.Grants, e)
	}
	for _, t := range d.Tests {
		w.Tests = append(w.Tests, writtenTest{t.From, t.To, t.Segment, t.What, expectation(t.Allow)})
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(w); err != nil {
		return nil, fmt.Errorf("write the policy document: %w", err)
	}
	return b.Bytes(), nil
}

func expectation(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

package document

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
)

// Diff is what a plan changes, in words.
type Diff struct {
	Groups []string // each with + (made), - (removed) or ~ (changed) in front
	Grants []string
	Tests  []string
	Access []Access
	// Untold means that so many pairs are concerned that who gains and loses is not worked out.
	Untold bool
}

// Access is what some nodes gain and lose towards others: what they may begin, by grants that are enforced.
type Access struct {
	From, To []string // nodes, as selectors
	Segment  string
	Gains    []string // terms
	Loses    []string
	Keeps    []string // of those that lose something
}

// Empty reports whether nothing changes.
func (d *Diff) Empty() bool {
	return len(d.Groups)+len(d.Grants)+len(d.Tests)+len(d.Access) == 0 && !d.Untold
}

// Diff says what the plan changes between a network and its Preview.
func (p *Plan) Diff(before, after *model.Model, now time.Time) *Diff {
	d := &Diff{}
	for _, g := range p.Groups {
		d.Groups = append(d.Groups, groupLine(before, g))
	}
	for _, g := range p.GoneGroups {
		d.Groups = append(d.Groups, "- "+g.Name)
	}
	for _, g := range p.Removed {
		e := entryOf(before, g)
		d.Grants = append(d.Grants, fmt.Sprintf("- grant %d: %s", g.ID, &e.Grant))
	}
	for _, g := range p.Added {
		e := entryOf(after, g)
		d.Grants = append(d.Grants, fmt.Sprintf("+ %s", &e.Grant))
	}
	if p.NewTests {
		d.Tests = testLines(before, after)
	}
	d.access(before, after, now)
	return d
}

func groupLine(before *model.Model, g *model.Group) string {
	now := before.MembersOf(g)
	old := before.Groups[g.Name]
	if old == nil {
		return fmt.Sprintf("+ %s: %s", g.Name, strings.Join(now, ", "))
	}
	var parts []string
	were := before.MembersOf(old)
	for _, m := range now {
		if !slices.Contains(were, m) {
			parts = append(parts, m+" joins")
		}
	}
	for _, m := range were {
		if !slices.Contains(now, m) {
			parts = append(parts, m+" leaves")
		}
	}
	return fmt.Sprintf("~ %s: %s", g.Name, strings.Join(parts, ", "))
}

func testLines(before, after *model.Model) []string {
	lines := func(m *model.Model) []string {
		var out []string
		for i := range m.Tests {
			t := testOf(m, &m.Tests[i])
			out = append(out, fmt.Sprintf("%s, expect %s", t, expectation(t.Allow)))
		}
		return out
	}
	old, now := lines(before), lines(after)
	var out []string
	for _, l := range old {
		if !slices.Contains(now, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range now {
		if !slices.Contains(old, l) {
			out = append(out, "+ "+l)
		}
	}
	if len(out) == 0 {
		out = []string{"~ their order"}
	}
	return out
}

// Text is the whole in words, in at most so many lines for each part.
func (d *Diff) Text(most int) string {
	if d.Empty() {
		return "nothing changes\n"
	}
	var b strings.Builder
	part := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s:\n", title)
		for i, l := range lines {
			if i == most {
				fmt.Fprintf(&b, "  and %d more\n", len(lines)-most)
				break
			}
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	part("Groups", d.Groups)
	part("Grants", d.Grants)
	part("Tests", d.Tests)
	var gains, loses []string
	for _, a := range d.Access {
		if len(a.Gains) > 0 {
			gains = append(gains, fmt.Sprintf("%s: %s", a.String(), few(a.Gains)))
		}
		if len(a.Loses) > 0 {
			line := fmt.Sprintf("%s: %s", a.String(), few(a.Loses))
			if len(a.Keeps) > 0 {
				line += "; what stays: " + few(a.Keeps)
			}
			loses = append(loses, line)
		}
	}
	part("Gained", gains)
	part("Lost", loses)
	switch {
	case d.Untold:
		b.WriteString("So many machines are concerned that who gains and who loses what is not told.\n")
	case len(d.Access) == 0:
		b.WriteString("Nobody gains or loses anything now.\n")
	}
	return b.String()
}

// String says between whom.
func (a *Access) String() string {
	return fmt.Sprintf("%s to %s on %s", few(a.From), few(a.To), a.Segment)
}

// few lists names, of many the first.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

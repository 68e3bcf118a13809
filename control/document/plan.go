package document

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
)

// Plan is what is to be done so that a network has the policy of a document. Grants that say the same and bear the same name stay
// as they are, with their ids.
type Plan struct {
	Groups     []*model.Group // made or changed
	GoneGroups []*model.Group
	Added      []*model.Grant
	Removed    []*model.Grant
	Tests      []model.Test
	NewTests   bool // Tests are others than those there were
}

// Empty reports whether nothing is to be done.
func (p *Plan) Empty() bool {
	return len(p.Groups)+len(p.GoneGroups)+len(p.Added)+len(p.Removed) == 0 && !p.NewTests
}

// Plan works out what is to be done in a network. next gives the number of a new grant.
func (d *Document) Plan(m *model.Model, now time.Time, next func() model.GrantID) (*Plan, error) {
	p := &Plan{}
	errs := &mistakes{}
	groups := d.planGroups(m, p, errs)
	with := m.WithGroups(groups)
	d.planGrants(m, with, p, now, errs)
	d.planTests(m, with, p, errs)
	if err := errs.join(); err != nil {
		return nil, err
	}
	for _, g := range p.Added {
		g.ID, g.Created = next(), now
	}
	return p, nil
}

func (d *Document) planGroups(m *model.Model, p *Plan, errs *mistakes) map[string]*model.Group {
	groups := map[string]*model.Group{}
	for _, w := range d.Groups {
		g, err := m.NewGroup(w.Name, w.Members)
		switch {
		case err != nil:
			errs.add(fmt.Errorf("line %d: group %q: %w", w.Line, short(w.Name), err))
			groups[w.Name] = &model.Group{Name: w.Name} // so that grants to it are not wrong, too
		case groups[w.Name] != nil:
			errs.add(fmt.Errorf("line %d: there are two groups %q: give one another name", w.Line, w.Name))
		default:
			groups[w.Name] = g
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g, old := groups[name], m.Groups[name]
		if old == nil || !slices.Equal(m.MembersOf(old), m.MembersOf(g)) {
			p.Groups = append(p.Groups, g)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Groups)) {
		if groups[name] == nil {
			p.GoneGroups = append(p.GoneGroups, m.Groups[name])
		}
	}
	return groups
}

// sameKey is equal for grants that may say the same.
func sameKey(g *model.Grant) string {
	target := model.Selector{}
	if g.Target != nil {
		target = *g.Target
	}
	return fmt.Sprint(g.Source(), g.Target != nil, target, g.VNI, strings.Join(g.Allow, " "))
}

func (d *Document) planGrants(m, with *model.Model, p *Plan, now time.Time, errs *mistakes) {
	wrong := func(e *Entry, format string, args ...any) {
		errs.add(fmt.Errorf("line %d: grant %s: "+format, append([]any{e.Line, short(e.String())}, args...)...))
	}
	type meant struct {
		*model.Grant
		line int
	}
	names, said, kept := map[string]int{}, map[string][]meant{}, map[model.GrantID]bool{}
	there := map[string][]*model.Grant{}
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		key := sameKey(m.Grants[id])
		there[key] = append(there[key], m.Grants[id])
	}
	for i := range d.Grants {
		e := &d.Grants[i]
		g, err := e.Resolve(with)
		if err != nil {
			wrong(e, "%w", err)
			continue
		}
		if line := names[g.Name]; g.Name != "" && line != 0 {
			wrong(e, "the one in line %d has the same name: give one another", line)
			continue
		}
		key := sameKey(g)
		if i := slices.IndexFunc(said[key], func(o meant) bool { return Same(o.Grant, g) }); i >= 0 {
			wrong(e, "the one in line %d says this already: remove one", said[key][i].line)
			continue
		}
		names[g.Name], said[key] = e.Line, append(said[key], meant{g, e.Line})
		old := slices.IndexFunc(there[key], func(o *model.Grant) bool { return o.Name == g.Name && Same(o, g) })
		switch {
		case old >= 0:
			kept[there[key][old].ID] = true
		case !g.Expires.IsZero() && !g.Expires.After(now):
			wrong(e, "it has ended: leave it out, or name a time in the future")
		default:
			p.Added = append(p.Added, g)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		if !kept[id] {
			p.Removed = append(p.Removed, m.Grants[id])
		}
	}
}

func (d *Document) planTests(m, with *model.Model, p *Plan, errs *mistakes) {
	for i := range d.Tests {
		t, err := d.Tests[i].Resolve(with)
		if err != nil {
			errs.add(fmt.Errorf("line %d: test %s: %w", d.Tests[i].Line, short(d.Tests[i].String()), err))
			continue
		}
		p.Tests = append(p.Tests, t)
	}
	p.NewTests = !slices.Equal(p.Tests, m.Tests)
}

// Resolve says what a test means in a network.
func (t *Test) Resolve(m *model.Model) (model.Test, error) {
	from, vni, to, err := resolveEnds(m, t.From, t.To, t.Segment)
	if err != nil {
		return model.Test{}, err
	}
	if to == nil {
		return model.Test{}, fmt.Errorf("to: a frame is for a node or a machine, found %q: name one, a label or a group, and the segment by segment: NAME", t.To)
	}
	w, err := parseWhat(t.What)
	if err != nil {
		return model.Test{}, fmt.Errorf("what: %w", err)
	}
	return model.Test{From: from, To: *to, VNI: vni, What: w.String(), Allow: t.Allow}, nil
}

// Facts are a network's facts after the plan.
func (p *Plan) Facts(m *model.Model) model.Facts {
	f := maps.Clone(m.Facts)
	for _, g := range p.GoneGroups {
		delete(f, g.Key())
	}
	for _, g := range p.Removed {
		delete(f, g.Key())
	}
	for _, g := range p.Groups {
		f[g.Key()] = g
	}
	for _, g := range p.Added {
		f[g.Key()] = g
	}
	if p.NewTests {
		t := &model.Tests{List: p.Tests}
		f[t.Key()] = t
	}
	return f
}

// Preview is a network as it would be after the plan, with a place for every member for which there is room.
func (p *Plan) Preview(m *model.Model) *model.Model {
	if p.Empty() {
		return Seated(m)
	}
	return Seated(model.Derive(p.Facts(m), m.Version, m))
}

// Seated is the Model in which members that have no station yet have been given one, as the store will do.
func Seated(m *model.Model) *model.Model {
	if !m.Vacant() {
		return m
	}
	nodes, err := m.Seat(len(m.Nodes), m)
	if err != nil || len(nodes) == 0 {
		return m // there is no room for them
	}
	f := maps.Clone(m.Facts)
	for _, n := range nodes {
		f[n.Key()] = n
	}
	return model.Derive(f, m.Version, m)
}

// UndoLines says in words what putting back does to grants.
func UndoLines(m *model.Model, p *model.Pending) []string {
	var out []string
	for _, id := range p.NewGrants {
		if g := m.Grants[id]; g != nil {
			e := entryOf(m, g)
			out = append(out, fmt.Sprintf("- grant %d: %s", id, &e.Grant))
		}
	}
	for _, g := range p.Grants {
		e := entryOf(m, g)
		out = append(out, fmt.Sprintf("+ grant %d: %s", g.ID, &e.Grant))
	}
	return out
}

// Undo is what puts back what the plan changes.
func (p *Plan) Undo(m *model.Model) *model.Pending {
	out := &model.Pending{Grants: p.Removed, Groups: slices.Clone(p.GoneGroups), Tests: m.Tests}
	for _, g := range p.Added {
		out.NewGrants = append(out.NewGrants, g.ID)
	}
	for _, g := range p.Groups {
		if old := m.Groups[g.Name]; old != nil {
			out.Groups = append(out.Groups, old)
		} else {
			out.NewGroups = append(out.NewGroups, g.Name)
		}
	}
	return out
}

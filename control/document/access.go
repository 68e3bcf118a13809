package document

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// access works out who gains and who loses what.
func (d *Diff) access(before, after *model.Model, now time.Time) {
	c := newCrowd(newJudge(before, now), newJudge(after, now))
	was, ok1 := c.reach(c.before)
	is, ok2 := c.reach(c.after)
	if !ok1 || !ok2 {
		d.Untold = true
		return
	}
	type change struct {
		vni                 model.VNI
		gains, loses, keeps string
	}
	// By what changes, and then from whom, the classes towards which it does.
	changes := map[change]map[int][]int{}
	look := func(e ends) {
		ch := change{vni: e.vni, gains: strings.Join(is[e].beyond(was[e]), ", "), loses: strings.Join(was[e].beyond(is[e]), ", ")}
		if ch.gains == "" && ch.loses == "" {
			return
		}
		if ch.loses != "" {
			ch.keeps = strings.Join(is[e].within(was[e]), ", ")
		}
		if changes[ch] == nil {
			changes[ch] = map[int][]int{}
		}
		if !slices.Contains(changes[ch][e.from], e.to) {
			changes[ch][e.from] = append(changes[ch][e.from], e.to)
		}
	}
	for e := range was {
		look(e)
	}
	for e := range is {
		look(e)
	}
	w := newNaming(after)
	for ch, towards := range changes {
		alike := map[string][]int{}
		for from, to := range towards {
			slices.Sort(to)
			alike[fmt.Sprint(to)] = append(alike[fmt.Sprint(to)], from)
		}
		for _, froms := range alike {
			d.Access = append(d.Access, Access{
				From: w.names(c.all(froms)), To: w.names(c.all(towards[froms[0]])), Segment: after.Segments[ch.vni].Name,
				Gains: split(ch.gains), Loses: split(ch.loses), Keeps: split(ch.keeps),
			})
		}
	}
	slices.SortFunc(d.Access, func(a, b Access) int { return strings.Compare(a.String(), b.String()) })
}

func split(terms string) []string {
	if terms == "" {
		return nil
	}
	return strings.Split(terms, ", ")
}

// naming finds one name for several nodes, if there is one.
type naming struct {
	m     *model.Model
	known map[string]string
}

func newNaming(m *model.Model) *naming {
	w := &naming{m, map[string]string{}}
	active := m.Meant()
	add := func(s model.Selector) {
		if ids := active(s); len(ids) > 1 {
			what := "nodes"
			if slices.ContainsFunc(ids, func(id identity.ID) bool { return m.Nodes[id] == nil }) {
				what = "machines"
			}
			w.known[fmt.Sprint(ids)] = fmt.Sprintf("%s (%d %s)", m.Text(s), len(ids), what)
		}
	}
	labels := map[string]bool{}
	for _, n := range m.Nodes {
		for _, l := range n.Labels {
			labels[l] = true
		}
	}
	for _, l := range slices.Sorted(maps.Keys(labels)) {
		add(model.Selector{Label: l})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Groups)) {
		add(model.Selector{Group: name})
	}
	return w
}

func (w *naming) names(ids []identity.ID) []string {
	if name, known := w.known[fmt.Sprint(ids)]; known {
		return []string{name}
	}
	var out []string
	for _, id := range ids {
		out = append(out, w.m.Name(id))
	}
	return out
}

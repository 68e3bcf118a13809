package server

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/condition"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// Each controller judges by the reports that it has itself. Among several these rules keep the peace:
//
//   - A report counts while the stream that it came by is open: the node says at once when something changes. A controller
//     without such a stream leaves the node's verdict as it is, and gives nobody anything.
//   - A holder of whom nothing is heard for PostureMaxAge no longer meets the condition. Where there are other controllers,
//     the one that misses it first writes a doubt into the verdict, and whoever hears the node takes the doubt away. A
//     doubt that stands for doubtTime decides.
//   - What another controller has found by a report at least as new is not undone for flipTime: by then this one has the
//     newer report, or its stream is known to be dead, or the clocks agree on which side of a time they are.

const (
	doubtTime    = 10 * time.Second
	flipTime     = 30 * time.Second
	maxDoubtWait = 24 * time.Hour
	// maxRulings and maxFlips bound one transaction; the next one does the rest.
	maxRulings = 20
	maxFlips   = 500
)

// ruling is a verdict that is to be stored, and what changes by it.
type ruling struct {
	verdict *model.Verdict
	note    *rulingNote
	doubted []identity.ID
}

// rulingNote is what the audit log says of a change.
type rulingNote struct {
	Gained  []named `json:"gained,omitempty"`
	Lost    []named `json:"lost,omitempty"`
	Doubted []named `json:"doubted,omitempty"` // not heard for too long by one controller
	Heard   []named `json:"heard,omitempty"`   // doubted, and heard by another one
}

// named is a node in the audit log.
type named struct {
	ID   identity.ID `json:"id"`
	Name string      `json:"name"`
}

// plan judges every grant with a condition, and returns what is to be written; without gains, only what takes away.
func (j *judge) plan(m *model.Model, gains bool) []*ruling {
	var out []*ruling
	flips := 0
	j.gains = gains
	for _, g := range inOrder(m.Grants) {
		if g.When == "" || len(out) == maxRulings || flips >= maxFlips {
			continue
		}
		if r := j.rule(m, g, maxFlips-flips); r != nil {
			out = append(out, r)
			flips += len(r.note.Gained) + len(r.note.Lost)
		}
	}
	if len(j.compiled) > 2*len(m.Grants)+maxRulings {
		clear(j.compiled)
	}
	maps.DeleteFunc(j.opinions, func(q question, o opinion) bool { return m.Grants[q.grant] != o.grant || m.Nodes[q.node] == nil })
	return out
}

// finding is what comes of one holder or candidate.
type finding struct {
	holds   bool
	doubted bool
	report  uint64
}

// rule judges one grant; nil if nothing flips. At most room nodes flip.
func (j *judge) rule(m *model.Model, g *model.Grant, room int) *ruling {
	now, cond, old := j.c.now(), j.condition(g), m.Verdicts[g.ID]
	r := &ruling{verdict: &model.Verdict{Grant: g.ID, Holders: []identity.ID{}}, note: &rulingNote{}}
	flips := map[identity.ID]model.Flip{}
	candidates := m.Candidates(g.ID)
	for _, id := range candidates {
		f, held := finding{}, old.Holds(id)
		if cond != nil {
			f = j.find(m, g, cond, m.Nodes[id])
		}
		if f.holds != held && (room == 0 || f.holds && !j.mayGain(cond, question{g.ID, id})) {
			f.holds = held // not now
		}
		if f.holds != held {
			room--
			flips[id] = model.Flip{Node: id, Report: f.report, By: j.c.selfID(), At: now}
		}
		r.enter(old, m.Nodes[id], f, now)
	}
	r.dismiss(m, old, candidates)
	if n := r.note; len(n.Gained)+len(n.Lost)+len(n.Doubted)+len(n.Heard) == 0 {
		return nil
	}
	if !alone(m) {
		r.verdict.Flips = merged(old, flips, now)
	}
	return r
}

// enter takes what was found of a candidate into the verdict and the note.
func (r *ruling) enter(old *model.Verdict, n *model.Node, f finding, now time.Time) {
	name, held, doubt := named{n.ID, n.Name}, old.Holds(n.ID), old.Doubted(n.ID)
	switch {
	case f.holds && !held:
		r.note.Gained = append(r.note.Gained, name)
	case !f.holds && held:
		r.note.Lost = append(r.note.Lost, name)
	case f.holds && f.doubted && doubt == nil:
		doubt = &model.Doubt{Node: n.ID, At: now}
		r.note.Doubted, r.doubted = append(r.note.Doubted, name), append(r.doubted, n.ID)
	case f.holds && !f.doubted && doubt != nil:
		r.note.Heard = append(r.note.Heard, name)
	}
	if !f.holds {
		return
	}
	r.verdict.Holders = append(r.verdict.Holders, n.ID)
	if f.doubted && doubt != nil {
		r.verdict.Doubts = append(r.verdict.Doubts, *doubt)
	}
}

// dismiss takes the grant from holders that its source no longer selects.
func (r *ruling) dismiss(m *model.Model, old *model.Verdict, candidates []identity.ID) {
	if old == nil {
		return
	}
	for _, id := range old.Holders {
		if _, ok := slices.BinarySearch(candidates, id); !ok {
			name := named{ID: id}
			if n := m.Nodes[id]; n != nil {
				name.Name = n.Name
			}
			r.note.Lost = append(r.note.Lost, name)
		}
	}
}

// find judges one candidate.
func (j *judge) find(m *model.Model, g *model.Grant, cond *condition.Condition, n *model.Node) finding {
	v := m.Verdicts[g.ID]
	held := v.Holds(n.ID)
	d, known := j.c.dossiers.get(n.ID)
	if cond.UsesPosture() && !d.live() {
		return j.unheard(m, v, n.ID, d, known)
	}
	f := finding{holds: j.met(g, cond, n, d)}
	if cond.UsesPosture() {
		delete(j.raised, n.ID)
		f.report = d.report.GetSequence()
	}
	if f.holds != held && j.mustWait(v.Flipped(n.ID), f.report) {
		f.holds = held
	}
	return f
}

// mustWait reports whether another controller has found otherwise, by a report at least as new, a moment ago.
func (j *judge) mustWait(f *model.Flip, report uint64) bool {
	return f != nil && f.By != j.c.selfID() && report <= f.Report && j.c.now().Before(f.At.Add(flipTime))
}

// unheard judges a candidate that no stream to this controller speaks of.
func (j *judge) unheard(m *model.Model, v *model.Verdict, id identity.ID, d dossier, known bool) finding {
	if !v.Holds(id) {
		return finding{}
	}
	now, doubt := j.c.now(), v.Doubted(id)
	end := j.began.Add(j.c.opts.PostureGrace)
	if known {
		end = d.lost.Add(j.c.opts.PostureMaxAge)
	}
	switch {
	case now.Before(end):
		return finding{holds: true, doubted: doubt != nil}
	case alone(m):
		return finding{}
	case doubt != nil:
		return finding{holds: now.Before(doubt.At.Add(doubtTime)), doubted: true}
	}
	return finding{holds: true, doubted: !now.Before(j.raised[id].next)}
}

// mayGain limits how often a node may come to meet a condition by what it says of itself, and so how often it may flip.
func (j *judge) mayGain(cond *condition.Condition, q question) bool {
	if !j.gains {
		return false
	}
	if cond.UsesPosture() && !j.paid[q] {
		if !j.c.mayChange(q.node) {
			return false
		}
		j.paid[q] = true
	}
	return true
}

// alone reports whether this is the only controller.
func alone(m *model.Model) bool { return len(m.Controllers) < 2 }

// merged are the changes of a moment ago and those of now.
func merged(old *model.Verdict, flips map[identity.ID]model.Flip, now time.Time) []model.Flip {
	if old != nil {
		for _, f := range old.Flips {
			if _, ok := flips[f.Node]; !ok && now.Before(f.At.Add(flipTime)) {
				flips[f.Node] = f
			}
		}
	}
	return slices.SortedFunc(maps.Values(flips), func(a, b model.Flip) int { return cmp.Compare(a.Node, b.Node) })
}

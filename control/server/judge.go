package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/condition"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// judge decides who meets the conditions of grants: when the facts change, when a node reports, and every second for
// those who ask for the time. Only what flips is written. It belongs to one goroutine.
type judge struct {
	c        *Controller
	compiler *condition.Compiler
	began    time.Time

	compiled map[string]*condition.Condition // by expression; nil: it does not compile
	opinions map[question]opinion
	paid     map[question]bool // who may come to meet a condition, and has not been written down yet
	raised   map[identity.ID]raised
	gains    bool   // plan may let somebody come to meet a condition
	trouble  string // that was logged last
}

// question is whether a node meets the condition of a grant.
type question struct {
	grant model.GrantID
	node  identity.ID
}

// opinion is the answer to a question, and all that it rests on but the time.
type opinion struct {
	grant    *model.Grant
	node     *model.Node
	sequence uint64
	received time.Time
	met      bool
}

// raised is when this controller has doubted a node, and when it may again.
type raised struct {
	wait time.Duration
	next time.Time
}

func newJudge(c *Controller) (*judge, error) {
	compiler, err := condition.NewCompiler()
	if err != nil {
		return nil, err
	}
	return &judge{
		c: c, compiler: compiler, began: c.now(), compiled: map[string]*condition.Condition{}, opinions: map[question]opinion{},
		paid: map[question]bool{}, raised: map[identity.ID]raised{},
	}, nil
}

// judgeEvery is how often those conditions are judged that ask for the time.
const judgeEvery = time.Second

var errOutdated = errors.New("the facts have changed meanwhile")

// run judges until the context ends.
func (j *judge) run(ctx context.Context) error {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		m, stale := j.c.store.Current()
		if j.look(ctx, m) && ctx.Err() == nil {
			continue // at once: there may be more than one transaction takes
		}
		select {
		case <-ctx.Done():
			return nil
		case <-stale:
		case <-j.c.dossiers.news:
		case <-tick.C:
		}
	}
}

// look judges everything, and reports whether there may be more to do now.
func (j *judge) look(ctx context.Context, m *model.Model) bool {
	plan := j.plan(m, true)
	err := j.write(ctx, m, plan)
	if errors.Is(err, model.ErrFull) {
		// Whoever gained finds no free address on the segment. That must not keep the grant with those who have lost it.
		plan = j.plan(m, false)
		err = errors.Join(err, j.write(ctx, m, plan))
	}
	switch {
	case err == nil:
		j.trouble = ""
		return len(plan) > 0
	case errors.Is(err, errOutdated):
		return true
	case ctx.Err() == nil && err.Error() != j.trouble:
		j.trouble = err.Error()
		j.c.log.Error("who meets the conditions of grants was not stored", slog.Any("err", err))
	}
	return false
}

// write stores the verdicts that have flipped.
func (j *judge) write(ctx context.Context, m *model.Model, plan []*ruling) error {
	if len(plan) == 0 {
		return nil
	}
	err := j.c.store.Update(ctx, j.c.actor(), func(tx *store.Tx) error {
		if tx.Model != m {
			return errOutdated
		}
		for _, r := range plan {
			tx.PutNoted("grant.verdict", r.verdict, r.note)
		}
		return nil
	})
	if err != nil {
		return err
	}
	clear(j.paid)
	now := j.c.now()
	for _, r := range plan {
		for _, id := range r.doubted {
			if last := j.raised[id]; !last.next.After(now) {
				wait := min(max(2*last.wait, j.c.opts.PostureMaxAge), maxDoubtWait)
				j.raised[id] = raised{wait, now.Add(wait)}
			}
		}
	}
	return nil
}

// condition returns a grant's compiled condition; nil if this program cannot compile it, which a newer one has let in.
func (j *judge) condition(g *model.Grant) *condition.Condition {
	cond, ok := j.compiled[g.When]
	if !ok {
		var err error
		if cond, err = j.compiler.Compile(g.When); err != nil {
			j.c.log.Error("nobody holds a grant whose condition does not compile", slog.Uint64("id", uint64(g.ID)), slog.Any("err", err))
		}
		j.compiled[g.When] = cond
	}
	return cond
}

// met answers a question, by the report that is given. An answer that does not depend on the time is kept.
func (j *judge) met(g *model.Grant, cond *condition.Condition, n *model.Node, d dossier) bool {
	q := question{g.ID, n.ID}
	now := opinion{grant: g, node: n}
	if cond.UsesPosture() {
		now.sequence, now.received = d.report.GetSequence(), d.received
	}
	if old, ok := j.opinions[q]; ok && !cond.UsesNow() {
		now.met = old.met
		if now == old {
			return old.met
		}
	}
	now.met = cond.Met(subject(n), d.report, j.c.now())
	j.opinions[q] = now
	return now.met
}

// subject is a node as conditions see it.
func subject(n *model.Node) *condition.Node {
	out := &condition.Node{Name: n.Name, Site: n.Site, Roles: n.Roles, Labels: map[string]string{}}
	for _, l := range n.Labels {
		key, value, _ := strings.Cut(l, "=")
		out.Labels[key] = value
	}
	return out
}

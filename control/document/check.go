package document

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// Outcome says what a test came to.
type Outcome uint8

// The outcomes. A test is void if no active node or machine is at one of its ends: it says nothing about the policy, so it hinders nobody.
// Otherwise an incident (a node is locked, which fails whoever expects that it reaches something) would close the policy to
// all who handle it.
const (
	Passed Outcome = iota
	Failed
	Void
)

// Result is what a test came to.
type Result struct {
	Test
	Outcome Outcome
	Found   string // what was found, in words
}

// Check runs tests against a network's policy. A test between several nodes holds if it holds for each pair of them.
func Check(m *model.Model, tests []model.Test, now time.Time) []Result {
	if len(tests) == 0 {
		return nil
	}
	j := newJudge(m, now)
	out := make([]Result, 0, len(tests))
	for i := range tests {
		out = append(out, j.run(&tests[i]))
	}
	return out
}

// Lines tells the results where their tests are in a document.
func Lines(results []Result, d *Document) []Result {
	for i := range results {
		if i < len(d.Tests) {
			results[i].Line = d.Tests[i].Line
		}
	}
	return results
}

func (j *judge) run(t *model.Test) Result {
	r := Result{Test: testOf(j.m, t)}
	w, err := parseWhat(t.What)
	if err != nil {
		r.Outcome, r.Found = Void, err.Error()
		return r
	}
	from, to := j.spokesmen(j.active(t.From), t.VNI), j.spokesmen(j.active(t.To), t.VNI)
	pairs := 0
	for _, a := range from {
		for _, b := range to {
			if a == b {
				continue
			}
			pairs++
			text, ok := j.between(w, a, b, t)
			if !ok {
				r.Outcome, r.Found = Failed, text
				return r
			}
			r.Found = text
		}
	}
	if pairs == 0 {
		r.Outcome, r.Found = Void, "there are no two active nodes or machines that it is about"
	}
	return r
}

// between says in words what is found between two nodes, and whether that is as expected.
func (j *judge) between(w what, a, b identity.ID, t *model.Test) (string, bool) {
	names := fmt.Sprintf("%s to %s", j.m.Name(a), j.m.Name(b))
	text, ok := "", true
	for _, f := range j.ask(w, a, b, t.VNI) {
		this := fmt.Sprintf("%s: denied: %s", names, f.why)
		if f.passes {
			this = fmt.Sprintf("%s: allowed by grant %s", names, j.grantName(f.grant))
		}
		if f.passes != t.Allow {
			return this, false
		}
		if text == "" {
			text = this
		}
	}
	return text, ok
}

func (j *judge) grantName(id model.GrantID) string {
	g := j.m.Grants[id]
	if g == nil {
		return fmt.Sprint(id)
	}
	e := entryOf(j.m, g)
	return fmt.Sprintf("%d (%s)", id, &e.Grant)
}

// Failures are the results that failed.
func Failures(results []Result) []Result {
	return slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Outcome != Failed })
}

// Broken are the tests of a network that held before a change and fail after it. What failed already, because a grant has
// ended or somebody forced it, hinders no other change.
func Broken(before, after *model.Model, now time.Time) []Result {
	failed := Failures(Check(after, after.Tests, now))
	if len(failed) == 0 {
		return nil
	}
	already := map[string]bool{}
	for _, r := range Failures(Check(before, before.Tests, now)) {
		already[r.key()] = true
	}
	return slices.DeleteFunc(failed, func(r Result) bool { return already[r.key()] })
}

func (r *Result) key() string { return r.Test.String() + expectation(r.Allow) }

// String says what a test expects and what was found.
func (r *Result) String() string {
	where := ""
	if r.Line > 0 {
		where = fmt.Sprintf("line %d: ", r.Line)
	}
	switch r.Outcome {
	case Passed:
		return fmt.Sprintf("%s%s: %s, as expected: %s", where, r.Test, expectation(r.Allow), r.Found)
	case Void:
		return fmt.Sprintf("%s%s: void: %s", where, r.Test, r.Found)
	default:
		return fmt.Sprintf("%s%s: expected %s, found %s", where, r.Test, expectation(r.Allow), r.Found)
	}
}

func has(sorted []identity.ID, id identity.ID) bool {
	_, found := slices.BinarySearch(sorted, id)
	return found
}

func hasProfile(sorted []*model.Profile, id identity.ID) bool {
	i := sort.Search(len(sorted), func(i int) bool { return sorted[i].ID >= id })
	return i < len(sorted) && sorted[i].ID == id
}

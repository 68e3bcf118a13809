package model

import (
	"maps"
	"slices"
	"testing"

	"github.com/etherloom/etherloom/identity"
)

// TestVerdict: a grant with a condition has the sources that are selected and meet it, and none before anybody was
// judged; a grant without one is not touched by a verdict.
func TestVerdict(t *testing.T) {
	locked := node(4, "a=1")
	locked.OwnStatus = StatusLocked
	base := []Fact{
		segment(1, "10.64.0.0/20"), node(1, "a=1"), node(2, "a=1"), node(3, "b=1"), locked,
		&Grant{ID: 1, Label: "a=1", VNI: 1, When: "true"}, &Grant{ID: 2, Node: 3, VNI: 1},
	}
	for _, c := range []struct {
		name    string
		verdict *Verdict
		sources []identity.ID
		members []identity.ID
	}{
		{"none", nil, nil, []identity.ID{3}},
		{"nobody", &Verdict{Grant: 1}, nil, []identity.ID{3}},
		{"one", &Verdict{Grant: 1, Holders: []identity.ID{2}}, []identity.ID{2}, []identity.ID{2, 3}},
		{"both", &Verdict{Grant: 1, Holders: []identity.ID{1, 2}}, []identity.ID{1, 2}, []identity.ID{1, 2, 3}},
		{"not selected, locked, unknown", &Verdict{Grant: 1, Holders: []identity.ID{3, 4, 9}}, nil, []identity.ID{3}},
		{"of another grant", &Verdict{Grant: 2, Holders: []identity.ID{1, 2}}, nil, []identity.ID{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := base
			if c.verdict != nil {
				f = append(slices.Clip(base), c.verdict)
			}
			m := seated(t, facts(f...))
			v := m.views[1]
			var members []identity.ID
			for _, p := range v.Members {
				members = append(members, p.ID)
			}
			if !slices.Equal(v.Grants[0].Sources, c.sources) || !slices.Equal(members, c.members) || !slices.Equal(v.Grants[1].Sources, []identity.ID{3}) {
				t.Errorf("sources %v, members %v, sources of the other %v", v.Grants[0].Sources, members, v.Grants[1].Sources)
			}
			if got := m.Candidates(1); !slices.Equal(got, []identity.ID{1, 2}) {
				t.Errorf("candidates are %v", got)
			}
			if m.Candidates(2) != nil {
				t.Error("a grant without a condition has candidates")
			}
			// What is said of who is judged does not change what members see.
			if c.verdict != nil {
				next := *c.verdict
				next.Doubts, next.Flips = []Doubt{{Node: 2}}, []Flip{{Node: 2, By: 1}}
				again := maps.Clone(m.Facts)
				again[next.Key()] = &next
				if Derive(again, 2, m).views[1] != v {
					t.Error("a doubt made another view")
				}
			}
		})
	}
}

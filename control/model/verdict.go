package model

import (
	"fmt"
	"slices"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// Verdict is who meets a grant's condition. Before there is one, nobody does. It changes only when somebody comes to meet
// the condition or no longer does, so a node that reports again and again what is judged alike costs nothing.
type Verdict struct {
	Grant   GrantID       `json:"grant"`
	Holders []identity.ID `json:"holders"` // sorted

	// Doubts are holders of which a controller has not heard for too long. Another controller that hears one takes the
	// doubt away.
	Doubts []Doubt `json:"doubts,omitempty"` // by node
	// Flips are the newest changes, so that a controller which knows less does not undo what another has found.
	Flips []Flip `json:"flips,omitempty"` // by node
}

// Doubt is that a controller has not heard of a holder for too long.
type Doubt struct {
	Node identity.ID `json:"node"`
	At   time.Time   `json:"at"`
}

// Flip is that a node came to meet a condition, or no longer does.
type Flip struct {
	Node   identity.ID `json:"node"`
	Report uint64      `json:"report"` // sequence of the report that it was judged by; 0: none
	By     identity.ID `json:"by"`     // the controller
	At     time.Time   `json:"at"`
}

// Key is "verdict/GRANT".
func (v *Verdict) Key() string { return VerdictKey(v.Grant) }

// VerdictKey is the key of a grant's verdict.
func VerdictKey(id GrantID) string { return fmt.Sprintf("verdict/%d", id) }

// Holds reports whether a node meets the condition.
func (v *Verdict) Holds(id identity.ID) bool {
	if v == nil {
		return false
	}
	_, ok := slices.BinarySearch(v.Holders, id)
	return ok
}

// Doubted returns the doubt about a holder, or nil.
func (v *Verdict) Doubted(id identity.ID) *Doubt {
	if v == nil {
		return nil
	}
	for i := range v.Doubts {
		if v.Doubts[i].Node == id {
			return &v.Doubts[i]
		}
	}
	return nil
}

// Flipped returns the newest change for a node, or nil.
func (v *Verdict) Flipped(id identity.ID) *Flip {
	if v == nil {
		return nil
	}
	for i := range v.Flips {
		if v.Flips[i].Node == id {
			return &v.Flips[i]
		}
	}
	return nil
}

// Candidates returns the active nodes that the source of a grant with a condition selects, whether or not they meet it,
// by id. They are the Model's. Machines are not among them: nothing is known of them that a condition could ask for.
func (m *Model) Candidates(id GrantID) []identity.ID { return m.candidates[id] }

// meeting narrows what a grant's source selects to those that meet its condition.
func (m *Model) meeting(g *Grant, selected []identity.ID) []identity.ID {
	if g.When == "" {
		return selected
	}
	selected = slices.DeleteFunc(selected, func(id identity.ID) bool { return m.Nodes[id] == nil })
	m.candidates[g.ID] = selected
	v := m.Verdicts[g.ID]
	var out []identity.ID
	for _, id := range selected {
		if v.Holds(id) {
			out = append(out, id)
		}
	}
	return out
}

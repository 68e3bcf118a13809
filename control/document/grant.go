// Package document is policy as an administrator writes it: grants, one by one or as a whole document.
//
// What is written is resolved against a Model: names become ids, terms are read by package policy, so that what is accepted
// here is what the nodes understand. Nothing here changes anything; who calls it puts the result into the store.
package document

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// Grant is a grant as it is written.
type Grant struct {
	Name    string    // one DNS label, or empty
	From    string    // node:NAME, label:KEY=VALUE, group:NAME, host:NAME or attachment:NODE/PORT
	To      string    // the same, or segment:NAME
	Segment string    // where a grant to nodes holds; empty: that of a machine it names, or the only segment there is
	Allow   []string  // terms; none: everything
	Both    bool      // who is reached may begin, too
	Observe bool      // passes nothing, is counted
	When    string    // condition (package condition), which is not compiled here; empty: always
	Expires time.Time // zero: never
}

// maxTerms is how many terms a grant has at most: more is several grants.
const maxTerms = 256

// Resolve says what the grant means in a network. The result has no id yet.
func (g *Grant) Resolve(m *model.Model) (*model.Grant, error) {
	if g.Name != "" {
		if err := identity.CheckHostName(g.Name); err != nil {
			return nil, fmt.Errorf("name of a grant: %w", err)
		}
	}
	from, vni, target, err := resolveEnds(m, g.From, g.To, g.Segment)
	if err != nil {
		return nil, err
	}
	if when := strings.TrimSpace(g.When); when != "" && m.Home(from) != 0 {
		return nil, fmt.Errorf("when: a condition is about a node, and %s is none: leave the condition out", g.From)
	}
	allow, err := termsOf(g.Allow)
	if err != nil {
		return nil, fmt.Errorf("allow: %w", err)
	}
	if g.Both && target == nil && allow == nil {
		return nil, errors.New("a grant of everything to a segment lets every member begin by its own grant: leave the direction out")
	}
	return &model.Grant{
		Name: g.Name, From: g.From, To: g.To, Node: from.Node, Label: from.Label, Group: from.Group, Target: target, VNI: vni,
		Allow: allow, Both: g.Both, Observe: g.Observe, When: strings.TrimSpace(g.When), Expires: g.Expires,
	}, nil
}

// resolveEnds resolves both ends of a grant or a test, and where it holds: if that is not said, where the machine is that it names.
func resolveEnds(m *model.Model, from, to, on string) (model.Selector, model.VNI, *model.Selector, error) {
	source, err := m.Select(from)
	if err != nil {
		return source, 0, nil, fmt.Errorf("from: %w", err)
	}
	if s := m.Segments[m.Home(source)]; s != nil && on == "" && !strings.HasPrefix(to, "segment:") {
		on = s.Name
	}
	vni, target, err := m.Target(to, on)
	if err != nil {
		return source, 0, nil, fmt.Errorf("to: %w", err)
	}
	if err := m.CheckHome(source, vni); err != nil {
		return source, 0, nil, fmt.Errorf("from: %w", err)
	}
	return source, vni, target, nil
}

// termsOf brings terms into the form in which they are kept; nil if they allow everything.
func termsOf(texts []string) ([]string, error) {
	terms, err := policy.ParseTerms(texts)
	if err != nil {
		return nil, err
	}
	if len(terms) > maxTerms {
		return nil, fmt.Errorf("there are %d terms, more than a grant can have (%d): make several grants", len(terms), maxTerms)
	}
	var out []string
	for _, t := range terms {
		if t.Scope == policy.Everything {
			return nil, nil
		}
		if text := t.String(); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out, nil
}

// Same reports whether two grants say the same, whatever they are called.
func Same(a, b *model.Grant) bool {
	sameTarget := a.Target == nil && b.Target == nil || a.Target != nil && b.Target != nil && *a.Target == *b.Target
	return a.Source() == b.Source() && sameTarget && a.VNI == b.VNI && slices.Equal(a.Allow, b.Allow) &&
		a.Both == b.Both && a.Observe == b.Observe && a.When == b.When && a.Expires.Equal(b.Expires)
}

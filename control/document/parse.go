package document

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/etherloom/etherloom/control/condition"
)

// maxErrors is how many errors of one document are told at once.
const maxErrors = 20

// Parse reads a document. What its names mean in a network is another question: Plan asks it.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("the policy document has %d bytes, expected at most %d: use labels and groups for what is alike", len(data), MaxSize)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	err := dec.Decode(&root)
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the policy document is empty: `etherloom policy show` prints one to start from")
	case err != nil:
		return nil, fmt.Errorf("the policy document is not YAML: %w", err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the end of the policy document: expected one document in the file")
	}
	p := &parser{}
	d := &Document{}
	for _, n := range root.Content {
		p.document(n, d)
	}
	if err := p.errs.join(); err != nil {
		return nil, err
	}
	return d, nil
}

// mistakes keeps the first errors of a document, and counts the others.
type mistakes struct {
	first []error
	more  int
}

func (m *mistakes) add(err error) {
	if len(m.first) == maxErrors {
		m.more++
		return
	}
	m.first = append(m.first, err)
}

func (m *mistakes) join() error {
	if m.more > 0 {
		return errors.Join(append(m.first, fmt.Errorf("and %d more", m.more))...)
	}
	return errors.Join(m.first...)
}

// parser walks over a document's nodes and keeps what is wrong with it.
type parser struct{ errs mistakes }

func (p *parser) wrong(n *yaml.Node, format string, args ...any) {
	p.errs.add(fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...))
}

// keys are what a mapping may have, and who reads it.
type keys map[string]func(*yaml.Node)

// mapping reads one thing, and says which of the demanded keys are missing.
func (p *parser) mapping(n *yaml.Node, what string, known keys, demanded ...string) {
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s: expected keys and values (%s), found %s", what, strings.Join(slices.Sorted(maps.Keys(known)), ", "), kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		read := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || read == nil:
			p.wrong(key, "%s has no key %q: expected %s", what, short(key.Value), strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case seen[key.Value]:
			p.wrong(key, "%s: the key %q is there twice: remove one", what, key.Value)
		default:
			seen[key.Value] = true
			read(n.Content[i+1])
		}
	}
	for _, key := range demanded {
		if !seen[key] {
			p.wrong(n, "%s: the key %q is missing", what, key)
		}
	}
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not for policy: write what it stands for, or make a group"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		return strconv.Quote(short(n.Value))
	case yaml.DocumentNode:
	}
	return "something else"
}

// short cuts what is shown of a text.
func short(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// list reads each item of a list; an empty value is an empty list.
func (p *parser) list(what string, most int, item func(*yaml.Node)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch {
		case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		case n.Kind != yaml.SequenceNode:
			p.wrong(n, "%s: expected a list, found %s", what, kindOf(n))
		case len(n.Content) > most:
			p.wrong(n, "%s: there are %d, expected at most %d", what, len(n.Content), most)
		default:
			for _, i := range n.Content {
				item(i)
			}
		}
	}
}

// text reads one text; a number or a time is taken as it is written.
func (p *parser) text(what string, into *string) func(*yaml.Node) {
	const most = 256
	return p.textOf(what, most, into)
}

func (p *parser) textOf(what string, most int, into *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		switch {
		case n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "":
			p.wrong(n, "%s: expected a text, found %s", what, kindOf(n))
		case len(n.Value) > most:
			p.wrong(n, "%s has %d bytes, expected at most %d", what, len(n.Value), most)
		default:
			*into = n.Value
		}
	}
}

func (p *parser) texts(what string, most int, into *[]string) func(*yaml.Node) {
	return p.list(what, most, func(n *yaml.Node) {
		var s string
		p.text(what, &s)(n)
		*into = append(*into, s)
	})
}

// choice reads one of two words.
func (p *parser) choice(what, no, yes string, into *bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Value != no && n.Value != yes {
			p.wrong(n, "%s is %s or %s, found %s", what, no, yes, kindOf(n))
			return
		}
		*into = n.Value == yes
	}
}

func (p *parser) document(n *yaml.Node, d *Document) {
	p.mapping(n, "the policy document", keys{
		"version": func(n *yaml.Node) {
			v, err := strconv.ParseUint(n.Value, 10, 64)
			if err != nil {
				p.wrong(n, "version: expected the number that `etherloom policy show` prints, found %s", kindOf(n))
			}
			d.Version = v
		},
		"groups": p.list("groups", maxGroups, func(n *yaml.Node) { d.Groups = append(d.Groups, p.group(n)) }),
		"grants": p.list("grants", maxGrants, func(n *yaml.Node) { d.Grants = append(d.Grants, p.grant(n)) }),
		"tests":  p.list("tests", maxTests, func(n *yaml.Node) { d.Tests = append(d.Tests, p.test(n)) }),
	}, "grants")
}

func (p *parser) group(n *yaml.Node) Group {
	g := Group{Line: n.Line}
	p.mapping(n, "a group", keys{
		"name": p.text("name", &g.Name), "members": p.texts("members", maxList, &g.Members),
	}, "name")
	return g
}

func (p *parser) grant(n *yaml.Node) Entry {
	g := Entry{Line: n.Line}
	p.mapping(n, "a grant", keys{
		"name": p.text("name", &g.Name), "from": p.text("from", &g.From), "to": p.text("to", &g.To), "segment": p.text("segment", &g.Segment),
		"allow":     p.allow(&g.Allow),
		"direction": p.choice("direction", "out", "both", &g.Both),
		"mode":      p.choice("mode", "enforce", "observe", &g.Observe),
		"expires": func(n *yaml.Node) {
			at, err := time.Parse(time.RFC3339, n.Value)
			if err != nil {
				p.wrong(n, "expires: expected a time such as 2030-01-31T18:00:00Z, found %s", kindOf(n))
			}
			g.Expires = at.UTC()
		},
		"when": p.textOf("when", condition.MaxLength, &g.When),
	}, "from", "to")
	return g
}

// allow reads what a grant allows. An empty list is refused: who writes one may mean that nothing is allowed, while a grant without terms
// allows everything.
func (p *parser) allow(into *[]string) func(*yaml.Node) {
	read := p.texts("allow", maxTerms, into)
	return func(n *yaml.Node) {
		if n.Kind == yaml.SequenceNode && len(n.Content) == 0 || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
			p.wrong(n, "allow: the list is empty: name what may begin, such as tcp:22, or leave the key out to allow everything")
			return
		}
		read(n)
	}
}

func (p *parser) test(n *yaml.Node) Test {
	t := Test{Line: n.Line}
	p.mapping(n, "a test", keys{
		"from": p.text("from", &t.From), "to": p.text("to", &t.To), "segment": p.text("segment", &t.Segment), "what": p.text("what", &t.What),
		"expect": p.choice("expect", "deny", "allow", &t.Allow),
	}, "from", "to", "what", "expect")
	return t
}

package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// mutation is one change of one file.
type mutation struct {
	file string // from the root of the module
	pkg  string // its package clause
	fn   string
	line int
	name string // what identifies it, without its line

	source []byte // of the file
	gate   gate

	// Of a value of a case:
	cut      [2]int      // bytes that are left out when it is the only mutation
	compared *comparison // what makes a condition of the value, so that a switch can turn it off
}

// gate is text around some bytes of a file, with room for a switch that turns the mutation on.
type gate struct {
	from, to   int
	lead, tail string // in front of the bytes; the switch stands between the two
	after      string // behind them
}

// span is text in front of some bytes of a file and behind them.
type span struct {
	from, to      int
	before, after string
}

// with is the gate with this switch.
func (g gate) with(on string) span {
	return span{from: g.from, to: g.to, before: g.lead + on + g.tail, after: g.after}
}

// constant makes a condition what it is not always. It stays behind the constant, so that everything is still used.
func (f *finder) constant(x ast.Expr, value bool) {
	g := gate{from: f.at(x.Pos()), to: f.at(x.End()), lead: "(!", tail: " && (", after: "))"}
	if value {
		g.lead, g.tail = "(", " || ("
	}
	f.add(x, fmt.Sprintf("%s is %t", f.textOf(x), value), g)
}

// without takes one value out of a case.
func (f *finder) without(compared *comparison, list []ast.Expr, i int) {
	from, to := f.at(list[i].Pos()), f.at(list[i].End())
	f.add(list[i], fmt.Sprintf("case %s is none", f.textOf(list[i])), gate{from: from, to: to, lead: "!", tail: " && "})
	if i == 0 {
		to = f.at(list[1].Pos())
	} else {
		from = f.at(list[i-1].End())
	}
	m := &f.list[len(f.list)-1]
	m.cut, m.compared = [2]int{from, to}, compared
}

func (f *finder) add(n ast.Node, what string, g gate) {
	name := fmt.Sprintf("%s %s: %s", f.file, f.fn, what)
	f.seen[name]++
	if n := f.seen[name]; n > 1 {
		name = fmt.Sprintf("%s (%d)", name, n)
	}
	f.list = append(f.list, mutation{
		file: f.file, pkg: f.pkg, fn: f.fn, line: f.fset.Position(n.Pos()).Line, name: name, source: f.source, gate: g,
	})
}

func (f *finder) at(p token.Pos) int { return f.fset.Position(p).Offset }

// textOf is the source of a node on one line.
func (f *finder) textOf(n ast.Node) string {
	return strings.Join(strings.Fields(string(f.source[f.at(n.Pos()):f.at(n.End())])), " ")
}

// apply returns the source with this mutation made and no other.
func (m *mutation) apply() []byte {
	if m.compared != nil {
		return append(slices.Clone(m.source[:m.cut[0]]), m.source[m.cut[1]:]...)
	}
	return weave(m.source, []span{m.gate.with("true")})
}

// weave puts spans, of which any two are apart or one inside the other, into a source. Of equal ones the first is outside.
func weave(source []byte, spans []span) []byte {
	spans = slices.Clone(spans)
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Or(a.from-b.from, b.to-a.to) })
	var (
		out  []byte
		at   int // what comes before is written
		open []span
	)
	end := func(until int) {
		for ; len(open) > 0 && open[len(open)-1].to <= until; open = open[:len(open)-1] {
			s := open[len(open)-1]
			out = append(append(out, source[at:s.to]...), s.after...)
			at = s.to
		}
	}
	for _, s := range spans {
		end(s.from)
		out = append(append(out, source[at:s.from]...), s.before...)
		at = s.from
		open = append(open, s)
	}
	end(len(source))
	return append(out, source[at:]...)
}

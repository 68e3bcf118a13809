package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
)

// mutation is one change of one file.
type mutation struct {
	file string // from the root of the module
	fn   string
	line int
	name string // what identifies it, without its line

	source   []byte // of the file
	from, to int    // bytes of it that are replaced
	text     string
}

// constant makes a condition what it is not always. It stays behind the constant, so that everything is still used.
func (f *finder) constant(x ast.Expr, value bool) {
	operator := "&&"
	if value {
		operator = "||"
	}
	text := f.textOf(x)
	f.add(x, fmt.Sprintf("%s is %t", text, value), f.at(x.Pos()), f.at(x.End()), fmt.Sprintf("(%t %s (%s))", value, operator, text))
}

// without takes one value out of a case.
func (f *finder) without(list []ast.Expr, i int) {
	from, to := f.at(list[i].Pos()), f.at(list[i].End())
	if i == 0 {
		to = f.at(list[1].Pos())
	} else {
		from = f.at(list[i-1].End())
	}
	f.add(list[i], fmt.Sprintf("case %s is none", f.textOf(list[i])), from, to, "")
}

func (f *finder) add(n ast.Node, what string, from, to int, text string) {
	name := fmt.Sprintf("%s %s: %s", f.file, f.fn, what)
	f.seen[name]++
	if n := f.seen[name]; n > 1 {
		name = fmt.Sprintf("%s (%d)", name, n)
	}
	f.list = append(f.list, mutation{
		file: f.file, fn: f.fn, line: f.fset.Position(n.Pos()).Line, name: name, source: f.source, from: from, to: to, text: text,
	})
}

func (f *finder) at(p token.Pos) int { return f.fset.Position(p).Offset }

// textOf is the source of a node on one line.
func (f *finder) textOf(n ast.Node) string {
	return strings.Join(strings.Fields(string(f.source[f.at(n.Pos()):f.at(n.End())])), " ")
}

// apply returns the source with the mutation made.
func (m *mutation) apply() []byte {
	out := append([]byte{}, m.source[:m.from]...)
	out = append(out, m.text...)
	return append(out, m.source[m.to:]...)
}

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// finder collects the mutations of one file.
type finder struct {
	fset   *token.FileSet
	file   string
	source []byte
	pkg    string
	fn     string
	judge  judge
	list   []mutation
	seen   map[string]int
	err    error
}

// find lists the mutations of a file, in the order of the source.
func find(file string, source []byte, skip map[string]string) ([]mutation, error) {
	f := &finder{fset: token.NewFileSet(), file: file, source: source, seen: make(map[string]int)}
	tree, err := parser.ParseFile(f.fset, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f.pkg = tree.Name.Name
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		f.fn = fn.Name.Name
		if _, skipped := skip[file+" "+f.fn]; skipped {
			continue
		}
		if f.judge, ok = judgeOf(fn); ok {
			f.statements(fn.Body.List, false)
		}
	}
	return f.list, f.err
}

// statements looks at what stands in a block. covered says that the block runs under a condition that is mutated itself, so
// that a return in it needs no mutation of its own.
func (f *finder) statements(list []ast.Stmt, covered bool) {
	for _, s := range list {
		f.statement(s, covered)
	}
}

func (f *finder) statement(s ast.Stmt, covered bool) {
	switch s := s.(type) {
	case *ast.IfStmt:
		f.branch(s)
	case *ast.SwitchStmt:
		f.cases(s)
	case *ast.ForStmt:
		f.statements(s.Body.List, false)
	case *ast.RangeStmt:
		f.statements(s.Body.List, false)
	case *ast.BlockStmt:
		f.statements(s.List, covered)
	case *ast.LabeledStmt:
		f.statement(s.Stmt, covered)
	case *ast.ReturnStmt:
		f.result(s, covered)
	}
}

func (f *finder) branch(s *ast.IfStmt) {
	then := f.judge.within(s.Body)
	if then == 0 && f.judge.manner == silent {
		then = accepts // the condition is what lets the body be done
	}
	switch other := f.otherwise(s.Else); {
	case other&refuses != 0:
		then |= accepts
	case other&accepts != 0:
		then |= refuses
	}
	f.condition(s.Cond, then)
	f.statements(s.Body.List, true)
	if s.Else != nil {
		f.statement(s.Else, true)
	}
}

func (f *finder) otherwise(s ast.Stmt) exits {
	if s == nil {
		return 0
	}
	return f.judge.within(s)
}

// cases looks at a switch. Each value of a switch over values is a check of its own, as each operand of a disjunction is.
func (f *finder) cases(s *ast.SwitchStmt) {
	var clauses []*ast.CaseClause
	var other exits // of the default
	for _, c := range s.Body.List {
		c := c.(*ast.CaseClause) //nolint:forcetypeassert // nothing else stands in a switch
		if clauses = append(clauses, c); c.List == nil {
			other = f.judge.within(c)
		}
	}
	conditions := s.Tag == nil
	var compared *comparison
	for _, c := range clauses {
		does := f.judge.within(c)
		if does == 0 && other&refuses != 0 {
			does = accepts // it is refused if no case is met
		}
		for i, x := range c.List {
			if conditions {
				f.condition(x, does)
			} else if len(c.List) > 1 {
				if compared == nil {
					compared = f.compared(s)
				}
				f.without(compared, c.List, i)
			}
		}
		f.statements(c.Body, conditions && len(c.List) > 0)
	}
}

// condition mutates what decides whether a body with these exits runs.
func (f *finder) condition(x ast.Expr, body exits) {
	if body&refuses != 0 {
		f.constant(x, false)
	}
	if body&accepts != 0 {
		f.constant(x, true)
	}
	if body != 0 {
		f.operands(x)
	}
}

// operands takes each operand out of a conjunction or disjunction, at every depth.
func (f *finder) operands(x ast.Expr) {
	switch x := x.(type) {
	case *ast.ParenExpr:
		f.operands(x.X)
	case *ast.UnaryExpr:
		f.operands(x.X)
	case *ast.BinaryExpr:
		if x.Op != token.LAND && x.Op != token.LOR {
			return
		}
		for _, side := range []ast.Expr{x.X, x.Y} {
			// a && b && c is (a && b) && c: its operands are three.
			if b, same := side.(*ast.BinaryExpr); !same || b.Op != x.Op {
				f.constant(side, x.Op == token.LAND)
			}
			f.operands(side)
		}
	}
}

// result mutates a return statement.
func (f *finder) result(s *ast.ReturnStmt, covered bool) {
	j := f.judge
	if j.manner == silent || len(s.Results) != j.of {
		return
	}
	x, does := s.Results[j.at], j.exit(s)
	if literal := nameOf(x) == "true" || nameOf(x) == "false"; does == refuses|accepts && !literal {
		if j.manner == predicate {
			f.constant(x, false)
		}
		f.constant(x, true)
		f.operands(x)
		return
	}
	pass := j.instead(x)
	if covered || does&refuses == 0 || pass == "" {
		return
	}
	var values []string
	for i, r := range s.Results {
		if i == j.at {
			values = append(values, pass)
		} else {
			values = append(values, f.textOf(r))
		}
	}
	// What was returned stays behind, so that everything is still used and the mutation compiles.
	g := gate{from: f.at(s.Pos()), to: f.at(s.Pos()), lead: "if ", tail: fmt.Sprintf(" { return %s }; ", strings.Join(values, ", "))}
	f.add(s, fmt.Sprintf("%s gives %s", f.textOf(s), pass), g)
}

package main

import (
	"go/ast"
	"go/token"
)

// exits says how statements end what their function does: bits of the two below.
type exits int

const (
	refuses exits = 1 << iota // the frame does not go on
	accepts                   // it does
)

// manner is what a function says its judgement with.
type manner int

const (
	silent    manner = iota // it has no results: returning early is to refuse
	verdict                 // a Drop or Verdict, of which one value lets pass
	fault                   // an error
	yes                     // a bool beside other results: false is nothing
	predicate               // a bool alone, of which either may refuse
	found                   // a pointer: nil is nothing
)

// judge is one function as far as it judges.
type judge struct {
	manner manner
	at, of int    // which of how many results it is
	pass   string // of a verdict: the value that lets pass
}

// judgeOf says how a function judges; false if it does not.
func judgeOf(fn *ast.FuncDecl) (judge, bool) {
	var results []ast.Expr
	if fn.Type.Results != nil {
		for _, field := range fn.Type.Results.List {
			for range max(1, len(field.Names)) {
				results = append(results, field.Type)
			}
		}
	}
	j := judge{of: len(results), at: len(results) - 1}
	if len(results) == 0 {
		return j, true
	}
	switch t := results[j.at].(type) {
	case *ast.Ident:
		switch t.Name {
		case "Verdict":
			j.manner, j.pass = verdict, "Pass"
		case "Drop":
			j.manner, j.pass = verdict, "Forwarded"
		case "error":
			j.manner = fault
		case "bool":
			j.manner = yes
			if len(results) == 1 {
				j.manner = predicate
			}
		default:
			return j, false
		}
	case *ast.SelectorExpr:
		j.manner, j.pass = verdict, "policy.Pass"
		return j, t.Sel.Name == "Verdict"
	case *ast.StarExpr:
		j.manner = found
		return j, len(results) == 1
	default:
		return j, false
	}
	return j, true
}

// exit says what a return statement does.
func (j judge) exit(r *ast.ReturnStmt) exits {
	if j.manner == silent || len(r.Results) != j.of {
		return refuses // or a call says it, which may refuse
	}
	x := r.Results[j.at]
	is := func(name string) bool { return nameOf(x) == name }
	switch {
	case j.manner == verdict && is(j.pass), j.manner == fault && is("nil"):
		return accepts
	case j.manner == found && !is("nil"):
		return accepts
	case j.manner == yes && is("true"):
		return accepts
	case j.manner == yes && is("false"), j.manner != yes && j.manner != predicate:
		return refuses
	}
	return refuses | accepts
}

// within says what any statement inside n does.
func (j judge) within(n ast.Node) exits {
	var all exits
	if n == nil {
		return all
	}
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			all |= j.exit(n)
		case *ast.BranchStmt:
			// A receiver that is skipped, in a loop over receivers.
			if n.Tok == token.CONTINUE {
				all |= refuses
			}
		}
		return true
	})
	return all
}

// instead is the value that a function would return had it not returned x, which refuses; empty if none can be told.
func (j judge) instead(x ast.Expr) string {
	switch {
	case j.manner == verdict:
		return j.pass
	case j.manner == fault:
		return "nil"
	case j.manner == yes, j.manner == predicate && nameOf(x) == "false":
		return "true"
	case j.manner == predicate:
		return "false"
	default:
		return ""
	}
}

// nameOf is a name or a qualified name; empty for any other expression.
func nameOf(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		if p, ok := x.X.(*ast.Ident); ok {
			return p.Name + "." + x.Sel.Name
		}
	}
	return ""
}

package main

import (
	"fmt"
	"go/ast"
	"strings"
)

// comparison makes a switch over values one over conditions, so that each value can be turned off.
type comparison struct{ spans []span }

// compared rewrites a switch over values:
//
//	switch x {            switch mutantTag := (x); {
//	case 1, 2:     to     case mutantTag == (1), mutantTag == (2):
//
// Behind an initialization there is no room for mutantTag; x must be a name then, and is compared itself.
func (f *finder) compared(s *ast.SwitchStmt) *comparison {
	tag, before, after := "mutantTag", "mutantTag := (", "); "
	if s.Init != nil {
		if _, ok := s.Tag.(*ast.Ident); !ok {
			f.err = fmt.Errorf("%s:%d: expected a name between ; and { of the switch, found %s: give the value a name before it",
				f.file, f.fset.Position(s.Pos()).Line, f.textOf(s.Tag))
		}
		tag, before, after = f.textOf(s.Tag), "mutantTrue(", ")"
	}
	c := &comparison{spans: []span{{from: f.at(s.Tag.Pos()), to: f.at(s.Tag.End()), before: before, after: after}}}
	for _, clause := range s.Body.List {
		for _, x := range clause.(*ast.CaseClause).List { //nolint:forcetypeassert // nothing else stands in a switch
			c.spans = append(c.spans, span{from: f.at(x.Pos()), to: f.at(x.End()), before: tag + " == (", after: ")"})
		}
	}
	return c
}

// schema returns a file with all these mutations of it, each behind a switch of the number beside it: a file that is what
// it was while no switch is on.
func schema(source []byte, list []numbered) []byte {
	var spans []span
	for _, m := range list {
		spans = append(spans, m.gate.with(fmt.Sprintf("mutant(%d)", m.number)))
	}
	done := make(map[*comparison]bool)
	for _, m := range list {
		if c := m.compared; c != nil && !done[c] {
			done[c], spans = true, append(spans, c.spans...)
		}
	}
	return weave(source, spans)
}

// numbered is a mutation with the number of its switch, from 1.
type numbered struct {
	*mutation
	number int
}

// What the environment tells a binary: the number of the mutation that is made, or the file in which the numbers of those
// are written down that are reached while none is.
const (
	envMutant  = "ETHERLOOM_MUTANT"
	envReached = "ETHERLOOM_MUTANT_REACHED"
)

// switches is the file that a package is given in addition: mutant says whether a switch is on.
func switches(pkg string, n int) []byte {
	text := `package PKG

import (
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutantReached = mutantOpen()
	mutantOn      = mutantChosen()
	mutantSeen    [N + 1]atomic.Bool
)

func mutant(i int) bool {
	if mutantOn < 0 {
		mutantReach(i)
	}
	return i == mutantOn
}

func mutantOpen() *os.File {
	path := os.Getenv("REACHED")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}

func mutantChosen() int {
	if mutantReached != nil {
		return -1
	}
	n, _ := strconv.Atoi(os.Getenv("MUTANT"))
	return n
}

func mutantReach(i int) {
	if mutantSeen[i].CompareAndSwap(false, true) {
		if _, err := mutantReached.WriteString(strconv.Itoa(i) + "\n"); err != nil {
			panic(err)
		}
	}
}

func mutantTrue[T any](T) bool { return true }
`
	return []byte(strings.NewReplacer("PKG", pkg, "[N ", fmt.Sprintf("[%d ", n), `"REACHED"`, fmt.Sprintf("%q", envReached),
		`"MUTANT"`, fmt.Sprintf("%q", envMutant)).Replace(text))
}

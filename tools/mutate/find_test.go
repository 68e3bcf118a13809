package main

import (
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// fixture is a small file of checks.
func fixture(t *testing.T) []byte {
	t.Helper()
	source, err := os.ReadFile("testdata/guard.go")
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// names lists the mutations of a file without its name.
func names(t *testing.T, source []byte) []string {
	t.Helper()
	list, err := find("f.go", source, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range list {
		out = append(out, strings.TrimPrefix(m.name, "f.go "))
	}
	return out
}

func TestFind(t *testing.T) {
	want := []string{
		"check: n < 1 || n == 7 is false", "check: n < 1 is false", "check: n == 7 is false",
		"check: wide && even(n) is true", "check: wide is true", "check: even(n) is true",
		"check: case 20 is none", "check: case 21 is none", "check: return Long gives Pass",
		"check: return Odd gives Pass",
		"even: n%2 == 0 is false", "even: n%2 == 0 is true",
	}
	if got := names(t, fixture(t)); !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each way in which a function can refuse, and the mutations that follow from it.
func TestFindShapes(t *testing.T) {
	for _, c := range []struct {
		name, source string
		want         []string
	}{
		{"error", "func f() error { if a { return errA }; return nil }", []string{"a is false"}},
		{"error without condition", "func f() (int, error) { return 1, errA }", []string{"return 1, errA gives nil"}},
		{"false", "func f() (int, bool) { if a { return 0, false }; return 1, true }", []string{"a is false"}},
		{
			"either answer may refuse", "func f() bool { if a { return true }; return b && c }",
			[]string{"a is false", "a is true", "b && c is false", "b && c is true", "b is true", "c is true"},
		},
		{"pointer", "func f() *T { if a { return nil }; return t }", []string{"a is false"}},
		{"early return", "func f() { if a { n++; return }; go1() }", []string{"a is false"}},
		{"guarded action", "func f() { if a && b { act() } }", []string{"a && b is true", "a is true", "b is true"}},
		{"receiver passed over", "func f() Drop { for range x { if a { continue }; send() }; return Forwarded }", []string{"a is false"}},
		{"verdict of another package", "func f() (int, policy.Verdict) { if a { return 0, policy.NoGrant }; return 1, policy.Pass }", []string{"a is false"}},
		{"refusal in the else", "func f() error { if a { n++ } else { return errA }; return nil }", []string{"a is true"}},
		{
			"cases with conditions", "func f() bool { switch { case a && b: return false; default: return false }; return true }",
			[]string{"a && b is false", "a && b is true", "a is true", "b is true", "return false gives true", "return true gives false"},
		},
		{
			"cases with a default", "func f() bool { switch { case a && b: n++; default: return false }; return true }",
			[]string{"a && b is true", "a is true", "b is true", "return false gives true", "return true gives false"},
		},
		{"three operands", "func f() (int, bool) { if a || b && (c || d) { return 0, false }; return 1, true }", []string{
			"a || b && (c || d) is false", "a is false", "b && (c || d) is false", "b is true", "(c || d) is true", "c is false", "d is false",
		}},
		{"condition inside a condition", "func f() (int, bool) { if a { if b { return 0, false } }; return 1, true }", []string{"a is false", "b is false"}},
		{"the same twice", "func f() (int, bool) { if a { return 0, false }; if a { return 0, false }; return 1, true }", []string{"a is false", "a is false (2)"}},
		{"a function in it", "func f() error { if a { g(func() error { return errA }) }; return nil }", nil},
		{"no judgement", "func f() int { if a { return 1 }; return 2 }", nil},
		{"a call that says all", "func f() (int, error) { return g() }", nil},
	} {
		source := []byte("package p\n" + c.source)
		var want []string
		for _, w := range c.want {
			want = append(want, "f: "+w)
		}
		if got := names(t, source); !slices.Equal(got, want) {
			t.Errorf("%s: found %q, want %q", c.name, got, want)
		}
	}
}

// A mutation changes its own place and nothing else, keeps the lines, and is Go.
func TestApply(t *testing.T) {
	source := fixture(t)
	list, err := find("f.go", source, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"f.go check: n == 7 is false":          "if n < 1 || (!true && (n == 7)) {",
		"f.go check: wide is true":             "if (true || (wide)) && even(n) {",
		"f.go check: case 20 is none":          "case 21:",
		"f.go check: case 21 is none":          "case 20:",
		"f.go check: return Odd gives Pass":    "if true { return Pass }; return Odd",
		"f.go even: n%2 == 0 is false":         "func even(n int) bool { return (!true && (n%2 == 0)) }",
		"f.go even: n%2 == 0 is true":          "func even(n int) bool { return (true || (n%2 == 0)) }",
		"f.go check: wide && even(n) is true":  "if (true || (wide && even(n))) {",
		"f.go check: n < 1 || n == 7 is false": "if (!true && (n < 1 || n == 7)) {",
		"f.go check: return Long gives Pass":   "if true { return Pass }; return Long",
		"f.go check: even(n) is true":          "if wide && (true || (even(n))) {",
		"f.go check: n < 1 is false":           "if (!true && (n < 1)) || n == 7 {",
	}
	before := strings.Split(string(source), "\n")
	for _, m := range list {
		out := m.apply()
		if _, err := parser.ParseFile(token.NewFileSet(), "", out, 0); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		after := strings.Split(string(out), "\n")
		if len(after) != len(before) {
			t.Fatalf("%s: %d lines of %d", m.name, len(after), len(before))
		}
		for i := range after {
			switch line := strings.TrimSpace(after[i]); {
			case i+1 == m.line && line != want[m.name]:
				t.Errorf("%s: %q, want %q", m.name, line, want[m.name])
			case i+1 != m.line && after[i] != before[i]:
				t.Errorf("%s: line %d has become %q", m.name, i+1, line)
			}
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d mutations, want %d", len(list), len(want))
	}
}

// The tables name what there is: every file has checks, and every function and mutation in them exists.
func TestTables(t *testing.T) {
	jobs, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	checks := make(map[string]int)
	for _, j := range jobs {
		checks[j.file]++
	}
	for _, target := range targets() {
		for _, name := range target.files {
			if checks[target.dir+"/"+name] == 0 {
				t.Errorf("%s/%s has no checks", target.dir, name)
			}
		}
	}
	for key, why := range elsewhere() {
		exists(t, key)
		if why == "" {
			t.Errorf("%s is left out for no reason", key)
		}
	}
	for name, why := range allowed() {
		if why == "" {
			t.Errorf("%s is allowed for no reason", name)
		}
	}
}

// exists checks that a key names a function.
func exists(t *testing.T, key string) {
	t.Helper()
	file, fn, _ := strings.Cut(key, " ")
	source, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Error(err)
	} else if text := string(source); !strings.Contains(text, "func "+fn+"(") && !strings.Contains(text, ") "+fn+"(") {
		t.Errorf("%s has no function %s", file, fn)
	}
}

package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guardTest notices every check of the fixture but that of seven, which one test notices the first time alone. The last
// test notices the switches.
const guardTest = `package guard

import (
	"os"
	"testing"
)

func TestCheck(t *testing.T) {
	for n, want := range map[int]Verdict{0: Short, 2: Pass, 3: Odd, 20: Pass, 21: Long} {
		if got := check(n, true); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}

func TestNarrow(t *testing.T) {
	for n, want := range map[int]Verdict{2: Odd, 20: Long} {
		if got := check(n, false); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}

func TestUnsteady(t *testing.T) {
	if _, err := os.Stat("noticed"); err == nil || check(7, true) == Short {
		return
	}
	if err := os.WriteFile("noticed", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Fatal("noticed once")
}

func TestSwitches(t *testing.T) {
	if _, there := os.LookupEnv("ETHERLOOM_MUTANT"); there {
		t.Fatal("there are switches")
	}
}
`

// module writes a module of the fixture and its tests, and lists what is to be done with it.
func module(t *testing.T) (*runner, []*job) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs go test a dozen times")
	}
	dir := t.TempDir()
	source := fixture(t)
	for name, text := range map[string][]byte{
		"go.mod": []byte("module example.com/guard\n\ngo 1.26\n"), "guard.go": source, "guard_test.go": []byte(guardTest),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := find("guard.go", source, nil)
	if err != nil {
		t.Fatal(err)
	}
	var jobs []*job
	for _, m := range list {
		jobs = append(jobs, &job{mutation: m, target: target{dir: "."}})
	}
	return &runner{root: dir, timeout: time.Minute}, jobs
}

// What is noticed is killed by the test that notices, what is not survives, both behind a switch and compiled alone, and
// the file is what it was.
func TestRun(t *testing.T) {
	r, jobs := module(t)
	if err := runAll(t.Context(), r, jobs, 2, 1); err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		want := "TestCheck"
		switch j.name {
		case "guard.go check: n == 7 is false":
			want = ""
		case "guard.go check: wide is true", "guard.go check: case 20 is none":
			want = "TestNarrow"
		}
		// Of several that notice, the one that was the fastest at first is asked first.
		o := j.outcome
		if by := o.killer == want || want == "TestCheck" && o.killer == "TestNarrow"; !by || o.broken != "" || o.slow {
			t.Errorf("%s: %+v, want it killed by %q", j.name, o, want)
		}
	}
	if err := report(jobs); err == nil {
		t.Error("a check that nobody would miss is not reported")
	}
	if _, err := os.Stat(filepath.Join(r.root, "noticed")); err != nil {
		t.Error("the test that notices once was not asked: ", err)
	}
	if after, _ := os.ReadFile(filepath.Join(r.root, "guard.go")); string(after) != string(fixture(t)) {
		t.Error("the tree was touched")
	}
}

// Before anything is changed, it is known what each test reaches, and which fails by the switches.
func TestSurvey(t *testing.T) {
	r, jobs := module(t)
	dir := t.TempDir()
	if err := r.findConverter(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := r.build(t.Context(), dir, jobs[0].target, jobs)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.survey(t.Context(), len(jobs), 1); err != nil {
		t.Fatal(err)
	}
	if len(b.left) != 1 || b.left[0] != "TestSwitches" {
		t.Errorf("%q are left out", b.left)
	}
	reached := make(map[string]int)
	for _, test := range b.tests {
		for _, is := range test.reaches {
			if is {
				reached[test.name]++
			}
		}
	}
	// Seven is refused by the first condition.
	if want := map[string]int{"TestCheck": len(jobs), "TestNarrow": 9, "TestUnsteady": 3}; !maps.Equal(reached, want) {
		t.Errorf("%v mutations are reached, want %v", reached, want)
	}
}

// Tests that fail without a mutation say nothing of mutations.
func TestSurveyFails(t *testing.T) {
	r, jobs := module(t)
	text := "package guard\nimport \"testing\"\nfunc TestNever(t *testing.T) { t.Fatal(\"never\") }\n"
	if err := os.WriteFile(filepath.Join(r.root, "never_test.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runAll(t.Context(), r, jobs, 1, 0); err == nil || !strings.Contains(err.Error(), "TestNever") {
		t.Errorf("runAll = %v, want an error that names TestNever", err)
	}
}

// What go test -json prints, and what follows from it.
func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, out string
		want      outcome
	}{
		{
			"a test fails", `{"Action":"output","Test":"TestA/b","Output":"    a_test.go:5: row\n"}
{"Action":"fail","Test":"TestA/b"}
{"Action":"fail","Test":"TestA"}
{"Action":"fail"}`, outcome{killer: "TestA/b", detail: "a_test.go:5: row"},
		},
		{
			"a test panics", `{"Action":"output","Test":"TestA","Output":"panic: index out of range\n"}
{"Action":"fail","Test":"TestA"}`, outcome{killer: "TestA", detail: "panic: index out of range"},
		},
		{
			"a test does not end", `{"Action":"output","Output":"panic: test timed out after 1m0s\n"}
{"Action":"output","Output":"\trunning tests:\n"}
{"Action":"output","Output":"\t\tTestA (1m0s)\n"}
{"Action":"output","Output":"\n"}`, outcome{killer: "TestA", detail: "does not end", slow: true},
		},
		{
			"another goroutine panics", `{"Action":"run","Test":"TestA"}
{"Action":"pass","Test":"TestA"}
{"Action":"run","Test":"TestB"}
{"Action":"output","Test":"TestB","Output":"panic: nil pointer\n"}
{"Action":"fail"}`, outcome{killer: "TestB", detail: "panic: nil pointer"},
		},
		{
			"it does not compile", `{"Action":"build-output","Output":"# example.com/p\n"}
{"Action":"build-output","Output":"p/a.go:3:1: undefined: x\n"}
{"Action":"build-fail"}
{"Action":"fail","FailedBuild":"p"}`, outcome{broken: "p/a.go:3:1: undefined: x"},
		},
		{
			"it dies outside a test", `{"Action":"output","Output":"signal: killed\n"}
{"Action":"fail"}`, outcome{broken: "the tests died, and none is named: signal: killed"},
		},
	} {
		if got := read([]byte(c.out)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Only a mutation that is killed, or allowed and not killed, is as it must be.
func TestFine(t *testing.T) {
	for _, c := range []struct {
		name string
		job  job
		want bool
	}{
		{"killed", job{outcome: outcome{killer: "TestA"}}, true},
		{"survived", job{}, false},
		{"allowed", job{allowed: "why"}, true},
		{"allowed and yet killed", job{allowed: "why", outcome: outcome{killer: "TestA"}}, false},
		{"no answer", job{outcome: outcome{broken: "why"}}, false},
		{"allowed, no answer", job{allowed: "why", outcome: outcome{broken: "why"}}, false},
	} {
		if got := c.job.fine(); got != c.want {
			t.Errorf("%s: %v (%s; %s)", c.name, got, c.job.became(), c.job.hint())
		}
	}
}

// What matches nothing, and what makes no sense, is an error and not a success of nothing.
func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-run", "no such mutation"}, {"-run", "("}, {"-no-such-flag"}} {
		if err := run(context.Background(), args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

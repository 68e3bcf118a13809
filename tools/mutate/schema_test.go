package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// With no switch on, code does what it did; with one on, what it does with that mutation alone. Each mutation changes
// something, so that a switch that does nothing would be seen.
func TestSchema(t *testing.T) {
	if testing.Short() {
		t.Skip("runs go build")
	}
	source, list := shapes(t)
	variants := map[string][]byte{"original": source}
	for _, m := range list {
		variants[fmt.Sprint("v", m.number)] = m.apply()
	}
	program := build(t, variants, schema(source, list), switches("shapes", len(list)))
	original := says(t, program, "original")
	if got := says(t, program, "schema"); got != original {
		t.Errorf("with no switch on:\n%s\nwant\n%s", got, original)
	}
	for _, m := range list {
		want := says(t, program, fmt.Sprint("v", m.number))
		if want == original && m.fn != "never" {
			t.Errorf("%s changes nothing", m.name)
		}
		if got := says(t, program, "schema", envMutant+"="+strconv.Itoa(m.number)); got != want {
			t.Errorf("%s, behind a switch:\n%s\nwant\n%s", m.name, got, want)
		}
	}
	reached := filepath.Join(t.TempDir(), "reached")
	if got := says(t, program, "schema", envReached+"="+reached); got != original {
		t.Errorf("while what is reached is written down:\n%s\nwant\n%s", got, original)
	}
	all := &test{reaches: make([]bool, len(list)+1)}
	if err := all.read(reached); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		if never := m.fn == "never"; all.reaches[m.number] == never {
			t.Errorf("%s: reached is %v, want %v", m.name, never, !never)
		}
	}
}

// shapes is the fixture of which every mutation changes what it says, but those of what it never calls.
func shapes(t *testing.T) ([]byte, []numbered) {
	t.Helper()
	source, err := os.ReadFile("testdata/shapes.go")
	if err != nil {
		t.Fatal(err)
	}
	found, err := find("shapes.go", source, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []numbered
	for i := range found {
		list = append(list, numbered{&found[i], i + 1})
	}
	return source, list
}

// build compiles a program of packages, one for each variant and one of the schema and its switches. It prints what the
// package says that its argument names.
func build(t *testing.T, variants map[string][]byte, schema, switches []byte) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{"go.mod": []byte("module example.com\n\ngo 1.26\n"), "schema/s.go": schema, "schema/switches.go": switches}
	imports, calls := "import schema \"example.com/schema\"\n", "\"schema\": schema.Say,\n"
	for name, text := range variants {
		files[name+"/s.go"] = text
		imports += fmt.Sprintf("import %s \"example.com/%s\"\n", name, name)
		calls += fmt.Sprintf("%q: %s.Say,\n", name, name)
	}
	files["main.go"] = []byte("package main\nimport \"os\"\n" + imports +
		"func main() { print(map[string]func() string{\n" + calls + "}[os.Args[1]]()) }\n")
	for name, text := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", "program", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

// says is what one package of the program says.
func says(t *testing.T, program, of string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, of)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Where spans begin, end and meet.
func TestWeave(t *testing.T) {
	for _, c := range []struct {
		name, want string
		spans      []span
	}{
		{"none", "abcdef", nil},
		{"inside", "a(b[c]d)ef", []span{{2, 3, "[", "]"}, {1, 4, "(", ")"}}},
		{"beginning together", "([ab]c)def", []span{{0, 2, "[", "]"}, {0, 3, "(", ")"}}},
		{"ending together", "abc(d[ef])", []span{{4, 6, "[", "]"}, {3, 6, "(", ")"}}},
		{"equal", "a([b])cdef", []span{{1, 2, "(", ")"}, {1, 2, "[", "]"}}},
		{"side by side", "a(b)[c]def", []span{{2, 3, "[", "]"}, {1, 2, "(", ")"}}},
		{"empty", "ab!cdef", []span{{2, 2, "!", ""}}},
		{"empty where another ends", "(ab)!cdef", []span{{2, 2, "!", ""}, {0, 2, "(", ")"}}},
		{"all", "(abcdef)", []span{{0, 6, "(", ")"}}},
	} {
		if got := string(weave([]byte("abcdef"), c.spans)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A schema keeps the lines, so that what a test says of a place is true of the original too.
func TestSchemaKeepsLines(t *testing.T) {
	source, list := shapes(t)
	out := schema(source, list)
	if _, err := parser.ParseFile(token.NewFileSet(), "", out, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(string(out), "\n"), strings.Count(string(source), "\n"); got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
}

// Behind an initialization, what is compared is written once for each value: only a name may stand there.
func TestTag(t *testing.T) {
	const source = "package p\nfunc f() bool { switch x := g(); TAG { case 1, 2: return false }; return true }"
	for tag, fine := range map[string]bool{"x": true, "x.kind()": false} {
		if _, err := find("f.go", []byte(strings.Replace(source, "TAG", tag, 1)), nil); (err == nil) != fine {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// Of the tests that reach a mutation those come first that have noticed one in the same function, then the fastest.
func TestReaching(t *testing.T) {
	b := &binary{noticed: make(map[string]string), tests: []*test{
		{name: "TestSlow", takes: 3, reaches: []bool{false, true}},
		{name: "TestElsewhere", takes: 1, reaches: []bool{false, false}},
		{name: "TestFast", takes: 2, reaches: []bool{false, true}},
		{name: "TestSlowest", takes: 4, reaches: []bool{false, true}},
	}}
	j := &job{number: 1, mutation: mutation{file: "f.go", fn: "f"}}
	for _, c := range []struct {
		noticed string
		want    []string
	}{
		{"", []string{"TestFast", "TestSlow", "TestSlowest"}},
		{"TestSlowest/row", []string{"TestSlowest", "TestFast", "TestSlow"}},
	} {
		b.remember(j, c.noticed)
		var got []string
		for _, t := range b.reaching(j) {
			got = append(got, t.name)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("after %q: %q, want %q", c.noticed, got, c.want)
		}
	}
}

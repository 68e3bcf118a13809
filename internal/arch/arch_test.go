// Package arch holds the source against ARCHITECTURE.md: who imports whom, and who starts goroutines.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/etherloom/etherloom/"
)

// deps lists the packages of ours that a package needs, itself left out.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "./"+pkg)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v", pkg, err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if p, ours := strings.CutPrefix(strings.TrimSpace(line), module); ours && p != pkg {
			list = append(list, p)
		}
	}
	return list
}

// The two worlds share no package of ours but one that waits for descriptors and knows nothing of either; only node knows
// both. See docs/decisions/0005-descriptors-outside-the-poller.md.
func TestImportRules(t *testing.T) {
	const quiet = "internal/quietfd"
	for pkg, allowed := range map[string][]string{
		// The frame world.
		"ether": {}, "fdb": {"ether"}, "policy": {"ether"}, "switch": {"ether", "fdb", "policy"}, "bridge": {"ether", quiet, "internal/atomicfile"},
		"bridge/election": {}, "bridge/probe": {"ether"}, "bridge/lacp": {"ether"},
		"node/herald": {"ether", "fdb", "policy", "switch"}, "node/dhcpd": {"ether", "policy"},
		// The datagram world.
		"identity": {}, "transport/relay": {}, "transport": {"identity", "transport/relay", quiet},
		// What is found of a machine is nobody's business but node's; conditions are judged by reports alone.
		"posture": {}, "control/condition": {"control/controlv1"},
		// Names know neither.
		"dnsd": {}, "dnsd/hostdns": {},
		// Control knows who parties are, and nothing of frames or datagrams.
		"control/reading": {"control/controlv1", "ether", "policy"}, "internal/sample": {"ether"},
		"control/state": {"control/controlv1", "identity"}, "control/audit": {"control/controlv1", "identity"},
		"control/client": {"control/controlv1", "control/controlv1/controlv1connect", "control/credential", "control/state", "identity"},
	} {
		for _, d := range deps(t, pkg) {
			if !slices.Contains(allowed, d) {
				t.Errorf("%s imports %s, which it must not know", pkg, d)
			}
		}
	}
	// The controller says what policy means in the words of package policy, so that there is one reading of it.
	for _, d := range deps(t, "control/server") {
		for _, forbidden := range []string{"transport", "fdb", "switch", "bridge", "node", "dnsd"} {
			if d == forbidden || strings.HasPrefix(d, forbidden+"/") {
				t.Errorf("the controller imports %s: it is never in the way of data", d)
			}
		}
	}
}

// The daemon and the controller run other programs in one place each, which says which and when.
func TestOtherPrograms(t *testing.T) {
	allowed := []string{
		"posture/command.go", "internal/sidecar/sidecar.go", "cmd/etherloom-controller/relay.go", // the relay beside a controller
		"internal/lab/command.go",
	}
	for _, path := range sources(t) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, path)
		for _, i := range file.Imports {
			if i.Path.Value == `"os/exec"` && !slices.Contains(allowed, rel) {
				t.Errorf("%s imports os/exec", rel)
			}
		}
	}
}

// sources lists the Go files that are not tests and not generated.
func sources(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && !strings.Contains(path, "controlv1") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// starts counts, for each function, the go statements and the calls of a method Go, of an errgroup or a WaitGroup.
func starts(t *testing.T) map[string]int {
	t.Helper()
	found := make(map[string]int)
	for _, path := range sources(t) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, path)
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					found[rel+" "+fn.Name.Name]++
				case *ast.CallExpr:
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Go" {
						found[rel+" "+fn.Name.Name]++
					}
				}
				return true
			})
		}
	}
	return found
}

// row is one line of the table: | `file.go` | `function` | 2 | what | until |
var row = regexp.MustCompile("^\\| `([^`]+\\.go)` \\| `([^`]+)` \\| (\\d+) \\|")

// Every goroutine of the program is in the table of ARCHITECTURE.md, and nothing else is.
func TestGoroutineTable(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	table := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		if m := row.FindStringSubmatch(line); m != nil {
			table[m[1]+" "+m[2]] = m[3]
		}
	}
	found := starts(t)
	for where, n := range found {
		if table[where] != fmt.Sprint(n) {
			t.Errorf("%s starts %d goroutines; ARCHITECTURE.md says %q", where, n, table[where])
		}
	}
	for where := range table {
		if found[where] == 0 {
			t.Errorf("ARCHITECTURE.md says that %s starts goroutines; it does not", where)
		}
	}
}

// The switch that admits everything is for scripts/bench.sh, and for the end-to-end tests, whose attacker it is: nothing that
// builds what is shipped asks for it.
func TestOpenSwitchIsNotShipped(t *testing.T) {
	list := exec.Command("go", "list", "-f", "{{.GoFiles}}", "./switch")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if files := string(out); !strings.Contains(files, "admit.go") || strings.Contains(files, "admit_open.go") {
		t.Errorf("the switch is built from %s", files)
	}
	allowed := []string{
		"scripts/bench.sh", "internal/e2e/open_test.go", "switch/admit.go", "switch/admit_open.go", "internal/arch/arch_test.go",
	}
	for _, pattern := range []string{"Makefile", ".ci/*", ".github/workflows/*", "scripts/*", "scripts/*/*", "*/*.go", "*/*/*.go", "*/*/*/*.go"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			rel, _ := filepath.Rel(root, path)
			if err == nil && strings.Contains(string(text), "openswitch") && !slices.Contains(allowed, rel) {
				t.Errorf("%s names the build tag of the switch that admits everything", rel)
			}
		}
	}
}

// ARCHITECTURE.md stays short enough to be read.
func TestArchitectureIsShort(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(data), "\n"); n > 250 {
		t.Errorf("ARCHITECTURE.md has %d lines, more than 250", n)
	}
}

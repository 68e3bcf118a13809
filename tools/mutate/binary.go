package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// binary is the tests of a package, compiled once with all its mutations, each behind a switch.
type binary struct {
	target target
	path   string
	dir    string // in which it runs: the package's
	runner *runner
	tests  []*test
	left   []string // tests that fail by the switches alone, so that they run over no mutation

	mu      sync.Mutex
	noticed map[string]string // by file and function, the test that has noticed a mutation there last
}

// findConverter finds the program that makes events of what tests print.
func (r *runner) findConverter(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "tool", "-n", "test2json").Output()
	if err != nil {
		return fmt.Errorf("go tool -n test2json: %w", err)
	}
	r.convert = strings.TrimSpace(string(out))
	return nil
}

// build compiles a target's tests in dir with these jobs, and numbers the jobs.
func (r *runner) build(ctx context.Context, dir string, t target, jobs []*job) (*binary, error) {
	byFile := make(map[string][]numbered)
	for i, j := range jobs {
		j.number = i + 1
		byFile[j.file] = append(byFile[j.file], numbered{&j.mutation, j.number})
	}
	files := map[string][]byte{path.Join(t.dir, "mutant_switches.go"): switches(jobs[0].pkg, len(jobs))}
	for file, list := range byFile {
		files[file] = schema(list[0].source, list)
	}
	overlay, err := r.overlay(dir, files)
	if err != nil {
		return nil, err
	}
	b := &binary{
		target: t, path: filepath.Join(dir, "package.test"), dir: filepath.Join(r.root, t.dir), runner: r,
		noticed: make(map[string]string),
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o", b.path, "./"+t.dir)
	cmd.Dir = r.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the tests of %s with a switch for each mutation: %w\n%s", t.dir, err, out)
	}
	return b, nil
}

// list names the tests of the binary that must notice, fuzz targets included.
func (b *binary) list(ctx context.Context) ([]string, error) {
	// An empty pattern would run the tests.
	cmd := exec.CommandContext(ctx, b.path, "-test.list", cmp.Or(b.target.tests, "."))
	cmd.Dir = b.dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of %s: %w", b.target.dir, err)
	}
	var names []string
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Benchmark") {
			names = append(names, name)
		}
	}
	return names, nil
}

// run runs tests of the binary with one switch on, or with none and a file for what is reached.
func (b *binary) run(ctx context.Context, names []string, on int, reached string, timeout time.Duration) (outcome, error) {
	cmd := exec.CommandContext(ctx, b.runner.convert, b.path, "-test.v=test2json", "-test.short", "-test.failfast",
		"-test.timeout="+timeout.String(), "-test.run=^("+strings.Join(names, "|")+")$")
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), envMutant+"="+strconv.Itoa(on), envReached+"="+reached)
	return judged(ctx, cmd)
}

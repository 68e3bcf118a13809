package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runner runs the tests of packages over changed files, which lie beside the tree and never in it.
type runner struct {
	root    string // of the module
	timeout time.Duration
}

// outcome is what the tests say of a mutation.
type outcome struct {
	killer string // the test that failed; empty if none did
	detail string // the first line in which it says why
	broken string // why there is no answer: it does not compile, or something died without a test's name
	slow   bool   // the tests did not end
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action, Test, Output string
}

// test runs a target's tests over a mutation; nil is the tree as it is.
func (r *runner) test(ctx context.Context, t target, m *mutation) (outcome, error) {
	args := []string{
		"test", "-json", "-short", "-count=1", "-failfast", "-vet=off", "-timeout=" + r.timeout.String(), "-run=" + t.tests,
	}
	if m != nil {
		dir, err := os.MkdirTemp("", "mutate")
		if err != nil {
			return outcome{}, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // the system empties it one day
		overlay, err := r.overlay(dir, m)
		if err != nil {
			return outcome{}, err
		}
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+t.dir)...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return outcome{}, ctx.Err()
	case err == nil:
		return outcome{}, nil
	case !errors.As(err, &exit):
		return outcome{}, fmt.Errorf("run the tests of %s: %w", t.dir, err)
	}
	return read(out), nil
}

// overlay writes the changed file and what tells go where it is (go help build, -overlay).
func (r *runner) overlay(dir string, m *mutation) (string, error) {
	path := filepath.Join(r.root, m.file)
	changed := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(changed, m.apply(), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, text, 0o600)
}

// reading is what read has seen so far.
type reading struct {
	outcome
	said map[string]string // by test, the first line that names a place in a test
	last string            // line that is not empty

	running string // the test that began last and has not ended
	died    bool   // a panic, in whatever goroutine
}

// read finds in the events of a run that failed which test did.
func read(out []byte) outcome {
	r := reading{said: make(map[string]string)}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		r.output(e, strings.TrimSpace(e.Output))
		r.action(e)
	}
	// A panic outside the test's own goroutine ends everything before the test is said to fail.
	if r.killer == "" && r.died && !r.slow {
		r.killer = r.running
	}
	if r.detail == "" {
		r.detail = r.said[r.killer]
	}
	if r.killer == "" && r.broken == "" {
		r.broken = "the tests died, and none is named: " + r.last
	}
	return r.outcome
}

// action takes what becomes of a test.
func (r *reading) action(e event) {
	switch {
	case e.Action == "run":
		r.running = e.Test
	case e.Action == "fail" && e.Test != "" && r.killer == "":
		r.killer = e.Test
	case (e.Action == "pass" || e.Action == "skip") && e.Test == r.running:
		r.running = ""
	}
}

// output takes one line that the tests or the compiler print.
func (r *reading) output(e event, text string) {
	switch {
	case text == "":
		return
	case e.Action == "build-output":
		if r.broken == "" && !strings.HasPrefix(text, "#") {
			r.broken = text
		}
	case strings.HasPrefix(text, "panic: test timed out"):
		r.slow = true
	case r.slow && r.killer == "" && r.last == "running tests:":
		r.killer, _, _ = strings.Cut(text, " ")
		r.detail = "does not end"
	case r.said[e.Test] == "" && (strings.Contains(text, "_test.go:") || strings.HasPrefix(text, "panic: ")):
		r.said[e.Test] = text
	}
	r.died = r.died || strings.HasPrefix(text, "panic: ")
	r.last = text
}

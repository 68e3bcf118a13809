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
	quick   bool   // nothing is compiled by itself
	convert string // the program that makes events of what tests print (go doc test2json)
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

// alone runs a target's tests over a file with one mutation, compiled for it; nil is the tree as it is.
func (r *runner) alone(ctx context.Context, t target, m *mutation) (outcome, error) {
	args := []string{
		"test", "-json", "-short", "-count=1", "-failfast", "-vet=off", "-timeout=" + r.timeout.String(), "-run=" + t.tests,
	}
	if m != nil {
		dir, err := os.MkdirTemp("", "mutate")
		if err != nil {
			return outcome{}, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // the system empties it one day
		overlay, err := r.overlay(dir, map[string][]byte{m.file: m.apply()})
		if err != nil {
			return outcome{}, err
		}
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+t.dir)...)
	cmd.Dir = r.root
	return judged(ctx, cmd)
}

// judged runs a command that prints what go test -json prints, and reads the outcome.
func judged(ctx context.Context, cmd *exec.Cmd) (outcome, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return outcome{}, ctx.Err()
	case err == nil:
		return outcome{}, nil
	case !errors.As(err, &exit):
		return outcome{}, fmt.Errorf("run %s: %w", strings.Join(cmd.Args, " "), err)
	}
	return read(out), nil
}

// overlay writes files in dir that stand in place of those of the tree, or beside them, and what tells go where they are
// (go help build, -overlay).
func (r *runner) overlay(dir string, files map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for file, text := range files {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "+"))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(r.root, file)] = path
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": replace})
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

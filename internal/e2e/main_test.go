// Package e2e tests the programs as users run them: real processes in network namespaces, with real programs over them.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// bin is where the programs under test are.
var bin string

func TestMain(m *testing.M) {
	if spec := os.Getenv(crowdEnv); spec != "" { // started by TestRevocationAtFifty in a namespace
		if err := crowd(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := lab.Supported(); err != nil {
		if os.Getenv("ETHERLOOM_E2E") == "1" {
			fmt.Fprintln(os.Stderr, "end-to-end tests cannot run here:", err)
			os.Exit(1)
		}
		fmt.Println("skipped: end-to-end tests cannot run here:", err)
		os.Exit(0)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if names, err := lab.Sweep("loome2e"); err != nil {
		return 1, err
	} else if len(names) > 0 {
		fmt.Println("removed what an earlier run had left:", names)
	}
	dir, err := os.MkdirTemp("", "loom-bin-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin = dir
	args := []string{"build", "-o", dir}
	if raced() {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/etherloom/etherloom/cmd/etherloom", "github.com/etherloom/etherloom/cmd/etherloom-controller")...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 1, fmt.Errorf("build the programs: %w", err)
	}
	return m.Run(), nil
}

// raced reports whether the programs are built with the race detector, which makes them several times slower and larger.
func raced() bool { return os.Getenv("ETHERLOOM_E2E_RACE") == "1" }

// rig is a world with a test around it.
type rig struct {
	*testing.T
	*world.World
	ctx context.Context
}

func newRig(t *testing.T, controllerArgs ...string) *rig {
	t.Helper()
	return newRigFor(t, 10*time.Minute, controllerArgs...)
}

// newRigFor makes a rig for a test that takes up to some time.
func newRigFor(t *testing.T, most time.Duration, controllerArgs ...string) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	t.Cleanup(cancel)
	w, err := world.New("loome2e", bin)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t, w, ctx}
	t.Cleanup(func() {
		if t.Failed() {
			r.dumpLogs()
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	r.ok(w.StartController(ctx, controllerArgs...))
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) await(what string, within time.Duration, cond func() bool) {
	r.Helper()
	r.ok(world.Await(r.ctx, what, within, cond))
}

// dumpLogs shows the end of every log.
func (r *rig) dumpLogs() {
	logs, _ := filepath.Glob(filepath.Join(r.Dir(), "*", "*.log"))
	more, _ := filepath.Glob(filepath.Join(r.Dir(), "*.log"))
	for _, path := range append(logs, more...) {
		data, err := os.ReadFile(path)
		if err == nil && len(data) > 0 {
			r.Logf("---- %s\n%s", filepath.Base(path), data[max(0, len(data)-4000):])
		}
	}
}

// site adds a site with one node, which joins and runs.
func (r *rig) site(name string, guard lab.Guard, join ...string) *world.Node {
	r.Helper()
	_, n := r.unstarted(name, guard, join...)
	r.ok(n.Start(r.ctx, "--log-level", "debug"))
	return n
}

// unstarted adds a site with one node, which has joined and does not run yet.
func (r *rig) unstarted(name string, guard lab.Guard, join ...string) (*world.Site, *world.Node) {
	r.Helper()
	s, err := r.Site(name, guard)
	r.ok(err)
	n, err := s.Node(name)
	r.ok(err)
	r.ok(n.Join(r.ctx, join...))
	return s, n
}

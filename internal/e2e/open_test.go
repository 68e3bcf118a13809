package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// openProgram builds, once, a daemon whose switch judges nothing (switch/admit_open.go). It speaks the real transport, with
// the real keys of its node, and sends whatever its host gives it, under grant 1. What its peers are not to have, they must
// refuse themselves.
var openProgram = sync.OnceValues(func() (string, error) {
	path := filepath.Join(bin, "etherloom-open")
	args := []string{"build", "-tags", "openswitch", "-o", path}
	if raced() {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/etherloom/etherloom/cmd/etherloom")...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the daemon that judges nothing: %w: %s", err, out)
	}
	return path, err
})

// liar adds a site with one node whose daemon judges nothing, which joins and runs.
func (r *rig) liar(name string, join ...string) *world.Node {
	r.Helper()
	_, n := r.unstarted(name, lab.PortPreserving, join...)
	program, err := openProgram()
	r.ok(err)
	n.Program = program
	// Its own switch freezes nothing, though it hears those whom it pretends to be.
	r.ok(n.Start(r.ctx, "--log-level", "debug", "--fdb-duplicate", "off"))
	return n
}

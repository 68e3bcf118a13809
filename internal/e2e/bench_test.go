package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/etherloom/etherloom/internal/bench"
	"github.com/etherloom/etherloom/internal/lab"
)

// `etherloom bench` measures over a network of its own, and leaves nothing of it.
func TestBench(t *testing.T) {
	before := links(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "etherloom"), "bench", "--json", "--seconds", "0.3")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var r struct {
		Schema int          `json:"schema"`
		Bench  bench.Result `json:"bench"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n := r.Bench.Network
	if r.Schema != 1 || n == nil {
		t.Fatalf("nothing was measured over a network: %s", out)
	}
	// What arrived over a tunnel can neither be next to nothing nor more than one core seals.
	if n.Stream < 10 || n.Stream > r.Bench.Ciphers[0].SealGB*8000 || n.Datagrams < 1000 || n.Datagrams > 1e7 {
		t.Errorf("%+v", *n)
	}
	if left, err := lab.Sweep("loombench"); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if now := links(t); now != before {
		t.Errorf("links\n%s\nbefore:\n%s", now, before)
	}
	if left := running(t); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node/preflight"
)

// Preflight finds nothing wrong where a join works, names what makes paths worse, and does not use the token up.
func TestPreflight(t *testing.T) {
	r := newRig(t)
	token, err := r.Token(r.ctx, "--label", "team=x")
	r.ok(err)
	look := func(h *lab.Host, target string) (map[string]preflight.Verdict, error) {
		out, failed := h.Run(r.ctx, filepath.Join(bin, "etherloom"), "preflight", target, "--json")
		var list struct {
			Checks []preflight.Result `json:"checks"`
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		found := make(map[string]preflight.Verdict)
		for _, c := range list.Checks {
			found[c.Check] = c.Verdict
		}
		t.Log(out)
		return found, failed
	}
	node := func(name string, guard lab.Guard) *world.Node {
		s, err := r.Site(name, guard)
		r.ok(err)
		n, err := s.Node(name)
		r.ok(err)
		return n
	}
	a, c := node("a", lab.PortPreserving), node("c", lab.Symmetric)
	for where, h := range map[string]*lab.Host{"a": a.Host, "c": c.Host} {
		found, err := look(h, token)
		r.ok(err)
		want := preflight.OK
		if where == "c" {
			want = preflight.Warning
		}
		if found["nat"] != want {
			t.Errorf("%s: the NAT is %s, want %s", where, found["nat"], want)
		}
		for _, name := range []string{"machine", "dns", "tcp", "tls", "clock", "udp", "mtu"} {
			if found[name] != preflight.OK {
				t.Errorf("%s: %s is %s", where, name, found[name])
			}
		}
	}
	out, err := a.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "join", token, "--name", "a", "--state-dir", a.StateDir())
	if err != nil {
		t.Errorf("the token is good no more: %s", out)
	}
	if found, err := look(a.Host, "https://203.0.113.99"); err == nil || found["tcp"] != preflight.Failed || found["udp"] != preflight.Failed {
		t.Errorf("no controller: %v, %v", found, err)
	}
}

package e2e

import (
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// explain asks a node what becomes of a frame. The exit code says whether it passes.
func (r *rig) explain(n *world.Node, args ...string) node.Explained {
	r.Helper()
	out, err := n.Loom(r.ctx, append([]string{"explain", "--json"}, args...)...)
	var e node.Explained
	if bad := json.Unmarshal([]byte(out), &e); bad != nil {
		r.Fatalf("explain %v on %s: %v, %v: %s", args, n.Name, err, bad, out)
	}
	if (err == nil) != e.Passes {
		r.Errorf("explain %v on %s: exit %v, and passes: %t", args, n.Name, err, e.Passes)
	}
	return e
}

// What explain says is what happens: a granted frame passes by the grant that it names; without the grant it names what is
// missing, and doing what it says makes a ping work; a spoofed frame is refused by the check that refuses it in truth.
func TestExplain(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	grants := map[string]string{}
	for _, n := range []string{"a", "b"} {
		var err error
		grants[n], err = r.Grant(r.ctx, "node:"+n, "segment:lan")
		r.ok(err)
	}
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	for _, c := range []struct {
		on       *world.Node
		args     []string
		grant    string
		decision string
	}{
		{a, []string{"--from", "a", "--to", "b"}, grants["a"], "b"},
		{a, []string{"--to", addr[1], "--tcp", "443"}, grants["a"], "b"},
		{a, []string{"--to", "b.etherloom.internal", "--arp"}, grants["a"], "b"},
		{a, []string{"--from", "b", "--to", "a", "--udp", "53"}, grants["b"], "a"},
		{b, []string{"--to", addr[0]}, grants["b"], "a"},
	} {
		if e := r.explain(c.on, c.args...); !e.Passes || strconv.Itoa(int(e.Grant)) != c.grant || e.On != c.decision || len(e.Steps) != 2 {
			t.Errorf("explain %v on %s, want by grant %s: %+v", c.args, c.on.Name, c.grant, e)
		}
	}
	out, err := a.Loom(r.ctx, "explain", "--to", "b")
	t.Logf("granted: %v\n%s", err, out)

	own, victim := r.mac(a), r.mac(b)
	for _, f := range spoofs(own, victim, addr) {
		e := r.explain(a, "--hex", hex.EncodeToString(f.frame))
		if e.Passes || e.Check != f.reason || e.On != "a" || len(e.Fixes) == 0 {
			t.Errorf("a frame that is dropped as %s is explained as %+v", f.reason, e)
		}
		// The same frame, had it come to b over a's link.
		e = r.explain(b, "--from", "a", "--hex", hex.EncodeToString(f.frame))
		if e.Passes || e.Check != f.reason || e.On != "b" {
			t.Errorf("a frame that b drops as %s is explained there as %+v", f.reason, e)
		}
	}
	out, err = a.Loom(r.ctx, "explain", "--hex", hex.EncodeToString(spoofs(own, victim, addr)[0].frame))
	t.Logf("spoofed: %v\n%s", err, out)

	_, err = r.Admin(r.ctx, "grant", "remove", grants["b"])
	r.ok(err)
	r.await("b's segment is gone", 5*time.Second, func() bool { return b.Address(r.ctx) == "" && r.peer(a, "b").ID == 0 })
	r.silent(a.Host, addr[1])
	there, here := r.explain(a, "--to", "b"), r.explain(b, "--to", "a", "--segment", "lan")
	if there.Check != "not-member" || there.On != "a" || here.Check != "no-grant" || here.On != "b" {
		t.Fatalf("without b's grant: on a %+v, on b %+v", there, here)
	}
	out, err = a.Loom(r.ctx, "explain", "--to", "b")
	t.Logf("grant removed: %v\n%s", err, out)
	// a is told nothing of b any more, so it says that first.
	if narrow := "etherloom grant add --from node:a --to node:b --segment lan --allow icmp"; !strings.HasSuffix(there.Text, "told of nobody called b") || len(there.Fixes) < 2 || there.Fixes[1].Command != narrow {
		t.Errorf("a says %+v, want %q", there, narrow)
	}
	command := strings.Fields(here.Fixes[0].Command)
	if command[0] != "etherloom" {
		t.Fatalf("the fix is %q", command)
	}
	_, err = r.Admin(r.ctx, command[1:]...)
	r.ok(err)
	addr = r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	if e := r.explain(a, "--to", "b"); !e.Passes {
		t.Errorf("after the fix: %+v", e)
	}
}

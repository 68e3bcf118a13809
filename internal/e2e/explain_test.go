package e2e

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
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

// On a gateway without a TAP a frame is judged as coming in from the machine that sends it, a host is found by its name on both ends, and private VLANs
// are what is said to keep machines apart.
func TestExplainGateways(t *testing.T) {
	c := newBridged(t, 1500)
	a := c.site("a", lab.PortPreserving)
	camera := c.machine(c.officeLAN, "camera", 10, "192.168.10.2/24")
	door := c.machine(c.plantLAN, "door", 30, "192.168.10.1/24")
	mac := func(h *lab.Host) string { return strings.TrimSpace(c.sh(h, "cat /sys/class/net/eth0/address")) }
	_, err := c.Admin(c.ctx, "host", "add", "door", "--mac", mac(door), "--attachment", "plant/lan")
	c.ok(err)
	_, err = c.Admin(c.ctx, "grant", "add", "--from", "node:a", "--to", "host:door", "--allow", "icmp")
	c.ok(err)
	_, err = c.Admin(c.ctx, "grant", "add", "--from", "attachment:office/lan", "--to", "host:door", "--allow", "icmp")
	c.ok(err)
	c.awaitAttached(c.office, c.plant)
	c.addresses(a)
	c.pings(camera, "192.168.10.1", 15*time.Second)
	frame := strings.ReplaceAll(mac(door)+mac(camera), ":", "") + "88b5" + strings.Repeat("00", 46)
	for _, q := range []struct {
		on   *world.Node
		args []string
		want string // check and node
	}{
		{a, []string{"--to", "door"}, "pass plant"},
		{a, []string{"--to", "host:door", "--tcp", "22"}, "not-allowed a"},
		{a, []string{"--to", "192.168.10.1"}, "pass plant"},
		{c.plant, []string{"--from", "a", "--to", "door"}, "pass plant"},
		{c.plant, []string{"--from", mac(camera), "--to", "door"}, "pass plant"},
		{c.office, []string{"--from", "192.168.10.2", "--to", "door"}, "pass plant"},
		{c.office, []string{"--from", "office/lan", "--to", mac(door)}, "pass plant"},
		{c.office, []string{"--hex", frame}, "not-allowed office"},
		{c.office, []string{"--hex", frame, "--from", "office/lan"}, "not-allowed office"},
	} {
		e := c.explain(q.on, q.args...)
		if e.Check+" "+e.On != q.want {
			t.Errorf("explain %v on %s, want %s: %+v", q.args, q.on.Name, q.want, e)
		}
	}
	var flows struct {
		Flows []node.Flow `json:"flows"`
	}
	c.ok(c.plant.Ask(c.ctx, &flows, "flows"))
	for _, f := range flows.Flows {
		if e := c.explain(c.plant, "--flow", "icmp "+netip.AddrPortFrom(f.Src, f.SrcPort).String()+" "+netip.AddrPortFrom(f.Dst, f.DstPort).String()); !e.Passes {
			t.Errorf("%+v is explained as %+v", f, e)
		}
	}
	if len(flows.Flows) == 0 {
		t.Error("no flow is remembered")
	}
	for _, port := range []string{"office/lan", "plant/lan"} {
		_, err = c.Admin(c.ctx, "attachment", "set", port, "--isolated")
		c.ok(err)
	}
	c.await("private VLANs are explained", 10*time.Second, func() bool {
		return c.explain(c.office, "--from", "192.168.10.2", "--to", "door").Check == "private-vlan" && c.explain(c.office, "--hex", frame).Check == "private-vlan"
	})
}

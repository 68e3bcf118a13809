package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// desk is where an administrator sits: a node, with scripts/admin, the credential, and a way to every other node.
type desk struct {
	*rig
	at    *world.Node
	nodes []*world.Node // that are reached from there
}

// desk puts an administrator at a node.
func (r *rig) desk(at *world.Node, nodes ...*world.Node) desk {
	r.Helper()
	for _, program := range []string{"jq", "nft", "tc", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			r.Fatalf("the scripts need %s: %v", program, err)
		}
	}
	reach := "#!/bin/sh\ncase $1 in\n"
	for _, n := range nodes {
		reach += fmt.Sprintf("%s) pid=%d ;;\n", n.Name, n.Daemon.PID())
	}
	reach += fmt.Sprintf("*) echo \"ssh: could not resolve $1\" >&2; exit 255 ;;\nesac\n"+
		"PATH=%s:$PATH ETHERLOOM_STATE_DIR=%s/state-$1 exec nsenter -t \"$pid\" -n sh -c \"$2\"\n", bin, r.Dir())
	r.ok(os.WriteFile(filepath.Join(r.Dir(), "reach"), []byte(reach), 0o700))
	return desk{r, at, nodes}
}

// try runs a script, and returns what it says and its exit code.
func (d desk) try(more []string, name string, args ...string) (string, int) {
	d.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "scripts", "admin", name))
	d.ok(err)
	c := d.at.Host.Command(d.ctx, path, args...)
	c.Env = append(os.Environ(), "ETHERLOOM="+filepath.Join(bin, "etherloom"), "ETHERLOOM_STATE_DIR="+d.at.StateDir(),
		"ETHERLOOM_ADMIN="+filepath.Join(d.Dir(), "controller", "admin.json"), "ETHERLOOM_REACH="+filepath.Join(d.Dir(), "reach"))
	c.Env = append(c.Env, more...)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.Fatalf("%s: %v", name, err)
	}
	d.Logf("%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out), c.ProcessState.ExitCode()
}

// script runs one that must do its work, and returns what it says.
func (d desk) script(name string, args ...string) string {
	d.Helper()
	out, code := d.try(nil, name, args...)
	if code != 0 {
		d.Fatalf("%s %s ends with %d:\n%s", name, strings.Join(args, " "), code, out)
	}
	return out
}

// refuses runs one that must not: it exits with a code, and says words.
func (d desk) refuses(code int, words, name string, args ...string) {
	d.Helper()
	out, got := d.try(nil, name, args...)
	if got != code || !strings.Contains(out, words) {
		d.Errorf("%s %s ends with %d, expected %d and %q:\n%s", name, strings.Join(args, " "), got, code, words, out)
	}
}

// once runs a script that has work to do: with --dry-run it says so and does nothing, then it does it, and then there is nothing left to do.
func (d desk) once(name string, args ...string) {
	d.Helper()
	before := d.everything()
	out := d.script(name, append(args, "--dry-run")...)
	if !strings.Contains(out, "would run") {
		d.Errorf("%s --dry-run says nothing that it would run:\n%s", name, out)
	}
	d.unchanged(before, name+" --dry-run")
	d.script(name, args...)
	after := d.everything()
	if after == before {
		d.Errorf("%s has changed nothing of\n%s", name, before)
	}
	d.script(name, args...)
	d.unchanged(after, name+", run again")
	out = d.script(name, append(args, "--dry-run")...)
	if strings.Contains(out, "would run") {
		d.Errorf("%s --dry-run has still something to run:\n%s", name, out)
	}
}

func (d desk) unchanged(before, by string) {
	d.Helper()
	if after := d.everything(); after != before {
		d.Errorf("%s has changed\n%s\nto\n%s", by, before, after)
	}
}

// everything is all that the scripts may change: what controllers store, and on each gateway ports, pinned addresses and the host's NICs.
func (d desk) everything() string {
	d.Helper()
	var all strings.Builder
	for _, kind := range []string{"attachment", "host", "grant"} {
		out, err := d.Admin(d.ctx, kind, "list", "--json")
		d.ok(err)
		all.WriteString(regexp.MustCompile(`(?m)^.*"(last_used|holders)".*\n`).ReplaceAllString(out, ""))
	}
	for _, n := range d.nodes {
		for _, p := range d.ports(n) {
			if p.Kind != "attached" {
				continue
			}
			var detail node.PortDetail
			d.ok(n.Ask(d.ctx, &detail, "port", "show", p.Port, "--segment", p.Segment))
			state := strings.Replace(p.State, "standby", "on", 1) // which of the two is the gateways' affair
			fmt.Fprintln(&all, n.Name, p.Port, p.Segment, p.NIC, p.VLAN, *p.Up, state, detail.Attributes)
		}
		var list struct {
			FDB []node.FDBEntry `json:"fdb"`
		}
		d.ok(n.Ask(d.ctx, &list, "fdb"))
		for _, e := range list.FDB {
			if e.Kind == "static" || e.Kind == "sticky" {
				fmt.Fprintln(&all, n.Name, e.Segment, e.MAC, e.Port, e.Kind)
			}
		}
		all.WriteString(d.sh(n.Host, "ip -br link; tc filter show dev lan ingress 2>/dev/null; nft list ruleset"))
	}
	return all.String()
}

// The scripts' --help says how each is called, and what all have in common; what is no option is refused with advice.
func TestScriptsHelp(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "scripts", "admin", "*-*.sh"))
	if err != nil || len(paths) != 6 {
		t.Fatalf("scripts are %v: %v", paths, err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		out, err := exec.Command(path, "--help").CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), name+" ") || !strings.Contains(string(out), "\n  --dry-run") || strings.Contains(string(out), "set -") {
			t.Errorf("%s --help: %v\n%s", name, err, out)
		}
		for _, args := range [][]string{{}, {"--nonsense"}, {"a/b", "c/d", "e/f"}, {"a/b", "--wait"}, {"a/b", "--wait", "soon"}} {
			c := exec.Command(path, args...)
			out, err := c.CombinedOutput()
			if c.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "--help says how it is called") {
				t.Errorf("%s %v: %v\n%s", name, args, err, out)
			}
		}
	}
}

// mac-pin.sh refuses by itself, before it asks anybody, what `etherloom host add` does by its form.
func TestMACPinForm(t *testing.T) {
	good := []string{"02:00:5e:00:53:01", "--name", "door", "--behind", "office/lan", "--address", "192.0.2.9/24"}
	for _, c := range []struct {
		at         int // which of good is replaced
		with, says string
	}{
		{0, "33:33:00:00:00:01", "expected a unicast one"},
		{0, "00:00:00:00:00:00", "expected a unicast one"},
		{2, "bad name", "is not a DNS label"},
		{2, "Door", "is not a DNS label"},
		{2, "door-", "is not a DNS label"},
		{2, strings.Repeat("d", 64), "is not a DNS label"},
		{6, "198.51.100.0/24", "198.51.100.0/24 is a prefix"},
		{6, "2001:db8:0:1::/64", "2001:db8:0:1::/64 is a prefix"},
		{6, "192.0.2.9/33", "the length of a prefix is 0 to 32"},
		{6, "192.0.2.9/", "the length of a prefix is 0 to 32"},
		{6, "2001:db8::9/129", "the length of a prefix is 0 to 128"},
		{6, "192.0.2.256", "an address is such as"},
		{6, "192.0.02.9", "an address is such as"},
		{6, "printer", "an address is such as"},
		{6, "2001:db8::1::9", "an address is such as"},
		{6, "2001:db8:0:0:0:0:0:0:9", "an address is such as"},
		{6, "fe80::9%eth0", "an address is such as"},
		{6, "233.252.0.1", "is not an address that a host can have"},
		{6, "127.0.0.1/8", "is not an address that a host can have"},
		{6, "::", "is not an address that a host can have"},
		{6, "ff02::1", "is not an address that a host can have"},
		{6, "::ffff:192.0.2.9", "is not an address that a host can have"},
		{0, "02-00-5E-00-53-01", ""},
		{2, "9-door", ""},
		{6, "192.0.2.9", ""},
		{6, "192.0.2.8/31", ""},
		{6, "2001:DB8::9/64", ""},
		{6, "2001:db8:1:2:3:4:5:6", ""},
		{6, "64:ff9b::192.0.2.9/96", ""},
		{6, "fe80::9/64", ""},
	} {
		args := slices.Clone(good)
		args[c.at] = c.with
		cmd := exec.Command(filepath.Join("..", "..", "scripts", "admin", "mac-pin.sh"), append(args, "--dry-run")...)
		cmd.Env = append(os.Environ(), "ETHERLOOM=true", "ETHERLOOM_ADMIN=")
		out, _ := cmd.CombinedOutput()
		code, says := 2, c.says
		if says == "" { // the next thing that is missing
			code, says = 1, "no credential"
		}
		if cmd.ProcessState.ExitCode() != code || !strings.Contains(string(out), says) {
			t.Errorf("with %s it ends with %d, expected %d and %q:\n%s", c.with, cmd.ProcessState.ExitCode(), code, says, out)
		}
	}
}

// A VLAN comes onto the overlay by one command and leaves by another; what speaks against it is said before anything is changed.
func TestVLANScripts(t *testing.T) {
	r := newRigFor(t, 20*time.Minute)
	office := r.site("office", lab.PortPreserving, "--role", "gateway")
	plant, plantLAN := r.gateway("plant", 30, 1500)
	_, err := r.Grant(r.ctx, "attachment:plant/lan", "segment:lan")
	r.ok(err)
	member := r.site("member", lab.PortPreserving)
	sw := r.vlanSwitch("office-sw")
	r.trunk(sw, office.Host, "lan", 10)
	client := r.machine(sw, "client", 10, "192.168.10.2/24")
	r.machine(plantLAN, "server", 30, "192.168.10.1/24")
	d := r.desk(office, office, plant, member)
	add := []string{"--segment", "lan", "--nic", "lan", "--vlan", "10", "--listen", "2"}

	before := d.everything()
	d.refuses(1, "has the route default, 192.0.2.0/24", "vlan-add.sh", "member/site", "--segment", "lan", "--nic", "eth0")
	d.refuses(1, "has the address 192.0.2.2/24", "vlan-add.sh", "office/site", "--segment", "lan", "--nic", "eth0", "--vlan", "10")
	d.refuses(1, "office has no eth7", "vlan-add.sh", "office/site", "--segment", "lan", "--nic", "eth7", "--vlan", "10")
	d.refuses(1, "there is no segment den", "vlan-add.sh", "office/site", "--segment", "den", "--nic", "lan", "--vlan", "10")
	d.refuses(1, "there is no node nobody", "vlan-add.sh", "nobody/site", "--segment", "lan", "--nic", "lan")
	d.refuses(1, "member is no gateway", "vlan-add.sh", "member/site", "--segment", "lan", "--nic", "eth0")
	d.refuses(1, "is no bridge", "vlan-add.sh", "office/site", "--segment", "lan", "--bridge", "lan")
	d.refuses(1, "plant/lan has these frames already", "vlan-add.sh", "plant/two", "--segment", "lan", "--nic", "lan", "--vlan", "30")
	d.refuses(1, "it is another one (vlan is 30)", "vlan-add.sh", "plant/lan", "--segment", "lan", "--nic", "lan", "--vlan", "31")
	d.refuses(1, "it is of segment lan, which does not change: vlan-remove.sh plant/lan", "vlan-add.sh", "plant/lan", "--segment", "den", "--nic", "lan", "--vlan", "30")
	r.sh(office.Host, "ip link add stub type veth peer name stub-end && ip link set stub up")
	stub := []string{"office/stub", "--segment", "lan", "--nic", "stub", "--dry-run"}
	d.refuses(1, "stub of office has no carrier", "vlan-add.sh", stub...)
	r.sh(office.Host, `ip link set stub-end up && tc qdisc add dev stub clsact &&
		tc filter add dev stub ingress u32 match u32 0 0 flowid 4c6f:6f6d action mirred egress redirect dev lo`)
	d.refuses(1, "another daemon on office has taken stub", "vlan-add.sh", stub...)
	r.sh(plant.Host, "ip link add stub type veth peer name stub-end && ip link set stub up && ip link set stub-end up")
	_, err = plant.Loom(r.ctx, "mirror", "add", "--from", "attached:lan", "--to", "stub")
	r.ok(err)
	d.refuses(1, "copies of a port of plant go to stub", "vlan-add.sh", "plant/stub", "--segment", "lan", "--nic", "stub", "--dry-run")
	_, err = plant.Loom(r.ctx, "mirror", "remove", "--to", "stub")
	r.ok(err)
	r.sh(plant.Host, "ip link del stub")
	r.sh(office.Host, "ip link del stub")
	d.unchanged(before, "what was refused")
	r.sh(office.Host, "ip link add br9 type bridge && ip link set lan master br9")
	d.refuses(1, "lan of office is a part of br9", "vlan-add.sh", "office/site", "--segment", "lan", "--nic", "lan", "--vlan", "10")
	r.sh(office.Host, "ip link set lan nomaster && ip link del br9 && ip link add link lan name lan.10 type macvlan")
	d.refuses(1, "lan.10 is on lan of office", "vlan-add.sh", "office/site", "--segment", "lan", "--nic", "lan", "--vlan", "10")
	r.sh(office.Host, "ip link del lan.10")

	talk, err := client.Start(r.ctx, "ping", "-i", "0.2", "-W", "1", "192.168.10.1")
	r.ok(err)
	defer func() { _ = talk.Stop(time.Second) }()
	out, code := d.try([]string{"ETHERLOOM_ADMIN="}, "vlan-add.sh", append([]string{"office/site"}, add...)...)
	if code != 1 || !strings.Contains(out, "no credential") {
		t.Errorf("without a credential: %d\n%s", code, out)
	}
	d.unchanged(before, "no credential")
	out = d.script("vlan-add.sh", append([]string{"office/site"}, append(add, "--dry-run", "--no-grant")...)...)
	if strings.Contains(out, "grant add") {
		t.Errorf("--no-grant would add one:\n%s", out)
	}
	d.once("vlan-add.sh", append([]string{"office/site"}, add...)...)
	r.pings(client, "192.168.10.1", 5*time.Second)

	d.once("vlan-remove.sh", "office/site")
	if out, err := client.Run(r.ctx, "ping", "-c", "2", "-W", "1", "192.168.10.1"); err == nil {
		t.Errorf("the VLAN is off the overlay, and its machines reach it:\n%s", out)
	}
	out = d.script("vlan-add.sh", append([]string{"office/site"}, add...)...)
	if !regexp.MustCompile(`office has seen [1-9][0-9]* frames of VLAN 10 among [1-9]`).MatchString(out) {
		t.Errorf("a machine asks for another all the time, and vlan-add.sh has seen none of its frames:\n%s", out)
	}
	r.pings(client, "192.168.10.1", 5*time.Second)

	// From afar, and what still names an attachment.
	r.host("cam", client, "office/site")
	d.refuses(1, "is the place of host cam", "vlan-remove.sh", "office/site")
	d.at = member
	mac := strings.TrimSpace(r.sh(client, "cat /sys/class/net/eth0/address"))
	d.script("mac-pin.sh", mac, "--name", "cam", "--remove")
	d.script("vlan-remove.sh", "office/site")
}

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// follower types what docs/operations.md says, at the host that it says.
type follower struct {
	*rig
	hosts map[string]*lab.Host
	nodes map[string]*world.Node
	last  map[string]string // what each command printed: token, mac
}

// docs/operations.md, "A site with VLANs, step by step", brings one to what it promises: every command is run as it stands there, in order.
func TestOperationsStepByStep(t *testing.T) {
	r := newRig(t)
	f := &follower{rig: r, hosts: map[string]*lab.Host{"controller": r.Controller}, nodes: map[string]*world.Node{}, last: map[string]string{}}
	for _, s := range []struct {
		gateway, machine string
		vlan             uint16
	}{{"gw-a", "a", 10}, {"gw-b", "b", 30}} {
		site, err := r.Site(s.gateway, lab.PortPreserving)
		r.ok(err)
		n, err := site.Node(s.gateway)
		r.ok(err)
		sw := r.vlanSwitch(s.gateway + "-sw")
		r.trunk(sw, n.Host, "eth1", s.vlan)
		f.hosts[s.gateway], f.nodes[s.gateway] = n.Host, n
		f.hosts[s.machine] = r.machine(sw, s.machine, s.vlan)
	}
	f.follow(25, "### A site with VLANs, step by step", "docs", "operations.md")
	for what, words := range map[string]string{
		"gw-a# etherloom port show site": "NIC eth1 (up), VLAN 10", "gw-b# etherloom port show site": "NIC eth1 (up), VLAN 30",
		"gw-a# etherloom status": "problems     none", "a# ping -c 3 198.51.100.30": " 0% packet loss", "controller# etherloom node list": "gw-b",
	} {
		if !strings.Contains(f.last[what], words) {
			t.Errorf("%s does not say %q:\n%s", what, words, f.last[what])
		}
	}
	if out := f.last["gw-a# etherloom fdb"]; !regexp.MustCompile(` site +\S+ +\d+ +dynamic `).MatchString(out) || !regexp.MustCompile(` gw-b +\S+ +\d+ +announced `).MatchString(out) {
		t.Errorf("the forwarding database is\n%s", out)
	}
}

// README.md, "A VLAN that exists", does so too, with namespaces in place of machines.
func TestREADMEVLAN(t *testing.T) {
	r := newRig(t)
	f := &follower{rig: r, hosts: map[string]*lab.Host{"controller": r.Controller}, nodes: map[string]*world.Node{}, last: map[string]string{}}
	for _, name := range []string{"gw-a", "gw-b"} {
		n := r.site(name, lab.PortPreserving, "--role", "gateway")
		f.hosts[name], f.nodes[name] = n.Host, n
		defer r.sh(n.Host, "ip netns del camera 2>/dev/null || ip netns del door")
	}
	f.follow(13, "## A VLAN that exists", "README.md")
	for what, words := range map[string]string{
		"gw-a# ip netns exec camera ping -c 3 198.51.100.30": " 0% packet loss", "gw-a# etherloom ports": "attached",
	} {
		if !strings.Contains(f.last[what], words) {
			t.Errorf("%s does not say %q:\n%s", what, words, f.last[what])
		}
	}
	if out := f.last["gw-a# etherloom fdb"]; !regexp.MustCompile(` site +\S+ +\d+ +dynamic `).MatchString(out) || !regexp.MustCompile(` gw-b +\S+ +\d+ +announced `).MatchString(out) {
		t.Errorf("the forwarding database is\n%s", out)
	}
}

// follow types every command of a section, of which there are some at least.
func (f *follower) follow(least int, heading string, path ...string) {
	f.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	f.ok(err)
	_, section, found := strings.Cut(string(data), heading+"\n")
	level, _, _ := strings.Cut(heading, " ")
	section, _, ended := strings.Cut(section, "\n"+level+" ")
	if !found || !ended {
		f.Fatalf("%s has no section %q", path, heading)
	}
	lines := regexp.MustCompile(`(?m)^([a-z-]+)# (.+)$`).FindAllStringSubmatch(section, -1)
	if len(lines) < least {
		f.Fatalf("the section has %d commands", len(lines))
	}
	for _, l := range lines {
		f.types(l[1], l[2])
	}
}

// types runs a command. What a machine has and a namespace has not is stood for: packages, systemd, the controller's public name.
func (f *follower) types(at, command string) {
	f.Helper()
	h, n := f.hosts[at], f.nodes[at]
	switch {
	case h == nil:
		f.Fatalf("%s# %s: there is no such host", at, command)
	case strings.HasPrefix(command, "apt-get install "), strings.HasPrefix(command, "echo ETHERLOOM_ADVERTISE="), strings.HasPrefix(command, "export "),
		command == "systemctl enable --now etherloom-controller":
		return
	case command == "systemctl enable --now etherloom":
		f.ok(n.Start(f.ctx))
		return
	}
	typed := strings.NewReplacer("TOKEN", f.last["token"], "MAC", f.last["mac"]).Replace(command)
	env := "export PATH=" + bin + ":$PATH ETHERLOOM_ADMIN=" + filepath.Join(f.Dir(), "controller", "admin.json")
	if n != nil {
		env += " ETHERLOOM_STATE_DIR=" + n.StateDir()
	}
	var out string
	var err error
	// Whoever types takes a while to the next line: a network that is not there yet may be there then.
	for range 10 {
		if out, err = h.Run(f.ctx, "sh", "-c", env+"; "+typed); err == nil {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	f.Logf("%s# %s\n%s", at, typed, out)
	if err != nil {
		f.Fatalf("%s# %s: %v", at, command, err)
	}
	f.last[at+"# "+command] = out
	if token := regexp.MustCompile(`loom1\.\S+`).FindString(out); token != "" {
		f.last["token"] = token
	}
	if mac := regexp.MustCompile(`([0-9a-f]{2}:){5}[0-9a-f]{2}`).FindString(out); mac != "" && strings.HasPrefix(command, "ip ") {
		f.last["mac"] = mac
	}
}

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// configured writes a configuration file.
func (r *rig) configured(name, text string) string {
	r.Helper()
	path := filepath.Join(r.Dir(), name+".yaml")
	r.ok(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// own lists a gateway's attachments as it sees them.
func (r *rig) own(n *world.Node) (list []node.AttachmentStatus) {
	r.Helper()
	var out struct{ Attachments []node.AttachmentStatus }
	r.ok(n.Ask(r.ctx, &out, "attachment", "list"))
	return out.Attachments
}

// A gateway attaches a VLAN by its own configuration alone, and another by command: machines on both are on one segment. What is no longer
// declared is no longer there; a node without the role declares in vain; and none of it needs a controller that was heard once.
func TestDeclaredGateway(t *testing.T) {
	r := newRig(t)
	_, office := r.unstarted("office", lab.PortPreserving, "--role", "gateway")
	officeLAN := r.vlanSwitch("office-sw")
	r.trunk(officeLAN, office.Host, "lan", 10)
	file := r.configured("office", "attachments:\n  - {port: lan, segment: lan, nic: lan, vlan: 10}\n")
	r.ok(office.Start(r.ctx, "--config", file))
	plant := r.site("plant", lab.PortPreserving, "--role", "gateway")
	plantLAN := r.vlanSwitch("plant-sw")
	r.trunk(plantLAN, plant.Host, "lan", 30)
	add := []string{"attachment", "add", "lan", "--state-dir", plant.StateDir(), "--segment"}
	r.fails(plant.Host, []string{`"nowhere"`}, "etherloom", append(add, "nowhere", "--nic", "lan", "--vlan", "30")...)
	r.fails(plant.Host, []string{"there is no network device eth7", "`ip link`"}, "etherloom", append(add, "lan", "--nic", "eth7")...)
	r.fails(plant.Host, []string{"has the address", "--move-host"}, "etherloom", append(add, "lan", "--nic", "eth0")...)
	r.fails(plant.Host, []string{"VLAN is 5000"}, "etherloom", append(add, "lan", "--nic", "lan", "--vlan", "5000")...)
	if list := r.own(plant); len(list) != 0 {
		t.Errorf("after what was refused there are %+v", list)
	}
	r.awaitNoProblem(plant, "attachment lan")
	if out, err := plant.Loom(r.ctx, "attachment", "add", "lan", "--segment", "lan", "--nic", "lan", "--vlan", "30"); err != nil || !strings.Contains(out, "signed") {
		t.Fatalf("attachment add says %v\n%s", err, out)
	}
	r.await("the office's is signed", 10*time.Second, func() bool {
		l := r.own(office)
		return len(l) == 1 && l[0].State == "signed" && l[0].Origin == "config"
	})
	for _, from := range []string{"attachment:office/lan", "attachment:plant/lan"} {
		_, err := r.Grant(r.ctx, from, "segment:lan")
		r.ok(err)
	}
	client := r.machine(officeLAN, "client", 10, "192.168.10.2/24")
	r.machine(plantLAN, "server", 30, "192.168.10.1/24")
	r.awaitAttached(office, plant)
	r.pings(client, "192.168.10.1", 10*time.Second)
	r.sh(plant.Host, "ip link set lan down")
	r.awaitProblem(plant, "attachment lan", "NIC lan has no carrier")
	r.sh(plant.Host, "ip link set lan up")
	r.awaitNoProblem(plant, "attachment lan")
	r.pings(client, "192.168.10.1", 10*time.Second)
	out, err := r.Admin(r.ctx, "attachment", "list")
	r.ok(err)
	if strings.Count(out, " node ") != 2 {
		t.Errorf("the network's list does not say who wants them:\n%s", out)
	}
	out, err = r.Admin(r.ctx, "audit", "list")
	r.ok(err)
	if strings.Count(out, "attachment.add") != 2 {
		t.Errorf("the audit log has\n%s", out)
	}

	member := r.site("member", lab.PortPreserving)
	_, err = r.Lab.Cable(lab.Plug{On: member.Host, Name: "lan"}, lab.Plug{On: client, Name: "spare"})
	r.ok(err)
	r.fails(member.Host, []string{"has not the role gateway"}, "etherloom", "attachment", "add", "lan", "--state-dir", member.StateDir(), "--segment", "lan", "--nic", "lan")
	r.awaitNoProblem(member, "attachment lan")
	r.fails(office.Host, []string{"declared in the configuration"}, "etherloom", "attachment", "remove", "lan", "--state-dir", office.StateDir())

	// No controller: what was granted goes on over a restart, and what is new waits.
	r.ok(r.ControllerProcess().Signal(os.Kill))
	<-r.ControllerProcess().Done()
	r.again(office, "--config", r.configured("office", "attachments:\n  - {port: lan, segment: lan, nic: lan, vlan: 10}\n  - {port: two, segment: lan, nic: lan, vlan: 20}\n"))
	r.await("the office has its VLAN without a controller", 10*time.Second, func() bool {
		return slices.ContainsFunc(r.ports(office), func(p node.Port) bool { return p.Kind == "attached" && p.Port == "lan" && p.NIC == "lan" })
	})
	if l := r.own(office); len(l) != 2 || l[0].State != "signed" || l[1].State != "waits" {
		t.Errorf("without a controller the office has %+v", l)
	}
	r.awaitProblem(office, "attachment two", "waits for a controller")
	r.ok(r.StartController(r.ctx))
	r.await("what waited is signed", 20*time.Second, func() bool { l := r.own(office); return len(l) == 2 && l[1].State == "signed" })
	r.pings(client, "192.168.10.1", 15*time.Second)

	// Withdrawn, here at once and there as soon as nothing names it.
	_, err = plant.Loom(r.ctx, "attachment", "remove", "lan")
	r.ok(err)
	r.silent(client, "192.168.10.1")
	r.again(office, "--config", r.configured("office", "attachments: [{port: lan, segment: lan, nic: lan, vlan: 10}]\n"))
	r.await("the network forgets the office's second port", 10*time.Second, func() bool {
		out, err := r.Admin(r.ctx, "attachment", "list")
		return err == nil && strings.Contains(out, "office/lan") && !strings.Contains(out, "office/two")
	})
	r.awaitProblem(plant, "attachment lan", "is still named by grant")
}

// hostState is what a host has of addresses and routes. The daemon's own TAPs are not part of it.
func (r *rig) hostState(n *world.Node) string {
	r.Helper()
	return r.sh(n.Host, "ip addr show eth0; ip route; ip -6 route; ip -br link | grep -c br-eth0 || true")
}

// moving is a gateway whose only NIC is its uplink, and a TCP connection by it that nobody must notice the moves by.
type moving struct {
	*rig
	gw   *world.Node
	was  string // what the host had
	flow *flow
	stop context.CancelFunc
}

func newMoving(t *testing.T) *moving {
	t.Helper()
	m := &moving{rig: newRig(t)}
	_, m.gw = m.unstarted("gw", lab.PortPreserving, "--role", "gateway")
	m.ok(m.gw.Start(m.ctx, "--underlay-interfaces", "eth0"))
	m.was = m.hostState(m.gw)
	m.begin()
	return m
}

func (m *moving) begin() {
	m.Helper()
	ctx, stop := context.WithCancel(m.ctx)
	m.stop, m.flow = stop, m.rig.flow(ctx, m.gw.Host, m.Controller, world.ControllerAddr, 4e6, 0)
}

// goesOn fails the test unless the connection carries data now.
func (m *moving) goesOn(when string) {
	m.Helper()
	before := m.flow.got.Load()
	m.await("the connection goes on "+when, 10*time.Second, func() bool { return m.flow.got.Load() > before+100<<10 })
}

func (m *moving) add(confirm time.Duration) string {
	m.Helper()
	out, err := m.gw.Loom(m.ctx, "attachment", "add", "lan", "--segment", "lan", "--nic", "eth0", "--vlan", "10", "--move-host", "--confirm", confirm.String())
	if err != nil {
		m.Fatal(err, out)
	}
	return out
}

// moved waits until the host has what it had on the bridge; or not any more.
func (m *moving) moved(want bool, within time.Duration) {
	m.Helper()
	m.await("moved "+strconv.FormatBool(want), within, func() bool {
		l := m.own(m.gw)
		return len(l) == 1 && (l[0].Moved == "br-eth0") == want
	})
	if is := strings.Contains(m.sh(m.gw.Host, "ip -br addr"), "br-eth0"); is != want {
		m.Errorf("the bridge is there: %v", is)
	}
}

func (m *moving) unchanged(when string) {
	m.Helper()
	if is := m.hostState(m.gw); is != m.was {
		m.Errorf("%s the host has\n%s\nit had\n%s", when, is, m.was)
	}
}

// The only NIC of a gateway is taken, and what the host has there moves to a bridge: its connection goes on. Nobody confirms, and it all goes
// back; somebody does, and it stays, over a restart. In the end the host has what it had.
func TestMoveHost(t *testing.T) {
	m := newMoving(t)
	if out := m.add(6 * time.Second); !strings.Contains(out, "`etherloom attachment confirm lan`") || !strings.Contains(out, "br-eth0") {
		t.Errorf("attachment add says\n%s", out)
	}
	m.moved(true, 5*time.Second)
	m.goesOn("on the bridge")
	if s := m.status(m.gw); len(s.Underlay) == 0 || len(s.Controllers) == 0 || !s.Controllers[0].Connected {
		t.Errorf("on the bridge the gateway sends by %+v; controllers %+v", s.Underlay, s.Controllers)
	}
	m.moved(false, 15*time.Second)
	m.goesOn("on the NIC again")
	m.unchanged("after nobody has confirmed")
	m.awaitProblem(m.gw, "nic eth0", "`etherloom attachment move lan`")
	m.fails(m.gw.Host, []string{"nobody has confirmed in time"}, "etherloom", "attachment", "confirm", "lan", "--state-dir", m.gw.StateDir())
	m.again(m.gw, "--underlay-interfaces", "eth0")
	m.goesOn("over a restart")
	m.unchanged("after a restart")

	if out, err := m.gw.Loom(m.ctx, "attachment", "move", "lan", "--confirm", "5m"); err != nil {
		t.Fatal(err, out)
	}
	m.moved(true, 5*time.Second)
	if out, err := m.gw.Loom(m.ctx, "attachment", "confirm", "lan"); err != nil {
		t.Fatal(err, out)
	}
	if l := m.own(m.gw); l[0].Until != nil {
		t.Errorf("after the confirmation there is still %v to wait for", l[0].Until)
	}
	m.goesOn("with a confirmation")
	m.again(m.gw, "--underlay-interfaces", "eth0")
	m.moved(true, 10*time.Second)
	m.goesOn("over a restart")
	_, err := m.gw.Loom(m.ctx, "attachment", "remove", "lan")
	m.ok(err)
	m.goesOn("without the attachment")
	m.unchanged("in the end")
	m.stop()
	m.ok(m.flow.wait())
}

// A gateway that is killed before the move was confirmed does not repeat it, and gives all back when it starts; an administrator of the
// network asks for it anew, and confirms.
func TestMoveHostKilled(t *testing.T) {
	m := newMoving(t)
	m.add(10 * time.Minute)
	m.moved(true, 5*time.Second)
	m.ok(m.gw.Daemon.Signal(os.Kill))
	<-m.gw.Daemon.Done()
	m.goesOn("without a daemon")
	m.ok(m.gw.Restart(m.ctx))
	m.goesOn("with the next daemon")
	m.moved(false, 5*time.Second)
	m.unchanged("after kill -9")
	m.awaitProblem(m.gw, "nic eth0", "nobody has confirmed in time")

	_, err := m.Admin(m.ctx, "attachment", "set", "gw/lan", "--nic", "eth0", "--vlan", "10", "--move-host", "--confirm", "10m")
	m.ok(err)
	m.moved(true, 10*time.Second)
	m.goesOn("on the bridge")
	_, err = m.Admin(m.ctx, "attachment", "confirm", "gw/lan")
	m.ok(err)
	m.await("the gateway hears of the confirmation", 5*time.Second, func() bool { return m.own(m.gw)[0].Until == nil })
	m.ok(m.gw.Daemon.Signal(os.Kill))
	<-m.gw.Daemon.Done()
	m.ok(m.gw.Restart(m.ctx))
	m.moved(true, 10*time.Second)
	m.goesOn("with the next daemon")
	m.ok(m.gw.Stop())
	m.goesOn("after its end")
	m.unchanged("after its end")
	m.stop()
	m.ok(m.flow.wait())
}

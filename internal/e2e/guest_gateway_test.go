package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/node"
)

// guestGateway is a guest that is the gateway. Its eth3 and eth4 lead to a switch on which there are both VLANs, and the internet without a
// tag.
type guestGateway struct {
	*twoVLANs
	sw           *lab.VLANSwitch
	drone, kiosk *lab.Host // on that switch: on lan and on dmz
}

// guestAddr is the guest's address on the internet.
const guestAddr = "203.0.113.90"

func newGuestGateway(t *testing.T) *guestGateway {
	t.Helper()
	g := &guestGateway{twoVLANs: newTwoVLANs(t)}
	g.sw = g.vlanSwitch("gate-sw")
	g.boot([]string{filepath.Join(bin, "etherloom"), "tc"}, lab.Plug{On: g.Internet, Name: "gate"},
		lab.Plug{On: g.sw.Host(), Name: "g3"}, lab.Plug{On: g.sw.Host(), Name: "g4"})
	for _, port := range []string{"g3", "g4"} {
		g.ok(g.sw.Configure(g.ctx, "add-port", "sw0", port, "--", "set", "Port", port, "vlan_mode=native-untagged", "tag=1", "trunks=[1,10,20]"))
	}
	_, err := g.sw.Access(g.ctx, lab.Plug{On: g.Internet, Name: "gate-sw"}, 1)
	g.ok(err)
	g.sh(g.Internet, "for p in gate gate-sw; do ip link set $p master br0; done")
	g.drone = g.machine(g.sw, "drone", 10, "192.168.10.3/24")
	g.kiosk = g.machine(g.sw, "kiosk", 20, "192.168.20.3/24")
	token, err := g.Token(g.ctx, "--role", "gateway")
	g.ok(err)
	g.inside(`
		ip address add ` + guestAddr + `/24 dev eth0
		ip link set eth0 up
		ip link del bond0 # the module's own
		touch /etc/resolv.conf
		etherloom join ` + token + ` --name gate --state-dir /tmp/state`)
	t.Cleanup(func() {
		if t.Failed() {
			out, err := g.guest.Run(g.ctx, "tail -n 60 /tmp/log; ip -br link; ip -br address; ip route; bridge -compressvlans vlan; bridge fdb | grep -v permanent; true")
			t.Logf("the guest: %v\n%s", err, out)
		}
	})
	return g
}

// start starts the daemon in the guest, slow as it is itself.
func (g *guestGateway) start() {
	g.Helper()
	g.inside("etherloom run --state-dir /tmp/state --timers-hello 1s >>/tmp/log 2>&1 & echo $! >/tmp/pid")
	g.await("the daemon answers", guestPatience, func() bool {
		_, err := g.status()
		return err == nil
	})
}

// end ends it by a signal, and waits until it is gone. Nobody need have taken its exit code.
func (g *guestGateway) end(signal string) {
	g.Helper()
	g.inside("kill -" + signal + " $(cat /tmp/pid)\nwhile grep -q . /proc/$(cat /tmp/pid)/cmdline 2>/dev/null; do sleep 0.1; done")
}

// ask runs a local command in the guest with --json.
func (g *guestGateway) ask(into any, command string) error {
	out, err := g.guest.Run(g.ctx, "etherloom "+command+" --state-dir /tmp/state --json")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

func (g *guestGateway) status() (s node.Status, err error) {
	err = g.ask(&s, "status")
	return s, err
}

// carries waits until both ports carry frames, to a device.
func (g *guestGateway) carries(lan, dmz string) {
	g.Helper()
	g.await("the gateway has lan at "+lan+" and dmz at "+dmz, guestPatience, func() bool {
		var list struct{ Ports []node.Port }
		if g.ask(&list, "ports") != nil {
			return false
		}
		return slices.ContainsFunc(list.Ports, on("lan", lan)) && slices.ContainsFunc(list.Ports, on("dmz", dmz))
	})
}

func on(port, device string) func(node.Port) bool {
	return func(p node.Port) bool {
		return p.Kind == "attached" && p.Port == port && (p.NIC == device || p.Bridge == device) && p.State == "on" && p.Up != nil && *p.Up
	}
}

// set puts both VLANs on other devices.
func (g *guestGateway) set(lan, dmz string) {
	g.Helper()
	for port, args := range map[string]string{"lan": lan, "dmz": dmz} {
		_, err := g.Admin(g.ctx, append([]string{"attachment", "set", "gate/" + port}, strings.Fields(args)...)...)
		g.ok(err)
	}
}

// problems is what the gateway's status tells about a device.
func (g *guestGateway) problems(about string) (texts []string) {
	g.Helper()
	s, err := g.status()
	g.ok(err)
	for _, p := range s.Problems {
		if p.About == about {
			texts = append(texts, p.Text)
		}
	}
	return texts
}

// sound fails the test if it tells any.
func (g *guestGateway) sound(about string) {
	g.Helper()
	if texts := g.problems(about); len(texts) > 0 {
		g.Errorf("status says of %s: %q", about, texts)
	}
}

// serves has the machines on the switch reach those elsewhere on their VLANs, both ways and with 1500 bytes, and not the other VLAN's.
func (g *guestGateway) serves(when string) {
	g.Helper()
	g.Log(when)
	g.pings(g.server, "192.168.10.3", guestPatience)
	g.pings(g.drone, "192.168.10.1", guestPatience)
	g.pings(g.kiosk, "192.168.20.1", guestPatience)
	g.pings(g.vault, "192.168.20.3", guestPatience)
	g.sh(g.drone, "ping -c 3 -i 0.2 -W 5 -M do -s 1472 192.168.10.1")
	g.sh(g.drone, "! ping -c 1 -W 1 192.168.20.1")
}

// settled is a script that waits until devices are up, and none of their addresses is being asked for.
func settled(devices ...string) string {
	script := ""
	for _, dev := range devices {
		script += fmt.Sprintf("\nfor i in $(seq 100); do ip address show %[1]s >/tmp/is; grep -q 'state UP' /tmp/is && ! grep -q tentative /tmp/is && break; sleep 0.2; done", dev)
	}
	return script
}

// restored fails the test unless a script says what it said before.
func (g *guestGateway) restored(what, before string) {
	g.Helper()
	if is := g.inside(what); is != before {
		g.Errorf("%s says\n%s\nand said before\n%s", what, is, before)
	}
}

// A kernel that knows VLANs is the gateway: with a bridge of its own, with a bond, with an 802.1Q interface, and with what the host itself
// needs. One guest for all, for it is slow to boot.
func TestGuestGateway(t *testing.T) {
	g := newGuestGateway(t)
	g.joinsBridge()
	g.takesBond()
	g.takesVLAN()
	g.movesBond()
	g.joinsHostsBridge()
}

// joinsBridge: the gateway joins a bridge that filters by VLAN, and tells it who is elsewhere on each VLAN, whether they have spoken or not.
func (g *guestGateway) joinsBridge() {
	g.inside(`
		ip link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0 forward_delay 0 mcast_snooping 0
		for n in 1 2; do ip link set eth$n master br0 up; done
		bridge vlan add dev eth1 vid 10 pvid untagged
		bridge vlan add dev eth2 vid 20 pvid untagged
		ip link set br0 up
		bridge fdb add ` + byHand + ` dev eth1 vlan 10 master static`)
	const bridge = "ip -d link show dev eth1 | head -n 2; bridge vlan show dev eth1; bridge fdb show br br0 | grep 'master br0 [ps]' | sort"
	before := g.inside(bridge)
	g.start()
	for s, vlan := range map[string]string{"lan": "10", "dmz": "20"} {
		_, err := g.Admin(g.ctx, "attachment", "add", "gate/"+s, "--segment", s, "--bridge", "br0", "--vlan", vlan)
		g.ok(err)
		_, err = g.Grant(g.ctx, "attachment:gate/"+s, "segment:"+s)
		g.ok(err)
	}
	g.carries("br0", "br0")
	g.works()
	g.apart()
	g.told()
	g.moves()

	g.inside("ip link set br0 type bridge vlan_filtering 0")
	g.await("a bridge without VLANs has forgotten them", guestPatience, func() bool { return !strings.Contains(g.inside("bridge fdb show br br0"), "extern_learn") })
	g.sound("bridge br0")
	g.inside("ip link set br0 type bridge vlan_filtering 1")
	server := g.macOf(g.server, "eth0")
	g.await("with VLANs again it is told", guestPatience, func() bool { return g.knows(10, server) })
	g.sound("bridge br0")
	// A VLAN that is taken off a port leaves the entries that a control plane made, and nothing would have to be told.
	g.inside("bridge fdb del " + g.macOf(g.vault, "eth0").String() + " dev wire0 vlan 20 master; bridge vlan del dev wire0 vid 20")
	g.await("status says which VLAN the bridge is not told of", guestPatience, func() bool {
		return slices.ContainsFunc(g.problems("bridge br0"), func(text string) bool { return strings.Contains(text, "on VLAN 20") })
	})
	if !g.knows(10, server) {
		g.Error("for want of one VLAN the bridge is told of none")
	}
	g.inside("bridge vlan add dev wire0 vid 20")
	g.await("it is told of that VLAN again", guestPatience, func() bool {
		return len(g.problems("bridge br0")) == 0 && g.knows(20, g.macOf(g.vault, "eth0"))
	})

	g.end("KILL")
	if out := g.inside("bridge fdb show br br0"); strings.Contains(out, "wire0") || strings.Contains(out, "extern_learn") {
		g.Errorf("after kill -9 the bridge has\n%s", out)
	}
	g.start()
	g.carries("br0", "br0")
	g.await("the next daemon tells it", guestPatience, func() bool { return g.knows(10, server) && g.knows(20, g.macOf(g.vault, "eth0")) })
	g.pings(g.camera, "192.168.10.1", guestPatience)
	g.end("TERM")
	g.restored(bridge, before)
}

// Addresses on the bridge in the guest: one that somebody has written down, one that is pinned and has never spoken, and one that moves.
const (
	byHand = "02:00:5e:00:53:99"
	silent = "02:00:5e:00:53:77"
)

func rover() net.HardwareAddr { return net.HardwareAddr{2, 0, 0x5e, 0, 0x53, 0x66} }

// knows reports whether the bridge in the guest was told that somebody is behind the gateway on a VLAN.
func (g *guestGateway) knows(vlan int, mac net.HardwareAddr) bool {
	g.Helper()
	return strings.Contains(g.inside(fmt.Sprint("bridge fdb show br br0 vlan ", vlan)), fmt.Sprintf("%s dev wire0 vlan %d extern_learn", mac, vlan))
}

// told looks at what the bridge is told: of each VLAN by itself, also of who has never spoken, and no longer than they are there.
func (g *guestGateway) told() {
	g.Helper()
	pinned, err := net.ParseMAC(silent)
	g.ok(err)
	_, err = g.Admin(g.ctx, "host", "add", "printer", "--mac", silent, "--attachment", "plant/lan")
	g.ok(err)
	grant, err := g.Grant(g.ctx, "host:printer", "segment:lan")
	g.ok(err)
	server, vault := g.macOf(g.server, "eth0"), g.macOf(g.vault, "eth0")
	g.await("the bridge knows who is at the plant", guestPatience, func() bool { return g.knows(10, pinned) && g.knows(10, server) && g.knows(20, vault) })
	if g.knows(20, pinned) || g.knows(20, server) || g.knows(10, vault) {
		g.Errorf("one VLAN has what is on the other:\n%s", g.inside("bridge fdb show br br0"))
	}
	_, err = g.Admin(g.ctx, "grant", "remove", grant)
	g.ok(err)
	_, err = g.Admin(g.ctx, "host", "remove", "printer")
	g.ok(err)
	g.await("the bridge knows no more who is gone", guestPatience, func() bool { return !g.knows(10, pinned) })
	if !g.knows(10, server) {
		g.Error("with one the others are gone")
	}
	g.sound("bridge br0")
}

// moves has a machine of VLAN 10 appear at the plant, at the guest's bridge, and at the plant again.
func (g *guestGateway) moves() {
	g.Helper()
	say := ethernet(broadcast(), rover(), lab.Experimental)
	say = append(say, make([]byte, 60-len(say))...)
	here := func() bool {
		return strings.Contains(g.inside("bridge fdb show br br0 vlan 10"), rover().String()+" dev eth1 vlan 10")
	}
	for _, step := range []struct {
		what string
		from *lab.Host
		is   func() bool
	}{
		{"it is at the plant", g.server, func() bool { return g.knows(10, rover()) }},
		{"it is at the bridge", g.camera, func() bool { return here() && !g.knows(10, rover()) }},
		{"it is at the plant again", g.server, func() bool { return g.knows(10, rover()) && !here() }},
	} {
		g.await("the bridge knows that "+step.what, guestPatience, func() bool {
			g.inject(step.from, "eth0", say)
			return step.is()
		})
	}
}

// takesBond: a bond of two NICs is the gateway's NIC, and one of them goes.
func (g *guestGateway) takesBond() {
	g.inside(`
		ip link add bond1 type bond mode active-backup miimon 100
		for n in 3 4; do ip link set eth$n down; ip link set eth$n master bond1; done
		ip link set bond1 up` + settled("bond1"))
	const bond = "ip -d link show bond1; /lab/tc qdisc show dev bond1; /lab/tc filter show dev bond1 ingress"
	before := g.inside(bond)
	g.set("--nic bond1 --vlan 10", "--nic bond1 --vlan 20")
	g.start()
	g.carries("bond1", "bond1")
	g.serves("a bond is the gateway's NIC")
	g.sound("nic bond1")
	other, shown := g.arrivals(g.sw.Host(), "g4"), lab.Ethernet(broadcast(), g.macOf(g.server, "eth0"), uint16(ether.TypeRARP), lab.Tag{VLAN: 10})
	g.inside("ip link set eth3 down")
	g.await("the switch is shown who is reached by the bond's other NIC", guestPatience, func() bool {
		yes, err := other.Contains(shown)
		return err == nil && yes
	})
	g.serves("one of the bond's NICs is down")
	g.inside("ip link set eth3 up; ip link set eth4 down")
	g.serves("the other of the bond's NICs is down")
	g.inside("ip link set eth4 up")
	g.inside("echo eth3 >/sys/class/net/bond1/bonding/active_slave")
	g.sound("nic bond1")
	g.end("TERM")
	g.restored(bond, before)
	g.inside("ip link del bond1")
}

// takesVLAN: the 802.1Q interfaces of a NIC are the gateway's NICs.
func (g *guestGateway) takesVLAN() {
	g.inside(`
		ip link set eth3 up
		for n in 10 20; do ip link add link eth3 name eth3.$n type vlan id $n; ip link set eth3.$n up; done` + settled("eth3", "eth3.10", "eth3.20"))
	const vlans = "for n in eth3 eth3.10 eth3.20; do ip -d link show $n; /lab/tc qdisc show dev $n; /lab/tc filter show dev $n ingress; done"
	before := g.inside(vlans)
	g.set("--nic eth3.10", "--nic eth3.20")
	g.start()
	g.carries("eth3.10", "eth3.20")
	g.serves("802.1Q interfaces are the gateway's NICs")
	g.sound("nic eth3.10")
	g.end("TERM")
	g.restored(vlans, before)
	g.inside("for n in 10 20; do ip link del eth3.$n; done; ip link set eth3 down")
}

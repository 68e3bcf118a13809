package e2e

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// outside watches from elsewhere on the internet whether the guest is reached: by ping and by a TCP connection that must stay.
type outside struct {
	g    *guestGateway
	ping *lab.Process
	conn net.Conn

	read, answers int // of the pings' log so far
}

func (g *guestGateway) watch() *outside {
	g.Helper()
	g.inside("nc -l -p 9 -e cat >/dev/null 2>&1 &")
	g.pings(g.Controller, guestAddr, guestPatience)
	o := &outside{g: g}
	var err error
	g.await("the guest answers by TCP", guestPatience, func() bool {
		o.conn, err = g.Controller.Dial(g.ctx, "tcp", guestAddr+":9")
		return err == nil
	})
	o.ping, err = g.Controller.Start(g.ctx, "ping", "-D", "-O", "-i", "0.2", guestAddr)
	g.ok(err)
	return o
}

// reached fails the test unless the guest answers by the same connection as before.
func (o *outside) reached(when string) {
	o.g.Helper()
	o.g.ok(o.conn.SetDeadline(time.Now().Add(guestPatience)))
	_, err := fmt.Fprintln(o.conn, when)
	buf := make([]byte, len(when)+1)
	if err == nil {
		_, err = io.ReadFull(o.conn, buf)
	}
	if err != nil || string(buf) != when+"\n" {
		o.g.Fatalf("%s the guest answers %q by the connection that there was: %v", when, buf, err)
	}
	o.pinged(when)
}

// most is how many pings in turn the guest may leave without an answer, 0.2 s each: it is a program that has to share its processor.
const most = 20

// pinged counts the answers to pings since it was asked last, and fails the test if too many in turn had none.
func (o *outside) pinged(when string) {
	o.g.Helper()
	log, err := o.ping.Log()
	o.g.ok(err)
	longest, run, answers := 0, 0, 0
	for line := range strings.Lines(log[o.read:]) {
		switch {
		case strings.Contains(line, "no answer yet"):
			run++
			longest = max(longest, run)
		case strings.Contains(line, "bytes from"):
			run = 0
			answers++
		}
	}
	o.g.Logf("%s: %d pings were answered; at most %d in turn were not", when, answers, longest)
	if longest > most {
		o.g.Errorf("%s the guest did not answer:\n%s", when, log[o.read:])
	}
	o.read, o.answers = len(log), o.answers+answers
}

// end ends the watch.
func (o *outside) end() {
	o.g.Helper()
	_ = o.conn.Close()
	o.pinged("in the end")
	if err := o.ping.Stop(time.Second); err != nil {
		o.g.Log(err) // it was stopped by a signal
	}
	if o.answers == 0 {
		o.g.Error("no ping was answered")
	}
}

// movesBond: the only NIC by which the host is reached is a bond, and its VLANs are the gateway's. It moves to a bridge that filters by VLAN.
func (g *guestGateway) movesBond() {
	g.inside(`
		ip address flush dev eth0
		ip link set eth0 down
		ip link add bond0 type bond mode active-backup miimon 100
		for n in 3 4; do ip link set eth$n down; ip link set eth$n master bond0; done
		ip link set bond0 up
		ip address add ` + guestAddr + `/24 dev bond0
		ip route add default via ` + world.ControllerAddr)
	const host = "ip -d address show bond0; ip route; ip -br link | grep -c br-bond0 || true"
	g.inside(settled("bond0"))
	before := g.inside(host)
	o := g.watch()
	moved := func(want bool) func() bool {
		return func() bool {
			var list struct{ Attachments []node.AttachmentStatus }
			return g.ask(&list, "attachment list") == nil && slices.ContainsFunc(list.Attachments, func(a node.AttachmentStatus) bool {
				return a.Port == "lan" && (a.Moved == "br-bond0") == want
			})
		}
	}
	g.start()
	g.set("--nic bond0 --vlan 10 --move-host --confirm 40s", "--nic bond0 --vlan 20")
	g.await("the host is on a bridge", guestPatience, moved(true))
	o.reached("on the bridge")
	if out := g.inside("ip -br address show br-bond0; ip route show default"); !strings.Contains(out, guestAddr+"/24") || !strings.Contains(out, "dev br-bond0") {
		g.Errorf("on the bridge the host has\n%s", out)
	}
	g.await("nobody has confirmed, and it is back", guestPatience, moved(false))
	o.reached("on the bond again")
	g.restored(host, before)

	g.set("--nic bond0 --vlan 10 --move-host --confirm 10m", "--nic bond0 --vlan 20")
	g.await("the host is on a bridge again", guestPatience, moved(true))
	o.reached("on the bridge again")
	_, err := g.Admin(g.ctx, "attachment", "confirm", "gate/lan")
	g.ok(err)
	g.carries("bond0", "bond0")
	g.serves("a bond that is the host's way out is the gateway's NIC")
	g.inside("ip link set eth3 down")
	o.reached("with one NIC of the bond")
	g.serves("with one NIC of the bond")
	g.inside("ip link set eth3 up; for i in $(seq 50); do echo eth3 >/sys/class/net/bond0/bonding/active_slave 2>/dev/null && exit 0; sleep 0.2; done; exit 1")
	g.end("TERM")
	o.reached("after the daemon's end")
	g.restored(host, before)
	g.start()
	g.await("the host is on a bridge after a restart", guestPatience, moved(true))
	g.end("KILL")
	o.reached("after kill -9")
	g.start()
	g.await("the host is on a bridge after kill -9", guestPatience, moved(true))
	o.reached("with the next daemon")
	g.end("TERM")
	g.restored(host, before)
	o.end()
}

// joinsHostsBridge: a bridge that filters by VLAN has the host's address and its way out. It is joined, and nothing moves.
func (g *guestGateway) joinsHostsBridge() {
	g.inside(`
		ip address flush dev bond0
		ip link add br1 type bridge vlan_filtering 1 forward_delay 0 mcast_snooping 0
		ip link set bond0 master br1
		for n in 10 20; do bridge vlan add dev bond0 vid $n; done
		ip link set br1 up
		ip address add ` + guestAddr + `/24 dev br1
		ip route add default via ` + world.ControllerAddr)
	const host = "ip address show br1; ip route; bridge vlan show dev bond0"
	g.inside(settled("br1"))
	before := g.inside(host)
	o := g.watch()
	g.fails(g.Controller, []string{"a bridge is joined"}, "etherloom", "attachment", "set", "gate/lan", "--bridge", "br1", "--vlan", "10", "--move-host",
		"--admin", filepath.Join(g.Dir(), "controller", "admin.json"))
	g.set("--bridge br1 --vlan 10", "--bridge br1 --vlan 20")
	g.start()
	g.carries("br1", "br1")
	o.reached("with the gateway as a port")
	g.serves("the host's own bridge is the gateway's")
	g.sound("bridge br1")
	o.reached("with VLANs")
	g.end("TERM")
	o.reached("after the daemon's end")
	g.restored(host, before)
	o.end()
}

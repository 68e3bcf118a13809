package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// portOf shows a port.
func (r *rig) portOf(n *world.Node, name string) (d node.PortDetail) {
	r.Helper()
	r.ok(n.Ask(r.ctx, &d, "port", "show", name))
	return d
}

// setPort sets attributes of a port, or with enable ends a fault.
func (r *rig) setPort(n *world.Node, args ...string) {
	r.Helper()
	out, err := n.Loom(r.ctx, append([]string{"port"}, args...)...)
	if err != nil {
		r.Fatalf("%s: port %v: %v: %s", n.Name, args, err, out)
	}
}

// spanning are frames of spanning tree, as a bridge sends them that somebody has plugged in.
func spanning(src net.HardwareAddr) map[string][]byte {
	llc := func(dst net.HardwareAddr, body string) []byte {
		return append(ethernet(dst, src, uint16(len(body))), body+strings.Repeat("\x00", 46)...) //nolint:gosec // short
	}
	group, pvst := net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, net.HardwareAddr{1, 0, 0x0c, 0xcc, 0xcc, 0xcd}
	rest := strings.Repeat("\x01", 31)
	return map[string][]byte{
		"STP":     llc(group, "\x42\x42\x03\x00\x00\x00\x00\x00"+rest),
		"STP TCN": llc(group, "\x42\x42\x03\x00\x00\x00\x80"),
		"RSTP":    llc(group, "\x42\x42\x03\x00\x00\x02\x02\x3c"+rest),
		"PVST+":   llc(pvst, "\xaa\xaa\x03\x00\x00\x0c\x01\x0b\x00\x00\x00\x00\x00"+rest),
	}
}

// bridgedPair is two sites with a machine each that knows nothing of Etherloom; their switches hide no BPDU.
func bridgedPair(t *testing.T) (b *bridged, here, there *lab.Host) {
	b = newBridged(t, 1500)
	here = b.machine(b.officeLAN, "here", 10, "192.168.10.2/24")
	there = b.machine(b.plantLAN, "there", 30, "192.168.10.1/24")
	for _, sw := range []*lab.VLANSwitch{b.officeLAN, b.plantLAN} {
		b.ok(sw.Configure(b.ctx, "set", "Bridge", "sw0", "other_config:forward-bpdu=true"))
	}
	b.awaitAttached(b.office, b.plant)
	b.pings(here, "192.168.10.1", 15*time.Second)
	return b, here, there
}

// G10: a bridge behind a port with guard disables it within a second, and is reported; none of its BPDUs is seen at the other site; the
// port carries again by time, and by command.
func TestGuardG10(t *testing.T) {
	b, here, there := bridgedPair(t)
	own, err := net.ParseMAC(strings.TrimSpace(b.sh(here, "cat /sys/class/net/eth0/address")))
	b.ok(err)
	seen := b.arrivals(there, "eth0")
	b.setPort(b.office, "set", "lan", "guard=on", "recovery=4s")
	for name, frame := range spanning(own) {
		start := time.Now()
		b.inject(here, "eth0", frame)
		b.await(name+" disables the port", time.Second, func() bool { return b.portOf(b.office, "lan").Fault != nil })
		t.Logf("%s: disabled, and shown so, after %v", name, time.Since(start))
		var s node.Status
		b.ok(b.office.Ask(b.ctx, &s, "status"))
		if text := fmt.Sprint(s.Problems); !strings.Contains(text, "port lan") || !strings.Contains(text, own.String()) || !strings.Contains(text, "port enable lan") {
			t.Errorf("%s: problems are %s", name, text)
		}
		b.silent(here, "192.168.10.1")
		if name == "STP" { // by time
			b.await("the port recovers", 5*time.Second, func() bool { return b.portOf(b.office, "lan").Fault == nil })
			b.setPort(b.office, "set", "lan", "recovery=0s")
		} else {
			b.setPort(b.office, "enable", "lan")
		}
		b.pings(here, "192.168.10.1", 5*time.Second)
	}
	crossed := 0
	b.ok(seen.Each(func(frame []byte) bool {
		if len(frame) > 12 && (frame[0] == 1 && frame[1] == 0x80 || frame[0] == 1 && frame[1] == 0 && frame[2] == 0x0c) {
			crossed++
		}
		return true
	}))
	if crossed != 0 {
		t.Errorf("%d BPDUs are seen at the other site", crossed)
	}
	log, err := os.ReadFile(b.office.Daemon.LogPath())
	b.ok(err)
	if n := strings.Count(string(log), "a port is disabled by a fault"); n != len(spanning(own)) {
		t.Errorf("%d faults are logged, want %d", n, len(spanning(own)))
	}
}

// G14: a change of topology on a VLAN makes the gateway forget whom it has learned there. A neighbour that speaks LLDP is shown. What is
// set on a port is there again when the daemon has restarted.
func TestPortNeighboursG14(t *testing.T) {
	b, here, _ := bridgedPair(t)
	own, err := net.ParseMAC(strings.TrimSpace(b.sh(here, "cat /sys/class/net/eth0/address")))
	b.ok(err)
	known := func() bool {
		var list struct {
			FDB []node.FDBEntry `json:"fdb"`
		}
		b.ok(b.office.Ask(b.ctx, &list, "fdb"))
		for _, e := range list.FDB {
			if e.MAC == own.String() && e.Port == "lan" {
				return true
			}
		}
		return false
	}
	b.await("the machine is learned", 5*time.Second, func() bool {
		b.pings(here, "192.168.10.1", 5*time.Second)
		return known()
	})
	switchMAC := net.HardwareAddr{2, 0, 0, 0, 8, 1}
	b.sh(here, "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip link set eth0 arp off") // it says nothing by itself
	b.inject(here, "eth0", spanning(switchMAC)["STP TCN"])
	b.await("the machine is forgotten", time.Second, func() bool { return !known() })
	if d := b.portOf(b.office, "lan"); d.BPDUs != 1 || d.Changes != 1 || d.Fault != nil {
		t.Errorf("after a change of topology: %+v", d)
	}
	b.sh(here, "ip link set eth0 arp on")
	b.pings(here, "192.168.10.1", 5*time.Second)

	lldp := "\x02\x07\x04\x02\x00\x00\x00\x08\x01" + "\x04\x09\x05ge-0/0/1" + "\x06\x02\x00\x78" + "\x0a\x0fsw1.example.net" + "\x00\x00"
	b.inject(here, "eth0", append(ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, switchMAC, 0x88cc), lldp...))
	b.await("the neighbour is shown", 5*time.Second, func() bool {
		n := b.portOf(b.office, "lan").Neighbour
		return n != nil && n.System == "sw1.example.net" && n.Port == "ge-0/0/1" && n.Chassis == switchMAC.String()
	})

	b.setPort(b.office, "set", "lan", "shut=on", "description=moved to gw2")
	b.silent(here, "192.168.10.1")
	b.ok(b.office.Stop())
	b.ok(b.office.Restart(b.ctx))
	b.await("the port is there again", 10*time.Second, func() bool {
		return slices.ContainsFunc(b.ports(b.office), func(p node.Port) bool { return p.Port == "lan" })
	})
	if d := b.portOf(b.office, "lan"); d.Port.State != "shut" || d.Port.Description != "moved to gw2" {
		t.Errorf("after a restart: %+v", d)
	}
	b.silent(here, "192.168.10.1")
	b.setPort(b.office, "set", "lan", "shut=off")
	b.pings(here, "192.168.10.1", 15*time.Second)
	if _, err := os.Stat(filepath.Join(b.office.StateDir(), "ports.json")); err != nil {
		t.Error(err)
	}
}

// A storm of broadcasts from one machine comes to the other site at the port's limit, and takes nothing from another segment that the
// same gateways carry. Its sender is paced, so that it is the limit that is measured and not who has the processors.
func TestStorm(t *testing.T) {
	const limit, offered, rate = 500, 4000, 8e6
	last := time.Duration(rounds(10, 30)) * time.Second
	b, here, there := bridgedPair(t)
	_, err := b.Admin(b.ctx, "segment", "add", "dmz")
	b.ok(err)
	for _, n := range []string{"node:office", "node:plant"} {
		_, err := b.Grant(b.ctx, n, "segment:dmz")
		b.ok(err)
	}
	addr := b.addresses(b.office, b.plant)
	b.pings(b.office.Host, addr[1], 15*time.Second)
	b.setPort(b.office, "set", "lan", fmt.Sprint("storm_broadcast=", limit))

	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stream := b.flow(ctx, b.office.Host, b.plant.Host, addr[1], rate, 0)
	time.Sleep(2 * time.Second)
	goodput := func(do func()) float64 {
		start, got := time.Now(), stream.got.Load()
		do()
		return float64(8*(stream.got.Load()-got)) / time.Since(start).Seconds()
	}
	before := goodput(func() { time.Sleep(last / 2) })
	seen := b.arrivals(there, "eth0")
	head := ethernet(broadcast(), net.HardwareAddr{2, 0, 0, 0, 9, 1}, lab.Experimental)
	train := lab.NewTrain(head, int(last.Seconds())*offered, time.Second/offered)
	start := time.Now()
	during := goodput(func() {
		_, err := here.SendTrain(b.ctx, "eth0", train)
		b.ok(err)
	})
	took := time.Since(start)
	a, err := seen.AwaitTrain(b.ctx, train, head, time.Second)
	b.ok(err)
	cancel()
	b.ok(stream.wait())
	rx := b.portOf(b.office, "lan").Port.Stats.RxFrames
	got := float64(a.Whole) / took.Seconds()
	t.Logf("%d frames sent in %v, %d came to the gateway, %d to the other site: %.1f/s of a limit of %d; the other segment: %.3f Mbit/s before, %.3f during",
		train.Count, took, rx, a.Whole, got, limit, before/1e6, during/1e6)
	if got > 1.05*limit || got < 0.95*limit || a.Extra > 0 || a.Changed > 0 {
		t.Errorf("%.1f frames a second came, %d twice, %d changed; want %d, within 5 %%", got, a.Extra, a.Changed, limit)
	}
	if during < 0.99*before {
		t.Errorf("the other segment has lost %.1f %%", 100*(1-during/before))
	}
}

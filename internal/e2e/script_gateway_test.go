package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// A gateway is drained and takes its machines back; a site moves to a second gateway and back, and each time the machines on its VLAN go on.
func TestGatewayScripts(t *testing.T) {
	b := newBridged(t, 1500)
	spare := b.site("spare", lab.PortPreserving, "--role", "gateway")
	b.trunk(b.officeLAN, spare.Host, "lan", 10)
	client := b.machine(b.officeLAN, "client", 10, "192.168.10.2/24")
	server := b.machine(b.plantLAN, "server", 30, "192.168.10.1/24")
	b.awaitAttached(b.office, b.plant)
	b.pings(client, "192.168.10.1", 5*time.Second)
	d := b.desk(b.office, b.office, b.plant, spare)

	// Drain and undo: what was shut before by somebody else stays shut, and descriptions come back.
	b.ok(b.office.Ask(b.ctx, new(node.PortDetail), "port", "set", "lan", "description=rack 3, it's old"))
	mac := strings.TrimSpace(b.sh(client, "cat /sys/class/net/eth0/address"))
	if out := d.script("gateway-drain.sh", "office", "--dry-run"); !strings.Contains(out, "no other gateway carries office/lan") || d.entry(b.office, mac) == "" {
		t.Errorf("a dry run has drained, or does not say who is cut off: %q\n%s", d.entry(b.office, mac), out)
	}
	d.once("gateway-drain.sh", "office")
	if e := d.entry(b.office, mac); e != "" {
		t.Errorf("the drained gateway has still %s", e)
	}
	b.await("the others forget who was behind it", 5*time.Second, func() bool { return d.entry(b.plant, mac) == "" })
	b.silent(client, "192.168.10.1")
	d.once("gateway-drain.sh", "office", "--undo")
	b.pings(client, "192.168.10.1", 5*time.Second)
	if text := d.port(b.office).Description; text != "rack 3, it's old" {
		t.Errorf("the description has become %q", text)
	}
	b.ok(b.office.Ask(b.ctx, new(node.PortDetail), "port", "set", "lan", "shut=on", "description=by hand"))
	before := d.everything()
	d.script("gateway-drain.sh", "office")
	if out := d.script("gateway-drain.sh", "office", "--undo"); !strings.Contains(out, "was shut by somebody else") {
		t.Errorf("undo says\n%s", out)
	}
	d.unchanged(before, "undo of what somebody else has shut")
	b.ok(b.office.Ask(b.ctx, new(node.PortDetail), "port", "set", "lan", "shut=off", "description=rack 3"))
	b.pings(client, "192.168.10.1", 5*time.Second)

	d.moves(client, server, spare)
}

// moves moves the office's VLAN to the spare gateway, and back.
func (d desk) moves(client, server *lab.Host, spare *world.Node) {
	d.Helper()
	move := []string{"office/lan", "spare/lan", "--nic", "lan", "--listen", "0"}
	before := d.everything()
	d.refuses(1, "has the address 192.0.2.2/24", "gateway-move.sh", "office/lan", "spare/lan", "--nic", "eth0")
	d.refuses(1, "plant/lan is a port of another attachment", "gateway-move.sh", "office/lan", "plant/lan", "--nic", "lan")
	d.refuses(1, "there is neither office/x nor spare/x", "gateway-move.sh", "office/x", "spare/x", "--nic", "lan")
	d.refuses(2, "both ports are at office", "gateway-move.sh", "office/lan", "office/two", "--nic", "lan")
	out, code := d.try([]string{"ETHERLOOM_REACH="}, "gateway-move.sh", move...)
	if code != 1 || !strings.Contains(out, "spare is not this machine") {
		d.Errorf("without a way to the new gateway: %d\n%s", code, out)
	}
	d.unchanged(before, "a move that nobody can watch")

	// The NIC cannot carry, which shows only when it is up: all is put back.
	d.sh(spare.Host, "ip link add stub type veth peer name stub-end && ip link set stub up")
	stubbed := d.everything()
	d.refuses(1, "stub of spare has no carrier", "gateway-move.sh", "office/lan", "spare/lan", "--nic", "stub", "--listen", "0", "--dry-run")
	d.unchanged(stubbed, "a move that was refused")
	d.sh(spare.Host, "ip link set stub down")
	out, code = d.try(nil, "gateway-move.sh", "office/lan", "spare/lan", "--nic", "stub", "--listen", "0", "--wait", "3")
	if code != 1 || !strings.Contains(out, "all is put back") {
		d.Errorf("a move to a NIC without a carrier: %d\n%s", code, out)
	}
	d.sh(spare.Host, "ip link del stub")
	d.awaitAttached(d.nodes[0])
	d.unchanged(before, "a move that came to nothing")
	d.pings(client, "192.168.10.1", 5*time.Second)

	lost := d.losing(client, func() { d.script("gateway-move.sh", move...) })
	d.Logf("the move took %v from the site", lost)
	if lost > 2*time.Second {
		d.Errorf("the site was cut off for %v", lost)
	}
	after := d.everything()
	d.script("gateway-move.sh", move...)
	d.script("gateway-move.sh", append(move, "--dry-run")...)
	d.unchanged(after, "the move, run again")
	d.pings(server, "192.168.10.2", 5*time.Second)
	if p := d.port(spare); p.Stats.RxFrames == 0 || d.port(d.office()).Port != "" {
		d.Errorf("the spare gateway has %+v, the office %+v", p, d.port(d.office()))
	}

	d.once("gateway-move.sh", "spare/lan", "office/lan", "--nic", "lan", "--listen", "0")
	d.pings(server, "192.168.10.2", 5*time.Second)
	d.pings(client, "192.168.10.1", 5*time.Second)
	if p := d.port(d.office()); p.State != "on" || p.Description != "" {
		d.Errorf("the office's port is %+v", p)
	}

	// A second gateway for good. The office is preferred, so that it carries before and after.
	_, err := d.Admin(d.ctx, "attachment", "set", "office/lan", "--nic", "lan", "--vlan", "10", "--preference", "10")
	d.ok(err)
	add := []string{"spare/lan", "--nic", "lan", "--vlan", "10", "--listen", "0", "--with"}
	d.refuses(1, "there is no port office/x", "vlan-add.sh", append(add, "office/x")...)
	d.refuses(1, "office/lan is of segment lan, not of dmz", "vlan-add.sh", append(add, "office/lan", "--segment", "dmz")...)
	d.refuses(2, "both ports are at spare", "vlan-add.sh", append(add, "spare/two")...)
	d.once("vlan-add.sh", append(add, "office/lan")...)
	if p, q := d.port(d.office()), d.port(spare); p.State != "on" || q.State != "standby" {
		d.Errorf("the office's port is %s, and the spare gateway's %s", p.State, q.State)
	}
	d.pings(client, "192.168.10.1", 5*time.Second)
	d.drains(client, spare)
}

// drains drains the office, of whose VLAN the spare gateway is the second one.
func (d desk) drains(client *lab.Host, spare *world.Node) {
	d.Helper()
	d.refuses(1, "node nobody does not answer by --reach", "gateway-drain.sh", "nobody")
	before := d.everything()

	// The spare gateway is not there: nothing is begun.
	d.ok(spare.Daemon.Signal(syscall.SIGSTOP))
	d.await("the spare gateway is not heard", 5*time.Second, func() bool { return !d.hears() })
	d.refuses(1, "spare has lan of lan, too, and cannot carry it", "gateway-drain.sh", "office", "--dry-run")
	d.refuses(1, "spare has lan of lan, too, and cannot carry it", "gateway-drain.sh", "office")
	d.ok(spare.Daemon.Signal(syscall.SIGCONT))
	d.await("the spare gateway is heard", 5*time.Second, d.hears)
	d.unchanged(before, "a drain that nobody would take over from")

	// It goes as the port is shut: the port opens again.
	program := filepath.Join(d.Dir(), "etherloom-stops")
	d.ok(os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\ncase \"$*\" in *shut=on*) kill -STOP %d ;; esac\nexec %s \"$@\"\n",
		spare.Daemon.PID(), filepath.Join(bin, "etherloom")), 0o700))
	out, code := d.try([]string{"ETHERLOOM=" + program}, "gateway-drain.sh", "office")
	if code != 1 || !strings.Contains(out, "spare did not take lan of lan over within 5 s") || d.port(d.office()).State == "shut" {
		d.Errorf("nobody has taken over, and draining ends with %d, the port %s:\n%s", code, d.port(d.office()).State, out)
	}
	d.ok(spare.Daemon.Signal(syscall.SIGCONT))
	d.await("the office carries again, and hears the spare gateway", 10*time.Second, func() bool { return d.hears() && d.port(d.office()).State == "on" })
	d.unchanged(before, "a drain that nobody took over from")

	d.once("gateway-drain.sh", "office")
	if p := d.port(spare); p.State != "on" {
		d.Errorf("the office is drained, and the spare gateway's port is %s: %s", p.State, p.Why)
	}
	d.pings(client, "192.168.10.1", 5*time.Second)
	d.once("gateway-drain.sh", "office", "--undo")
	d.pings(client, "192.168.10.1", 5*time.Second)
}

// hears reports whether the office hears the other gateway of its VLAN.
func (d desk) hears() bool {
	var p node.PortDetail
	err := d.office().Ask(d.ctx, &p, "port", "show", "lan")
	return err == nil && p.Forwarder != nil && len(p.Forwarder.Gateways) == 1 && p.Forwarder.Gateways[0].Alive
}

func (d desk) office() *world.Node { return d.nodes[0] }

// losing is for how long, at most, a machine did not reach 192.168.10.1 while something is done.
func (d desk) losing(from *lab.Host, do func()) time.Duration {
	d.Helper()
	const every = 50 * time.Millisecond
	talk, err := from.Start(d.ctx, "ping", "-i", fmt.Sprint(every.Seconds()), "-O", "192.168.10.1")
	d.ok(err)
	do()
	replies := func() int {
		text, err := talk.Log()
		d.ok(err)
		return strings.Count(text, "bytes from 192.168.10.1: icmp_seq=")
	}
	before := replies()
	d.await("what was cut off is reached again", 15*time.Second, func() bool { return replies() > before+5 })
	d.ok(talk.Stop(2 * time.Second))
	text, err := talk.Log()
	d.ok(err)
	var last, most int
	for line := range strings.Lines(text) {
		var n int
		if _, after, ok := strings.Cut(line, "bytes from 192.168.10.1: icmp_seq="); ok {
			if _, err := fmt.Sscan(strings.Fields(after)[0], &n); err == nil {
				last, most = n, max(most, n-last-1)
			}
		}
	}
	if last == 0 {
		d.Fatalf("nothing was ever answered:\n%s", text)
	}
	return time.Duration(most) * every
}

// port is a node's port onto the VLAN; of none if it has none.
func (d desk) port(n *world.Node) node.Port {
	d.Helper()
	for _, p := range d.ports(n) {
		if p.Kind == "attached" {
			return p
		}
	}
	return node.Port{}
}

// entry says where a node has an address; empty if it knows none.
func (d desk) entry(n *world.Node, mac string) string {
	d.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	d.ok(n.Ask(d.ctx, &list, "fdb"))
	for _, e := range list.FDB {
		if e.MAC == mac {
			return e.Kind + " on " + e.Port
		}
	}
	return ""
}

// found is what mac-find.sh --json prints.
type found struct {
	Schema int
	Places []struct {
		Segment, Node, Port, Who, Kind string
		Identity                       uint32
		VLAN                           *int
		Seen                           *time.Time
	}
}

// A MAC is pinned to a machine, or to a port, and found from whichever node.
func TestMACScripts(t *testing.T) {
	b := newBridged(t, 1500)
	client := b.machine(b.officeLAN, "client", 10, "192.168.10.2/24")
	b.machine(b.plantLAN, "server", 30, "192.168.10.1/24")
	b.awaitAttached(b.office, b.plant)
	b.pings(client, "192.168.10.1", 5*time.Second)
	_, err := b.Admin(b.ctx, "segment", "add", "den", "--prefix", "198.51.100.0/24")
	b.ok(err)
	d := b.desk(b.office, b.office, b.plant)
	mac := strings.TrimSpace(b.sh(client, "cat /sys/class/net/eth0/address"))

	d.finds(mac, "office/lan", "dynamic", "announced")
	d.refuses(1, "knows no 02:00:5e:00:53:99", "mac-find.sh", "02:00:5e:00:53:99")
	d.refuses(2, "a MAC is 6 bytes", "mac-find.sh", "printer")

	d.once("mac-pin.sh", strings.ToUpper(mac), "--name", "cam", "--behind", "office/lan", "--address", "192.168.10.2", "--grant")
	b.pings(client, "192.168.10.1", 5*time.Second)
	d.finds(mac, "cam", "dynamic", "announced")
	before := d.everything()
	d.refuses(1, "it is another one", "mac-pin.sh", mac, "--name", "cam", "--behind", "office/lan")
	d.refuses(1, "is host cam", "mac-pin.sh", mac, "--name", "door", "--behind", "office/lan")
	d.refuses(1, "there is no attachment office/x", "mac-pin.sh", "02:00:5e:00:53:01", "--name", "door", "--behind", "office/x")
	d.refuses(1, "has another MAC", "mac-pin.sh", "02:00:5e:00:53:01", "--name", "cam", "--remove")
	d.refuses(2, "or --segment and --port", "mac-pin.sh", mac, "--name", "cam", "--behind", "office/lan", "--port", "lan")
	door := []string{"02:00:5e:00:53:01", "--name", "door", "--behind", "office/lan", "--dry-run", "--address"}
	d.refuses(1, "198.51.100.9 lies in the prefix of segment den, not of lan", "mac-pin.sh", append(door, "198.51.100.9/24")...)
	var segments struct {
		Segments []struct {
			Name   string
			Prefix netip.Prefix `json:"ipv4_prefix"`
		}
	}
	out, err := b.Admin(b.ctx, "segment", "list", "--json")
	b.ok(err)
	b.ok(json.Unmarshal([]byte(out), &segments))
	for _, s := range segments.Segments {
		if s.Name == "lan" {
			d.refuses(1, "is an end of "+s.Prefix.String(), "mac-pin.sh", append(door, s.Prefix.Addr().String())...)
		}
	}
	d.refuses(1, "node nobody does not answer by --reach", "mac-pin.sh", mac, "--node", "nobody", "--segment", "lan", "--port", "lan")
	if out := d.script("mac-pin.sh", append(door, "192.168.10.7")...); !strings.Contains(out, "192.168.10.7 lies outside of ") {
		t.Errorf("nobody says that the address is beyond the segment's prefix:\n%s", out)
	}
	d.unchanged(before, "what was refused")
	d.once("mac-pin.sh", mac, "--name", "cam", "--behind", "office/lan", "--behind", "plant/lan", "--role", "router", "--replace")
	if out := d.script("mac-pin.sh", "02:00:5e:00:53:07", "--name", "door", "--behind", "plant/lan"); !strings.Contains(out, "no grant and no group names host:door") {
		t.Errorf("nobody says that the host is cut off:\n%s", out)
	}
	if out := d.script("mac-find.sh", "02:00:5e:00:53:07"); !strings.Contains(out, "door") || !strings.Contains(out, "not seen") {
		t.Errorf("a host that nobody has seen is shown as\n%s", out)
	}
	d.once("mac-pin.sh", mac, "--name", "cam", "--remove")
	b.pings(client, "192.168.10.1", 5*time.Second)

	before = d.everything()
	d.refuses(1, "has no port nowhere", "mac-pin.sh", mac, "--segment", "lan", "--port", "nowhere")
	d.unchanged(before, "a port that is not there")
	d.once("mac-pin.sh", mac, "--segment", "lan", "--port", "lan")
	d.finds(mac, "office/lan", "static", "announced")
	d.once("mac-pin.sh", mac, "--segment", "lan", "--port", "lan", "--sticky")
	d.once("mac-pin.sh", mac, "--segment", "lan", "--remove")
	d.once("mac-pin.sh", mac, "--node", "plant", "--segment", "lan", "--port", "office")
}

// finds finds a machine of the office's VLAN 10 from both gateways, with a credential or a way to others, and with neither.
func (d desk) finds(mac, who, there, afar string) {
	d.Helper()
	for _, c := range []struct {
		name, ask, kind, port string
		vlan                  int
		without               []string
	}{
		{"at its gateway", "office", there, "lan", 10, nil},
		{"at its gateway, with nothing", "office", there, "lan", 10, []string{"ETHERLOOM_ADMIN=", "ETHERLOOM_REACH="}},
		{"at another node", "plant", there, "lan", 10, []string{"ETHERLOOM_ADMIN="}},
		{"at another node, by the credential", "plant", afar, "lan", 10, []string{"ETHERLOOM_REACH="}},
		{"at another node, with nothing", "plant", afar, "", -1, []string{"ETHERLOOM_ADMIN=", "ETHERLOOM_REACH="}},
	} {
		from := d
		if c.ask == "plant" {
			from.at = d.nodes[1]
		}
		var f found
		d.await(c.name+" it is known as "+who, 5*time.Second, func() bool {
			out, code := from.try(c.without, "mac-find.sh", mac, "--json")
			f = found{}
			return code == 0 && json.Unmarshal([]byte(out), &f) == nil && len(f.Places) == 1 && f.Places[0].Who == who && f.Places[0].Kind == c.kind
		})
		p := f.Places[0]
		vlan := -1
		if p.VLAN != nil {
			vlan = *p.VLAN
		}
		if f.Schema != 1 || p.Segment != "lan" || p.Node != "office" || p.Port != c.port || p.Identity == 0 || vlan != c.vlan {
			d.Errorf("%s: %+v", c.name, f)
		}
		if (p.Seen == nil) != (c.kind == "static") || p.Seen != nil && time.Since(*p.Seen) > time.Minute {
			d.Errorf("%s: seen %v", c.name, p.Seen)
		}
	}
}

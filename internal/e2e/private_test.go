package e2e

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// comes sends a frame and waits until it has come to these places; after that it must not have come to those, in any form.
func (c *cases) comes(what string, from *lab.Host, dev string, head []byte, to, not []place) {
	c.Helper()
	mark := newMark()
	c.inject(from, dev, append(bytes.Clone(head), append(make([]byte, 32), mark...)...))
	contains := func(p place) bool {
		found, err := p.Contains(mark)
		c.ok(err)
		return found
	}
	for _, p := range to {
		c.await(what+" comes to "+p.name, 10*time.Second, func() bool { return contains(p) })
	}
	time.Sleep(quiet)
	for _, p := range not {
		if contains(p) {
			c.Errorf("%s comes to %s", what, p.name)
		}
	}
}

// policyVersion is which state of the network a node holds.
func (r *rig) policyVersion(n *world.Node) uint64 {
	r.Helper()
	var s node.Status
	r.ok(n.Ask(r.ctx, &s, "status"))
	return s.Policy.Version
}

// Private VLANs hold between sites: of two attachments at different gateways, isolated ones and those of different communities exchange
// no frames, whatever they are; those of one community do, and everybody does with a node. All pairs of RFC 5517 section 2.
func TestPrivateVLANs(t *testing.T) {
	c := newCases(t)
	a := c.member("a", lab.PortPreserving)
	camera := c.machine(c.officeLAN, "camera", 10, "192.168.10.2/24")
	door := c.machine(c.plantLAN, "door", 30, "192.168.10.1/24")
	lift := c.machine(c.plantLAN, "lift", 31, "192.168.10.3/24")
	c.trunk(c.plantLAN, c.plant.Host, "two", 31)
	c.joined(c.plant, "two", "lan", "two", 31, "--community", "a")
	c.awaitAttached(c.office, c.plant)
	c.addresses(a)
	c.pings(camera, "192.168.10.1", 15*time.Second)
	atCamera, atDoor, atLift, atA := c.listen(camera, "eth0"), c.listen(door, "eth0"), c.listen(lift, "eth0"), c.listen(a.Host, "loom0")
	if d := c.portOf(c.plant, "two"); d.PrivateVLAN == nil || d.PrivateVLAN.Community != "a" {
		t.Errorf("port two is %+v", d.PrivateVLAN)
	}
	flags := []string{"--promiscuous", "--isolated", "--community a", "--community b"}
	exchange := func(i, j int) bool { return i == 0 || j == 0 || i == j && i != 1 }
	set := func(port string, i int) {
		before := map[*world.Node]uint64{c.office: c.policyVersion(c.office), c.plant: c.policyVersion(c.plant)}
		_, err := c.Admin(c.ctx, append([]string{"attachment", "set", port}, strings.Fields(flags[i])...)...)
		c.ok(err)
		for n, v := range before {
			c.await(n.Name+" is told", 10*time.Second, func() bool { return c.policyVersion(n) > v })
		}
	}
	macs := map[*lab.Host]net.HardwareAddr{camera: c.macOf(camera, "eth0"), door: c.macOf(door, "eth0"), lift: c.macOf(lift, "eth0")}
	heads := func(from *lab.Host) map[string][]byte {
		return map[string][]byte{
			"broadcast": ethernet(broadcast(), macs[from], lab.Experimental), "unknown": ethernet(unheard(9), macs[from], lab.Experimental),
			"group": ethernet(net.HardwareAddr{3, 0, 0, 0, 0, 1}, macs[from], lab.Experimental),
		}
	}
	const ofLift = 2
	office, plant := 0, 0
	for n := range 16 { // each differs from the one before by one of the two
		i, j := n/4, n%4
		if i%2 == 1 {
			j = 3 - j
		}
		if i != office {
			set("office/lan", i)
		}
		if j != plant {
			set("plant/lan", j)
		}
		office, plant = i, j
		for _, from := range []struct {
			host   *lab.Host
			others map[*place]bool
		}{
			{camera, map[*place]bool{&atDoor: exchange(i, j), &atLift: exchange(i, ofLift), &atA: true}},
			{door, map[*place]bool{&atCamera: exchange(i, j), &atLift: exchange(j, ofLift), &atA: true}},
		} {
			var to, not []place
			for p, is := range from.others {
				if is {
					to = append(to, *p)
				} else {
					not = append(not, *p)
				}
			}
			kind := []string{"broadcast", "unknown", "group"}[n%3]
			c.comes(fmt.Sprintf("%s, %s: %s from %s", flags[i], flags[j], kind, from.host.Name()), from.host, "eth0", heads(from.host)[kind], to, not)
		}
	}
	set("office/lan", 1)
	set("plant/lan", 1)
	c.silent(camera, "192.168.10.1")
	c.silent(door, "192.168.10.2")
	c.comes("to one that is known", camera, "eth0", ethernet(macs[door], macs[camera], lab.Experimental), nil, []place{atDoor, atLift})
	set("plant/lan", 0)
	c.pings(camera, "192.168.10.1", 15*time.Second)
}

// F09: what is for a machine behind a port goes to its backup port while that port has no carrier, and back; without a backup port it goes
// nowhere.
func TestBackupPortF09(t *testing.T) {
	c := newCases(t)
	near, spare := c.bare(c.office, "raw"), c.bare(c.office, "rsv")
	c.joined(c.office, "raw", "lan", "raw", 0)
	c.joined(c.office, "spare", "lan", "rsv", 0)
	door := c.machine(c.plantLAN, "door", 30, "192.168.10.1/24")
	c.awaitAttached(c.office, c.plant)
	mac := unheard(0x90)
	head := ethernet(mac, c.macOf(door, "eth0"), lab.Experimental)
	_, err := c.office.Loom(c.ctx, "fdb", "add", "lan", mac.String(), "raw")
	c.ok(err)
	atSpare := c.listen(spare, "eth0")
	c.warm(door, "eth0", ethernet(broadcast(), c.macOf(door, "eth0"), lab.Experimental), atSpare.Capture)
	c.setPort(c.office, "set", "raw", "backup_port=spare")
	carrier := func(on bool) {
		c.sh(near, "ip link set eth0 "+map[bool]string{true: "up", false: "down"}[on])
		c.await("the port notices", 10*time.Second, func() bool {
			p := c.portOf(c.office, "raw")
			return *p.Port.Up == on && (p.Port.State == "on") == on
		})
	}
	for range 3 {
		c.comes("with a carrier", door, "eth0", head, []place{c.listen(near, "eth0")}, []place{atSpare})
		carrier(false)
		if d := c.portOf(c.office, "raw"); d.Backup != "spare" {
			t.Errorf("what is for the port goes to %q", d.Backup)
		}
		c.comes("without a carrier", door, "eth0", head, []place{atSpare}, nil)
		carrier(true)
	}
	c.comes("again with a carrier", door, "eth0", head, []place{c.listen(near, "eth0")}, []place{atSpare})
	c.setPort(c.office, "set", "raw", "backup_port=none")
	carrier(false)
	c.comes("without a backup port", door, "eth0", head, nil, []place{atSpare})
	c.comes("to all", door, "eth0", ethernet(broadcast(), c.macOf(door, "eth0"), lab.Experimental), []place{atSpare}, nil)
}

package e2e

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// bridged is two sites whose VLANs are one segment: VLAN 10 at the office and VLAN 30 at the plant.
type bridged struct {
	*rig
	office, plant       *world.Node // the gateways
	officeLAN, plantLAN *lab.VLANSwitch
}

// newBridged builds them. An MTU of the underlay other than 1500 is that of both gateways' uplinks.
func newBridged(t *testing.T, underlay int) *bridged {
	t.Helper()
	b := &bridged{rig: newRig(t)}
	b.office, b.officeLAN = b.gateway("office", 10, underlay)
	b.plant, b.plantLAN = b.gateway("plant", 30, underlay)
	for _, from := range []string{"attachment:office/lan", "attachment:plant/lan"} {
		_, err := b.Grant(b.ctx, from, "segment:lan")
		b.ok(err)
	}
	return b
}

// gateway adds a site with a switch and a gateway to one of its VLANs, by its NIC lan.
func (r *rig) gateway(name string, vlan uint16, underlay int) (*world.Node, *lab.VLANSwitch) {
	r.Helper()
	n := r.site(name, lab.PortPreserving, "--role", "gateway")
	r.ok(n.Uplink.SetMTU(underlay))
	sw := r.vlanSwitch(name + "-sw")
	r.trunk(sw, n.Host, "lan", vlan)
	r.attach(name+"/lan", "lan", "lan", vlan)
	return n, sw
}

// attach makes a NIC's VLAN part of a segment, and waits until it is.
func (r *rig) attach(port, segment, nic string, vlan uint16, more ...string) {
	r.Helper()
	args := append([]string{"attachment", "add", port, "--segment", segment, "--nic", nic, "--vlan", strconv.Itoa(int(vlan))}, more...)
	_, err := r.Admin(r.ctx, args...)
	r.ok(err)
}

// ports lists a node's ports.
func (r *rig) ports(n *world.Node) []node.Port {
	r.Helper()
	var list struct {
		Ports []node.Port `json:"ports"`
	}
	r.ok(n.Ask(r.ctx, &list, "ports"))
	return list.Ports
}

// Machines that know nothing of Etherloom, on VLANs of two sites, are on one segment: a lease from the other site, ping by name and
// address, and files both ways, with 1500 bytes on both sides of whatever the underlay carries (V05).
func TestGateways(t *testing.T) {
	for _, c := range []struct {
		name     string
		underlay int
	}{{"underlay of 1500", 1500}, {"underlay of 1400", 1400}} {
		t.Run(c.name, func(t *testing.T) { testGateways(newBridged(t, c.underlay)) })
	}
}

func testGateways(b *bridged) {
	server := b.machine(b.plantLAN, "server", 30, "192.168.10.1/24")
	b.host("server", server, "plant/lan", "--role", "dhcp-server")
	dhcp, err := server.ServeDHCP(b.ctx, "eth0", "192.168.10.100", "192.168.10.150")
	b.ok(err)
	client := b.machine(b.officeLAN, "client", 10)
	b.awaitAttached(b.office, b.plant)

	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	lease, err := client.TakeLease(ctx, "eth0")
	b.ok(err)
	leases, err := dhcp.Leases()
	if err != nil || len(leases) != 1 || leases[0].Addr != lease.Addr() {
		b.Errorf("the client has %v, the server gave %v: %v", lease, leases, err)
	}
	b.pings(client, "192.168.10.1", 5*time.Second)
	b.pings(server, lease.Addr().String(), 5*time.Second)
	b.sh(client, "ping -c 3 -i 0.2 -M do -s 1472 192.168.10.1") // 1500 bytes, whole
	b.sh(server, "ping -c 3 -i 0.2 -M do -s 1472 "+lease.Addr().String())
	if at, err := server.Resolve(b.ctx, "client."+lab.LeaseDomain); err == nil && at != lease.Addr() {
		b.Errorf("the client's name is at %v", at)
	}
	for _, way := range []struct {
		from, to *lab.Host
		addr     string
	}{{client, server, "192.168.10.1"}, {server, client, lease.Addr().String()}} {
		took, err := lab.CopyFile(b.ctx, way.from, way.to, way.addr, 20<<20)
		b.ok(err)
		b.Logf("20 MiB from %s to %s in %v", way.from.Name(), way.to.Name(), took)
	}
}

// host names a machine behind a gateway, and makes it a member of the segment.
func (r *rig) host(name string, h *lab.Host, attachment string, more ...string) {
	r.Helper()
	mac := strings.TrimSpace(r.sh(h, "cat /sys/class/net/eth0/address"))
	_, err := r.Admin(r.ctx, append([]string{"host", "add", name, "--mac", mac, "--attachment", attachment}, more...)...)
	r.ok(err)
	_, err = r.Grant(r.ctx, "host:"+name, "segment:lan")
	r.ok(err)
}

// awaitAttached waits until gateways carry frames between their VLANs and each other.
func (r *rig) awaitAttached(gateways ...*world.Node) {
	r.Helper()
	for _, n := range gateways {
		r.await(n.Name+" has its VLAN, and a link", 10*time.Second, func() bool {
			attached, links := 0, 0
			for _, p := range r.ports(n) {
				switch {
				case p.Kind == "attached" && p.State == "on":
					attached++
				case p.Kind == "link":
					links++
				}
			}
			return attached > 0 && links >= len(gateways)-1
		})
	}
}

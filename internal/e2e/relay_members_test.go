package e2e

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// A relay agent between two segments (case I08): who asks is a member of one, the server a member of the other. What the relay
// agent says to clients is what a server says to them, so that without the role there it is not heard.
func TestDHCPRelayBetweenSegments(t *testing.T) {
	r := newRig(t)
	_, err := r.Admin(r.ctx, "segment", "add", "servers", "--prefix", "198.51.100.0/24")
	r.ok(err)
	gate, server, asking := r.site("gate", lab.PortPreserving), r.site("server", lab.PortPreserving), r.site("asking", lab.PortPreserving)
	for _, g := range [][2]string{{"gate", "lan"}, {"asking", "lan"}, {"gate", "servers"}, {"server", "servers"}} {
		_, err = r.Grant(r.ctx, "node:"+g[0], "segment:"+g[1])
		r.ok(err)
	}
	here, there, serves := r.portOn(gate, "lan"), r.portOn(gate, "servers"), r.portOn(server, "servers")
	own := r.portOn(asking, "lan")
	r.pings(asking.Host, ipv4Of(here).Addr().String(), 10*time.Second)
	r.pings(server.Host, ipv4Of(there).Addr().String(), 10*time.Second)
	r.sh(server.Host, "ip route add "+ipv4Of(here).Masked().String()+" via "+ipv4Of(there).Addr().String())

	first, last := ipv4Of(here).Addr(), ipv4Of(here).Addr()
	for range 50 {
		first, last = first.Next(), last.Next().Next()
	}
	role := func(node, segment string, args ...string) {
		t.Helper()
		_, err := r.Admin(r.ctx, append([]string{"node", "role", node, "--segment", segment}, args...)...)
		r.ok(err)
	}
	role("server", "servers", "--add", "dhcp-server")
	role("gate", "servers", "--add", "router", "--add", "dhcp-server") // asks from its address on lan, for others
	mask := net.IP(net.CIDRMask(ipv4Of(here).Bits(), 32)).String()
	_, err = server.Host.Start(r.ctx, "dnsmasq", "-d", "--port=0", "-i", serves.Port, "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
		"--dhcp-range="+first.String()+","+last.String()+","+mask+",2m",
		"--dhcp-leasefile="+filepath.Join(r.Dir(), "leases"), "--conf-file=/dev/null")
	r.ok(err)
	_, err = gate.Host.Start(r.ctx, "dnsmasq", "-d", "--port=0", "--log-dhcp", "--conf-file=/dev/null",
		"--dhcp-relay="+ipv4Of(here).Addr().String()+","+ipv4Of(serves).Addr().String())
	r.ok(err)
	_, err = r.Admin(r.ctx, "node", "address", "asking", "--segment", "lan", "--mode", "dhcp")
	r.ok(err)
	r.await("what gate passes on is refused", 20*time.Second, func() bool { return r.dropped(gate)["not-dhcp-server"] >= 2 })
	leased := func() bool { return strings.Contains(r.sh(asking.Host, "ip -br -4 addr show "+own.Port), ".") }
	if leased() {
		t.Error("asking has an address by way of a relay agent that has no role")
	}
	role("gate", "lan", "--add", "dhcp-server")
	r.await("asking has a leased address", 30*time.Second, leased)
	r.pings(asking.Host, ipv4Of(here).Addr().String(), 5*time.Second)
}

// portOn is a node's own port on a segment, with an IPv4 address.
func (r *rig) portOn(n *world.Node, segment string) (port node.Port) {
	r.Helper()
	r.await(n.Name+" has an address on "+segment, 10*time.Second, func() bool {
		var list struct {
			Ports []node.Port `json:"ports"`
		}
		r.ok(n.Ask(r.ctx, &list, "ports"))
		for _, p := range list.Ports {
			if p.Kind == "local" && p.Segment == segment && ipv4Of(p).IsValid() {
				port = p
				return true
			}
		}
		return false
	})
	return port
}

// ipv4Of is a port's IPv4 address.
func ipv4Of(p node.Port) netip.Prefix {
	for _, text := range p.Addresses {
		if a, err := netip.ParsePrefix(text); err == nil && a.Addr().Is4() {
			return a
		}
	}
	return netip.Prefix{}
}

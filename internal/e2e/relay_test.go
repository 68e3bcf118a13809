package e2e

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// relayed is a chain of DHCP (case I08): till is a host on a LAN of its own, whose relay agent gate is a member, as is the server.
// mallory, a member whose daemon judges nothing, wants to be till's server.
type relayed struct {
	*rig
	mallory, gate, server *world.Node
	till                  *lab.Host

	inside netip.Addr // gate's address on till's LAN
	mac    net.HardwareAddr
	script string // for till's client
}

// A client behind a relay agent has its lease if the relay agent and the server have their roles, and can renew it. Without them
// the chain breaks at the relay agent's own node, and nobody else can put an answer into it.
func TestDHCPRelay(t *testing.T) {
	c := newRelayed(t)
	c.asks(1, false)
	if n := c.dropped(c.gate)["ip-source"]; n == 0 {
		t.Error("a relay agent that is no router was not refused")
	}
	c.role("gate", "--add", "router")
	was := c.dropped(c.gate)["not-dhcp-server"]
	c.asks(1, false)
	if n := c.dropped(c.gate)["not-dhcp-server"]; n == was {
		t.Error("a relay agent without the role dhcp-server was not refused")
	}
	c.role("gate", "--add", "dhcp-server")
	c.asks(3, true)
	c.pings(c.till, c.party(c.server).v4.String(), 5*time.Second)
	c.renews()
	c.solicits()
	c.forged()
}

func newRelayed(t *testing.T) *relayed {
	t.Helper()
	c := &relayed{rig: newRig(t), inside: netip.MustParseAddr("198.51.100.1")}
	c.mallory = c.liar("mallory", "--label", "team=x") // names grant 1
	c.gate = c.site("gate", lab.PortPreserving, "--label", "team=x")
	c.server = c.site("server", lab.PortPreserving, "--label", "team=x")
	_, err := c.Grant(c.ctx, "label:team=x", "segment:lan")
	c.ok(err)
	addr := c.addresses(c.mallory, c.gate, c.server)
	c.pings(c.server.Host, addr[1], 10*time.Second)
	c.pings(c.mallory.Host, addr[1], 10*time.Second)

	c.till, err = c.Lab.AddHost("till")
	c.ok(err)
	inside := lab.Plug{On: c.gate.Host, Name: "eth1", Addrs: []string{c.inside.String() + "/24", "2001:db8:7::1/64"}}
	_, err = c.Lab.Cable(inside, lab.Plug{On: c.till, Name: "eth0"})
	c.ok(err)
	c.mac, err = net.ParseMAC(strings.TrimSpace(c.sh(c.till, "cat /sys/class/net/eth0/address")))
	c.ok(err)
	c.ok(c.gate.Host.Sysctl("net.ipv4.ip_forward", "1"))
	gate, server := c.party(c.gate), c.party(c.server)
	c.sh(c.server.Host, "ip route add 198.51.100.0/24 via "+addr[1]+"; ip -6 route add 2001:db8:7::/64 via "+gate.v6.String())

	c.role("server", "--add", "dhcp-server")
	serves, err := c.server.Host.Start(c.ctx, "dnsmasq", "-d", "--port=0", "-i", "loom0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
		"--dhcp-range=198.51.100.50,198.51.100.60,255.255.255.0,2m", "--dhcp-range=2001:db8:7::50,2001:db8:7::60,64,2m",
		"--dhcp-leasefile="+filepath.Join(c.Dir(), "leases"), "--conf-file=/dev/null")
	c.ok(err)
	relays, err := c.gate.Host.Start(c.ctx, "dnsmasq", "-d", "--port=0", "--log-dhcp", "--dhcp-relay="+c.inside.String()+","+addr[2],
		"--dhcp-relay=2001:db8:7::1,"+server.v6.String(), "--conf-file=/dev/null")
	c.ok(err)
	c.ok(serves.WaitLog(c.ctx, "2001:db8:7::60"))
	c.ok(relays.WaitLog(c.ctx, "DHCP relay from 2001:db8:7::1"))
	c.script = filepath.Join(c.Dir(), "lease.sh")
	c.ok(os.WriteFile(c.script, []byte(`#!/bin/sh
[ "$1" != bound ] || { ip addr add "$ip/$mask" dev "$interface"; ip route add default via "$router"; }
`), 0o700))
	return c
}

func (c *relayed) role(name string, args ...string) {
	c.Helper()
	_, err := c.Admin(c.ctx, append([]string{"node", "role", name, "--segment", "lan"}, args...)...)
	c.ok(err)
	time.Sleep(time.Second) // as long as what an administrator changes may take
}

// asks runs till's DHCP client, which asks so often, and gives up a second later.
func (c *relayed) asks(tries int, want bool) {
	c.Helper()
	out, err := c.till.Run(c.ctx, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", strconv.Itoa(tries), "-T", "1", "-s", c.script)
	if leased := err == nil && strings.Contains(out, "lease of 198.51.100."); leased != want {
		c.Errorf("till has a lease: %v, want %v: %v\n%s", leased, want, err, out)
	}
}

// renews: a client asks the server itself to renew its lease, by way of gate as a router (RFC 2131 section 4.4.5).
func (c *relayed) renews() {
	c.Helper()
	c.sh(c.till, "ip -4 addr flush dev eth0")
	client, err := c.till.Start(c.ctx, "busybox", "udhcpc", "-i", "eth0", "-f", "-t", "3", "-T", "1", "-s", c.script)
	c.ok(err)
	obtained := func(n int) func() bool {
		return func() bool {
			log, err := client.Log()
			return err == nil && strings.Count(log, "obtained") >= n
		}
	}
	c.await("till has a lease", 5*time.Second, obtained(1))
	tap, err := c.server.Host.Capture("loom0")
	c.ok(err)
	c.ok(client.Signal(unix.SIGUSR1))
	c.await("till has renewed it", 5*time.Second, obtained(2))
	asked := false
	c.ok(tap.Each(func(frame []byte) bool {
		asked = asked || len(frame) > 38 && frame[23] == unix.IPPROTO_UDP && frame[26] == 198 && frame[35] == 68 && frame[37] == 67
		return true
	}))
	if !asked {
		c.Error("till has not asked the server itself")
	}
	c.ok(tap.Stop())
	c.ok(client.Stop(time.Second))
}

// solicits: the chain of DHCPv6 (RFC 8415 section 19), whose relay agent wraps what it passes on.
func (c *relayed) solicits() {
	c.Helper()
	index := strings.TrimSpace(c.sh(c.till, "cat /sys/class/net/eth0/ifindex"))
	conn, err := c.till.ListenPacket(c.ctx, "udp6", "[::]:546")
	c.ok(err)
	defer conn.Close()
	client := append([]byte{0, 1, 0, 10, 0, 3, 0, 1}, c.mac...) // an identifier of the kind DUID-LL
	solicit := slices.Concat([]byte{1, 7, 7, 7}, client, []byte{0, 3, 0, 12}, make([]byte, 12))
	var answer []byte
	c.await("an advertise for till", 5*time.Second, func() bool {
		_, err := conn.WriteTo(solicit, &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547, Zone: index})
		c.ok(err)
		c.ok(conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)))
		b := make([]byte, 2000)
		n, _, _ := conn.ReadFrom(b)
		answer = b[:n]
		return n > 4 && b[0] == ether.DHCPv6Advertise && bytes.Equal(b[1:4], solicit[1:4])
	})
	if lease := netip.MustParseAddr("2001:db8:7::"); !bytes.Contains(answer, lease.AsSlice()[:14]) {
		c.Errorf("the answer has no lease: %x", answer)
	}
}

// forged: mallory answers till by way of gate's relay agent, which passes on whatever names it.
func (c *relayed) forged() {
	c.Helper()
	m, g, s := c.party(c.mallory), c.party(c.gate), c.party(c.server)
	socket := c.packetSocket(c.mallory.Host)
	offer := func(src netip.Addr, from uint16, mark string) []byte {
		message := dhcpMessage(2, c.mac, netip.IPv4Unspecified(), c.inside, 53, 1, 2)
		message[10] = 0x80       // to be broadcast
		copy(message[44:], mark) // the server's name
		packet := ipv4(src.AsSlice(), c.inside.AsSlice(), unix.IPPROTO_UDP, 0, udpOf(from, 67, message))
		return append(ethernet(g.mac, m.mac, unix.ETH_P_IP), packet...)
	}
	attacks := map[string][]byte{
		"not-dhcp-server": offer(m.v4, 67, "from mallory"), "ip-source": offer(s.v4, 67, "as the server"),
	}
	tap, err := c.till.Capture("eth0")
	c.ok(err)
	for reason, frame := range attacks {
		was := c.dropped(c.gate)[reason]
		for range 20 {
			c.ok(unix.Send(socket, frame, 0))
		}
		c.await("gate refuses a forged offer: "+reason, 2*time.Second, func() bool { return c.dropped(c.gate)[reason]-was >= 18 })
	}
	count := func(mark string) (n int) {
		n, _, err := tap.Seen([]byte(mark))
		c.ok(err)
		return n
	}
	if n, as := count("from mallory"), count("as the server"); n+as > 0 {
		c.Errorf("%d forged offers of mallory's and %d as the server have come to till", n, as)
	}
	// With the role the same frames do come: it is the guard that stops them.
	c.role("mallory", "--add", "dhcp-server")
	c.ok(unix.Send(socket, attacks["not-dhcp-server"], 0))
	c.await("till hears a server that has the role", 5*time.Second, func() bool { return count("from mallory") > 0 })
	c.ok(tap.Stop())
}

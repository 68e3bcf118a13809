package e2e

import (
	"encoding/binary"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// tellBar is how long it may take until every node knows that an address has moved, or that a gateway is dead.
const tellBar = time.Second

// table is what a node knows of addresses, and when it was asked.
func (r *rig) table(n *world.Node) (list []node.FDBEntry, asked time.Time) {
	r.Helper()
	var out struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	asked = time.Now()
	r.ok(n.Ask(r.ctx, &out, "fdb"))
	return out.FDB, asked
}

// behind counts the addresses that a node knows behind a port.
func (r *rig) behind(n *world.Node, port string) (count int, asked time.Time) {
	r.Helper()
	list, asked := r.table(n)
	for _, e := range list {
		if e.Port == port {
			count++
		}
	}
	return count, asked
}

// awaitAt waits until each node knows an address behind the port that is named for it, and fails if one of them was asked later than
// the bar and did not.
func (r *rig) awaitAt(what string, mac net.HardwareAddr, since time.Time, ports map[*world.Node]string) {
	r.Helper()
	for n, port := range ports {
		for {
			list, asked := r.table(n)
			at := ""
			for _, e := range list {
				if e.MAC == mac.String() {
					at = e.Port
				}
			}
			if at == port {
				r.Logf("%s: %s knows it %v later", what, n.Name, asked.Sub(since).Round(time.Millisecond))
				break
			}
			if asked.Sub(since) > tellBar {
				r.Fatalf("%s: %s knows %s behind port %q after %v, want %s", what, n.Name, mac, at, asked.Sub(since), port)
			}
		}
	}
}

// newListening adds to two bridged sites a node that is a member of the segment.
func newListening(t *testing.T) (*bridged, *world.Node) {
	t.Helper()
	b := newBridged(t, 1500)
	listener := b.site("listener", lab.PortPreserving)
	_, err := b.Grant(b.ctx, "node:listener", "segment:lan")
	b.ok(err)
	b.awaitAttached(b.office, b.plant)
	b.addresses(listener)
	return b, listener
}

// A machine moves from the VLAN of one site to that of the other, and says so once: every node knows within a second.
func TestMachineMoves(t *testing.T) {
	b, listener := newListening(t)
	h := b.machine(b.officeLAN, "roamer", 10)
	mac, err := net.ParseMAC(strings.TrimSpace(b.sh(h, "cat /sys/class/net/eth0/address")))
	b.ok(err)
	announcement := serialize(
		&layers.Ethernet{SrcMAC: mac, DstMAC: broadcast(), EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: mac, SourceProtAddress: []byte{192, 168, 10, 77}, DstHwAddress: make([]byte, 6), DstProtAddress: []byte{192, 168, 10, 77},
		})
	since := time.Now()
	b.ok(h.SendFrames("eth0", announcement))
	// The links are opened by that.
	b.awaitAt("first", mac, since.Add(4*time.Second), map[*world.Node]string{b.office: "lan", b.plant: "office", listener: "office"})

	old := b.officeLAN.Ports()[len(b.officeLAN.Ports())-1]
	b.ok(b.officeLAN.Unplug(b.ctx, old))
	_, err = b.plantLAN.Access(b.ctx, lab.Plug{On: h, Name: "eth1", MAC: mac.String()}, 30)
	b.ok(err)
	since = time.Now()
	b.ok(h.SendFrames("eth1", announcement))
	b.awaitAt("moved", mac, since, map[*world.Node]string{b.office: "plant", b.plant: "lan", listener: "plant"})
}

// G11: a gateway is killed. The addresses behind it are gone everywhere within a second.
func TestGatewayDies(t *testing.T) {
	many := rounds(500, 5000)
	b, listener := newListening(t)
	for _, n := range []*world.Node{b.office, b.plant, listener} { // with room for as many behind one port
		b.ok(n.Stop())
		b.ok(n.Start(b.ctx, "--fdb-per-port", "6000"))
	}
	b.awaitAttached(b.office, b.plant)
	b.addresses(listener)
	h := b.machine(b.officeLAN, "crowd", 10)
	to := b.mac(listener)
	frames := make([][]byte, many)
	for i := range frames {
		frames[i] = append(ethernet(to, binary.BigEndian.AppendUint32([]byte{2, 0x5e}, uint32(i)), lab.Experimental), make([]byte, 46)...)
	}
	b.ok(h.SendFrames("eth0", append(ethernet(broadcast(), []byte{2, 0x5e, 0, 0, 0, 0}, lab.Experimental), make([]byte, 46)...)))
	others := []*world.Node{b.plant, listener}
	b.await("the addresses are known", 60*time.Second, func() bool {
		for at := 0; at < len(frames); at += 100 { // what is lost is sent again
			b.ok(h.SendFrames("eth0", frames[at:min(at+100, len(frames))]...))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, n := range others {
			if count, _ := b.behind(n, "office"); count < many {
				b.Logf("%s knows %d", n.Name, count)
				return false
			}
		}
		return true
	})
	killed := time.Now()
	b.ok(b.office.Daemon.Signal(syscall.SIGKILL))
	for _, n := range others {
		for {
			count, asked := b.behind(n, "office")
			if count == 0 {
				b.Logf("%s knows none %v later", n.Name, asked.Sub(killed).Round(time.Millisecond))
				break
			}
			if asked.Sub(killed) > tellBar {
				b.Fatalf("%s knows %d addresses of a gateway that died %v ago", n.Name, count, asked.Sub(killed))
			}
		}
	}
}

package e2e

import (
	"bytes"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// tunnels is a provider's network: two customers, a and b, have a service VLAN each at both sites, 100 and 200, which is a transparent
// segment. A machine of the provider's at each site sees the service tags, another the whole of a by a port without any, and a node has
// a TAP on it.
type tunnels struct {
	*cases

	member     *world.Node
	west, east *lab.Host // see the service tags at the office and the plant
	whole      *lab.Host // by the office's port that has all of a
}

// room is what an MTU must have more than a customer's for two tags of 802.1ad and 802.1Q.
const room = 1508

func newTunnels(t *testing.T) *tunnels {
	t.Helper()
	v := &tunnels{cases: &cases{&bridged{rig: newRig(t)}}}
	for _, segment := range []string{"a", "b"} {
		v.ok(v.tried("segment", "add", segment, "--transparent"))
	}
	v.member = v.site("member", lab.PortPreserving)
	v.office, v.officeLAN = v.provider("office")
	v.plant, v.plantLAN = v.provider("plant")
	v.ok(v.plant.Uplink.SetMTU(1400))
	for _, segment := range []string{"a", "lan"} {
		_, err := v.Grant(v.ctx, "node:member", "segment:"+segment)
		v.ok(err)
	}
	v.west, v.east, v.whole = v.bareLong(v.office, "raw"), v.bareLong(v.plant, "raw"), v.bareLong(v.office, "whole")
	for _, n := range []*world.Node{v.office, v.plant} {
		for segment, vlan := range map[string]uint16{"a": 100, "b": 200} {
			v.joined(n, segment, segment, "lan", vlan, "--service")
			v.joined(n, "raw-"+segment, segment, "raw", vlan, "--service")
		}
	}
	v.joined(v.office, "whole", "a", "whole", 0)
	return v
}

// provider adds a site with a gateway and a switch, between which the service VLANs are.
func (v *tunnels) provider(name string) (*world.Node, *lab.VLANSwitch) {
	v.Helper()
	n := v.site(name, lab.PortPreserving, "--role", "gateway")
	v.again(n, unlimited()...)
	sw := v.vlanSwitch(name + "-sw")
	_, err := sw.Trunk(v.ctx, lab.Plug{On: n.Host, Name: "lan", MTU: room}, 100, 200)
	v.ok(err)
	return n, sw
}

// bareLong is bare with a cable for frames with tags.
func (v *tunnels) bareLong(n *world.Node, nic string) *lab.Host {
	v.Helper()
	h := v.bare(n, nic)
	for _, end := range []struct {
		on  *lab.Host
		dev string
	}{{h, "eth0"}, {n.Host, nic}} {
		v.sh(end.on, "ip link set "+end.dev+" mtu 1508")
	}
	return h
}

// customer adds a customer's own switch at a site, plugged into a tunnel of a service VLAN, with a machine on VLAN 10 and one on 20.
func (v *tunnels) customer(name string, at *lab.VLANSwitch, vlan uint16, addr string) (ten, twenty *lab.Host) {
	v.Helper()
	own := v.vlanSwitch(name)
	_, err := at.Tunnel(v.ctx, lab.Plug{On: own.Host(), Name: "up", MTU: 1504}, vlan)
	v.ok(err)
	v.ok(own.Configure(v.ctx, "add-port", "sw0", "up", "--", "set", "Port", "up", "vlan_mode=trunk"))
	return v.machine(own, name+"-10", 10, addr), v.machine(own, name+"-20", 20, addr)
}

// V07, transparent: two customers' VLANs in the service VLANs of two sites. Each comes where it belongs, as it was sent, and nowhere else.
func TestTransparentV07(t *testing.T) {
	v := newTunnels(t)
	west, east, whole, tap := v.listen(v.west, "eth0"), v.listen(v.east, "eth0"), v.listen(v.whole, "eth0"), v.listen(v.member.Host, v.place("a").Port)
	outer := lab.Tag{VLAN: 100, Type: lab.ServiceTag}
	v.warm(v.west, "eth0", lab.Ethernet(broadcast(), unheard(1), lab.Experimental, outer), east.Capture)
	v.warm(v.west, "eth0", lab.Ethernet(broadcast(), unheard(1), lab.Experimental, outer), tap.Capture)

	v.run("V07", func(c *cases) { v.carried(c, west, east, whole, tap) })
	v.run("refused", func(c *cases) { v.refused(c, west, east, whole, tap) })
	v.run("TAP", func(c *cases) { v.fromTAP(c, east, whole, tap) })
	v.run("customers", v.customers)
}

// place is the member's own port on a segment.
func (v *tunnels) place(segment string) (found node.Port) {
	v.Helper()
	v.awaitOn(segment, v.member)
	for _, p := range v.ports(v.member) {
		if p.Kind == "local" && p.Segment == segment {
			return p
		}
	}
	v.Fatalf("member has no TAP on %s", segment)
	return found
}

// macOn is the MAC of that port.
func (v *tunnels) macOn(segment string) net.HardwareAddr {
	v.Helper()
	mac, err := net.ParseMAC(v.place(segment).MAC)
	v.ok(err)
	return mac
}

// carried: with up to two tags, of either kind, with priorities, on the service VLAN and by the port without one; never on the other
// customer's.
func (v *tunnels) carried(c *cases, west, east, whole, tap place) {
	outer := func(vlan uint16, priority uint8) lab.Tag {
		return lab.Tag{VLAN: vlan, Priority: priority, Type: lab.ServiceTag}
	}
	head := func(tags ...lab.Tag) []byte { return lab.Ethernet(broadcast(), unheard(7), lab.Experimental, tags...) }
	var samples []sample
	for name, inner := range map[string][]lab.Tag{
		"none":                 {},
		"10":                   {{VLAN: 10}},
		"20, priority 5":       {{VLAN: 20, Priority: 5}},
		"4094":                 {{VLAN: 4094}},
		"100 of 802.1ad":       {{VLAN: 100, Type: lab.ServiceTag}},
		"200, the other's":     {{VLAN: 200, Type: lab.ServiceTag}},
		"10 in 20":             {{VLAN: 20}, {VLAN: 10}},
		"10 in 20 of 802.1ad":  {{VLAN: 20, Type: lab.ServiceTag}, {VLAN: 10, Priority: 3}},
		"the user's priority":  {{Priority: 3}},
		"priority in VLAN 10":  {{VLAN: 10}, {Priority: 3}},
		"nothing in VLAN 0":    {{}},
		"10 behind a priority": {{Priority: 6}, {VLAN: 10}},
	} {
		for _, priority := range []uint8{0, 5} {
			inside := head(inner...)
			atTAP := inside
			if priority != 0 || len(inner) > 0 && inner[0].VLAN == 0 && inner[0].Type == 0 {
				atTAP = head(slices.Concat([]lab.Tag{{Priority: priority}}, inner)...)
			}
			samples = append(samples, sampleOf(name, head(slices.Concat([]lab.Tag{outer(100, priority)}, inner)...), nil, map[string][]byte{
				east.name: head(slices.Concat([]lab.Tag{outer(100, priority)}, inner)...), whole.name: inside, tap.name: atTAP,
			}))
			other := head(slices.Concat([]lab.Tag{outer(200, priority)}, inner)...)
			samples = append(samples, sampleOf(name+", of b", other, nil, map[string][]byte{east.name: other}))
		}
	}
	c.behave(v.west, "eth0", samples, west, east, whole, tap)

	// By the port without a service VLAN the customer's own tags are all there are.
	samples = nil
	for name, tags := range map[string][]lab.Tag{
		"untagged": {}, "10": {{VLAN: 10}}, "100": {{VLAN: 100}}, "10 of 802.1ad": {{VLAN: 10, Type: lab.ServiceTag}}, "two": {{VLAN: 20}, {VLAN: 10}},
	} {
		service := head(slices.Concat([]lab.Tag{outer(100, 0)}, tags)...)
		samples = append(samples, sampleOf(name, head(tags...), nil, map[string][]byte{west.name: service, east.name: service, tap.name: head(tags...)}))
	}
	c.behave(v.whole, "eth0", samples, west, east, whole, tap)
}

// refused: what has more tags than are looked through, or a VLAN that does not exist, and what is forged behind tags.
func (v *tunnels) refused(c *cases, places ...place) {
	tags := func(more ...lab.Tag) []lab.Tag {
		return append([]lab.Tag{{VLAN: 100, Type: lab.ServiceTag}}, more...)
	}
	ten := lab.Tag{VLAN: 10}
	head := func(typ uint16, more ...lab.Tag) []byte {
		return lab.Ethernet(broadcast(), unheard(8), typ, tags(more...)...)
	}
	mac, addr := v.macOn("a"), v.on(v.member, "a")
	forged := arpFrame(broadcast(), unheard(8), 2, addr, unheard(8), addr)[14:]
	pinned := func(more ...lab.Tag) []byte {
		return lab.Ethernet(broadcast(), mac, lab.Experimental, tags(more...)...)
	}
	before := c.dropped(v.office)
	c.behave(v.west, "eth0", []sample{
		sampleOf("three", head(lab.Experimental, ten, ten, ten), nil, nil),
		sampleOf("three behind a priority", head(lab.Experimental, lab.Tag{Priority: 3}, ten, ten, ten), nil, nil),
		sampleOf("V11", head(lab.Experimental, lab.Tag{VLAN: 4095}), nil, nil),
		sampleOf("V11, deeper", head(lab.Experimental, ten, lab.Tag{VLAN: 4095}), nil, nil),
		sampleOf("a node's address, on VLAN 10", head(unix.ETH_P_ARP, ten), forged, nil),
		sampleOf("a node's address, deeper", head(unix.ETH_P_ARP, ten, ten), forged, nil),
		sampleOf("a node's MAC, on VLAN 10", pinned(ten), nil, nil),
		sampleOf("a node's MAC, deeper", pinned(ten, ten), nil, nil),
	}, places...)
	after := c.dropped(v.office)
	for reason, want := range map[string]uint64{"tag-depth": 2, "tag-kind": 2, "arp-sender": 2, "pinned-mac": 2} {
		if n := after[reason] - before[reason]; n != want {
			c.Errorf("%d frames are refused as %s, want %d", n, reason, want)
		}
	}
}

// fromTAP: a host makes what VLANs it likes on its TAP of a transparent segment, and none on that of an ordinary one.
func (v *tunnels) fromTAP(c *cases, east, whole, tap place) {
	mac := v.macOn("a")
	head := func(tags ...lab.Tag) []byte { return lab.Ethernet(broadcast(), mac, lab.Experimental, tags...) }
	outer, ten := lab.Tag{VLAN: 100, Type: lab.ServiceTag}, lab.Tag{VLAN: 10, Priority: 2}
	c.behave(v.member.Host, v.place("a").Port, []sample{
		sampleOf("untagged", head(), nil, map[string][]byte{east.name: head(outer), whole.name: head()}),
		sampleOf("10", head(ten), nil, map[string][]byte{east.name: head(outer, ten), whole.name: head(ten)}),
		sampleOf("two", head(ten, ten), nil, map[string][]byte{east.name: head(outer, ten, ten), whole.name: head(ten, ten)}),
		sampleOf("three", head(ten, ten, ten), nil, nil),
	}, east, whole)
	v.sh(v.office.Host, "ip link set whole mtu 1500")
	c.awaitProblem(v.office, "nic whole", "ip link set whole mtu 1508")
	e := c.explain(v.member, "--segment", "a", "--hex", hex.EncodeToString(append(head(ten), newMark()...)))
	if !strings.Contains(e.Frame, "VLAN tag 10, ") || e.Check == "vlan" {
		c.Errorf("explained as %q, %s", e.Frame, e.Check)
	}
}

// customers: the machines of a customer's two VLANs, which have the same addresses, talk each on its own, with 1500 bytes.
func (v *tunnels) customers(c *cases) {
	v.rig = c.rig
	here10, here20 := v.customer("mill", v.officeLAN, 100, "192.168.77.1/24")
	there10, there20 := v.customer("yard", v.plantLAN, 100, "192.168.77.2/24")
	stranger := v.listen(v.west, "eth0")
	for _, way := range []struct{ from, to *lab.Host }{{here10, there10}, {here20, there20}} {
		c.pings(way.from, "192.168.77.2", 10*time.Second)
		c.pings(way.to, "192.168.77.1", 5*time.Second)
		c.sh(way.from, "ping -c 3 -i 0.2 -M do -s 1472 192.168.77.2")
		c.sh(way.to, "ping -c 3 -i 0.2 -M do -s 1472 192.168.77.1")
		mac := c.macOf(way.to, "eth0")
		if out := c.sh(way.from, "ip neigh show 192.168.77.2"); !strings.Contains(out, mac.String()) {
			c.Errorf("%s has found %q, want %s", way.from.Name(), out, mac)
		}
		for _, copied := range []struct {
			from, to *lab.Host
			addr     string
		}{{way.from, way.to, "192.168.77.2"}, {way.to, way.from, "192.168.77.1"}} {
			took, err := lab.CopyFile(c.ctx, copied.from, copied.to, copied.addr, 10<<20)
			c.ok(err)
			c.Logf("10 MiB from %s to %s in %v", copied.from.Name(), copied.to.Name(), took)
		}
	}
	ours := map[string]bool{}
	for _, h := range []*lab.Host{here10, here20, there10, there20} {
		ours[c.macOf(h, "eth0").String()] = true
	}
	seen := map[ether.VLANs]int{}
	c.ok(stranger.Each(func(frame []byte) bool {
		f, err := ether.ParseInside(frame)
		if err == nil && ours[f.Src.String()] {
			seen[f.Inner]++
			if !bytes.Equal(frame[12:16], []byte{0x88, 0xa8, 0, 100}) {
				c.Errorf("a customer's frame is on another's service VLAN: %x", frame[:min(len(frame), 32)])
			}
		}
		return true
	}))
	for _, vlans := range []string{"s100.10", "s100.20"} {
		if v, _ := ether.ParseVLANs(vlans); seen[v] == 0 {
			c.Errorf("nothing of VLANs %s was seen, but of %v", vlans, seen)
		}
	}
	// On an ordinary segment, the same tags are refused, on the way in and for the TAP.
	before := c.dropped(v.member)["vlan"]
	c.ok(v.member.Host.SendFrames(v.place("lan").Port, append(lab.Ethernet(broadcast(), v.macOn("lan"), lab.Experimental, lab.Tag{VLAN: 10}), newMark()...)))
	c.await("the tag is refused", 5*time.Second, func() bool { return c.dropped(v.member)["vlan"] == before+1 })
}

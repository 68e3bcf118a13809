package e2e

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
)

// vlans is a network with every way to tag: at the office a NIC without tags, one with several VLANs, one of them 802.1ad's, and the
// site's switch; at the plant a NIC that sends priority tags, and the switch. Segment dmz is VLAN 20 here and 40 there.
type vlans struct {
	*cases

	access, trunk, priority *lab.Host // by cables of their own
	camera, trunked         *lab.Host // at the office's switch: on VLAN 10, and with tags
	door, beam, dmz         *lab.Host // at the plant's: on VLAN 30, with tags, and on VLAN 40
}

func newVLANs(t *testing.T) *vlans {
	t.Helper()
	v := &vlans{cases: newCases(t)}
	v.ok(v.tried("segment", "add", "dmz"))
	v.access, v.trunk, v.priority = v.bare(v.office, "access"), v.bare(v.office, "trunk"), v.bare(v.plant, "raw")
	v.camera, v.door = v.machine(v.officeLAN, "camera", 10, "192.168.10.2/24"), v.machine(v.plantLAN, "door", 30, "192.168.10.1/24")
	v.trunked, v.beam = v.tagging(v.officeLAN, "trunked"), v.tagging(v.plantLAN, "beam")
	v.dmz = v.machine(v.plantLAN, "dmz", 40)
	for _, gw := range []*lab.Host{v.office.Host, v.plant.Host} {
		v.ok(gw.Sysctl("net.ipv6.conf.lan.disable_ipv6", "1")) // its own kernel says nothing there
	}
	v.joined(v.office, "access", "lan", "access", 0)
	v.joined(v.office, "t10", "lan", "trunk", 10)
	v.joined(v.office, "t12", "lan", "trunk", 12)
	v.joined(v.office, "s10", "lan", "trunk", 10, "--service")
	v.joined(v.office, "d20", "dmz", "trunk", 20)
	v.joined(v.plant, "raw", "lan", "raw", 0, "--priority", "nonzero")
	v.rig.trunk(v.plantLAN, v.plant.Host, "dmz", 40)
	v.joined(v.plant, "d40", "dmz", "dmz", 40)
	v.awaitAttached(v.office, v.plant)
	return v
}

// tagging adds a host that sends and sees tags, of all VLANs of a switch.
func (c *cases) tagging(sw *lab.VLANSwitch, name string) *lab.Host {
	c.Helper()
	h, err := c.Lab.AddHost(name)
	c.ok(err)
	c.ok(h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1"))
	c.trunk(sw, h, "eth0")
	return h
}

func TestCasesVLAN(t *testing.T) {
	v := newVLANs(t)
	door, dmz, beam, raw := v.listen(v.door, "eth0"), v.listen(v.dmz, "eth0"), v.listen(v.beam, "eth0"), v.listen(v.priority, "eth0")
	plain := func(n byte) []byte { return ethernet(broadcast(), unheard(n), lab.Experimental) }
	v.warm(v.access, "eth0", plain(1), door.Capture)
	v.warm(v.trunk, "eth0", lab.Ethernet(broadcast(), unheard(2), lab.Experimental, lab.Tag{VLAN: 20}), dmz.Capture)

	v.run("V01", func(c *cases) { v.accessPort(c, door, raw, dmz) })
	v.run("V02", func(c *cases) { v.trunkPort(c, door, raw, dmz) })
	v.run("V04", func(c *cases) { v.priorities(c, beam, raw) })
	v.run("V05", v.translation)
	v.run("V07", func(c *cases) { v.twoTags(c, door, raw, beam, dmz) })
	v.run("V11", func(c *cases) {
		head := lab.Ethernet(broadcast(), unheard(11), lab.Experimental, lab.Tag{VLAN: 4095})
		for _, from := range []*lab.Host{v.access, v.trunk} {
			c.behave(from, "eth0", []sample{sampleOf("VLAN 4095", head, nil, nil)}, door, raw, beam, dmz)
		}
	})
	v.run("F07", func(c *cases) { v.leaks(c, door, dmz) })
}

// accessPort: untagged frames and those with VLAN 0 are the port's, and come without tag; others are nobody's.
func (v *vlans) accessPort(c *cases, door, raw, dmz place) {
	plain := ethernet(broadcast(), unheard(1), lab.Experimental)
	tagged := func(vlan uint16) []byte {
		return lab.Ethernet(broadcast(), unheard(1), lab.Experimental, lab.Tag{VLAN: vlan})
	}
	c.behave(v.access, "eth0", []sample{
		sampleOf("untagged", plain, nil, everywhere(plain, door, raw)),
		sampleOf("VLAN 10", tagged(10), nil, nil),
		sampleOf("VLAN 12", tagged(12), nil, nil),
		sampleOf("VLAN 0", tagged(0), nil, everywhere(plain, door, raw)),
	}, door, raw, dmz)
}

// trunkPort: of the NIC's frames those of its VLANs pass, and no others.
func (v *vlans) trunkPort(c *cases, door, raw, dmz place) {
	plain := ethernet(broadcast(), unheard(2), lab.Experimental)
	tagged := func(vlan uint16) []byte {
		return lab.Ethernet(broadcast(), unheard(2), lab.Experimental, lab.Tag{VLAN: vlan})
	}
	c.behave(v.trunk, "eth0", []sample{
		sampleOf("VLAN 10", tagged(10), nil, everywhere(plain, door, raw)),
		sampleOf("VLAN 11", tagged(11), nil, nil),
		sampleOf("VLAN 12", tagged(12), nil, everywhere(plain, door, raw)),
		sampleOf("untagged", plain, nil, nil),
	}, door, raw, dmz)
}

// priorities: each of the eight comes with the far VLAN's tag, and in a priority tag where the port sends such.
func (v *vlans) priorities(c *cases, beam, raw place) {
	for _, from := range []*lab.Host{v.trunked, v.trunk} {
		var samples []sample
		for p := range uint8(8) {
			head := func(tags ...lab.Tag) []byte { return lab.Ethernet(broadcast(), unheard(4), lab.Experimental, tags...) }
			kept := head()
			if p != 0 {
				kept = head(lab.Tag{Priority: p})
			}
			samples = append(samples, sampleOf(fmt.Sprintf("priority %d", p), head(lab.Tag{VLAN: 10, Priority: p}), nil, map[string][]byte{
				beam.name: head(lab.Tag{VLAN: 30, Priority: p}), raw.name: kept,
			}))
		}
		c.behave(from, "eth0", samples, beam, raw)
	}
}

// translation: machines on VLAN 10 here and VLAN 30 there talk both ways, and neither number is seen at the other site.
func (v *vlans) translation(c *cases) {
	atPlant, err := v.plant.Host.Capture("lan") // both ways
	c.ok(err)
	atOffice, err := v.office.Host.Capture("lan")
	c.ok(err)
	beam, trunked := c.arrivals(v.beam, "eth0"), c.arrivals(v.trunked, "eth0")
	c.pings(v.camera, "192.168.10.1", 5*time.Second)
	c.pings(v.door, "192.168.10.2", 5*time.Second)
	group := net.HardwareAddr{0x01, 0, 0x5e, 1, 2, 3}
	for _, way := range []struct{ from, to *lab.Host }{{v.camera, v.door}, {v.door, v.camera}} {
		body := ipv4(addressOf(way.from == v.camera), []byte{239, 1, 2, 3}, 253, 0, newMark())
		head := ethernet(group, c.macOf(way.from, "eth0"), unix.ETH_P_IP)
		to := c.listen(way.to, "eth0")
		c.behave(way.from, "eth0", []sample{{name: "multicast", data: append(head, body...), comes: map[string][]byte{to.name: append(head, body...)}}}, to)
	}
	for _, seen := range []*lab.Capture{atPlant, beam} {
		c.onlyVLAN(30, seen)
	}
	for _, seen := range []*lab.Capture{atOffice, trunked} {
		c.onlyVLAN(10, seen)
	}
}

// addressOf is that of the camera, or of the door.
func addressOf(camera bool) []byte {
	if camera {
		return []byte{192, 168, 10, 2}
	}
	return []byte{192, 168, 10, 1}
}

// onlyVLAN checks that every frame has the tag of one VLAN, and that there are some.
func (c *cases) onlyVLAN(vlan uint16, seen *lab.Capture) {
	c.Helper()
	count := 0
	c.ok(seen.Each(func(frame []byte) bool {
		if bytes.HasPrefix(frame, []byte{0x03, 0x6c, 0x6f, 0x6f, 0x6d, 0}) {
			return true // a gateway's probe, of each VLAN that it has there
		}
		count++
		if len(frame) < 18 || frame[12] != 0x81 || frame[13] != 0 || uint16(frame[14])<<8&0xfff|uint16(frame[15]) != vlan {
			c.Errorf("where VLAN %d alone may be: %x", vlan, frame[:min(len(frame), 32)])
		}
		return true
	}))
	if count == 0 {
		c.Errorf("no frame of VLAN %d was seen", vlan)
	}
}

// twoTags: a frame with two tags is carried nowhere, neither whole nor with one of them. One of 802.1ad's tag alone is where that
// tag is a port's.
func (v *vlans) twoTags(c *cases, places ...place) {
	service, inner := lab.Tag{VLAN: 10, Type: lab.ServiceTag}, lab.Tag{VLAN: 20}
	head := func(tags ...lab.Tag) []byte { return lab.Ethernet(broadcast(), unheard(7), lab.Experimental, tags...) }
	before := c.dropped(v.office)["vlan"]
	c.behave(v.trunk, "eth0", []sample{
		sampleOf("88a8 10, 8100 20", head(service, inner), nil, nil),
		sampleOf("88a8 10, 8100 10", head(service, lab.Tag{VLAN: 10}), nil, nil),
		sampleOf("88a8 10, 88a8 20", head(service, lab.Tag{VLAN: 20, Type: lab.ServiceTag}), nil, nil),
		sampleOf("8100 10, 8100 20", head(lab.Tag{VLAN: 10}, inner), nil, nil),
		sampleOf("8100 10, 88a8 20", head(lab.Tag{VLAN: 10}, lab.Tag{VLAN: 20, Type: lab.ServiceTag}), nil, nil),
		sampleOf("8100 10 with priority, 8100 20", head(lab.Tag{VLAN: 10, Priority: 5}, inner), nil, nil),
		sampleOf("88a8 12, 8100 20", head(lab.Tag{VLAN: 12, Type: lab.ServiceTag}, inner), nil, nil),
	}, places...)
	if n := c.dropped(v.office)["vlan"] - before; n != 6 {
		c.Errorf("%d frames are counted as dropped for a tag inside, want 6: the seventh is of no port", n)
	}
	plain := head()
	c.behave(v.trunk, "eth0", []sample{sampleOf("88a8 10", head(service), nil, everywhere(plain, places[0], places[1]))}, places[:2]...)
}

// leaks sends seven kinds of frame without tag and with 14 VLANs, by a port of lan and by a trunk of both segments: each comes to
// the segment of its VLAN, and none to another.
func (v *vlans) leaks(c *cases, door, dmz place) {
	own, peer := unheard(70), unheard(71)
	ip4, ip6 := func(dst byte) []byte {
		return ipv4([]byte{192, 168, 10, 77}, []byte{dst, 168, 10, 78}, 253, 0, newMark())
	}, func(dst []byte) []byte {
		return ipv6(linkLocal(own), dst, 253, newMark())
	}
	group4, group6 := net.HardwareAddr{0x01, 0, 0x5e, 0x28, 10, 78}, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0x77}
	kinds := []struct {
		name string
		dst  net.HardwareAddr
		typ  uint16
		body func() []byte
	}{
		{"unicast", peer, lab.Experimental, newMark},
		{"multicast", net.HardwareAddr{0x01, 0, 0x5e, 1, 1, 1}, lab.Experimental, newMark},
		{"broadcast", broadcast(), lab.Experimental, newMark},
		{"unicast IPv4", peer, unix.ETH_P_IP, func() []byte { return ip4(192) }},
		{"multicast IPv4", group4, unix.ETH_P_IP, func() []byte { return ip4(239) }},
		{"unicast IPv6", peer, unix.ETH_P_IPV6, func() []byte { return ip6(linkLocal(peer)) }},
		{"multicast IPv6", group6, unix.ETH_P_IPV6, func() []byte { return ip6(net.ParseIP("ff02::77")) }},
	}
	for _, from := range []struct {
		host  *lab.Host
		to    map[uint16]place // by VLAN
		plain bool
	}{
		{v.access, map[uint16]place{0: door}, true},
		{v.trunk, map[uint16]place{10: door, 20: dmz}, false},
	} {
		var samples []sample
		for _, k := range kinds {
			for _, vlan := range []int{-1, 0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000, 4094} {
				head, plain := ethernet(k.dst, own, k.typ), ethernet(k.dst, own, k.typ)
				to, ok := from.to[uint16(max(vlan, 0))]
				if vlan >= 0 {
					head = lab.Ethernet(k.dst, own, k.typ, lab.Tag{VLAN: uint16(vlan)})
				}
				body := k.body()
				s := sample{name: fmt.Sprintf("%s, VLAN %d", k.name, vlan), data: append(head, body...), comes: map[string][]byte{}}
				if ok {
					s.comes[to.name] = append(plain, body...)
				}
				samples = append(samples, s)
			}
		}
		if len(samples) != 105 {
			c.Fatalf("%d kinds of frame, want 105", len(samples))
		}
		c.behave(from.host, "eth0", samples, door, dmz)
	}
}

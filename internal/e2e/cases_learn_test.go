package e2e

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// learning is a network of two gateways. At the office are a camera on VLAN 10, a machine near on a cable of its own, and one with tags
// on a trunk: VLANs 10 and 12 are the segment lan, VLAN 20 is dmz. At the plant are a door on VLAN 30, a lift on VLAN 31, both of lan,
// and a machine with tags.
type learning struct {
	*cases

	camera, near, trunk *lab.Host
	door, lift, many    *lab.Host
}

// caseAge is how long an address that sends nothing is remembered there.
const caseAge = 10 * time.Second

func newLearning(t *testing.T) *learning {
	t.Helper()
	l := &learning{cases: newCases(t, "--timers-fdb-age", caseAge.String())}
	l.ok(l.tried("segment", "add", "dmz"))
	l.near, l.trunk, l.many = l.bare(l.office, "raw"), l.bare(l.office, "trunk"), l.bare(l.plant, "many")
	l.camera = l.machine(l.officeLAN, "camera", 10, "192.168.10.2/24", "2001:db8:10::2/64")
	l.door = l.machine(l.plantLAN, "door", 30, door4+"/24", door6+"/64")
	l.lift = l.machine(l.plantLAN, "lift", 31)
	l.joined(l.office, "raw", "lan", "raw", 0)
	l.joined(l.office, "t10", "lan", "trunk", 10)
	l.joined(l.office, "t12", "lan", "trunk", 12)
	l.joined(l.office, "d20", "dmz", "trunk", 20)
	l.rig.trunk(l.plantLAN, l.plant.Host, "two", 31)
	l.joined(l.plant, "two", "lan", "two", 31)
	l.joined(l.plant, "d20", "dmz", "many", 20)
	l.awaitAttached(l.office, l.plant)
	return l
}

func TestCasesLearning(t *testing.T) {
	l := newLearning(t)
	near, door, lift := l.listen(l.near, "eth0"), l.listen(l.door, "eth0"), l.listen(l.lift, "eth0")
	l.warm(l.near, "eth0", ethernet(broadcast(), unheard(1), lab.Experimental), door.Capture)
	l.run("L01", func(c *cases) { l.learned(c, door, lift) })
	l.run("L02", func(c *cases) { l.roams(c, near, door, lift) })
	l.run("L05", func(c *cases) { l.unlearned(c, door, lift) })
	l.run("L06", func(c *cases) { l.invalid(c, door) })
	l.run("L15", func(c *cases) { l.hairpin(c, door, lift) })
	l.run("L17", l.apart)

	l.pings(l.door, "192.168.10.2", 5*time.Second)
	l.pings(l.door, "2001:db8:10::2", 5*time.Second)
	l.suppress(l.office, "raw", "lan", "t10")
	l.suppress(l.plant, "lan", "two")
	l.run("A01 A02 A04", func(c *cases) { l.known(c, door) })
	l.run("A05", func(c *cases) { l.moved(c, door) })
	l.run("A07 A08", func(c *cases) { l.strange(c, door) })
	l.run("A09", func(c *cases) { l.oneVLAN(c, door) })
	l.run("L03 A03", func(c *cases) { l.ages(c, near, door, lift) })

	l.run("L08", l.expelled)
	l.run("L12 L13", l.full)
	l.run("L14", l.limited)
}

// says sends a broadcast from a MAC, and waits until nodes know where that is: in a segment, behind a port.
func (c *cases) says(from *lab.Host, mac net.HardwareAddr, segment string, at map[*world.Node]string, tags ...lab.Tag) {
	c.Helper()
	c.ok(from.SendFrames("eth0", append(lab.Ethernet(broadcast(), mac, lab.Experimental, tags...), newMark()...)))
	for n, port := range at {
		c.await(fmt.Sprintf("%s knows that %s is at %s", n.Name, mac, port), time.Second, func() bool {
			for _, e := range c.entries(n, mac) {
				if e.Segment == segment && e.Port == port {
					return true
				}
			}
			return false
		})
	}
}

// learned: a frame to a MAC that nobody was seen with goes everywhere, and to one that was seen only there.
func (l *learning) learned(c *cases, door, lift place) {
	m := unheard(2)
	head := ethernet(m, unheard(1), lab.Experimental)
	c.behave(l.near, "eth0", []sample{sampleOf("to nobody", head, nil, everywhere(head, door, lift))}, door, lift)
	c.says(l.lift, m, "lan", map[*world.Node]string{l.plant: "two", l.office: "plant"})
	c.behave(l.near, "eth0", []sample{sampleOf("to one who was seen", head, nil, everywhere(head, lift))}, door, lift)
}

// roams: who moves is where it was seen last: behind another port from the very next frame on, behind another gateway within a second.
func (l *learning) roams(c *cases, near, door, lift place) {
	m := unheard(2)
	head := ethernet(m, unheard(1), lab.Experimental)
	moves := func(n *world.Node) uint32 { return c.entries(n, m)[0].Moves }
	before := moves(l.plant)
	mark := newMark()
	c.ok(l.door.SendFrames("eth0", append(ethernet(broadcast(), m, lab.Experimental), mark...)))
	c.await("the frame that moves it has passed", time.Second, func() bool {
		passed, err := lift.Contains(mark)
		return err == nil && passed
	})
	c.behave(l.near, "eth0", []sample{sampleOf("after a move", head, nil, everywhere(head, door))}, door, lift)
	if n := moves(l.plant) - before; n != 1 {
		c.Errorf("the plant has counted %d moves, want 1", n)
	}
	before = moves(l.plant)
	start := time.Now()
	c.says(l.near, m, "lan", map[*world.Node]string{l.office: "raw", l.plant: "office"})
	c.Logf("the other gateway knows of a move after %v", time.Since(start))
	c.await("the plant's switch has heard of it, too", 3*time.Second, func() bool {
		at, err := l.plantLAN.Find(c.ctx, m, 30)
		c.ok(err)
		return at != nil && at.Host() == l.plant.Host
	})
	from := ethernet(m, unheard(3), lab.Experimental)
	c.behave(l.door, "eth0", []sample{sampleOf("after a move to another site", from, nil, everywhere(from, near))}, near, lift)
	if n := moves(l.plant) - before; n != 1 {
		c.Errorf("the plant has counted %d moves, want 1", n)
	}
}

// unlearned: a port with learning=off teaches nothing, and frames to machines there go everywhere.
func (l *learning) unlearned(c *cases, door, lift place) {
	c.says(l.camera, c.macOf(l.camera, "eth0"), "lan", map[*world.Node]string{l.office: "lan"})
	c.set(l.office, "raw", "learning=off")
	defer c.set(l.office, "raw", "learning=on")
	m := unheard(4)
	// To one alone, so that the other gateway does not see where it comes from.
	c.ok(l.near.SendFrames("eth0", append(ethernet(c.macOf(l.camera, "eth0"), m, lab.Experimental), newMark()...)))
	time.Sleep(quiet)
	if e := c.entries(l.office, m); len(e) > 0 {
		c.Errorf("the office has learned %+v", e)
	}
	near := c.listen(l.near, "eth0")
	head := ethernet(m, c.macOf(l.camera, "eth0"), lab.Experimental)
	c.behave(l.camera, "eth0", []sample{sampleOf("to who is not learned", head, nil, everywhere(head, near, door, lift))}, near, door, lift)
}

// invalid: what no machine can have as its address is no source.
func (l *learning) invalid(c *cases, door place) {
	sources := []net.HardwareAddr{{0x01, 0, 0, 0, 0, 7}, broadcast(), {0, 0, 0, 0, 0, 0}}
	before, size := c.dropped(l.office)["source-address"], 0
	var samples []sample
	for _, src := range sources {
		samples = append(samples, sampleOf("from "+src.String(), ethernet(broadcast(), src, lab.Experimental), nil, nil))
	}
	c.behave(l.near, "eth0", samples, door)
	if n := c.dropped(l.office)["source-address"] - before; n != 3 {
		c.Errorf("%d frames are counted as of no source, want 3", n)
	}
	for _, src := range sources {
		size += len(c.entries(l.office, src)) + len(c.entries(l.plant, src))
	}
	if size != 0 {
		c.Errorf("%d of these sources were learned", size)
	}
}

// hairpin: a frame to who is on the same wire goes nowhere.
func (l *learning) hairpin(c *cases, door, lift place) {
	m := unheard(5)
	c.says(l.near, m, "lan", map[*world.Node]string{l.office: "raw"})
	camera, before := c.listen(l.camera, "eth0"), c.dropped(l.office)["hairpin"]
	c.behave(l.near, "eth0", []sample{sampleOf("to its own port", ethernet(m, unheard(1), lab.Experimental), nil, nil)}, door, lift, camera)
	if n := c.dropped(l.office)["hairpin"] - before; n != 1 {
		c.Errorf("%d frames are counted as of their own port, want 1", n)
	}
}

// apart: one MAC in two segments is two machines, and what is in one segment is not in the other.
func (l *learning) apart(c *cases) {
	m, only := unheard(6), unheard(7)
	c.says(l.near, m, "lan", map[*world.Node]string{l.office: "raw", l.plant: "office"})
	c.says(l.many, m, "dmz", map[*world.Node]string{l.plant: "d20", l.office: "plant"}, lab.Tag{VLAN: 20})
	c.says(l.many, only, "dmz", map[*world.Node]string{l.plant: "d20", l.office: "plant"}, lab.Tag{VLAN: 20})
	for _, n := range []*world.Node{l.office, l.plant} {
		if e := c.entries(n, m); len(e) != 2 || e[0].Segment == e[1].Segment {
			c.Errorf("%s has %+v of one MAC in two segments", n.Name, e)
		}
		if e := c.entries(n, only); len(e) != 1 || e[0].Segment != "dmz" {
			c.Errorf("%s has %+v of a MAC in dmz", n.Name, e)
		}
	}
	near, many := c.listen(l.near, "eth0"), c.listen(l.many, "eth0")
	plain, tagged := ethernet(m, unheard(8), lab.Experimental), lab.Ethernet(m, unheard(8), lab.Experimental, lab.Tag{VLAN: 20})
	c.behave(l.door, "eth0", []sample{sampleOf("lan", plain, nil, everywhere(plain, near))}, near, many)
	c.behave(l.trunk, "eth0", []sample{sampleOf("dmz", tagged, nil, everywhere(tagged, many))}, near, many)
}

// ages: who sends nothing is forgotten after the time that is set, however much is sent to it, and is looked for everywhere again. As long as
// a machine is remembered its questions are answered although it is gone, and then no longer (A03).
func (l *learning) ages(c *cases, near, door, lift place) {
	m, own := unheard(9), unheard(1)
	head := ethernet(m, own, lab.Experimental)
	c.says(l.lift, m, "lan", map[*world.Node]string{l.plant: "two", l.office: "plant"})
	c.pings(l.camera, door4, 5*time.Second)
	out, err := l.office.Host.Capture("lan")
	c.ok(err)
	lan := place{"the office's NIC", out}
	start := time.Now()
	c.sh(l.door, "ip link set eth0 down")
	c.judgeAsks(l.trunk, near, asks{"A03 of a machine that is gone", withTag(asksARP(unheard(0x0a), near4, door4), 10), 1, 0})
	for time.Since(start) < caseAge-2*time.Second {
		c.behave(l.near, "eth0", []sample{sampleOf("while it is remembered", head, nil, everywhere(head, lift))}, lift, lan)
		time.Sleep(time.Second)
	}
	if e := c.entries(l.plant, m); len(e) != 1 {
		c.Errorf("after %v the plant has %+v", time.Since(start), e)
	}
	time.Sleep(time.Until(start.Add(caseAge + 1500*time.Millisecond)))
	for _, n := range []*world.Node{l.office, l.plant} {
		if e := c.entries(n, m); len(e) > 0 {
			c.Errorf("after %v %s has %+v", time.Since(start), n.Name, e)
		}
	}
	c.behave(l.near, "eth0", []sample{sampleOf("once it is forgotten", head, nil, map[string][]byte{
		lift.name: head, lan.name: lab.Ethernet(m, own, lab.Experimental, lab.Tag{VLAN: 10}), // the site's switch may remember for longer
	})}, lift, lan)
	c.judgeAsks(l.trunk, lift, asks{"A03 once it is forgotten", withTag(asksARP(unheard(0x0a), near4, door4), 10), 0, 1})
	c.sh(l.door, "ip link set eth0 up")
}

// withTag puts a tag into a frame.
func withTag(frame []byte, vlan uint16) []byte {
	return append(append(bytes.Clone(frame[:12]), 0x81, 0, byte(vlan>>8), byte(vlan)), frame[12:]...)
}

// expelled: when a gateway is locked out, what was behind it is forgotten in every segment within a second, and nothing else is.
func (l *learning) expelled(c *cases) {
	m, stays := unheard(0x21), unheard(0x22)
	c.says(l.near, m, "lan", map[*world.Node]string{l.plant: "office"})
	c.says(l.trunk, m, "dmz", map[*world.Node]string{l.plant: "office"}, lab.Tag{VLAN: 20})
	c.says(l.lift, stays, "lan", map[*world.Node]string{l.plant: "two"})
	c.says(l.many, stays, "dmz", map[*world.Node]string{l.plant: "d20"}, lab.Tag{VLAN: 20})
	c.ok(c.tried("node", "lock", "office"))
	start := time.Now()
	c.await("the plant has forgotten who was behind the office", time.Second, func() bool { return len(c.entries(l.plant, m)) == 0 })
	c.Logf("all is forgotten after %v", time.Since(start))
	if e := c.entries(l.plant, stays); len(e) != 2 {
		c.Errorf("of who is still there the plant has %+v", e)
	}
}

// manyPorts gives the plant six ports of lan by VLANs 50 to 55 of one NIC.
func (l *learning) manyPorts(c *cases) (ports []string) {
	c.Helper()
	for _, p := range c.ports(l.plant) {
		if p.NIC == "many" && p.Segment == "lan" {
			ports = append(ports, p.Port)
		}
	}
	for i := len(ports); i < 6; i++ {
		ports = append(ports, fmt.Sprintf("m%d", 50+i))
		c.joined(l.plant, ports[i], "lan", "many", uint16(50+i))
	}
	return ports
}

// from sends broadcasts from a row of MACs on one of those ports.
func (l *learning) from(c *cases, port, first, count int) {
	c.Helper()
	for i := range count {
		head := lab.Ethernet(broadcast(), unheard(byte(first+i)), lab.Experimental, lab.Tag{VLAN: uint16(50 + port)})
		c.ok(l.many.SendFrames("eth0", append(head, newMark()...)))
		time.Sleep(2 * time.Millisecond)
	}
	time.Sleep(quiet)
}

// at lists the MACs that the plant has of each port of lan.
func (l *learning) at(c *cases) map[string][]string {
	out := map[string][]string{}
	for _, e := range c.fdb(l.plant) {
		if e.Segment == "lan" {
			out[e.Port] = append(out[e.Port], e.MAC)
		}
	}
	return out
}

// full: a table that is full forgets who was silent longest behind the port that has most (L12), so that a flood from one port leaves the
// others theirs (L13).
func (l *learning) full(c *cases) {
	ports := l.manyPorts(c)
	c.again(l.plant, append(unlimited(), "--fdb-entries", "10")...)
	c.awaitPort(l.plant, ports[5])
	for _, p := range []string{"lan", "two"} {
		c.set(l.plant, p, "shut=on")
		defer c.set(l.plant, p, "shut=off")
	}
	c.flushed(l.plant)
	l.from(c, 3, 0x30, 10)
	if n := len(l.at(c)[ports[3]]); n != 10 {
		c.Errorf("ten MACs are sent from, and %d known", n)
	}
	l.from(c, 3, 0x3a, 1)
	known, oldest, newest := len(l.at(c)[ports[3]]), c.entries(l.plant, unheard(0x30)), c.entries(l.plant, unheard(0x3a))
	if known != 10 || len(oldest) != 0 || len(newest) != 1 {
		c.Errorf("after the eleventh %d are known, of the first %+v, of the last %+v", known, oldest, newest)
	}

	c.flushed(l.plant)
	for p := range 5 {
		l.from(c, p, 0x40+2*p, 2)
	}
	l.from(c, 5, 0x60, 16)
	at := l.at(c)
	if len(at[ports[5]]) > 3 || len(at[ports[5]]) == 0 {
		c.Errorf("who floods has %v", at[ports[5]])
	}
	for p := range 5 {
		if len(at[ports[p]]) == 0 {
			c.Errorf("port %s has lost all: %v", ports[p], at)
		}
	}
}

func (c *cases) flushed(n *world.Node) {
	c.Helper()
	var change node.FDBChange
	c.ok(n.Ask(c.ctx, &change, "fdb", "flush"))
}

// limited: of a port no more are learned than it may have, and those that are not are reached all the same. What an administrator pins
// does not count.
func (l *learning) limited(c *cases) {
	ports := l.manyPorts(c)
	c.again(l.plant, append(unlimited(), "--fdb-per-port", "8", "--fdb-full", "refuse")...)
	c.awaitPort(l.plant, ports[5])
	many := c.listen(l.many, "eth0")
	c.warm(l.many, "eth0", lab.Ethernet(broadcast(), unheard(0x80), lab.Experimental, lab.Tag{VLAN: 51}), many.Capture)
	c.flushed(l.plant)
	l.from(c, 0, 0x90, 16)
	if at := l.at(c)[ports[0]]; len(at) != 8 {
		c.Errorf("%d of 16 MACs are known: %v", len(at), at)
	}
	var change node.FDBChange
	c.ok(l.plant.Ask(c.ctx, &change, "fdb", "add", "lan", unheard(0xa0).String(), ports[0]))
	if at := l.at(c)[ports[0]]; len(at) != 9 {
		c.Errorf("with one that is pinned %d are known: %v", len(at), at)
	}
	for i := range 17 {
		mark := newMark()
		head := lab.Ethernet(unheard(byte(0x90+i)), unheard(0x80), lab.Experimental, lab.Tag{VLAN: 51})
		c.ok(l.many.SendFrames("eth0", append(bytes.Clone(head), mark...)))
		want := lab.Ethernet(unheard(byte(0x90+i)), unheard(0x80), lab.Experimental, lab.Tag{VLAN: 50})
		time.Sleep(20 * time.Millisecond)
		if n := c.count(many.Capture, func(f []byte) bool { return bytes.Equal(f, append(bytes.Clone(want), mark...)) }); n != 1 {
			c.Errorf("a frame to MAC %d of 17 comes to its port %d times", i, n)
		}
	}
}

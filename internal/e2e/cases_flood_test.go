package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// flooding is a network of two gateways and three nodes with TAPs, of which c is relayed. At the office are a camera on VLAN 10 and a
// machine on a cable of its own; at the plant a door on VLAN 30, a lift on VLAN 31, which is the same segment by another port, and
// another machine on a cable.
type flooding struct {
	*cases

	a, b, far          *world.Node
	camera, near, door *lab.Host
	lift, wired        *lab.Host
}

func newFlooding(t *testing.T) *flooding {
	t.Helper()
	f := &flooding{cases: newCases(t)}
	f.a, f.b = f.member("a", lab.PortPreserving), f.member("b", lab.PortPreserving)
	f.far = f.member("far", lab.Symmetric)
	f.near, f.wired = f.bare(f.office, "raw"), f.bare(f.plant, "raw")
	f.camera = f.machine(f.officeLAN, "camera", 10, "192.168.10.2/24", "2001:db8:10::2/64")
	f.door = f.machine(f.plantLAN, "door", 30, "192.168.10.1/24", "2001:db8:10::1/64")
	f.lift = f.machine(f.plantLAN, "lift", 31, "192.168.10.3/24", "2001:db8:10::3/64")
	f.joined(f.office, "raw", "lan", "raw", 0)
	f.joined(f.plant, "raw", "lan", "raw", 0)
	f.trunk(f.plantLAN, f.plant.Host, "two", 31)
	f.joined(f.plant, "two", "lan", "two", 31)
	f.awaitAttached(f.office, f.plant)
	f.addresses(f.a, f.b, f.far)
	return f
}

// member adds a node with a TAP on the segment.
func (c *cases) member(name string, guard lab.Guard) *world.Node {
	c.Helper()
	_, n := c.unstarted(name, guard)
	c.ok(n.Start(c.ctx, unlimited()...))
	_, err := c.Grant(c.ctx, "node:"+name, "segment:lan")
	c.ok(err)
	return n
}

// speaker is who sends and receives: a machine, or a node by its TAP.
type speaker struct {
	name string
	host *lab.Host
	dev  string
	mac  net.HardwareAddr
}

func (f *flooding) speakers() (all []speaker) {
	for _, n := range []*world.Node{f.a, f.b, f.far} {
		all = append(all, speaker{n.Name, n.Host, "loom0", f.mac(n)})
	}
	for i, h := range []*lab.Host{f.camera, f.near, f.door, f.lift, f.wired} {
		all = append(all, speaker{h.Name(), h, "eth0", unheard(byte(0x80 + i))})
	}
	return all
}

func TestCasesForwarding(t *testing.T) {
	f := newFlooding(t)
	all := f.speakers()
	atWired := f.listen(f.wired, "eth0")
	for _, s := range all[:len(all)-1] {
		f.warm(s.host, s.dev, ethernet(broadcast(), s.mac, lab.Experimental), atWired.Capture)
	}
	door := f.listen(f.door, "eth0")
	f.run("F01", func(c *cases) { f.unknown(c, door) })
	f.run("F02", func(c *cases) { f.groups(c, door) })
	f.run("F03", func(c *cases) { f.everybody(c, door) })
	f.run("F04", func(c *cases) { f.reserved(c, atWired) })
	f.run("F05", func(c *cases) { f.odd(c, atWired) })
	f.run("F06", f.sizes)
	f.run("F08", f.isolated)
	f.run("F10 F11", func(c *cases) {
		if p := c.peer(f.far, "a"); p.Path != "relayed" {
			c.Errorf("far reaches a %s, want relayed: paths are to be mixed", p.Path)
		}
		if p := c.peer(f.a, "b"); p.Path != "direct" {
			c.Errorf("a reaches b %s, want direct: paths are to be mixed", p.Path)
		}
		f.random(c, all, 10_000)
	})
	f.run("F13", func(c *cases) { f.unreachable(c, all) })
	f.run("A03", f.withdrawn)
}

// unknown: frames to a MAC that nobody was seen with go out of a port unless flood=off.
func (f *flooding) unknown(c *cases, door place) {
	head := ethernet(unheard(1), unheard(2), lab.Experimental)
	for _, want := range []map[string][]byte{nil, everywhere(head, door)} {
		c.set(f.plant, "lan", "flood="+onIf(want != nil))
		c.behave(f.camera, "eth0", []sample{sampleOf("unknown unicast", head, nil, want)}, door)
	}
}

func onIf(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// groups: so it is with mcast_flood and frames to a group.
func (f *flooding) groups(c *cases, door place) {
	head := ethernet(net.HardwareAddr{0x01, 0, 0x5e, 0, 0, 1}, unheard(2), unix.ETH_P_IP)
	for _, on := range []bool{false, true} {
		c.set(f.plant, "lan", "mcast_flood="+onIf(on))
		frame := append(bytes.Clone(head), ipv4([]byte{192, 168, 10, 66}, []byte{239, 0, 0, 1}, 253, 0, append(make([]byte, 32), newMark()...))...)
		s := sample{name: "239.0.0.1", data: frame, comes: map[string][]byte{}}
		if on {
			s.comes[door.name] = frame
		}
		c.behave(f.camera, "eth0", []sample{s}, door)
	}
}

// everybody: with bcast_flood=off no broadcast goes out, and who asks for the address of a machine there has an answer all the same, from
// a gateway that knows it.
func (f *flooding) everybody(c *cases, door place) {
	c.pings(f.camera, "192.168.10.1", 5*time.Second)
	c.set(f.office, "lan", "neigh_suppress=on")
	c.set(f.plant, "lan", "bcast_flood=off")
	defer c.set(f.office, "lan", "neigh_suppress=off")
	defer c.set(f.plant, "lan", "bcast_flood=on")
	head := ethernet(broadcast(), c.macOf(f.camera, "eth0"), unix.ETH_P_IP)
	frame := append(head, ipv4([]byte{192, 168, 10, 2}, []byte{255, 255, 255, 255}, 253, 0, append(make([]byte, 32), newMark()...))...)
	c.behave(f.camera, "eth0", []sample{{name: "broadcast IPv4", data: frame}}, door)
	ask := asksARP(c.macOf(f.camera, "eth0"), "192.168.10.2", "192.168.10.1")
	if answers, crossed := c.ask(f.camera, ask, door); answers != 1 || crossed != 0 {
		c.Errorf("a question is answered %d times and crosses %d times, want 1 and 0", answers, crossed)
	}
}

// reserved: what is for the neighbour on the wire goes no further, and what only looks like it passes: by a machine and by a node's TAP.
func (f *flooding) reserved(c *cases, wired place) {
	var stays, passes []net.HardwareAddr
	for n := range byte(16) {
		stays = append(stays, net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, n})
	}
	stays = append(stays, net.HardwareAddr{0x01, 0, 0x0c, 0xcc, 0xcc, 0xcc}, net.HardwareAddr{0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd}, net.HardwareAddr{0, 0xe0, 0x2b, 0, 0, 4})
	for _, n := range []byte{0x10, 0x14, 0x15} {
		passes = append(passes, net.HardwareAddr{0x01, 0x80, 0xc2, 0, 0, n})
	}
	passes = append(passes, net.HardwareAddr{0x01, 0x1b, 0x19, 0, 0, 0}, net.HardwareAddr{0x09, 0, 0x07, 0xff, 0xff, 0xff})
	atB := c.listen(f.b.Host, "loom0")
	for _, from := range []speaker{{"near", f.near, "eth0", unheard(0x81)}, {"a", f.a.Host, "loom0", c.mac(f.a)}} {
		var samples []sample
		for _, dst := range stays {
			samples = append(samples, sampleOf(dst.String(), ethernet(dst, from.mac, lab.Experimental), nil, nil))
		}
		for _, dst := range passes {
			head := ethernet(dst, from.mac, lab.Experimental)
			samples = append(samples, sampleOf(dst.String(), head, nil, everywhere(head, wired, atB)))
		}
		c.behave(from.host, from.dev, samples, wired, atB)
	}
}

// odd: frames of protocols that are not IP come byte for byte, whether they are for one, for a group or for all.
func (f *flooding) odd(c *cases, wired place) {
	atB := c.listen(f.b.Host, "loom0")
	wiredMAC := unheard(0x84)
	c.ok(f.wired.SendFrames("eth0", append(ethernet(broadcast(), wiredMAC, lab.Experimental), newMark()...)))
	time.Sleep(quiet) // it is known to both gateways where that is
	for _, from := range []speaker{{"near", f.near, "eth0", unheard(0x81)}, {"a", f.a.Host, "loom0", c.mac(f.a)}} {
		var samples []sample
		for _, kind := range []struct {
			name string
			typ  uint16
			body []byte
		}{
			{"802.3 and LLC", 46, []byte{0xf0, 0xf0, 0x03}},
			{"802.3, LLC and SNAP", 46, []byte{0xaa, 0xaa, 0x03, 0, 0x60, 0x1d, 0, 1}},
			{"wake on LAN", 0x0842, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
			{"PTP", 0x88f7, nil},
			{"PPPoE discovery", 0x8863, nil},
			{"PPPoE session", 0x8864, nil},
			{"LLDP's type to others", 0x88cc, nil},
			{"DECnet", 0x6003, nil},
			{"0xabcd", 0xabcd, nil},
		} {
			for _, dst := range []struct {
				name string
				mac  net.HardwareAddr
				at   []place
			}{
				{"machine", wiredMAC, []place{wired}},
				{"node", c.mac(f.b), []place{atB}},
				{"group", net.HardwareAddr{0x03, 0, 0, 0, 0, 1}, []place{wired, atB}},
				{"all", broadcast(), []place{wired, atB}},
			} {
				head := ethernet(dst.mac, from.mac, kind.typ)
				samples = append(samples, sampleOf(kind.name+" to "+dst.name, head, kind.body, everywhere(head, dst.at...)))
			}
		}
		c.behave(from.host, from.dev, samples, wired, atB)
	}
}

// sizes: every length from a header alone to the longest comes, whole and in order: from cable to cable, with a tag that is taken off,
// between nodes, and through the sites' switches.
func (f *flooding) sizes(c *cases) {
	a, b := speaker{"a", f.a.Host, "loom0", c.mac(f.a)}, speaker{"b", f.b.Host, "loom0", c.mac(f.b)}
	near, wired := speaker{"near", f.near, "eth0", unheard(0x81)}, speaker{"wired", f.wired, "eth0", unheard(0x84)}
	camera, door := speaker{"camera", f.camera, "eth0", unheard(0x80)}, speaker{"door", f.door, "eth0", unheard(0x82)}
	const afterTag = 16 // Linux shows no program a frame with a tag and less behind its EtherType
	for _, way := range []struct {
		from, to speaker
		tag      []byte
		least    int
	}{
		{near, wired, nil, 14},
		{near, wired, []byte{0x81, 0, 0, 0}, afterTag},
		{a, b, nil, 14},
		{near, b, nil, 14},
		{a, wired, nil, 14},
		{camera, door, nil, afterTag},
	} {
		at := c.arrivals(way.to.host, way.to.dev)
		var want [][]byte
		for size := way.least; size <= 1514; size++ {
			plain := append(ethernet(way.to.mac, way.from.mac, lab.Experimental), filler(size-14, byte(size))...)
			want = append(want, plain)
			c.ok(way.from.host.SendFrames(way.from.dev, append(append(bytes.Clone(plain[:12]), way.tag...), plain[12:]...)))
			if len(want)%pace == 0 {
				c.paced(at, len(want))
			}
		}
		time.Sleep(quiet)
		c.inOrder(at, way.from, way.to, want)
		c.ok(at.Stop())
	}
}

// pace is how many frames are sent until those before have come: what is asked is whether any are lost, not how many a second go.
const pace = 50

// paced waits until a capture has so many frames, but not for ever: what is missing is said in the end.
func (c *cases) paced(at *lab.Capture, frames int) {
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if have, _ := at.Frames(); have >= uint64(frames) {
			return
		}
	}
}

// inOrder checks that exactly these frames of a sender came, in this order.
func (c *cases) inOrder(at *lab.Capture, from, to speaker, want [][]byte) {
	c.Helper()
	n := 0
	c.ok(at.Each(func(frame []byte) bool {
		if !bytes.Equal(frame[:12], want[0][:12]) {
			return true
		}
		if n == len(want) || !bytes.Equal(frame, want[n]) {
			c.Errorf("from %s to %s: frame %d has %d bytes, want %d: %x", from.name, to.name, n, len(frame), len(want[min(n, len(want)-1)]), frame[:min(40, len(frame))])
			return false
		}
		n++
		return true
	}))
	if n != len(want) && !c.Failed() {
		c.Errorf("from %s to %s: %d of %d frames came", from.name, to.name, n, len(want))
	}
}

// isolated: machines on two isolated ports do not reach each other in any way, and others reach both.
func (f *flooding) isolated(c *cases) {
	c.pings(f.door, "192.168.10.3", 5*time.Second)
	c.pings(f.door, "2001:db8:10::3", 5*time.Second)
	for _, port := range []string{"lan", "two"} {
		c.set(f.plant, port, "isolated=on")
		defer c.set(f.plant, port, "isolated=off")
	}
	atLift := c.listen(f.lift, "eth0")
	for _, addr := range []string{"192.168.10.3", "2001:db8:10::3"} {
		c.silent(f.door, addr)
		c.pings(f.camera, addr, 5*time.Second)
	}
	for _, from := range []struct {
		host *lab.Host
		to   []place
	}{{f.door, nil}, {f.camera, []place{atLift}}} {
		var samples []sample
		for _, dst := range []net.HardwareAddr{broadcast(), {0x01, 0, 0x5e, 9, 9, 9}, unheard(0x33), c.macOf(f.lift, "eth0")} {
			head := ethernet(dst, c.macOf(from.host, "eth0"), lab.Experimental)
			samples = append(samples, sampleOf("a frame to "+dst.String(), head, nil, everywhere(head, from.to...)))
		}
		c.behave(from.host, "eth0", samples, atLift)
	}
}

// random: of broadcasts from random senders each other place has each exactly once, and the sender none of its own.
func (f *flooding) random(c *cases, all []speaker, count int) {
	captures, sockets := make([]*lab.Capture, len(all)), make([]int, len(all))
	for i, s := range all {
		captures[i] = c.arrivals(s.host, s.dev)
		sockets[i] = c.socketAt(s.host, s.dev)
	}
	mark := newMark()
	senders, own := make([]int, count), make([]int, len(all))
	start := time.Now()
	for n := range senders {
		from := rand.N(len(all))
		senders[n] = from
		own[from]++
		frame := append(ethernet(broadcast(), all[from].mac, lab.Experimental), mark...)
		frame = append(binary.BigEndian.AppendUint32(frame, uint32(n)), make([]byte, 26)...)
		c.ok(unix.Send(sockets[from], frame, 0))
		for i := range all {
			if n%pace == pace-1 {
				c.paced(captures[i], n+1-own[i])
			}
		}
	}
	c.Logf("%d broadcasts in %v", count, time.Since(start))
	time.Sleep(2 * quiet)
	for i, s := range all {
		c.once(captures[i], s, mark, senders, i)
		c.ok(captures[i].Stop())
	}
}

// once checks that each number came once, but for those of one sender, which came not at all.
func (c *cases) once(at *lab.Capture, s speaker, mark []byte, senders []int, own int) {
	c.Helper()
	seen := make([]int, len(senders))
	c.ok(at.Each(func(frame []byte) bool {
		if len(frame) >= 34 && bytes.Equal(frame[14:30], mark) {
			seen[binary.BigEndian.Uint32(frame[30:])]++
		}
		return true
	}))
	missing, extra, echoes := map[int]int{}, map[int]int{}, 0
	for n, from := range senders {
		switch {
		case from == own:
			echoes += seen[n]
		case seen[n] == 0:
			missing[from]++
		case seen[n] > 1:
			extra[from]++
		}
	}
	if len(missing) > 0 || len(extra) > 0 || echoes > 0 {
		c.Errorf("at %s: missing %v and more than once %v, by sender; %d of its own", s.name, missing, extra, echoes)
	}
}

// socketAt opens a socket that sends frames out of an interface, until the case ends.
func (c *cases) socketAt(h *lab.Host, dev string) (fd int) {
	c.Helper()
	c.ok(h.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	}))
	c.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// unreachable: while one node cannot be reached, the others have each of ten broadcasts once all the same.
func (f *flooding) unreachable(c *cases, all []speaker) {
	c.ok(f.far.Uplink.Down())
	var reached []place
	for _, s := range all {
		if s.name != f.far.Name && s.host != f.camera {
			reached = append(reached, c.listen(s.host, s.dev))
		}
	}
	var samples []sample
	for i := range 10 {
		head := ethernet(broadcast(), unheard(0x80), lab.Experimental)
		samples = append(samples, sampleOf(fmt.Sprint("broadcast ", i), head, nil, everywhere(head, reached...)))
	}
	c.behave(f.camera, "eth0", samples, reached...)
}

// withdrawn: of a node whose address the signed state lists, questions are answered here; once it is locked out they are not.
func (f *flooding) withdrawn(c *cases) {
	c.set(f.office, "raw", "neigh_suppress=on")
	question, atB := asksARP(unheard(9), near4, c.addresses(f.b)[0]), c.listen(f.b.Host, "loom0")
	c.judgeAsks(f.near, atB, asks{"of a member", question, 1, 0})
	c.ok(c.tried("node", "lock", "b"))
	time.Sleep(lockBar)
	c.judgeAsks(f.near, atB, asks{"of who is locked out", question, 0, 0})
}

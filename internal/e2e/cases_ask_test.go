package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// asksARP is a question to everybody who has an address.
func asksARP(own net.HardwareAddr, from, about string) []byte {
	return arpFrame(broadcast(), own, 1, from, make(net.HardwareAddr, 6), about)
}

// arpFrame is any ARP, padded as a wire would.
func arpFrame(dst, src net.HardwareAddr, op byte, sender string, targetMAC net.HardwareAddr, target string) []byte {
	b := append(ethernet(dst, src, unix.ETH_P_ARP), 0, 1, 8, 0, 6, 4, 0, op)
	b = append(append(b, src...), netip.MustParseAddr(sender).AsSlice()...)
	b = append(append(b, targetMAC...), netip.MustParseAddr(target).AsSlice()...)
	return append(b, make([]byte, 18)...)
}

// asksND is the same in IPv6, with some options.
func asksND(own net.HardwareAddr, about string, options ...byte) []byte {
	target := netip.MustParseAddr(about).As16()
	group := net.IP{0xff, 2, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
	return ndFrame(own, group, append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, append(target[:], options...)...))
}

// tellsND is an advertisement to all that an address is now at the sender.
func tellsND(own net.HardwareAddr, about string) []byte {
	const override = 0x20
	target := netip.MustParseAddr(about).As16()
	option := append([]byte{2, 1}, own...)
	return ndFrame(own, net.ParseIP("ff02::1"), append([]byte{136, 0, 0, 0, override, 0, 0, 0}, append(target[:], option...)...))
}

// ndFrame is a message of neighbour discovery to a group.
func ndFrame(own net.HardwareAddr, group net.IP, message []byte) []byte {
	packet := ipv6(linkLocal(own), group, unix.IPPROTO_ICMPV6, message)
	packet[7] = 255
	binary.BigEndian.PutUint16(packet[42:], ether.Checksum(uint32(len(message)+unix.IPPROTO_ICMPV6), packet[8:]))
	return append(ethernet(net.HardwareAddr{0x33, 0x33, group[12], group[13], group[14], group[15]}, own, unix.ETH_P_IPV6), packet...)
}

// ask sends a question, ARP or ND, and counts the answers to who asks, all others that come back, and how often the question comes to a place.
func (c *cases) ask(from *lab.Host, question []byte, at place) (answers, crossed int) {
	c.Helper()
	asker := c.arrivals(from, "eth0")
	body := withoutTag(question)[14:]
	asked := func() int { return c.count(at.Capture, func(f []byte) bool { return bytes.Contains(f, body) }) }
	before := asked()
	c.ok(from.SendFrames("eth0", question))
	time.Sleep(quiet)
	answers = c.count(asker, func(f []byte) bool { return bytes.Equal(f[:6], question[6:12]) && answersTo(f, question) })
	c.ok(asker.Stop())
	return answers, asked() - before
}

// answersTo reports whether a frame answers any question of the kind.
func answersTo(frame, question []byte) bool {
	frame = withoutTag(frame)
	typ := binary.BigEndian.Uint16(frame[12:])
	if binary.BigEndian.Uint16(withoutTag(question)[12:]) != unix.ETH_P_IPV6 {
		return typ == unix.ETH_P_ARP || typ == unix.ETH_P_RARP
	}
	return len(frame) >= 78 && typ == unix.ETH_P_IPV6 && frame[54] == 136
}

func withoutTag(frame []byte) []byte {
	if len(frame) > 18 && frame[12] == 0x81 && frame[13] == 0 {
		return append(bytes.Clone(frame[:12]), frame[16:]...)
	}
	return frame
}

// asks is a question, and what shall become of it.
type asks struct {
	name             string
	question         []byte
	answers, crosses int // how often; -1: it may cross or not
}

func (c *cases) judgeAsks(from *lab.Host, at place, list ...asks) {
	c.Helper()
	for _, q := range list {
		answers, crossed := c.ask(from, q.question, at)
		if answers != q.answers || crossed != q.crosses && q.crosses >= 0 {
			c.Errorf("%s: answered %d times, and crosses %d times; want %d and %d", q.name, answers, crossed, q.answers, q.crosses)
		}
	}
}

// count counts frames.
func (c *cases) count(at *lab.Capture, is func([]byte) bool) (n int) {
	c.Helper()
	c.ok(at.Each(func(frame []byte) bool {
		if is(frame) {
			n++
		}
		return true
	}))
	return n
}

// Addresses of machines in the cases about questions.
const (
	door4, door6 = "192.168.10.1", "2001:db8:10::1"
	near4        = "192.168.10.9"
)

// known: who asks for an address that is known here has an answer from the gateway, and the question goes no further (A01). Otherwise it
// crosses, and the machine answers itself (A02). So does one for the machine alone (A04).
func (l *learning) known(c *cases, door place) {
	own, mac := unheard(9), c.macOf(l.door, "eth0")
	slla := append([]byte{1, 1}, own...)
	c.judgeAsks(l.near, door,
		asks{"A01 ARP", asksARP(own, near4, door4), 1, 0},
		asks{"A01 ND", asksND(own, door6, slla...), 1, 0},
		asks{"A04 ARP to the machine", arpFrame(mac, own, 1, near4, make(net.HardwareAddr, 6), door4), 1, 1},
	)
	c.sh(l.door, "ip addr add 192.168.10.77/24 dev eth0; ip addr add 2001:db8:10::77/64 dev eth0 nodad")
	c.judgeAsks(l.near, door,
		asks{"A02 an address not heard of", asksARP(own, near4, "192.168.10.77"), 1, 1},
		asks{"A02 the same in IPv6", asksND(own, "2001:db8:10::77", slla...), 1, 1},
		asks{"A02 nobody's address", asksARP(own, near4, "192.168.10.78"), 0, 1},
		asks{"A02 nobody's address in IPv6", asksND(own, "2001:db8:10::78", slla...), 0, 1},
	)
	c.judgeAsks(l.near, door, asks{"A01 once it has answered", asksARP(own, near4, "192.168.10.77"), 1, 0})
}

// strange: what is no question, or a broken one, is never answered, and harms nobody (A07, A08).
func (l *learning) strange(c *cases, door place) {
	own := unheard(9)
	slla := append([]byte{1, 1}, own...)
	rarp := func(op byte) []byte {
		f := arpFrame(broadcast(), own, op, near4, own, door4)
		f[12], f[13] = 0x80, 0x35
		return f
	}
	long := asksARP(own, near4, door4)
	long[18] = 8
	c.judgeAsks(l.near, door,
		asks{"A07 an option of length 0", asksND(own, door6, 1, 0, 0, 0, 0, 0, 0, 0), 0, 0},
		asks{"A07 with source address option", asksND(own, door6, slla...), 1, 0},
		asks{"A07 without", asksND(own, door6), 1, 0},
		asks{"A07 ARP of 27 bytes", asksARP(own, near4, door4)[:41], 0, 0},
		asks{"A08 RARP request", rarp(3), 0, -1},
		asks{"A08 RARP reply", rarp(4), 0, -1},
		asks{"A08 addresses of 8 bytes", long, 0, -1},
		asks{"A08 for 127.0.0.1", asksARP(own, near4, "127.0.0.1"), 0, -1},
		asks{"A08 for 224.0.0.1", asksARP(own, near4, "224.0.0.1"), 0, -1},
		asks{"A07 and all goes on", asksARP(own, near4, door4), 1, 0},
	)
}

// moved: what tells everybody that an address is somewhere else reaches everybody although questions are answered here, and caches follow
// within a second.
func (l *learning) moved(c *cases, door place) {
	c.pings(l.camera, door4, 5*time.Second)
	c.pings(l.camera, door6, 5*time.Second)
	camera, near, lift := c.listen(l.camera, "eth0"), c.listen(l.near, "eth0"), c.listen(l.lift, "eth0")
	elsewhere, mac := unheard(0x50), c.macOf(l.door, "eth0")
	for _, m := range []struct {
		name, addr string
		mac        net.HardwareAddr
		frame      []byte
	}{
		{"gratuitous ARP, a request", door4, elsewhere, arpFrame(broadcast(), elsewhere, 1, door4, make(net.HardwareAddr, 6), door4)},
		{"gratuitous ARP, a reply", door4, mac, arpFrame(broadcast(), mac, 2, door4, mac, door4)},
		{"gratuitous ARP, a request again", door4, elsewhere, arpFrame(broadcast(), elsewhere, 1, door4, make(net.HardwareAddr, 6), door4)},
		{"unsolicited advertisement", door6, elsewhere, tellsND(elsewhere, door6)},
		{"unsolicited advertisement back", door6, mac, tellsND(mac, door6)},
		{"gratuitous ARP back, a reply", door4, mac, arpFrame(broadcast(), mac, 2, door4, mac, door4)},
		{"gratuitous ARP, a request once more", door4, elsewhere, arpFrame(broadcast(), elsewhere, 1, door4, make(net.HardwareAddr, 6), door4)},
		{"gratuitous ARP, a reply that names everybody", door4, mac, arpFrame(broadcast(), mac, 2, door4, broadcast(), door4)},
	} {
		same := func(f []byte) bool { return bytes.Equal(f, m.frame) }
		if strings.HasSuffix(m.name, "names everybody") {
			time.Sleep(1100 * time.Millisecond) // to Linux that is none: it takes no other address within a second (arp(7), locktime)
		}
		start, was := time.Now(), [...]int{c.count(camera.Capture, same), c.count(near.Capture, same), c.count(lift.Capture, same)}
		c.ok(l.door.SendFrames("eth0", m.frame))
		c.await(m.name+": the cache follows", time.Second, func() bool {
			return strings.Contains(c.sh(l.camera, "ip neigh show "+m.addr), m.mac.String())
		})
		c.Logf("%s: the cache follows after %v", m.name, time.Since(start))
		time.Sleep(quiet / 3)
		for i, p := range []place{camera, near, lift} {
			if n := c.count(p.Capture, same) - was[i]; n != 1 {
				c.Errorf("%s comes to %s %d times, want once", m.name, p.name, n)
			}
		}
	}
	l.arping(c, near, elsewhere, mac)
	c.judgeAsks(l.near, door, asks{"and who asks hears where it is now", asksARP(unheard(9), near4, door4), 1, 0})
}

// arping: what arping -A sends, and with it all who announce themselves as it does, moves caches back.
func (l *learning) arping(c *cases, near place, elsewhere, mac net.HardwareAddr) {
	c.ok(l.door.SendFrames("eth0", arpFrame(broadcast(), elsewhere, 1, door4, make(net.HardwareAddr, 6), door4)))
	at := func(want net.HardwareAddr) func() bool {
		return func() bool { return strings.Contains(c.sh(l.camera, "ip neigh show "+door4), want.String()) }
	}
	c.await("the cache is wrong", time.Second, at(elsewhere))
	isReply := func(f []byte) bool {
		return len(f) >= 42 && bytes.Equal(f[6:12], mac) && bytes.Equal(f[:6], broadcast()) && bytes.Equal(f[12:14], []byte{8, 6}) && f[21] == 2
	}
	was := c.count(near.Capture, isReply)
	if out := c.sh(l.door, "arping -A -c 1 -I eth0 "+door4); !strings.Contains(out, "ARPING "+door4) {
		c.Errorf("arping -A says %s", out)
	}
	if n := c.count(near.Capture, isReply) - was; n != 1 {
		c.Errorf("what arping -A sends comes %d times, want once", n)
	}
	if !at(mac)() { // arping has waited for answers for a second
		c.Errorf("after arping -A the cache has %s", c.sh(l.camera, "ip neigh show "+door4))
	}
}

// oneVLAN: of two VLANs of one NIC that are the same segment, questions are answered on that where it is set alone.
func (l *learning) oneVLAN(c *cases, door place) {
	own := unheard(0x0a)
	question := asksARP(own, near4, door4)
	c.judgeAsks(l.trunk, door, asks{"VLAN 10", withTag(question, 10), 1, 0}, asks{"VLAN 12", withTag(question, 12), 1, 1})
}

// suppress sets neigh_suppress on ports.
func (c *cases) suppress(n *world.Node, ports ...string) {
	c.Helper()
	for _, p := range ports {
		c.set(n, p, "neigh_suppress=on")
	}
}

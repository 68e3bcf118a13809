package e2e

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// A segment of MTU 9000 carries packets of that size over an ordinary underlay, and frames of any kind as they are.
func TestJumbo(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	_, err := r.Admin(r.ctx, "segment", "add", "jumbo", "--mtu", "9000")
	r.ok(err)
	_, err = r.Grant(r.ctx, "label:team=x", "segment:jumbo")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)
	r.awaitPath(b, "a", "direct", 20*time.Second)
	if out := strings.TrimSpace(r.sh(a.Host, "cat /sys/class/net/loom0/mtu")); out != "9000" {
		t.Errorf("the MTU of loom0 is %s", out)
	}
	for _, way := range []struct {
		from, to *world.Node
		src, dst string
	}{{a, b, addr[0], addr[1]}, {b, a, addr[1], addr[0]}} {
		r.sh(way.from.Host, "ping -c 5 -i 0.1 -W 2 -M do -s 8972 "+way.dst)
		r.sh(way.from.Host, "ping -c 5 -i 0.1 -W 2 -M do -s 8952 -6 "+way.to.Name+".etherloom.internal")
		if out, err := way.from.Host.Run(r.ctx, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "8973", way.dst); err == nil {
			t.Errorf("a packet of 9001 bytes passes: %s", out)
		}
		if n := r.datagrams(way.from.Host, way.to.Host, way.dst, 20, 8972); n != 20 {
			t.Errorf("%d of 20 datagrams of 8972 bytes arrive at %s", n, way.to.Name)
		}
		if err := r.flow(r.ctx, way.from.Host, way.to.Host, way.dst, 0, 8<<20).wait(); err != nil {
			t.Error(err)
		}
		r.arriveAsTheyAre(way.from, way.to, oddFrames(r.mac(way.from), r.mac(way.to), way.src, way.dst))
	}
}

// mac is the address of a node's TAP.
func (r *rig) mac(n *world.Node) net.HardwareAddr {
	r.Helper()
	m, err := net.ParseMAC(strings.TrimSpace(r.sh(n.Host, "cat /sys/class/net/loom0/address")))
	r.ok(err)
	return m
}

// arriveAsTheyAre checks that each of the frames arrives once, byte for byte.
func (r *rig) arriveAsTheyAre(from, to *world.Node, frames []oddFrame) {
	r.Helper()
	capture, err := to.Host.Capture("loom0")
	r.ok(err)
	for _, f := range frames {
		r.inject(from.Host, "loom0", f.data)
	}
	seen := map[string]int{}
	look := func() bool {
		clear(seen)
		r.ok(capture.Each(func(frame []byte) bool {
			seen[string(frame)]++
			return true
		}))
		for _, f := range frames {
			if seen[string(f.data)] == 0 {
				return false
			}
		}
		return true
	}
	_ = world.Await(r.ctx, "", 2*time.Second, look) // what is missing is said below
	for _, f := range frames {
		if n := seen[string(f.data)]; n != 1 {
			r.Errorf("from %s to %s, %s, %d bytes: arrived %d times", from.Name, to.Name, f.name, len(f.data), n)
		}
	}
	r.ok(capture.Stop())
}

// oddFrame is a frame that must pass, whatever one may think of it.
type oddFrame struct {
	name string
	data []byte
}

// oddFrames are frames that hosts seldom send and a switch must carry, from own to peer.
func oddFrames(own, peer net.HardwareAddr, src, dst string) []oddFrame {
	src4, dst4 := netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice()
	src6, dst6 := linkLocal(own), linkLocal(peer)
	var list []oddFrame
	add := func(name string, head []byte, parts ...[]byte) {
		for _, p := range parts {
			head = append(head, p...)
		}
		list = append(list, oddFrame{name, head})
	}
	to := func(typ uint16) []byte { return ethernet(peer, own, typ) }
	tagged := func(tci, typ uint16) []byte {
		return append(to(0x8100), byte(tci>>8), byte(tci), byte(typ>>8), byte(typ))
	}
	udp := append([]byte{0x13, 0x88, 0x13, 0x89, 0, 24, 0, 0}, "sixteen bytes ok"...) // without checksum

	add("priority tag, IPv4", tagged(0xe000, unix.ETH_P_IP), ipv4(src4, dst4, 17, 0, udp))
	add("priority tag, drop eligible, not IP", tagged(0x5000, 0x88b5), []byte("tagged"))
	add("priority tag, two bytes behind it", tagged(0x2000, 0x88b6), []byte{1, 2}) // fewer are too few for Linux
	add("priority tag, full length", tagged(0xa000, 0x88b5), filler(9000, 1))

	const moreFragments = 0x2000
	big := filler(2961, 2)
	add("IPv4, first fragment", to(unix.ETH_P_IP), ipv4(src4, dst4, 17, moreFragments, big[:1480]))
	add("IPv4, middle fragment", to(unix.ETH_P_IP), ipv4(src4, dst4, 17, moreFragments|1480/8, big[1480:2960]))
	add("IPv4, last fragment, one byte", to(unix.ETH_P_IP), ipv4(src4, dst4, 17, 2960/8, big[2960:]))
	add("IPv4, padded behind its end", to(unix.ETH_P_IP), ipv4(src4, dst4, 253, 0, []byte{1}), filler(25, 3))
	add("IPv4, checksum of UDP wrong", to(unix.ETH_P_IP), ipv4(src4, dst4, 17, 0, append([]byte{0x13, 0x88, 0x13, 0x89, 0, 9, 0xde, 0xad}, 7)))
	add("TCP, urgent, odd, checksum wrong", to(unix.ETH_P_IP), ipv4(src4, dst4, 6, 0,
		[]byte{0x13, 0x88, 0x13, 0x89, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x3a, 4, 0, 0xbe, 0xef, 0, 1, 'x', 'y', 'z'}))
	add("IPv4, jumbo", to(unix.ETH_P_IP), ipv4(src4, dst4, 253, 0, filler(8980, 4)))

	hopByHop := []byte{60, 0, 1, 4, 0, 0, 0, 0} // next: destination options; one PadN
	destination := []byte{17, 0, 1, 4, 0, 0, 0, 0}
	add("IPv6, hop-by-hop and destination options", to(unix.ETH_P_IPV6), ipv6(src6, dst6, 0, hopByHop, destination, udp))
	fragment := func(at uint16) []byte { return []byte{17, 0, byte(at >> 8), byte(at), 0, 0, 0, 9} }
	add("IPv6, first fragment", to(unix.ETH_P_IPV6), ipv6(src6, dst6, 44, fragment(1), udp))
	add("IPv6, last fragment", to(unix.ETH_P_IPV6), ipv6(src6, dst6, 44, fragment(24), filler(33, 5)))
	add("IPv6, no next header", to(unix.ETH_P_IPV6), ipv6(src6, dst6, 59))

	for _, n := range []int{0, 1, 3, 45, 46, 47, 1385, 1386, 1387, 1499, 1500, 1501, 8999, 9000} {
		add("not IP", to(0x88b5), filler(n, 6))
	}
	add("length in place of a type", to(35), []byte{0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0}, filler(27, 7))
	add("MPLS", to(0x8847), []byte{0, 1, 1, 64}, filler(40, 8))
	add("PPPoE", to(0x8864), filler(51, 9))
	add("MACsec", to(0x88e5), filler(60, 10))
	add("multicast, not IP", ethernet(net.HardwareAddr{0x03, 0, 0, 0, 0, 0x20}, own, 0x88b5), filler(77, 11))
	add("broadcast, not IP", ethernet(broadcast(), own, 0x88b5), filler(78, 12))
	return list
}

// filler is n bytes that repeat with no period that a header has.
func filler(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7+i/251) + seed
	}
	return b
}

// ipv4 is a packet with a right header (RFC 791 section 3.1).
func ipv4(src, dst []byte, protocol byte, flagsAndOffset uint16, payload []byte) []byte {
	n := 20 + len(payload)
	b := []byte{0x45, 0, byte(n >> 8), byte(n), 0x42, 0x42, byte(flagsAndOffset >> 8), byte(flagsAndOffset), 64, protocol, 0, 0}
	b = append(append(b, src...), dst...)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = ^(sum>>16 + sum)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return append(b, payload...)
}

// ipv6 is a packet whose parts behind the header are given (RFC 8200 section 3).
func ipv6(src, dst net.IP, next byte, parts ...[]byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 0, next, 64}
	b = append(append(b, src...), dst...)
	for _, p := range parts {
		b = append(b, p...)
	}
	b[4], b[5] = byte((len(b)-40)>>8), byte(len(b)-40)
	return b
}

package e2e

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The programs that attackers use, with every way they know around guards: dsniff's arpspoof, and thc-ipv6.
func TestReceiverRefusesTools(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	routes := r.sh(r.victim.Host, "ip -6 route")
	bob, victim := r.b.v6.String(), r.v.v6.String()
	advertise := func(options ...string) []string {
		command := append([]string{"atk6-fake_advertise6", "-n", "5", "-w", "0"}, options...)
		return append(command, "loom0", bob, victim, r.m.mac.String(), r.m.own.String())
	}
	router := func(options ...string) []string {
		return append(append([]string{"atk6-fake_router26", "-n", "5", "-i", "0", "-A", "2001:db8:bad::/64"}, options...), "loom0")
	}
	for _, tool := range [][]string{
		{"arpspoof", "-i", "loom0", "-t", r.v.v4.String(), r.b.v4.String()},
		{"arpspoof", "-i", "loom0", r.b.v4.String()},
		advertise(), advertise("-O"), advertise("-s"), advertise("-H"), advertise("-f"), advertise("-D"), advertise("-F"),
		router(), router("-E", "H"), router("-E", "1"), router("-E", "H111"), router("-E", "D"), router("-E", "F"),
		router("-E", "O"), router("-E", "o"),
		{"atk6-fake_mldrouter6", "-l", "loom0", "advertise"},
		{"atk6-fake_mldrouter6", "-l", "loom0", "terminate"},
	} {
		r.refusesTool(tool...)
	}
	if now := r.sh(r.victim.Host, "ip -6 route"); now != routes {
		t.Errorf("victim's routes were\n%s\nand are\n%s", routes, now)
	}
}

// refusesTool runs a program on mallory for some time, and checks that victim refuses what it sends, all of it.
func (r *refusal) refusesTool(tool ...string) {
	r.Helper()
	tap, err := r.victim.Host.Capture("loom0")
	r.ok(err)
	was := r.dropped(r.victim)
	ctx, cancel := context.WithTimeout(r.ctx, 2500*time.Millisecond)
	defer cancel()
	out, err := r.mallory.Host.Run(ctx, tool[0], tool[1:]...) // most of them never end by themselves
	refused := map[string]uint64{}
	for reason, n := range r.dropped(r.victim) {
		if n > was[reason] {
			refused[reason] = n - was[reason]
		}
	}
	name := strings.Join(tool, " ")
	r.Logf("%s: refused %v", name, refused)
	reasons := []string{"arp-sender", "nd-sender", "ip-source", "not-router", "undetermined", "bad-header", "source-mac", "not-querier"}
	if !slices.ContainsFunc(reasons, func(reason string) bool { return refused[reason] > 0 }) {
		r.Errorf("%s: victim has refused nothing: %v: %s", name, err, out)
	}
	r.ok(tap.Each(func(frame []byte) bool {
		if lie := r.lie(frame); lie != "" {
			r.Errorf("%s: %s has reached victim: %x", name, lie, frame)
		}
		return true
	}))
	r.ok(tap.Stop())
	r.undisturbed()
}

// lie says what is wrong with a frame from mallory; nothing if its kernel may have sent it.
func (r *refusal) lie(frame []byte) string {
	if len(frame) < 14 || !bytes.Equal(frame[6:12], r.m.mac) {
		return ""
	}
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if arp, ok := packet.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		if !bytes.Equal(arp.SourceHwAddress, r.m.mac) || !r.mine(arp.SourceProtAddress) {
			return "a false ARP packet"
		}
		return ""
	}
	if ip, ok := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		if !r.mine(ip.SrcIP.To4()) {
			return "a false IPv4 packet"
		}
		return ""
	}
	ip, ok := packet.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	icmp, _ := packet.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	advertisement, advertises := packet.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	switch {
	case !ok:
		return "a frame that no kernel sends"
	case !r.mine(ip.SrcIP) && !ip.SrcIP.IsUnspecified():
		return "a false IPv6 packet"
	case packet.Layer(layers.LayerTypeIPv6Fragment) != nil:
		return "a fragment"
	case packet.Layer(layers.LayerTypeICMPv6RouterAdvertisement) != nil, packet.Layer(layers.LayerTypeICMPv6Redirect) != nil:
		return "a false router"
	case icmp != nil && slices.Contains([]uint8{130, 151, 153}, icmp.TypeCode.Type()):
		return "a false multicast router"
	case advertises && !r.mine(advertisement.TargetAddress):
		return "a false neighbour"
	}
	return ""
}

// mine reports whether an address is mallory's own.
func (r *refusal) mine(b []byte) bool {
	a, _ := netip.AddrFromSlice(b)
	return a == r.m.v4 || a == r.m.v6 || a == r.m.own
}

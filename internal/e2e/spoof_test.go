package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

const (
	spoofShort = 10 // seconds
	spoofLong  = 600
)

// spoofing is a segment on which two members say, with the programs that attackers have, that they are bob to victim and
// victim to bob. trudy's own daemon is honest; mallory's judges nothing. Nor does gull's, which takes whatever comes: it shows
// that the programs work.
type spoofing struct {
	*rig
	trudy, mallory, victim, bob, gull *world.Node

	who     map[*world.Node]party
	owners  map[netip.Addr]net.HardwareAddr
	taps    map[*world.Node]*lab.Capture
	monitor map[*world.Node]*lab.Process // ip monitor neigh: every change of a host's neighbour cache
}

// IP, ARP and neighbour spoofing, for ten minutes with ETHERLOOM_ACCEPT=1: victim and bob, who talk, never take anybody but each
// other for each other, and no spoofed frame is delivered to them. bob forgets his neighbours again and again, so that he asks,
// and the attackers compete with the true answer.
func TestNeighboursStay(t *testing.T) {
	last := time.Duration(rounds(spoofShort, spoofLong)) * time.Second
	s := newSpoofing(t, last)
	was := map[*world.Node]map[string]uint64{s.trudy: s.dropped(s.trudy), s.victim: s.dropped(s.victim), s.bob: s.dropped(s.bob)}
	ctx, cancel := context.WithTimeout(s.ctx, last)
	defer cancel()
	for _, attacker := range []*world.Node{s.trudy, s.mallory} {
		for _, command := range s.programs(attacker) {
			_, err := attacker.Host.Start(ctx, command[0], command[1:]...)
			s.ok(err)
		}
	}
	s.talk(ctx, last)
	time.Sleep(300 * time.Millisecond) // for what was sent last

	byTrudy, byMallory := s.lies(s.trudy, s.trudy, nil), s.lies(s.mallory, s.mallory, nil)
	if least := int(last.Seconds()); byTrudy < least || byMallory < least {
		t.Errorf("trudy has sent %d spoofed frames and mallory %d, want at least %d each", byTrudy, byMallory, least)
	}
	if n := s.spoofsRefused(s.trudy, was[s.trudy]); float64(n) < 0.95*float64(byTrudy) {
		t.Errorf("trudy's own node has refused %d spoofed frames of %d", n, byTrudy)
	}
	for _, n := range []*world.Node{s.victim, s.bob} {
		sent, refused := s.lies(s.mallory, s.mallory, s.who[n].mac), s.spoofsRefused(n, was[n])
		t.Logf("in %v mallory has sent %d spoofed frames to %s, whose node has refused %d", last, sent, n.Name, refused)
		if sent == 0 || float64(refused) < 0.95*float64(sent) {
			t.Errorf("%s's node has refused %d spoofed frames of %d", n.Name, refused, sent)
		}
		if got := s.lies(n, s.trudy, nil) + s.lies(n, s.mallory, nil); got > 0 {
			t.Errorf("%d spoofed frames were delivered to %s", got, n.Name)
		}
		if wrong := s.wrong(n); len(wrong) > 0 {
			t.Errorf("%s's neighbour cache had\n%s", n.Name, strings.Join(wrong, "\n"))
		}
		s.remembers(n)
	}
	s.fooled(byMallory)
	t.Logf("trudy has sent %d spoofed frames in all, mallory %d", byTrudy, byMallory)
}

func newSpoofing(t *testing.T, last time.Duration) *spoofing {
	t.Helper()
	s := &spoofing{
		rig: newRigFor(t, 3*time.Minute+last), who: map[*world.Node]party{}, owners: map[netip.Addr]net.HardwareAddr{},
		taps: map[*world.Node]*lab.Capture{}, monitor: map[*world.Node]*lab.Process{},
	}
	const label = "team=x" // one grant for all: who judges nothing names the first
	s.mallory, s.gull = s.liar("mallory", "--label", label), s.liar("gull", "--label", label)
	s.trudy = s.site("trudy", lab.PortPreserving, "--label", label)
	s.victim, s.bob = s.site("victim", lab.PortPreserving, "--label", label), s.site("bob", lab.PortPreserving, "--label", label)
	_, err := s.Grant(s.ctx, "label:"+label, "segment:lan")
	s.ok(err)
	all := []*world.Node{s.trudy, s.mallory, s.victim, s.bob, s.gull}
	s.addresses(all...)
	for _, n := range all {
		p := s.party(n)
		s.who[n] = p
		for _, a := range []netip.Addr{p.v4, p.v6, p.own} {
			s.owners[a] = p.mac
		}
		s.taps[n], err = n.Host.Capture("loom0")
		s.ok(err)
		s.monitor[n], err = n.Host.Start(s.ctx, "ip", "monitor", "neigh", "dev", "loom0")
		s.ok(err)
	}
	for _, n := range []*world.Node{s.trudy, s.mallory, s.gull} {
		for _, to := range []*world.Node{s.victim, s.bob} {
			s.pings(n.Host, s.who[to].v4.String(), 10*time.Second)
			s.pings(n.Host, s.who[to].v6.String(), 5*time.Second)
		}
	}
	s.pings(s.mallory.Host, s.who[s.gull].v4.String(), 10*time.Second) // the programs ask for their target's MAC
	return s
}

// programs are what an attacker runs, all at once: each says one thing again and again, to one or to all.
func (s *spoofing) programs(attacker *world.Node) [][]string {
	v, b, g, m := s.who[s.victim], s.who[s.bob], s.who[s.gull], s.who[attacker]
	arp := func(args ...string) []string { return append([]string{"arpspoof", "-i", "loom0"}, args...) }
	advertise := func(flag string, as netip.Addr, target ...string) []string {
		command := append([]string{"atk6-fake_advertise6", "-w", "1", flag, "loom0", as.String()}, target...)
		if len(target) > 0 {
			command = append(command, m.mac.String())
		}
		return command
	}
	return [][]string{
		arp("-r", "-t", v.v4.String(), b.v4.String()), // either is the other to either
		arp("-t", g.v4.String(), b.v4.String()),
		arp(v.v4.String()), arp(b.v4.String()), // to all
		advertise("-s", b.v6, v.v6.String()), advertise("-r", b.own, v.own.String()),
		advertise("-s", v.v6, b.v6.String()), advertise("-O", v.own, b.own.String()),
		advertise("-s", b.v6, g.v6.String()), advertise("-r", b.v6), advertise("-r", v.v6),
		{"atk6-parasite6", "-l", "loom0"}, // answers whoever asks
	}
}

// talk lets victim and bob talk, and bob forget, for some time.
func (s *spoofing) talk(ctx context.Context, last time.Duration) {
	s.Helper()
	const every = 100 * time.Millisecond
	var group sync.WaitGroup
	defer group.Wait()
	for _, to := range []netip.Addr{s.who[s.bob].v4, s.who[s.bob].v6} {
		group.Go(func() {
			replies, _ := s.victim.Host.Ping(s.ctx, to.String(), lab.Echo{Count: int(last / every), Interval: every})
			if lost := replies.Sent - replies.Received; replies.Sent == 0 || lost > max(2, replies.Sent/100) {
				s.Errorf("victim has pinged %s %d times, and %d came back", to, replies.Sent, replies.Received)
			}
		})
	}
	for ctx.Err() == nil {
		if out, err := s.bob.Host.Run(s.ctx, "ip", "neigh", "flush", "dev", "loom0"); err != nil {
			s.Errorf("ip neigh flush: %v: %s", err, out)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// lies counts the spoofed frames of an attacker on a node's TAP: all, or those to one MAC and to groups.
func (s *spoofing) lies(at, attacker *world.Node, to net.HardwareAddr) (n int) {
	s.Helper()
	who := s.who[attacker]
	as := refusal{rig: s.rig, m: who}
	s.ok(s.taps[at].Each(func(frame []byte) bool {
		if to != nil && len(frame) > 0 && frame[0]&1 == 0 && !strings.HasPrefix(string(frame), string(to)) {
			return true
		}
		if as.lie(frame) != "" || s.misleads(frame, who.mac) {
			n++
			if at != attacker && at != s.gull && n <= 3 {
				s.Logf("at %s, of %s: %x", at.Name, attacker.Name, frame)
			}
		}
		return true
	}))
	return n
}

// misleads reports whether a frame says that an address of somebody else is at a MAC, whoever sends it.
func (s *spoofing) misleads(frame []byte, mac net.HardwareAddr) bool {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	var claimed netip.Addr
	var at net.HardwareAddr
	if arp, ok := packet.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		claimed, _ = netip.AddrFromSlice(arp.SourceProtAddress)
		at = arp.SourceHwAddress
	} else if na, ok := packet.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); ok {
		claimed, _ = netip.AddrFromSlice(na.TargetAddress)
		for _, o := range na.Options {
			if o.Type == layers.ICMPv6OptTargetAddress {
				at = o.Data
			}
		}
	}
	owner, known := s.owners[claimed]
	return known && at.String() == mac.String() && owner.String() != mac.String()
}

// spoofsRefused is how many spoofed frames a node has refused since then.
func (s *spoofing) spoofsRefused(n *world.Node, was map[string]uint64) (refused uint64) {
	now := s.dropped(n)
	for _, reason := range []string{"arp-sender", "nd-sender", "ip-source", "bad-arp", "source-mac"} {
		refused += now[reason] - was[reason]
	}
	return refused
}

// wrong lists what a host's neighbour cache has had at another MAC than its owner's, at any time.
func (s *spoofing) wrong(n *world.Node) (lines []string) {
	s.Helper()
	log, err := s.monitor[n].Log()
	s.ok(err)
	entries := 0
	for line := range strings.Lines(log + s.sh(n.Host, "ip neigh show dev loom0")) {
		words := strings.Fields(strings.TrimPrefix(line, "Deleted "))
		at := -1
		for i, word := range words {
			if word == "lladdr" {
				at = i + 1
			}
		}
		if at < 1 || at >= len(words) {
			continue // nothing is known yet, or any more
		}
		address, err := netip.ParseAddr(words[0])
		if owner, known := s.owners[address]; err == nil && known {
			entries++
			if owner.String() != words[at] {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	if entries == 0 {
		s.Errorf("%s's neighbour cache has had nobody at all, so nothing is shown:\n%s", n.Name, log)
	}
	return lines
}

// remembers checks that a node's switch has everybody behind their own port.
func (s *spoofing) remembers(n *world.Node) {
	s.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	s.ok(n.Ask(s.ctx, &list, "fdb"))
	ports := map[string]string{}
	for other, p := range s.who {
		ports[p.mac.String()] = other.Name
	}
	ports[s.who[n].mac.String()] = "loom0"
	for _, e := range list.FDB {
		if ports[e.MAC] != e.Port {
			s.Errorf("%s's FDB has %s at %s", n.Name, e.MAC, e.Port)
		}
	}
}

// fooled checks that mallory's programs work on a host that nobody guards, over either family, and that trudy's have not even
// reached it, which her own node did.
func (s *spoofing) fooled(sent int) {
	s.Helper()
	log := strings.Join(s.wrong(s.gull), "\n")
	for _, a := range []netip.Addr{s.who[s.bob].v4, s.who[s.bob].v6} {
		if !strings.Contains(log, fmt.Sprintf("%s lladdr %s", a, s.who[s.mallory].mac)) {
			s.Errorf("gull, whose node judges nothing, has not taken mallory for %s, so nothing is shown; mallory has sent %d:\n%s", a, sent, log)
		}
	}
	if n := s.lies(s.gull, s.trudy, nil); n > 0 {
		s.Errorf("%d spoofed frames of trudy have left her node", n)
	}
}

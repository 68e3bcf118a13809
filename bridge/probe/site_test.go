package probe

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

const ms = time.Millisecond

var epoch = time.Unix(1_000_000, 0)

// site is gateways, VLANs and cables, in virtual time.
type site struct {
	t      *testing.T
	now    time.Time
	guards map[uint32]*Guard
	ports  []*sitePort
	wires  [][2]string            // VLANs that are cabled together
	loops  map[string]bool        // VLANs that bring back what is sent to them
	deaf   map[*sitePort]bool     // ports that hear nothing
	hellos map[*sitePort][]string // who was heard
}

// sitePort is a port of a gateway on a VLAN.
type sitePort struct {
	node uint32
	vlan string
	port *Port
}

func key(vni uint32) []byte { return slices.Repeat([]byte{byte(vni)}, KeyLen) }

// newSite makes gateways from lines such as "1/5 red 9": node, attachment, VLAN, segment.
func newSite(t *testing.T, lines ...string) *site {
	t.Helper()
	s := &site{
		t: t, now: epoch, guards: make(map[uint32]*Guard), loops: make(map[string]bool), deaf: make(map[*sitePort]bool),
		hellos: make(map[*sitePort][]string),
	}
	for _, line := range lines {
		var node, attachment, vni uint32
		var vlan string
		if _, err := fmt.Sscanf(line, "%d/%d %s %d", &node, &attachment, &vlan, &vni); err != nil {
			t.Fatal(err)
		}
		g := s.guards[node]
		if g == nil {
			var err error
			if g, err = New(Config{Node: node, Boot: uint64(node) * 1000}, s.now); err != nil {
				t.Fatal(err)
			}
			s.guards[node] = g
		}
		p, err := g.Add(Attached{vni, attachment, ether.MAC{2, 0, byte(node), 0, 0, byte(attachment)}, key(vni)}, s.now)
		if err != nil {
			t.Fatal(err)
		}
		s.ports = append(s.ports, &sitePort{node, vlan, p})
	}
	return s
}

func (s *site) at(node, attachment uint32) *sitePort {
	for _, p := range s.ports {
		if p.node == node && p.port.Attachment == attachment {
			return p
		}
	}
	s.t.Fatalf("no port %d/%d", node, attachment)
	return nil
}

// run lets time pass, 5 ms at a time. What is sent arrives with the next step.
func (s *site) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(5 * ms)
		for node, g := range s.guards {
			frames, _ := g.Tick(s.now)
			for _, f := range frames {
				s.flood(s.at(node, f.Attachment), f.Data)
			}
		}
	}
}

// flood gives a frame to every port that its VLAN reaches.
func (s *site) flood(from *sitePort, data []byte) {
	reached := []string{from.vlan}
	for i := 0; i < len(reached); i++ {
		for _, w := range s.wires {
			for j := range 2 {
				if w[j] == reached[i] && !slices.Contains(reached, w[1-j]) {
					reached = append(reached, w[1-j])
				}
			}
		}
	}
	for _, p := range s.ports {
		if !slices.Contains(reached, p.vlan) || p == from && !s.loops[p.vlan] || s.deaf[p] {
			continue
		}
		f, err := ether.Parse(data)
		if err != nil || !Is(&f) {
			s.t.Fatalf("a probe is none: %v", err)
		}
		h, err := s.guards[p.node].Hear(p.port.Attachment, &f, s.now)
		if err == nil && h.Node != 0 {
			s.hellos[p] = append(s.hellos[p], fmt.Sprint(h.Node, " ", string(h.Hello)))
		}
	}
}

// blocked lists the ports that are blocked, as node/attachment.
func (s *site) blocked() []string {
	list := []string{}
	for _, p := range s.ports {
		if p.port.Blocked() {
			list = append(list, fmt.Sprintf("%d/%d", p.node, p.port.Attachment))
		}
	}
	return list
}

// events lists what was reported, as node/attachment: kind.
func (s *site) events() []string {
	var list []string
	for node, g := range s.guards {
		for _, e := range g.Events() {
			list = append(list, fmt.Sprintf("%d/%d: %s", node, e.Attachment, e.Kind))
		}
	}
	slices.Sort(list)
	return list
}

package vswitch

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// desk is a Server that remembers what it was told.
type desk struct {
	asked  []policy.Identity
	frames int
	squats []ether.MAC
}

func (d *desk) Ask(_ *Port, who policy.Identity, _ []byte, _ time.Time) {
	d.asked, d.frames = append(d.asked, who), d.frames+1
}

func (d *desk) Squats(_ *Port, mac ether.MAC, _ [4]byte, _ time.Time) {
	d.squats = append(d.squats, mac)
}

var serviceMAC = ether.MAC{2, 0xd, 0, 0, 0, 1}

// bootRequest is a DHCP message of a client to a port.
func bootRequest(dst, src ether.MAC, port byte, from, to [4]byte) []byte {
	body := make([]byte, 244)
	body[0], body[1], body[2] = ether.BootRequest, 1, 6
	copy(body[28:], src[:])
	copy(body[236:], []byte{0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255})
	udp := append([]byte{0, 68, 0, port, 0, 0, 0, 0}, body...)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	ip := append(append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}, from[:]...), to[:]...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(udp)))
	return data(dst, src, ether.TypeIPv4, string(ip)+string(udp))
}

// served is a mesh whose segment has a DHCP service, with its server at the gateway.
func served(t *testing.T, roles policy.Roles) (*mesh, *desk) {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, 22))
	stations := m.stations()
	stations[22].Roles |= roles
	m.views[3] = policy.Compile(policy.Rules{
		Generation: 2, Self: 3, Stations: stations, Grants: []policy.Grant{members(1, 2, 3, siteA, 21, 22)},
		Service: &policy.Service{Address: [4]byte{192, 0, 2, 250}, MAC: serviceMAC, From: netip.MustParseAddr("192.0.2.200"), To: netip.MustParseAddr("192.0.2.210")},
	})
	s, d := m.segments[3], &desk{}
	s.SetPolicy(m.views[3], m.now)
	s.SetServer(d)
	return m, d
}

// What machines send to the segment's DHCP service is handed to it or answered, and goes nowhere else.
func TestServe(t *testing.T) {
	any4, all4, service := [4]byte{}, [4]byte{255, 255, 255, 255}, [4]byte{192, 0, 2, 250}
	arp := func(sender ether.MAC, from, target [4]byte) []byte {
		b := append(append(append([]byte{}, ether.Broadcast[:]...), sender[:]...), 8, 6)
		return ether.AppendARP(b, ether.ARP{Op: ether.ARPRequest, SenderMAC: sender, SenderIP: from, TargetIP: target})
	}
	for _, c := range []struct {
		name   string
		who    policy.Identity // 22, or 0: a machine of the attachment's that nobody named
		port   string
		roles  policy.Roles
		in     []byte
		want   Drop
		asked  bool
		answer bool
		squats bool
	}{
		{name: "DISCOVER", port: "vlan 20", in: bootRequest(ether.Broadcast, macAt(siteA), 67, any4, all4), want: Answered, asked: true},
		{name: "DISCOVER of a host", who: 22, port: "vlan 20", in: bootRequest(ether.Broadcast, macAt(22), 67, any4, all4), want: Answered, asked: true},
		{name: "to the service alone", port: "vlan 20", in: bootRequest(serviceMAC, macAt(siteA), 67, any4, service), want: Answered, asked: true},
		{name: "to another machine alone", port: "vlan 20", in: bootRequest(macAt(1), macAt(siteA), 67, any4, all4), want: Forwarded},
		{name: "of a server or relay agent", who: 22, roles: policy.DHCPServer, port: "vlan 20", in: bootRequest(ether.Broadcast, macAt(22), 67, any4, all4), want: Forwarded},
		{name: "from this node's own host", port: "tap", in: arp(macAt(3), v4(3).As4(), service), want: Forwarded},
		{name: "no DHCP", port: "vlan 20", in: data(ether.Broadcast, macAt(siteA), experimental, "hello"), want: Forwarded},
		{name: "anything for the service", port: "vlan 20", in: data(serviceMAC, macAt(siteA), experimental, "hello"), want: DropNoReceiver},
		{name: "ARP for the service", port: "vlan 20", in: arp(macAt(siteA), v4(60).As4(), service), want: Answered, answer: true},
		{name: "ARP probe for the service", port: "vlan 20", in: arp(macAt(siteA), any4, service), want: Answered, answer: true},
		{name: "ARP of who has an address of the pool", port: "vlan 20", in: arp(macAt(siteA), [4]byte{192, 0, 2, 200}, v4(1).As4()), want: Drop(policy.ARPSender), squats: true},
		{name: "ARP of who has the service's", port: "vlan 20", in: arp(macAt(siteA), service, v4(1).As4()), want: Drop(policy.ARPSender), squats: true},
		{name: "in the service's name", port: "vlan 20", in: data(macAt(1), serviceMAC, experimental, "hello"), want: Drop(policy.PinnedMAC)},
	} {
		m, d := served(t, c.roles)
		s, port := m.segments[3], m.ports[3][c.port]
		e := s.Explain(port, c.in, Tag{}, m.now)
		if len(d.asked)+len(d.squats) > 0 || len(m.sends[3]) > 0 {
			t.Errorf("%s: asking what becomes of it did something", c.name)
		}
		if got := s.Forward(port, c.in, ether.Offload{}, Tag{}, 0, m.now); got != c.want || e.Drop != c.want {
			t.Errorf("%s: %q, explained as %q", c.name, got.Code(), e.Drop.Code())
		}
		who := c.who
		if who == 0 {
			who = siteA
		}
		if (len(d.asked) == 1 && d.asked[0] == who) != c.asked {
			t.Errorf("%s: asked by %v", c.name, d.asked)
		}
		if (len(d.squats) == 1) != c.squats {
			t.Errorf("%s: %v squat", c.name, d.squats)
		}
		if c.want != Answered && c.want != Drop(policy.ARPSender) {
			continue
		}
		sent := m.sends[3]
		if !c.answer && len(sent) > 0 || c.answer && (len(sent) != 1 || sent[0].port != port) {
			t.Errorf("%s: sent %d frames", c.name, len(sent))
		}
		if c.answer && len(sent) == 1 {
			f, _ := ether.Parse(sent[0].frame)
			a, _ := ether.ParseARP(f.Payload)
			if a.SenderMAC != serviceMAC || a.SenderIP != service || f.Dst != macAt(siteA) {
				t.Errorf("%s: answered %+v", c.name, a)
			}
		}
	}
}

// Without a server, or at a segment without a service, DHCP goes its way.
func TestServeNobody(t *testing.T) {
	in := bootRequest(ether.Broadcast, macAt(siteA), 67, [4]byte{}, [4]byte{255, 255, 255, 255})
	bare, _ := served(t, 0)
	bare.segments[3].SetServer(nil)
	if got := bare.segments[3].Forward(bare.ports[3]["vlan 20"], in, ether.Offload{}, Tag{}, 0, bare.now); got != Forwarded {
		t.Errorf("without a server: %q", got.Code())
	}
	claims := claim(ether.ARPRequest, macAt(siteA), macAt(siteA), v4(1).As4(), v4(2).As4()) // an address of node 1's
	if got := bare.segments[3].Forward(bare.ports[3]["vlan 20"], claims, ether.Offload{}, Tag{}, 0, bare.now); got != Drop(policy.ARPSender) {
		t.Errorf("without a server, who has another's address: %q", got.Code())
	}
	m, d := served(t, 0)
	m.segments[3].SetPolicy(policy.Compile(policy.Rules{Generation: 3, Self: 3, Stations: m.stations(), Grants: []policy.Grant{members(1, 2, 3, siteA, 21, 22)}}), m.now)
	if got := m.segments[3].Forward(m.ports[3]["vlan 20"], in, ether.Offload{}, Tag{}, 0, m.now); got != Forwarded || d.frames > 0 {
		t.Errorf("without a service: %q", got.Code())
	}
	got := m.segments[3].Forward(m.ports[3]["vlan 20"], claims, ether.Offload{}, Tag{}, 0, m.now)
	if got != Drop(policy.ARPSender) || len(d.squats) > 0 {
		t.Errorf("without a service, who has another's address: %q, %v squat", got.Code(), d.squats)
	}
}

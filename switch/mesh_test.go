package vswitch

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// The parties of a mesh: nodes 1 and 2, gateway 3, and 4, which is another one in some tests. On attachment 20 are hosts 21, with
// listed addresses, and 22, without, and on attachment 30 host 31. Host 32, without addresses, may be on either.
const (
	siteA, siteB policy.Identity = 20, 30
	roaming      policy.Identity = 32
)

// mesh is several nodes, whose segments are joined by links.
type mesh struct {
	t         *testing.T
	segments  map[policy.Identity]*Segment
	ports     map[policy.Identity]map[string]*Port // by node, and "tap", "link 2", "vlan 20"
	gateways  map[policy.Identity][]policy.Identity
	at        map[policy.Identity]policy.Identity // on which attachment a machine is
	views     map[policy.Identity]*policy.View
	secondary map[policy.Identity]policy.SecondaryVLAN // of machines
	now       time.Time

	queue []parcel                        // on links
	sends map[policy.Identity][]delivered // what each node has given to its ports, since its last frame
	out   []delivered                     // what TAPs and VLANs were given
}

// parcel is a frame on its way from one node to another.
type parcel struct {
	from, to policy.Identity
	frame    []byte
	tag      Tag
}

// delivered is a frame that was given to a port.
type delivered struct {
	node  policy.Identity
	port  *Port
	frame []byte
	tag   Tag
}

// wire is the way out of a port of a mesh.
type wire struct {
	m    *mesh
	node policy.Identity
	name string
}

func (w *wire) Send(frame []byte, _ ether.Offload, tag Tag, _ Lane) {
	d := delivered{w.node, w.m.ports[w.node][w.name], bytes.Clone(frame), tag}
	w.m.sends[w.node] = append(w.m.sends[w.node], d)
	if d.port.Kind == Link {
		w.m.queue = append(w.m.queue, parcel{w.node, d.port.Identity, d.frame, tag})
	} else {
		w.m.out = append(w.m.out, d)
	}
}

// newMesh has one gateway; with second, node 4 is one of attachment 20, too.
func newMesh(t *testing.T, second bool) *mesh {
	if second {
		return newMeshOf(t, []policy.Identity{3, 4}, []policy.Identity{3})
	}
	return newMeshOf(t, []policy.Identity{3}, []policy.Identity{3})
}

// newMeshOf has these gateways of the attachments.
func newMeshOf(t *testing.T, ofA, ofB []policy.Identity) *mesh {
	m := &mesh{
		t: t, segments: map[policy.Identity]*Segment{}, ports: map[policy.Identity]map[string]*Port{},
		sends: map[policy.Identity][]delivered{}, views: map[policy.Identity]*policy.View{},
		gateways: map[policy.Identity][]policy.Identity{siteA: ofA, siteB: ofB},
		at:       map[policy.Identity]policy.Identity{siteA: siteA, 21: siteA, 22: siteA, siteB: siteB, 31: siteB, roaming: siteB},
	}
	defer func() { m.now = time.Now() }() // meters count from when a segment is made
	for node := policy.Identity(1); node <= 4; node++ {
		m.segments[node], m.ports[node] = NewSegment(5, node, 1500, fdb.Limits{}), map[string]*Port{}
		m.join(node, "tap", Local, node)
		for peer := policy.Identity(1); peer <= 4; peer++ {
			if peer != node {
				m.join(node, fmt.Sprint("link ", peer), Link, peer)
			}
		}
		for _, site := range []policy.Identity{siteA, siteB} {
			if slices.Contains(m.gateways[site], node) {
				m.join(node, fmt.Sprint("vlan ", site), Attached, site)
			}
		}
	}
	return m
}

func (m *mesh) join(node policy.Identity, name string, kind Kind, id policy.Identity) {
	p := NewPort(name, kind, id, &wire{m, node, name})
	m.ports[node][name] = p
	m.segments[node].AddPort(p)
}

func (m *mesh) stations() map[policy.Identity]*policy.Station {
	out := map[policy.Identity]*policy.Station{}
	for id := policy.Identity(1); id <= 4; id++ {
		out[id] = policy.NewStation(macOf(id), []netip.Addr{v4(id), v6(id), macOf(id).LinkLocal()}, false)
	}
	machine := func(id policy.Identity, mac ether.MAC, addrs []netip.Addr, attachments ...policy.Identity) {
		s := policy.NewMachine(mac, addrs)
		for _, a := range attachments {
			s.Attachments, s.Gateways = append(s.Attachments, a), append(s.Gateways, m.gateways[a]...)
		}
		slices.Sort(s.Gateways)
		s.Gateways, s.Secondary = slices.Compact(s.Gateways), m.secondary[id]
		out[id] = s
	}
	machine(siteA, ether.MAC{}, nil, siteA)
	machine(siteB, ether.MAC{}, nil, siteB)
	machine(21, macOf(21), []netip.Addr{v4(21), v6(21)}, siteA)
	machine(22, macOf(22), nil, siteA)
	machine(31, macOf(31), []netip.Addr{v4(31), v6(31)}, siteB)
	machine(roaming, macOf(roaming), nil, siteA, siteB)
	return out
}

// grant makes these all the grants that there are, at every node.
func (m *mesh) grant(grants ...policy.Grant) {
	for node, s := range m.segments {
		m.views[node] = policy.Compile(policy.Rules{Generation: 1, Self: node, Stations: m.stations(), Grants: grants})
		s.SetPolicy(m.views[node], m.now)
	}
}

// door is the port where what a party says enters the mesh.
func (m *mesh) door(who policy.Identity) (node policy.Identity, port *Port) {
	if site := m.at[who]; site != 0 {
		node = m.gateways[site][0]
		return node, m.ports[node][fmt.Sprint("vlan ", site)]
	}
	return who, m.ports[who]["tap"]
}

// says sends a frame of a party, and carries it to its ends. It returns what its first node says of it.
func (m *mesh) says(who policy.Identity, frame []byte) Drop {
	m.t.Helper()
	node, port := m.door(who)
	drop := m.forward(node, port, bytes.Clone(frame), Tag{})
	m.run()
	return drop
}

// run carries what is on links.
func (m *mesh) run() {
	m.t.Helper()
	for len(m.queue) > 0 {
		p := m.queue[0]
		m.queue = m.queue[1:]
		m.forward(p.to, m.ports[p.to][fmt.Sprint("link ", p.from)], p.frame, p.tag)
	}
}

// forward carries a frame through one node, which has foretold all that happens, and has not changed by that.
func (m *mesh) forward(node policy.Identity, port *Port, frame []byte, tag Tag) Drop {
	m.t.Helper()
	s := m.segments[node]
	before, whole := m.state(node), bytes.Clone(frame)
	e := s.Explain(port, frame, tag, m.now)
	if after := m.state(node); after != before {
		m.t.Errorf("asking node %d has changed it:\nbefore %s\nafter  %s", node, before, after)
	}
	m.sends[node] = nil
	drop := s.Forward(port, frame, ether.Offload{}, tag, 0, m.now)
	if !bytes.Equal(frame, whole) {
		m.t.Errorf("node %d gives back a frame that it has changed", node)
	}
	if e.Drop != drop {
		m.t.Errorf("node %d: explained as %q, and was %q", node, e.Drop.Code(), drop.Code())
	}
	var want, got []string
	for _, r := range e.Receivers {
		if r.Drop != Forwarded {
			continue
		}
		dst := ether.MAC(frame[:6])
		if r.Port.Kind == Attached && r.Who != r.Port.Identity {
			dst = macOf(r.Who)
		}
		want = append(want, fmt.Sprint(r.Port.Name, r.Tag, dst))
	}
	if drop == Answered {
		want = append(want, fmt.Sprint(port.Name, Tag{}, ether.MAC(frame[6:12])))
	}
	for _, d := range m.sends[node] {
		got = append(got, fmt.Sprint(d.port.Name, d.tag, ether.MAC(d.frame[:6])))
	}
	slices.Sort(want)
	slices.Sort(got)
	if want = slices.Compact(want); !slices.Equal(want, got) {
		m.t.Errorf("node %d: explained as going to\n%v, and went to\n%v", node, want, got)
	}
	return drop
}

// state is all that a frame may change at a node.
func (m *mesh) state(node policy.Identity) string {
	s := m.segments[node]
	out := fmt.Sprint(s.FDB().Entries(m.now), s.FDB().Stats(), s.Drops(), s.Flows().Len())
	for _, p := range s.Ports() {
		out += fmt.Sprint(p.Stats())
	}
	return out
}

// heard counts what each party was given since the last look. On a VLAN a frame to a host is for that host, and every other for
// all who are there.
func (m *mesh) heard() map[policy.Identity]int {
	out := map[policy.Identity]int{}
	for _, d := range m.out {
		if d.port.Kind == Local {
			out[d.node]++
			continue
		}
		for who, site := range m.at {
			dst := ether.MAC(d.frame[:6])
			owner := m.views[d.node].Owner(dst)
			if site == d.port.Identity && (owner == 0 || owner == who) {
				out[who]++
			}
		}
	}
	m.out = nil
	return out
}

// expect checks what each party was given since the last look.
func (m *mesh) expect(what string, want map[policy.Identity]int) {
	m.t.Helper()
	got := m.heard()
	for id := policy.Identity(1); id < 40; id++ {
		if got[id] != want[id] {
			m.t.Errorf("%s: %d got %d frames, want %d", what, id, got[id], want[id])
		}
	}
}

// learned checks where a node has seen an address.
func (m *mesh) learned(node policy.Identity, mac ether.MAC, port string, who policy.Identity) {
	m.t.Helper()
	at, ok := m.segments[node].FDB().Lookup(mac, m.now)
	if port == "" && !ok {
		return
	}
	if !ok || at.Port != m.ports[node][port] || at.Who != who {
		m.t.Errorf("node %d has seen %v at %+v, want %q, %d", node, mac, at, port, who)
	}
}

// macAt is a party's MAC; of those whom nobody named, one of them has it.
func macAt(who policy.Identity) ether.MAC {
	if who == siteA || who == siteB {
		return ether.MAC{2, 0, 0, 0, 1, byte(who)}
	}
	return macOf(who)
}

// datagram is a UDP datagram of a party.
func datagram(from policy.Identity, dst ether.MAC, to netip.Addr) []byte {
	src, target := v4(from).As4(), to.As4()
	ip := append([]byte{0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0}, append(src[:], target[:]...)...)
	return data(dst, macAt(from), ether.TypeIPv4, string(ip)+"\x10\x00\x20\x00\x00\x0c\x00\x00test")
}

// asks is an ARP request of a party; tells is the answer to another.
func asks(from policy.Identity, target netip.Addr) []byte {
	b := append(ether.Broadcast[:len(ether.Broadcast):len(ether.Broadcast)], append(macBytes(from), 8, 6)...)
	return ether.AppendARP(b, ether.ARP{Op: ether.ARPRequest, SenderMAC: macAt(from), SenderIP: v4(from).As4(), TargetIP: target.As4()})
}

func tells(from, to policy.Identity) []byte {
	b := append(macBytes(to), append(macBytes(from), 8, 6)...)
	return ether.AppendARP(b, ether.ARP{
		Op: ether.ARPReply, SenderMAC: macAt(from), SenderIP: v4(from).As4(), TargetMAC: macAt(to), TargetIP: v4(to).As4(),
	})
}

func macBytes(who policy.Identity) []byte {
	mac := macAt(who)
	return mac[:]
}

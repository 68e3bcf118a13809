package vswitch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// arpOfParty is any ARP packet of a party to everybody, or to one.
func arpOfParty(who policy.Identity, dst ether.MAC, op uint16, sender, target netip.Addr) []byte {
	b := data(dst, macAt(who), ether.TypeARP, "")
	to := ether.MAC{}
	if op == ether.ARPReply {
		to = dst
		if dst.IsGroup() {
			to = macAt(who)
		}
	}
	return ether.AppendARP(b, ether.ARP{Op: op, SenderMAC: macAt(who), SenderIP: sender.As4(), TargetMAC: to, TargetIP: target.As4()})
}

// nd is a message of neighbour discovery of a party, with options.
func nd(who policy.Identity, dst ether.MAC, src, to netip.Addr, typ byte, target netip.Addr, options ...byte) []byte {
	a, b, c := src.As16(), to.As16(), target.As16()
	body := append(append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, c[:]...), options...)
	ip := append([]byte{0x60, 0, 0, 0, 0, byte(len(body)), byte(ether.ProtoICMPv6), 255}, append(a[:], b[:]...)...)
	sum := uint32(ether.ProtoICMPv6) + uint32(len(body))
	sum = ether.Sum(ether.Sum(sum, a[:]), b[:])
	binary.BigEndian.PutUint16(body[2:], ether.Checksum(sum, body))
	return data(dst, macAt(who), ether.TypeIPv6, string(append(ip, body...)))
}

// linkOption is a link-layer address option: 1 for the source's, 2 for the target's.
func linkOption(kind byte, mac ether.MAC) []byte { return append([]byte{kind, 1}, mac[:]...) }

// lookFor is the group where a party asks for an IPv6 address, and the frame by which it does.
func lookFor(who policy.Identity, src, target netip.Addr) []byte {
	a := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}) // RFC 4291 section 2.7.1
	var options []byte
	if !src.IsUnspecified() {
		options = linkOption(1, macAt(who))
	}
	return nd(who, ether.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]}, src, group, ether.NeighborSolicitation, target, options...)
}

// quietMesh is a mesh where those on VLAN 30, and the gateway, have their questions answered if their answers are known.
func quietMesh(t *testing.T) *mesh {
	m := newMesh(t, false)
	m.grant(members(1, 2, 3, siteA, 21, 22, siteB, 31, roaming))
	m.set(3, "vlan 30", "neigh_suppress=on")
	m.set(3, "tap", "neigh_suppress=on")
	return m
}

// answered checks what becomes of a question, and by which MAC it is answered: to the asker, and nobody else.
func (m *mesh) answered(what string, who policy.Identity, frame []byte, by policy.Identity) {
	m.t.Helper()
	m.heard()
	d := m.says(who, frame)
	if by == 0 {
		if d == Answered {
			m.t.Errorf("%s: answered", what)
		}
		m.heard()
		return
	}
	if d != Answered || len(m.out) != 1 || len(m.queue) != 0 {
		m.t.Errorf("%s: %q, and %d frames are sent", what, d.Code(), len(m.out))
		m.heard()
		return
	}
	got := m.out[0]
	f, _ := ether.Parse(got.frame)
	addr, mac, ok := saidBy(&f)
	q, _ := questionOf(func() *ether.Frame { f, _ := ether.Parse(frame); return &f }())
	if _, port := m.door(who); got.port != port || f.Dst != macAt(who) || f.Src != macAt(by) || !ok || mac != macAt(by) || addr != q.target {
		m.t.Errorf("%s: at %s, from %v to %v, %v is at %v", what, got.port.Name, f.Src, f.Dst, addr, mac)
	}
	m.out = nil
}

// A01 to A06: what is known is answered here, and does not cross; what is not, crosses. What tells everybody something, asks whether an
// address is free, or asks one alone, always does.
func TestNeighbourSuppression(t *testing.T) {
	all := ether.Broadcast
	none4, none6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	advert := func(who policy.Identity) []byte {
		return nd(who, ether.MAC{0x33, 0x33, 5: 1}, v6(who), netip.MustParseAddr("ff02::1"), ether.NeighborAdvertisement, v6(who), linkOption(2, macAt(who))...)
	}
	for _, c := range []struct {
		name  string
		known func(m *mesh) // before
		who   policy.Identity
		frame []byte
		by    policy.Identity // in whose name it is answered; 0: it is not
	}{
		{"an address that nobody has said anything of", nil, siteB, asks(siteB, v4(siteA)), 0},
		{"one that was asked with", says(siteA, asks(siteA, v4(99))), siteB, asks(siteB, v4(siteA)), siteA},
		{"one that was answered with", says(siteA, tells(siteA, 1)), siteB, asks(siteB, v4(siteA)), siteA},
		{"one that was announced", says(siteA, arpOfParty(siteA, all, ether.ARPReply, v4(siteA), v4(siteA))), siteB, asks(siteB, v4(siteA)), siteA},
		{"one that was only probed for", says(siteA, arpOfParty(siteA, all, ether.ARPRequest, none4, v4(siteA))), siteB, asks(siteB, v4(siteA)), 0},
		{"asked by the gateway itself", says(siteA, asks(siteA, v4(99))), 3, asks(3, v4(siteA)), siteA},
		{"asked on a port without it", says(siteB, asks(siteB, v4(99))), siteA, asks(siteA, v4(siteB)), 0},
		{"listed, and its host has said nothing", nil, siteB, asks(siteB, v4(21)), 21},
		{"listed, of a node", nil, siteB, asks(siteB, v4(2)), 2},
		{"a host without listed addresses", says(22, asks(22, v4(99))), siteB, asks(siteB, v4(22)), 22},
		{"on the asker's own VLAN", says(siteB, asks(siteB, v4(99))), 31, asks(31, v4(siteB)), 0},
		{"its own", says(siteB, asks(siteB, v4(99))), siteB, asks(siteB, v4(siteB)), 0},
		{"asked of one alone", says(siteA, asks(siteA, v4(99))), siteB, arpOfParty(siteB, macAt(siteA), ether.ARPRequest, v4(siteB), v4(siteA)), 0},
		{"asked whether it is free", says(siteA, asks(siteA, v4(99))), siteB, arpOfParty(siteB, all, ether.ARPRequest, none4, v4(siteA)), 0},
		{"announced by another", says(siteA, asks(siteA, v4(99))), siteB, arpOfParty(siteB, all, ether.ARPRequest, v4(siteA), v4(siteA)), 0},
		{"answered to all", says(siteA, asks(siteA, v4(99))), siteB, arpOfParty(siteB, all, ether.ARPReply, v4(siteB), v4(siteA)), 0},
		{"RARP", says(siteA, asks(siteA, v4(99))), siteB, arpOfParty(siteB, all, ether.RARPRequest, v4(siteB), v4(siteA)), 0},

		{"IPv6 that nobody has said anything of", nil, siteB, lookFor(siteB, v6(siteB), v6(siteA)), 0},
		{"IPv6 that was asked with", says(siteA, lookFor(siteA, v6(siteA), v6(99))), siteB, lookFor(siteB, v6(siteB), v6(siteA)), siteA},
		{"IPv6 that was advertised", says(siteA, advert(siteA)), siteB, lookFor(siteB, v6(siteB), v6(siteA)), siteA},
		{"IPv6 that was only probed for", says(siteA, lookFor(siteA, none6, v6(siteA))), siteB, lookFor(siteB, v6(siteB), v6(siteA)), 0},
		{"IPv6 asked whether it is free", says(siteA, advert(siteA)), siteB, lookFor(siteB, none6, v6(siteA)), 0},
		{"IPv6 advertised to all", says(siteA, advert(siteA)), siteB, advert(siteB), 0},
		{
			"IPv6 asked of one alone", says(siteA, advert(siteA)), siteB,
			nd(siteB, macAt(siteA), v6(siteB), v6(siteA), ether.NeighborSolicitation, v6(siteA), linkOption(1, macAt(siteB))...), 0,
		},
		{"IPv6 listed", nil, siteB, lookFor(siteB, v6(siteB), v6(21)), 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := quietMesh(t)
			if c.known != nil {
				c.known(m)
			}
			m.t = t
			m.answered(c.name, c.who, c.frame, c.by)
			if c.by != 0 {
				return
			}
			// What crosses reaches who is asked.
			target, _ := questionOf(func() *ether.Frame { f, _ := ether.Parse(c.frame); return &f }())
			if target.target == ether.Mapped(v4(siteA).As4()) && c.who == siteB {
				m.says(c.who, c.frame)
				if got := m.heard(); got[siteA] != 1 {
					t.Errorf("who is asked has heard %d", got[siteA])
				}
			}
		})
	}
}

// says is a step before a question.
func says(who policy.Identity, frame []byte) func(*mesh) {
	return func(m *mesh) {
		m.t.Helper()
		m.says(who, frame)
	}
}

// pool has the segment have a DHCP service that gives one address, and has given it to nobody.
func (m *mesh) pool(a netip.Addr) {
	service := &policy.Service{Address: v4(98).As4(), MAC: ether.MAC{2, 0xd}, From: a, To: a}
	m.views[3] = policy.Compile(policy.Rules{
		Generation: 2, Self: 3, Stations: m.stations(), Grants: []policy.Grant{members(1, 2, 3, siteA, 21, siteB)}, Service: service,
	})
	m.segments[3].SetPolicy(m.views[3], m.now)
}

// Nothing is answered for who cannot be reached, or has moved, or is not certain to be there.
func TestNoAnswerFor(t *testing.T) {
	hello := data(ether.Broadcast, macAt(siteA), experimental, "")
	moved := data(ether.Broadcast, macAt(siteA), experimental, "")
	router := func(m *mesh, who policy.Identity) {
		stations := m.stations()
		stations[who].Roles = policy.Router
		m.segments[3].SetPolicy(policy.Compile(policy.Rules{Generation: 2, Self: 3, Stations: stations, Grants: []policy.Grant{members(1, 2, 3, siteA, 21, siteB)}}), m.now)
	}
	for _, c := range []struct {
		name string
		then func(m *mesh)
		v4   bool // whether it is answered then
		v6   bool
	}{
		{"nothing", func(*mesh) {}, true, true},
		{"what was said is too old", func(m *mesh) { m.now = m.now.Add(neighbourAge); m.says(siteA, hello) }, false, false},
		{"what was said is nearly too old", func(m *mesh) { m.now = m.now.Add(neighbourAge - time.Second); m.says(siteA, hello) }, true, true},
		{"it has been silent for long", func(m *mesh) { m.now = m.now.Add(10 * time.Minute) }, false, false},
		{"its address was flushed", func(m *mesh) { m.segments[3].Forget(m.ports[3]["vlan 20"], m.now) }, false, false},
		{"its port is shut", func(m *mesh) { m.set(3, "vlan 20", "shut=on") }, false, false},
		{"its port is disabled", func(m *mesh) { m.ports[3]["vlan 20"].Disable("a fault", m.now) }, false, false},
		{"its port is gone", func(m *mesh) { m.segments[3].RemovePort(m.ports[3]["vlan 20"]) }, false, false},
		{"both ports are isolated", func(m *mesh) { m.set(3, "vlan 20", "isolated=on"); m.set(3, "vlan 30", "isolated=on") }, false, false},
		{"its port is isolated", func(m *mesh) { m.set(3, "vlan 20", "isolated=on") }, true, true},
		{"it is a router", func(m *mesh) { router(m, siteA) }, true, false},
		{"another is a router", func(m *mesh) { router(m, 21) }, true, true},
		{"its address is a DHCP service's to give now", func(m *mesh) { m.pool(v4(siteA)) }, false, true},
		{"another is", func(m *mesh) { m.pool(v4(99)) }, true, true},
		{"it is no member any more", func(m *mesh) { m.grant(members(1, 2, 3, siteB, 31)) }, false, false},
		{"its MAC is somebody else's", func(m *mesh) {
			m.forward(3, m.ports[3]["link 4"], moved, Tag{4, grantID})
			m.segments[3].FDB().AddStatic(macAt(siteA), Place{m.ports[3]["link 2"], 2})
		}, false, false},
	} {
		m := quietMesh(t)
		m.says(siteA, asks(siteA, v4(99)))
		m.says(siteA, lookFor(siteA, v6(siteA), v6(99)))
		c.then(m)
		by := map[bool]policy.Identity{true: siteA}
		m.answered(c.name+", IPv4", siteB, asks(siteB, v4(siteA)), by[c.v4])
		m.answered(c.name+", IPv6", siteB, lookFor(siteB, v6(siteB), v6(siteA)), by[c.v6])
	}
}

// Who says last that he has an address has it, as on a wire; what one says of a listed address of another counts for nothing.
func TestClaimedAddress(t *testing.T) {
	m := quietMesh(t)
	m.says(siteA, asks(siteA, v4(99)))
	m.answered("before", siteB, asks(siteB, v4(siteA)), siteA)
	// A node may not say so of an address that is not its own.
	if d := m.says(1, arpOfParty(1, ether.Broadcast, ether.ARPRequest, v4(siteA), v4(siteA))); d != Drop(policy.ARPSender) {
		t.Errorf("a node claims it: %q", d.Code())
	}
	m.answered("a node has claimed it", siteB, asks(siteB, v4(siteA)), siteA)
	// A host without listed addresses may have any that is nobody's.
	m.says(22, arpOfParty(22, ether.Broadcast, ether.ARPRequest, v4(siteA), v4(siteA)))
	m.answered("a host has it now", siteB, asks(siteB, v4(siteA)), 22)
	m.says(siteA, arpOfParty(siteA, ether.Broadcast, ether.ARPRequest, v4(siteA), v4(siteA)))
	m.answered("it has it again", siteB, asks(siteB, v4(siteA)), siteA)
	if d := m.says(22, arpOfParty(22, ether.Broadcast, ether.ARPRequest, v4(21), v4(21))); d != Drop(policy.ARPSender) {
		t.Errorf("a host claims a listed one: %q", d.Code())
	}
	m.answered("a listed one", siteB, asks(siteB, v4(21)), 21)
	if d := m.says(22, lookFor(22, v6(21), v6(99))); d == Forwarded {
		t.Errorf("a host claims a listed one in IPv6")
	}
}

// said has a party say that it has an address.
func (n *neighbours) said(who policy.Identity, mac ether.MAC, addr uint32, now time.Time) {
	arp := ether.ARP{Op: ether.ARPRequest, SenderMAC: mac, SenderIP: [4]byte(binary.BigEndian.AppendUint32(nil, addr))}
	f, _ := ether.Parse(ether.AppendARP(data(ether.Broadcast, mac, ether.TypeARP, ""), arp))
	n.note(&carriage{Passage: policy.Passage{Frame: f, Source: who, Now: now}})
}

func (n *neighbours) has(addr uint32, now time.Time) string {
	x, ok := n.find(ether.Mapped([4]byte(binary.BigEndian.AppendUint32(nil, addr))), now)
	if !ok {
		return "nobody"
	}
	return fmt.Sprint(x.who, " ", x.mac)
}

// One identity fills no more than its part of the table, and all no more than the whole; what is there stays, and is refreshed.
func TestNeighbourLimits(t *testing.T) {
	n, now := new(neighbours), time.Now()
	const first = 10 << 24
	for i := range uint32(2000) {
		n.said(20, macOf(20), first+i, now)
	}
	if len(n.of) != maxOfOne || n.each[20] != maxOfOne || n.has(first+maxOfOne-1, now) == "nobody" || n.has(first+maxOfOne, now) != "nobody" {
		t.Errorf("one has %d addresses, counted as %d", len(n.of), n.each[20])
	}
	later := now.Add(neighbourAge - time.Second)
	n.said(20, macOf(20), first, later)
	n.said(20, macOf(21), first+1, later) // with another MAC
	if got := n.has(first, now.Add(neighbourAge)); got != "20 "+macOf(20).String() {
		t.Errorf("refreshed at its limit: %s", got)
	}
	if got := n.has(first+1, now.Add(neighbourAge)); got != "20 "+macOf(21).String() {
		t.Errorf("with another MAC at its limit: %s", got)
	}
	if got := n.has(first+2, now.Add(neighbourAge)); got != "nobody" {
		t.Errorf("not refreshed: %s", got)
	}
	n.said(30, macOf(30), first+2, now)
	if n.has(first+2, now) != "30 "+macOf(30).String() || n.each[20] != maxOfOne-1 || n.each[30] != 1 {
		t.Errorf("claimed by another: %s, counts are %v", n.has(first+2, now), n.each)
	}
	for who := policy.Identity(40); who < 60; who++ {
		for i := range uint32(1000) {
			n.said(who, macOf(who), uint32(who)<<24+i, now)
		}
	}
	if len(n.of) != maxNeighbours {
		t.Errorf("all have %d addresses", len(n.of))
	}
	n.retain(now, func(id policy.Identity) bool { return id == 30 })
	if len(n.of) != 1 || len(n.each) != 1 || n.each[30] != 1 {
		t.Errorf("of 30 alone there are %d, %v", len(n.of), n.each)
	}
	n.retain(now.Add(neighbourAge), func(policy.Identity) bool { return true })
	if len(n.of) != 0 || len(n.each) != 0 {
		t.Errorf("when all is too old there are %d, %v", len(n.of), n.each)
	}
}

// An address that is heard again and again is written only now and then.
func TestNeighbourRefresh(t *testing.T) {
	n, now := new(neighbours), time.Now()
	n.said(20, macOf(20), 1, now)
	for _, c := range []struct{ after, lasts time.Duration }{
		{neighbourAge/8 - 1, neighbourAge}, {neighbourAge / 8, neighbourAge/8 + neighbourAge},
	} {
		n.said(20, macOf(20), 1, now.Add(c.after))
		if n.has(1, now.Add(c.lasts-1)) == "nobody" || n.has(1, now.Add(c.lasts)) != "nobody" {
			t.Errorf("said again after %v, it does not last %v", c.after, c.lasts)
		}
	}
}

// With policies that know an identity no more, what it has said is forgotten; with age, too.
func TestNeighboursAge(t *testing.T) {
	m := quietMesh(t)
	m.says(siteA, asks(siteA, v4(99)))
	s := m.segments[3]
	count := func() int { return len(s.neighbours.of) }
	if count() != 1 {
		t.Fatalf("%d are known", count())
	}
	s.Age(m.now.Add(neighbourAge - 1))
	if count() != 1 {
		t.Error("aged too early")
	}
	s.Age(m.now.Add(neighbourAge))
	if count() != 0 {
		t.Error("not aged")
	}
	m.now = m.now.Add(time.Hour)
	m.says(siteA, asks(siteA, v4(99)))
	stations := m.stations()
	delete(stations, siteA)
	s.SetPolicy(policy.Compile(policy.Rules{Generation: 2, Self: 3, Stations: stations, Grants: []policy.Grant{members(1, 3, siteB)}}), m.now)
	if count() != 0 {
		t.Error("of one who is no more something is known")
	}
}

// Which frames say who has an address, and which do not.
func TestSaidBy(t *testing.T) {
	own, all6, group := macAt(20), netip.MustParseAddr("ff02::1"), ether.MAC{0x33, 0x33, 5: 1}
	ask := func(options ...byte) []byte {
		return nd(20, group, v6(20), all6, ether.NeighborSolicitation, v6(9), options...)
	}
	tell := func(options ...byte) []byte {
		return nd(20, group, v6(20), all6, ether.NeighborAdvertisement, v6(20), options...)
	}
	source, target := linkOption(1, own), linkOption(2, own)
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6} // RFC 3971 section 5.3.2
	join := func(list ...[]byte) []byte { return bytes.Join(list, nil) }
	request := asks(20, v4(9))
	change := func(at int, to byte) []byte { b := bytes.Clone(request); b[at] = to; return b }
	for _, c := range []struct {
		name  string
		frame []byte
		want  netip.Addr // none: it says nothing
	}{
		{"ARP request", request, v4(20)},
		{"ARP reply", tells(20, 9), v4(20)},
		{"ARP with padding", append(bytes.Clone(request), make([]byte, 18)...), v4(20)},
		{"ARP probe", arpOfParty(20, ether.Broadcast, ether.ARPRequest, netip.IPv4Unspecified(), v4(20)), netip.Addr{}},
		{"ARP, cut", request[:len(request)-1], netip.Addr{}},
		{"ARP, empty", request[:ether.HeaderLen], netip.Addr{}},
		{"ARP, of other hardware", change(15, 6), netip.Addr{}},
		{"ARP, of another protocol", change(17, 1), netip.Addr{}},
		{"ARP, of other lengths", change(18, 8), netip.Addr{}},
		{"RARP", change(13, 0x35), netip.Addr{}},
		{"solicitation", ask(source...), v6(20)},
		{"solicitation with nonce", ask(join(nonce, source)...), v6(20)},
		{"solicitation without address", ask(), netip.Addr{}},
		{"solicitation with the target's address", ask(target...), netip.Addr{}},
		{"solicitation with two addresses", ask(join(source, source)...), netip.Addr{}},
		{"solicitation, an option of no length", ask(1, 0, 2, 0, 0, 0, 0, 1), netip.Addr{}},
		{"solicitation, an option that is cut", ask(join(source, []byte{14, 2, 0, 0, 0, 0, 0, 0})...), netip.Addr{}},
		{"solicitation of who has no address", lookFor(20, netip.IPv6Unspecified(), v6(20)), netip.Addr{}},
		{"solicitation of who has no address, and yet says its MAC", nd(20, group, netip.IPv6Unspecified(), all6, ether.NeighborSolicitation, v6(20), source...), netip.Addr{}},
		{"advertisement", tell(target...), v6(20)},
		{"UDP that looks like an advertisement", udpLike(tell(target...)), netip.Addr{}},
		{"advertisement without address", tell(), netip.Addr{}},
		{"advertisement with the source's address", tell(source...), netip.Addr{}},
		{"router advertisement", nd(20, group, v6(20), all6, ether.RouterAdvertisement, v6(20), source...), netip.Addr{}},
		{"redirect", nd(20, group, v6(20), all6, ether.Redirect, v6(20), join(make([]byte, 16), target)...), netip.Addr{}},
		{"echo", nd(20, group, v6(20), all6, 128, v6(20), source...), netip.Addr{}},
		{"IPv6, cut", ask(source...)[:60], netip.Addr{}},
		{"IPv6, empty", data(group, own, ether.TypeIPv6, ""), netip.Addr{}},
		{"IPv4", datagram(20, ether.Broadcast, everybody4), netip.Addr{}},
	} {
		f, err := ether.Parse(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		addr, mac, ok := saidBy(&f)
		if ok != c.want.IsValid() || ok && (netip.AddrFrom16(addr).Unmap() != c.want || mac != own) {
			t.Errorf("%s: %v, %v, %v", c.name, netip.AddrFrom16(addr).Unmap(), mac, ok)
		}
	}
}

// FuzzSaidBy: whatever a machine says, what is remembered of it is an address that it may have, at the MAC that it sends from.
func FuzzSaidBy(f *testing.F) {
	for _, frame := range [][]byte{
		asks(siteA, v4(9)), tells(siteA, 1), lookFor(siteA, v6(siteA), v6(9)),
		nd(siteA, ether.Broadcast, v6(siteA), v6(9), ether.NeighborAdvertisement, v6(siteA), linkOption(2, macAt(siteA))...),
	} {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m := quietMesh(t)
		m.set(3, "vlan 20", "neigh_suppress=on")
		m.says(siteB, asks(siteB, v4(99)))
		m.forward(3, m.ports[3]["vlan 20"], frame, Tag{})
		for addr, x := range m.segments[3].neighbours.of {
			a := netip.AddrFrom16(addr).Unmap()
			if x.who == siteB && a == v4(siteB) {
				continue
			}
			if x.mac != ether.MAC(frame[6:12]) || !x.mac.IsStation() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() {
				t.Errorf("%v is believed to be at %v, of %d", a, x.mac, x.who)
			}
			if owner := m.views[3].AddressOwner(addr); owner != 0 && owner != x.who {
				t.Errorf("%v is %d's, and believed to be %d's", a, owner, x.who)
			}
		}
	})
}

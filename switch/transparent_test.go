package vswitch

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// on is a frame with tags in front of its EtherType: of VLANs, such as "s20.10", behind "p" and a dot for a priority of the segment's.
func on(t testing.TB, vlans string, frame []byte) []byte {
	t.Helper()
	rest, priority := vlans, false
	if len(vlans) > 1 && vlans[:2] == "p." {
		rest, priority = vlans[2:], true
	}
	v, err := ether.ParseVLANs(rest)
	if err != nil {
		t.Fatal(err)
	}
	out := v.Tag(frame)
	if priority {
		out = slices.Concat(out[:12], []byte{0x81, 0, 0xa0, 0}, out[12:])
	}
	return out
}

// insides are the VLANs on which a frame of a transparent segment may be there.
func insides() []string {
	return []string{"10", "s10", "20.10", "s20.10", "10.s10", "p.10", "p.s20.10"}
}

// transparentMesh is a mesh whose segments carry tags, or do not.
func transparentMesh(t *testing.T, transparent bool) *mesh {
	m := newMesh(t, true)
	for _, s := range m.segments {
		s.SetTransparent(transparent)
	}
	return m
}

// V07, V08, V11: a transparent segment carries up to two tags, byte for byte, and nothing of which it cannot tell what is behind. An
// ordinary one carries a priority alone.
func TestTransparentV07(t *testing.T) {
	full := string(make([]byte, 1500))
	for _, c := range []struct {
		name, tags         string // in place of the EtherType
		ordinary, carrying Drop
	}{
		{"none", "\x88\xb5", Forwarded, Forwarded},
		{"a priority", "\x81\x00\xa0\x00\x88\xb5", Forwarded, Forwarded},
		{"10", "\x81\x00\x00\x0a\x88\xb5", DropVLAN, Forwarded},
		{"10 of 802.1ad", "\x88\xa8\x00\x0a\x88\xb5", DropVLAN, Forwarded},
		{"0 of 802.1ad", "\x88\xa8\x60\x00\x88\xb5", DropVLAN, Forwarded},
		{"two", "\x88\xa8\x00\x14\x81\x00\x00\x0a\x88\xb5", DropVLAN, Forwarded},
		{"two behind a priority", "\x81\x00\xa0\x00\x88\xa8\x00\x14\x81\x00\x00\x0a\x88\xb5", DropVLAN, Forwarded},
		{"two, full length", "\x88\xa8\x00\x14\x81\x00\x00\x0a\x88\xb5" + full, DropLong, Forwarded}, // an ordinary segment sees more payload
		{"two, a byte more", "\x88\xa8\x00\x14\x81\x00\x00\x0a\x88\xb5" + full + "x", DropLong, DropLong},
		{"three", "\x81\x00\x00\x0a\x81\x00\x00\x0b\x81\x00\x00\x0c\x88\xb5", DropVLAN, DropTagDepth},
		{"three behind a priority", "\x81\x00\x00\x00\x81\x00\x00\x0a\x81\x00\x00\x0b\x81\x00\x00\x0c\x88\xb5", DropVLAN, DropTagDepth},
		{"4095", "\x81\x00\x0f\xff\x88\xb5", DropVLAN, DropTagKind},
		{"4095 inside", "\x81\x00\x00\x0a\x88\xa8\x0f\xff\x88\xb5", DropVLAN, DropTagKind},
		{"of before 802.1ad", "\x91\x00\x00\x0a\x88\xb5", Forwarded, DropTagKind},
		{"of before 802.1ad, inside", "\x81\x00\x00\x0a\x91\x00\x00\x0b\x88\xb5", DropVLAN, DropTagKind},
		{"cut in the second", "\x81\x00\x00\x0a\x81\x00\x00", DropVLAN, DropPartialTag},
	} {
		for _, from := range []policy.Identity{1, 2} { // its own host's, and a peer's
			for transparent, want := range map[bool]Drop{false: c.ordinary, true: c.carrying} {
				r := newRig(t)
				r.seg.SetTransparent(transparent)
				to := macOf(3 - from)
				frame := append(slices.Concat(to[:], macBytes(from)), c.tags...)
				whole := bytes.Clone(frame)
				r.agree(c.name, from, frame, Tag{from, grantID})
				got := r.enter(from, frame)
				if got != want {
					t.Errorf("%s, from %d, transparent %v: %q, want %q", c.name, from, transparent, got.Code(), want.Code())
				}
				if out := r.out[3-from].frames; want == Forwarded && (len(out) != 1 || !bytes.Equal(out[0], whole)) {
					t.Errorf("%s, from %d: sent as %x, want %x", c.name, from, out, whole)
				}
				if n := r.seg.FDB().Stats().Learned; want != Forwarded && n != 0 {
					t.Errorf("%s: %d addresses learned from a refused frame", c.name, n)
				}
			}
		}
	}
}

// twice sends a frame into an ordinary mesh, and the same with tags into a transparent one, and checks that the same becomes of it: the
// same verdict, the same receivers, the same bytes but for the tags, and as much remembered.
func twice(t *testing.T, name, vlans string, plain, carrying *mesh, who policy.Identity, frame []byte) {
	t.Helper()
	want, got := plain.says(who, frame), carrying.says(who, on(t, vlans, frame))
	if got != want {
		t.Errorf("%s on %q: %q, and without tag %q", name, vlans, got.Code(), want.Code())
	}
	if len(plain.out) != len(carrying.out) {
		t.Errorf("%s on %q: %d frames are given away, and without tag %d", name, vlans, len(carrying.out), len(plain.out))
	} else {
		for i := range plain.out {
			a, b := plain.out[i], carrying.out[i]
			if a.node != b.node || a.port.Name != b.port.Name || !bytes.Equal(on(t, vlans, a.frame), b.frame) {
				t.Errorf("%s on %q: node %d gives %x to %s, and without tag node %d gives %x to %s", name, vlans, b.node, b.frame, b.port.Name, a.node, a.frame, a.port.Name)
			}
		}
	}
	plain.out, carrying.out = nil, nil
	for node := range plain.segments {
		a, b := plain.segments[node], carrying.segments[node]
		if x, y := fmt.Sprint(a.FDB().Stats(), a.Flows().Len(), a.Drops()), fmt.Sprint(b.FDB().Stats(), b.Flows().Len(), b.Drops()); x != y {
			t.Errorf("%s on %q: node %d has %s, and without tag %s", name, vlans, node, y, x)
		}
	}
}

// policies are what may pass: everything between members, some of it, and only what nodes may begin with nodes.
func policies(t testing.TB) map[string][]policy.Grant {
	return map[string][]policy.Grant{
		"members": {members(1, 2, 3, 4, siteA, 21, 22, siteB, 31, roaming)},
		"some":    {{ID: 9, Segment: true, Sources: []policy.Identity{1, 2, siteA, 21, siteB, 31}, Allow: terms(t, "udp:8192", "icmp", "tcp:22")}},
		"nodes": {
			reaches(11, 1, 2), reaches(12, 1, 31), reaches(13, 21, 31), reaches(14, siteA, 2),
			reaches(15, 22, 1, terms(t, "udp:8192")...),
		},
	}
}

// attacks are what checks are there for, and what must pass, each in the order in which it is sent.
func attacks(t *testing.T) map[string][]struct {
	who   policy.Identity
	frame []byte
} {
	type said = struct {
		who   policy.Identity
		frame []byte
	}
	all := ether.Broadcast
	fragment := func(units byte, more bool) []byte {
		flags := units
		if more {
			flags = 0
		}
		head := []byte{0x45, 0, 0, 44, 0, 9, 0, flags, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
		if more {
			head[6], head[7] = 0x20, units
		}
		return data(macOf(2), macOf(1), ether.TypeIPv4, string(head)+"\x10\x00\x20\x00\x00\x18\x00\x00"+string(make([]byte, 16)))
	}
	dhcpOffer := v4Packet(t, all, v4(1), netip.MustParseAddr("255.255.255.255"), udp(67, 68))
	advert := v6Packet(t, ether.MAC{0x33, 0x33, 5: 1}, macOf(1).LinkLocal(), netip.IPv6LinkLocalAllNodes(), layers.ICMPv6TypeRouterAdvertisement,
		&layers.ICMPv6RouterAdvertisement{HopLimit: 64})
	return map[string][]said{
		"a datagram, and its answer":          {{1, datagram(1, macOf(2), v4(2))}, {2, datagram(2, macOf(1), v4(1))}},
		"a datagram to a machine":             {{1, datagram(1, macOf(31), v4(31))}, {31, datagram(31, macOf(1), v4(1))}},
		"a datagram between VLANs":            {{21, datagram(21, macOf(31), v4(31))}, {31, datagram(31, macOf(21), v4(21))}},
		"a datagram to nobody known":          {{siteA, datagram(siteA, ether.MAC{2, 9}, v4(200))}},
		"a broadcast":                         {{siteA, data(all, macAt(siteA), experimental, "hello")}, {1, data(all, macOf(1), experimental, "hello")}},
		"another's MAC":                       {{1, datagram(2, macOf(3), v4(3))}},
		"a pinned MAC on a VLAN":              {{siteA, datagram(31, macOf(1), v4(1))}},
		"another's address":                   {{1, data(macOf(2), macOf(1), ether.TypeIPv4, string(datagram(3, macOf(2), v4(2))[14:]))}},
		"a listed address of another machine": {{22, data(macOf(2), macOf(22), ether.TypeIPv4, string(datagram(31, macOf(2), v4(2))[14:]))}},
		"ARP in another's name":               {{1, data(all, macOf(1), ether.TypeARP, string(asks(2, v4(3))[14:]))}},
		"an ARP reply in another's name":      {{siteA, data(macOf(1), macAt(siteA), ether.TypeARP, string(tells(31, 1)[14:]))}},
		"ARP behind SNAP":                     {{1, data(all, macOf(1), 36, "\xaa\xaa\x03\x00\x00\x00\x08\x06"+string(asks(2, v4(3))[14:]))}},
		"a tag behind SNAP":                   {{1, data(all, macOf(1), 14, "\xaa\xaa\x03\x00\x00\x00\x81\x00\x00\x0a\x08\x00")}},
		"a question that is answered":         {{1, asks(1, v4(2))}, {1, asks(1, v4(31))}, {21, asks(21, v4(31))}},
		"a question about a stranger":         {{1, asks(1, v4(22))}, {1, asks(1, v4(4))}, {siteB, asks(siteB, v4(21))}},
		"an IPv6 question":                    {{1, lookFor(1, v6(1), v6(2))}, {21, lookFor(21, v6(21), v6(31))}, {2, lookFor(2, v6(2), v6(31))}},
		"an IPv6 question in another's name":  {{1, data(ether.MAC{0x33, 0x33, 0xff, 5: 2}, macOf(1), ether.TypeIPv6, string(lookFor(3, v6(3), v6(2))[14:]))}},
		"a false router":                      {{1, advert}},
		"a false DHCP server":                 {{1, dhcpOffer}},
		"a BPDU":                              {{1, data(ether.MAC{1, 0x80, 0xc2}, macOf(1), 7, "\x42\x42\x03\x00\x00\x00\x00")}, {siteA, data(ether.MAC{1, 0x80, 0xc2}, macAt(siteA), 7, "\x42\x42\x03\x00\x00\x00\x00")}},
		"a group as source":                   {{1, data(macOf(2), ether.MAC{3, 5: 1}, experimental, "")}},
		"fragments":                           {{1, fragment(0, true)}, {1, fragment(3, false)}},
		"a fragment without its first":        {{1, fragment(3, false)}},
		"fragments that overlap":              {{1, fragment(0, true)}, {1, fragment(2, true)}},
		"IPv4 that is cut":                    {{1, data(macOf(2), macOf(1), ether.TypeIPv4, "\x45\x00\x00\x20")}},
		"ARP that is cut":                     {{1, data(all, macOf(1), ether.TypeARP, "\x00\x01")}},
		"to itself":                           {{1, data(macOf(1), macOf(1), experimental, "")}},
		"not IP, to one":                      {{1, data(macOf(2), macOf(1), 0x8863, "pppoe")}},
	}
}

// A tag is no way around a check: whatever is sent with tags in a transparent segment, the same becomes of it as of the frame without
// tags in an ordinary one. There, with tags, it goes nowhere.
func TestTagIsNoWayAround(t *testing.T) {
	for name, steps := range attacks(t) {
		for under, grants := range policies(t) {
			for _, vlans := range insides() {
				plain, carrying, ordinary := transparentMesh(t, false), transparentMesh(t, true), transparentMesh(t, false)
				for _, m := range []*mesh{plain, carrying, ordinary} {
					m.now = plain.now
					m.grant(grants...)
				}
				for i, step := range steps {
					twice(t, fmt.Sprintf("%s (%d), %s", name, i, under), vlans, plain, carrying, step.who, step.frame)
					if d := ordinary.says(step.who, on(t, vlans, step.frame)); d == Forwarded || d == Answered || len(ordinary.out) > 0 {
						t.Errorf("%s on %q, %s: an ordinary segment says %q and gives %d frames away", name, vlans, under, d.Code(), len(ordinary.out))
					}
				}
			}
		}
	}
}

// FuzzTransparent: no frame is judged otherwise for its tags.
func FuzzTransparent(f *testing.F) {
	for _, frame := range [][]byte{
		datagram(1, macOf(2), v4(2)), datagram(siteA, macOf(31), v4(31)), asks(1, v4(2)), asks(siteA, v4(31)), tells(31, 1),
		lookFor(1, v6(1), v6(2)), data(ether.Broadcast, macOf(1), experimental, ""), data(macOf(2), macOf(1), 14, "\xaa\xaa\x03\x00\x00\x00\x81\x00"),
		data(ether.MAC{1, 0x80, 0xc2}, macAt(siteA), 7, "\x42\x42\x03\x00\x00\x00\x00"),
	} {
		for i := range byte(3) {
			f.Add(i, 3*i, i, frame)
		}
	}
	parties := []policy.Identity{1, 2, 3, siteA, 21, 22, siteB, 31, roaming}
	f.Fuzz(func(t *testing.T, who, vlans, under byte, frame []byte) {
		inside, err := ether.ParseInside(frame)
		// What has tags itself has more of them then, or is answered without its priority.
		if plain, e := ether.Parse(frame); err != nil || e != nil || plain.Tagged || inside.Inner != 0 || plain.Type.IsTag() {
			return
		}
		plain, carrying := transparentMesh(t, false), transparentMesh(t, true)
		grants := policies(t)[[]string{"members", "some", "nodes"}[under%3]]
		for _, m := range []*mesh{plain, carrying} {
			m.now = plain.now
			m.grant(grants...)
		}
		twice(t, "a frame", insides()[int(vlans)%len(insides())], plain, carrying, parties[int(who)%len(parties)], frame)
	})
}

// Addresses are learned for all VLANs of a transparent segment together, as a provider's bridges learn them by the outer tag.
func TestTransparentLearnsTogether(t *testing.T) {
	m := transparentMesh(t, true)
	m.grant(members(1, 2, 3, 4, siteA, 21, 22, siteB, 31, roaming))
	stranger := ether.MAC{2, 9, 9, 9, 9, 9}
	m.says(siteB, on(t, "10", data(ether.Broadcast, stranger, experimental, "")))
	m.heard()
	m.learned(1, stranger, "link 3", siteB)
	for _, vlans := range []string{"", "10", "20", "s20.10"} {
		if d := m.says(1, on(t, vlans, data(stranger, macOf(1), experimental, ""))); d != Forwarded {
			t.Errorf("on %q: %q", vlans, d)
		}
		if got := m.heard(); got[siteB] != 1 || got[2] != 0 || got[siteA] != 0 {
			t.Errorf("on %q: goes to %v, want VLAN 30 alone", vlans, got)
		}
	}
}

// On each VLAN somebody else may have an address: what is said on one is not remembered, and no question on one is answered by what was
// heard without a tag.
func TestNoSuppressionInside(t *testing.T) {
	for _, c := range []struct {
		name, said, asked string
		answered          bool
	}{
		{"neither", "", "", true},
		{"a priority is no VLAN", "p.", "p.", true},
		{"said on a VLAN", "10", "", false},
		{"asked on a VLAN", "", "10", false},
		{"both on one", "10", "10", false},
		{"on two", "10", "20", false},
	} {
		for name, frames := range map[string][2][]byte{
			"ARP":  {asks(siteA, v4(99)), asks(siteB, v4(siteA))},
			"IPv6": {lookFor(siteA, v6(siteA), v6(99)), lookFor(siteB, v6(siteB), v6(siteA))},
		} {
			m := quietMesh(t)
			for _, s := range m.segments {
				s.SetTransparent(true)
			}
			m.says(siteA, data(ether.Broadcast, macAt(siteA), experimental, "")) // it is known where it is
			m.says(siteA, on(t, c.said, frames[0]))
			m.heard()
			if d := m.says(siteB, on(t, c.asked, frames[1])); (d == Answered) != c.answered {
				t.Errorf("%s, %s: %q", c.name, name, d.Code())
			}
		}
	}
	// What the signed state lists is not answered for either: the machine itself is on that VLAN, or not.
	m := quietMesh(t)
	for _, s := range m.segments {
		s.SetTransparent(true)
	}
	if d := m.says(siteB, on(t, "10", asks(siteB, v4(2)))); d != Forwarded {
		t.Errorf("a node's address is asked for on VLAN 10: %q", d.Code())
	}
}

// A host that is told of a refusal is told on the VLAN where it was refused, and so are people.
func TestRefusedInside(t *testing.T) {
	for _, vlans := range append(insides(), "") {
		for _, v6 := range []bool{false, true} {
			r := newRig(t)
			r.seg.SetTransparent(true)
			r.sshOnly()
			r.seg.SetReject(true)
			r.enter(1, on(t, vlans, ipFrame(1, 2, v6, syn(80))))
			frames := r.out[1].frames
			if len(frames) != 1 {
				t.Fatalf("on %q: %d answers", vlans, len(frames))
			}
			f, err := ether.ParseInside(frames[0])
			asked, _ := ether.ParseInside(on(t, vlans, ipFrame(1, 2, v6, syn(80))))
			if err != nil || f.Inner != asked.Inner || f.Dst != macOf(1) || f.Src != macOf(2) || f.Type != asked.Type {
				t.Errorf("on %q: answered on %q: %x, %v", vlans, f.Inner, frames[0], err)
			}
			tcp, _ := gopacket.NewPacket(frames[0], layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
			if tcp == nil || !tcp.RST {
				t.Errorf("on %q: answered by %x", vlans, frames[0])
			}
			r.enter(1, on(t, "7", ipFrame(1, 2, v6, syn(80))))
			denied, _ := r.seg.Denied()
			slices.SortFunc(denied, func(a, b Denial) int { return int(int64(a.VLANs) - int64(b.VLANs)) })
			if len(denied) != 2 || !slices.ContainsFunc(denied, func(d Denial) bool { return d.VLANs == asked.Inner && d.DstPort == 80 }) {
				t.Errorf("on %q: told as %+v", vlans, denied)
			}
		}
	}
}

// A super-frame with tags stands for those that it is cut into, whose payload is behind the tags.
func TestLongInside(t *testing.T) {
	head := "\x45\x00\x0f\xc8\x00\x00\x00\x00\x40\x06\x00\x00" + "\xc0\x00\x02\x01" + "\xc0\x00\x02\x02" +
		"\x00\x01\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x50\x10\x00\x00\x00\x00\x00\x00"
	plain := data(macOf(2), macOf(1), ether.TypeIPv4, head+string(make([]byte, 4000)))
	for _, vlans := range append(insides(), "") {
		for size, want := range map[uint16]Drop{1460: Forwarded, 1461: DropLong} {
			r := newRig(t)
			r.seg.SetTransparent(true)
			frame := on(t, vlans, plain)
			undone := ether.Offload{Checksum: true, Start: uint16(34 + len(frame) - len(plain)), Field: 16, Size: size}
			if d := r.seg.Forward(r.ports[1], frame, undone, Tag{}, 0, r.now); d != want {
				t.Errorf("on %q, a super-frame of %d bytes each: %q, want %q", vlans, size, d.Code(), want.Code())
			}
		}
	}
}

func TestTransparentDoesNotAllocate(t *testing.T) {
	r := quietRig(t)
	r.seg.SetTransparent(true)
	for _, vlans := range append(insides(), "") {
		for name, c := range map[string]struct {
			from policy.Identity
			in   []byte
		}{
			"unicast out": {1, data(macOf(2), macOf(1), experimental, "")},
			"flood in":    {2, data(ether.Broadcast, macOf(2), experimental, "")},
			"dropped in":  {2, data(macOf(1), macOf(3), experimental, "")},
			"ARP out":     {1, arp(t, ether.Broadcast, 1, v4(1), v4(3))},
		} {
			frame := on(t, vlans, c.in)
			if n := testing.AllocsPerRun(100, func() { r.enter(c.from, frame) }); n != 0 {
				t.Errorf("%s on %q: %v allocations for each frame", name, vlans, n)
			}
		}
	}
}

// A flow that is remembered is looked up with its VLANs.
func BenchmarkForwardFlow(b *testing.B) {
	r := quietRig(new(testing.T))
	r.sshOnly()
	f := ipFrame(1, 2, false, syn(22))
	r.enter(1, f)
	for b.Loop() {
		r.seg.Forward(r.ports[1], f, ether.Offload{}, Tag{}, 0, r.now)
	}
}

// What tags cost, and that those who have none pay nothing: compare with BenchmarkForwardUnicast.
func BenchmarkForwardInside(b *testing.B) {
	for _, vlans := range []string{"", "10", "s20.10"} {
		b.Run("on "+vlans, func(b *testing.B) {
			r := quietRig(new(testing.T))
			r.seg.SetTransparent(true)
			f := on(b, vlans, data(macOf(2), macOf(1), experimental, string(make([]byte, 60))))
			for b.Loop() {
				r.seg.Forward(r.ports[1], f, ether.Offload{}, Tag{}, 0, r.now)
			}
		})
	}
}

package vswitch

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

func serialize(t testing.TB, list ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		t.Fatal(err)
	}
	frame := bytes.Clone(b.Bytes())
	if eth, ok := list[0].(*layers.Ethernet); ok && eth.EthernetType == layers.EthernetTypeARP {
		frame = frame[:ether.HeaderLen+28] // without padding
	}
	return frame
}

func ethernet(dst ether.MAC, typ layers.EthernetType) *layers.Ethernet {
	src := macOf(1)
	return &layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: typ}
}

// arp is an ARP packet of node 1.
func arp(t testing.TB, dst ether.MAC, op uint16, sender, target netip.Addr) []byte {
	t.Helper()
	mac, to := macOf(1), ether.MAC{}
	if op == layers.ARPReply && !dst.IsGroup() {
		to = dst
	}
	return serialize(t, ethernet(dst, layers.EthernetTypeARP), &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: op, HwAddressSize: 6, ProtAddressSize: 4,
		SourceHwAddress: mac[:], SourceProtAddress: sender.AsSlice(), DstHwAddress: to[:], DstProtAddress: target.AsSlice(),
	})
}

// solicit is a neighbour solicitation of node 1, to the target's group or, of an address that is thought to be known, to the
// target alone.
func solicit(t testing.TB, src, target netip.Addr, at ether.MAC) []byte {
	t.Helper()
	a := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}) // RFC 4291 section 2.7.1
	dst := ether.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]}
	if at != (ether.MAC{}) {
		group, dst = target, at
	}
	var options layers.ICMPv6Options
	if !src.IsUnspecified() {
		own := macOf(1)
		options = layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: own[:]}}
	}
	return v6Packet(t, dst, src, group, layers.ICMPv6TypeNeighborSolicitation,
		&layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice(), Options: options})
}

func v6Packet(t testing.TB, dst ether.MAC, src, to netip.Addr, typ uint8, body gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: src.AsSlice(), DstIP: to.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	return serialize(t, ethernet(dst, layers.EthernetTypeIPv6), ip, icmp, body)
}

// behind puts a destination options header in front of what an IPv6 packet carries.
func behind(frame []byte) []byte {
	const head = ether.HeaderLen + 40
	out := bytes.Clone(frame[:head])
	out[ether.HeaderLen+5] += 8
	out[ether.HeaderLen+6] = byte(ether.ProtoDestOpts)
	return append(append(out, frame[ether.HeaderLen+6], 0, 1, 4, 0, 0, 0, 0), frame[head:]...)
}

// dark gives node 1 a grant to reach 2, and 3 one to reach 1. 4 is known for other reasons.
func dark(r *rig) {
	r.setGrants(
		policy.Grant{ID: 20, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Allow: terms(r.t, "tcp:8080", "icmp")},
		policy.Grant{ID: 21, Sources: []policy.Identity{3}, Targets: []policy.Identity{1}, Allow: terms(r.t, "tcp:22")},
		policy.Grant{ID: 22, Sources: []policy.Identity{2}, Targets: []policy.Identity{4}},
	)
}

// mixed makes 1 and 3 members, and gives 1 a grant to reach 2. 4 was a member.
func mixed(r *rig) {
	r.setGrants(
		policy.Grant{ID: grantID, Segment: true, Sources: []policy.Identity{1, 3}},
		policy.Grant{ID: 20, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Allow: terms(r.t, "tcp:8080")},
		policy.Grant{ID: 22, Segment: true, Sources: []policy.Identity{4}, Expires: r.now.Add(-time.Second)},
	)
}

func terms(t testing.TB, texts ...string) []policy.Term {
	t.Helper()
	list, err := policy.ParseTerms(texts)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A host is answered by its own node about those whom a grant to nodes is about, either way, and nobody else hears its question.
// It is not answered about itself, nor about anybody else.
func TestAnswer(t *testing.T) {
	const silent = Drop(policy.UnknownAddress)
	const nobody, stays = Drop(policy.NoGrant), Drop(policy.StaysHere) // by the last who was judged
	unset4, unset6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	local := func(id policy.Identity) netip.Addr { return macOf(id).LinkLocal() }
	all := ether.Broadcast
	r := newRig(t)
	for _, c := range []struct {
		name string
		in   []byte

		target policy.Identity // in whose name it is answered
		dark   Drop            // what becomes of it where there are only grants to nodes
		mixed  Drop            // and where the host is a member, too
		sent   sent            // then
	}{
		{name: "ARP, reached", in: arp(t, all, 1, v4(1), v4(2)), target: 2, dark: Answered, mixed: Answered},
		{name: "ARP to it alone", in: arp(t, macOf(2), 1, v4(1), v4(2)), target: 2, dark: Answered, mixed: Answered},
		{name: "ARP to another about it", in: arp(t, macOf(3), 1, v4(1), v4(2)), target: 2, dark: Answered, mixed: Answered},
		{name: "ARP probe for its address", in: arp(t, all, 1, unset4, v4(2)), target: 2, dark: Answered, mixed: Answered},
		{name: "ARP, holder or member", in: arp(t, all, 1, v4(1), v4(3)), target: 3, dark: Answered, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ARP, another station", in: arp(t, all, 1, v4(1), v4(4)), dark: silent, mixed: silent},
		{name: "ARP to another station alone", in: arp(t, macOf(4), 1, v4(1), v4(4)), dark: silent, mixed: silent},
		{name: "ARP, nobody's", in: arp(t, all, 1, v4(1), v4(99)), dark: silent, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ARP probe, nobody's", in: arp(t, all, 1, unset4, v4(99)), dark: silent, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ARP probe for one's own", in: arp(t, all, 1, unset4, v4(1)), dark: nobody, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ARP announcement", in: arp(t, all, 1, v4(1), v4(1)), dark: nobody, mixed: Forwarded, sent: sent{3: 1}},
		{name: "gratuitous ARP reply", in: arp(t, all, 2, v4(1), v4(1)), dark: nobody, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ARP reply", in: arp(t, macOf(2), 2, v4(1), v4(2)), dark: stays, mixed: stays},
		{name: "ARP reply to a member", in: arp(t, macOf(3), 2, v4(1), v4(3)), dark: stays, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ND, reached", in: solicit(t, v6(1), v6(2), ether.MAC{}), target: 2, dark: Answered, mixed: Answered},
		{name: "ND from a link-local address", in: solicit(t, local(1), v6(2), ether.MAC{}), target: 2, dark: Answered, mixed: Answered},
		{name: "ND for its link-local address", in: solicit(t, local(1), local(2), ether.MAC{}), target: 2, dark: Answered, mixed: Answered},
		{name: "ND to it alone", in: solicit(t, v6(1), v6(2), macOf(2)), target: 2, dark: Answered, mixed: Answered},
		{name: "ND behind an extension header", in: behind(solicit(t, v6(1), v6(2), ether.MAC{})), target: 2, dark: Answered, mixed: Answered},
		{name: "ND, holder or member", in: solicit(t, v6(1), v6(3), ether.MAC{}), target: 3, dark: Answered, mixed: Forwarded, sent: sent{3: 1}},
		{name: "ND, another station", in: solicit(t, v6(1), v6(4), ether.MAC{}), dark: silent, mixed: silent},
		{name: "ND, another's link-local address", in: solicit(t, local(1), local(4), ether.MAC{}), dark: silent, mixed: silent},
		{name: "ND, nobody's", in: solicit(t, v6(1), v6(99), ether.MAC{}), dark: silent, mixed: Forwarded, sent: sent{3: 1}},
		{name: "DAD", in: solicit(t, unset6, v6(1), ether.MAC{}), dark: nobody, mixed: Forwarded, sent: sent{3: 1}},
		{name: "DAD for another's", in: solicit(t, unset6, v6(2), ether.MAC{}), dark: Drop(policy.NDSender), mixed: Drop(policy.NDSender)},
		{
			name: "unsolicited advertisement", dark: nobody, mixed: Forwarded, sent: sent{3: 1},
			in: v6Packet(t, ether.MAC{0x33, 0x33, 5: 1}, v6(1), netip.IPv6LinkLocalAllNodes(), layers.ICMPv6TypeNeighborAdvertisement,
				&layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: v6(1).AsSlice()}),
		},
	} {
		for _, way := range []struct {
			name  string
			grant func(*rig)
			want  Drop
			sent  sent
		}{{"dark", dark, c.dark, sent{}}, {"mixed", mixed, c.mixed, c.sent}} {
			name := c.name + ", " + way.name
			way.grant(r)
			r.agree(name, 1, c.in, Tag{})
			was, drops := r.ports[1].Stats(), len(r.seg.Drops())
			if got := r.enter(1, c.in); got != way.want {
				t.Errorf("%s: %q, want %q", name, got.Code(), way.want.Code())
			}
			if way.want != Answered {
				r.seen(way.sent)
				continue
			}
			if now := r.ports[1].Stats(); now.Answered != was.Answered+1 || now.RxDropped != was.RxDropped || len(r.seg.Drops()) != drops {
				t.Errorf("%s: counted %+v, %v", name, now, r.seg.Drops())
			}
			if len(r.out[1].frames) != 1 {
				t.Fatalf("%s: %d answers", name, len(r.out[1].frames))
			}
			checkAnswer(t, name, c.in, r.out[1].frames[0], c.target)
			r.seen(sent{1: 1})
		}
	}
}

// checkAnswer holds a frame against what the target would have answered, by another's code.
func checkAnswer(t *testing.T, name string, asked, got []byte, target policy.Identity) {
	t.Helper()
	q := gopacket.NewPacket(asked, layers.LayerTypeEthernet, gopacket.Default)
	host, mac := macOf(1), macOf(target)
	eth := func(typ layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: mac[:], DstMAC: host[:], EthernetType: typ}
	}
	var want []byte
	if a, ok := q.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		want = serialize(t, eth(layers.EthernetTypeARP), &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: layers.ARPReply, HwAddressSize: 6, ProtAddressSize: 4,
			SourceHwAddress: mac[:], SourceProtAddress: a.DstProtAddress, DstHwAddress: host[:], DstProtAddress: a.SourceProtAddress,
		})
	} else {
		asker := q.Layer(layers.LayerTypeIPv6).(*layers.IPv6).SrcIP
		about := q.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation).TargetAddress
		ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: about, DstIP: asker}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		want = serialize(t, eth(layers.EthernetTypeIPv6), ip, icmp, &layers.ICMPv6NeighborAdvertisement{
			Flags: 0x60, TargetAddress: about, // solicited, override
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: net.HardwareAddr(mac[:])}},
		})
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: answered\n%x, want\n%x", name, got, want)
	}
}

// What comes over a link is another host's question, and that host's node has answered it.
func TestLinksAreNotAnswered(t *testing.T) {
	r := newRig(t)
	r.setGrants(
		policy.Grant{ID: grantID, Segment: true, Sources: []policy.Identity{1, 2}},
		policy.Grant{ID: 20, Sources: []policy.Identity{2}, Targets: []policy.Identity{3}},
	)
	question := data(ether.Broadcast, macOf(2), ether.TypeARP, "\x00\x01\x08\x00\x06\x04\x00\x01"+
		"\x02\x00\x00\x00\x00\x02\xc0\x00\x02\x02"+"\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x03")
	if d := r.enter(2, question); d != Forwarded {
		t.Errorf("%q", d)
	}
	r.seen(sent{1: 1})
}

// Whom the policy lets know an address changes with it, at once.
func TestAnswersFollowPolicy(t *testing.T) {
	r := newRig(t)
	question := arp(t, ether.Broadcast, 1, v4(1), v4(2))
	soon := policy.Grant{ID: 20, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}, Expires: r.now.Add(time.Second)}
	r.setGrants(soon)
	if d := r.enter(1, question); d != Answered {
		t.Errorf("granted: %q", d)
	}
	r.seen(sent{1: 1})
	r.now = soon.Expires
	if d := r.enter(1, question); d != Drop(policy.UnknownAddress) {
		t.Errorf("expired: %q", d)
	}
	soon.Observe, soon.Expires = true, time.Time{}
	r.setGrants(soon)
	if d := r.enter(1, question); d != Drop(policy.UnknownAddress) {
		t.Errorf("only observed: %q", d)
	}
	rules := policy.Rules{Self: 1, Expires: r.now, Stations: map[policy.Identity]*policy.Station{
		1: policy.NewStation(macOf(1), []netip.Addr{v4(1)}, false), 2: policy.NewStation(macOf(2), []netip.Addr{v4(2)}, false),
	}, Grants: []policy.Grant{{ID: 20, Sources: []policy.Identity{1}, Targets: []policy.Identity{2}}}}
	r.seg.SetPolicy(policy.Compile(rules), r.now)
	if d := r.enter(1, question); d != Drop(policy.PolicyExpired) {
		t.Errorf("policy past its age: %q", d)
	}
	r.seen(sent{})
}

// To be asked costs nothing but the answer, and not to be asked nothing.
func TestAnswerAllocates(t *testing.T) {
	r := quietRig(t)
	mixed(r)
	for name, c := range map[string]struct {
		in   []byte
		most float64
	}{
		"ARP that goes on":  {arp(t, ether.Broadcast, 1, v4(1), v4(3)), 0},
		"ARP, refused":      {arp(t, ether.Broadcast, 1, v4(1), v4(4)), 0},
		"ND that goes on":   {solicit(t, v6(1), v6(3), ether.MAC{}), 0},
		"ARP that is ours":  {arp(t, ether.Broadcast, 1, v4(1), v4(2)), 1},
		"ND that is ours":   {solicit(t, v6(1), v6(2), ether.MAC{}), 1},
		"any other traffic": {data(macOf(3), macOf(1), experimental, ""), 0},
	} {
		if n := testing.AllocsPerRun(100, func() { r.enter(1, c.in) }); n > c.most {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Only what asks for an address is a question.
func TestQuestionOf(t *testing.T) {
	ns := solicit(t, v6(1), v6(2), ether.MAC{})
	const head, icmp = ether.HeaderLen + 40, 24 // bytes of headers, and of a solicitation in front of its options
	edit := func(frame []byte, at int, to ...byte) []byte {
		frame = bytes.Clone(frame)
		copy(frame[at:], to)
		return frame
	}
	for _, c := range []struct {
		name string
		in   []byte
		want netip.Addr // invalid: no question
	}{
		{"ARP", arp(t, ether.Broadcast, 1, v4(1), v4(2)), v4(2)},
		{"ARP in a frame with a priority", append(data(ether.Broadcast, macOf(1), ether.TypeVLAN, "\xe0\x00\x08\x06"), arp(t, ether.Broadcast, 1, v4(1), v4(2))[ether.HeaderLen:]...), v4(2)},
		{"ARP reply", arp(t, ether.Broadcast, 2, v4(1), v4(2)), netip.Addr{}},
		{"ARP that is cut", arp(t, ether.Broadcast, 1, v4(1), v4(2))[:ether.HeaderLen+27], netip.Addr{}},
		{"RARP", edit(arp(t, ether.Broadcast, 1, v4(1), v4(2)), 12, 0x80, 0x35), netip.Addr{}},
		{"solicitation", ns, v6(2)},
		{"behind an extension header", behind(ns), v6(2)},
		{"not of ICMPv6", edit(ns, ether.HeaderLen+6, byte(ether.ProtoUDP)), netip.Addr{}},
		{"a later fragment", edit(behind(ns), head-34, byte(ether.ProtoFragment), 255), netip.Addr{}},
		{"advertisement", edit(ns, head, ether.NeighborAdvertisement), netip.Addr{}},
		{"echo", edit(ns, head, 128), netip.Addr{}},
		{"with an option that is cut", edit(ns, head+icmp+1, 2), netip.Addr{}},
		{"no packet at all", ns[:head-1], netip.Addr{}},
		{"something else", data(ether.Broadcast, macOf(1), experimental, string(ns[ether.HeaderLen:])), netip.Addr{}},
	} {
		f, err := ether.Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		q, is := questionOf(&f)
		if is != c.want.IsValid() || is && netip.AddrFrom16(q.target).Unmap() != c.want {
			t.Errorf("%s: %v, %t; want %v", c.name, netip.AddrFrom16(q.target), is, c.want)
		}
	}
}

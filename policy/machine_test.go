package policy

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// The parties of the tests about machines: nodes 1 to 4, of which 3 and 4 are gateways; attachment 20 has a port at both, and 30 one at
// 3. Host 21 has addresses and may be behind either; 22 has none, and is behind 30; 40 lies elsewhere.
const (
	gateway, gateway2       Identity = 3, 4
	attachment, attachment2 Identity = 20, 30
	listed, unlisted        Identity = 21, 22
	far                     Identity = 40
)

// machine makes one that is behind attachments, and for which nodes may speak.
func machine(mac ether.MAC, gateways, attachments []Identity, addrs ...netip.Addr) *Station {
	s := NewMachine(mac, addrs)
	s.Gateways, s.Attachments = gateways, attachments
	return s
}

// siteStations are testStations, and machines.
func siteStations() map[Identity]*Station {
	out := testStations()
	both, one := []Identity{gateway, gateway2}, []Identity{gateway}
	out[attachment] = machine(ether.MAC{}, both, []Identity{attachment})
	out[attachment2] = machine(ether.MAC{}, one, []Identity{attachment2})
	out[listed] = machine(ether.MAC{2, 5: byte(listed)}, both, []Identity{attachment, attachment2},
		netip.AddrFrom4([4]byte{192, 0, 2, byte(listed)}), netip.AddrFrom16(addressV6(listed)))
	out[unlisted] = machine(ether.MAC{2, 5: byte(unlisted)}, one, []Identity{attachment2})
	out[far] = machine(ether.MAC{}, []Identity{2}, []Identity{far})
	return out
}

func site(self Identity, grants ...Grant) *View {
	return Compile(Rules{Generation: 1, Self: self, Stations: siteStations(), Grants: grants, Expires: t0.Add(time.Hour)})
}

// kinds of machines whose MAC is own, for tables of three verdicts: of those whom nobody named; a host without addresses; one with
// ownV4 and ownV6. Node 2 has other, otherV4, otherV6 and its link-local address; host 9 is somewhere, and router 8 has addresses
// that no host could have.
func machineOf(kind int) *Station {
	stations := map[Identity]*Station{
		2: NewStation(other, []netip.Addr{otherV4, otherV6, other.LinkLocal()}, false),
		9: NewMachine(ether.MAC{2, 5: 9}, []netip.Addr{netip.MustParseAddr("192.0.2.9")}),
		7: [...]*Station{NewMachine(ether.MAC{}, nil), NewMachine(own, nil), NewMachine(own, []netip.Addr{ownV4, ownV6})}[kind],
	}
	return Compile(Rules{Stations: stations}).Station(7)
}

// What machines may say of themselves: nothing that is another's, and nothing that is no host's.
func TestMachines(t *testing.T) {
	const ns, na, ra, echo = 135, 136, 134, 128
	host9 := ether.MAC{2, 5: 9}
	from := func(a string) []byte { return udp4(t, netip.MustParseAddr(a), 1, 2, 0) }
	from6 := func(a string) []byte { return v6(t, netip.MustParseAddr(a), v6opts{next: 59}, nil) }
	solicits := func(src, target netip.Addr, kind byte, mac ether.MAC) []byte {
		return v6(t, src, v6opts{}, nd(ns, target, kind, mac))
	}
	advertises := func(src, target netip.Addr, mac ether.MAC) []byte {
		return v6(t, src, v6opts{}, nd(na, target, 2, mac))
	}
	asks := func(client ether.MAC, ciaddr netip.Addr, kind byte) []byte {
		return bootp(t, noV4, 68, 67, message{op: 1, client: client, ciaddr: ciaddr, kind: kind})
	}
	free4, free6, freeLocal := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77"), netip.MustParseAddr("fe80::77")
	all := func(v Verdict) [3]Verdict { return [3]Verdict{v, v, v} }
	for _, c := range []struct {
		name string
		in   []byte
		want [3]Verdict
	}{
		{"any EtherType", build(t, own, 0x88b5, gopacket.Payload("x")), all(Pass)},
		{"another free MAC", build(t, ether.MAC{2, 5: 0x77}, 0x88b5, gopacket.Payload("x")), [3]Verdict{Pass, SourceMAC, SourceMAC}},
		{"a node's MAC", build(t, other, 0x88b5, gopacket.Payload("x")), all(SourceMAC)},
		{"a host's MAC", build(t, host9, 0x88b5, gopacket.Payload("x")), all(SourceMAC)},
		{"a group's MAC", build(t, ether.MAC{3}, 0x88b5, gopacket.Payload("x")), all(SourceMAC)},
		{"no MAC", build(t, ether.MAC{}, 0x88b5, gopacket.Payload("x")), all(SourceMAC)},

		{"its IPv4", udp4(t, ownV4, 1, 2, 0), all(Pass)},
		{"free IPv4", udp4(t, free4, 1, 2, 0), [3]Verdict{Pass, Pass, IPSource}},
		{"IPv4 from beyond", from("203.0.113.7"), [3]Verdict{Pass, Pass, IPSource}},
		{"a node's IPv4", udp4(t, otherV4, 1, 2, 0), all(IPSource)},
		{"a host's IPv4", from("192.0.2.9"), all(IPSource)},
		{"IPv4 of nobody", from("0.0.0.0"), all(IPSource)},
		{"IPv4 of this network", from("0.1.2.3"), all(IPSource)},
		{"IPv4 loopback", from("127.0.0.1"), all(IPSource)},
		{"IPv4 loopback, another", from("127.9.9.9"), all(IPSource)},
		{"IPv4 group", from("224.0.0.1"), all(IPSource)},
		{"IPv4 reserved", from("240.0.0.1"), all(IPSource)},
		{"IPv4 just below", from("223.255.255.1"), [3]Verdict{Pass, Pass, IPSource}},
		{"IPv4 of everybody", from("255.255.255.255"), all(IPSource)},
		{"IPv4 link-local", from("169.254.1.1"), [3]Verdict{Pass, Pass, IPSource}},
		{"its IPv6", from6("2001:db8::1"), all(Pass)},
		{"free IPv6", from6("2001:db8::77"), [3]Verdict{Pass, Pass, IPSource}},
		{"a node's IPv6", from6("2001:db8::2"), all(IPSource)},
		{"IPv6 loopback", from6("::1"), all(IPSource)},
		{"IPv6 group", from6("ff02::1"), all(IPSource)},
		{"IPv6 of nobody", from6("::"), all(IPSource)},
		{"IPv4 in IPv6", from6("::ffff:203.0.113.7"), all(IPSource)},
		{"its own IPv4 in IPv6", from6("::ffff:192.0.2.1"), all(IPSource)},
		{"link-local of its MAC", v6(t, own.LinkLocal(), v6opts{}, []byte{echo}), all(Pass)},
		{"link-local that it chose", v6(t, freeLocal, v6opts{}, []byte{echo}), all(Pass)},
		{"link-local of a node", v6(t, other.LinkLocal(), v6opts{}, []byte{echo}), all(IPSource)},
		{"link-local of a host's MAC", v6(t, host9.LinkLocal(), v6opts{}, []byte{echo}), all(IPSource)},

		{"ARP probe (RFC 5227)", arp(t, 1, own, noV4), all(Pass)},
		{"ARP request", arp(t, 1, own, ownV4), all(Pass)},
		{"ARP reply", arp(t, 2, own, ownV4), all(Pass)},
		{"ARP reply from 0.0.0.0", arp(t, 2, own, noV4), all(ARPSender)},
		{"ARP from a free address", arp(t, 2, own, free4), [3]Verdict{Pass, Pass, ARPSender}},
		{"ARP for a node's address (I05)", arp(t, 2, own, otherV4), all(ARPSender)},
		{"ARP for a host's address (I05)", arp(t, 2, own, netip.MustParseAddr("192.0.2.9")), all(ARPSender)},
		{"ARP with a free MAC that is not the frame's (I05)", arp(t, 2, ether.MAC{2, 5: 0x77}, ownV4), all(ARPSender)},
		{"ARP with a node's MAC (I05)", arp(t, 2, other, ownV4), all(ARPSender)},
		{"ARP with no MAC (I05)", arp(t, 2, ether.MAC{}, ownV4), all(ARPSender)},
		{"ARP from a group's address", arp(t, 2, own, netip.MustParseAddr("224.0.0.1")), all(ARPSender)},
		{"ARP from loopback", arp(t, 1, own, netip.MustParseAddr("127.0.0.1")), all(ARPSender)},
		{"ARP from everybody's address", arp(t, 1, own, netip.MustParseAddr("255.255.255.255")), all(ARPSender)},

		{"DAD (RFC 4862)", solicits(noV6, ownV6, 0, ether.MAC{}), all(Pass)},
		{"DAD for its link-local", solicits(noV6, own.LinkLocal(), 0, ether.MAC{}), all(Pass)},
		{"DAD for a free address", solicits(noV6, free6, 0, ether.MAC{}), [3]Verdict{Pass, Pass, NDSender}},
		{"DAD for a free link-local", solicits(noV6, freeLocal, 0, ether.MAC{}), all(Pass)},
		{"DAD for a node's address", solicits(noV6, otherV6, 0, ether.MAC{}), all(NDSender)},
		{"DAD for a mapped address", solicits(noV6, netip.MustParseAddr("::ffff:203.0.113.7"), 0, ether.MAC{}), all(NDSender)},
		{"solicitation", solicits(ownV6, otherV6, 1, own), all(Pass)},
		{"solicitation with another free MAC", solicits(ownV6, otherV6, 1, ether.MAC{2, 5: 0x77}), all(NDSender)},
		{"solicitation with a node's MAC", solicits(ownV6, otherV6, 1, other), all(NDSender)},
		{"advertisement", advertises(ownV6, ownV6, own), all(Pass)},
		{"advertisement of a free address", advertises(ownV6, free6, own), [3]Verdict{Pass, Pass, NDSender}},
		{"advertisement of a node's address", advertises(ownV6, otherV6, own), all(NDSender)},
		{"advertisement of a host's link-local", advertises(ownV6, host9.LinkLocal(), own), all(NDSender)},
		{"advertisement with another free MAC", advertises(ownV6, ownV6, ether.MAC{2, 5: 0x77}), all(NDSender)},
		{"router advertisement", v6(t, own.LinkLocal(), v6opts{}, append([]byte{ra}, make([]byte, 15)...)), all(NotRouter)},

		{"DHCP", asks(own, netip.Addr{}, 1), all(Pass)},
		{"DHCP for another free MAC", asks(ether.MAC{2, 5: 0x77}, netip.Addr{}, 1), all(DHCPClient)},
		{"DHCP for a node's MAC", asks(other, netip.Addr{}, 1), all(DHCPClient)},
		{"DHCP for a node's address", asks(own, otherV4, 3), all(DHCPClient)},
		{"DHCP release of a free address", asks(own, free4, 7), [3]Verdict{Pass, Pass, DHCPClient}},
		{"DHCP release of a node's address", asks(own, otherV4, 7), all(DHCPClient)},
		{"DHCP of a server", bootp(t, ownV4, 67, 68, message{op: 2, client: other, kind: 5}), all(NotDHCPServer)},
		{"IGMP query", ip4(t, ownV4, layers.IPProtocolIGMP, nil, 0x11, 0), all(NotQuerier)},
		{"IGMP report of a node", ip4(t, otherV4, layers.IPProtocolIGMP, nil, 0x22, 0), all(IPSource)},
	} {
		for kind, want := range c.want {
			f, err := ether.Parse(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if _, got := machineOf(kind).Check(&f, false); got != want {
				t.Errorf("%s, kind %d: %q, want %q", c.name, kind, got, want)
			}
		}
	}
}

// A router behind a VLAN forwards from every address that is nobody's, whether somebody has listed its own or not; what speaks of
// the router itself comes from its own.
func TestRouterBehind(t *testing.T) {
	for kind := range 3 {
		s := machineOf(kind)
		s.Roles = Router
		s.Route([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []netip.Addr{otherV4, netip.MustParseAddr("203.0.113.9")})
		for _, c := range []struct {
			name string
			in   []byte
			want [3]Verdict
		}{
			{"from beyond", udp4(t, netip.MustParseAddr("203.0.113.7"), 1, 2, 0), [3]Verdict{Pass, Pass, Pass}},
			{"from a free address at home", udp4(t, netip.MustParseAddr("192.0.2.77"), 1, 2, 0), [3]Verdict{Pass, Pass, IPSource}},
			{"from a node's address", udp4(t, otherV4, 1, 2, 0), [3]Verdict{IPSource, IPSource, IPSource}},
			{"from loopback", udp4(t, netip.MustParseAddr("127.0.0.1"), 1, 2, 0), [3]Verdict{IPSource, IPSource, IPSource}},
			{"redirect", ip4(t, ownV4, 1, nil, 5, 1), [3]Verdict{Pass, Pass, Pass}},
			{"redirect from beyond", ip4(t, netip.MustParseAddr("203.0.113.7"), 1, nil, 5, 1), [3]Verdict{Pass, Pass, IPSource}},
		} {
			f, _ := ether.Parse(c.in)
			if _, got := s.Check(&f, false); got != c.want[kind] {
				t.Errorf("%s, kind %d: %q, want %q", c.name, kind, got, c.want[kind])
			}
		}
	}
}

// What is taken is told to machines alone, and to none by changing what it was made of.
func TestTaken(t *testing.T) {
	stations := siteStations()
	v := Compile(Rules{Stations: stations})
	if v.Station(1) != stations[1] || v.Station(attachment) == stations[attachment] || stations[attachment].taken != nil {
		t.Error("a node's station was copied, or a machine's was changed")
	}
	if v.Owner(ether.MAC{}) != 0 {
		t.Error("no MAC is somebody's")
	}
	node := NewStation(ether.MAC{}, nil, false)
	if node.uses(own) || node.uses(ether.MAC{}) {
		t.Error("a node without a MAC may use any")
	}
	// Of two that share a MAC, it is always the same one's.
	for range 20 {
		shared := map[Identity]*Station{}
		for id := Identity(1); id <= 9; id++ {
			shared[id] = NewMachine(own, nil)
		}
		if got := Compile(Rules{Stations: shared}).Owner(own); got != 1 {
			t.Fatalf("the shared MAC is %d's", got)
		}
	}
}

func TestBehind(t *testing.T) {
	v := site(gateway)
	hostMAC := func(id Identity) ether.MAC { return ether.MAC{2, 5: byte(id)} }
	for _, c := range []struct {
		name string
		at   Identity
		mac  ether.MAC
		who  Identity
		want Verdict
	}{
		{"nobody's", attachment, own2, attachment, Pass},
		{"nobody's, behind the other", attachment2, own2, attachment2, Pass},
		{"a host's", attachment, hostMAC(listed), listed, Pass},
		{"a host's that may be behind either", attachment2, hostMAC(listed), listed, Pass},
		{"a host's that is behind the other", attachment, hostMAC(unlisted), 0, PinnedMAC},
		{"where it belongs", attachment2, hostMAC(unlisted), unlisted, Pass},
		{"a node's", attachment, hostMAC(1), 0, PinnedMAC},
		{"the gateway's own", attachment, hostMAC(gateway), 0, PinnedMAC},
	} {
		if who, got := v.Behind(c.at, c.mac); who != c.who || got != c.want {
			t.Errorf("%s: %d, %q, want %d, %q", c.name, who, got, c.who, c.want)
		}
	}
	for _, c := range []struct {
		machine, at Identity
		want        bool
	}{
		{attachment, attachment, true},
		{attachment, attachment2, false},
		{listed, attachment, true},
		{listed, attachment2, true},
		{unlisted, attachment, false},
		{unlisted, attachment2, true},
		{gateway, attachment, false},
		{99, attachment, false},
		{0, 0, false},
	} {
		if got := v.IsBehind(c.machine, c.at); got != c.want {
			t.Errorf("IsBehind(%d, %d) = %t", c.machine, c.at, got)
		}
	}
	for at, want := range map[Identity][]Identity{attachment: {listed}, attachment2: {listed, unlisted}, far: nil, 99: nil} {
		if got := v.Hosts(at); !slices.Equal(got, want) {
			t.Errorf("Hosts(%d) = %v, want %v", at, got, want)
		}
	}
}

// own2 is nobody's on the site.
var own2 = ether.MAC{2, 5: 0x77}

// A node speaks for itself, a gateway for its machines, and nobody for anybody else.
func TestMaySpeak(t *testing.T) {
	v := site(1)
	parties := []Identity{1, 2, gateway, gateway2, attachment, attachment2, listed, unlisted, far, 99}
	may := map[Identity][]Identity{
		2: {far}, gateway: {attachment, attachment2, listed, unlisted}, gateway2: {attachment, listed},
	}
	for _, node := range parties {
		for _, source := range append(parties, 0) {
			want := node == source || slices.Contains(may[node], source)
			if got := v.MaySpeak(node, source); got != want {
				t.Errorf("MaySpeak(%d, %d) = %t", node, source, got)
			}
		}
		redundant := node == gateway || node == gateway2
		if v.IsGateway(node) != (len(may[node]) > 0) || v.IsRedundant(node) != redundant {
			t.Errorf("%d is a gateway: %v, one of several: %v", node, v.IsGateway(node), v.IsRedundant(node))
		}
		if got, want := v.Own(node), append([]Identity{node}, may[node]...); !slices.Equal(got, sorted(want)) {
			t.Errorf("Own(%d) = %v, want %v", node, got, want)
		}
	}
	for id, want := range map[Identity][]Identity{1: nil, 99: nil, listed: {gateway, gateway2}, unlisted: {gateway}} {
		if got := v.Gateways(id); !slices.Equal(got, want) {
			t.Errorf("Gateways(%d) = %v, want %v", id, got, want)
		}
	}
}

// A gateway carries a VLAN if it speaks for everybody who may be there, as far as is known, and not for one host that may be elsewhere.
func TestMayCarry(t *testing.T) {
	v := site(1)
	for _, c := range []struct {
		node, attachment Identity
		want             bool
	}{
		{gateway, attachment, true},
		{gateway2, attachment, true},
		{gateway, attachment2, true},
		{gateway2, attachment2, false}, // although it speaks for a host that may be there
		{2, attachment, false},
		{2, far, true},
		{gateway, far, false},
		{gateway, listed, false},
		{gateway, 99, false},
		{attachment, attachment, false},
	} {
		if got := v.MayCarry(c.node, c.attachment); got != c.want {
			t.Errorf("%d carries %d: %v", c.node, c.attachment, got)
		}
	}
	stations := siteStations()
	delete(stations, attachment2)
	delete(stations, unlisted)
	if v := Compile(Rules{Generation: 1, Self: 1, Stations: stations}); !v.MayCarry(gateway2, attachment2) {
		t.Error("where nobody but that host is known, both may")
	}
}

// An address is somebody's own if it is listed for him, or he is a machine and it is nobody's; with his own MAC alone.
func TestMayHave(t *testing.T) {
	v := site(1)
	v4 := func(last byte) [16]byte { return ether.Mapped([4]byte{192, 0, 2, last}) }
	nobody := ether.MAC{2, 7, 7, 7, 7, 7}
	for _, c := range []struct {
		id   Identity
		mac  ether.MAC
		addr [16]byte
		want bool
	}{
		{1, ether.MAC{2, 5: 1}, addressOf(1), true},
		{1, ether.MAC{2, 5: 2}, addressOf(1), false},
		{1, ether.MAC{2, 5: 1}, addressOf(2), false},
		{1, ether.MAC{2, 5: 1}, v4(77), false},
		{listed, ether.MAC{2, 5: byte(listed)}, v4(byte(listed)), true},
		{listed, ether.MAC{2, 5: byte(listed)}, v4(77), false},
		{unlisted, ether.MAC{2, 5: byte(unlisted)}, v4(77), true},
		{unlisted, nobody, v4(77), false},
		{attachment, nobody, v4(77), true},
		{attachment, nobody, v4(byte(listed)), false},
		{attachment, ether.MAC{2, 5: byte(listed)}, v4(77), false},
		{99, nobody, v4(77), false},
	} {
		if got := v.MayHave(c.id, c.mac, c.addr); got != c.want {
			t.Errorf("%d with %s has %v: %v", c.id, c.mac, c.addr, got)
		}
	}
}

// sorted sorts all but the first.
func sorted(ids []Identity) []Identity {
	slices.Sort(ids[1:])
	return ids
}

// Whom a gateway's machines have to do with concerns the gateway; what links it takes are to nodes, and none to itself.
func TestAround(t *testing.T) {
	orphan := siteStations()
	orphan[50] = machine(ether.MAC{2, 5: 50}, nil, []Identity{51})
	v := Compile(Rules{Self: gateway, Stations: orphan, Expires: t0.Add(time.Hour), Grants: []Grant{
		{ID: 1, Segment: true, Sources: []Identity{listed, 1, far}},
		{ID: 2, Sources: []Identity{unlisted}, Targets: []Identity{attachment}, Expires: t0.Add(time.Minute)},
		{ID: 3, Sources: []Identity{99}, Targets: []Identity{50, 2}},
	}})
	later := t0.Add(time.Minute)
	for _, c := range []struct {
		node          Identity
		now           time.Time
		around, links []Identity
	}{
		{gateway, t0, []Identity{1, attachment, listed, unlisted, far}, []Identity{1, 2, gateway2}},
		{gateway, later, []Identity{1, listed, far}, []Identity{1, 2, gateway2}},
		{gateway2, t0, []Identity{1, attachment, listed, unlisted, far}, []Identity{1, 2, gateway}},
		{gateway2, later, []Identity{1, listed, far}, []Identity{1, 2, gateway}},
		{1, t0, []Identity{1, listed, far}, []Identity{2, gateway, gateway2}},
		{2, t0, []Identity{1, 2, listed, far, 99}, []Identity{1, gateway, gateway2, 99}},
		{99, t0, []Identity{2, 50, 99}, []Identity{2}}, // nobody speaks for 50
		{5, t0, nil, nil},
	} {
		if got := v.Around(c.node, c.now); !slices.Equal(got, ordered(c.around)) {
			t.Errorf("Around(%d) = %v, want %v", c.node, got, c.around)
		}
		if got := v.Links(c.node, c.now); !slices.Equal(got, c.links) {
			t.Errorf("Links(%d) = %v, want %v", c.node, got, c.links)
		}
	}
	if !v.Knows(2) || v.Knows(9) {
		t.Error("it does not know which grants there are")
	}
}

func ordered(ids []Identity) []Identity {
	slices.Sort(ids)
	return ids
}

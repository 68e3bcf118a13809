package dhcpd

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

const (
	vlan   policy.Identity = 20 // the attachment, and those behind it whom nobody named
	lister policy.Identity = 21 // a host that lists an address
)

var (
	t0        = time.Unix(1_800_000_000, 0)
	serverMAC = ether.MAC{2, 0xd, 0, 0, 0, 1}
	server    = netip.MustParseAddr("192.0.2.254")
	first     = netip.MustParseAddr("192.0.2.100")
	last      = netip.MustParseAddr("192.0.2.119")
)

func macOf(n byte) ether.MAC { return ether.MAC{2, 0xc, 0, 0, 0, n} }

// bench is a service, with what the state says of it.
type bench struct {
	t   *testing.T
	s   *Service
	st  State
	now time.Time
}

func newBench(t *testing.T, leases ...Lease) *bench {
	b := &bench{t: t, s: New(), now: t0, st: State{
		Server: server, MAC: serverMAC, Prefix: netip.MustParsePrefix("192.0.2.0/24"), MTU: 1400, From: first, To: last,
		Lease: time.Hour, Router: netip.MustParseAddr("192.0.2.1"), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Domain: "site.example",
		Listed:  map[policy.Identity]netip.Prefix{lister: netip.MustParsePrefix("192.0.2.9/24")},
		Expires: t0.Add(72 * time.Hour), Leases: leases,
	}}
	if got := b.set(leases...); len(got) > 0 {
		t.Fatalf("a first state sends %d frames", len(got))
	}
	return b
}

// set makes these be all leases.
func (b *bench) set(leases ...Lease) []Reply {
	b.st.Leases = leases
	return b.s.Set(&b.st, b.now)
}

func lease(n byte, phase Phase) Lease {
	return Lease{Machine: vlan, MAC: macOf(n), Address: netip.AddrFrom4([4]byte{192, 0, 2, 99 + n}), Phase: phase, Here: vlan}
}

// build is a message of a client in its frame.
func build(t *testing.T, mac ether.MAC, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(net.HardwareAddr(mac[:])), dhcpv4.WithMessageType(kind), dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: 68, DstPort: 67}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr(mac[:]), DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp,
		gopacket.Payload(m.ToBytes()))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (b *bench) ask(who policy.Identity, mac ether.MAC, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) []Reply {
	b.t.Helper()
	return b.s.Ask(Question{Attachment: vlan, Who: who, Frame: build(b.t, mac, kind, more...)}, b.now)
}

func requested(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP(a.AsSlice())))
}

func chosen(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP(a.AsSlice())))
}

func ciaddr(a netip.Addr) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.IP(a.AsSlice())) }

// said is what one frame says; kind is 0 for an ARP probe.
type said struct {
	kind dhcpv4.MessageType
	addr netip.Addr // yours, or the target of a probe
}

// read checks a frame's form, and says what it says.
func read(t *testing.T, r Reply) (said, *dhcpv4.DHCPv4) {
	t.Helper()
	p := gopacket.NewPacket(r.Frame, layers.LayerTypeEthernet, gopacket.Default)
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if !bytes.Equal(eth.SrcMAC, serverMAC[:]) || r.Attachment != vlan {
		t.Errorf("sent from %v to attachment %d", eth.SrcMAC, r.Attachment)
	}
	if arp, is := p.Layer(layers.LayerTypeARP).(*layers.ARP); is {
		target, _ := netip.AddrFromSlice(arp.DstProtAddress)
		if !bytes.Equal(arp.SourceProtAddress, []byte{0, 0, 0, 0}) || eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" {
			t.Errorf("it is no probe: %+v", arp)
		}
		return said{0, target}, nil
	}
	ip, udp := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ether.Checksum(0, ip.Contents) != 0 || udp.SrcPort != 67 || udp.DstPort != 68 || int(ip.Length) != len(r.Frame)-14 {
		t.Errorf("headers %+v %+v", ip, udp)
	}
	pseudo := append(append(append([]byte{}, ip.SrcIP.To4()...), ip.DstIP.To4()...), 0, 17)
	pseudo = binary.BigEndian.AppendUint16(pseudo, udp.Length)
	if ether.Checksum(ether.Sum(0, pseudo), ip.Payload) != 0 {
		t.Error("UDP checksum is wrong")
	}
	m, err := dhcpv4.FromBytes(udp.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := netip.AddrFromSlice(m.ServerIdentifier().To4()); got != server || m.TransactionID != (dhcpv4.TransactionID{1, 2, 3, 4}) {
		t.Errorf("server identifier %v, transaction %v", got, m.TransactionID)
	}
	yours, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
	if yours.IsUnspecified() {
		yours = netip.Addr{}
	}
	return said{m.MessageType(), yours}, m
}

// says checks what is sent.
func (b *bench) says(what string, got []Reply, want ...said) {
	b.t.Helper()
	var list []said
	for _, r := range got {
		x, _ := read(b.t, r)
		list = append(list, x)
	}
	if !slices.Equal(list, want) {
		b.t.Errorf("%s: sent %v, want %v", what, list, want)
	}
}

// reports takes what is to be told, as if it had been.
func (b *bench) reports(refused ...Refusal) (out []Report) {
	list := b.s.Reports(b.now)
	for _, r := range list {
		x := *r
		x.since = time.Time{}
		out = append(out, x)
	}
	for i := range refused {
		refused[i].Report = list[0]
	}
	b.s.Told(list, refused, b.now)
	return out
}

func (b *bench) tells(what string, want ...Report) {
	b.t.Helper()
	if got := b.reports(); !slices.Equal(got, want) {
		b.t.Errorf("%s: told %+v, want %+v", what, got, want)
	}
}

// A machine that has nothing is given an address in four messages, of which two wait for the controller.
func TestFirstLease(t *testing.T) {
	b := newBench(t)
	mac, at := macOf(1), lease(1, Offered).Address
	b.says("DISCOVER", b.ask(vlan, mac, dhcpv4.MessageTypeDiscover, requested(at), dhcpv4.WithOption(dhcpv4.OptHostName("a b\x01c"))))
	b.says("again, before there is an answer", b.ask(vlan, mac, dhcpv4.MessageTypeDiscover, requested(at), dhcpv4.WithOption(dhcpv4.OptHostName("abc"))))
	b.tells("DISCOVER", Report{Act: Ask, Attachment: vlan, MAC: mac, Address: at, Name: "abc"})
	b.says("offered", b.set(lease(1, Offered)), said{0, at})
	b.now = b.now.Add(probeWait / 2)
	b.says("while the probe may be answered", b.s.Tick(b.now))
	b.now = b.now.Add(probeWait)
	b.says("nobody has answered", b.s.Tick(b.now), said{dhcpv4.MessageTypeOffer, at})
	b.says("once", b.s.Tick(b.now))
	b.says("REQUEST", b.ask(vlan, mac, dhcpv4.MessageTypeRequest, requested(at), chosen(server)))
	b.tells("REQUEST", Report{Act: Bind, Attachment: vlan, MAC: mac, Address: at})
	b.says("the same state again", b.set(lease(1, Offered)))
	b.says("bound", b.set(lease(1, Bound)), said{dhcpv4.MessageTypeAck, at})
	if l := lease(1, Bound); !b.s.Expires(&l).Equal(b.now.Add(time.Hour)) {
		t.Errorf("it ends at %v", b.s.Expires(&l))
	}
	b.says("once", b.set(lease(1, Bound)))
	b.tells("what is known")
}

// What is confirmed, refused, and met with silence (RFC 2131 section 4.3.2).
func TestRequests(t *testing.T) {
	bound, offered, ended := lease(1, Bound), lease(2, Offered), lease(3, Ended)
	other, far := netip.MustParseAddr("192.0.2.118"), netip.MustParseAddr("198.51.100.7")
	outside := Lease{Machine: vlan, MAC: macOf(4), Address: netip.MustParseAddr("192.0.2.50"), Phase: Bound, Here: vlan}
	ack, nak := dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak
	listed := netip.MustParseAddr("192.0.2.9")
	renewed := Report{Act: Renew, Attachment: vlan, MAC: bound.MAC, Address: bound.Address}
	for _, c := range []struct {
		name string
		who  policy.Identity
		mac  ether.MAC
		ask  []dhcpv4.Modifier
		want []said
		told []Report
	}{
		{"renews", vlan, bound.MAC, []dhcpv4.Modifier{ciaddr(bound.Address)}, []said{{ack, bound.Address}}, []Report{renewed}},
		{"after a reboot", vlan, bound.MAC, []dhcpv4.Modifier{requested(bound.Address)}, []said{{ack, bound.Address}}, []Report{renewed}},
		{"from another server", vlan, bound.MAC, []dhcpv4.Modifier{requested(bound.Address), chosen(other)}, nil, nil},
		{"another's address", vlan, bound.MAC, []dhcpv4.Modifier{requested(offered.Address)}, []said{{nak, netip.Addr{}}}, nil},
		{"another network's", vlan, bound.MAC, []dhcpv4.Modifier{requested(far)}, []said{{nak, netip.Addr{}}}, nil},
		{"without a lease", vlan, macOf(9), []dhcpv4.Modifier{requested(other)}, []said{{nak, netip.Addr{}}}, nil},
		{"without an address", vlan, bound.MAC, nil, []said{{nak, netip.Addr{}}}, nil},
		{
			"what is offered", vlan, offered.MAC,
			[]dhcpv4.Modifier{requested(offered.Address), chosen(server)},
			nil,
			[]Report{{Act: Bind, Attachment: vlan, MAC: offered.MAC, Address: offered.Address}},
		},
		{
			"what has ended", vlan, ended.MAC,
			[]dhcpv4.Modifier{ciaddr(ended.Address)},
			nil,
			[]Report{{Act: Bind, Attachment: vlan, MAC: ended.MAC, Address: ended.Address}},
		},
		{"what is not of the pool any more", vlan, outside.MAC, []dhcpv4.Modifier{ciaddr(outside.Address)}, []said{{nak, netip.Addr{}}}, nil},
		{"another machine with its MAC", 30, bound.MAC, []dhcpv4.Modifier{ciaddr(bound.Address)}, []said{{nak, netip.Addr{}}}, nil},
		{"a listed address", lister, macOf(21), []dhcpv4.Modifier{requested(listed), chosen(server)}, []said{{ack, listed}}, nil},
		{"a host, another than it lists", lister, macOf(21), []dhcpv4.Modifier{requested(other)}, []said{{nak, netip.Addr{}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, bound, offered, ended, outside)
			b.now = b.now.Add(2 * letGoDelay) // past the report that one has ended
			b.tells("an end", Report{Act: LetGo, Attachment: vlan, MAC: ended.MAC, Address: ended.Address})
			b.says("REQUEST", b.ask(c.who, c.mac, dhcpv4.MessageTypeRequest, c.ask...), c.want...)
			b.now = b.now.Add(renewMost)
			b.tells("REQUEST", c.told...)
		})
	}
}

// What is offered at once: what a host lists, and what a machine has had before.
func TestOffers(t *testing.T) {
	offer := dhcpv4.MessageTypeOffer
	b := newBench(t, lease(1, Bound), lease(3, Ended))
	b.says("bound", b.ask(vlan, macOf(1), dhcpv4.MessageTypeDiscover), said{offer, lease(1, Bound).Address})
	b.says("ended", b.ask(vlan, macOf(3), dhcpv4.MessageTypeDiscover), said{offer, lease(3, Ended).Address})
	b.says("listed", b.ask(lister, macOf(21), dhcpv4.MessageTypeDiscover), said{offer, netip.MustParseAddr("192.0.2.9")})
	b.st.From, b.st.To = netip.Addr{}, netip.Addr{}
	b.set()
	b.reports()
	b.says("without a pool", b.ask(vlan, macOf(5), dhcpv4.MessageTypeDiscover))
	b.tells("without a pool")
}

// What a client is told beside its address (RFC 2132), and where the answer goes (RFC 2131 section 4.1).
func TestOptions(t *testing.T) {
	b := newBench(t, lease(1, Bound))
	at := lease(1, Bound).Address
	id := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, []byte{1, 2, 3}))
	for _, c := range []struct {
		name string
		kind dhcpv4.MessageType
		ask  []dhcpv4.Modifier
		mac  ether.MAC
		ip   netip.Addr
	}{
		{"to the address that it will have", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{id, requested(at)}, macOf(1), at},
		{"to everybody, as it asks for", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{id, requested(at), dhcpv4.WithBroadcast(true)}, ether.Broadcast, netip.AddrFrom4([4]byte{255, 255, 255, 255})},
		{"to the address that it has", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{id, ciaddr(at), dhcpv4.WithBroadcast(true)}, macOf(1), at},
		{"INFORM", dhcpv4.MessageTypeInform, []dhcpv4.Modifier{id, ciaddr(netip.MustParseAddr("192.0.2.77"))}, macOf(1), netip.MustParseAddr("192.0.2.77")},
	} {
		got := b.ask(vlan, macOf(1), c.kind, c.ask...)
		if len(got) != 1 {
			t.Fatalf("%s: %d frames", c.name, len(got))
		}
		f, _ := ether.Parse(got[0].Frame)
		ip, _ := ether.ParseIPv4(f.Payload)
		if f.Dst != c.mac || netip.AddrFrom4(ip.Dst) != c.ip {
			t.Errorf("%s: to %v, %v", c.name, f.Dst, netip.AddrFrom4(ip.Dst))
		}
		x, m := read(t, got[0])
		inform := c.kind == dhcpv4.MessageTypeInform
		if x.kind != dhcpv4.MessageTypeAck || x.addr.IsValid() == inform || (m.IPAddressLeaseTime(0) == time.Hour) == inform {
			t.Errorf("%s: %v, lease of %v", c.name, x, m.IPAddressLeaseTime(0))
		}
		if ones, _ := m.SubnetMask().Size(); ones != 24 || m.Router()[0].String() != "192.0.2.1" || m.DNS()[0].String() != "192.0.2.53" ||
			m.DomainName() != "site.example" || m.DomainSearch().Labels[0] != "site.example" ||
			!bytes.Equal(m.Options.Get(dhcpv4.OptionInterfaceMTU), []byte{5, 120}) || !bytes.Equal(m.Options.Get(dhcpv4.OptionClientIdentifier), []byte{1, 2, 3}) {
			t.Errorf("%s: options %v", c.name, m.Options)
		}
	}
	nak := b.ask(vlan, macOf(1), dhcpv4.MessageTypeRequest, requested(last))
	if f, _ := ether.Parse(nak[0].Frame); f.Dst != ether.Broadcast {
		t.Errorf("a refusal goes to %v", f.Dst)
	}
}

// Who says on one VLAN that he has addresses of the pool keeps nobody on another VLAN from them, and an address that nobody has on one is
// looked for on the other.
func TestSquatsElsewhere(t *testing.T) {
	const other = lister + 1
	b := newBench(t)
	at := lease(1, Offered).Address
	b.s.Squats(other, ether.MAC{2, 9}, at, b.now)
	b.s.probed[spot{other, at}] = b.now.Add(-probeWait)
	b.set(lease(1, Offered))
	b.says("the address is looked for here", b.ask(vlan, macOf(1), dhcpv4.MessageTypeDiscover), said{0, at})
	b.now = b.now.Add(2 * probeWait)
	b.says("and nobody has answered here", b.s.Tick(b.now), said{dhcpv4.MessageTypeOffer, at})
	b.says("it waits to be bound", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRequest, requested(at), chosen(server)))
	b.tells("it is bound", Report{Act: Bind, Attachment: vlan, MAC: macOf(1), Address: at})
}

// Addresses that somebody uses who has no lease are found by a probe, or by the client, and are given to nobody.
func TestConflicts(t *testing.T) {
	b := newBench(t)
	at := lease(1, Offered).Address
	declined := Report{Act: Decline, Attachment: vlan, MAC: macOf(1), Address: at}
	b.ask(vlan, macOf(1), dhcpv4.MessageTypeDiscover)
	b.reports()
	b.says("offered", b.set(lease(1, Offered)), said{0, at})
	b.s.Squats(vlan, ether.MAC{2, 9}, at, b.now)
	b.s.Squats(vlan, serverMAC, last, b.now)                                   // its own probe
	b.s.Squats(vlan, ether.MAC{2, 9}, netip.MustParseAddr("192.0.2.9"), b.now) // not of the pool
	b.now = b.now.Add(2 * probeWait)
	b.says("somebody has answered", b.s.Tick(b.now))
	b.tells("somebody has answered", declined, Report{Act: Ask, Attachment: vlan, MAC: macOf(1)})
	if b.s.Problem(b.now) == "" || b.s.Stats().Conflicts != 1 {
		t.Errorf("problem %q, %d conflicts", b.s.Problem(b.now), b.s.Stats().Conflicts)
	}
	b.says("a lease that is squatted cannot be bound", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRequest, requested(at), chosen(server)), said{dhcpv4.MessageTypeNak, netip.Addr{}})
	b.tells("it cannot be bound", declined)
	b.now = b.now.Add(squatTime)
	b.s.Tick(b.now)
	if got := b.s.Problem(b.now); got != "" {
		t.Errorf("after a while there is still %q", got)
	}
	b.set(lease(1, Bound))
	b.says("DECLINE of another server", b.ask(vlan, macOf(1), dhcpv4.MessageTypeDecline, requested(at), chosen(first)))
	b.says("DECLINE of another address", b.ask(vlan, macOf(1), dhcpv4.MessageTypeDecline, requested(last), chosen(server)))
	b.says("DECLINE of who has nothing", b.ask(vlan, macOf(9), dhcpv4.MessageTypeDecline, requested(at), chosen(server)))
	b.tells("what is declined elsewhere")
	b.says("DECLINE", b.ask(vlan, macOf(1), dhcpv4.MessageTypeDecline, requested(at), chosen(server)))
	b.tells("DECLINE", declined)
}

func TestRelease(t *testing.T) {
	b := newBench(t, lease(1, Bound))
	at := lease(1, Bound).Address
	b.says("of another address", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRelease, ciaddr(last), chosen(server)))
	b.says("to another server", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRelease, ciaddr(at), chosen(first)))
	b.says("of another machine", b.ask(vlan, macOf(2), dhcpv4.MessageTypeRelease, ciaddr(at), chosen(server)))
	b.tells("what is not its own")
	b.says("RELEASE", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRelease, ciaddr(at), chosen(server)))
	b.tells("RELEASE", Report{Act: Release, Attachment: vlan, MAC: macOf(1), Address: at})
	b.says("RELEASE to whomever", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRelease, ciaddr(at)))
	b.tells("RELEASE to whomever", Report{Act: Release, Attachment: vlan, MAC: macOf(1), Address: at})
}

// What the controller refuses: who asked is silent and asks again, who wanted to bind is refused, and an administrator hears of a full pool.
func TestRefusals(t *testing.T) {
	b := newBench(t, lease(2, Offered))
	b.ask(vlan, macOf(1), dhcpv4.MessageTypeDiscover)
	b.reports(Refusal{Reason: "full up", Full: true})
	if b.s.Problem(b.now) != "full up" || b.s.Stats().Refused != 1 {
		t.Errorf("problem %q", b.s.Problem(b.now))
	}
	b.says("later it has a lease, and waits no more", b.set(lease(1, Offered), lease(2, Offered)))
	at := lease(2, Offered).Address
	b.ask(vlan, macOf(2), dhcpv4.MessageTypeRequest, requested(at), chosen(server))
	list := b.s.Reports(b.now)
	b.says("the bind is refused", b.s.Told(list, []Refusal{{Report: list[0], Reason: "no"}}, b.now), said{dhcpv4.MessageTypeNak, netip.Addr{}})
	b.now = b.now.Add(fullTime)
	if got := b.s.Problem(b.now); got != "" {
		t.Errorf("after a while there is still %q", got)
	}
}

// Nothing is confirmed by a state that is void, and who waits too long is forgotten.
func TestTimes(t *testing.T) {
	b := newBench(t, lease(1, Bound), lease(2, Offered))
	at := lease(2, Offered).Address
	b.ask(vlan, macOf(2), dhcpv4.MessageTypeRequest, requested(at), chosen(server))
	b.now = b.now.Add(patience)
	b.s.Tick(b.now)
	b.says("bound too late", b.set(lease(1, Bound), lease(2, Bound)))
	b.now = b.st.Expires
	b.says("void", b.ask(vlan, macOf(1), dhcpv4.MessageTypeRequest, ciaddr(lease(1, Bound).Address)))
	// A renewal is told with others, a little later; an end as well.
	b = newBench(t, lease(1, Bound))
	b.ask(vlan, macOf(1), dhcpv4.MessageTypeRequest, ciaddr(lease(1, Bound).Address))
	b.tells("at once")
	b.set(lease(1, Ended))
	b.set(lease(1, Ended))
	b.now = b.now.Add(letGoDelay)
	b.tells("later", Report{Act: Renew, Attachment: vlan, MAC: macOf(1), Address: lease(1, Bound).Address},
		Report{Act: LetGo, Attachment: vlan, MAC: macOf(1), Address: lease(1, Bound).Address})
}

// A renewal that waits is not told after what the machine has said since: an address that was given back would be bound again.
func TestRenewalIsNoLastWord(t *testing.T) {
	b := newBench(t, lease(1, Bound), lease(2, Bound))
	for n := range byte(2) {
		b.ask(vlan, macOf(n+1), dhcpv4.MessageTypeRequest, ciaddr(lease(n+1, Bound).Address))
	}
	b.ask(vlan, macOf(1), dhcpv4.MessageTypeRelease, ciaddr(lease(1, Bound).Address), chosen(server))
	b.tells("given back", Report{Act: Release, Attachment: vlan, MAC: macOf(1), Address: lease(1, Bound).Address},
		Report{Act: Renew, Attachment: vlan, MAC: macOf(2), Address: lease(2, Bound).Address})
}

// Renewals are told together, after an eighth of a lease: each time is an entry that a controller keeps for ever. What a machine waits for is told at once, before
// them, however many there are.
func TestRenewalsAreToldTogether(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{time.Minute: renewLeast, time.Hour: time.Hour / 8, 24 * time.Hour: renewMost} {
		b := newBench(t)
		b.st.Lease = life
		var leases []Lease
		for i := range byte(40) {
			leases = append(leases, lease(1+i%9, Bound))
			leases[i].MAC, leases[i].Address = macOf(100+i), netip.AddrFrom4([4]byte{192, 0, 2, 100 + i})
		}
		b.st.From, b.st.To = leases[0].Address, leases[39].Address
		b.set(leases...)
		for i := range byte(40) {
			b.ask(vlan, leases[i].MAC, dhcpv4.MessageTypeRequest, ciaddr(leases[i].Address))
			b.now = b.now.Add(100 * time.Millisecond)
		}
		b.now = b.now.Add(want - 40*100*time.Millisecond)
		b.now = b.now.Add(-time.Millisecond)
		if list := b.s.Reports(b.now); len(list) != 0 {
			t.Errorf("of a lease of %v %d renewals are told before %v", life, len(list), want)
		}
		if list := b.s.Reports(b.now.Add(time.Millisecond)); len(list) != reportsOnce {
			t.Errorf("of a lease of %v %d renewals are told after %v", life, len(list), want)
		}
		b.ask(vlan, macOf(7), dhcpv4.MessageTypeDiscover)
		list := b.s.Reports(b.now)
		if len(list) != reportsOnce || list[0].Act != Ask || list[1].Act != Renew {
			t.Errorf("a machine waits, and %d are told, the first %+v", len(list), list[0])
		}
		b.s.Told(list, nil, b.now)
		if list = b.s.Reports(b.now.Add(time.Minute)); life == time.Minute && len(list) != 11 {
			t.Errorf("then %d are told, want the rest", len(list))
		}
	}
}

// One identity cannot ask for ever, and only so many can wait.
func TestLimits(t *testing.T) {
	b := newBench(t)
	for i := range maxWaiting + 2*burst {
		b.ask(policy.Identity(100+i/burst), ether.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, dhcpv4.MessageTypeDiscover)
	}
	if n := len(b.s.waiting); n != maxWaiting {
		t.Errorf("%d wait", n)
	}
	again, limited := tenant{100, ether.MAC{2, 1}}, b.s.Stats().Limited
	if b.s.waiting[again] == nil || !b.s.wait(&waiting{q: Question{Who: 100}, m: b.s.waiting[again].m}) || b.s.Stats().Limited != limited {
		t.Error("who waits cannot ask again when there is no more room")
	}
	was := b.s.Stats().Limited
	for range 2 * burst {
		b.ask(7, macOf(7), dhcpv4.MessageTypeInform)
	}
	if n := b.s.Stats().Limited - was; n != burst {
		t.Errorf("%d of %d were too many", n, 2*burst)
	}
	b.set(Lease{Machine: 7, MAC: macOf(8), Address: first, Phase: Bound, Here: vlan})
	for range 2 * ofTenant {
		b.says("who has a lease renews all the same", b.ask(7, macOf(8), dhcpv4.MessageTypeRequest, ciaddr(first)), said{dhcpv4.MessageTypeAck, first})
	}
	b.says("and does not for ever", b.ask(7, macOf(8), dhcpv4.MessageTypeRequest, ciaddr(first)))
	b.set()
	if n := len(b.s.buckets); n != 6 {
		t.Errorf("%d buckets are kept", n)
	}
	b.now = b.now.Add(time.Second)
	was = b.s.Stats().Limited
	for range perSecond {
		b.ask(7, macOf(7), dhcpv4.MessageTypeInform)
	}
	if n := b.s.Stats().Limited - was; n != 0 {
		t.Errorf("after a second %d were too many", n)
	}
	for i := range 2 * maxSquats {
		b.st.To = netip.MustParseAddr("192.0.255.254")
		b.set()
		b.s.Squats(vlan, macOf(1), netip.AddrFrom4([4]byte{192, 0, byte(3 + i>>8), byte(i)}), b.now)
	}
	if n := len(b.s.squats); n != maxSquats {
		t.Errorf("%d squat", n)
	}
	const other = lister + 1
	b.s.Squats(other, macOf(1), netip.MustParseAddr("192.0.3.1"), b.now)
	if n := len(b.s.squats); n != maxSquats+1 {
		t.Errorf("with one behind another attachment %d squat", n)
	}
	b.now = b.now.Add(squatTime)
	b.s.Tick(b.now)
	if len(b.s.squats) != 0 || len(b.s.many) != 0 {
		t.Errorf("after a while %d still squat, behind %v", len(b.s.squats), b.s.many)
	}
}

// What is no question of a client that asks for itself is passed over.
func TestMalformed(t *testing.T) {
	b := newBench(t, lease(1, Bound))
	good := build(t, macOf(1), dhcpv4.MessageTypeDiscover)
	changed := func(at int, to byte) []byte {
		x := bytes.Clone(good)
		x[at] = to
		return x
	}
	const dhcp = 14 + 20 + 8
	for _, c := range []struct {
		name string
		in   []byte
	}{
		{"cut", good[:100]},
		{"nothing", nil},
		{"no IP", changed(12, 9)},
		{"no UDP", changed(23, 6)},
		{"a fragment", changed(20, 0x20)},
		{"a reply", changed(dhcp, 2)},
		{"of a relay agent", changed(dhcp+24, 1)},
		{"of another client", changed(dhcp+33, 9)},
		{"no cookie", changed(dhcp+236, 0)},
		{"no kind", build(t, macOf(1), dhcpv4.MessageTypeNone)},
		{"an answer's kind", build(t, macOf(1), dhcpv4.MessageTypeAck)},
	} {
		was := b.s.Stats().Malformed
		if got := b.s.Ask(Question{vlan, vlan, c.in}, b.now); len(got) > 0 || b.s.Stats().Malformed != was+1 {
			t.Errorf("%s: %d frames", c.name, len(got))
		}
	}
	b.says("good", b.s.Ask(Question{vlan, vlan, good}, b.now), said{dhcpv4.MessageTypeOffer, lease(1, Bound).Address})
}

func FuzzAsk(f *testing.F) {
	t := &testing.T{}
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform} {
		f.Add(build(t, macOf(1), kind, requested(first), chosen(server), ciaddr(first)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBench(t, lease(1, Bound), lease(2, Offered))
		for _, r := range b.s.Ask(Question{vlan, vlan, bytes.Clone(in)}, b.now) {
			fr, err := ether.Parse(r.Frame)
			if err != nil || fr.Src != serverMAC {
				t.Fatalf("answered with %x", r.Frame)
			}
			// Whatever it asks, nobody is told of an address that another has.
			if ip, ok := ether.ParseIPv4(fr.Payload); ok {
				yours := netip.AddrFrom4([4]byte(ip.Payload[8+16 : 8+20]))
				if !yours.IsUnspecified() && yours != lease(1, Bound).Address && yours != lease(2, Bound).Address {
					t.Fatalf("gave away %v", yours)
				}
			}
		}
	})
}

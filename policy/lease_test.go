package policy

import (
	"net/netip"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

// What leases let machines use: of the pool what is leased to this very MAC, elsewhere what is nobody's to who has no lease.
func TestLeases(t *testing.T) {
	const crowd, host, lister, elsewhere Identity = 20, 21, 22, 30
	serverMAC, a, b, c := ether.MAC{2, 0xd, 5: 1}, ether.MAC{2, 5: 0xa}, ether.MAC{2, 5: 0xb}, ether.MAC{2, 5: 0xc}
	hostMAC, listerMAC := ether.MAC{2, 5: 21}, ether.MAC{2, 5: 22}
	at := func(text string) netip.Addr { return netip.MustParseAddr(text) }
	v := Compile(Rules{
		Stations: map[Identity]*Station{
			crowd:     machine(ether.MAC{}, []Identity{3}, []Identity{crowd}),
			elsewhere: machine(ether.MAC{}, []Identity{4}, []Identity{elsewhere}),
			host:      machine(hostMAC, []Identity{3}, []Identity{crowd}),
			lister:    machine(listerMAC, []Identity{3}, []Identity{crowd}, at("192.0.2.110")),
			2:         NewStation(ether.MAC{2, 5: 2}, []netip.Addr{at("192.0.2.111")}, false),
		},
		Service: &Service{Address: [4]byte{192, 0, 2, 254}, MAC: serverMAC, From: at("192.0.2.100"), To: at("192.0.2.119")},
		Leases:  map[Identity][]Lease{crowd: {{at("192.0.2.100"), a}, {at("192.0.2.101"), b}}, host: {{at("192.0.2.102"), hostMAC}}},
	})
	for _, x := range []struct {
		name string
		who  Identity
		mac  ether.MAC
		addr string
		want bool
	}{
		{"its own lease", crowd, a, "192.0.2.100", true},
		{"the lease of another MAC", crowd, b, "192.0.2.100", false},
		{"the lease of a host", crowd, a, "192.0.2.102", false},
		{"a lease from elsewhere, with the same MAC", elsewhere, a, "192.0.2.100", false},
		{"a host's own lease", host, hostMAC, "192.0.2.102", true},
		{"a host, another's lease", host, hostMAC, "192.0.2.100", false},
		{"an address of the pool that nobody has", crowd, c, "192.0.2.105", false},
		{"the first of the pool's neighbours", crowd, c, "192.0.2.99", true},
		{"the last of the pool's neighbours", crowd, c, "192.0.2.120", true},
		{"the last of the pool", crowd, c, "192.0.2.119", false},
		{"the service's address", crowd, c, "192.0.2.254", false},
		{"another address beside a lease", crowd, a, "192.0.2.50", false},
		{"a link-local address beside a lease", crowd, a, "169.254.1.1", true},
		{"another host's lease does not bind it", elsewhere, b, "192.0.2.50", true},
		{"an IPv6 address beside a lease", crowd, a, "2001:db8::77", true},
		{"an address of the pool that it lists", lister, listerMAC, "192.0.2.110", true},
		{"any lease, of an attachment", crowd, ether.MAC{}, "192.0.2.101", true},
		{"none of an attachment", crowd, ether.MAC{}, "192.0.2.105", false},
	} {
		s := v.Station(x.who).as(x.mac)
		addr := at(x.addr)
		if got := s.has(addr.As16()); got != x.want {
			t.Errorf("%s: %t", x.name, got)
		}
	}
	if node := v.Station(2); !node.has(at("192.0.2.111").As16()) {
		t.Error("a node lost an address of the pool that it has")
	}
	if _, verdict := v.Behind(crowd, serverMAC); verdict != PinnedMAC {
		t.Errorf("the service's MAC behind an attachment: %v", verdict)
	}
	if v.MayUse(crowd, serverMAC) || v.MayUse(elsewhere, serverMAC) {
		t.Error("somebody may use the service's MAC")
	}
	if who, verdict := v.Behind(crowd, c); who != crowd || verdict != Pass || !v.MayUse(crowd, c) {
		t.Errorf("a MAC that is nobody's, behind an attachment: %d, %v", who, verdict)
	}
	if s := v.Station(crowd).as(a); testing.AllocsPerRun(100, func() { s.has(at("192.0.2.100").As16()) }) != 0 {
		t.Error("it allocates")
	}
}

// The pool is all from the first address to the last, of IPv4 alone; there is none without a first.
func TestInPool(t *testing.T) {
	from, to := netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("192.0.2.119")
	for _, x := range []struct {
		service Service
		addr    string
		want    bool
	}{
		{Service{From: from, To: to}, "192.0.2.100", true},
		{Service{From: from, To: to}, "192.0.2.119", true},
		{Service{From: from, To: to}, "192.0.2.99", false},
		{Service{From: from, To: to}, "192.0.2.120", false},
		{Service{From: from, To: to}, "2001:db8::c000:26e", false},
		{Service{From: from, To: to}, "::ffff:192.0.2.110", false},
		{Service{To: to}, "192.0.2.110", false},
		{Service{}, "192.0.2.110", false},
	} {
		if got := x.service.InPool(netip.MustParseAddr(x.addr)); got != x.want {
			t.Errorf("%s, of %v to %v: %t", x.addr, x.service.From, x.service.To, got)
		}
	}
}

// Without a service nothing is withheld, whatever leases are told.
func TestLeasesWithoutService(t *testing.T) {
	v := Compile(Rules{
		Stations: map[Identity]*Station{20: machine(ether.MAC{}, []Identity{3}, []Identity{20})},
		Leases:   map[Identity][]Lease{20: {{netip.MustParseAddr("192.0.2.100"), ether.MAC{2}}}},
	})
	one := v.Station(20).as(ether.MAC{2, 1})
	if addr := netip.MustParseAddr("192.0.2.100"); !one.has(addr.As16()) || v.Service() != nil {
		t.Error("a lease of no service withholds an address")
	}
}

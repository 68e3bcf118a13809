package model

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

var leaseTime = time.Unix(1_800_000_000, 0)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// dhcpAt is a service of segment 1 with ten addresses, from 100 to 109.
func dhcpAt() *DHCP {
	return &DHCP{VNI: 1, Server: addr("10.64.0.254"), MAC: MAC{2, 0xd}, From: addr("10.64.0.100"), To: addr("10.64.0.109"), Lease: Duration(time.Hour)}
}

// TestCheckDHCP: each row is one good service with one thing other.
func TestCheckDHCP(t *testing.T) {
	m := site(t)
	for name, c := range map[string]struct {
		edit func(*DHCP)
		want string // "": it is taken
	}{
		"as it is":                 {func(*DHCP) {}, ""},
		"no pool":                  {func(d *DHCP) { d.From, d.To = netip.Addr{}, netip.Addr{} }, ""},
		"a pool of one":            {func(d *DHCP) { d.To = d.From }, ""},
		"a pool that ends before":  {func(d *DHCP) { d.From, d.To = d.To, d.From }, "ends before it begins"},
		"half a pool":              {func(d *DHCP) { d.To = netip.Addr{} }, "not of addresses"},
		"a pool elsewhere":         {func(d *DHCP) { d.From, d.To = addr("10.65.0.1"), addr("10.65.0.9") }, "not of addresses"},
		"a pool from the prefix":   {func(d *DHCP) { d.From = addr("10.64.0.0") }, "not of addresses"},
		"a pool to the broadcast":  {func(d *DHCP) { d.To = addr("10.64.0.255") }, "not of addresses"},
		"a pool of all":            {func(d *DHCP) { d.From, d.To = addr("10.64.0.1"), addr("10.64.0.254") }, "left for the service itself"},
		"a lease of a minute":      {func(d *DHCP) { d.Lease = Duration(time.Minute) }, ""},
		"a shorter lease":          {func(d *DHCP) { d.Lease = Duration(time.Minute - time.Second) }, "lease is"},
		"a longer lease":           {func(d *DHCP) { d.Lease = Duration(maxLease + time.Second) }, "lease is"},
		"a lease of half a second": {func(d *DHCP) { d.Lease += Duration(time.Millisecond) }, "whole seconds"},
		"a router":                 {func(d *DHCP) { d.Router = addr("10.64.0.1") }, ""},
		"a router elsewhere":       {func(d *DHCP) { d.Router = addr("192.0.2.1") }, "router"},
		"a router of the pool":     {func(d *DHCP) { d.Router = addr("10.64.0.105") }, "outside the pool"},
		"DNS servers":              {func(d *DHCP) { d.DNS = []netip.Addr{addr("192.0.2.1"), addr("10.64.0.1")} }, ""},
		"a DNS server of IPv6":     {func(d *DHCP) { d.DNS = []netip.Addr{addr("2001:db8::1")} }, "DNS server"},
		"too many DNS servers":     {func(d *DHCP) { d.DNS = make([]netip.Addr, maxResolvers+1) }, "at most"},
		"a domain":                 {func(d *DHCP) { d.Domain = "site.example" }, ""},
		"a domain that is none":    {func(d *DHCP) { d.Domain = "a b" }, "no DNS name"},
	} {
		d := dhcpAt()
		d.Server, d.MAC = netip.Addr{}, MAC{}
		c.edit(d)
		err := m.CheckDHCP(d)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (d.Server != addr("10.64.0.254") || d.MAC == (MAC{}) || d.MAC[0]&3 != 2) {
			t.Errorf("%s: the service is %s, %s", name, d.Server, d.MAC)
		}
	}
	// What it has it keeps, unless that is somebody's now.
	m = site(t, dhcpAt())
	d := dhcpAt()
	d.Server, d.MAC, d.To = netip.Addr{}, MAC{}, addr("10.64.0.120")
	if err := m.CheckDHCP(d); err != nil || d.Server != addr("10.64.0.254") || d.MAC != (MAC{2, 0xd}) {
		t.Errorf("it became %s, %s: %v", d.Server, d.MAC, err)
	}
}

// What a service withholds from nodes and hosts.
func TestDHCPWithholds(t *testing.T) {
	d := dhcpAt()
	d.From, d.To = addr("10.64.0.2"), addr("10.64.0.109")
	leased := &Lease{VNI: 1, Address: addr("10.64.0.100"), Machine: 10, MAC: MAC{2, 1}, State: LeaseBound}
	m := site(t, d, leased)
	if a, err := m.occupied(1).lowestFree(m.Segments[1]); err != nil || a != addr("10.64.0.110") {
		t.Errorf("a node is given %s: %v", a, err)
	}
	_, err := m.WithMode(m.Nodes[3], m.Segments[1], ModeStatic, []netip.Prefix{pfx("10.64.0.100/24")})
	if err == nil || !strings.Contains(err.Error(), "is leased") {
		t.Errorf("a node takes a lease: %v", err)
	}
	_, err = m.WithMode(m.Nodes[3], m.Segments[1], ModeStatic, []netip.Prefix{pfx("10.64.0.254/24")})
	if err == nil || !strings.Contains(err.Error(), "DHCP service") {
		t.Errorf("a node takes the service's address: %v", err)
	}
	if _, err = m.WithMode(m.Nodes[3], m.Segments[1], ModeStatic, []netip.Prefix{pfx("10.64.0.101/24")}); err != nil {
		t.Errorf("an administrator cannot give an address of the pool: %v", err)
	}
	host := func(mac MAC, a string) error {
		return m.CheckHost(&Host{Name: "new", MAC: mac, VNI: 1, Attachments: []identity.ID{10}, Addresses: []netip.Prefix{pfx(a)}})
	}
	if err := host(MAC{2, 9}, "10.64.0.100/24"); err == nil || !strings.Contains(err.Error(), "is leased") {
		t.Errorf("a host takes another's lease: %v", err)
	}
	if err := host(MAC{2, 1}, "10.64.0.100/24"); err != nil {
		t.Errorf("a host cannot keep its own: %v", err)
	}
	if err := host(MAC{2, 0xd}, "10.64.0.200/24"); err == nil || !strings.Contains(err.Error(), "DHCP service") {
		t.Errorf("a host takes the service's MAC: %v", err)
	}
}

// Which machine a MAC is of, as a gateway of attachment 10 may say.
func TestTenant(t *testing.T) {
	m := site(t, dhcpAt(), &Host{ID: 22, Name: "lab", MAC: MAC{2, 22}, VNI: 1, Attachments: []identity.ID{11}})
	for _, c := range []struct {
		name string
		mac  MAC
		want identity.ID
		text string
	}{
		{"nobody's", MAC{2, 99}, 10, ""},
		{"a host's", MAC{2, 21}, 21, ""},
		{"a host's that lists an address", MAC{2, 20}, 0, "lists its addresses"},
		{"a host's elsewhere", MAC{2, 22}, 0, "not behind attachment"},
		{"a node's", m.Station(3, 1).mac(), 0, `node`},
		{"the service's", MAC{2, 0xd}, 0, "service itself"},
		{"none", MAC{}, 0, "not that of a machine"},
		{"a group", MAC{3}, 0, "not that of a machine"},
	} {
		if c.mac == (MAC{}) && c.name == "a node's" {
			continue
		}
		id, err := m.Tenant(m.Attachments[10], c.mac)
		if id != c.want || (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %d, %v", c.name, id, err)
		}
	}
}

// mac is the station's MAC; zero if there is none.
func (s *Station) mac() MAC {
	if s == nil {
		return MAC{}
	}
	return s.MAC
}

// Addresses are set aside once, those that are wanted first, and never those that somebody has.
func TestOffer(t *testing.T) {
	m := site(t, dhcpAt(), &Host{ID: 23, Name: "fixed", MAC: MAC{2, 23}, VNI: 1, Attachments: []identity.ID{10}, Addresses: []netip.Prefix{pfx("10.64.0.100/24")}},
		&Lease{VNI: 1, Address: addr("10.64.0.101"), State: LeaseDeclined, Since: leaseTime}).Scratch()
	a := m.Attachments[10]
	offer := func(machine identity.ID, mac byte, like string) (*Lease, error) {
		l, err := m.Offer(a, machine, MAC{2, mac}, addr(like), leaseTime)
		if err == nil {
			m.Place(l)
		}
		return l, err
	}
	seen := map[netip.Addr]bool{}
	for _, c := range []struct {
		machine    identity.ID
		mac        byte
		like, want string
	}{
		{10, 1, "10.64.0.105", "10.64.0.105"},
		{10, 1, "10.64.0.106", "10.64.0.105"}, // it has one
		{10, 2, "10.64.0.105", "10.64.0.102"},
		{10, 3, "192.0.2.1", "10.64.0.103"},
		{21, 21, "10.64.0.104", "10.64.0.104"},
	} {
		l, err := offer(c.machine, c.mac, c.like)
		if err != nil || l.Address != addr(c.want) || l.Machine != c.machine || l.State != LeaseOffered {
			t.Errorf("%+v: %+v, %v", c, l, err)
		}
		seen[l.Address] = true
	}
	// Those whom nobody named have three quarters of the pool, rounded up; a host has what is left.
	for mac := byte(10); ; mac++ {
		l, err := offer(10, mac, "0.0.0.0")
		if err != nil {
			if !errors.Is(err, ErrPool) || len(m.leasesOf[10]) != 7 {
				t.Errorf("with %d: %v", len(m.leasesOf[10]), err)
			}
			break
		}
		if seen[l.Address] {
			t.Fatalf("%s was given twice", l.Address)
		}
		seen[l.Address] = true
	}
	if _, err := offer(11, 50, "0.0.0.0"); !errors.Is(err, ErrPool) || !strings.Contains(err.Error(), "larger one") {
		t.Errorf("when there is none left: %v", err)
	}
	m = site(t).Scratch()
	if _, err := m.Offer(a, 10, MAC{2, 1}, netip.Addr{}, leaseTime); !errors.Is(err, ErrPool) {
		t.Errorf("without a service: %v", err)
	}
	// Of a large pool, those who only ask keep a bounded number of addresses.
	d := dhcpAt()
	d.To = addr("10.64.0.250")
	m = site(t, d).Scratch()
	for mac := range byte(200) {
		_, _ = offer(10, mac, "0.0.0.0")
	}
	if n := len(m.leasesOf[10]); n != maxOffers {
		t.Errorf("%d are offered and not taken", n)
	}
}

// Who declines whatever is offered keeps others from few addresses: those whom nobody named, and who says that he is a host, leave a
// quarter of the pool to other attachments.
func TestOfferAfterDeclines(t *testing.T) {
	large := dhcpAt()
	large.To = addr("10.64.0.250")
	declines := func(m *Model, at, machine identity.ID, mac byte) error {
		l, err := m.Offer(m.Attachments[at], machine, MAC{2, mac}, netip.Addr{}, leaseTime)
		if err == nil {
			m.Place(l)
			m.Place(l.Declined(at, leaseTime))
		}
		return err
	}
	for _, c := range []struct {
		name    string
		d       *DHCP
		machine identity.ID
		want    int
	}{
		{"those whom nobody named, of a large pool", large, 10, maxOffers},
		{"those whom nobody named, of ten", dhcpAt(), 10, 8},
		{"a host, of a large pool", large, 21, 114},
		{"a host, of ten", dhcpAt(), 21, 8},
	} {
		m := site(t, c.d).Scratch()
		for range 300 {
			if err := declines(m, 10, c.machine, 21); err != nil && !errors.Is(err, ErrPool) {
				t.Fatal(err)
			}
		}
		if n := len(m.LeasesOn(1)); n != c.want {
			t.Errorf("%s have had %d addresses declined, want %d", c.name, n, c.want)
		}
		if err := declines(m, 11, 11, 99); err != nil {
			t.Errorf("after %s, another attachment finds none: %v", c.name, err)
		}
		if err := declines(m, 10, 21, 21); c.machine == 10 && c.d == large && err != nil {
			t.Errorf("after %s, a host finds none: %v", c.name, err)
		}
	}
	// What is declined counts after a restart, too, until it is over.
	m := site(t, dhcpAt(), &Lease{VNI: 1, Address: addr("10.64.0.101"), State: LeaseDeclined, At: 10, Since: leaseTime}).Scratch()
	for range 300 {
		_ = declines(m, 10, 21, 21)
	}
	if n := len(m.LeasesOn(1)); n != 8 {
		t.Errorf("with one from before there are %d", n)
	}
	l := *m.LeasesOn(1)[0]
	l.State, l.At, l.Machine = LeaseOffered, 0, 11
	m.Place(&l)
	if err := declines(m, 10, 21, 21); err != nil {
		t.Errorf("when one is over: %v", err)
	}
}

// What becomes of a lease, and when.
func TestLeaseEnd(t *testing.T) {
	const hour, life = time.Hour, time.Hour + leaseMargin
	m := site(t, dhcpAt())
	grace := time.Duration(m.Settings.Grace)
	l := func(s LeaseState, letGo ...identity.ID) *Lease {
		return &Lease{VNI: 1, Address: addr("10.64.0.100"), Machine: 10, MAC: MAC{2, 1}, State: s, Since: leaseTime, LetGo: letGo}
	}
	for _, c := range []struct {
		name  string
		l     *Lease
		after time.Duration
		next  LeaseState
	}{
		{"offered", l(LeaseOffered), offerTime, ""},
		{"bound", l(LeaseBound), life, LeaseEnded},
		{"ended", l(LeaseEnded), life + grace, ""},
		{"ended, one gateway knows", l(LeaseEnded, 1), life + grace, ""},
		{"ended, and both know", l(LeaseEnded, 1, 2), life, ""},
		{"declined", l(LeaseDeclined), declineTime, ""},
	} {
		end, next := m.LeaseEnd(c.l)
		if end.Sub(leaseTime) != c.after || (next == nil) != (c.next == "") || next != nil && (next.State != c.next || !next.Since.Equal(end)) {
			t.Errorf("%s: %+v after %v, want %q after %v", c.name, next, end.Sub(leaseTime), c.next, c.after)
		}
	}
	for name, m := range map[string]*Model{"the service is gone": site(t), "the segment has another": site(t, &DHCP{VNI: 2})} {
		if end, next := m.LeaseEnd(l(LeaseBound)); !end.IsZero() || next != nil {
			t.Errorf("%s: until %v", name, end)
		}
	}
	gone := l(LeaseBound)
	gone.Machine = 99
	if end, next := m.LeaseEnd(gone); !end.IsZero() || next != nil {
		t.Errorf("the machine is gone: until %v", end)
	}
	if x := l(LeaseEnded, 1).LetGoBy(2).LetGoBy(2); len(x.LetGo) != 2 {
		t.Errorf("let go by %v", x.LetGo)
	}
	if x := l(LeaseEnded, 1, 2).In(LeaseBound, leaseTime.Add(hour)); x.LetGo != nil || x.State != LeaseBound {
		t.Errorf("bound again it is %+v", x)
	}
	if x := l(LeaseBound).Declined(11, leaseTime); x.Machine != 0 || x.At != 11 || x.State != LeaseDeclined {
		t.Errorf("declined it is %+v", x)
	}
}

// Nodes are told nothing new when a lease is only confirmed again; of a change they are.
func TestLeasesAreTold(t *testing.T) {
	bound := &Lease{VNI: 1, Address: addr("10.64.0.100"), Machine: 10, MAC: MAC{2, 1}, State: LeaseBound, Since: leaseTime}
	f := siteFacts(dhcpAt(), bound, &Grant{ID: 1, Node: 10, VNI: 1})
	m := Derive(f, 1, nil)
	if x := m.Profile(10).Machine.Leases; len(x) != 1 || x[0].Address != bound.Address || x[0].State != LeaseBound {
		t.Fatalf("told %+v", x)
	}
	again := Derive(f, 1, nil).Facts
	again[bound.Key()] = bound.In(LeaseBound, leaseTime.Add(time.Hour))
	n := Derive(again, 2, m)
	if n.Profile(10) != m.Profile(10) || n.ViewOf(1) != m.ViewOf(1) {
		t.Error("a confirmation is told")
	}
	again[bound.Key()] = bound.In(LeaseEnded, leaseTime)
	if e := Derive(again, 3, n); e.Profile(10) == n.Profile(10) {
		t.Error("an end is not told")
	}
	if len(m.ServicesFor(1)) != 1 || len(m.ServicesFor(5)) != 0 {
		t.Errorf("gateway is told of %d services, a stranger of %d", len(m.ServicesFor(1)), len(m.ServicesFor(5)))
	}
}

// TestConfirmedAgain: when leases were only confirmed again, what follows is kept, and the Model is the one that would be worked out. Whatever else has
// changed is worked out.
func TestConfirmedAgain(t *testing.T) {
	lease := func(last byte, machine identity.ID, state LeaseState) *Lease {
		return &Lease{VNI: 1, Address: netip.AddrFrom4([4]byte{10, 64, 0, last}), Machine: machine, MAC: MAC{2, 9, last}, State: state, Since: leaseTime}
	}
	before := site(t, dhcpAt(), &Head{Sequence: 1, Hash: make([]byte, 32)}, lease(100, 21, LeaseBound), lease(101, 10, LeaseBound),
		lease(102, 10, LeaseEnded), lease(103, 0, LeaseDeclined), &Grant{ID: 1, Node: 21, VNI: 1}, &Grant{ID: 2, Node: 3, VNI: 1})
	leases := func(m *Model) (out []string) {
		for _, id := range []identity.ID{0, 10, 20, 21} {
			for _, l := range m.leasesOf[id] {
				out = append(out, fmt.Sprint(id, l.Address, l.State, l.Since.Unix(), l.LetGo))
			}
		}
		for _, l := range m.LeasesOn(1) {
			out = append(out, fmt.Sprint(l.Address, l.State, l.Since.Unix(), l.LetGo))
		}
		return out
	}
	later := leaseTime.Add(time.Minute)
	for name, c := range map[string]struct {
		change func(Facts)
		kept   bool
	}{
		"nothing":        {func(Facts) {}, true},
		"the head alone": {func(f Facts) { f["head"] = &Head{Sequence: 2, Hash: make([]byte, 32)} }, true},
		"one confirmed":  {func(f Facts) { put(f, lease(100, 21, LeaseBound).In(LeaseBound, later)) }, true},
		"two of a machine": {func(f Facts) {
			put(f, lease(101, 10, LeaseBound).In(LeaseBound, later), lease(102, 10, LeaseEnded).LetGoBy(1))
		}, true},
		"a declined one":           {func(f Facts) { put(f, lease(103, 0, LeaseDeclined).In(LeaseDeclined, later)) }, true},
		"one ended":                {func(f Facts) { put(f, lease(100, 21, LeaseBound).In(LeaseEnded, later)) }, false},
		"one declined":             {func(f Facts) { put(f, lease(100, 21, LeaseBound).In(LeaseDeclined, later)) }, false},
		"one of another name":      {func(f Facts) { l := lease(100, 21, LeaseBound); l.Name = "x"; put(f, l) }, false},
		"one of another machine":   {func(f Facts) { put(f, lease(101, 21, LeaseBound)) }, false},
		"one gone":                 {func(f Facts) { delete(f, lease(100, 0, "").Key()) }, false},
		"one more":                 {func(f Facts) { put(f, lease(105, 10, LeaseOffered)) }, false},
		"one for another":          {func(f Facts) { delete(f, lease(100, 0, "").Key()); put(f, lease(105, 10, LeaseOffered)) }, false},
		"a grant":                  {func(f Facts) { put(f, &Grant{ID: 1, Node: 20, VNI: 1}) }, false},
		"confirmed, and something": {func(f Facts) { put(f, lease(100, 21, LeaseBound).In(LeaseBound, later), &Token{ID: "x"}) }, false},
	} {
		f := maps.Clone(before.Facts)
		c.change(f)
		m, want := Derive(f, 9, before), Derive(f, 9, nil)
		if (before.confirmed(f, 9) != nil) != c.kept {
			t.Errorf("%s: what follows is kept: %v", name, !c.kept)
		}
		if got, all := leases(m), leases(want); !slices.Equal(got, all) {
			t.Errorf("%s: leases are\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(all, "\n"))
		}
		if m.Version != 9 || m.Head != want.Head || len(m.Facts) != len(f) {
			t.Errorf("%s: version %d, head %v", name, m.Version, m.Head)
		}
		if p := m.Profile(21).Machine.Leases; !slices.Equal(p, want.Profile(21).Machine.Leases) {
			t.Errorf("%s: of machine 21 is told %v, want %v", name, p, want.Profile(21).Machine.Leases)
		}
		if c.kept && m.ViewOf(1) != before.ViewOf(1) {
			t.Errorf("%s: everybody is told anew", name)
		}
	}
	if got := leases(before); !strings.Contains(strings.Join(got, " "), fmt.Sprint(21, addr("10.64.0.100"), LeaseBound, leaseTime.Unix())) {
		t.Errorf("the Model before has changed: %v", got)
	}
}

func put(f Facts, list ...Fact) {
	for _, x := range list {
		f[x.Key()] = x
	}
}

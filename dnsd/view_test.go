package dnsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestNewViewRefuses(t *testing.T) {
	ok := addrs("10.77.0.1")
	for _, tt := range []struct {
		what string
		zone string
		name string
		addr []netip.Addr
		own  []netip.Prefix
	}{
		{"no zone", "", "a.z", ok, nil},
		{"the root as a zone", ".", "a.z", ok, nil},
		{"empty label", "z", "a..z", ok, nil},
		{"leading dot", "z", ".a.z", ok, nil},
		{"empty name", "z", "", ok, nil},
		{"long label", "z", strings.Repeat("a", 64) + ".z", ok, nil},
		{"long name", "z", strings.Repeat("abcdefg.", 32) + "z", ok, nil},
		{"blank", "z", "a b.z", ok, nil},
		{"escape", "z", `a\.b.z`, ok, nil},
		{"wildcard", "z", "*.z", ok, nil},
		{"not ASCII", "z", "ä.z", ok, nil},
		{"a letter whose lower case is ASCII", "z", "\u212a.z", ok, nil},
		{"no address", "z", "a.z", []netip.Addr{{}}, nil},
		{"address with a zone", "z", "a.z", addrs("fe80::1%eth0"), nil},
		{"no prefix", "z", "a.z", ok, []netip.Prefix{{}}},
		{"prefix of mapped addresses", "z", "a.z", ok, prefixes("::ffff:10.0.0.0/104")},
	} {
		if _, err := NewView(tt.zone, map[string][]netip.Addr{tt.name: tt.addr}, tt.own); err == nil {
			t.Errorf("%s: no error", tt.what)
		}
	}
}

func TestNewViewAccepts(t *testing.T) {
	long := strings.Repeat("abcdefg.", 31) + "abc.z" // 253 characters
	if len(long) != 253 {
		t.Fatal(len(long))
	}
	v, err := NewView("Z.", map[string][]netip.Addr{
		long:       addrs("10.0.0.1"),
		"twice.z":  addrs("10.0.0.2"),
		"TWICE.z.": addrs("::ffff:10.0.0.2", "10.0.0.2"),
		"none.z":   nil,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := v.find("twice.z."); !ok || !slices.Equal(f.addrs, addrs("10.0.0.2")) {
		t.Errorf("an address given twice, once mapped: %v", f)
	}
	if f, ok := v.find("none.z."); !ok || !f.exists || f.addrs != nil {
		t.Errorf("a name without addresses: %v", f)
	}
	if f, ok := v.find(long + "."); !ok || !f.exists {
		t.Errorf("the longest name: %v", f)
	}
}

func TestDomains(t *testing.T) {
	want := []string{"0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa"}
	for i := 64; i < 80; i++ {
		want = append(want, fmt.Sprintf("%d.100.in-addr.arpa", i))
	}
	want = append(want, "77.10.in-addr.arpa", "etherloom.internal", "wiki.corp.example")
	slices.Sort(want)
	if got := testView(t).Domains(); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := new(View).Domains(); len(got) != 0 {
		t.Errorf("an empty view: %q", got)
	}
}

func TestReverseZones(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		count  int
		first  string
		last   string
	}{
		{"0.0.0.0/0", 1, "in-addr.arpa.", "in-addr.arpa."},
		{"::/0", 1, "ip6.arpa.", "ip6.arpa."},
		{"10.0.0.0/8", 1, "10.in-addr.arpa.", "10.in-addr.arpa."},
		{"172.16.0.0/12", 16, "16.172.in-addr.arpa.", "31.172.in-addr.arpa."},
		{"128.0.0.0/1", 128, "128.in-addr.arpa.", "255.in-addr.arpa."},
		{"10.1.2.128/25", 128, "128.2.1.10.in-addr.arpa.", "255.2.1.10.in-addr.arpa."},
		{"10.1.2.3/32", 1, "3.2.1.10.in-addr.arpa.", "3.2.1.10.in-addr.arpa."},
		{"fd00::/8", 1, "d.f.ip6.arpa.", "d.f.ip6.arpa."},
		{"fc00::/7", 2, "c.f.ip6.arpa.", "d.f.ip6.arpa."},
		{"2001:db8::/61", 8, "0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "7.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."},
	} {
		got := reverseZones(netip.MustParsePrefix(tt.prefix))
		if len(got) != tt.count || got[0] != tt.first || got[len(got)-1] != tt.last {
			t.Errorf("%s: %d zones, %q to %q", tt.prefix, len(got), got[0], got[len(got)-1])
		}
	}
}

// The zones of a prefix and the test whether a name is ours agree, for addresses on both sides of each edge.
func TestReverseZonesCover(t *testing.T) {
	for _, s := range []string{"10.77.0.0/16", "100.64.0.0/10", "10.1.2.128/26", "fd00:77::/64", "fd00:77::/61", "2001:db8::5/128"} {
		p := netip.MustParsePrefix(s)
		v, err := NewView("z", nil, []netip.Prefix{p})
		if err != nil {
			t.Fatal(err)
		}
		last := p.Addr()
		raw := last.AsSlice()
		for bit := p.Bits(); bit < last.BitLen(); bit++ {
			raw[bit/8] |= 0x80 >> (bit % 8)
		}
		last, _ = netip.AddrFromSlice(raw)
		for _, a := range []netip.Addr{p.Addr().Prev(), p.Addr(), last, last.Next()} {
			name, err := dns.ReverseAddr(a.String())
			if err != nil {
				t.Fatal(err)
			}
			_, ours := v.find(name)
			inZones := slices.ContainsFunc(reverseZones(p), func(z string) bool { return dns.IsSubDomain(z, name) })
			if ours != p.Contains(a) || inZones != p.Contains(a) {
				t.Errorf("%v in %v: %v, find says %v, zones say %v", a, p, p.Contains(a), ours, inZones)
			}
		}
	}
}

// A name above the own prefix stands for foreign addresses too, even if the first of them is ours.
func TestAboveThePrefix(t *testing.T) {
	v, err := NewView("z", nil, prefixes("10.0.0.0/24", "2000::/64"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"in-addr.arpa.": false, "10.in-addr.arpa.": false, "0.10.in-addr.arpa.": false, "0.0.10.in-addr.arpa.": true,
		"2.ip6.arpa.": false, "0.0.0.2.ip6.arpa.": false, strings.Repeat("0.", 15) + "2.ip6.arpa.": true,
	} {
		if _, ours := v.find(name); ours != want {
			t.Errorf("%s: %v", name, ours)
		}
	}
}

// FuzzParseReverse holds the parser against the library's writer of reverse names: a name that spells a whole address
// is the one that dns.ReverseAddr writes, and no name of ours lies outside its prefix's zones.
func FuzzParseReverse(f *testing.F) {
	f.Add("1.0.77.10.in-addr.arpa.")
	f.Add("1." + rev6Zero + rev6Apex)
	f.Add("x.0.77.10.in-addr.arpa.")
	f.Add(`1\.0.77.10.in-addr.arpa.`)
	f.Add("+1.0.77.10.in-addr.arpa.")
	f.Add("ip6.arpa.")
	f.Fuzz(func(t *testing.T, name string) {
		if _, ok := dns.IsDomainName(name); !ok || !dns.IsFqdn(name) {
			return
		}
		p, below, ok := parseReverse(name)
		if !ok || below || !p.IsSingleIP() {
			return
		}
		want, err := dns.ReverseAddr(p.Addr().String())
		if err != nil || !strings.EqualFold(want, name) {
			t.Errorf("%q is %v, whose name is %q", name, p, want)
		}
	})
}

package hostdns

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseConf(t *testing.T) {
	list := func(addrs ...string) []netip.Addr {
		var out []netip.Addr
		for _, a := range addrs {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, tt := range []struct {
		name, text string
		want       conf
	}{
		{"empty", "", conf{}},
		{"plain", "nameserver 192.0.2.1\nnameserver 2001:db8::1\n", conf{nameservers: list("192.0.2.1", "2001:db8::1")}},
		{"no newline at the end", "nameserver 192.0.2.1", conf{nameservers: list("192.0.2.1")}},
		{"tabs and blanks", "nameserver\t \t192.0.2.1  \t\n", conf{nameservers: list("192.0.2.1")}},
		{"CR LF", "nameserver 192.0.2.1\r\nsearch a b\r\n", conf{list("192.0.2.1"), []string{"a", "b"}}},
		{"scope", "nameserver fe80::1%eth0\n", conf{nameservers: list("fe80::1%eth0")}},
		{"mapped", "nameserver ::ffff:192.0.2.1\n", conf{nameservers: list("192.0.2.1")}},
		{"comments", "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n#nameserver 192.0.2.3\n", conf{}},
		{"comment behind", "nameserver 192.0.2.1 # one\nnameserver 192.0.2.2;two\nnameserver 192.0.2.3#three\n", conf{nameservers: list("192.0.2.1", "192.0.2.2", "192.0.2.3")}},
		{"a keyword not at the beginning", " nameserver 192.0.2.1\n", conf{}},
		{"a longer keyword", "nameservers 192.0.2.1\nnameserver\n", conf{}},
		{"no address", "nameserver example.com\nnameserver 192.0.2.256\nnameserver 192.0.2.1\n", conf{nameservers: list("192.0.2.1")}},
		{"more than glibc reads", strings.Repeat("nameserver 192.0.2.1\n", 5), conf{nameservers: slices.Repeat(list("192.0.2.1"), 5)}},
		{"search", "search a.example b.example\n", conf{search: []string{"a.example", "b.example"}}},
		{"the last search", "search a\nsearch b\n", conf{search: []string{"b"}}},
		{"domain after search", "search a b\ndomain c\n", conf{search: []string{"c"}}},
		{"search after domain", "domain c\nsearch a b\n", conf{search: []string{"a", "b"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseConf([]byte(tt.text)); !reflect.DeepEqual(normal(got), normal(tt.want)) {
				t.Errorf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// normal makes nil and empty the same.
func normal(c conf) conf {
	return conf{slices.Concat([]netip.Addr{}, c.nameservers), slices.Concat([]string{}, c.search)}
}

func TestCompose(t *testing.T) {
	const head = marker + "The first nameserver is this host's own and knows the network's names.\n" +
		marker + "The file that was here comes back when the daemon stops.\n" +
		"nameserver 10.77.0.1\n"
	const local = "nameserver 127.0.0.1\n" // what glibc asks if nobody is named
	for _, tt := range []struct {
		name, was, search, want string
	}{
		{"nothing", "", "", local},
		{"all is kept", "# x\n\nnameserver 192.0.2.1\nsearch a b\noptions edns0\nsortlist 192.0.2.0\n", "", "# x\n\nnameserver 192.0.2.1\nsearch a b\noptions edns0\nsortlist 192.0.2.0\n"},
		{"no newline at the end", "nameserver 192.0.2.1", "", "nameserver 192.0.2.1\n"},
		{"our server is not named twice", "nameserver 10.77.0.1\nnameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n"},
		{"rotate goes", "options edns0 rotate timeout:1\n", "", "options edns0 timeout:1\n" + local},
		{"rotate alone", "options rotate\n", "", local},
		{"rotate with another prefix stays", "options norotate\n", "", "options norotate\n" + local},
		{"what a lost record left", head + "nameserver 192.0.2.1\n", "", "nameserver 192.0.2.1\n"},
		{"search added", "search a b\nnameserver 192.0.2.1\n", "z", "nameserver 192.0.2.1\nsearch a b z\n"},
		{"search there already", "search a z\n", "z", local + "search a z\n"},
		{"search beside domain", "domain a\n", "z", local + "search a z\n"},
		{"search where there was none", "nameserver 192.0.2.1\n", "z", "nameserver 192.0.2.1\nsearch host.example z\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := testTarget()
			target.Search = tt.search
			if got := string(compose([]byte(tt.was), target, "host.example")); got != head+tt.want {
				t.Errorf("got %q\nwant %q", got, head+tt.want)
			}
		})
	}
}

// FuzzConf holds for any file: ours names our server first and then the nameservers that the file names, and neither
// loses a line that means something nor adds one.
func FuzzConf(f *testing.F) {
	f.Add([]byte(original), "")
	f.Add([]byte("nameserver fe80::1%eth0\r\n\x00search a\tb"), "z")
	f.Add([]byte("options rotate\nsearch\n"), "z")
	f.Fuzz(func(t *testing.T, was []byte, search string) {
		target := testTarget()
		target.Search = search
		if target.check() != nil {
			return
		}
		before := parseConf(was)
		ours := compose(was, target, "")
		after := parseConf(ours)
		if len(before.nameservers) == 0 {
			before.nameservers = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		others := slices.DeleteFunc(before.nameservers, func(a netip.Addr) bool { return a == target.Server.Addr() })
		if len(after.nameservers) == 0 || after.nameservers[0] != target.Server.Addr() || !slices.Equal(after.nameservers[1:], others) {
			t.Errorf("nameservers %v, before %v", after.nameservers, others)
		}
		want := before.search
		if search != "" && !slices.Contains(want, search) {
			want = append(want, search)
		}
		if !slices.Equal(after.search, want) {
			t.Errorf("search %q, want %q", after.search, want)
		}
		if again := compose(ours, target, ""); !bytes.Equal(again, ours) {
			t.Errorf("ours of ours differs:\n%q\n%q", again, ours)
		}
	})
}

func TestTargetCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Target){
		"no server":           func(t *Target) { t.Server = netip.AddrPort{} },
		"unspecified server":  func(t *Target) { t.Server = netip.MustParseAddrPort("0.0.0.0:53") },
		"no port":             func(t *Target) { t.Server = netip.MustParseAddrPort("10.0.0.1:0") },
		"no domain":           func(t *Target) { t.Domains = nil },
		"empty domain":        func(t *Target) { t.Domains = []string{""} },
		"a line in a domain":  func(t *Target) { t.Domains = []string{"z\nnameserver 203.0.113.66"} },
		"a line in search":    func(t *Target) { t.Search = "z\nnameserver 203.0.113.66" },
		"two words in search": func(t *Target) { t.Search = "z y" },
	} {
		target := testTarget()
		if err := target.check(); err != nil {
			t.Fatal(err)
		}
		if spoil(&target); target.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

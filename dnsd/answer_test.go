package dnsd

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	zoneSOA  = "etherloom.internal. 5 IN SOA etherloom.internal. nobody.invalid. 1 3600 1200 604800 5"
	rev4SOA  = "77.10.in-addr.arpa. 5 IN SOA 77.10.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 5"
	rev6Apex = "0.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa."
	rev6SOA  = rev6Apex + " 5 IN SOA " + rev6Apex + " nobody.invalid. 1 3600 1200 604800 5"
	rev6Zero = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0." // the interface id but for its last nibble
)

// Each row is a question, and the whole of what must come back from the view.
func TestAnswer(t *testing.T) {
	wikiSOA := "wiki.corp.example. 5 IN SOA wiki.corp.example. nobody.invalid. 1 3600 1200 604800 5"
	for _, tt := range []struct {
		name   string
		qtype  uint16
		rcode  int
		answer string
		ns     string
	}{
		{"a.etherloom.internal.", dns.TypeA, 0, "a.etherloom.internal. 5 IN A 10.77.0.1", ""},
		{"a.etherloom.internal.", dns.TypeAAAA, 0, "a.etherloom.internal. 5 IN AAAA fd00:77::1", ""},
		// Given in mixed case to NewView.
		{"b.etherloom.internal.", dns.TypeA, 0, "b.etherloom.internal. 5 IN A 10.77.0.2", ""},
		{"_six.etherloom.internal.", dns.TypeAAAA, 0, "_six.etherloom.internal. 5 IN AAAA fd00:77::6", ""},
		// The letters of the query come back, in the authority section too.
		{"A.eTherLoom.inTernal.", dns.TypeA, 0, "A.eTherLoom.inTernal. 5 IN A 10.77.0.1", ""},
		{"x.eTherLoom.internal.", dns.TypeA, dns.RcodeNameError, "", "eTherLoom.internal. 5 IN SOA eTherLoom.internal. nobody.invalid. 1 3600 1200 604800 5"},
		// NODATA: the name is there, the type is not.
		{"b.etherloom.internal.", dns.TypeAAAA, 0, "", zoneSOA},
		{"b.etherloom.internal.", dns.TypeMX, 0, "", zoneSOA},
		{"b.etherloom.internal.", dns.TypeSOA, 0, "", zoneSOA},
		{"b.etherloom.internal.", dns.TypeNS, 0, "", zoneSOA},
		{"b.etherloom.internal.", dns.TypeHTTPS, 0, "", zoneSOA},
		{"b.etherloom.internal.", 65280, 0, "", zoneSOA},
		// An empty non-terminal exists (RFC 4592).
		{"site1.etherloom.internal.", dns.TypeA, 0, "", zoneSOA},
		{"site1.etherloom.internal.", dns.TypeANY, 0, "", zoneSOA},
		{"db.site1.etherloom.internal.", dns.TypeA, 0, "db.site1.etherloom.internal. 5 IN A 10.77.0.9", ""},
		// NXDOMAIN: nothing of that name, or below one that is there.
		{"c.etherloom.internal.", dns.TypeA, dns.RcodeNameError, "", zoneSOA},
		{"c.etherloom.internal.", dns.TypeANY, dns.RcodeNameError, "", zoneSOA},
		{"x.b.etherloom.internal.", dns.TypeA, dns.RcodeNameError, "", zoneSOA},
		{`\000.etherloom.internal.`, dns.TypeA, dns.RcodeNameError, "", zoneSOA},
		{`*.etherloom.internal.`, dns.TypeA, dns.RcodeNameError, "", zoneSOA},
		// The apex.
		{"etherloom.internal.", dns.TypeSOA, 0, zoneSOA, ""},
		{"etherloom.internal.", dns.TypeNS, 0, "etherloom.internal. 5 IN NS etherloom.internal.", ""},
		{"etherloom.internal.", dns.TypeA, 0, "", zoneSOA},
		{"etherloom.internal.", dns.TypeDS, 0, "", zoneSOA},
		{"etherloom.internal.", dns.TypeANY, 0, `etherloom.internal. 5 IN HINFO "RFC8482" ""`, ""},
		{"a.etherloom.internal.", dns.TypeANY, 0, `a.etherloom.internal. 5 IN HINFO "RFC8482" ""`, ""},
		// A service with a name of its own: that one name is ours.
		{"wiki.corp.example.", dns.TypeA, 0, "wiki.corp.example. 5 IN A 10.77.0.2", ""},
		{"wiki.corp.example.", dns.TypeHTTPS, 0, "", wikiSOA},
		{"wiki.corp.example.", dns.TypeSOA, 0, wikiSOA, ""},
		// Reverse names.
		{"1.0.77.10.in-addr.arpa.", dns.TypePTR, 0, "1.0.77.10.in-addr.arpa. 5 IN PTR a.etherloom.internal.", ""},
		{"1.0.77.10.IN-addr.ARPA.", dns.TypePTR, 0, "1.0.77.10.IN-addr.ARPA. 5 IN PTR a.etherloom.internal.", ""},
		{
			"2.0.77.10.in-addr.arpa.", dns.TypePTR, 0,
			"2.0.77.10.in-addr.arpa. 5 IN PTR b.etherloom.internal. | 2.0.77.10.in-addr.arpa. 5 IN PTR wiki.corp.example.", "",
		},
		{"1." + rev6Zero + rev6Apex, dns.TypePTR, 0, "1." + rev6Zero + rev6Apex + " 5 IN PTR a.etherloom.internal.", ""},
		{"1.0.77.10.in-addr.arpa.", dns.TypeANY, 0, `1.0.77.10.in-addr.arpa. 5 IN HINFO "RFC8482" ""`, ""},
		{"1.0.77.10.in-addr.arpa.", dns.TypeA, 0, "", rev4SOA},
		{"3.0.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", rev4SOA},
		{"2." + rev6Zero + rev6Apex, dns.TypePTR, dns.RcodeNameError, "", rev6SOA},
		{"0.77.10.in-addr.arpa.", dns.TypePTR, 0, "", rev4SOA},
		{"1.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", rev4SOA},
		{"x.1.0.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", rev4SOA},
		{"01.0.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", rev4SOA},
		{"256.0.77.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", rev4SOA},
		{"77.10.in-addr.arpa.", dns.TypeSOA, 0, rev4SOA, ""},
		{"77.10.in-addr.arpa.", dns.TypeNS, 0, "77.10.in-addr.arpa. 5 IN NS 77.10.in-addr.arpa.", ""},
		{rev6Apex, dns.TypeSOA, 0, rev6SOA, ""},
		// 100.64.0.0/12 does not end at an octet: 16 zones, the first and the last of them.
		{"1.0.64.100.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", "64.100.in-addr.arpa. 5 IN SOA 64.100.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 5"},
		{"1.0.79.100.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", "79.100.in-addr.arpa. 5 IN SOA 79.100.in-addr.arpa. nobody.invalid. 1 3600 1200 604800 5"},
	} {
		t.Run(fmt.Sprintf("%s/%s", tt.name, dns.Type(tt.qtype)), func(t *testing.T) {
			s := New(Config{})
			s.SetView(testView(t))
			r := local(t, s, newQuery(tt.name, tt.qtype))
			if r.Rcode != tt.rcode || rrs(r.Answer) != tt.answer || rrs(r.Ns) != tt.ns || len(r.Extra) != 0 {
				t.Errorf("got %v\nwant %s, answer %q, authority %q", r, dns.RcodeToString[tt.rcode], tt.answer, tt.ns)
			}
			if !r.Authoritative || !r.Response || r.RecursionAvailable || r.AuthenticatedData || r.Truncated {
				t.Errorf("flags of %v", r.MsgHdr)
			}
		})
	}
}

// These names are not ours: with forwarding off they are refused, so none of them is found by accident.
func TestNotOurs(t *testing.T) {
	for _, name := range []string{
		".", "internal.", "example.com.", "xetherloom.internal.", "etherloom.internal.corp.example.",
		`a\.etherloom.internal.`, // one label that contains a dot, below internal
		"corp.example.", "x.wiki.corp.example.", "in-addr.arpa.", "10.in-addr.arpa.", "1.0.78.10.in-addr.arpa.",
		"1.0.63.100.in-addr.arpa.", "1.0.80.100.in-addr.arpa.", "100.in-addr.arpa.", "7.2.0.192.in-addr.arpa.",
		"ip6.arpa.", "1.0.0.0.0.0.0.0.7.7.0.0.0.0.d.f.ip6.arpa.",
	} {
		s := New(Config{})
		s.SetView(testView(t))
		r := local(t, s, newQuery(name, dns.TypePTR))
		if r.Rcode != dns.RcodeRefused || r.Authoritative || len(r.Ns) != 0 {
			t.Errorf("%s: %v", name, r)
		}
		s.SetView(nil)
		if r := local(t, s, newQuery("a.etherloom.internal.", dns.TypeA)); r.Rcode != dns.RcodeRefused {
			t.Errorf("without a view: %v", r)
		}
	}
}

// A grant that goes takes its name with it at the next query.
func TestSetView(t *testing.T) {
	s := New(Config{TTL: 30 * time.Second})
	s.SetView(testView(t))
	q := newQuery("a.etherloom.internal.", dns.TypeA)
	if r := local(t, s, q); len(r.Answer) != 1 || r.Answer[0].Header().Ttl != 30 {
		t.Fatal(r)
	}
	empty, err := NewView("etherloom.internal", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.SetView(empty)
	if r := local(t, s, q); r.Rcode != dns.RcodeNameError {
		t.Fatal(r)
	}
}

func TestTruncate(t *testing.T) {
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}))
	}
	v, err := NewView("etherloom.internal", map[string][]netip.Addr{"many.etherloom.internal": many}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{})
	s.SetView(v)
	for _, tt := range []struct {
		name      string
		udp       bool
		size      uint16 // 0: no EDNS
		truncated bool
	}{
		{"plain", true, 0, true},
		{"an EDNS size below 512 counts as 512", true, 100, true},
		{"too small", true, 1232, true},
		{"large enough", true, 4096, false},
		{"largest", true, 65535, false},
		{"TCP", false, 0, false},
		{"TCP with EDNS", false, 512, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuery("many.etherloom.internal.", dns.TypeA)
			if tt.size != 0 {
				q.SetEdns0(tt.size, true)
			}
			raw, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			reply := first(s.respond(raw, tt.udp))
			r := decode(t, reply)
			if r.Truncated != tt.truncated || (len(r.Answer) == 200) == tt.truncated {
				t.Errorf("truncated %v with %d answers in %d bytes", r.Truncated, len(r.Answer), len(reply))
			}
			if r.Truncated && (len(r.Answer) != 0 || len(reply) > plainUDP) {
				t.Errorf("%d answers in %d bytes", len(r.Answer), len(reply))
			}
			if (r.IsEdns0() != nil) != (tt.size != 0) {
				t.Errorf("EDNS: %v", r.IsEdns0())
			}
		})
	}
}

package dnsd

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A query of an asker that validates, and a reply with signatures, a record type that nobody knows, an EDNS option that nobody
// knows and letters in mixed case, pass byte for byte but for the id.
func TestForwardUnchanged(t *testing.T) {
	reply := func(raw []byte) []byte {
		m, r := decode(t, raw), new(dns.Msg)
		r.SetReply(m)
		r.AuthenticatedData = true
		for _, s := range []string{
			"ExAmple.com. 60 IN A 192.0.2.1",
			"example.com. 60 IN RRSIG A 13 2 60 20300101000000 20200101000000 1 example.com. c2ln",
			`example.com. 60 IN TYPE65399 \# 3 010203`,
		} {
			rr, err := dns.NewRR(s)
			if err != nil {
				t.Error(err)
			}
			r.Answer = append(r.Answer, rr)
		}
		r.SetEdns0(1400, true)
		r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65002, Data: []byte{7}}}
		out, err := r.Pack()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte { return [][]byte{reply(raw)} })
	s := New(Config{Upstreams: to(u)})
	q := newQuery("ExAmple.com.", dns.TypeA)
	q.CheckingDisabled = true
	q.SetEdns0(4000, true)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1, 2}}}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	_, ask := s.respond(raw, true)
	got := s.forward(t.Context(), ask)
	if want := reply(raw); !bytes.Equal(got, want) {
		t.Errorf("reply %x\nwant  %x", got, want)
	}
	seen := u.queries()
	if len(seen) != 1 || !bytes.Equal(seen[0].raw[2:], raw[2:]) {
		t.Errorf("the upstream saw %v\nwant %v", seen, raw)
	}
	if s.Stats() != (Stats{Queries: 1, Forwarded: 1}) {
		t.Errorf("%+v", s.Stats())
	}
}

// Off-path poisoning has to guess an id and a port; both differ from query to query.
func TestForwardIsUnpredictable(t *testing.T) {
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte { return [][]byte{says(t, raw, "192.0.2.1")} })
	s := New(Config{Upstreams: to(u)})
	const n = 64
	for range n {
		forwardQuery(t, s, true)
	}
	ids, ports := map[string]bool{}, map[uint16]bool{}
	for _, q := range u.queries() {
		ids[string(q.raw[:2])] = true
		ports[q.from.Port()] = true
	}
	// Of 64 out of 2^16 or 28 000, about none or one comes twice.
	if len(ids) < n-4 || len(ports) < n-6 {
		t.Errorf("%d ids and %d ports in %d queries", len(ids), len(ports), n)
	}
}

// forwardQuery puts the same question with the same id, as a program that is easy to forge for does.
func forwardQuery(t *testing.T, s *Server, udp bool) *dns.Msg {
	t.Helper()
	m := newQuery("example.com.", dns.TypeA)
	m.Id = 1
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	_, ask := s.respond(raw, udp)
	if ask == nil {
		t.Fatal("not forwarded")
	}
	r := decode(t, s.forward(t.Context(), ask))
	if r.Id != 1 || !r.Response {
		t.Errorf("reply %v", r.MsgHdr)
	}
	return r
}

// What an attacker sends ahead of the true reply is passed over, whatever is wrong with it.
func TestForwardForged(t *testing.T) {
	change := func(raw []byte, f func(m *dns.Msg)) []byte {
		m := decode(t, says(t, raw, "203.0.113.66"))
		f(m)
		out, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte {
		return [][]byte{
			nil,
			raw[:5],
			raw, // the query itself
			change(raw, func(m *dns.Msg) { m.Id++ }),
			change(raw, func(m *dns.Msg) { m.Response = false }),
			change(raw, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }),
			change(raw, func(m *dns.Msg) { m.Question[0].Name = "example.org." }),
			change(raw, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
			change(raw, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
			change(raw, func(m *dns.Msg) { m.Question = nil }),
			change(raw, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }),
			says(t, raw, "192.0.2.1"),
		}
	})
	s := New(Config{Upstreams: to(u)})
	if r := forwardQuery(t, s, true); rrs(r.Answer) != "example.com. 60 IN A 192.0.2.1" {
		t.Errorf("got %v", r)
	}
	if got := s.Stats().Mismatched; got != 11 {
		t.Errorf("%d mismatched, want 11", got)
	}
}

// The order and the rules by which one upstream is left for the next.
func TestForwardOrder(t *testing.T) {
	const silent = "silent"
	for _, tt := range []struct {
		name string
		ups  []any // what each says: an address, an rcode, or nothing
		want string
		code int
		seen []int
	}{
		{"the first", []any{"192.0.2.1", "192.0.2.2"}, "192.0.2.1", 0, []int{1, 0}},
		{"silent first", []any{silent, "192.0.2.2"}, "192.0.2.2", 0, []int{1, 1}},
		{"SERVFAIL first", []any{dns.RcodeServerFailure, "192.0.2.2"}, "192.0.2.2", 0, []int{1, 1}},
		{"REFUSED first", []any{dns.RcodeRefused, "192.0.2.2"}, "192.0.2.2", 0, []int{1, 1}},
		{"NOTIMP first", []any{dns.RcodeNotImplemented, "192.0.2.2"}, "192.0.2.2", 0, []int{1, 1}},
		{"NXDOMAIN is an answer", []any{dns.RcodeNameError, "192.0.2.2"}, "", dns.RcodeNameError, []int{1, 0}},
		{"the first refusal if there is nothing better", []any{dns.RcodeRefused, dns.RcodeServerFailure}, "", dns.RcodeRefused, []int{1, 1}},
		{"refused, then silent", []any{dns.RcodeRefused, silent}, "", dns.RcodeRefused, []int{1, 1}},
		{"all silent", []any{silent, silent}, "", dns.RcodeServerFailure, []int{1, 1}},
		{"not more than three", []any{silent, silent, silent, "192.0.2.4"}, "", dns.RcodeServerFailure, []int{1, 1, 1, 0}},
		{"none", nil, "", dns.RcodeServerFailure, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var ups []*upstream
			for _, what := range tt.ups {
				ups = append(ups, newUpstream(t, func(raw []byte, _ bool) [][]byte {
					if what == silent {
						return nil
					}
					return [][]byte{says(t, raw, what)}
				}))
			}
			s := New(Config{Upstreams: to(ups...), Timeout: 600 * time.Millisecond})
			r := forwardQuery(t, s, true)
			if got := firstA(r); got != tt.want || r.Rcode != tt.code {
				t.Errorf("got %v", r)
			}
			for i, u := range ups {
				if got := len(u.queries()); got != tt.seen[i] {
					t.Errorf("upstream %d saw %d queries, want %d", i, got, tt.seen[i])
				}
			}
		})
	}
}

func firstA(m *dns.Msg) string {
	if len(m.Answer) == 0 {
		return ""
	}
	return m.Answer[0].(*dns.A).A.String()
}

// An upstream that is down is left at once: the connected socket hears of it.
func TestForwardClosedPort(t *testing.T) {
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte { return [][]byte{says(t, raw, "192.0.2.1")} })
	s := New(Config{
		Upstreams: func() []netip.AddrPort { return []netip.AddrPort{newAddr(), {}, u.addr} },
		Timeout:   10 * time.Second,
	})
	begin := time.Now()
	if r := forwardQuery(t, s, true); firstA(r) != "192.0.2.1" || time.Since(begin) > 2*time.Second {
		t.Errorf("got %v after %v", r, time.Since(begin))
	}
}

func TestForwardTruncated(t *testing.T) {
	many := func(raw []byte) []byte {
		m := decode(t, says(t, raw, "192.0.2.1"))
		for range 100 {
			m.Answer = append(m.Answer, m.Answer[0])
		}
		out, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	tc := func(raw []byte) []byte {
		r := says(t, raw, 0)
		r[2] |= bitTC
		return r
	}
	for _, tt := range []struct {
		name        string
		udp         bool
		size        uint16
		viaTCP      func(raw []byte) [][]byte
		truncated   bool
		answers     int
		rcode       int
		mayMismatch bool
	}{
		{"the whole fits", true, 4096, func(raw []byte) [][]byte { return [][]byte{many(raw)} }, false, 101, 0, false},
		{"the whole does not fit", true, 1232, func(raw []byte) [][]byte { return [][]byte{many(raw)} }, true, 0, 0, false},
		{"asked by TCP", false, 0, func(raw []byte) [][]byte { return [][]byte{many(raw)} }, false, 101, 0, false},
		{"no TCP there", true, 1232, func([]byte) [][]byte { return nil }, true, 0, 0, false},
		{"no TCP there, asked by TCP", false, 0, func([]byte) [][]byte { return nil }, false, 0, dns.RcodeServerFailure, false},
		{"a lie on TCP", false, 0, func(raw []byte) [][]byte { raw[1]++; return [][]byte{many(raw)} }, false, 0, dns.RcodeServerFailure, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUpstream(t, func(raw []byte, tcp bool) [][]byte {
				if tcp {
					return tt.viaTCP(raw)
				}
				return [][]byte{tc(raw)}
			})
			s := New(Config{Upstreams: to(u), Timeout: time.Second})
			m := newQuery("example.com.", dns.TypeA)
			if tt.size != 0 {
				m.SetEdns0(tt.size, false)
			}
			raw, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			_, ask := s.respond(raw, tt.udp)
			r := decode(t, s.forward(t.Context(), ask))
			if r.Truncated != tt.truncated || len(r.Answer) != tt.answers || r.Rcode != tt.rcode || r.Id != m.Id {
				t.Errorf("truncated %v, %d answers, %v", r.Truncated, len(r.Answer), r.MsgHdr)
			}
			if got := u.queries(); len(got) != 2 || !got[1].tcp {
				t.Errorf("%d queries", len(got))
			}
			if got := s.Stats().Mismatched > 0; got != tt.mayMismatch {
				t.Errorf("mismatched %v", got)
			}
		})
	}
}

// The server's own address among its upstreams would make each query go round until the places are used up.
func TestForwardNeverToSelf(t *testing.T) {
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte { return [][]byte{says(t, raw, "192.0.2.1")} })
	self := newAddr()
	mapped := netip.AddrPortFrom(netip.AddrFrom16(self.Addr().As16()), self.Port())
	s := New(Config{Upstreams: func() []netip.AddrPort { return []netip.AddrPort{self, mapped, self, u.addr} }})
	if err := s.SetListen([]netip.AddrPort{self}); err != nil {
		t.Fatal(err)
	}
	run(t, s)
	if r := ask(t, "udp", self, newQuery("example.com.", dns.TypeA)); firstA(r) != "192.0.2.1" {
		t.Error(r)
	}
	if got := s.Stats(); got.Queries != 1 || got.Forwarded != 1 {
		t.Errorf("%+v", got)
	}
}

// Beyond the bound a query fails at once instead of waiting, on UDP and on TCP, and names of ours are still answered.
func TestForwardBound(t *testing.T) {
	release := make(chan struct{})
	u := newUpstream(t, func(raw []byte, _ bool) [][]byte {
		<-release
		return [][]byte{says(t, raw, "192.0.2.1")}
	})
	s, addr := start(t, Config{Upstreams: to(u), MaxForwards: 2, Timeout: 10 * time.Second})
	held := make(chan *dns.Msg)
	for range 2 {
		go func() { held <- ask(t, "udp", addr, newQuery("example.com.", dns.TypeA)) }()
	}
	for len(u.queries()) < 2 {
		time.Sleep(time.Millisecond)
	}
	for _, network := range []string{"udp", "tcp"} {
		if r := ask(t, network, addr, newQuery("example.com.", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s beyond the bound: %v", network, r)
		}
		if r := ask(t, network, addr, newQuery("a.etherloom.internal.", dns.TypeA)); firstA(r) != "10.77.0.1" {
			t.Errorf("%s, ours: %v", network, r)
		}
	}
	close(release)
	for range 2 {
		if r := <-held; firstA(r) != "192.0.2.1" {
			t.Error(r)
		}
	}
	want := Stats{Queries: 6, Answered: 2, Forwarded: 2, Failed: 2}
	if got := s.Stats(); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// The end of Run does not wait for an upstream's timeout.
func TestForwardEndsWithRun(t *testing.T) {
	asked := make(chan struct{})
	u := newUpstream(t, func([]byte, bool) [][]byte { close(asked); return nil })
	s := New(Config{Upstreams: to(u), Timeout: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	raw, err := newQuery("example.com.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	_, q := s.respond(raw, true)
	begin := time.Now()
	if r := decode(t, s.forward(ctx, q)); r.Rcode != dns.RcodeServerFailure || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v", r, time.Since(begin))
	}
}

var errTest = errors.New("test")

// No name of ours reaches an upstream, in whatever letters, type or class it is asked.
func TestOursIsNeverForwarded(t *testing.T) {
	s := New(Config{Upstreams: func() []netip.AddrPort { return []netip.AddrPort{newAddr()} }})
	s.SetView(testView(t))
	s.exchange = func(context.Context, netip.AddrPort, *query) ([]byte, error) {
		t.Error("an upstream was asked")
		return nil, errTest
	}
	for _, name := range []string{
		"a.etherloom.internal.", "A.ETHERLOOM.INTERNAL.", "gone.etherloom.internal.", "x.y.z.etherloom.internal.",
		"etherloom.internal.", "_ldap._tcp.etherloom.internal.", "wiki.corp.example.", "Wiki.Corp.Example.",
		"200.200.77.10.in-addr.arpa.", "77.10.in-addr.arpa.", "b._dns-sd._udp.0.0.77.10.in-addr.arpa.", "f.f." + rev6Apex,
	} {
		for qtype := range uint16(300) {
			for _, class := range []uint16{dns.ClassINET, dns.ClassCHAOS, dns.ClassANY, dns.ClassNONE, 0} {
				m := newQuery(name, qtype)
				m.Question[0].Qclass = class
				raw, err := m.Pack()
				if err != nil {
					t.Fatal(err)
				}
				reply, q := s.respond(raw, true)
				if q != nil || reply == nil {
					t.Fatalf("%s type %d class %d is forwarded", name, qtype, class)
				}
			}
		}
	}
}

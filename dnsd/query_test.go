package dnsd

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// Each row changes a good query for a name of ours and says what must come back: an rcode, or no answer at all.
func TestCheck(t *testing.T) {
	const none = -1
	opt := func() *dns.OPT { return &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT, Class: 4096}} }
	for _, tt := range []struct {
		name  string
		msg   func(m *dns.Msg)
		raw   func(raw []byte) []byte
		rcode int
	}{
		{"good", nil, nil, dns.RcodeSuccess},
		{"empty", nil, func([]byte) []byte { return nil }, none},
		{"shorter than a header", nil, func(raw []byte) []byte { return raw[:11] }, none},
		{"a reply", func(m *dns.Msg) { m.Response = true }, nil, none},
		{"a reply without a question", nil, func(raw []byte) []byte { raw[2] |= 0x80; return raw[:12] }, none},
		{"opcode IQUERY", func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery }, nil, dns.RcodeNotImplemented},
		{"opcode NOTIFY", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, nil, dns.RcodeNotImplemented},
		{"opcode UPDATE", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, nil, dns.RcodeNotImplemented},
		{"opcode 15", func(m *dns.Msg) { m.Opcode = 15 }, nil, dns.RcodeNotImplemented},
		{"no question", func(m *dns.Msg) { m.Question = nil }, nil, dns.RcodeFormatError},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, nil, dns.RcodeFormatError},
		{"a header that promises a question", nil, func(raw []byte) []byte { return raw[:12] }, dns.RcodeFormatError},
		{"cut in the name", nil, func(raw []byte) []byte { return raw[:20] }, dns.RcodeFormatError},
		{"cut in the type", nil, func(raw []byte) []byte { return raw[:len(raw)-3] }, dns.RcodeFormatError},
		{"cut in the class", nil, func(raw []byte) []byte { return raw[:len(raw)-1] }, dns.RcodeFormatError},
		{"a name that points at itself", nil, func(raw []byte) []byte {
			return append(raw[:12:12], 0xc0, 12, 0, 1, 0, 1)
		}, dns.RcodeFormatError},
		{"class CHAOS", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, nil, dns.RcodeRefused},
		{"class ANY", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, nil, dns.RcodeRefused},
		{"AXFR", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, nil, dns.RcodeRefused},
		{"IXFR", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }, nil, dns.RcodeRefused},
		{"type OPT", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }, nil, dns.RcodeRefused},
		{"type TSIG", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeTSIG }, nil, dns.RcodeRefused},
		{"EDNS", func(m *dns.Msg) { m.Extra = []dns.RR{opt()} }, nil, dns.RcodeSuccess},
		{"EDNS with an option nobody knows", func(m *dns.Msg) {
			o := opt()
			o.Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}}
			m.Extra = []dns.RR{o}
		}, nil, dns.RcodeSuccess},
		{"EDNS version 1", func(m *dns.Msg) {
			o := opt()
			o.SetVersion(1)
			m.Extra = []dns.RR{o}
		}, nil, dns.RcodeBadVers},
		{"EDNS twice", func(m *dns.Msg) { m.Extra = []dns.RR{opt(), opt()} }, nil, dns.RcodeFormatError},
		{"EDNS not of the root", func(m *dns.Msg) {
			o := opt()
			o.Hdr.Name = "a."
			m.Extra = []dns.RR{o}
		}, nil, dns.RcodeFormatError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Config{Upstreams: func() []netip.AddrPort { return nil }})
			s.SetView(testView(t))
			m := newQuery("a.etherloom.internal.", dns.TypeA)
			m.CheckingDisabled = true
			if tt.msg != nil {
				tt.msg(m)
			}
			raw, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if tt.raw != nil {
				raw = tt.raw(raw)
			}
			reply, fwd := s.respond(raw, true)
			if fwd != nil {
				t.Fatal("would be forwarded")
			}
			if tt.rcode == none {
				if reply != nil {
					t.Fatalf("answered with %x", reply)
				}
				return
			}
			r := decode(t, reply)
			if r.Rcode != tt.rcode || !r.Response || r.Id != m.Id || r.Opcode != m.Opcode || !r.RecursionDesired {
				t.Errorf("got %v", r)
			}
			if len(r.Question) == 1 && (!r.CheckingDisabled || !r.RecursionAvailable) {
				t.Errorf("flags of %v", r.MsgHdr)
			}
			if hasOpt := r.IsEdns0() != nil; hasOpt != (len(m.Extra) > 0) {
				t.Errorf("EDNS in the reply: %v", hasOpt)
			}
		})
	}
}

// Every message is counted once.
func TestStats(t *testing.T) {
	s := New(Config{})
	s.SetView(testView(t))
	for _, m := range []*dns.Msg{
		newQuery("a.etherloom.internal.", dns.TypeA),
		newQuery("a.etherloom.internal.", dns.TypeMX),
		newQuery("x.etherloom.internal.", dns.TypeA),
		newQuery("example.com.", dns.TypeA),
		{MsgHdr: dns.MsgHdr{Response: true}},
		{MsgHdr: dns.MsgHdr{Opcode: dns.OpcodeUpdate}},
	} {
		local(t, s, m)
	}
	want := Stats{Queries: 6, Answered: 2, NXDomain: 1, Refused: 1, Dropped: 1, Malformed: 1}
	if got := s.Stats(); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// FuzzRespond puts any bytes through the whole path of a query, with an upstream that fails the test if it is asked
// about a name of ours.
func FuzzRespond(f *testing.F) {
	for _, name := range []string{"a.etherloom.internal.", "x.etherloom.internal.", "example.com.", "1.0.77.10.in-addr.arpa."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypePTR, dns.TypeANY, dns.TypeAXFR} {
			m := newQuery(name, qtype)
			m.SetEdns0(1232, true)
			raw, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, true)
			f.Add(raw[:len(raw)-7], false)
		}
	}
	view := testView(f)
	upstream := netip.MustParseAddrPort("192.0.2.1:53")
	s := New(Config{Upstreams: func() []netip.AddrPort { return []netip.AddrPort{upstream} }})
	s.SetView(view)
	var t *testing.T
	s.exchange = func(_ context.Context, _ netip.AddrPort, q *query) ([]byte, error) {
		asked, ok := parseQuestion(q.raw)
		if _, ours := view.find(asked.Name); ours || !ok {
			t.Errorf("forwarded %q", asked.Name)
		}
		return append(bareReply(q.raw, 0), q.raw[headerLen:]...), nil
	}
	f.Fuzz(func(ft *testing.T, raw []byte, udp bool) {
		t = ft
		before := bytes.Clone(raw)
		reply, q := s.respond(raw, udp)
		if !bytes.Equal(raw, before) {
			t.Error("the query was changed")
		}
		if q != nil {
			if reply != nil {
				t.Error("answered and forwarded")
			}
			reply = s.forward(t.Context(), q)
			if q.limit < len(reply) {
				t.Errorf("%d bytes for an asker of %d", len(reply), q.limit)
			}
		}
		if reply == nil {
			if len(raw) >= headerLen && raw[2]&bitResponse == 0 {
				t.Error("a query without an answer")
			}
			return
		}
		if len(reply) < headerLen || !bytes.Equal(reply[:2], raw[:2]) || reply[2]&bitResponse == 0 {
			t.Errorf("not a reply: %x", reply)
		}
		if q == nil && new(dns.Msg).Unpack(reply) != nil {
			t.Errorf("does not decode: %x", reply)
		}
		if q == nil && udp && len(reply) > max(plainUDP, len(raw)) && binary.BigEndian.Uint16(raw[10:]) == 0 {
			t.Errorf("%d bytes without EDNS", len(reply))
		}
	})
}

// FuzzAnswers feeds any bytes as an upstream's reply: what is taken for one must carry the id and question.
func FuzzAnswers(f *testing.F) {
	m := newQuery("example.com.", dns.TypeA)
	m.Id = 0x1234 // the same in each process that takes part
	asked, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(asked)
	f.Add(says(f, asked, "192.0.2.9"))
	f.Add(says(f, asked, dns.RcodeNameError))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if !answers(asked, reply) {
			return
		}
		got := new(dns.Msg)
		got.Unpack(reply) // the records may be malformed: they are the asker's concern
		if !got.Response || got.Id != m.Id || len(got.Question) > 1 {
			t.Errorf("took %x", reply)
		}
	})
}

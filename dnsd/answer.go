package dnsd

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// answer says what the view found. A name without records of the type asked for, and a name that does not exist, get
// the zone's SOA, from which the asker takes how long that holds (RFC 2308 section 3).
func (s *Server) answer(q *query, f found) *dns.Msg {
	m := s.reply(q, dns.RcodeSuccess)
	m.Authoritative = true
	if !f.exists {
		m.Rcode = dns.RcodeNameError
	} else {
		m.Answer = s.records(q.asked, f)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{s.soa(f.apex)}
	}
	return m
}

// records returns those of a name that exists, with the name in the letters of the query.
func (s *Server) records(q dns.Question, f found) []dns.RR {
	isApex := q.Name == f.apex
	switch q.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		return s.addresses(q, f.addrs)
	case dns.TypePTR:
		var out []dns.RR
		for _, name := range f.ptr {
			out = append(out, &dns.PTR{Hdr: s.header(q.Name, dns.TypePTR), Ptr: name})
		}
		return out
	case dns.TypeSOA:
		if isApex {
			return []dns.RR{s.soa(f.apex)}
		}
	case dns.TypeNS:
		// RFC 6303 section 3: a zone of local use names itself as its server.
		if isApex {
			return []dns.RR{&dns.NS{Hdr: s.header(q.Name, dns.TypeNS), Ns: f.apex}}
		}
	case dns.TypeANY:
		// RFC 8482 section 4.2: a synthesised HINFO instead of everything there is.
		if isApex || len(f.addrs)+len(f.ptr) > 0 {
			return []dns.RR{&dns.HINFO{Hdr: s.header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"}}
		}
	}
	return nil
}

func (s *Server) addresses(q dns.Question, addrs []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, a := range addrs {
		switch {
		case a.Is4() && q.Qtype == dns.TypeA:
			out = append(out, &dns.A{Hdr: s.header(q.Name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && q.Qtype == dns.TypeAAAA:
			out = append(out, &dns.AAAA{Hdr: s.header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return out
}

// soa is the start of a zone of local use, with the values of RFC 6303 section 3 except for how long a name's absence
// may be cached. The serial stays: nobody may transfer the zone.
func (s *Server) soa(apex string) dns.RR {
	return &dns.SOA{
		Hdr:     s.header(apex, dns.TypeSOA),
		Ns:      apex,
		Mbox:    "nobody.invalid.",
		Serial:  1,
		Refresh: 3600,
		Retry:   1200,
		Expire:  604800,
		Minttl:  s.ttl(),
	}
}

func (s *Server) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: s.ttl()}
}

func (s *Server) ttl() uint32 { return uint32(s.cfg.TTL / time.Second) }

// reply begins the reply to a query: its id, question, RD and CD, and EDNS if the asker speaks it.
func (s *Server) reply(q *query, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.msg)
	m.Rcode = rcode
	m.RecursionAvailable = s.cfg.Upstreams != nil
	m.Compress = true
	if opt := q.msg.IsEdns0(); opt != nil {
		m.SetEdns0(advertise, opt.Do()) // RFC 3225 section 3: the DO bit is copied
	}
	return m
}

// finish counts a reply of our own and encodes it within the limit.
func (s *Server) finish(q *query, m *dns.Msg) []byte {
	switch m.Rcode {
	case dns.RcodeSuccess:
		s.stats.answered.Add(1)
	case dns.RcodeNameError:
		s.stats.nxdomain.Add(1)
	case dns.RcodeRefused:
		s.stats.refused.Add(1)
	case dns.RcodeServerFailure:
		s.stats.failed.Add(1)
	default:
		s.stats.malformed.Add(1)
	}
	return encode(q, m)
}

// encode packs a reply. One that is too large for the asker loses its records and gets TC, whereupon the asker comes
// back by TCP (RFC 2181 section 9). EDNS stays (RFC 6891 section 7).
func encode(q *query, m *dns.Msg) []byte {
	raw, err := m.Pack()
	if err == nil && len(raw) <= q.limit {
		return raw
	}
	m.Answer, m.Ns, m.Truncated = nil, nil, err == nil
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
	}
	raw, err = m.Pack()
	if err != nil {
		return bareReply(q.raw, dns.RcodeServerFailure)
	}
	return raw
}

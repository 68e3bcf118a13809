package dnsd

import (
	"bytes"
	"encoding/binary"

	"github.com/miekg/dns"
)

// The header of a message (RFC 1035 section 4.1.1):
//
//	 0                 2                 4        6        8        10       12
//	+-----------------+-----------------+--------+--------+--------+--------+
//	| ID              |QR OPCODE  AA TC RD|RA Z AD CD RCODE| QD | AN | NS | AR |
//	+-----------------+-----------------+--------+--------+--------+--------+
const (
	headerLen   = 12
	bitResponse = 0x80 // QR, in byte 2
	bitAA       = 0x04 // authoritative, in byte 2
	bitTC       = 0x02 // truncated, in byte 2
)

const (
	plainUDP  = 512   // the largest UDP message for an asker without EDNS, RFC 1035 section 2.3.4
	maxUDP    = 65507 // the largest that IPv4 carries; on lo nothing is lost by fragments
	maxTCP    = 65535 // RFC 1035 section 4.2.2
	advertise = 1232  // what our own EDNS record allows the asker to send, as agreed on DNS flag day 2020
)

// query is a well-formed question.
type query struct {
	raw   []byte // as it arrived; the server's buffer until keep
	asked dns.Question
	msg   *dns.Msg
	limit int // the largest reply in bytes
}

// keep makes the query outlive the buffer that it came in.
func (q *query) keep() { q.raw = bytes.Clone(q.raw) }

// respond is the life of a query from check to answer. It returns the reply, or the query if an upstream has to be
// asked, or neither if there must be no answer. It keeps nothing of raw except in the query that it returns.
func (s *Server) respond(raw []byte, udp bool) ([]byte, *query) {
	s.stats.queries.Add(1)
	// An answer to an answer could go in circles.
	if len(raw) < headerLen || raw[2]&bitResponse != 0 {
		s.stats.dropped.Add(1)
		return nil, nil
	}
	q, rcode := parseQuery(raw, udp)
	if q == nil {
		s.stats.malformed.Add(1)
		return bareReply(raw, rcode), nil
	}
	if rcode == dns.RcodeSuccess {
		rcode = checkQuestion(q.asked)
	}
	if rcode != dns.RcodeSuccess {
		return s.finish(q, s.reply(q, rcode)), nil
	}
	view := s.view.Load()
	if f, ours := view.find(q.asked.Name); ours {
		return s.finish(q, s.answer(q, f)), nil
	}
	if s.cfg.Upstreams == nil {
		return s.finish(q, s.reply(q, dns.RcodeRefused)), nil
	}
	return nil, q
}

// parseQuery decodes a message and checks its form. Without a query the reply is only a header with the rcode; with
// one, an rcode other than 0 is what to answer.
func parseQuery(raw []byte, udp bool) (*query, int) {
	// RFC 1035 section 4.1.1: NOTIMP, the server does not support the requested kind of query.
	if opcode := raw[2] >> 3 & 15; opcode != dns.OpcodeQuery {
		return nil, dns.RcodeNotImplemented
	}
	// RFC 9619 section 4: a message with OPCODE = 0 and QDCOUNT > 1 MUST be treated as incorrectly formatted. It
	// also stops a name of ours from passing to an upstream behind a harmless first question.
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return nil, dns.RcodeFormatError
	}
	asked, ok := parseQuestion(raw)
	if !ok {
		return nil, dns.RcodeFormatError
	}
	q := &query{raw: raw, asked: asked, msg: new(dns.Msg), limit: maxTCP}
	if err := q.msg.Unpack(raw); err != nil {
		return nil, dns.RcodeFormatError
	}
	opts := optRecords(q.msg)
	if udp {
		q.limit = plainUDP
		if len(opts) > 0 {
			// RFC 6891 section 6.2.3: values lower than 512 MUST be treated as equal to 512.
			q.limit = min(max(int(opts[0].UDPSize()), plainUDP), maxUDP)
		}
	}
	switch {
	// RFC 6891 section 6.1.1: if a query message with more than one OPT RR is received, a FORMERR MUST be returned.
	// Section 6.1.2: its owner MUST be the root.
	case len(opts) > 1, len(opts) == 1 && opts[0].Hdr.Name != ".":
		return q, dns.RcodeFormatError
	// RFC 6891 section 6.1.3: if the VERSION is not implemented, the responder MUST respond with BADVERS.
	case len(opts) == 1 && opts[0].Version() != 0:
		return q, dns.RcodeBadVers
	}
	return q, dns.RcodeSuccess
}

func optRecords(m *dns.Msg) []*dns.OPT {
	var out []*dns.OPT
	for _, rr := range m.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			out = append(out, opt)
		}
	}
	return out
}

// checkQuestion refuses what is neither answered nor passed on, whatever the name.
func checkQuestion(q dns.Question) int {
	// There is nothing of another class here, and to pass it on could tell a name of ours to others.
	if q.Qclass != dns.ClassINET {
		return dns.RcodeRefused
	}
	// RFC 6895 section 3.1: 128 to 255 are questions and meta types, such as zone transfers, and so is OPT.
	if q.Qtype == dns.TypeOPT || q.Qtype >= 128 && q.Qtype <= 255 && q.Qtype != dns.TypeANY {
		return dns.RcodeRefused
	}
	return dns.RcodeSuccess
}

// parseQuestion reads the first question of a message that has at least a header.
func parseQuestion(raw []byte) (dns.Question, bool) {
	if len(raw) < headerLen || binary.BigEndian.Uint16(raw[4:]) == 0 {
		return dns.Question{}, false
	}
	name, end, err := dns.UnpackDomainName(raw, headerLen)
	if err != nil || len(raw) < end+4 {
		return dns.Question{}, false
	}
	return dns.Question{
		Name:   name,
		Qtype:  binary.BigEndian.Uint16(raw[end:]),
		Qclass: binary.BigEndian.Uint16(raw[end+2:]),
	}, true
}

// bareReply is a header alone, for a message whose question cannot be repeated.
func bareReply(raw []byte, rcode int) []byte {
	out := make([]byte, headerLen)
	copy(out, raw[:2])
	out[2] = raw[2]&^(bitAA|bitTC) | bitResponse // keeps opcode and RD
	out[3] = byte(rcode)
	return out
}

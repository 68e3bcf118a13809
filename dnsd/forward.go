package dnsd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxUpstreams is how many are asked, as in glibc (MAXNS in resolv.h): the asker has given up before a fourth.
const maxUpstreams = 3

// acquire takes one of the places for forwarded queries, if one is free. The holder gives it back with release.
func (s *Server) acquire() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Server) release() { <-s.slots }

// forward asks the upstreams in turn and returns the reply for the asker: what the first of them said that answers,
// else the first refusal or failure, else SERVFAIL.
//
// An upstream that says SERVFAIL, NOTIMP or REFUSED makes the next one be asked, because that is what glibc does when
// it has the same list (resolv/res_send.c): a host must resolve with this server what it resolved without.
func (s *Server) forward(ctx context.Context, q *query) []byte {
	var refusal []byte
	for _, upstream := range s.upstreams() {
		if ctx.Err() != nil {
			break
		}
		reply, err := s.exchange(ctx, upstream, q)
		if err != nil {
			continue
		}
		switch int(reply[3] & 15) {
		case dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
			if refusal == nil {
				refusal = reply
			}
			continue
		}
		return s.passOn(q, reply)
	}
	if refusal != nil {
		return s.passOn(q, refusal)
	}
	return s.fail(q)
}

func (s *Server) fail(q *query) []byte { return s.finish(q, s.reply(q, dns.RcodeServerFailure)) }

// upstreams returns the ones to ask. A query to ourselves would come back for ever.
func (s *Server) upstreams() []netip.AddrPort {
	var out []netip.AddrPort
	for _, u := range s.cfg.Upstreams() {
		u = netip.AddrPortFrom(u.Addr().Unmap(), u.Port())
		if u.IsValid() && !s.isOwn(u) && len(out) < maxUpstreams {
			out = append(out, u)
		}
	}
	return out
}

// passOn returns an upstream's reply as it is, under the asker's id, or its truncated form if the asker cannot take it.
func (s *Server) passOn(q *query, reply []byte) []byte {
	s.stats.forwarded.Add(1)
	if len(reply) <= q.limit {
		copy(reply, q.raw[:2])
		return reply
	}
	m := s.reply(q, int(reply[3]&15))
	m.Truncated = true
	return encode(q, m)
}

// exchangeNet asks one upstream by UDP, and again by TCP if the reply was truncated. If only TCP fails, the truncated
// reply stands for an asker on UDP, who can act on it.
func (s *Server) exchangeNet(ctx context.Context, upstream netip.AddrPort, q *query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	reply, err := s.exchangeVia(ctx, "udp", upstream, q)
	if err != nil || reply[2]&bitTC == 0 {
		return reply, err
	}
	whole, err := s.exchangeVia(ctx, "tcp", upstream, q)
	if err != nil && q.limit < maxTCP {
		return reply, nil
	}
	return whole, err
}

// exchangeVia opens a socket for one query, so that each has a random port of the kernel's choice beside its random
// id (RFC 5452 section 9.2), and closes it. It is connected, so the kernel drops what comes from any other address
// and port.
func (s *Server) exchangeVia(ctx context.Context, network string, upstream netip.AddrPort, q *query) ([]byte, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is written after the reply
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline) //nolint:errcheck // fails only on a closed connection
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() //nolint:errcheck // as above
	asked := bytes.Clone(q.raw)
	rand.Read(asked[:2])
	if network == "tcp" {
		return s.exchangeStream(conn, asked)
	}
	return s.exchangeDatagram(conn, asked)
}

// exchangeDatagram reads until the right reply comes: to stop at a wrong one would let anybody who can forge the
// upstream's address put an end to the query.
func (s *Server) exchangeDatagram(conn net.Conn, asked []byte) ([]byte, error) {
	if _, err := conn.Write(asked); err != nil {
		return nil, err
	}
	buf := make([]byte, maxTCP)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(asked, buf[:n]) {
			return bytes.Clone(buf[:n]), nil
		}
		s.stats.mismatched.Add(1)
	}
}

var errMismatch = errors.New("reply does not answer the query")

func (s *Server) exchangeStream(conn net.Conn, asked []byte) ([]byte, error) {
	if err := writeMessage(conn, asked); err != nil {
		return nil, err
	}
	reply, err := readMessage(conn)
	if err != nil {
		return nil, err
	}
	if !answers(asked, reply) {
		s.stats.mismatched.Add(1)
		return nil, errMismatch
	}
	return reply, nil
}

// answers reports whether reply is one to what was asked (RFC 5452 section 9.1): same id, a response to a standard
// query, and the same question. Letters may differ in case; an asker that plays with it checks that itself.
func answers(asked, reply []byte) bool {
	if len(reply) < headerLen || !bytes.Equal(asked[:2], reply[:2]) {
		return false
	}
	if reply[2]&bitResponse == 0 || reply[2]>>3&15 != dns.OpcodeQuery || binary.BigEndian.Uint16(reply[4:]) != 1 {
		return false
	}
	want, ok := parseQuestion(asked)
	got, ok2 := parseQuestion(reply)
	return ok && ok2 && strings.EqualFold(want.Name, got.Name) && want.Qtype == got.Qtype && want.Qclass == got.Qclass
}

// A message on TCP follows its length in two octets (RFC 1035 section 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// writeMessage writes length and message at once, so that they share a segment (RFC 7766 section 8).
func writeMessage(w io.Writer, msg []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	return err
}

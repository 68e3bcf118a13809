package dhcpd

import (
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Ask takes a question, and returns what is answered at once.
func (s *Service) Ask(q Question, now time.Time) []Reply {
	m := parse(q.Frame)
	if m == nil {
		s.stats.Malformed++
		return nil
	}
	if !s.allow(tenant{q.Who, m.client}, now) {
		s.stats.Limited++
		return nil
	}
	if !now.Before(s.state.Expires) {
		return nil // what is leased may be otherwise by now
	}
	return s.heed(&waiting{q: q, m: m, since: now}, now)
}

// heed answers a question, new or waiting.
func (s *Service) heed(w *waiting, now time.Time) []Reply {
	switch w.m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		s.stats.Discover++
		return s.discover(w, now)
	case dhcpv4.MessageTypeRequest:
		s.stats.Request++
		return s.request(w, now)
	case dhcpv4.MessageTypeDecline:
		s.stats.Decline++
		s.decline(w, now)
	case dhcpv4.MessageTypeRelease:
		s.stats.Release++
		s.release(w, now)
	case dhcpv4.MessageTypeInform: // RFC 2131 section 4.3.5
		s.stats.Inform++
		if w.m.ciaddr.IsValid() {
			s.stats.Ack++
			return w.reply(s.answer(w.m, dhcpv4.MessageTypeAck, netip.Prefix{}))
		}
	default:
		s.stats.Malformed++
	}
	return nil
}

func (w *waiting) reply(frame []byte) []Reply {
	if frame == nil {
		return nil
	}
	return []Reply{{w.q.Attachment, frame}}
}

func (w *waiting) tenant() tenant { return tenant{w.q.Who, w.m.client} }

// discover offers what the machine has, or asks the controller for an address.
func (s *Service) discover(w *waiting, now time.Time) []Reply {
	if p, is := s.state.Listed[w.q.Who]; is {
		return s.offer(w, p)
	}
	l := s.leases[w.tenant()]
	switch {
	case l == nil || !s.inPool(l.Address):
		return s.ask(w, now)
	case l.Phase != Offered:
		return s.offer(w, s.prefixed(l.Address))
	}
	if w.declined == l.Address {
		s.wait(w)
		return nil // until the state gives it another
	}
	if s.squatted(w.q.Attachment, l) {
		w.declined = l.Address
		s.report(&Report{Act: Decline, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address}, now)
		return s.ask(w, now)
	}
	here := spot{w.q.Attachment, l.Address}
	switch at, asked := s.probed[here]; {
	case asked && now.Sub(at) >= probeWait:
		return s.offer(w, s.prefixed(l.Address))
	case asked:
		w.probe = at.Add(probeWait)
		s.wait(w)
		return nil
	}
	s.probed[here] = now
	w.probe = now.Add(probeWait)
	if !s.wait(w) {
		return nil
	}
	return w.reply(s.probe(l.Address))
}

// ask lets a machine wait for an address.
func (s *Service) ask(w *waiting, now time.Time) []Reply {
	if !s.state.From.IsValid() || !s.wait(w) {
		return nil
	}
	s.report(&Report{Act: Ask, Attachment: w.q.Attachment, MAC: w.m.client, Address: w.m.requested, Name: w.m.name()}, now)
	return nil
}

func (s *Service) prefixed(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, s.state.Prefix.Bits())
}

func (s *Service) offer(w *waiting, p netip.Prefix) []Reply {
	s.stats.Offer++
	return w.reply(s.answer(w.m, dhcpv4.MessageTypeOffer, p))
}

// request confirms an address that the machine has by the state, binds one that was offered, and refuses all others (RFC 2131 section
// 4.3.2): nobody else gives addresses on this segment.
func (s *Service) request(w *waiting, now time.Time) []Reply {
	if w.m.server.IsValid() && w.m.server != s.state.Server {
		return nil // it has chosen another server, and what was set aside for it is free again soon
	}
	if p, is := s.state.Listed[w.q.Who]; is {
		if w.m.address() == p.Addr() {
			return s.confirm(w, p, now)
		}
		return s.refuse(w)
	}
	l := s.leases[w.tenant()]
	if l == nil || l.Address != w.m.address() || !s.inPool(l.Address) {
		return s.refuse(w)
	}
	if l.Phase == Bound {
		s.report(&Report{Act: Renew, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address, Name: w.m.name()}, now)
		return s.confirm(w, s.prefixed(l.Address), now)
	}
	if s.squatted(w.q.Attachment, l) {
		s.report(&Report{Act: Decline, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address}, now)
		return s.refuse(w)
	}
	if s.wait(w) {
		s.report(&Report{Act: Bind, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address, Name: w.m.name()}, now)
	}
	return nil
}

func (s *Service) confirm(w *waiting, p netip.Prefix, now time.Time) []Reply {
	s.stats.Ack++
	delete(s.waiting, w.tenant())
	s.expires[w.tenant()] = now.Add(s.state.Lease)
	return w.reply(s.answer(w.m, dhcpv4.MessageTypeAck, p))
}

func (s *Service) refuse(w *waiting) []Reply {
	s.stats.Nak++
	delete(s.waiting, w.tenant())
	return w.reply(s.answer(w.m, dhcpv4.MessageTypeNak, netip.Prefix{}))
}

// decline takes it that somebody else uses an address (RFC 2131 section 4.3.3).
func (s *Service) decline(w *waiting, now time.Time) {
	l := s.leases[w.tenant()]
	if l == nil || l.Address != w.m.requested || w.m.server != s.state.Server {
		return
	}
	s.stats.Conflicts++
	delete(s.waiting, w.tenant())
	s.report(&Report{Act: Decline, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address}, now)
}

// release takes an address back (RFC 2131 section 4.3.4).
func (s *Service) release(w *waiting, now time.Time) {
	l := s.leases[w.tenant()]
	if l == nil || l.Address != w.m.ciaddr || w.m.server.IsValid() && w.m.server != s.state.Server {
		return
	}
	delete(s.waiting, w.tenant())
	delete(s.expires, w.tenant())
	s.report(&Report{Act: Release, Attachment: w.q.Attachment, MAC: l.MAC, Address: l.Address}, now)
}

// wait keeps a question until the state answers it, in the place of an older one of the same machine; false if there is no room.
func (s *Service) wait(w *waiting) bool {
	t := w.tenant()
	if s.waiting[t] == nil && len(s.waiting) >= maxWaiting {
		s.stats.Limited++
		return false
	}
	s.waiting[t] = w
	return true
}

// reconsider answers those who wait, as far as the state and the time do, and gives up on those who have waited for too long.
func (s *Service) reconsider(now time.Time) []Reply {
	var out []Reply
	for t, w := range s.waiting {
		l := s.leases[t]
		switch {
		case now.Sub(w.since) >= patience:
			delete(s.waiting, t)
		case w.refuse:
			out = append(out, s.refuse(w)...)
		case w.m.MessageType() == dhcpv4.MessageTypeRequest:
			if l != nil && l.Phase == Bound && l.Address == w.m.address() {
				out = append(out, s.confirm(w, s.prefixed(l.Address), now)...)
			}
		case l == nil || now.Before(w.probe):
		default:
			delete(s.waiting, t) // discover makes it wait again if need be
			out = append(out, s.discover(w, now)...)
		}
	}
	return out
}

// keyOf names what a report is about: a later one of the same kind takes its place.
type keyOf struct {
	act        Act
	attachment policy.Identity
	mac        ether.MAC
	address    netip.Addr
}

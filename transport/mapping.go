package transport

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pion/stun"

	"github.com/etherloom/etherloom/transport/relay"
)

// mappingState is what the relays' STUN answers say about the NAT in front of a socket.
type mappingState struct {
	seen  map[netip.AddrPort]mapped // by server
	asked int                       // rounds without any answer
	next  time.Time
}

type mapped struct {
	addr netip.AddrPort
	at   time.Time
}

const (
	mappingEvery = 20 * time.Second // keeps the NAT's hole towards the relay open, too
	mappingFirst = time.Second
	mappingLife  = 3 * mappingEvery
	mappingTries = 4 // rounds without an answer before UDP counts as blocked
)

// tendMappingLocked asks every relay how it sees the socket, when that is due.
func (e *Endpoint) tendMappingLocked(s *socketLoop, now time.Time) {
	m := &s.mapping
	if now.Before(m.next) {
		return
	}
	for server, answer := range m.seen {
		if now.Sub(answer.at) > mappingLife {
			delete(m.seen, server)
		}
	}
	m.next = now.Add(mappingEvery)
	if len(m.seen) == 0 {
		m.next = now.Add(mappingFirst)
	}
	asked := false
	for _, r := range e.relays {
		for _, server := range r.stunLocked() {
			if server.Addr().Is4() == s.local.Addr().Is4() {
				e.askMappingLocked(s, server, now)
				asked = true
			}
		}
	}
	if asked && len(m.seen) == 0 {
		m.asked++
	}
}

func (e *Endpoint) askMappingLocked(s *socketLoop, server netip.AddrPort, now time.Time) {
	req, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		return
	}
	e.mux.expect(req.TransactionID, now, func(m *stun.Message, from netip.AddrPort) {
		var addr stun.XORMappedAddress
		if from == server && addr.GetFrom(m) == nil {
			e.mappingSeen(s, server, addr)
		}
	})
	_ = s.writeTo(relay.Pad(req.Raw), server)
}

func (e *Endpoint) mappingSeen(s *socketLoop, server netip.AddrPort, x stun.XORMappedAddress) {
	addr := (&net.UDPAddr{IP: x.IP, Port: x.Port}).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !usable(addr.Addr()) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now, m := time.Now(), &s.mapping
	if m.seen == nil {
		m.seen = make(map[netip.AddrPort]mapped)
	}
	first := len(m.seen) == 0
	changed := m.seen[server].addr.IsValid() && m.seen[server].addr != addr
	m.seen[server], m.asked = mapped{addr, now}, 0
	if first {
		m.next = now.Add(mappingEvery)
	}
	if !first && !changed {
		return
	}
	// A new address to be found at: tell whoever is looking for a path, or has one that is now in doubt.
	for _, p := range e.peers {
		if p.link != linkClosed && !p.ice.connected && p.ice.agent != nil {
			e.repeatSignalLocked(p, now)
		}
	}
}

// repeatSignalLocked sends the present attempt's signal again, with the candidates of now.
func (e *Endpoint) repeatSignalLocked(p *Peer, now time.Time) {
	switch {
	case p.ice.attempt == 0:
	case p.pair.initiates():
		e.signalLocked(p, signalOffer, p.ice.attempt, now)
	default:
		e.signalLocked(p, signalAnswer, p.ice.attempt, now)
	}
}

// mapped lists the distinct addresses that the outside sees.
func (m *mappingState) mapped() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range m.seen {
		if !slices.Contains(out, a.addr) {
			out = append(out, a.addr)
		}
	}
	return out
}

// class says how the NAT maps, as far as can be told.
func (m *mappingState) class(local netip.AddrPort) Mapping {
	distinct := m.mapped()
	switch {
	case len(distinct) > 1:
		return MappingDependent
	case len(distinct) == 1 && distinct[0] == local:
		return MappingNone
	case len(distinct) == 1 && len(m.seen) > 1:
		return MappingIndependent
	case len(distinct) == 0 && m.asked >= mappingTries:
		return MappingBlocked
	}
	return MappingUnknown
}

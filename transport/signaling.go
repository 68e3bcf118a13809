package transport

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// signalLocked sends a signal by every way there is.
func (e *Endpoint) signalLocked(p *Peer, kind byte, attempt uint64, now time.Time) {
	local, mapping := e.localLocked()
	sealed := p.pair.sealSignal(signal{
		sequence: e.stampLocked(now), kind: kind, mapping: mapping, attempt: attempt, candidates: local,
	})
	e.cfg.Signal(p.id, sealed)
	datagram := append([]byte{firstByte(typeSignal, p.party.suite), 0, 0, 0}, sealed...)
	if p.direct != nil && p.current == nil {
		_ = p.direct.write(datagram)
	}
	if p.cfg.RelaySlot != 0 {
		for _, r := range e.relays {
			_ = r.writeTo(datagram, netip.AddrPortFrom(relayLabel(), p.cfg.RelaySlot))
		}
	}
	body := append(binary.BigEndian.AppendUint32(nil, uint32(p.id)), sealed...)
	if way := p.active.Load(); way != nil {
		e.sendControlLocked(p, way.path, recordSignal, body)
	}
	if p.current == nil && p.ice.signals > 0 {
		e.askCommonPeersLocked(p, body)
	}
}

// commonPeers is how many other peers are asked to pass a signal on.
const commonPeers = 3

func (e *Endpoint) askCommonPeersLocked(p *Peer, body []byte) {
	asked := 0
	for _, q := range e.peers {
		if way := q.active.Load(); q != p && way != nil && asked < commonPeers {
			e.sendControlLocked(q, way.path, recordSignal, body)
			asked++
		}
	}
}

// HandleSignal takes a signal from a peer that a controller has passed on.
func (e *Endpoint) HandleSignal(from identity.ID, sealed []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.peers[from]; p != nil {
		e.takeSignalLocked(p, sealed, time.Now())
	}
}

// datagramSignal takes a signal that came as a datagram: through a relay, or from an address that ICE has checked.
func (e *Endpoint) datagramSignal(b []byte, at pathKey, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var p *Peer
	if _, relayed := at.in.(*relayClient); relayed && at.from.Addr() == relayLabel() {
		p = e.bySlot[at.from.Port()]
	} else if path := e.paths[at]; path != nil {
		p = path.peer
	}
	if p == nil || len(b) < 4 {
		e.counts.foreign.Add(1)
		return
	}
	e.takeSignalLocked(p, b[4:], now)
}

// passSignalLocked handles a signal that came inside a session: for us from the peer itself, for a third node to pass
// on, or from a third node through the peer. It is sealed between the two it concerns; who carries it learns nothing.
func (e *Endpoint) passSignalLocked(p *Peer, kind byte, id identity.ID, sealed []byte, now time.Time) {
	switch {
	case kind == recordSignaled:
		if origin := e.peers[id]; origin != nil {
			e.takeSignalLocked(origin, sealed, now)
		}
	case id == e.cfg.Self:
		e.takeSignalLocked(p, sealed, now)
	default:
		target := e.peers[id]
		if target == nil || len(sealed) > maxSignal || !p.forwards.AllowN(now, 1) {
			e.counts.signalsRefused.Add(1)
			return
		}
		if way := target.active.Load(); way != nil {
			e.sendControlLocked(target, way.path, recordSignaled,
				append(binary.BigEndian.AppendUint32(nil, uint32(p.id)), sealed...))
		}
	}
}

// takeSignalLocked opens a signal and acts on it, if it is newer than the last from the peer.
func (e *Endpoint) takeSignalLocked(p *Peer, sealed []byte, now time.Time) {
	if !p.signals.AllowN(now, 1) {
		e.counts.signalsRefused.Add(1)
		return
	}
	s, err := p.pair.openSignal(sealed)
	if err == nil && s.sequence == p.heardSig {
		return // the same one, by another way
	}
	if err == nil && s.sequence < p.heardSig {
		err = errOldSignal
	}
	if err != nil {
		e.counts.signalsRefused.Add(1)
		return
	}
	p.heardSig = s.sequence
	p.ice.mapping = s.mapping
	p.ice.remote = s.candidates
	e.dirty = true
	e.actOnLocked(p, s, now)
}

func (e *Endpoint) actOnLocked(p *Peer, s signal, now time.Time) {
	switch {
	case s.kind == signalOffer && !p.pair.initiates():
		e.takeOfferLocked(p, s, now)
	case s.kind == signalAnswer && p.pair.initiates():
		if p.ice.agent != nil && s.attempt == p.ice.attempt {
			p.ice.answered = true
			e.addRemoteLocked(p)
		}
	case (s.kind == signalWake || s.kind == signalSeek) && p.pair.initiates():
		e.takeWakeLocked(p, s.kind == signalWake, now)
	}
}

func (e *Endpoint) takeOfferLocked(p *Peer, s signal, now time.Time) {
	e.beginLocked(p, now)
	if p.ice.agent == nil || s.attempt > p.ice.attempt {
		if !e.startAgentLocked(p, s.attempt, now) {
			return
		}
	}
	if s.attempt != p.ice.attempt {
		return
	}
	p.ice.answered = true
	e.addRemoteLocked(p)
	e.signalLocked(p, signalAnswer, s.attempt, now)
}

func (e *Endpoint) takeWakeLocked(p *Peer, noSession bool, now time.Time) {
	if p.link == linkClosed {
		e.openLocked(p, now)
		return
	}
	if noSession {
		if p.current != nil {
			p.current.wantRekey.Store(true) // what is here is dead
		}
		p.try.hurry(now)
	}
	if p.ice.agent == nil || now.Sub(p.ice.began) > attemptPause {
		e.startAttemptLocked(p, now)
	}
}

// localLocked lists where this node may be reached, and how its NAT maps.
func (e *Endpoint) localLocked() ([]Candidate, Mapping) {
	var out []Candidate
	mapping := MappingUnknown
	for addr, s := range e.sockets {
		out = append(out, Candidate{Addr: s.local})
		for _, m := range s.mapping.mapped() {
			if m.Addr() != addr {
				out = append(out, Candidate{Addr: m, Reflexive: true})
			}
		}
		mapping = max(mapping, s.mapping.class(s.local))
	}
	return out, mapping
}

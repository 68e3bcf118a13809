package transport

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// counters count what went wrong, by reason.
type counters struct {
	unstaged, unsent                             atomic.Uint64
	foreign, noSession, unopened, replayed       atomic.Uint64
	badRecord, handshakesLost, handshakesRefused atomic.Uint64
	signalsRefused, cookies                      atomic.Uint64
}

// inbound is a handshake message on its way to the control loop.
type inbound struct {
	path pathKey
	data []byte
}

// handshakeQueue bounds what waits for the control loop; an eighth of it counts as load.
const handshakeQueue = 128

// reader is one receiving goroutine: the loop of a socket or of a relay.
type reader struct {
	e     *Endpoint
	in    carrier
	to    Receiver
	nonce [12]byte
}

func (e *Endpoint) newReader(in carrier, queue int) *reader {
	return &reader{e: e, in: in, to: e.cfg.NewReceiver(queue)}
}

// datagram takes one datagram that begins with a byte of ours. The bytes are the reader's until the next.
func (r *reader) datagram(b []byte, from netip.AddrPort, now time.Time) {
	switch b[0] & typeMask {
	case typeData:
		r.data(b, from, now)
	case typeInitiation, typeResponse, typeCookie:
		r.e.queueHandshake(b, pathKey{r.in, from})
	case typeSignal:
		r.e.datagramSignal(b, pathKey{r.in, from}, now)
	default:
		r.e.counts.foreign.Add(1)
	}
}

func (r *reader) data(b []byte, from netip.AddrPort, now time.Time) {
	c := &r.e.counts
	h, err := parseHeader(b)
	if err != nil {
		c.foreign.Add(1)
		return
	}
	ep := (*r.e.epochs.Load())[h.index]
	if ep == nil {
		c.noSession.Add(1)
		return
	}
	plain, err := ep.open(h, b, &r.nonce)
	if err != nil {
		if errors.Is(err, errReplay) {
			c.replayed.Add(1)
		} else {
			c.unopened.Add(1)
		}
		return
	}
	if !ep.confirmed.Load() {
		r.e.confirm(ep, now)
	}
	r.records(ep, h.shard, plain, from, now)
}

func (r *reader) records(ep *epoch, shard uint8, b []byte, from netip.AddrPort, now time.Time) {
	for len(b) > 0 {
		kind, body, rest, err := nextRecord(b)
		if err != nil {
			r.e.counts.badRecord.Add(1)
			return
		}
		b = rest
		switch kind {
		case recordMessage:
			r.deliver(ep.peer, body, now)
		case recordPiece:
			p, err := parsePiece(body)
			if err != nil {
				r.e.counts.badRecord.Add(1)
				return
			}
			if whole := ep.peer.rejoin.add(partID{ep, shard, p.id}, p, now); whole != nil {
				r.deliver(ep.peer, whole.buf, now)
				ep.peer.rejoin.free(whole)
			}
		case recordProbe, recordReply, recordSignal, recordSignaled, recordClose:
			r.e.controlRecord(ep, kind, body, pathKey{r.in, from}, now)
		}
	}
}

func (r *reader) deliver(p *Peer, message []byte, now time.Time) {
	p.received.Add(1)
	p.recvB.Add(uint64(len(message)))
	if coarse := r.e.coarse.Load(); p.heard.Load() != coarse {
		p.heard.Store(coarse)
	}
	r.to.Receive(p.id, message, now)
}

// controlRecord handles the records that are not data.
func (e *Endpoint) controlRecord(ep *epoch, kind byte, body []byte, at pathKey, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := ep.peer
	if p.gone || ep != p.current && ep != p.previous {
		return
	}
	switch kind {
	case recordProbe:
		// Only an address that ICE or the relay has vouched for is answered.
		if path := e.paths[at]; path != nil && path.peer == p && len(body) >= 8 {
			e.sendControlLocked(p, path, recordReply, body[:8])
		}
	case recordReply:
		if len(body) == 8 {
			e.probeReplyLocked(p, binary.BigEndian.Uint64(body), now)
		}
	case recordSignal, recordSignaled:
		if len(body) > 4 {
			e.passSignalLocked(p, kind, identity.ID(binary.BigEndian.Uint32(body)), body[4:], now)
		}
	case recordClose:
		e.closeLinkLocked(p, now, "the peer has closed the link")
	}
}

package transport

import (
	"github.com/etherloom/etherloom/identity"
)

// Remembered is what an endpoint must find again after a restart: so that old handshakes stay refused, and so that two
// nodes that know each other can meet without anybody's help.
type Remembered struct {
	Clock uint64                         `json:"clock"` // ceiling of the node's own clock
	Peers map[identity.ID]RememberedPeer `json:"peers"`
}

// RememberedPeer is what is known of a peer beside its signed record.
type RememberedPeer struct {
	HandshakeNonce uint64      `json:"handshake_nonce"` // of the newest handshake accepted from it
	HandshakeTime  uint64      `json:"handshake_time"`
	Signal         uint64      `json:"signal"` // sequence of the newest signal
	Candidates     []Candidate `json:"candidates"`
}

// rememberLocked hands the present state out to be kept, if it has changed.
func (e *Endpoint) rememberLocked() {
	if !e.dirty || e.cfg.Remember == nil {
		return
	}
	e.dirty = false
	r := Remembered{Clock: e.clock.ceiling, Peers: make(map[identity.ID]RememberedPeer, len(e.peers))}
	for id, p := range e.peers {
		r.Peers[id] = RememberedPeer{
			HandshakeNonce: p.last.Nonce, HandshakeTime: p.last.Time, Signal: p.heardSig, Candidates: p.ice.remote,
		}
	}
	e.cfg.Remember(r)
}

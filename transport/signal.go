package transport

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/crypto/chacha20poly1305"
)

// A signal is how two nodes arrange to meet. It is sealed between the pair, so it may travel by any way at all: through
// a controller, as a datagram through a relay, through a common peer; it is sent by all of them at once, and the
// receiver takes the first.
//
//	nonce (24), then XChaCha20-Poly1305 under the pair's key for the sender's direction:
//	  sequence (64)   of the sender's clock: must be greater than that of its last signal
//	  kind (8)        1 offer, 2 answer, 3 wake, 4 seek
//	  NAT (8)         how the sender's NAT maps: see Mapping
//	  attempt (64)    which ICE attempt the candidates are for; 0 in a wake or seek
//	  count (8), then for each candidate: type (8: 0 host, 1 server reflexive), address (128), port (16)
//
// The node that initiates offers and numbers attempts; the other answers. A wake says that the other has no session and
// asks the initiator to begin one; a seek asks it only to look for a direct path again.
const (
	signalOffer  = 1
	signalAnswer = 2
	signalWake   = 3
	signalSeek   = 4

	signalHead    = 8 + 1 + 1 + 8 + 1
	candidateSize = 1 + 16 + 2

	maxCandidates = 24
	maxSignal     = chacha20poly1305.NonceSizeX + signalHead + maxCandidates*candidateSize + chacha20poly1305.Overhead
)

// Mapping is how a NAT in front of a node maps its sockets (RFC 4787 section 4.1).
type Mapping uint8

// The mappings that matter for punching holes.
const (
	MappingUnknown     Mapping = iota // nobody to ask yet
	MappingNone                       // no NAT
	MappingIndependent                // one address for all destinations: holes can be punched
	MappingDependent                  // another port for each destination ("symmetric"): holes cannot be punched
	MappingBlocked                    // no answer at all: UDP seems to be blocked
)

func (m Mapping) String() string {
	switch m {
	case MappingNone:
		return "none"
	case MappingIndependent:
		return "endpoint-independent"
	case MappingDependent:
		return "symmetric"
	case MappingBlocked:
		return "udp-blocked"
	default:
		return "unknown"
	}
}

// Candidate is one address at which a node may be reached.
type Candidate struct {
	Addr      netip.AddrPort `json:"addr"`
	Reflexive bool           `json:"reflexive,omitempty"` // seen by a relay, not an address of the node itself
}

type signal struct {
	sequence   uint64
	kind       byte
	mapping    Mapping
	attempt    uint64
	candidates []Candidate
}

var (
	errSignal    = errors.New("transport: signal does not open")
	errOldSignal = errors.New("transport: signal is older than the last from this peer")
)

func (p *pair) sealSignal(s signal) []byte {
	plain := binary.BigEndian.AppendUint64(nil, s.sequence)
	plain = append(plain, s.kind, byte(s.mapping))
	plain = binary.BigEndian.AppendUint64(plain, s.attempt)
	list := s.candidates[:min(len(s.candidates), maxCandidates)]
	plain = append(plain, byte(len(list)))
	for _, c := range list {
		plain = appendCandidate(plain, c)
	}
	out := make([]byte, chacha20poly1305.NonceSizeX, maxSignal)
	rand.Read(out)
	return p.signalOut.Seal(out, out, plain, nil)
}

func appendCandidate(b []byte, c Candidate) []byte {
	kind := byte(0)
	if c.Reflexive {
		kind = 1
	}
	addr := c.Addr.Addr().As16()
	b = append(append(b, kind), addr[:]...)
	return binary.BigEndian.AppendUint16(b, c.Addr.Port())
}

func (p *pair) openSignal(b []byte) (signal, error) {
	if len(b) < chacha20poly1305.NonceSizeX || len(b) > maxSignal {
		return signal{}, errSignal
	}
	nonce, sealed := b[:chacha20poly1305.NonceSizeX], b[chacha20poly1305.NonceSizeX:]
	plain, err := p.signal.Open(nil, nonce, sealed, nil)
	if err != nil {
		return signal{}, errSignal
	}
	return parseSignal(plain)
}

func parseSignal(b []byte) (signal, error) {
	if len(b) < signalHead {
		return signal{}, errSignal
	}
	s := signal{
		sequence: binary.BigEndian.Uint64(b), kind: b[8], mapping: Mapping(b[9]),
		attempt: binary.BigEndian.Uint64(b[10:]),
	}
	count, b := int(b[18]), b[signalHead:]
	if count > maxCandidates || len(b) != count*candidateSize {
		return signal{}, errSignal
	}
	for ; len(b) > 0; b = b[candidateSize:] {
		addr := netip.AddrFrom16([16]byte(b[1:17])).Unmap()
		port := binary.BigEndian.Uint16(b[17:])
		if !usable(addr) || port == 0 {
			continue
		}
		s.candidates = append(s.candidates, Candidate{Addr: netip.AddrPortFrom(addr, port), Reflexive: b[0] == 1})
	}
	return s, nil
}

// usable refuses addresses that a peer has no business to send us to: it would make this node knock at its own
// services, or at groups.
func usable(a netip.Addr) bool {
	return a.IsGlobalUnicast() || a.Is4() && a.IsLinkLocalUnicast()
}

package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"github.com/etherloom/etherloom/identity"
)

// The handshake is Noise IK: the initiator knows the responder's static key from the signed peer table, and proves its
// own; each side's certificate travels encrypted in the payload.
//
//	initiation  first byte, 3 zero bytes
//	            sender's index (32)
//	            Noise: ephemeral (32), static (32+16), payload (n+16)
//	            mac1 (16), mac2 (16)
//	   payload  handshake nonce (64), timestamp (64), certificate
//
//	response    first byte, 3 zero bytes
//	            sender's index (32), receiver's index (32)
//	            Noise: ephemeral (32), payload (n+16)
//	            mac1 (16), mac2 (16)
//	   payload  certificate
//
// The protocol's name carries the suite, the prologue the version and the network: nodes that disagree about one of
// them do not understand each other at all.
const (
	initiationHead = 8
	responseHead   = 12
	macsLen        = 2 * macLen

	minInitiation = initiationHead + 32 + 48 + 16 + 16 + macsLen
	minResponse   = responseHead + 32 + 16 + macsLen
	maxHandshake  = 1280 // so that it crosses every path whole
)

var (
	errHandshake = errors.New("transport: handshake message does not open")
	errCertSize  = errors.New("transport: the certificate is too long for a handshake message")
)

// stamp orders the handshakes of one initiator: first by the nonce that the controller keeps for it, then by its own
// clock, which never goes back (clock.go).
type stamp struct{ Nonce, Time uint64 }

func (s stamp) newer(than stamp) bool {
	return s.Nonce > than.Nonce || s.Nonce == than.Nonce && s.Time > than.Time
}

// party is what a handshake needs to know of a pair.
type party struct {
	network identity.NetworkID
	suite   Suite
	keys    identity.NodeKeys
	remote  identity.StaticPublicKey
	random  io.Reader // of ephemeral keys: crypto/rand, but for the vectors
}

func (p *party) state(initiator bool) (*noise.HandshakeState, error) {
	own := p.keys.StaticPublic()
	cfg := noise.Config{
		CipherSuite: p.suite.noise(), Random: p.random, Pattern: noise.HandshakeIK, Initiator: initiator,
		Prologue:      append([]byte("etherloom\x00\x01"), p.network[:]...),
		StaticKeypair: noise.DHKey{Private: p.keys.Static.Bytes(), Public: own[:]},
	}
	if initiator {
		cfg.PeerStatic = p.remote[:]
	}
	return noise.NewHandshakeState(cfg)
}

// initiation is the state between the first message and the second.
type initiation struct {
	noise *noise.HandshakeState
	index uint32
}

// initiate makes the first message, but for its MACs.
func (p *party) initiate(index uint32, at stamp, cert []byte) (*initiation, []byte, error) {
	hs, err := p.state(true)
	if err != nil {
		return nil, nil, fmt.Errorf("begin handshake: %w", err)
	}
	payload := binary.BigEndian.AppendUint64(nil, at.Nonce)
	payload = binary.BigEndian.AppendUint64(payload, at.Time)
	payload = append(payload, cert...)
	msg := []byte{firstByte(typeInitiation, p.suite), 0, 0, 0}
	msg = binary.BigEndian.AppendUint32(msg, index)
	msg, _, _, err = hs.WriteMessage(msg, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("write initiation: %w", err)
	}
	if len(msg)+macsLen > maxHandshake {
		return nil, nil, errCertSize
	}
	return &initiation{noise: hs, index: index}, msg, nil
}

// offer is what a responder has read of a first message.
type offer struct {
	noise *noise.HandshakeState
	index uint32 // the initiator's
	at    stamp
	cert  []byte
}

// readInitiation opens a first message whose mac1 has been checked. Its static key must be that of the one peer that
// the path belongs to.
func (p *party) readInitiation(msg []byte) (*offer, error) {
	if len(msg) < minInitiation || len(msg) > maxHandshake || [3]byte(msg[1:4]) != [3]byte{} {
		return nil, errHandshake
	}
	hs, err := p.state(false)
	if err != nil {
		return nil, fmt.Errorf("begin handshake: %w", err)
	}
	payload, _, _, err := hs.ReadMessage(nil, msg[initiationHead:len(msg)-macsLen])
	if err != nil || [32]byte(hs.PeerStatic()) != p.remote || len(payload) < 16 {
		return nil, errHandshake
	}
	return &offer{
		noise: hs, index: binary.BigEndian.Uint32(msg[4:]), cert: payload[16:],
		at: stamp{binary.BigEndian.Uint64(payload), binary.BigEndian.Uint64(payload[8:])},
	}, nil
}

// respond makes the second message, but for its MACs, and the secrets of the epoch: what the responder sends with and
// receives with.
func (p *party) respond(o *offer, index uint32, cert []byte) (msg []byte, send, recv [32]byte, err error) {
	msg = []byte{firstByte(typeResponse, p.suite), 0, 0, 0}
	msg = binary.BigEndian.AppendUint32(msg, index)
	msg = binary.BigEndian.AppendUint32(msg, o.index)
	msg, toResponder, toInitiator, err := o.noise.WriteMessage(msg, cert)
	if err != nil {
		return nil, send, recv, fmt.Errorf("write response: %w", err)
	}
	if len(msg)+macsLen > maxHandshake {
		return nil, send, recv, errCertSize
	}
	return msg, toInitiator.UnsafeKey(), toResponder.UnsafeKey(), nil
}

// answer is what an initiator has read of a second message.
type answer struct {
	index      uint32 // the responder's
	cert       []byte
	send, recv [32]byte
}

// responseIndex reads which initiation a second message answers.
func responseIndex(msg []byte) (uint32, bool) {
	if len(msg) < minResponse || len(msg) > maxHandshake || [3]byte(msg[1:4]) != [3]byte{} {
		return 0, false
	}
	return binary.BigEndian.Uint32(msg[8:]), true
}

// readResponse opens a second message whose length responseIndex has checked. A message that does not open leaves the
// initiation as it was, so that a forged one spoils nothing.
func (i *initiation) readResponse(msg []byte) (*answer, error) {
	payload, toResponder, toInitiator, err := i.noise.ReadMessage(nil, msg[responseHead:len(msg)-macsLen])
	if err != nil || toResponder == nil {
		return nil, errHandshake
	}
	return &answer{
		index: binary.BigEndian.Uint32(msg[4:]), cert: payload,
		send: toResponder.UnsafeKey(), recv: toInitiator.UnsafeKey(),
	}, nil
}

package transport

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/etherloom/etherloom/identity"
)

// pair is what two nodes share without ever having spoken: the X25519 product of their static keys, which each knows
// from the other's signed record. It seals their signals, and it names their ICE agents, so that two nodes that know each
// other can meet when there is nobody left to introduce them.
type pair struct {
	secret            []byte
	own, peer         identity.ID
	signalOut, signal cipher.AEAD
}

func newPair(network identity.NetworkID, keys identity.NodeKeys, own, peer identity.ID, static identity.StaticPublicKey) (*pair, error) {
	secret, err := keys.SharedSecret(static)
	if err != nil {
		return nil, err
	}
	p := &pair{own: own, peer: peer}
	if p.secret, err = hkdf.Key(sha256.New, secret, network[:], "etherloom pair v1", 32); err != nil {
		return nil, fmt.Errorf("derive the pair's secret: %w", err)
	}
	if p.signalOut, err = p.signalKey(own); err != nil {
		return nil, err
	}
	p.signal, err = p.signalKey(peer)
	return p, err
}

func (p *pair) signalKey(sender identity.ID) (cipher.AEAD, error) {
	key, err := p.derive("etherloom signal v1", sender, 0, 32)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.NewX(key)
}

func (p *pair) derive(label string, of identity.ID, attempt uint64, n int) ([]byte, error) {
	info := binary.BigEndian.AppendUint64([]byte(label), uint64(of))
	info = binary.BigEndian.AppendUint64(info, attempt)
	out, err := hkdf.Key(sha256.New, p.secret, nil, string(info), n)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", label, err)
	}
	return out, nil
}

// iceCredentials are the user fragment and password that one of the two uses in an attempt. RFC 8445 section 5.3 asks
// for 24 and 128 bits; these have 48 and 144.
func (p *pair) iceCredentials(of identity.ID, attempt uint64) (ufrag, pwd string, err error) {
	b, err := p.derive("etherloom ice v1", of, attempt, 24)
	if err != nil {
		return "", "", err
	}
	enc := base64.RawStdEncoding
	return enc.EncodeToString(b[:6]), enc.EncodeToString(b[6:]), nil
}

// initiates reports whether this side controls ICE and starts every handshake: the lower identity does.
func (p *pair) initiates() bool { return p.own < p.peer }

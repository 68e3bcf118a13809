package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Enrolment in two steps, so that the controller certifies only keys that the machine really holds:
//
//	node                                                   controller
//	 | Begin(token secret)                                     |
//	 |-------------------------------------------------------->|
//	 |                 challenge = nonce(16) time(8) mac(16),   |
//	 |                 ephemeral X25519 key                     |
//	 |<--------------------------------------------------------|
//	 | Enrol(secret, challenge, keys, Proof)                   |
//	 |-------------------------------------------------------->|
//
// The proof covers a transcript of everything: an Ed25519 signature, and an HMAC under the X25519 product of the
// node's static key and the controller's ephemeral one. The controller keeps nothing between the steps: its
// ephemeral key is derived from the nonce and a secret that lives as long as its process.

// Proof shows that the sender holds both private keys.
type Proof struct {
	Signature []byte // Ed25519 over the transcript, 64 bytes
	MAC       []byte // HMAC-SHA-256 under the X25519 product, 32 bytes
}

// Challenge is the controller's part: 40 opaque bytes and an ephemeral X25519 key.
type Challenge struct {
	Opaque    []byte
	Ephemeral []byte // 32 bytes
}

// challengeLife is how long a machine may take from the first step to the second.
const challengeLife = 2 * time.Minute

// Challenger makes challenges and checks the answers. The zero value is not usable.
type Challenger struct{ secret [32]byte }

// NewChallenger returns one with a fresh secret.
func NewChallenger() *Challenger {
	c := new(Challenger)
	rand.Read(c.secret[:])
	return c
}

// New makes a challenge.
func (c *Challenger) New(now time.Time) (Challenge, error) {
	opaque := make([]byte, 24, 40)
	rand.Read(opaque[:16])
	binary.BigEndian.PutUint64(opaque[16:], uint64(now.UnixNano()))
	key, err := c.ephemeral(opaque)
	if err != nil {
		return Challenge{}, err
	}
	return Challenge{Opaque: append(opaque, c.mac(opaque)...), Ephemeral: key.PublicKey().Bytes()}, nil
}

func (c *Challenger) mac(head []byte) []byte {
	m := hmac.New(sha256.New, c.secret[:])
	m.Write([]byte("challenge"))
	m.Write(head)
	return m.Sum(nil)[:16]
}

func (c *Challenger) ephemeral(head []byte) (*ecdh.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, c.secret[:], head, "etherloom enrol ephemeral v1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the ephemeral key: %w", err)
	}
	return ecdh.X25519().NewPrivateKey(seed)
}

// Errors of Check.
var (
	ErrChallenge = errors.New("the enrolment took too long or met another controller process: try again")
	ErrProof     = errors.New("the machine did not prove that it holds the keys it enrols")
)

// Check verifies that an answer belongs to a challenge of this controller and that the proof holds for the keys.
func (c *Challenger) Check(opaque []byte, e Enrolment, p Proof, now time.Time) error {
	if len(opaque) != 40 || !hmac.Equal(opaque[24:], c.mac(opaque[:24])) {
		return ErrChallenge
	}
	made := time.Unix(0, int64(binary.BigEndian.Uint64(opaque[16:])))
	if now.Before(made) || now.Sub(made) > challengeLife {
		return ErrChallenge
	}
	ephemeral, err := c.ephemeral(opaque[:24])
	if err != nil {
		return err
	}
	static, err := ecdh.X25519().NewPublicKey(e.Static[:])
	if err != nil {
		return ErrProof
	}
	shared, err := ephemeral.ECDH(static) // fails for low-order keys
	if err != nil {
		return ErrProof
	}
	transcript := e.transcript(opaque, ephemeral.PublicKey().Bytes())
	if len(e.Sign) != ed25519.PublicKeySize || !ed25519.Verify(e.Sign, transcript, p.Signature) {
		return ErrProof
	}
	if !hmac.Equal(p.MAC, proofMAC(shared, transcript)) {
		return ErrProof
	}
	return nil
}

// Enrolment is what a machine asks to be certified.
type Enrolment struct {
	Secret []byte // the token's
	Name   string
	Sign   ed25519.PublicKey
	Static StaticPublicKey
}

func (e Enrolment) transcript(opaque, ephemeral []byte) []byte {
	out := []byte("etherloom enrol v1\x00")
	for _, part := range [][]byte{opaque, ephemeral, e.Secret, []byte(e.Name), e.Sign, e.Static[:]} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
		out = append(out, part...)
	}
	return out
}

func proofMAC(shared, transcript []byte) []byte {
	key := sha256.Sum256(append([]byte("etherloom enrol mac v1\x00"), shared...))
	m := hmac.New(sha256.New, key[:])
	m.Write(transcript)
	return m.Sum(nil)
}

// Prove answers a challenge with the node's keys.
func (k NodeKeys) Prove(secret []byte, name string, ch Challenge) (Proof, error) {
	e := Enrolment{Secret: secret, Name: name, Sign: k.SignPublic(), Static: k.StaticPublic()}
	if len(ch.Ephemeral) != 32 {
		return Proof{}, ErrChallenge
	}
	shared, err := k.SharedSecret(StaticPublicKey(ch.Ephemeral))
	if err != nil {
		return Proof{}, err
	}
	transcript := e.transcript(ch.Opaque, ch.Ephemeral)
	return Proof{Signature: ed25519.Sign(k.Sign, transcript), MAC: proofMAC(shared, transcript)}, nil
}

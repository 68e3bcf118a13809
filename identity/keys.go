package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
)

// StaticPublicKey is an X25519 public key, 32 bytes, as the Noise handshake uses it.
type StaticPublicKey [32]byte

func (k StaticPublicKey) String() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// NodeKeys are the two private keys of a node. They are made on the machine and never leave it.
type NodeKeys struct {
	Sign   ed25519.PrivateKey
	Static *ecdh.PrivateKey // X25519
}

// NewNodeKeys makes a pair of fresh keys.
func NewNodeKeys() (NodeKeys, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return NodeKeys{}, fmt.Errorf("make an Ed25519 key: %w", err)
	}
	static, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return NodeKeys{}, fmt.Errorf("make an X25519 key: %w", err)
	}
	return NodeKeys{Sign: sign, Static: static}, nil
}

// SignPublic returns the Ed25519 public key.
func (k NodeKeys) SignPublic() ed25519.PublicKey {
	return k.Sign.Public().(ed25519.PublicKey) //nolint:forcetypeassert // documented by crypto/ed25519
}

// StaticPublic returns the X25519 public key.
func (k NodeKeys) StaticPublic() StaticPublicKey {
	return StaticPublicKey(k.Static.PublicKey().Bytes())
}

// SharedSecret is the X25519 product of the node's static key and a peer's: 32 bytes that only the two know.
// It fails for a low-order key of the peer (RFC 7748 section 6.1).
func (k NodeKeys) SharedSecret(peer StaticPublicKey) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return nil, fmt.Errorf("peer's X25519 key: %w", err)
	}
	secret, err := k.Static.ECDH(pub)
	if err != nil {
		return nil, fmt.Errorf("peer's X25519 key: %w", err)
	}
	return secret, nil
}

// The PEM blocks of a key file, both PKCS #8 (RFC 8410).
const pemPrivateKey = "PRIVATE KEY"

// MarshalPEM returns both keys as two PKCS #8 blocks, first Ed25519, then X25519. The result is secret.
func (k NodeKeys) MarshalPEM() ([]byte, error) {
	var out []byte
	for _, key := range []any{k.Sign, k.Static} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode a private key: %w", err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der})...)
	}
	return out, nil
}

var errKeyFile = errors.New("not a node's key file: it must hold one Ed25519 and one X25519 key in PKCS #8")

// ParseNodeKeys reads what MarshalPEM wrote.
func ParseNodeKeys(data []byte) (NodeKeys, error) {
	var k NodeKeys
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return NodeKeys{}, errKeyFile
		}
		switch key := key.(type) {
		case ed25519.PrivateKey:
			k.Sign = key
		case *ecdh.PrivateKey:
			k.Static = key
		}
	}
	if k.Sign == nil || k.Static == nil || k.Static.Curve() != ecdh.X25519() {
		return NodeKeys{}, errKeyFile
	}
	return k, nil
}

// Fingerprint names a public key: SHA-256 over its SubjectPublicKeyInfo.
func Fingerprint(key ed25519.PublicKey) [32]byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic("identity: an Ed25519 key that cannot be encoded: " + err.Error())
	}
	return sha256.Sum256(der)
}

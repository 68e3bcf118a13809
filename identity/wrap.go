package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// WrapKey is a key-encryption key: 32 random bytes that live in a file outside the store, so that a copy of the
// store alone gives nobody the CA.
type WrapKey [32]byte

// NewWrapKey makes one.
func NewWrapKey() WrapKey {
	var k WrapKey
	rand.Read(k[:])
	return k
}

func (k WrapKey) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal encrypts a secret with AES-256-GCM under a random nonce. The label says what it is and must be given again.
func (k WrapKey) Seal(secret []byte, label string) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("wrap key: %w", err)
	}
	return aead.Seal(nil, nil, secret, []byte(label)), nil
}

// Derive returns 32 bytes for the purpose that the label names. They tell nothing of the key, nor of what is derived for another.
func (k WrapKey) Derive(label string) []byte {
	key, _ := hkdf.Expand(sha256.New, k[:], label, sha256.Size) // fails for more than 8160 bytes alone
	return key
}

// ErrWrapKey means that a wrapped secret was not sealed with this key and label.
var ErrWrapKey = errors.New("the wrap key does not open what is stored")

// Open decrypts what Seal made.
func (k WrapKey) Open(sealed []byte, label string) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("wrap key: %w", err)
	}
	secret, err := aead.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, ErrWrapKey
	}
	return secret, nil
}

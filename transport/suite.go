package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// Suite is the cipher of a pair of nodes. Both compute it from their signed records: AES-256-GCM if both processors
// have the instructions for it, else ChaCha20-Poly1305. It is named in every first byte and bound into the handshake by
// the protocol's name; a datagram of another suite is dropped.
type Suite uint8

// The suites.
const (
	AES256GCM        Suite = 0
	ChaCha20Poly1305 Suite = 1
)

func (s Suite) String() string {
	if s == ChaCha20Poly1305 {
		return "ChaCha20-Poly1305"
	}
	return "AES-256-GCM"
}

// HasAES reports whether this processor computes AES-GCM in hardware.
func HasAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAESGCM
}

func suiteOf(a, b bool) Suite {
	if a && b {
		return AES256GCM
	}
	return ChaCha20Poly1305
}

func (s Suite) noise() noise.CipherSuite {
	if s == ChaCha20Poly1305 {
		return noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256)
	}
	return noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256)
}

func (s Suite) aead(key []byte) (cipher.AEAD, error) {
	if s == ChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// putNonce writes the nonce of a counter: four zero bytes, then the counter, big endian for AES-GCM and little endian
// for ChaCha20-Poly1305 (Noise specification section 12).
func (s Suite) putNonce(nonce *[12]byte, counter uint64) {
	if s == ChaCha20Poly1305 {
		binary.LittleEndian.PutUint64(nonce[4:], counter)
	} else {
		binary.BigEndian.PutUint64(nonce[4:], counter)
	}
}

// dataKey derives the key of one direction's path and shard from the key that Noise gave the direction.
func (s Suite) dataKey(secret [32]byte, path, shard uint8) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, secret[:], nil, "etherloom data v1"+string([]byte{path, shard}), 32)
	if err != nil {
		return nil, fmt.Errorf("derive a data key: %w", err)
	}
	return s.aead(key)
}

// Package audit chains the entries of a network's log, so that a change to what was written shows.
//
// Every change of state is one AuditEntry, numbered from 1. An entry's hash covers its fields and the hash of the
// entry before it; the head is the number and the hash of the newest:
//
//	        +---------+      +---------+      +---------+
//	0...0 <-| entry 1 |<-----| entry 2 |<-----| entry 3 |<----- Head{3, hash of entry 3}
//	        +---------+      +---------+      +---------+
//	         previous         previous         previous
//
// Verify walks a log up to a head and names the first entry that was changed, removed, put elsewhere or cut off. Who
// can write to the store can also compute a new chain from any entry on, so the head leaves the store: controllers
// sign it into the state of every node (control/state), and a node that has once seen a head tells it to every
// controller that it meets. A chain that does not contain it has been rewritten or cut.
//
// An entry's hash is SHA-256 over the following, where each string is preceded by its length in four bytes and all
// numbers are big-endian:
//
//	"etherloom audit entry v1\0" previous[32] sequence[8] seconds[8] nanoseconds[4]
//	actor source action object detail request
package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// Head names the newest entry of a log. The zero Head is that of an empty one.
type Head struct {
	Sequence uint64
	Hash     [32]byte
}

// HeadOf reads a head as it travels. A hash of another length than 32 bytes, or none, is that of no entry.
func HeadOf(p *controlv1.AuditHead) Head {
	h := Head{Sequence: p.GetSequence()}
	if len(p.GetHash()) == len(h.Hash) {
		copy(h.Hash[:], p.GetHash())
	}
	return h
}

// Proto is the head as it travels.
func (h Head) Proto() *controlv1.AuditHead {
	return &controlv1.AuditHead{Sequence: h.Sequence, Hash: h.Hash[:]}
}

// Append links an entry to the log's head: it sets the entry's sequence, previous and hash, and returns the new head.
func (h Head) Append(e *controlv1.AuditEntry) Head {
	e.Sequence = h.Sequence + 1
	e.Previous = h.Hash[:]
	next := Head{Sequence: e.Sequence, Hash: Hash(e)}
	e.Hash = next.Hash[:]
	return next
}

// Hash computes what an entry's hash field must be.
func Hash(e *controlv1.AuditEntry) [32]byte {
	b := []byte("etherloom audit entry v1\x00")
	previous := HeadOf(&controlv1.AuditHead{Hash: e.GetPrevious()}).Hash
	b = append(b, previous[:]...)
	b = binary.BigEndian.AppendUint64(b, e.GetSequence())
	b = binary.BigEndian.AppendUint64(b, uint64(e.GetTime().GetSeconds()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.GetTime().GetNanos()))
	for _, s := range []string{e.GetActor(), e.GetSource(), e.GetAction(), e.GetObject(), e.GetDetail(), e.GetRequest()} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(b)
}

// message is what a controller signs of a head.
func (h Head) message() []byte {
	b := binary.BigEndian.AppendUint64([]byte("etherloom audit head v1\x00"), h.Sequence)
	return append(b, h.Hash[:]...)
}

// Sign signs the head with a controller's key.
func (h Head) Sign(key ed25519.PrivateKey) []byte { return ed25519.Sign(key, h.message()) }

// ErrSignature means that no controller of the network has signed a head.
var ErrSignature = errors.New("the head of the audit log is not signed by a controller of this network")

// CheckSignature verifies that a controller of the verifier's network signed the head. Signer is its leaf, DER.
func (h Head) CheckSignature(v *identity.Verifier, signature, signer []byte, now time.Time) error {
	leaf, err := v.Verify([][]byte{signer}, identity.KindController, now)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !ed25519.Verify(leaf.Sign, h.message(), signature) {
		return ErrSignature
	}
	return nil
}

// holds reports whether an entry's own hash is right.
func holds(e *controlv1.AuditEntry) bool {
	sum := Hash(e)
	return len(e.GetPrevious()) == len(sum) && bytes.Equal(sum[:], e.GetHash())
}

package state

import (
	"crypto/ed25519"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
)

// signDomain keeps signatures over headers apart from every other use of a controller's key.
const signDomain = "etherloom state v1\x00"

// Signer is a controller's side: its key, and the leaf that the CA issued for it.
type Signer struct {
	Leaf []byte // DER
	Key  ed25519.PrivateKey
}

// Delta signs a header and joins what leads from one state to the other. The header is complete but for its
// network's and node's checks, which are the reader's: in particular Hash is to.Hash(), and Base is the version of
// from, or 0 to send the whole of to.
func (s Signer) Delta(h *controlv1.StateHeader, from, to State) (*controlv1.Delta, error) {
	if h.GetBase() == 0 {
		from = nil
	}
	set, removed := Diff(from, to)
	return s.Sign(h, set, removed)
}

// Sign is Delta of what Diff returns, which the caller has worked out itself.
func (s Signer) Sign(h *controlv1.StateHeader, set State, removed []string) (*controlv1.Delta, error) {
	header, err := proto.MarshalOptions{Deterministic: true}.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the header of a state: %w", err)
	}
	return &controlv1.Delta{
		Header: header, Signature: ed25519.Sign(s.Key, append([]byte(signDomain), header...)), Signer: s.Leaf,
		Set: set, Removed: removed,
	}, nil
}

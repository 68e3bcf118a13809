package state

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
)

// fileMagic begins the form on disk. What follows is a serialised Delta whose set is the whole state and whose header
// is the last one that was signed, whatever base that had.
const fileMagic = "etherloom state file v1\n"

// Marshal returns the form on disk. It holds the node's TURN credentials, so the file is secret.
func (h *Held) Marshal() ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(&controlv1.Delta{
		Header: h.header, Signature: h.signature, Signer: h.signer, Set: h.State,
	})
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	return append([]byte(fileMagic), body...), nil
}

// Load reads what Marshal wrote and verifies it as if it had just come: signature, network, node, hash and every
// resource. Only the signer's certificate is held against the time at which it signed, since a controller's
// certificate is short-lived and the file may be all that a node has while no controller is there. An expired state is
// returned all the same; what is to be done with it, Held.Expires tells.
func (r *Reader) Load(file []byte) (*Held, error) {
	body, ok := bytes.CutPrefix(file, []byte(fileMagic))
	d := new(controlv1.Delta)
	if !ok || proto.Unmarshal(body, d) != nil {
		return nil, fmt.Errorf("%w: not a state file", ErrMalformed)
	}
	// Before the signature is verified, issued is anybody's word; it only chooses the time that the certificate is
	// held against, and the signature below covers it.
	h, err := parseHeader(d.GetHeader())
	if err != nil {
		return nil, err
	}
	held, err := r.verify(d, h.GetIssued().AsTime())
	if err != nil {
		return nil, err
	}
	held.State = d.GetSet()
	if held.State == nil {
		held.State = State{}
	}
	if sum := held.State.Hash(); !bytes.Equal(sum[:], held.Header.GetHash()) {
		return nil, ErrHash
	}
	if _, err := held.State.Contents(); err != nil {
		return nil, err
	}
	return held, nil
}

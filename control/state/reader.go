package state

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// Reasons for which a Reader refuses a delta. After ErrBase the node says Hello again with what it holds, after ErrHash
// with nothing (version 0), so that it is sent everything anew; ErrOld needs nothing; the others are worth an alarm.
var (
	ErrMalformed = errors.New("state is malformed")
	ErrSignature = errors.New("state is not signed by a controller of this network")
	ErrForeign   = errors.New("state is for another network or another node")
	ErrExpired   = errors.New("state has expired")
	ErrOld       = errors.New("state is older than the one held")
	ErrFork      = errors.New("state differs from the one held, yet has the same version: two controllers disagree")
	ErrBase      = errors.New("delta starts from another version than the one held")
	ErrHash      = errors.New("delta does not lead to the state that was signed")
)

// Reader is the node's side: it decides which deltas are to be believed.
type Reader struct {
	Verifier *identity.Verifier
	Node     identity.ID
}

// Held is a state that a node holds, with the proof that a controller signed it. It never changes. A nil *Held is that
// of a node that holds nothing.
type Held struct {
	State  State
	Header *controlv1.StateHeader // of the delta that led here, or that last renewed it

	header, signature, signer []byte // as they came
}

// Expires is when the state becomes void; a node that holds nothing has had its time.
func (h *Held) Expires() time.Time {
	if h == nil {
		return time.Time{}
	}
	return h.Header.GetExpires().AsTime()
}

// Hello fills in what the controller must know to continue from here.
func (h *Held) Hello(hello *controlv1.Hello) {
	if h == nil {
		return
	}
	hello.Epoch, hello.Version, hello.Hash = h.Header.GetEpoch(), h.Header.GetVersion(), h.Header.GetHash()
	hello.AuditHead = h.Header.GetAuditHead()
}

// Apply returns what a node holds after a delta: a new Held, or the same one if the delta brought nothing new. On an
// error the node goes on with what it held.
func (r *Reader) Apply(held *Held, d *controlv1.Delta, now time.Time) (*Held, error) {
	next, err := r.verify(d, now)
	if err != nil {
		return held, err
	}
	if !next.Expires().After(now) {
		return held, ErrExpired
	}
	var from State
	if held != nil {
		switch renewed, err := held.compare(next); {
		case err != nil:
			return held, err
		case renewed:
			return held.renew(next), nil
		case next.Header.GetBase() != 0:
			from = held.State
		}
	} else if next.Header.GetBase() != 0 {
		return nil, ErrBase
	}
	for key, value := range d.GetSet() {
		if _, err := decode(key, value); err != nil {
			return held, err
		}
	}
	next.State = from.patch(d.GetSet(), d.GetRemoved())
	if sum := next.State.Hash(); !bytes.Equal(sum[:], next.Header.GetHash()) {
		return held, ErrHash
	}
	return next, nil
}

// compare decides whether next, whose signature is good, leads forward from here. It reports whether next means the
// state that is held already.
func (h *Held) compare(next *Held) (same bool, err error) {
	a, b := h.Header, next.Header
	if b.GetEpoch() < a.GetEpoch() || b.GetEpoch() == a.GetEpoch() && b.GetVersion() < a.GetVersion() {
		return false, ErrOld
	}
	if bytes.Equal(a.GetHash(), b.GetHash()) {
		return true, nil
	}
	if b.GetEpoch() == a.GetEpoch() && b.GetVersion() == a.GetVersion() {
		return false, ErrFork
	}
	if b.GetBase() != 0 && (b.GetEpoch() != a.GetEpoch() || b.GetBase() != a.GetVersion()) {
		return false, ErrBase
	}
	return false, nil
}

// renew takes the later of two headers of the same state.
func (h *Held) renew(next *Held) *Held {
	newer := next.Header.GetEpoch() != h.Header.GetEpoch() || next.Header.GetVersion() != h.Header.GetVersion()
	if !newer && !next.Expires().After(h.Expires()) {
		return h
	}
	next.State = h.State
	return next
}

// verify checks everything about a delta that does not depend on what is held. The result has no State yet.
func (r *Reader) verify(d *controlv1.Delta, at time.Time) (*Held, error) {
	leaf, err := r.Verifier.Verify([][]byte{d.GetSigner()}, identity.KindController, at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !ed25519.Verify(leaf.Sign, append([]byte(signDomain), d.GetHeader()...), d.GetSignature()) {
		return nil, ErrSignature
	}
	h, err := parseHeader(d.GetHeader())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(h.GetNetwork(), r.Verifier.Network[:]) || identity.ID(h.GetNode()) != r.Node {
		return nil, ErrForeign
	}
	return &Held{Header: h, header: d.GetHeader(), signature: d.GetSignature(), signer: d.GetSigner()}, nil
}

func parseHeader(b []byte) (*controlv1.StateHeader, error) {
	h := new(controlv1.StateHeader)
	if err := proto.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if len(h.GetHash()) != 32 || h.GetVersion() == 0 || h.GetIssued().CheckValid() != nil || h.GetExpires().CheckValid() != nil {
		return nil, fmt.Errorf("%w: header is incomplete", ErrMalformed)
	}
	return h, nil
}

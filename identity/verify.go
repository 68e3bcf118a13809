package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Reasons for which Verify refuses a certificate, where a caller acts on the difference.
var (
	ErrExpired  = errors.New("certificate has expired")
	ErrRevoked  = errors.New("certificate has been revoked")
	ErrIssuer   = errors.New("certificate was not issued by this network's CA")
	ErrKind     = errors.New("certificate names another kind of party")
	ErrNotYet   = errors.New("certificate is not valid yet: is the clock of one of the two machines wrong?")
	errOneLeaf  = errors.New("expected exactly one certificate")
	errNetwork  = errors.New("certificate names another network")
	errNotALeaf = errors.New("certificate is that of a CA, not of a party")
)

// Verifier decides whether a certificate is to be believed. There is one for each network, and no other code that
// verifies. Its fields are read only.
type Verifier struct {
	CA      *x509.Certificate
	Network NetworkID

	// Grace is how long after its end a certificate is still honoured, as long as the verifier has had no
	// controller since that end: nodes go on working when the controllers are gone. 0 honours none.
	Grace time.Duration
	// LastController is when the verifier last heard a controller; nil means that it always hears one.
	LastController func() time.Time
	// Revoked reports whether a certificate has been withdrawn; nil means that none has.
	Revoked func(*Certificate) bool
}

// NewVerifier verifies against the CA certificate, DER.
func NewVerifier(ca []byte) (*Verifier, error) {
	cert, network, err := ParseCACertificate(ca)
	if err != nil {
		return nil, err
	}
	return &Verifier{CA: cert, Network: network}, nil
}

// Verify checks the certificates that a party presented: exactly one leaf, issued by this network's CA, of the
// kind wanted, valid now, not revoked. Proof that the party holds the keys is the caller's business (TLS, Noise).
func (v *Verifier) Verify(presented [][]byte, want Kind, now time.Time) (*Certificate, error) {
	// Identity is the leaf whose key signed, never another certificate of a presented list.
	if len(presented) != 1 {
		return nil, fmt.Errorf("%w, got %d", errOneLeaf, len(presented))
	}
	leaf, err := v.Inspect(presented[0])
	if err != nil {
		return nil, err
	}
	if leaf.Name.Kind != want {
		return nil, fmt.Errorf("%w: %s, expected a %s", ErrKind, leaf.Name, want)
	}
	if err := v.CheckTime(leaf, now); err != nil {
		return nil, err
	}
	return leaf, nil
}

// Inspect does the part of Verify that time and purpose cannot change: it reads a leaf that this network's CA has issued,
// also one that has expired. It is for a party's own certificate; others are held against Verify.
func (v *Verifier) Inspect(der []byte) (*Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	if err := cert.CheckSignatureFrom(v.CA); err != nil {
		return nil, ErrIssuer
	}
	if cert.IsCA {
		return nil, errNotALeaf
	}
	leaf, err := parseLeaf(cert)
	if err != nil {
		return nil, err
	}
	if leaf.Name.Network != v.Network {
		return nil, errNetwork
	}
	return leaf, nil
}

// CheckTime repeats the part of Verify that time and new facts can change: validity and revocation. A session calls
// it again while it lives.
func (v *Verifier) CheckTime(leaf *Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) {
		return ErrNotYet
	}
	if now.After(leaf.NotAfter) && !v.inGrace(leaf, now) {
		return ErrExpired
	}
	if v.Revoked != nil && v.Revoked(leaf) {
		return ErrRevoked
	}
	return nil
}

// inGrace reports whether an expired certificate is still to be honoured: only because nobody could have renewed
// it, so only while this verifier has had no controller since it ended.
func (v *Verifier) inGrace(leaf *Certificate, now time.Time) bool {
	if v.Grace <= 0 || now.After(leaf.NotAfter.Add(v.Grace)) {
		return false
	}
	return v.LastController != nil && v.LastController().Before(leaf.NotAfter)
}

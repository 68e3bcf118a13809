package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// TLSCertificate makes a leaf and its key ready for crypto/tls. A controller appends the CA's certificate, so that a
// machine that joins can hold its pin against it; identity is always the first certificate alone.
func TLSCertificate(leaf []byte, key ed25519.PrivateKey, ca ...[]byte) *tls.Certificate {
	return &tls.Certificate{Certificate: append([][]byte{leaf}, ca...), PrivateKey: key}
}

// ServerTLS is the controller's side: TLS 1.3, and a client certificate asked for but not required, because a machine
// that enrols has none. Nobody is somebody until Verifier.Verify has accepted PeerLeaf.
func ServerTLS(certificate func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequestClientCert,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(), nil },
	}
}

// ClientTLS is the side of a node or an administrator: any controller that this network's CA has certified is the
// right one, under whatever address it is reached.
func ClientTLS(v *Verifier, certificate func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it, with our own rules
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errOneLeaf
			}
			_, err := v.Verify([][]byte{cs.PeerCertificates[0].Raw}, KindController, time.Now())
			return err
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := certificate(); c != nil {
				return c, nil
			}
			return new(tls.Certificate), nil
		},
	}
}

// ErrPin means that the other side is not a controller of the network that a token was made for.
var ErrPin = errors.New("the server's certificate is not from the CA that the token names: " +
	"something on the way opens TLS, or the token belongs to another network")

// PinnedTLS is the side of a machine that joins: it knows only the pin of the CA's key.
func PinnedTLS(pin [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it, against the pin
		VerifyConnection: func(cs tls.ConnectionState) error {
			ca := findPinned(cs.PeerCertificates, pin)
			if ca == nil {
				return ErrPin
			}
			v, err := NewVerifier(ca.Raw)
			if err != nil {
				return err
			}
			_, err = v.Verify([][]byte{cs.PeerCertificates[0].Raw}, KindController, time.Now())
			return err
		},
	}
}

func findPinned(certs []*x509.Certificate, pin [32]byte) *x509.Certificate {
	for _, c := range certs[min(1, len(certs)):] {
		if key, ok := c.PublicKey.(ed25519.PublicKey); ok && Fingerprint(key) == pin {
			return c
		}
	}
	return nil
}

// PeerLeaf returns the one certificate that the other side of a TLS connection holds the key of, in the form that
// Verifier.Verify takes; nil if it presented none.
func PeerLeaf(cs *tls.ConnectionState) [][]byte {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return nil
	}
	return [][]byte{cs.PeerCertificates[0].Raw}
}

// CheckPin verifies that ca is the certificate whose key a token pins.
func CheckPin(ca []byte, pin [32]byte) error {
	cert, _, err := ParseCACertificate(ca)
	if err != nil {
		return err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || Fingerprint(key) != pin {
		return fmt.Errorf("enrolment answer: %w", ErrPin)
	}
	return nil
}

package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// CA issues the certificates of one network.
type CA struct {
	Network NetworkID
	cert    *x509.Certificate
	key     ed25519.PrivateKey
}

// caLifetime is how long the CA's own certificate lasts.
const caLifetime = 10 * 365 * 24 * time.Hour

// backdate is how far in the past a certificate begins, so that a machine whose clock is a little slow accepts it.
const backdate = 5 * time.Minute

// NewCA makes a CA for a new network.
func NewCA(network NetworkID, now time.Time) (*CA, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Etherloom network " + network.String()},
		URIs:         []*url.URL{{Scheme: "spiffe", Host: network.String()}},
		NotBefore:    now.Add(-backdate), NotAfter: now.Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign the CA's certificate: %w", err)
	}
	return ParseCA(der, key)
}

// ParseCA joins a CA's certificate and its key.
func ParseCA(der []byte, key ed25519.PrivateKey) (*CA, error) {
	cert, network, err := ParseCACertificate(der)
	if err != nil {
		return nil, err
	}
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) { //nolint:forcetypeassert // crypto/ed25519
		return nil, errors.New("the CA's key does not belong to the CA's certificate")
	}
	return &CA{Network: network, cert: cert, key: key}, nil
}

// ParseCACertificate reads a CA's certificate and says whose network it is.
func ParseCACertificate(der []byte) (*x509.Certificate, NetworkID, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, NetworkID{}, fmt.Errorf("parse the CA's certificate: %w", err)
	}
	if !cert.IsCA || len(cert.URIs) != 1 {
		return nil, NetworkID{}, errors.New("certificate is not that of an Etherloom CA")
	}
	network, err := ParseNetworkID(cert.URIs[0].Host)
	if err != nil {
		return nil, NetworkID{}, err
	}
	return cert, network, nil
}

// Certificate returns the CA's own certificate, DER.
func (ca *CA) Certificate() []byte { return ca.cert.Raw }

// Key returns the CA's private key, for storing it wrapped.
func (ca *CA) Key() ed25519.PrivateKey { return ca.key }

// Pin returns the fingerprint of the CA's key, as tokens carry it.
func (ca *CA) Pin() [32]byte {
	return Fingerprint(ca.cert.PublicKey.(ed25519.PublicKey)) //nolint:forcetypeassert // ParseCA checked it
}

// Issue signs a leaf. Of want it takes Name.Kind, Name.ID, Sign, Static, Roles and Labels; network, serial and time
// are the CA's own. Hosts are the DNS names or IP addresses of a controller; others have none.
func (ca *CA) Issue(want Certificate, lifetime time.Duration, now time.Time, hosts ...string) (*Certificate, error) {
	if len(want.Sign) != ed25519.PublicKeySize {
		return nil, errors.New("no Ed25519 key to certify")
	}
	want.Name.Network = ca.Network
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ext, err := claimsExtension(&want)
	if err != nil {
		return nil, fmt.Errorf("encode claims: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		URIs:         []*url.URL{want.Name.URL()},
		NotBefore:    now.Add(-min(backdate, lifetime)), NotAfter: now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{ext},
	}
	if want.Name.Kind == KindController {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, want.Sign, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", want.Name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the certificate just made: %w", err)
	}
	return parseLeaf(cert)
}

// newSerial returns a random positive serial of 128 bits (RFC 5280 section 4.1.2.2 allows 20 octets).
func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

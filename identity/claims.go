package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// oidClaims marks the extension that holds what a certificate says beside name and key. It lies in the arc for
// UUIDs (ITU-T X.667 section 6.3, 2.25.N), which needs no registration. N is "loom" in ASCII: crypto/x509 refuses a
// certificate with an arc of 2^31 or more, which any random UUID would be.
var oidClaims = asn1.ObjectIdentifier{2, 25, 0x6c6f6f6d} //nolint:gochecknoglobals // a constant

// Certificate is a verified leaf: every field was signed by the CA.
type Certificate struct {
	Name   Name
	Sign   ed25519.PublicKey // the Ed25519 key
	Static StaticPublicKey   // the X25519 key of a node; zero for other kinds
	Roles  []Role
	Labels []Label

	Serial    string // hex
	NotBefore time.Time
	NotAfter  time.Time
	DER       []byte // the certificate itself
}

// HasRole reports whether the certificate names the role.
func (c *Certificate) HasRole(want Role) bool {
	for _, r := range c.Roles {
		if r == want {
			return true
		}
	}
	return false
}

// claims is the extension's content:
//
//	Claims ::= SEQUENCE {
//	    static  OCTET STRING,               -- X25519 public key, 32 bytes, or empty
//	    roles   SEQUENCE OF UTF8String,
//	    labels  SEQUENCE OF UTF8String }    -- KEY=VALUE
type claims struct {
	Static []byte
	Roles  []string
	Labels []string
}

func claimsExtension(c *Certificate) (pkix.Extension, error) {
	content := claims{Roles: []string{}, Labels: []string{}}
	if c.Static != (StaticPublicKey{}) {
		content.Static = c.Static[:]
	}
	for _, r := range c.Roles {
		content.Roles = append(content.Roles, string(r))
	}
	for _, l := range c.Labels {
		content.Labels = append(content.Labels, l.String())
	}
	der, err := asn1.Marshal(content)
	return pkix.Extension{Id: oidClaims, Value: der}, err
}

var errClaims = errors.New("certificate has no valid claims extension")

// parseLeaf reads a leaf that the caller has verified, or is about to verify.
func parseLeaf(cert *x509.Certificate) (*Certificate, error) {
	if len(cert.URIs) != 1 {
		return nil, errName
	}
	name, err := ParseName(cert.URIs[0])
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("certificate key is not Ed25519")
	}
	out := &Certificate{
		Name: name, Sign: key, Serial: fmt.Sprintf("%x", cert.SerialNumber),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DER: cert.Raw,
	}
	found := 0
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(oidClaims) {
			continue
		}
		found++
		if err := out.readClaims(ext.Value); err != nil {
			return nil, err
		}
	}
	if found != 1 {
		return nil, errClaims
	}
	return out, nil
}

func (c *Certificate) readClaims(der []byte) error {
	var content claims
	rest, err := asn1.Unmarshal(der, &content)
	if err != nil || len(rest) != 0 {
		return errClaims
	}
	switch len(content.Static) {
	case len(c.Static):
		copy(c.Static[:], content.Static)
	case 0:
	default:
		return errClaims
	}
	for _, r := range content.Roles {
		role, err := ParseRole(r)
		if err != nil {
			return errClaims
		}
		c.Roles = append(c.Roles, role)
	}
	for _, l := range content.Labels {
		label, err := ParseLabel(l)
		if err != nil {
			return errClaims
		}
		c.Labels = append(c.Labels, label)
	}
	return nil
}

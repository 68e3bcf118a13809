// Package identity says who a machine is, and how another machine can be sure of it.
//
// Every node holds two private keys that never leave it (NodeKeys): an Ed25519 key that signs, and an X25519 key
// that the Noise handshake of package transport uses. The controller's certificate authority (CA) binds both to a
// name in one X.509 certificate (Issue), and everybody verifies that certificate with one function
// (Verifier.Verify): exactly one leaf, issued by this network's CA, of the expected kind, within its time, not
// revoked. There is no other certificate format and no chain: the CA signs leaves, and leaves sign nothing.
//
//	+--------------------------------------------------------------------------------------------------+
//	| X.509 leaf, signature Ed25519                                                                    |
//	|   SAN URI      spiffe://NETWORK/KIND/ID      NETWORK: 32 hex digits, KIND: node, controller, admin |
//	|   public key   Ed25519                                                                           |
//	|   extension    2.25.1819242349: X25519 key, roles, labels (DER, see claims.go)                   |
//	+--------------------------------------------------------------------------------------------------+
//
// An identity is (issuing CA, network, kind, id), taken from the verified leaf of a connection and from nothing
// else. A machine becomes a node by a Token, which carries the controllers' addresses, a pin of the CA's key and a
// secret; what it must prove when it enrols is in proof.go.
package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// ID numbers an identity within its network. It is the 32-bit source identity of every frame. 0 is nobody.
type ID uint32

// NetworkID names a network (a tenant) and is the SPIFFE trust domain of its certificates, as 32 hex digits.
type NetworkID [16]byte

// NewNetworkID returns a random network id.
func NewNetworkID() NetworkID {
	var n NetworkID
	rand.Read(n[:])
	return n
}

// ParseNetworkID parses 32 lower-case hex digits.
func ParseNetworkID(s string) (NetworkID, error) {
	var n NetworkID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(n) || s != strings.ToLower(s) {
		return n, fmt.Errorf("network id %q is not 32 lower-case hex digits", s)
	}
	copy(n[:], b)
	return n, nil
}

func (n NetworkID) String() string { return hex.EncodeToString(n[:]) }

// Kind says what sort of party a certificate names.
type Kind string

// The kinds of party.
const (
	KindNode       Kind = "node"
	KindController Kind = "controller"
	KindAdmin      Kind = "admin"
)

// Name is what a certificate's only URI says: spiffe://NETWORK/KIND/ID.
type Name struct {
	Network NetworkID
	Kind    Kind
	ID      ID
}

var errName = errors.New("certificate name is not spiffe://NETWORK/(node|controller|admin)/ID")

// ParseName parses a SPIFFE id. It accepts exactly the form that String writes, so that a name has one spelling.
func ParseName(u *url.URL) (Name, error) {
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if u.Scheme != "spiffe" || len(parts) != 2 {
		return Name{}, errName
	}
	network, err := ParseNetworkID(u.Host)
	if err != nil {
		return Name{}, errName
	}
	id, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil || id == 0 {
		return Name{}, errName
	}
	n := Name{Network: network, Kind: Kind(parts[0]), ID: ID(id)}
	switch n.Kind {
	case KindNode, KindController, KindAdmin:
	default:
		return Name{}, errName
	}
	if u.String() != n.String() {
		return Name{}, errName
	}
	return n, nil
}

// URL returns the name as a SPIFFE id.
func (n Name) URL() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: n.Network.String(), Path: fmt.Sprintf("/%s/%d", n.Kind, n.ID)}
}

func (n Name) String() string { return n.URL().String() }

// Role is a thing that a node is allowed to be beside a plain member.
type Role string

// The roles of a node.
const (
	RoleMember    Role = "member"    // may be granted segments
	RoleGateway   Role = "gateway"   // may also bridge a segment to an existing VLAN
	RoleConnector Role = "connector" // may also offer real endpoints as services
)

// ParseRole parses a role's name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleMember, RoleGateway, RoleConnector:
		return r, nil
	}
	return "", fmt.Errorf("role %q is not one of member, gateway, connector", s)
}

// Label is one KEY=VALUE by which grants select machines.
type Label struct{ Key, Value string }

// ParseLabel parses KEY=VALUE. Both parts are 1 to 63 characters of letters, digits, '-', '_', '.' and '/'.
func ParseLabel(s string) (Label, error) {
	k, v, ok := strings.Cut(s, "=")
	if !ok || !labelPart(k) || !labelPart(v) {
		return Label{}, fmt.Errorf("label %q is not KEY=VALUE, each 1 to 63 letters, digits or -_./", s)
	}
	return Label{k, v}, nil
}

func labelPart(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune("-_./", c):
		default:
			return false
		}
	}
	return true
}

func (l Label) String() string { return l.Key + "=" + l.Value }

// CheckHostName reports whether a node may be called s: one DNS label (RFC 1123 section 2.1), lower case.
func CheckHostName(s string) error {
	ok := len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-'
	for _, c := range s {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("name %q is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', not at either end", s)
	}
	return nil
}

// Package credential is about the files that give their holder a right over a network: admin.json, by which an
// administrator rules it, and relay.json, by which a relay serves it.
//
// Both are JSON, say in "kind" what they are, and are secret: Write makes them with mode 0600 and never replaces a file
// that is there, and Read refuses one that others can read.
//
//	{"kind": "etherloom admin v1",             {"kind": "etherloom relay v1",
//	 "controllers": ["https://..."],            "network": "...", "name": "...",
//	 "ca": "PEM", "certificate": "PEM",         "secret": "base64",
//	 "key": "PEM"}                              "port": 3478, "probe_port": 3479,
//	                                            "first_port": 50000, "last_port": 59999}
package credential

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/etherloom/etherloom/identity"
)

const (
	adminKind = "etherloom admin v1"
	relayKind = "etherloom relay v1"
)

// Admin is an administrator's credential.
type Admin struct {
	Controllers []string // URLs
	CA          []byte   // DER
	Certificate []byte   // DER
	Key         ed25519.PrivateKey
}

type adminJSON struct {
	Kind        string   `json:"kind"`
	Controllers []string `json:"controllers"`
	CA          string   `json:"ca"`
	Certificate string   `json:"certificate"`
	Key         string   `json:"key"`
}

// Marshal returns the file's content.
func (a *Admin) Marshal() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return nil, fmt.Errorf("encode the administrator's key: %w", err)
	}
	return marshal(adminJSON{
		Kind: adminKind, Controllers: a.Controllers, CA: block("CERTIFICATE", a.CA),
		Certificate: block("CERTIFICATE", a.Certificate), Key: block("PRIVATE KEY", key),
	})
}

// ParseAdmin reads what Marshal wrote.
func ParseAdmin(data []byte) (*Admin, error) {
	var j adminJSON
	if err := unmarshal(data, &j, adminKind, func() string { return j.Kind }); err != nil {
		return nil, err
	}
	a := &Admin{Controllers: j.Controllers, CA: unblock(j.CA), Certificate: unblock(j.Certificate)}
	key, err := x509.ParsePKCS8PrivateKey(unblock(j.Key))
	if err != nil {
		return nil, fmt.Errorf("%w: key: %w", errDamaged, err)
	}
	var ok bool
	if a.Key, ok = key.(ed25519.PrivateKey); !ok || len(a.Controllers) == 0 {
		return nil, errDamaged
	}
	for _, u := range a.Controllers {
		if err := identity.CheckControllerURL(u); err != nil {
			return nil, err
		}
	}
	if _, _, err := identity.ParseCACertificate(a.CA); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return a, nil
}

// Relay is a relay's credential, and what the controllers tell nodes of it.
type Relay struct {
	Network   identity.NetworkID
	Name      string
	Secret    identity.RelaySecret
	Port      uint16 // UDP: STUN and TURN
	ProbePort uint16 // UDP: STUN only
}

type relayJSON struct {
	Kind      string `json:"kind"`
	Network   string `json:"network"`
	Name      string `json:"name"`
	Secret    []byte `json:"secret"`
	Port      uint16 `json:"port"`
	ProbePort uint16 `json:"probe_port"`
}

// Marshal returns the file's content.
func (r *Relay) Marshal() ([]byte, error) {
	return marshal(relayJSON{
		Kind: relayKind, Network: r.Network.String(), Name: r.Name, Secret: r.Secret[:],
		Port: r.Port, ProbePort: r.ProbePort,
	})
}

// ParseRelay reads what Marshal wrote.
func ParseRelay(data []byte) (*Relay, error) {
	var j relayJSON
	if err := unmarshal(data, &j, relayKind, func() string { return j.Kind }); err != nil {
		return nil, err
	}
	network, err := identity.ParseNetworkID(j.Network)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if len(j.Secret) != len(identity.RelaySecret{}) || j.Port == 0 || j.ProbePort == 0 {
		return nil, errDamaged
	}
	return &Relay{
		Network: network, Name: j.Name, Secret: identity.RelaySecret(j.Secret),
		Port: j.Port, ProbePort: j.ProbePort,
	}, nil
}

// Write makes the file with mode 0600, whole or not at all, and fails if there is one.
func Write(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("make credential: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // its content lives on under path, or is worth nothing
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write credential %s: %w", path, err)
	}
	// Unlike rename(2), link(2) does not replace what is there.
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is not overwritten: move it away, or remove it if nobody needs it: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("make credential: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a new name in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("make credential durable: %w", err)
	}
	defer d.Close() //nolint:errcheck // only read
	if err := d.Sync(); err != nil {
		return fmt.Errorf("make credential durable: %w", err)
	}
	return nil
}

// Read returns the file's content. It refuses a file that others than its owner can read.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("credential %s can be read by others (mode %#o): `chmod 600` it, and make a new one if "+
			"somebody may have", path, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return nil, fmt.Errorf("read credential: %w", err)
	}
	return b, nil
}

// maxSize is more than any credential needs.
const maxSize = 64 << 10

var errDamaged = errors.New("the credential is damaged: copy it again, whole, or make a new one")

func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode credential: %w", err)
	}
	return append(b, '\n'), nil
}

func unmarshal(data []byte, v any, want string, kind func() string) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if kind() != want {
		return fmt.Errorf("expected a credential of kind %q, found %q", want, kind())
	}
	return nil
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func unblock(text string) []byte {
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		return nil
	}
	return b.Bytes
}

// Package statedir is what a node keeps on disk. Every file is written atomically; a file that cannot be read is an error
// that names it, and is never overwritten by something else.
//
//	node.json       who this machine is: network, identity, name, controllers (Membership)
//	node.key        both private keys, PKCS #8; secret
//	node.crt        the present certificate, PEM
//	ca.crt          the CA's certificate, PEM
//	state           the last good state, signed (control/state); secret, it holds TURN credentials
//	memory.json     what package transport wants to find again
//	lock            held by the daemon that uses the directory
//	control.sock    where the daemon answers local commands
//
// The directory is 0700 and so are its secrets 0600.
package statedir

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/atomicfile"
	"github.com/etherloom/etherloom/transport"
)

// Default is where the directory is unless somebody says otherwise.
const Default = "/var/lib/etherloom"

// Dir is a state directory.
type Dir struct{ path string }

// Membership is who this machine is.
type Membership struct {
	Network     string      `json:"network"` // 32 hex digits
	ID          identity.ID `json:"id"`
	Name        string      `json:"name"`
	Zone        string      `json:"zone"`
	Controllers []string    `json:"controllers"`
	Port        uint16      `json:"port"` // UDP, of every underlay socket; stays the same, so that peers find us again
}

// ErrNotJoined means that the directory holds no membership yet.
var ErrNotJoined = errors.New("this machine has not joined a network")

// Create makes the directory if need be. It must not be readable by others.
func Create(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return Open(path)
}

// Open checks that the directory is there and that only its owner can look into it.
func Open(path string) (*Dir, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s; run `etherloom join` first, or name its directory with --state-dir", ErrNotJoined, path)
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("state directory %s is not a directory", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("state directory %s can be read by others (mode %04o): run `chmod 0700 %s`", path, info.Mode().Perm(), path)
	}
	return &Dir{path}, nil
}

// Path returns the path of a file in the directory; of the directory itself for an empty name.
func (d *Dir) Path(name string) string { return filepath.Join(d.path, name) }

// Lock takes the directory for this process, until the process ends or release is called.
func (d *Dir) Lock() (release func(), err error) {
	f, err := os.OpenFile(d.Path("lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(d.Path("lock"))
		_ = f.Close()
		return nil, fmt.Errorf("another daemon (process %s) uses %s: stop it, or give this one a directory of its own with --state-dir",
			strings.TrimSpace(string(owner)), d.path)
	}
	if err := errors.Join(f.Truncate(0), write(f, strconv.Itoa(os.Getpid()))); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

func write(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s+"\n"), 0)
	return err
}

// read returns a file, or an error that names it and says what can be done.
func (d *Dir) read(name string) ([]byte, error) {
	data, err := os.ReadFile(d.Path(name))
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return data, nil
}

func (d *Dir) damaged(name string, err error) error {
	return fmt.Errorf("%s is damaged: %w; restore it from a backup, or move %s away and join anew", d.Path(name), err, d.path)
}

// Joined reports whether the directory holds a membership.
func (d *Dir) Joined() bool {
	_, err := os.Stat(d.Path("node.json"))
	return err == nil
}

// Membership reads who this machine is.
func (d *Dir) Membership() (Membership, error) {
	var m Membership
	data, err := d.read("node.json")
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%w: %s holds no node.json; run `etherloom join` first, or name its directory with --state-dir", ErrNotJoined, d.path)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, d.damaged("node.json", err)
	}
	if _, err := identity.ParseNetworkID(m.Network); err != nil || m.ID == 0 || len(m.Controllers) == 0 {
		return m, d.damaged("node.json", errors.New("network, id or controllers are missing"))
	}
	return m, nil
}

// SaveMembership writes who this machine is.
func (d *Dir) SaveMembership(m Membership) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode node.json: %w", err)
	}
	return atomicfile.Write(d.Path("node.json"), append(data, '\n'), 0o600)
}

// Keys reads the private keys.
func (d *Dir) Keys() (identity.NodeKeys, error) {
	data, err := d.read("node.key")
	if err != nil {
		return identity.NodeKeys{}, err
	}
	keys, err := identity.ParseNodeKeys(data)
	if err != nil {
		return identity.NodeKeys{}, d.damaged("node.key", err)
	}
	return keys, nil
}

// SaveKeys writes the private keys.
func (d *Dir) SaveKeys(k identity.NodeKeys) error {
	data, err := k.MarshalPEM()
	if err != nil {
		return err
	}
	return atomicfile.Write(d.Path("node.key"), data, 0o600)
}

// Certificate reads the node's certificate, DER.
func (d *Dir) Certificate() ([]byte, error) { return d.certificate("node.crt") }

// CA reads the CA's certificate, DER.
func (d *Dir) CA() ([]byte, error) { return d.certificate("ca.crt") }

func (d *Dir) certificate(name string) ([]byte, error) {
	data, err := d.read(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, d.damaged(name, errors.New("it holds no PEM certificate"))
	}
	return block.Bytes, nil
}

// SaveCertificate writes the node's certificate, DER.
func (d *Dir) SaveCertificate(der []byte) error { return d.saveCertificate("node.crt", der) }

// SaveCA writes the CA's certificate, DER.
func (d *Dir) SaveCA(der []byte) error { return d.saveCertificate("ca.crt", der) }

func (d *Dir) saveCertificate(name string, der []byte) error {
	return atomicfile.Write(d.Path(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// State reads the last good state as control/state wrote it; nil if there is none yet.
func (d *Dir) State() ([]byte, error) {
	data, err := d.read("state")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SaveState writes the last good state.
func (d *Dir) SaveState(data []byte) error { return atomicfile.Write(d.Path("state"), data, 0o600) }

// DamagedState explains a state file that does not verify.
func (d *Dir) DamagedState(err error) error { return d.damaged("state", err) }

// Memory reads what transport wants to find again. found is false if there is nothing.
func (d *Dir) Memory() (r transport.Remembered, found bool, err error) {
	data, err := d.read("memory.json")
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, false, d.damaged("memory.json", err)
	}
	return r, true, nil
}

// SaveMemory writes what transport wants to find again.
func (d *Dir) SaveMemory(r transport.Remembered) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode memory.json: %w", err)
	}
	return atomicfile.Write(d.Path("memory.json"), data, 0o600)
}

// Socket is where the daemon answers local commands.
func (d *Dir) Socket() string { return d.Path("control.sock") }

// reserveSize is what joining writes, with room to spare.
const reserveSize = 256 << 10

// Reserve makes sure that the disk has room for what joining is about to write, before a token is used up.
func (d *Dir) Reserve() error {
	path := d.Path(".reserve")
	defer os.Remove(path) //nolint:errcheck // what is left is overwritten next time
	if err := atomicfile.Write(path, make([]byte, reserveSize), 0o600); err != nil {
		return fmt.Errorf("no room for the state of this machine: %w", err)
	}
	return nil
}

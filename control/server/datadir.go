package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/identity"
)

// dataDir is the controller's own directory, held by one process at a time.
type dataDir struct {
	path string
	lock *os.File
}

func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	name := filepath.Join(path, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data directory's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(name) // only to say who
		_ = f.Close()
		return nil, fmt.Errorf("data directory %s is in use by another controller (process %s): stop it, or choose another "+
			"directory with --data-dir", path, strings.TrimSpace(string(holder)))
	}
	// The process id is for the error above; the lock itself is what holds.
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write the data directory's lock: %w", err)
	}
	return &dataDir{path: path, lock: f}, nil
}

func (d *dataDir) close() { _ = d.lock.Close() } // which releases the lock

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// controllerKey returns the controller's own key, and makes it if there is none.
func (d *dataDir) controllerKey() (ed25519.PrivateKey, error) {
	path := d.file("controller.key")
	data, err := credential.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if key, ok := key.(ed25519.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, fmt.Errorf("%s does not hold an Ed25519 key in PKCS #8: restore it from a backup, or remove it and the "+
		"controller makes a new one", path)
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the controller's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the controller's key: %w", err)
	}
	return key, credential.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// The wrap file is one line: this word, a blank, and the key in base64.
const wrapWord = "etherloom-wrap-key-v1"

func (d *dataDir) wrapFile() string { return d.file("ca.wrap") }

// wrapKey reads the key that the CA's key is wrapped with.
func (d *dataDir) wrapKey() (identity.WrapKey, error) {
	data, err := credential.Read(d.wrapFile())
	if errors.Is(err, fs.ErrNotExist) {
		return identity.WrapKey{}, fmt.Errorf("%s is missing, and without it the network's CA key in the store cannot be "+
			"opened: copy ca.wrap, mode 0600, from the data directory of a controller of this network or from a backup: %w",
			d.wrapFile(), err)
	}
	if err != nil {
		return identity.WrapKey{}, err
	}
	word, text, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	key, err := base64.StdEncoding.DecodeString(text)
	if word != wrapWord || err != nil || len(key) != len(identity.WrapKey{}) {
		return identity.WrapKey{}, fmt.Errorf("%s is not a wrap key: copy it again, whole, from another controller or a backup",
			d.wrapFile())
	}
	return identity.WrapKey(key), nil
}

// makeWrapKey makes one for a new network.
func (d *dataDir) makeWrapKey() (identity.WrapKey, error) {
	key := identity.NewWrapKey()
	line := wrapWord + " " + base64.StdEncoding.EncodeToString(key[:]) + "\n"
	return key, credential.Write(d.wrapFile(), []byte(line))
}

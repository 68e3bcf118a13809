package credential

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func admin(t testing.TB) *Admin {
	t.Helper()
	ca, err := identity.NewCA(identity.NewNetworkID(), time.Now())
	must(t, err)
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	leaf, err := ca.Issue(identity.Certificate{Name: identity.Name{Kind: identity.KindAdmin, ID: 1}, Sign: pub}, time.Hour, time.Now())
	must(t, err)
	return &Admin{Controllers: []string{"https://192.0.2.1:443"}, CA: ca.Certificate(), Certificate: leaf.DER, Key: key}
}

func TestAdmin(t *testing.T) {
	a := admin(t)
	data, err := a.Marshal()
	must(t, err)
	back, err := ParseAdmin(data)
	must(t, err)
	if !back.Key.Equal(a.Key) || !bytes.Equal(back.CA, a.CA) || !bytes.Equal(back.Certificate, a.Certificate) || back.Controllers[0] != a.Controllers[0] {
		t.Errorf("read %+v", back)
	}
	edit := func(field string, value any) []byte {
		var j map[string]any
		must(t, json.Unmarshal(data, &j))
		j[field] = value
		out, err := json.Marshal(j)
		must(t, err)
		return out
	}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "damaged"},
		{"cut", data[:len(data)/2], "damaged"},
		{"a relay's", edit("kind", relayKind), `found "etherloom relay v1"`},
		{"no kind", edit("kind", nil), `found ""`},
		{"key cut", edit("key", "x"), "damaged"},
		{"certificate for a key", edit("key", block("CERTIFICATE", a.CA)), "damaged"},
		{"no CA", edit("ca", ""), "damaged"},
		{"leaf for the CA", edit("ca", block("CERTIFICATE", a.Certificate)), "damaged"},
		{"no controllers", edit("controllers", []string{}), "damaged"},
		{"plain http", edit("controllers", []string{"http://x"}), "https://HOST:PORT"},
	} {
		if _, err := ParseAdmin(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestRelay(t *testing.T) {
	r := &Relay{Network: identity.NewNetworkID(), Name: "r", Secret: identity.RelaySecret{7}, Port: 3478, ProbePort: 3479}
	data, err := r.Marshal()
	must(t, err)
	back, err := ParseRelay(data)
	if err != nil || *back != *r {
		t.Errorf("read %+v, %v", back, err)
	}
	for _, text := range []string{
		"", "{}", strings.Replace(string(data), "relay v1", "admin v1", 1), strings.Replace(string(data), "3479", "0", 1),
		strings.Replace(string(data), "Bw", "AA", 1)[:80], strings.Replace(string(data), r.Network.String(), "xyz", 1),
	} {
		if _, err := ParseRelay([]byte(text)); err == nil {
			t.Errorf("taken: %s", text)
		}
	}
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.json")
	must(t, Write(path, []byte("content")))
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", fi.Mode(), err)
	}
	if err := Write(path, []byte("other")); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "not overwritten") {
		t.Errorf("writing over it: %v", err)
	}
	if b, err := Read(path); err != nil || string(b) != "content" {
		t.Errorf("read %q, %v", b, err)
	}
	must(t, os.Chmod(path, 0o640))
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by a group: %v", err)
	}
	if _, err := Read(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := Write(filepath.Join(path, "x"), nil); err == nil {
		t.Error("wrote below a file")
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// TestFullDisk: a credential is there whole or not at all.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mount needs root: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	path := filepath.Join(dir, "admin.json")
	if err := Write(path, make([]byte, 64<<10)); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("on a full disk: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
}

func FuzzParse(f *testing.F) {
	data, err := admin(f).Marshal()
	must(f, err)
	f.Add(data)
	r := &Relay{Name: "r", Port: 1, ProbePort: 2}
	data, err = r.Marshal()
	must(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := ParseAdmin(b); err == nil && (len(a.Key) != ed25519.PrivateKeySize || len(a.Controllers) == 0) {
			t.Fatalf("took %+v", a)
		}
		if r, err := ParseRelay(b); err == nil && (r.Port == 0 || r.ProbePort == 0) {
			t.Fatalf("took %+v", r)
		}
	})
}

package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/statedir"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wantError checks that an error says all of these.
func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error is %v, want ...%s...", err, text)
		}
	}
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "loom") // short: there will be unix sockets in it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// tree is what a directory holds: the content of each file below it, by name.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	}))
	return out
}

// site is a machine that has joined a network, whose controller is the test itself.
type site struct {
	t    testing.TB
	ca   *identity.CA
	keys identity.NodeKeys
	dir  *statedir.Dir
	key  ed25519.PrivateKey // the controller's
	leaf []byte             // the controller's
}

const selfID = 7

func newSite(t testing.TB) *site {
	t.Helper()
	ca, err := identity.NewCA(identity.NewNetworkID(), time.Now())
	must(t, err)
	s := &site{t: t, ca: ca, keys: newKeys(t)}
	controller := newKeys(t)
	s.key, s.leaf = controller.Sign, s.issue(identity.KindController, 1, controller, time.Hour, time.Now())
	s.dir, err = statedir.Create(shortDir(t))
	must(t, err)
	must(t, s.dir.SaveMembership(statedir.Membership{
		Network: ca.Network.String(), ID: selfID, Name: "self", Zone: "old.internal", Controllers: []string{"https://127.0.0.1:1"}, Port: 50000,
	}))
	must(t, s.dir.SaveKeys(s.keys))
	must(t, s.dir.SaveCA(ca.Certificate()))
	must(t, s.dir.SaveCertificate(s.issue(identity.KindNode, selfID, s.keys, time.Hour, time.Now())))
	return s
}

func newKeys(t testing.TB) identity.NodeKeys {
	t.Helper()
	keys, err := identity.NewNodeKeys()
	must(t, err)
	return keys
}

func (s *site) issue(kind identity.Kind, id identity.ID, keys identity.NodeKeys, life time.Duration, at time.Time) []byte {
	s.t.Helper()
	want := identity.Certificate{Name: identity.Name{Kind: kind, ID: id}, Sign: keys.SignPublic()}
	if kind == identity.KindNode {
		want.Static = keys.StaticPublic()
	}
	c, err := s.ca.Issue(want, life, at)
	must(s.t, err)
	return c.DER
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// config is one by which the daemon uses no link of this machine.
func config() Config {
	c := Defaults()
	c.Underlay.Interfaces, c.DNS.Resolver = []string{"no-such-link"}, "off"
	return c
}

// daemon builds one that does not run; what it would start under Run belongs to the test.
func (s *site) daemon() *Daemon {
	s.t.Helper()
	d, err := New(config(), s.dir, quiet())
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	d.group, d.ctx = errgroup.WithContext(ctx)
	s.t.Cleanup(func() {
		cancel()
		must(s.t, d.group.Wait())
	})
	return d
}

// told is what a controller says to this node.
type told struct {
	version, base uint64
	node          uint32
	expires       time.Time
	resources     []*controlv1.Resource
}

func (s *site) delta(what told) *controlv1.Delta {
	s.t.Helper()
	full := state.State{}
	for _, r := range what.resources {
		key, value, err := state.Encode(r)
		must(s.t, err)
		full[key] = value
	}
	sum := full.Hash()
	if what.node == 0 {
		what.node = selfID
	}
	if what.expires.IsZero() {
		what.expires = time.Now().Add(time.Hour)
	}
	d, err := state.Signer{Leaf: s.leaf, Key: s.key}.Delta(&controlv1.StateHeader{
		Network: s.ca.Network[:], Node: what.node, Epoch: 1, Base: what.base, Version: what.version, Hash: sum[:],
		Issued: timestamppb.Now(), Expires: timestamppb.New(what.expires),
	}, nil, full)
	must(s.t, err)
	return d
}

func netSettings(edit ...func(*controlv1.Settings)) *controlv1.Resource {
	s := &controlv1.Settings{
		Zone: "etherloom.internal", CertificateLifetime: durationpb.New(time.Hour), Grace: durationpb.New(72 * time.Hour),
		LinkIdle: durationpb.New(time.Minute), Controllers: []string{"https://192.0.2.1:443"},
	}
	for _, f := range edit {
		f(s)
	}
	return &controlv1.Resource{Kind: &controlv1.Resource_Settings{Settings: s}}
}

func self(stations ...*controlv1.Station) *controlv1.Resource {
	return &controlv1.Resource{Kind: &controlv1.Resource_Self{Self: &controlv1.Peer{
		Id: selfID, Name: "self", StaticKey: bytes.Repeat([]byte{9}, 32), RelaySlot: 70, Stations: stations,
	}}}
}

func (s *site) peer(id uint32, name string, stations ...*controlv1.Station) *controlv1.Resource {
	static := newKeys(s.t).StaticPublic()
	return &controlv1.Resource{Kind: &controlv1.Resource_Peer{Peer: &controlv1.Peer{
		Id: id, Name: name, StaticKey: static[:], Aes: true, HandshakeNonce: 3, RelaySlot: 80, Stations: stations,
	}}}
}

func revocation(id uint32, before time.Time) *controlv1.Resource {
	r := &controlv1.Revocation{Id: id}
	if !before.IsZero() {
		r.NotBefore = timestamppb.New(before)
	}
	return &controlv1.Resource{Kind: &controlv1.Resource_Revocation{Revocation: r}}
}

func station(vni uint32, last byte, mode controlv1.AddressMode, addresses ...string) *controlv1.Station {
	return &controlv1.Station{Vni: vni, Mac: []byte{2, 0, 0, 0, 0, last}, Mode: mode, Addresses: addresses}
}

var errTest = errors.New("reason")

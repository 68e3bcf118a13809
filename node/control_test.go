package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
	"github.com/etherloom/etherloom/control/credential"
	"github.com/etherloom/etherloom/control/server"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/node/statedir"
)

// TestRenewalTiming: a certificate is renewed at half of the life that controllers give now, whatever life it was made
// with, and the daemon looks often enough to notice a change.
func TestRenewalTiming(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, c := range []struct {
		name     string
		left     time.Duration // of the certificate
		lifetime time.Duration // by the settings; 0: they are not known yet
		due      bool
	}{
		{"fresh", 24 * time.Hour, 24 * time.Hour, false},
		{"before half", 12*time.Hour + time.Second, 24 * time.Hour, false},
		{"at half", 12 * time.Hour, 24 * time.Hour, true},
		{"ended", -time.Hour, 24 * time.Hour, true},
		{"lives are shorter now", 6 * time.Hour, 2 * time.Hour, false},
		{"lives are longer now", 6 * time.Hour, 48 * time.Hour, true},
		{"unknown, fresh", 24 * time.Hour, 0, false},
		{"unknown, a quarter left", 6*time.Hour + 2*time.Minute, 0, false},
		{"unknown, less than a quarter left", 6 * time.Hour, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := new(Daemon)
			end := now.Add(c.left)
			d.cert.Store(&identity.Certificate{NotBefore: end.Add(-24*time.Hour - 5*time.Minute), NotAfter: end})
			if c.lifetime != 0 {
				d.contents = &state.Contents{Settings: &controlv1.Settings{CertificateLifetime: durationpb.New(c.lifetime)}}
			}
			if got := d.renewalDue(now); got != c.due {
				t.Errorf("due: %v", got)
			}
			if wait := d.untilRenewal(now); wait < 200*time.Millisecond || wait > time.Second || c.due && wait > 300*time.Millisecond || !c.due && wait != time.Second {
				t.Errorf("looks again in %v", wait)
			}
		})
	}
}

func TestDefaultName(t *testing.T) {
	for host, want := range map[string]string{"a": "a", "a.example.org": "a", "": "", ".x": ""} {
		if got := defaultName(host); got != want {
			t.Errorf("%q becomes %q", host, got)
		}
	}
}

// desk is a controller that runs, and its administrator.
type desk struct {
	t     testing.TB
	url   string
	admin *client.Admin
}

func newDesk(t testing.TB, edit ...func(*server.Options)) *desk {
	t.Helper()
	opts := server.Options{
		DataDir: shortDir(t), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
		Limits: server.Limits{Calls: 1000, CallBurst: 1000, Changes: 1000, ChangeBurst: 1000},
	}
	for _, f := range edit {
		f(&opts)
	}
	ctl, err := server.Open(t.Context(), opts)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx) }()
	t.Cleanup(sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("controller: %v", err)
		}
	}))
	data, err := credential.Read(filepath.Join(opts.DataDir, "admin.json"))
	must(t, err)
	cred, err := credential.ParseAdmin(data)
	must(t, err)
	d := &desk{t: t, url: "https://" + ctl.Addr().String()}
	d.admin, err = client.NewAdmin(cred)
	must(t, err)
	return d
}

func (d *desk) token(edit ...func(*controlv1.CreateTokenRequest)) (token identity.Token) {
	d.t.Helper()
	r := &controlv1.CreateTokenRequest{Uses: 1}
	for _, f := range edit {
		f(r)
	}
	must(d.t, d.admin.Do(context.Background(), func(ctx context.Context, a controlv1connect.AdminServiceClient) error {
		resp, err := a.CreateToken(ctx, r)
		if err == nil {
			token, err = identity.ParseToken(resp.GetToken())
		}
		return err
	}))
	return token
}

// joined is the daemon of a machine that has joined the desk's network. It does not run.
func (d *desk) joined(name string) (*Daemon, *statedir.Dir) {
	d.t.Helper()
	path := shortDir(d.t)
	_, err := Join(d.t.Context(), path, d.token(), name)
	must(d.t, err)
	dir, err := statedir.Open(path)
	must(d.t, err)
	return (&site{t: d.t, dir: dir}).daemon(), dir
}

// TestRenew: a daemon whose certificates live some seconds keeps itself certified, and its stream.
func TestRenew(t *testing.T) {
	t.Parallel()
	desk := newDesk(t, func(o *server.Options) { o.CertificateLifetime = 9 * time.Second })
	d, dir := desk.joined("a")
	first := d.cert.Load()
	d.raiseNonce = true
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.client.Run(ctx) })
	wg.Go(func() { _ = d.renew(ctx) })
	time.Sleep(time.Until(first.NotAfter) + 500*time.Millisecond)
	eventually(t, "when the first certificate has ended there is another, and a stream by it", func() bool {
		cert := d.cert.Load()
		return cert.Serial != first.Serial && cert.NotAfter.After(time.Now()) && d.client.Connected()
	})
	eventually(t, "the handshake nonce is raised", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.contents.Self.GetHandshakeNonce() > 0
	})
	cancel()
	wg.Wait()
	if leaf, err := dir.Certificate(); err != nil || string(leaf) != string(d.cert.Load().DER) {
		t.Errorf("the certificate on disk is another one, %v", err)
	}
	if d.raiseNonce {
		t.Error("the handshake nonce would be raised again")
	}
	if d.problems["certificate"] != "" {
		t.Errorf("problems are %v", d.problems)
	}
}

// TestRenewOnceRefuses: what comes back must be for this machine and its keys, or it is neither used nor kept; nor is one
// used that cannot be kept.
func TestRenewOnceRefuses(t *testing.T) {
	t.Parallel()
	d, dir := newDesk(t).joined("a")
	must(t, d.renewOnce(t.Context()))
	good, keys, id := d.cert.Load(), d.keys, d.member.ID
	for name, edit := range map[string]func(){
		"identity":    func() { d.member.ID++ },
		"X25519 key":  func() { d.keys.Static = newKeys(t).Static },
		"Ed25519 key": func() { d.keys.Sign = newKeys(t).Sign }, // the connection was opened with the right one
	} {
		// A call opens a connection that the next one uses, too.
		_, err := d.client.RaiseHandshakeNonce(t.Context())
		must(t, err)
		edit()
		wantError(t, d.renewOnce(t.Context()), "somebody else")
		d.keys, d.member.ID = keys, id
		if leaf, err := dir.Certificate(); d.cert.Load() != good || err != nil || string(leaf) != string(good.DER) {
			t.Errorf("%s: taken all the same, %v", name, err)
		}
	}
	must(t, os.Remove(dir.Path("node.crt")))
	must(t, os.Mkdir(dir.Path("node.crt"), 0o700))
	wantError(t, d.renewOnce(t.Context()), "node.crt")
	if d.cert.Load() != good {
		t.Error("a certificate is used that is not on disk")
	}
}

func TestJoin(t *testing.T) {
	t.Parallel()
	desk := newDesk(t)
	path := filepath.Join(shortDir(t), "state")
	token := desk.token()

	// Whatever fails before the token is used leaves it good, and leaves no membership.
	_, err := Join(t.Context(), path, token, "not a name")
	wantError(t, err, "not a DNS label", "--name")
	if _, err := os.Stat(path); err == nil {
		t.Error("a directory was made for a bad name")
	}
	must(t, os.MkdirAll(filepath.Join(path, ".reserve", "x"), 0o700))
	_, err = Join(t.Context(), path, token, "a")
	wantError(t, err, "no room")
	must(t, os.RemoveAll(filepath.Join(path, ".reserve")))
	dir, err := statedir.Open(path)
	must(t, err)
	keys, err := dir.Keys()
	must(t, err)
	must(t, os.WriteFile(dir.Path("node.key"), []byte("damaged"), 0o600))
	_, err = Join(t.Context(), path, token, "a")
	wantError(t, err, dir.Path("node.key")+" is damaged")
	if data, _ := os.ReadFile(dir.Path("node.key")); string(data) != "damaged" {
		t.Error("damaged keys were overwritten")
	}
	must(t, dir.SaveKeys(keys))
	release, err := dir.Lock()
	must(t, err)
	_, err = Join(t.Context(), path, token, "a")
	wantError(t, err, "another daemon")
	release()
	wrong := token
	wrong.Secret[0] ^= 1
	_, err = Join(t.Context(), path, wrong, "a")
	wantError(t, err, "does not know the token")
	if dir.Joined() {
		t.Error("joined without a token")
	}

	// The keys that an attempt before has made are those that are enrolled.
	j, err := Join(t.Context(), path, token, "a")
	must(t, err)
	m, err := dir.Membership()
	must(t, err)
	if m.Name != "a" || m.ID != j.Membership.ID || m.ID == 0 || m.Zone != "etherloom.internal" || len(m.Controllers) != 1 || m.Controllers[0] != desk.url ||
		m.Port < 49152 || j.Pending {
		t.Errorf("membership is %+v", m)
	}
	d := (&site{t: t, dir: dir}).daemon()
	if d.keys.StaticPublic() != keys.StaticPublic() || d.cert.Load().Static != keys.StaticPublic() {
		t.Error("the keys are not those of the attempt before")
	}
	before := tree(t, path)
	_, err = Join(t.Context(), path, desk.token(), "b")
	wantError(t, err, "has joined network "+m.Network+" as a already", path)
	must(t, os.WriteFile(dir.Path("node.json"), []byte("{"), 0o600))
	_, err = Join(t.Context(), path, desk.token(), "b")
	wantError(t, err, dir.Path("node.json")+" is damaged")
	before[dir.Path("node.json")] = "{"
	for file, data := range tree(t, path) {
		if before[file] != data && !strings.HasSuffix(file, "lock") {
			t.Errorf("%s has changed", file)
		}
	}

	j, err = Join(t.Context(), shortDir(t), desk.token(func(r *controlv1.CreateTokenRequest) { r.Approve = true }), "c")
	if err != nil || !j.Pending {
		t.Errorf("with a token that asks for approval: %v, %v", j, err)
	}
	// Without its files a machine has not joined.
	broken := shortDir(t)
	must(t, os.MkdirAll(filepath.Join(broken, "ca.crt", "x"), 0o700))
	_, err = Join(t.Context(), broken, desk.token(), "d")
	wantError(t, err, "ca.crt")
	if _, err := os.Stat(filepath.Join(broken, "node.json")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a membership was written without the CA's certificate")
	}
}

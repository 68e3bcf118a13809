package server

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// TestFirstRun: what a new network is, and that it is the same one after a restart.
func TestFirstRun(t *testing.T) {
	d := newDesk(t)
	for name, mode := range map[string]fs.FileMode{
		"admin.json": 0o600, "ca.wrap": 0o600, "controller.key": 0o600, "lock": 0o600, "etcd": 0o700,
	} {
		if fi, err := os.Stat(filepath.Join(d.dir, name)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, fi.Mode(), err)
		}
	}
	grants, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
	must(t, err)
	segments, err := d.admin.ListSegments(t.Context(), &controlv1.ListSegmentsRequest{})
	must(t, err)
	if len(grants.Grants) != 0 || len(segments.Segments) != 1 {
		t.Fatalf("a new network has grants %v, segments %v", grants, segments)
	}
	lan := segments.Segments[0]
	if lan.Name != "lan" || lan.Vni != 1 || lan.Mtu != 1500 || !strings.HasSuffix(lan.Ipv4Prefix, "/20") || !strings.HasPrefix(lan.Ipv4Prefix, "10.") ||
		!strings.HasPrefix(lan.Ipv6Prefix, "fd") || !strings.HasSuffix(lan.Ipv6Prefix, ":1::/64") {
		t.Errorf("segment is %v", lan)
	}
	m := d.ctl.store.Model()
	if set := m.Settings; set.Zone != "etherloom.internal" || time.Duration(set.CertificateLifetime) != 24*time.Hour ||
		time.Duration(set.Grace) != 72*time.Hour || time.Duration(set.LinkIdle) != 5*time.Minute || set.Epoch != 1 {
		t.Errorf("settings are %+v", set)
	}
	if bytes.Contains(m.Authority.Wrapped, d.ctl.ca.Key()[:32]) {
		t.Error("the CA's key is in the store in the clear")
	}
	if cert, err := d.ctl.verifier.Verify([][]byte{d.cred.Certificate}, identity.KindAdmin, time.Now()); err != nil ||
		time.Until(cert.NotAfter).Round(24*time.Hour) != 90*24*time.Hour {
		t.Errorf("administrator's certificate: %v, %v", cert, err)
	}
	ca, id := d.ctl.CA(), d.ctl.selfID()
	d.stop()
	again := newDeskAt(t, d.dir, func(o *Options) { o.Zone, o.Grace = "example.net", time.Hour })
	if !bytes.Equal(again.ctl.CA(), ca) || again.ctl.selfID() != id || len(again.ctl.store.Model().Controllers) != 1 {
		t.Error("the restart made another CA or another controller")
	}
	if set := again.ctl.store.Model().Settings; set.Zone != "example.net" || time.Duration(set.Grace) != time.Hour || set.ULA != m.Settings.ULA {
		t.Errorf("settings after a restart with others: %+v", set)
	}
	must(t, auditWhole(t, again))
	for line := range strings.Lines(d.logs.String() + again.logs.String()) {
		if (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !strings.Contains(line, `msg="etcd is slow"`) {
			t.Errorf("the log is not quiet: %s", line)
		}
	}
}

// TestOpenErrors: each thing that can be wrong at the start is said in one sentence with the way out, and nothing is
// damaged: the controller starts once it is put right.
func TestOpenErrors(t *testing.T) {
	d := newDesk(t)
	other := newDesk(t)
	path := func(name string) string { return filepath.Join(d.dir, name) }
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		must(t, err)
		return b
	}
	open := func(edit func(*Options)) error {
		opts := options(d.dir, d)
		if edit != nil {
			edit(&opts)
		}
		c, err := Open(t.Context(), opts)
		if err == nil {
			c.Close()
		}
		return err
	}
	check := func(name string, err error, want ...string) {
		t.Helper()
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v\nwant: %s", name, err, w)
			}
		}
	}
	check("running twice", open(nil), "in use by another controller", fmt.Sprint("process ", os.Getpid()), "--data-dir")
	check("port in use", func() error {
		opts := options(shortDir(t), d)
		opts.Listen = d.ctl.Addr().String()
		_, err := Open(t.Context(), opts)
		return err
	}(), "another program", "--listen")
	d.stop()

	wrap, key := read(path("ca.wrap")), read(path("controller.key"))
	restore := func(name string, content []byte) {
		must(t, os.WriteFile(path(name), content, 0o600))
		must(t, os.Chmod(path(name), 0o600))
	}
	must(t, os.Remove(path("ca.wrap")))
	check("wrap key missing", open(nil), "ca.wrap is missing", "copy ca.wrap")
	restore("ca.wrap", read(filepath.Join(other.dir, "ca.wrap")))
	check("another network's wrap key", open(nil), "does not open", "copy ca.wrap")
	restore("ca.wrap", wrap[:len(wrap)/2])
	check("wrap key cut", open(nil), "is not a wrap key")
	restore("ca.wrap", wrap)
	must(t, os.Chmod(path("ca.wrap"), 0o644))
	check("wrap key readable by all", open(nil), "chmod 600")
	restore("ca.wrap", wrap)
	restore("controller.key", []byte("x"))
	check("own key damaged", open(nil), "controller.key does not hold")
	restore("controller.key", key)

	check("no data directory", open(func(o *Options) { o.DataDir = "" }), "--data-dir")
	check("a file for a directory", open(func(o *Options) { o.DataDir = path("controller.key") }), "controller.key: not a directory")
	check("lifetime too short", open(func(o *Options) { o.CertificateLifetime = time.Millisecond }), "certificate lifetime", "shortest is 1s")
	check("bad zone", open(func(o *Options) { o.Zone = "a..b" }), `zone "a..b"`)
	check("bad URL", open(func(o *Options) { o.Advertise = []string{"http://x"} }), "https://HOST:PORT")
	check("bad pool", open(func(o *Options) { o.Pool = netipPrefix("10.64.0.1/10") }), "pool")
	check("bad network", open(func(o *Options) { o.Network = "../x" }), "network")
	check("bad address", open(func(o *Options) { o.Listen = "nowhere" }), "listen on nowhere")
	check("etcd over plain http", open(func(o *Options) { o.EtcdEndpoints = []string{"http://192.0.2.1:1"} }), "https://HOST:PORT")

	again := newDeskAt(t, d.dir)
	if again.admin == nil {
		t.Fatal("the controller does not start again")
	}
	must(t, auditWhole(t, again))
}

// TestInterruptedFirstRun: an admin.json that was there before is not overwritten, and nothing is made beside it.
func TestInterruptedFirstRun(t *testing.T) {
	dir := shortDir(t)
	must(t, os.WriteFile(filepath.Join(dir, "admin.json"), []byte("mine"), 0o600))
	_, err := Open(t.Context(), options(dir, &desk{t: t, logs: new(logs), clock: new(clock)}))
	if err == nil || !strings.Contains(err.Error(), "admin.json exists and is not overwritten") {
		t.Errorf("first run over an admin.json: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca.wrap")); err == nil {
		t.Error("the failed run left a wrap key")
	}
	must(t, os.Remove(filepath.Join(dir, "admin.json")))
	newDeskAt(t, dir)
}

// TestNewAdmin: who holds the data directory can make an administrator when the last is lost.
func TestNewAdmin(t *testing.T) {
	d := newDesk(t)
	d.stop()
	must(t, os.Rename(filepath.Join(d.dir, "admin.json"), filepath.Join(d.dir, "lost")))
	again := newDeskAt(t, d.dir, func(o *Options) { o.NewAdmin = true })
	list, err := again.admin.ListAdmins(t.Context(), &controlv1.ListAdminsRequest{})
	must(t, err)
	if len(list.Admins) != 2 || bytes.Equal(again.cred.Key, d.cred.Key) {
		t.Errorf("administrators: %v", list.Admins)
	}
	_, err = again.admin.RevokeAdmin(t.Context(), &controlv1.RevokeAdminRequest{Id: 1})
	must(t, err)
}

// TestShortLives: with every time short, a node that renews stays in the network, and so does the controller.
func TestShortLives(t *testing.T) {
	d := newDesk(t, func(o *Options) {
		o.CertificateLifetime, o.Grace, o.Alive, o.Patience = 6*time.Second, 6*time.Second, time.Second, time.Second
	})
	a := d.join("a", d.token()).sync()
	first := d.ctl.self.Load().cert.Serial
	for range 5 {
		time.Sleep(2 * time.Second)
		resp, err := a.api.Renew(t.Context(), &controlv1.RenewRequest{})
		must(t, err)
		a.use(resp.Certificate)
		a.sync()
	}
	eventually(t, "the node's state is still good", func() bool { return a.holds().Expires().After(time.Now()) })
	if d.ctl.self.Load().cert.Serial == first {
		t.Error("the controller did not renew its own certificate")
	}
	if err := a.failed(); err != nil {
		t.Errorf("stream: %v", err)
	}
	if s := d.ctl.Stats(); s.StatesRenewed == 0 {
		t.Errorf("stats are %+v", s)
	}
}

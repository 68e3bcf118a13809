package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/lab"
)

// fails runs a command that must fail, with one clear sentence that holds all the words.
func (r *rig) fails(h *lab.Host, words []string, name string, args ...string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	out, err := h.Run(ctx, filepath.Join(bin, name), args...)
	if err == nil {
		r.Errorf("%s %v succeeds: %s", name, args, out)
		return
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			r.Errorf("%s %v says %q; want %q in it", name, args, out, w)
		}
	}
	if strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") || strings.Count(out, "\n") > 4 {
		r.Errorf("%s %v: not one clear sentence:\n%s", name, args, out)
	}
}

// Every way in which a token can be wrong: nothing is written, and the machine can still join.
func TestBadTokens(t *testing.T) {
	r := newRig(t)
	s, err := r.Site("a", lab.PortPreserving)
	r.ok(err)
	a, err := s.Node("a")
	r.ok(err)
	join := func(words []string, args ...string) {
		t.Helper()
		r.fails(a.Host, words, "etherloom", append([]string{"join", "--name", "a", "--state-dir", a.StateDir()}, args...)...)
		if _, err := os.Stat(filepath.Join(a.StateDir(), "node.json")); err == nil {
			t.Errorf("join %v has written a membership", args)
		}
	}
	good, err := r.Token(r.ctx, "--uses", "2")
	r.ok(err)
	parsed, err := identity.ParseToken(good)
	r.ok(err)

	join([]string{"no token", "token create"})
	join([]string{"not an Etherloom token"}, "hello")
	join([]string{"damaged", "token create"}, good[:len(good)-9])
	damaged := []byte(good)
	damaged[len(good)/2] ^= 1 // another letter or digit, or a character that no token has
	join([]string{"damaged"}, string(damaged))
	join([]string{"token file"}, "--token-file", "/does/not/exist")
	join([]string{"once"}, good, "--token-file", "/does/not/exist")

	foreign := parsed
	foreign.Pin[3] ^= 1
	join([]string{"not from the CA"}, foreign.String())
	unknown := parsed
	unknown.Secret[3] ^= 1
	join([]string{"token"}, unknown.String())
	nowhere := parsed
	nowhere.URLs = []string{"https://203.0.113.77:443"}
	join([]string{"203.0.113.77"}, nowhere.String())
	closed := parsed
	closed.URLs = []string{"https://203.0.113.10:444"}
	join([]string{"cannot connect"}, closed.String())
	noName := parsed
	noName.URLs = []string{"https://controller.example.invalid"}
	join([]string{"cannot be resolved"}, noName.String())

	short, err := r.Token(r.ctx, "--ttl", "1s")
	r.ok(err)
	time.Sleep(1100 * time.Millisecond)
	join([]string{"expired"}, short)
	revoked, err := r.Admin(r.ctx, "token", "create", "--json")
	r.ok(err)
	revokedToken := between(revoked, `"token": "`, `"`)
	id := between(revoked, `"id": "`, `"`)
	_, err = r.Admin(r.ctx, "token", "revoke", id)
	r.ok(err)
	join([]string{"revoked"}, revokedToken)

	once, err := r.Token(r.ctx)
	r.ok(err)
	b, err := s.Node("b")
	r.ok(err)
	out, err := b.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "join", once, "--name", "b", "--state-dir", b.StateDir())
	if err != nil {
		t.Fatal(out)
	}
	join([]string{"used"}, once)
	join([]string{"node called", "b"}, good, "--name", "b")
	join([]string{"DNS label", "--name"}, good, "--name", "Not_A_Name")

	// After all that the good token is still good.
	out, err = a.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "join", good, "--name", "a", "--state-dir", a.StateDir())
	if err != nil {
		t.Fatal(out)
	}
	r.fails(a.Host, []string{"joined", "already"}, "etherloom", "join", good, "--name", "a2", "--state-dir", a.StateDir())
}

func between(s, from, to string) string {
	_, rest, _ := strings.Cut(s, from)
	out, _, _ := strings.Cut(rest, to)
	return out
}

// What can be wrong with the machine, the directory, the configuration.
func TestBadMachines(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	h := a.Host
	loom := func(words []string, args ...string) { t.Helper(); r.fails(h, words, "etherloom", args...) }

	loom([]string{"another daemon", "process", "--state-dir"}, "run", "--state-dir", a.StateDir())
	loom([]string{"not joined", "join"}, "run", "--state-dir", r.Dir()+"/nothing")
	loom([]string{"no daemon answers", "run"}, "status", "--state-dir", emptyDir(t, r, "empty"))

	file := filepath.Join(r.Dir(), "node.yaml")
	r.ok(os.WriteFile(file, []byte("state_dir: /x\ntap:\n  naem: loom0\n"), 0o600))
	loom([]string{"node.yaml", "line 3", "naem"}, "run", "--config", file)
	r.ok(os.WriteFile(file, []byte("dns: {resolver: maybe}\n"), 0o600))
	loom([]string{"dns.resolver", "maybe"}, "run", "--config", file)

	r.ok(a.Stop())
	r.ok(os.WriteFile(filepath.Join(a.StateDir(), "memory.json"), []byte(`{"clock": 1}`), 0o600))
	for name, words := range map[string][]string{
		"node.json": {"node.json", "damaged"}, "node.key": {"node.key", "damaged"}, "node.crt": {"node.crt", "damaged"},
		"state": {"state", "damaged"}, "memory.json": {"memory.json", "damaged"},
	} {
		path := filepath.Join(a.StateDir(), name)
		good, err := os.ReadFile(path)
		r.ok(err)
		r.ok(os.WriteFile(path, []byte("garbage"), 0o600))
		loom(words, "run", "--state-dir", a.StateDir())
		if now, _ := os.ReadFile(path); string(now) != "garbage" {
			t.Errorf("%s was overwritten", name)
		}
		r.ok(os.WriteFile(path, good, 0o600))
	}
	r.ok(os.Chmod(a.StateDir(), 0o755))
	loom([]string{"read by others", "chmod 0700"}, "run", "--state-dir", a.StateDir())
	r.ok(os.Chmod(a.StateDir(), 0o700))

	out, err := h.Run(r.ctx, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", filepath.Join(bin, "etherloom"), "run", "--state-dir", a.StateDir())
	if err == nil || !strings.Contains(out, "CAP_NET_ADMIN") {
		t.Errorf("without the capability: %s, %v", out, err)
	}
	out, err = h.Run(r.ctx, "sh", "-c", "mount -t tmpfs none /dev && exec "+filepath.Join(bin, "etherloom")+" run --state-dir "+a.StateDir())
	if err == nil || !strings.Contains(out, "/dev/net/tun does not exist") {
		t.Errorf("without /dev/net/tun: %s, %v", out, err)
	}
}

func emptyDir(t *testing.T, r *rig, name string) string {
	t.Helper()
	dir := filepath.Join(r.Dir(), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A full disk: joining says so before it uses the token up; a running daemon says so and goes on.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	s, err := r.Site("a", lab.PortPreserving)
	r.ok(err)
	a, err := s.Node("a")
	r.ok(err)
	token, err := r.Token(r.ctx, "--label", "team=x")
	r.ok(err)
	dir := "/run/small/state" // in the host's own /run
	mount := func(size string) {
		t.Helper()
		if out, err := a.Host.Run(r.ctx, "sh", "-c", "mkdir -p /run/small && mount -t tmpfs -o size="+size+" none /run/small && mkdir -m 700 "+dir); err != nil {
			t.Fatal(out)
		}
	}
	mount("32k")
	r.fails(a.Host, []string{"no space left"}, "etherloom", "join", token, "--name", "a", "--state-dir", dir)
	out, err := a.Host.Run(r.ctx, "umount", "/run/small")
	if err != nil {
		t.Fatal(out)
	}
	mount("600k")
	out, err = a.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "join", token, "--name", "a", "--state-dir", dir)
	if err != nil {
		t.Fatalf("the token was used up by the attempt that failed: %s", out)
	}
	p, err := a.Host.Start(r.ctx, filepath.Join(bin, "etherloom"), "run", "--state-dir", dir)
	r.ok(err)
	r.ok(p.WaitLog(r.ctx, "stream to the controller is up"))
	out, err = a.Host.Run(r.ctx, "sh", "-c", "dd if=/dev/zero of=/run/small/fill bs=1k 2>/dev/null; true")
	if err != nil {
		t.Fatal(out)
	}
	_, err = r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	r.await("status says that the disk is full", 10*time.Second, func() bool {
		out, err := a.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "status", "--state-dir", dir)
		return err == nil && strings.Contains(out, "no space left") && strings.Contains(out, "lan")
	})
	if out, err = a.Host.Run(r.ctx, "rm", "/run/small/fill"); err != nil {
		t.Fatal(out)
	}
	r.await("the problem goes away", 15*time.Second, func() bool {
		out, err := a.Host.Run(r.ctx, filepath.Join(bin, "etherloom"), "status", "--state-dir", dir)
		return err == nil && !strings.Contains(out, "no space left")
	})
	_ = p.Stop(5 * time.Second)
}

// The controller's own mistakes: a port in use, a second one on the same directory, options that make no sense.
func TestBadControllers(t *testing.T) {
	r := newRig(t)
	h := r.Controller
	ctl := func(words []string, args ...string) { t.Helper(); r.fails(h, words, "etherloom-controller", args...) }
	ctl([]string{"in use", "another controller"}, "--data-dir", r.Dir()+"/controller", "--listen", ":8443")
	ctl([]string{"443", "in use"}, "--data-dir", r.Dir()+"/second", "--listen", ":443", "--relay=false")
	ctl([]string{"https://HOST:PORT"}, "--data-dir", r.Dir()+"/third", "--advertise", "controller.example.com")
	ctl([]string{"udp"}, "--data-dir", r.Dir()+"/fourth", "--listen", ":8443", "--udp", "everywhere")
	ctl([]string{"relay add"}, "relay")
	ctl([]string{"read credential"}, "relay", "--config", "/does/not/exist")

	adm := func(words []string, args ...string) { t.Helper(); r.fails(h, words, "etherloom", args...) }
	adm([]string{"admin.json", "--admin"}, "grant", "list")
	file := r.Dir() + "/controller/admin.json"
	adm([]string{"node:NAME", "segment:NAME"}, "grant", "add", "--admin", file)
	adm([]string{"segment"}, "grant", "add", "--from", "label:a=b", "--to", "segment:nothing", "--admin", file)
	adm([]string{"node:"}, "grant", "add", "--from", "a", "--to", "segment:lan", "--admin", file)
	adm([]string{"grant list"}, "grant", "remove", "one", "--admin", file)
	adm([]string{"future"}, "grant", "add", "--from", "label:a=b", "--to", "segment:lan", "--expires", "2001-01-01T00:00:00Z", "--admin", file)
	adm([]string{"node list"}, "node", "show", "nobody", "--admin", file)
}

package hostdns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain fails if a goroutine of this package, or a connection to a bus, outlives the tests. As a child of
// TestKilled it does that test's work instead.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	code := m.Run()
	if left := leaked(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
		code = 1
	}
	os.Exit(code)
}

func leaked() string {
	var left []string
	for range 50 {
		buf := make([]byte, 1<<20)
		left = nil
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			ours := strings.Contains(g, "dnsd/hostdns.") || strings.Contains(g, "godbus") || strings.Contains(g, "fsnotify")
			if ours && !strings.Contains(g, "hostdns.TestMain") {
				left = append(left, g)
			}
		}
		if left == nil {
			return ""
		}
		time.Sleep(20 * time.Millisecond)
	}
	return strings.Join(left, "\n\n")
}

const original = "# by hand\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch corp.example\noptions edns0 rotate\n"

func testTarget() Target {
	return Target{
		Server:  netip.MustParseAddrPort("10.77.0.1:53"),
		Link:    7,
		Domains: []string{"etherloom.internal", "77.10.in-addr.arpa"},
	}
}

// host is a directory in the place of a host's files.
type host struct {
	t    testing.TB
	dir  string
	kind string
}

// kinds are the forms that resolv.conf has in the wild.
var kinds = []string{"file", "absent", "symlink", "dangling symlink", "bind mount", "symlink to a bind mount"}

func newHost(t testing.TB, kind string) host {
	t.Helper()
	h := host{t, t.TempDir(), kind}
	for _, d := range []string{"etc", "run", "state"} {
		h.must(os.Mkdir(filepath.Join(h.dir, d), 0o755))
	}
	switch kind {
	case "file":
		h.put("etc/resolv.conf", original, 0o640)
	case "symlink":
		h.put("run/resolv.conf", original, 0o644)
		h.must(os.Symlink("../run/resolv.conf", h.path("etc/resolv.conf")))
	case "dangling symlink":
		h.must(os.Symlink("../run/resolv.conf", h.path("etc/resolv.conf")))
	case "bind mount":
		h.put("etc/resolv.conf", "under the mount\n", 0o644)
		h.mount("etc/resolv.conf")
	case "symlink to a bind mount": // as ip netns exec makes it where resolv.conf is a symlink
		h.put("run/resolv.conf", "under the mount\n", 0o644)
		h.must(os.Symlink("../run/resolv.conf", h.path("etc/resolv.conf")))
		h.mount("run/resolv.conf")
	}
	return h
}

func (h host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h host) path(name string) string { return filepath.Join(h.dir, name) }

func (h host) put(name, content string, mode fs.FileMode) {
	h.t.Helper()
	h.must(os.WriteFile(h.path(name), []byte(content), mode))
	h.must(os.Chmod(h.path(name), mode))
}

// mount mounts a file over another one. Only the test's own directory is touched.
func (h host) mount(over string) {
	h.t.Helper()
	if os.Geteuid() != 0 {
		h.t.Skip("a bind mount needs root")
	}
	h.put("netns.conf", original, 0o644)
	h.must(unix.Mount(h.path("netns.conf"), h.path(over), "", unix.MS_BIND, ""))
	h.t.Cleanup(func() { h.must(unix.Unmount(h.path(over), unix.MNT_DETACH)) })
}

func (h host) config() Config {
	return Config{
		StateDir:   h.path("state"),
		ResolvConf: h.path("etc/resolv.conf"),
		UplinkConf: h.path("run/uplink.conf"),
		BusAddress: "unix:path=" + h.path("no-bus"),
	}
}

// file returns the file side of New, whose steps a test can count.
func (h host) file(step func(string) error) *file {
	return &file{path: h.path("etc/resolv.conf"), records: records{dir: h.path("state"), disk: disk{step: step}}}
}

func (h host) now() string {
	h.t.Helper()
	content, err := os.ReadFile(h.path("etc/resolv.conf"))
	h.must(err)
	return string(content)
}

// checkOriginal fails unless everything is as newHost made it, and nothing of ours lies around.
func (h host) checkOriginal() {
	h.t.Helper()
	if left := h.strangeness(); left != "" {
		h.t.Error(left)
	}
}

func (h host) strangeness() string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	path := h.path("etc/resolv.conf")
	st, err := os.Lstat(path)
	switch {
	case h.kind == "absent":
		if !errors.Is(err, fs.ErrNotExist) {
			say("there is a resolv.conf: %v", err)
		}
	case err != nil:
		say("%v", err)
	case strings.Contains(h.kind, "symlink"):
		if link, err := os.Readlink(path); err != nil || link != "../run/resolv.conf" {
			say("symlink %q, %v", link, err)
		}
	case h.kind == "file" && st.Mode() != 0o640:
		say("mode %v", st.Mode())
	}
	if content, err := os.ReadFile(path); !strings.Contains(h.kind, "dangling") && h.kind != "absent" &&
		(err != nil || string(content) != original) {
		say("content %q, %v", content, err)
	}
	for dir, want := range map[string]int{"etc": 1, "state": 0} {
		entries, err := os.ReadDir(h.path(dir))
		if dir == "etc" && h.kind == "absent" {
			want = 0
		}
		if err != nil || len(entries) != want {
			say("%s holds %v, %v", dir, entries, err)
		}
	}
	return strings.Join(out, "; ")
}

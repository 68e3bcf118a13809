package posture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
	must(t, os.Chmod(path, mode))
}

func TestCheck(t *testing.T) {
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("/f", i))
		}
		return out
	}
	for name, tt := range map[string]struct {
		cfg  Config
		want string // "": nothing is wrong
	}{
		"nothing to look at":   {Config{Interval: time.Second}, ""},
		"shortest interval":    {Config{Interval: MinInterval}, ""},
		"too short":            {Config{Interval: MinInterval - 1}, "posture.interval"},
		"all":                  {Config{Interval: time.Second, Files: many(32), Processes: many(32), Commands: []Command{{"a.b-c_1", "/bin/x", nil}}}, ""},
		"too many files":       {Config{Interval: time.Second, Files: many(33)}, "posture.files"},
		"too many processes":   {Config{Interval: time.Second, Processes: many(33)}, "posture.processes"},
		"relative":             {Config{Interval: time.Second, Files: []string{"etc/ok"}}, `"etc/ok" is not an absolute path`},
		"not the shortest":     {Config{Interval: time.Second, Files: []string{"/etc/../ok"}}, "shortest"},
		"not to be shown":      {Config{Interval: time.Second, Files: []string{"/etc/\x1b"}}, "posture.files"},
		"too long":             {Config{Interval: time.Second, Files: []string{"/" + strings.Repeat("x", 256)}}, "posture.files"},
		"twice":                {Config{Interval: time.Second, Processes: []string{"/a", "/a"}}, "twice"},
		"command without name": {Config{Interval: time.Second, Commands: []Command{{"", "/x", nil}}}, "posture.commands"},
		"command's name":       {Config{Interval: time.Second, Commands: []Command{{"A", "/x", nil}}}, `name "A"`},
		"two of a name":        {Config{Interval: time.Second, Commands: []Command{{"a", "/x", nil}, {"a", "/y", nil}}}, "two are called"},
		"command's path":       {Config{Interval: time.Second, Commands: []Command{{"a", "x", nil}}}, `path "x"`},
		"too many args":        {Config{Interval: time.Second, Commands: []Command{{"a", "/x", many(33)}}}, "33 args"},
		"too many commands":    {Config{Interval: time.Second, Commands: make([]Command, 17)}, "there are 17"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.cfg.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}

func TestFile(t *testing.T) {
	l, dir := newLooker("/"), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	look := func(name string) File { return l.file(t.Context(), at(name)) }
	write(t, at("ok"), "fine\n", 0o640)
	sum := sha256.Sum256([]byte("fine\n"))
	want := File{Exists: true, Regular: true, SHA256: hex.EncodeToString(sum[:]), Mode: "0640", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Size: 5}
	if f := look("ok"); f != want {
		t.Errorf("%+v, want %+v", f, want)
	}
	must(t, os.Symlink("ok", at("link")))
	if f := look("link"); f != want {
		t.Errorf("through a link: %+v", f)
	}
	for _, name := range []string{"gone", "ok/below"} {
		if f := look(name); f != (File{}) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	must(t, os.Symlink("loop", at("loop")))
	if f := look("loop"); f.Exists || f.Fault == "" {
		t.Errorf("a loop: %+v", f)
	}
	must(t, unix.Mkfifo(at("pipe"), 0o600))
	if f := look("pipe"); !f.Exists || f.Regular || f.SHA256 != "" {
		t.Errorf("a pipe: %+v", f)
	}
	if f := look("."); !f.Exists || f.Regular {
		t.Errorf("a directory: %+v", f)
	}
	large, err := os.Create(at("large"))
	must(t, err)
	must(t, large.Truncate(maxHashed+1))
	if f := look("large"); !f.Exists || f.SHA256 != "" || !strings.Contains(f.Fault, "at most") {
		t.Errorf("too large to hash: %+v", f)
	}
	// Same size, written at once after the look: the hash is of what is there now.
	write(t, at("ok"), "fury\n", 0o640)
	if f := look("ok"); f.SHA256 == want.SHA256 {
		t.Error("a file was changed, and its hash is the old one")
	}
}

// A hash is taken again only when the file may have changed.
func TestHashIsKept(t *testing.T) {
	l, path := newLooker("/"), filepath.Join(t.TempDir(), "f")
	write(t, path, "x", 0o600)
	l.file(t.Context(), path)
	if len(l.hashes) != 0 {
		t.Error("a file that was written this moment may be written again without a trace")
	}
	for len(l.hashes) == 0 {
		time.Sleep(100 * time.Millisecond)
		l.file(t.Context(), path)
	}
	kept := l.hashes[path]
	l.hashes[path] = hashed{kept.is, "kept"}
	if f := l.file(t.Context(), path); f.SHA256 != "kept" {
		t.Error("it was hashed again")
	}
	write(t, path, "y", 0o600)
	if f := l.file(t.Context(), path); f.SHA256 == "kept" {
		t.Error("a changed file has its old hash")
	}
}

// A process counts by the file that it runs, not by what the path is called.
func TestProcesses(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	must(t, err)
	data, err := os.ReadFile(sleep)
	must(t, err)
	dir := t.TempDir()
	path, other := filepath.Join(dir, "guard"), filepath.Join(dir, "other")
	write(t, path, string(data), 0o755)
	write(t, other, string(data), 0o755)
	l := newLooker("/")
	look := func(p string) Process { return l.processes(t.Context(), []string{p, filepath.Join(dir, "none")})[p] }
	if p := look(path); p.Running || len(p.SHA256) != 64 || p.Fault != "" {
		t.Errorf("before it runs: %+v", p)
	}
	cmd := exec.Command(path, "1000")
	must(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	if p := look(path); !p.Running {
		t.Errorf("it runs: %+v", p)
	}
	if p := look(other); p.Running {
		t.Error("another file of the same contents counts as running")
	}
	if p := look(filepath.Join(dir, "none")); p.Running || p.Fault == "" {
		t.Errorf("no such program: %+v", p)
	}
	// It is replaced on disk, as by an upgrade; what runs is no longer what is there.
	must(t, os.Rename(other, path))
	if p := look(path); p.Running {
		t.Error("a program that was replaced counts as running")
	}
	cmd.Process.Kill()
	cmd.Wait()
}

// A look that differs makes a new report; one that does not makes none.
func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ok")
	write(t, path, "x", 0o600)
	changed := make(chan struct{}, 100)
	underlay := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	w := New(Config{
		Interval: time.Hour, Files: []string{path}, Commands: []Command{{"hello", "/bin/echo", []string{"a b", "$HOME"}}},
	}, "1.2\x1b.3", func() []netip.Addr { return underlay }, func() { changed <- struct{}{} })
	if w.Latest() != nil {
		t.Error("there is a report before anything was looked at")
	}
	w.look(t.Context())
	if w.Latest() != nil {
		t.Error("there is a report without what the commands say")
	}
	w.run(t.Context())
	first := w.Latest()
	if first == nil || !first.Files[path].Exists || first.Agent != "1.2.3" || len(first.Underlay) != 1 || first.Kernel == "" || first.Arch == "" {
		t.Fatalf("%+v", first)
	}
	if c := first.Commands["hello"]; os.Getuid() == 0 && (!c.Ran || c.Exit != 0 || c.Line != "a b $HOME") {
		t.Errorf("command: %+v", c)
	}
	w.look(t.Context())
	w.run(t.Context())
	if w.Latest() != first || len(changed) != 1 {
		t.Errorf("nothing has changed, and there are %d reports", len(changed))
	}
	must(t, os.Remove(path))
	w.look(t.Context())
	second := w.Latest()
	if second.Files[path].Exists || second.Sequence <= first.Sequence || len(changed) != 2 {
		t.Errorf("the file is gone: %+v after %d reports", second, len(changed))
	}
	underlay = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	w.look(t.Context())
	if got := w.Latest().Underlay; len(got) != 1 || got[0] != "192.0.2.2" {
		t.Errorf("underlay: %v", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	write(t, path, "x", 0o600)
	w.look(ended)
	if len(changed) != 3 {
		t.Error("a look that was broken off has made a report")
	}
}

// Run looks at once, at each interval, when it is poked, and ends.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ok")
	changed := make(chan struct{}, 100)
	w := New(Config{Interval: MinInterval, Files: []string{path}}, "", func() []netip.Addr { return nil }, func() { changed <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	<-changed
	write(t, path, "x", 0o600)
	began := time.Now()
	<-changed
	if took := time.Since(began); took > 10*MinInterval {
		t.Errorf("it took %v to see a new file", took)
	}
	cancel()
	must(t, <-done)
}

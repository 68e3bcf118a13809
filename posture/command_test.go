package posture

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTrust follows paths that are root's alone, and refuses those which are not.
func TestTrust(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	write(t, at("bin/ok"), "#!/bin/sh\n", 0o755)
	write(t, at("bin/plain"), "", 0o644)
	write(t, at("bin/group"), "", 0o775)
	write(t, at("bin/world"), "", 0o757)
	write(t, at("open/ok"), "", 0o755)
	must(t, os.Chmod(at("open"), 0o777))
	write(t, at("sticky/d/ok"), "", 0o755)
	must(t, os.Chmod(at("sticky"), 0o777|os.ModeSticky))
	for name, target := range map[string]string{
		"link": "bin/ok", "absolute": "/bin/ok", "dir": "bin", "up": "bin/../bin/ok", "loop": "loop", "bad": "open/ok", "open/back": "/bin/ok",
	} {
		must(t, os.Symlink(target, at(name)))
	}
	must(t, os.Symlink("../bin/ok", at("bin/again")))
	tr := trust{root: root, owner: uint32(os.Getuid())}
	for path, want := range map[string]string{
		"/bin/ok": "", "/link": "", "/absolute": "", "/dir/ok": "", "/bin/again": "",
		"/bin/plain": "cannot be executed", "/bin/group": "others than root can write", "/bin/world": "others than root can write",
		"/open/ok": "others than root can write", "/sticky/d/ok": "others than root can write", "/bad": "others than root can write",
		"/open/back": "others than root can write", // who owns the directory chooses where the link leads
		"/loop":      "too many", "/none": "no such file", "/bin": "is not a file", "/bin/ok/x": "not a directory",
	} {
		err := tr.check(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", path, err, want)
		}
	}
	if err := (trust{root: root, owner: tr.owner + 1}).check("/bin/ok"); err == nil || !strings.Contains(err.Error(), "only root's programs") {
		t.Errorf("somebody else's program: %v", err)
	}
}

func TestCommand(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root's programs are run: the end-to-end tests run as root")
	}
	r := newRunner()
	dir, err := os.MkdirTemp("/root", "posture")
	if err != nil {
		t.Skip("there is no directory of root's own: ", err)
	}
	defer os.RemoveAll(dir)
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, "#!/bin/sh\n"+text, 0o755)
		return path
	}
	for name, tt := range map[string]struct {
		text string
		want Result
	}{
		"first line":         {"echo one; echo two", Result{Ran: true, Line: "one"}},
		"exit status":        {"echo no; exit 3", Result{Ran: true, Exit: 3, Line: "no"}},
		"silent":             {"exit 0", Result{Ran: true}},
		"odd bytes":          {`printf 'a\033[1mb\377c'`, Result{Ran: true, Line: "a[1mbc"}},
		"errors are not out": {"echo bad >&2", Result{Ran: true}},
		"endless output":     {"yes | head -c 1000000", Result{Ran: true, Line: "y"}},
		"no environment":     {"echo ${LEAK-none}", Result{Ran: true, Line: "none"}},
		"directory":          {"pwd", Result{Ran: true, Line: "/"}},
		"no input":           {"read x; echo $?", Result{Ran: true, Line: "1"}},
		"killed":             {"kill -9 $$", Result{Fault: "signal: killed"}},
		"too long":           {"echo begun; sleep 100", Result{Fault: "it still ran after 1s, and was ended"}},
		"children too":       {"sleep 100 & wait", Result{Fault: "it still ran after 1s, and was ended"}},
		"left behind":        {"sleep 100 &", Result{Fault: "it ended, but left a process behind that keeps its output open"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LEAK", "leaked")
			path := script(strings.ReplaceAll(name, " ", "-"), tt.text)
			began := time.Now()
			r.time = time.Second
			if name == "left behind" {
				r.time = 10 * time.Second
			}
			if got := r.run(t.Context(), Command{Name: "x", Path: path}); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	loose := script("loose", "echo x")
	must(t, os.Chmod(loose, 0o777))
	if got := r.run(t.Context(), Command{Path: loose}); got.Ran || !strings.Contains(got.Fault, "others than root can write") {
		t.Errorf("a program that anybody can write was run: %+v", got)
	}
	if got := r.run(t.Context(), Command{Path: "/no/such/program"}); got.Ran || got.Fault == "" {
		t.Errorf("no program: %+v", got)
	}
	if got := r.run(t.Context(), Command{Path: "/bin/echo", Args: []string{strings.Repeat("é", 500)}}); len(got.Line) > maxText || !got.Ran {
		t.Errorf("a long line: %d bytes, %+v", len(got.Line), got)
	}
}

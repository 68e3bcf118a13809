package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPrivateView(t *testing.T) {
	t.Parallel()
	machine := must(os.ReadFile("/etc/resolv.conf"))(t)
	machineName := must(os.Hostname())(t)
	l := newLab(t)
	a, b := must(l.AddHost("a"))(t), must(l.AddHost("b"))(t)
	check(t, a.SetResolvConf("nameserver 192.0.2.1\n"), b.SetResolvConf("nameserver 192.0.2.2\n"))
	run := func(h *Host, script string) string {
		t.Helper()
		return strings.TrimSpace(must(h.Run(t.Context(), "sh", "-c", script))(t))
	}
	for _, c := range []struct{ script, a, b string }{
		{"cat /etc/resolv.conf", "nameserver 192.0.2.1", "nameserver 192.0.2.2"},
		{"hostname", "a", "b"},
		{"ls /run", "", ""},
		{"ls /sys/class/net", "lo", "lo"},
		{"grep -c root: /etc/passwd", "1", "1"}, // the rest of /etc is the machine's
		{"mkdir -p /var/lib/etherloom && hostname > /var/lib/etherloom/x && hostname > /run/x && hostname > /etc/x", "", ""},
		{"cat /var/lib/etherloom/x /run/x /etc/x", "a\na\na", "b\nb\nb"}, // commands share what others wrote
		{"cd /etc && echo new > r && mv r resolv.conf && cat resolv.conf", "new", "new"},
	} {
		if got := run(a, c.script); got != c.a {
			t.Errorf("on a, %s: %q, want %q", c.script, got, c.a)
		}
		if got := run(b, c.script); got != c.b {
			t.Errorf("on b, %s: %q, want %q", c.script, got, c.b)
		}
	}
	// Do sees the host's files as commands do.
	err := a.Do(func() error {
		text, err := os.ReadFile("/run/x")
		if string(text) != "a\n" {
			t.Errorf("Do reads %q", text)
		}
		return err
	})
	check(t, err)
	for _, path := range []string{"/etc/x", "/run/x", "/var/lib/etherloom/x", "/etc/netns/" + a.NetNS()} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is on the machine: %v", path, err)
		}
	}
	if got := must(os.ReadFile("/etc/resolv.conf"))(t); string(got) != string(machine) {
		t.Errorf("the machine's resolv.conf is now %q", got)
	}
	if got := must(os.Hostname())(t); got != machineName {
		t.Errorf("the machine is now called %q", got)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	h := must(l.AddHost("a"))(t)
	cwd := must(os.Getwd())(t)
	if out := must(h.Run(t.Context(), "pwd"))(t); strings.TrimSpace(out) != cwd {
		t.Errorf("a command's directory is %q, want %q", out, cwd)
	}
	_, err := h.Run(t.Context(), "sh", "-c", "echo reason >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "reason") {
		t.Errorf("the error of a command is %v", err)
	}
	c := h.Command(t.Context(), "cat")
	c.Stdin = strings.NewReader("in")
	if out := must(c.Output())(t); string(out) != "in" {
		t.Errorf("cat says %q", out)
	}
	if _, err := h.Run(t.Context(), "/no/such/program"); err == nil {
		t.Error("a program that does not exist has run")
	}
	// The end of the context ends the children too, so that nobody holds the pipe.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := h.Run(ctx, "sh", "-c", "sleep 600 & sleep 600"); err == nil || time.Since(start) > 900*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	h := must(l.AddHost("a"))(t)
	p := must(h.Start(t.Context(), "sh", "-c", "echo ready; echo oops >&2; exec sleep 600"))(t)
	check(t, p.WaitLog(t.Context(), "oops"))
	if log := must(p.Log())(t); log != "ready\noops\n" || filepath.Dir(p.LogPath()) != h.Dir() {
		t.Errorf("log %s is %q", p.LogPath(), log)
	}
	if err := p.Stop(5 * time.Second); err != nil {
		t.Errorf("a process that dies of SIGTERM: %v", err)
	}

	p = must(h.Start(t.Context(), "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"))(t)
	check(t, p.WaitLog(t.Context(), "ready"))
	if err := p.Stop(100 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process that ignores SIGTERM: %v", err)
	}

	p = must(h.Start(t.Context(), "sh", "-c", "echo last words; exit 4"))(t)
	check(t, p.WaitLog(t.Context(), "last words"))
	if err := p.WaitLog(t.Context(), "more"); err == nil || !strings.Contains(err.Error(), "exit status 4") {
		t.Errorf("waiting for the log of a process that has ended: %v", err)
	}
	if err := p.Err(); err == nil {
		t.Error("exit 4 is no error")
	}
}

// A function that ends its goroutine must not leave the caller waiting.
func TestDo(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	h := must(l.AddHost("a"))(t)
	before := must(os.Readlink("/proc/self/ns/net"))(t)
	inside := make(map[string]bool)
	for range 100 {
		check(t, h.Do(func() error {
			ns, err := os.Readlink("/proc/thread-self/ns/net")
			inside[ns] = true
			return err
		}))
	}
	if len(inside) != 1 || inside[before] {
		t.Errorf("Do ran in %v, the machine is %s", inside, before)
	}
	errs := make(chan error)
	go func() { errs <- h.Do(func() error { runtime.Goexit(); return nil }) }()
	select {
	case err := <-errs:
		if err == nil {
			t.Error("a function that did not return has no error")
		}
	case <-time.After(5 * time.Second):
		t.Error("Do hangs")
	}
}

// threadsVar asks the test program to run sayThread; its value is how.
const threadsVar = "LAB_TEST_THREAD"

func init() {
	if os.Getenv(threadsVar) != "" {
		runtime.LockOSThread() // the main goroutine to the main thread
	}
}

// sayThread starts a function when the main thread is the one that will take the next goroutine, and says where it ran.
func sayThread(how string) {
	runtime.GOMAXPROCS(1)
	runtime.UnlockOSThread()
	start := onFreshThread
	if how == "go" {
		start = func(f func()) { go f() }
	}
	result := make(chan bool)
	start(func() { result <- unix.Gettid() == os.Getpid() })
	fmt.Println(<-result)
	os.Exit(0)
}

// The main thread, for which /proc/PID speaks, must never be taken into a host.
func TestFreshThread(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"go": "true\n", "fresh": "false\n"} {
		cmd := exec.CommandContext(t.Context(), must(os.Executable())(t))
		cmd.Env = append(os.Environ(), threadsVar+"="+how)
		if out := must(cmd.Output())(t); string(out) != want {
			t.Errorf("%s: on the main thread: %s", how, out)
		}
	}
}

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// The demo leaves nothing behind, wherever it is interrupted.
func TestDemoInterrupted(t *testing.T) {
	before := links(t)
	for i, after := range []time.Duration{20, 300, 900, 1800, 3000, 4500} {
		signal := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}[i%3]
		var out strings.Builder
		demo := exec.Command(filepath.Join(bin, "etherloom"), "demo")
		demo.Stdout, demo.Stderr = &out, &out
		if err := demo.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(after * time.Millisecond)
		_ = demo.Process.Signal(signal)
		done := make(chan error, 1)
		go func() { done <- demo.Wait() }()
		select {
		case err := <-done:
			if err == nil && !strings.Contains(out.String(), "All of it took") {
				t.Errorf("after %v ms: it says that it succeeded:\n%s", int(after), &out)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("after %v ms, %v: it does not end:\n%s", int(after), signal, &out)
		}
		if left, err := lab.Sweep("loomdemo"); err != nil || len(left) > 0 {
			t.Errorf("after %v ms, %v: left %v, %v", int(after), signal, left, err)
		}
		if now := links(t); now != before {
			t.Errorf("after %v ms, %v: links\n%s\nbefore:\n%s", int(after), signal, now, before)
		}
		if left := running(t); len(left) > 0 {
			t.Errorf("after %v ms, %v: still running: %v", int(after), signal, left)
		}
	}
}

// running tells which processes run a program under test.
func running(t *testing.T) (left []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		if exe, err := os.Readlink(path); err == nil && strings.HasPrefix(exe, bin+"/") {
			left = append(left, path)
		}
	}
	return left
}

func links(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

package hostdns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
)

// life is all that a daemon does to the file: it points it at one address, then at another one, and restores it.
func life(f *file) error {
	if err := f.set(testTarget()); err != nil {
		return err
	}
	moved := testTarget()
	moved.Server = netip.MustParseAddrPort("10.77.0.200:53")
	if err := f.set(moved); err != nil {
		return err
	}
	_, err := f.restore()
	return err
}

var errCrash = errors.New("crash")

// dieAt returns a step that lets n steps pass and none after them.
func dieAt(n int) func(string) error {
	return func(string) error {
		n--
		if n < 0 {
			return errCrash
		}
		return nil
	}
}

// A daemon dies before any step of its life, the next one before any step of Recover, and the one after that finds and
// restores the original: every pair of places, for each form of resolv.conf.
func TestCrashEverywhere(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			pairs := 0
			for n, done := 0, false; !done; n++ {
				for m, recovered := 0, false; !recovered; m++ {
					h := newHost(t, kind)
					err := life(h.file(dieAt(n)))
					done = err == nil
					if !done && !errors.Is(err, errCrash) {
						t.Fatalf("step %d: %v", n, err)
					}
					_, err = recoverFile(records{dir: h.path("state"), disk: disk{step: dieAt(m)}})
					recovered = err == nil
					if !recovered && !errors.Is(err, errCrash) {
						t.Fatalf("step %d, then %d of Recover: %v", n, m, err)
					}
					if _, err := Recover(h.path("state")); err != nil {
						t.Fatalf("step %d, then %d of Recover, then Recover: %v", n, m, err)
					}
					if left := h.strangeness(); left != "" {
						t.Fatalf("step %d, then %d of Recover: %s", n, m, left)
					}
					pairs++
				}
			}
			t.Logf("%d pairs of crashes", pairs)
		})
	}
}

// An error that is no crash, such as a full disk, leaves the original or, where the next step fails too, a record of it.
func TestFailedStep(t *testing.T) {
	for _, kind := range kinds {
		for n, done := 0, false; !done; n++ {
			h := newHost(t, kind)
			at := n
			f := h.file(func(string) error {
				at--
				if at == -1 {
					return syscall.ENOSPC
				}
				return nil
			})
			err := f.set(testTarget())
			done = err == nil
			if done {
				break
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("%s step %d: %v", kind, n, err)
			}
			if left := h.strangeness(); left != "" {
				t.Fatalf("%s step %d: %s", kind, n, left)
			}
		}
	}
}

const (
	childDir  = "HOSTDNS_CHILD_DIR"
	childStep = "HOSTDNS_CHILD_STEP"
)

// child lives in a host's directory and kills itself before a step.
func child(dir string) int {
	n, err := strconv.Atoi(os.Getenv(childStep))
	if err == nil {
		h := host{dir: dir}
		err = life(h.file(func(string) error {
			if n--; n < 0 {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return nil
		}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// The same with a real process and a real SIGKILL, once for each step.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts some 150 processes")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			for n, done := 0, false; !done; n++ {
				h := newHost(t, kind)
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), childDir+"="+h.dir, childStep+"="+strconv.Itoa(n))
				out, err := cmd.CombinedOutput()
				done = err == nil
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					if ws, ok := exit.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
						t.Fatalf("step %d: %v: %s", n, err, out)
					}
				}
				if _, err := Recover(h.path("state")); err != nil {
					t.Fatalf("step %d: %v", n, err)
				}
				if left := h.strangeness(); left != "" {
					t.Fatalf("step %d: %s", n, left)
				}
			}
		})
	}
}

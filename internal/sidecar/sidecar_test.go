package sidecar

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's own program be the sidecar and the keeper.
func TestMain(m *testing.M) {
	switch os.Getenv("SIDECAR_TEST") {
	case "sidecar":
		release, err := Hold(os.Args[1], os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		defer release()
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		<-c
	case "keeper":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		_ = keeper(os.Args[1], os.Args[2]).Run(ctx)
	default:
		os.Exit(m.Run())
	}
}

func keeper(lock, mark string) *Keeper {
	return &Keeper{
		Lock: lock, Mark: mark, Log: slog.New(slog.DiscardHandler), Stderr: io.Discard,
		Command: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0], lock, mark)
			cmd.Env = append(os.Environ(), "SIDECAR_TEST=sidecar")
			return cmd
		},
	}
}

func startKeeper(t *testing.T, lock, mark string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], lock, mark)
	cmd.Env = append(os.Environ(), "SIDECAR_TEST=keeper")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// running waits until a sidecar other than the one given runs, and returns its pid.
func running(t *testing.T, lock string, not int) owner {
	t.Helper()
	for range 200 {
		if o, yes := held(lock); yes && o.pid != not && o.pid != 0 {
			return o
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("no sidecar runs")
	return owner{}
}

func TestKeeper(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	t.Cleanup(func() {
		if o, yes := held(lock); yes {
			_ = syscall.Kill(o.pid, syscall.SIGKILL)
		}
	})
	first := startKeeper(t, lock, "a")
	one := running(t, lock, 0)

	// The keeper is killed: the sidecar lives, and the next keeper adopts it.
	_ = first.Process.Kill()
	_ = first.Wait()
	second := startKeeper(t, lock, "a")
	time.Sleep(time.Second)
	if o, yes := held(lock); !yes || o != one {
		t.Fatalf("after the keeper's death %+v runs, want %+v", o, one)
	}
	// The adopted sidecar dies: it is started again.
	_ = syscall.Kill(one.pid, syscall.SIGKILL)
	two := running(t, lock, one.pid)
	// A child dies, too.
	_ = syscall.Kill(two.pid, syscall.SIGKILL)
	three := running(t, lock, two.pid)

	// Another mark: it is replaced.
	_ = second.Process.Kill()
	_ = second.Wait()
	third := startKeeper(t, lock, "b")
	four := running(t, lock, three.pid)
	if four.mark != "b" {
		t.Errorf("mark %q", four.mark)
	}
	// The keeper ends in order: so does the sidecar.
	_ = third.Process.Signal(syscall.SIGTERM)
	_ = third.Wait()
	if o, yes := held(lock); yes {
		t.Errorf("%+v still runs", o)
	}
}

func TestHold(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	release, err := Hold(lock, "a longer mark")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(lock, "x"); err == nil {
		t.Error("two hold the lock")
	}
	release()
	release, err = Hold(lock, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if o, yes := held(lock); !yes || o != (owner{os.Getpid(), "x"}) {
		t.Errorf("held = %+v, %v", o, yes)
	}
}

// Package sidecar keeps one process running beside another, such that the one survives the other's death and is found again
// by its successor.
//
// The sidecar holds a lock on a file as long as it lives (Hold); the file names its process. The keeper (Keep) starts the
// sidecar when nobody holds the lock, and starts it again when it dies. A keeper that is killed leaves the sidecar running;
// the next keeper finds the lock held and adopts it, if it runs with the same arguments, and replaces it if not. A keeper
// that ends in order ends the sidecar, too.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld means that another sidecar holds the lock.
var ErrHeld = errors.New("it is running already")

// Hold takes the lock for this process, which is the sidecar. The mark says what it runs with: a keeper replaces a sidecar
// whose mark is another.
func Hold(path, mark string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s is locked by process %d", ErrHeld, path, holder(path).pid)
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), mark), 0)
	if err := errors.Join(f.Truncate(int64(len(strconv.Itoa(os.Getpid()))+len(mark)+2)), err); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// owner is who holds a lock.
type owner struct {
	pid  int
	mark string
}

func holder(path string) owner {
	data, err := os.ReadFile(path)
	if err != nil {
		return owner{}
	}
	pid, mark, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	n, _ := strconv.Atoi(pid)
	return owner{n, mark}
}

// held reports whether somebody holds the lock now, and who.
func held(path string) (owner, bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return owner{}, false
	}
	defer f.Close() //nolint:errcheck // gives the lock back
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return owner{}, false
	}
	return holder(path), true
}

// Keeper says how the sidecar is started. All fields must be set.
type Keeper struct {
	Lock string // path of the lock file
	Mark string // what the sidecar passes to Hold
	// Command makes the command that runs the sidecar, in the foreground.
	Command func() *exec.Cmd
	Log     *slog.Logger
	Stderr  io.Writer
}

// Times of a keeper.
const (
	look       = 500 * time.Millisecond
	startFirst = 500 * time.Millisecond
	startMost  = 10 * time.Second
	stopTime   = 5 * time.Second
)

// Run keeps the sidecar until ctx ends, then ends it.
func (k *Keeper) Run(ctx context.Context) error {
	delay := startFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := k.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > startMost {
			delay = startFirst
		}
		k.Log.Warn("a process beside this one has ended and is started again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
			delay = min(2*delay, startMost)
		}
	}
	return nil
}

// once adopts or starts a sidecar and follows it to its end.
func (k *Keeper) once(ctx context.Context) error {
	if o, yes := held(k.Lock); yes {
		if o.mark == k.Mark {
			k.Log.Info("a process that was left running is adopted", "pid", o.pid)
			return k.follow(ctx, o)
		}
		if err := k.end(o); err != nil {
			return err
		}
	}
	cmd := k.Command()
	cmd.Stdout, cmd.Stderr = k.Stderr, k.Stderr
	// A group of its own: what a terminal sends to this process's group is not for the sidecar.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	var ended error
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended = cmd.Wait()
	}()
	select {
	case <-done:
		if ended == nil {
			ended = errors.New("it has ended")
		}
		return ended
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(stopTime):
			_ = cmd.Process.Kill()
			<-done
		}
		return nil
	}
}

// follow waits until an adopted sidecar, which is nobody's child any more, is gone.
func (k *Keeper) follow(ctx context.Context, o owner) error {
	for {
		select {
		case <-ctx.Done():
			return k.end(o)
		case <-time.After(look):
			if _, yes := held(k.Lock); !yes {
				return errors.New("it has ended")
			}
		}
	}
}

// end ends a sidecar that is not our child.
func (k *Keeper) end(o owner) error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for deadline := time.Now().Add(stopTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			now, yes := held(k.Lock)
			if !yes {
				return nil
			}
			if now.pid != o.pid || o.pid <= 1 {
				return fmt.Errorf("%s is locked by process %d, which was not expected", k.Lock, now.pid)
			}
			_ = syscall.Kill(o.pid, sig)
		}
	}
	return fmt.Errorf("process %d does not end", o.pid)
}

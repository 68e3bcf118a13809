package posture

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	commandTime = 5 * time.Second // for one command
	killTime    = time.Second     // for what a command leaves behind, with its output still open
	maxOutput   = 4 << 10         // bytes kept
)

// runner runs commands.
type runner struct {
	trust trust
	time  time.Duration
}

func newRunner() *runner { return &runner{trust: trust{root: "/"}, time: commandTime} }

// run runs a command and waits for its end, or ends it when its time is up.
func (r *runner) run(ctx context.Context, c Command) Result {
	// Nobody but root can change the path between this and the execution.
	if err := r.trust.check(c.Path); err != nil {
		return Result{Fault: clean(err.Error())}
	}
	ctx, cancel := context.WithTimeout(ctx, r.time)
	defer cancel()
	out := new(head)
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env, cmd.Dir, cmd.Stdout = []string{}, "/", out
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = killTime
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return Result{Fault: fmt.Sprintf("it still ran after %v, and was ended", r.time)}
	case errors.Is(err, exec.ErrWaitDelay):
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // what is left may be gone meanwhile
		return Result{Fault: "it ended, but left a process behind that keeps its output open"}
	case errors.As(err, &ended) && ended.ExitCode() < 0:
		return Result{Fault: clean(ended.String())}
	case err != nil && ended == nil:
		return Result{Fault: clean(err.Error())}
	}
	return Result{Ran: true, Exit: cmd.ProcessState.ExitCode(), Line: out.line()}
}

// head keeps the beginning of what is written to it.
type head struct{ b []byte }

func (h *head) Write(b []byte) (int, error) {
	h.b = append(h.b, b[:min(len(b), maxOutput-len(h.b))]...)
	return len(b), nil
}

// line is the first line.
func (h *head) line() string {
	line, _, _ := strings.Cut(string(h.b), "\n")
	return clean(strings.ToValidUTF8(line, ""))
}

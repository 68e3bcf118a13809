package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is an exec.Cmd that starts inside a host. Start, Run, Output, CombinedOutput and Wait below stand for those of
// exec.Cmd and behave as they do, except that Wait may be called again and from several goroutines. The command
// leads a process group of its own, which is killed when the context ends.
type Cmd struct {
	*exec.Cmd
	host *Host
	wait sync.Once
	err  error
}

// Command returns a command that will run inside the host. It is looked up in the caller's PATH.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	c.Cancel = func() error {
		err := unix.Kill(-c.Process.Pid, unix.SIGKILL)
		if errors.Is(err, unix.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	c.WaitDelay = time.Second // a child that left the group may hold the pipes
	return &Cmd{Cmd: c, host: h}
}

// Start starts the command.
func (c *Cmd) Start() error {
	h := c.host
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return ErrClosed
	}
	h.cmds[c] = struct{}{} // before it runs, so that Close cannot miss it
	h.mu.Unlock()
	// The thread that forks is the one whose end kills the child, and whose namespaces the child gets.
	err := h.thread.call(c.Cmd.Start)
	if err != nil {
		h.forgetCmd(c)
	}
	return err
}

// Wait waits for the command to end.
func (c *Cmd) Wait() error {
	c.wait.Do(func() {
		c.err = c.Cmd.Wait()
		c.host.forgetCmd(c)
	})
	return c.err
}

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to its standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program inside the host and returns its combined output. The error, if any, quotes it.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := h.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		line := strings.Join(append([]string{name}, args...), " ")
		err = fmt.Errorf("on %s, %s: %w: %s", h.name, line, err, bytes.TrimSpace(out))
	}
	return string(out), err
}

func (h *Host) forgetCmd(c *Cmd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.cmds, c)
}

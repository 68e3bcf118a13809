package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// logPoll is how often WaitLog looks at a log.
const logPoll = 10 * time.Millisecond

// Process is a program that runs in the background on a host and writes to a log file.
type Process struct {
	cmd  *Cmd
	log  string
	done chan struct{}
	err  error // once done
}

// Start starts a program in the background. It runs until it ends, the context ends, Stop, or Close.
func (h *Host) Start(ctx context.Context, name string, args ...string) (*Process, error) {
	return h.Command(ctx, name, args...).StartLogged()
}

// StartLogged starts a command as Host.Start does. Its output goes to the log.
func (c *Cmd) StartLogged() (*Process, error) {
	f, err := c.host.newFile(c.Path, "log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the child has its own copy
	c.Stdout, c.Stderr = f, f
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: c, log: f.Name(), done: make(chan struct{})}
	go func() { // ends with the process, and that with the host
		defer close(p.done)
		p.err = c.Wait()
	}()
	return p, nil
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// LogPath returns the path of the log file, which goes with the host.
func (p *Process) LogPath() string { return p.log }

// Log returns what the process has written so far.
func (p *Process) Log() (string, error) {
	b, err := os.ReadFile(p.log)
	return string(b), err
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err waits for the process to end and returns what exec.Cmd.Wait said.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal to the process alone. It is an error if the process has ended.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop asks the process to end with SIGTERM, and after grace kills it with its group. It returns when the process
// has ended, with an error if it had to be killed or ended with an error of its own; dying of SIGTERM is none.
func (p *Process) Stop(grace time.Duration) error {
	_ = p.Signal(unix.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(grace):
		_ = p.cmd.Cancel()
		<-p.done
		return fmt.Errorf("%s on %s did not end in %s: killed", p.cmd.Path, p.cmd.host.name, grace)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == unix.SIGTERM {
		return nil
	}
	return p.err
}

// WaitLog waits until the log contains the text. If the process ends or the context does, the error quotes the log.
func (p *Process) WaitLog(ctx context.Context, text string) error {
	for {
		ended := false
		select {
		case <-p.done:
			ended = true // look once more, at all it wrote
		default:
		}
		log, err := p.Log()
		switch {
		case err != nil:
			return err
		case strings.Contains(log, text):
			return nil
		case ended:
			return fmt.Errorf("%s on %s ended (%s) and did not write %q: %s",
				p.cmd.Path, p.cmd.host.name, p.cmd.ProcessState, text, log)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s on %s has not written %q: %w: %s", p.cmd.Path, p.cmd.host.name, text, ctx.Err(), log)
		case <-p.done:
		case <-time.After(logPoll):
		}
	}
}

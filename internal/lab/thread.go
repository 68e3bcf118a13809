package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// onFreshThread runs f on an OS thread that nothing else uses and that ends with f. f may move the thread to other
// namespaces: the Go runtime never starts a new thread from a locked one, so no other goroutine follows it there.
//
// It is never the process's main thread. That one cannot end, and what /proc/PID says of its namespaces is taken as
// true for the whole process, by Sweep too.
func onFreshThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: so the runtime ends the thread with the goroutine
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		go func() { // while this goroutine holds the main thread, that one gets another
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}

// thread is an OS thread that lives in a host's namespaces and does there what it is told, one call at a time. All
// commands of the host are its children.
type thread struct {
	calls chan func()
	quit  chan struct{}
	gone  chan struct{}
	once  sync.Once
}

func startThread() *thread {
	t := &thread{calls: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	onFreshThread(func() {
		defer close(t.gone)
		for {
			select {
			case call := <-t.calls:
				call()
			case <-t.quit:
				return
			}
		}
	})
	return t
}

// call runs f on the thread. f must be short: the host's other calls wait for it.
func (t *thread) call(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.calls <- func() { result <- f() }:
		return <-result
	case <-t.gone:
		return ErrClosed
	}
}

// stop ends the thread, and with it the commands that are its children.
func (t *thread) stop() {
	t.once.Do(func() { close(t.quit) })
	<-t.gone
}

// namespaces are open files that keep a host's namespaces and lead other threads into them.
type namespaces struct {
	mu              sync.RWMutex // the files stay open while it is held
	net, mount, uts *os.File     // nil before open and after close
}

// open opens those of the calling thread.
func (ns *namespaces) open() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	var errs [3]error
	ns.net, errs[0] = os.Open("/proc/thread-self/ns/net")
	ns.mount, errs[1] = os.Open("/proc/thread-self/ns/mnt")
	ns.uts, errs[2] = os.Open("/proc/thread-self/ns/uts")
	return errors.Join(errs[:]...)
}

// enter moves the calling thread, which must be a fresh one, into the namespaces. It keeps its working directory.
func (ns *namespaces) enter() error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.net == nil {
		return ErrClosed
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "/"
	}
	// setns(2): a thread that shares its file system attributes cannot join a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare file system attributes: %w", err)
	}
	for _, f := range []*os.File{ns.net, ns.uts, ns.mount} {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s: %w", f.Name(), err)
		}
	}
	return unix.Chdir(cwd)
}

// withNet calls f with a file descriptor of the network namespace.
func (ns *namespaces) withNet(f func(fd int) error) error {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	if ns.net == nil {
		return ErrClosed
	}
	return f(int(ns.net.Fd()))
}

func (ns *namespaces) close() {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for _, f := range []**os.File{&ns.net, &ns.mount, &ns.uts} {
		if *f != nil {
			_ = (*f).Close()
			*f = nil
		}
	}
}

// Package quietfd reads and writes descriptors that are busy.
//
// Go's poller hears of every event of a descriptor that it knows, whether anybody waits for it or not: a thread wakes up for
// each frame that arrives while a goroutine is still busy with the one before it, and for each datagram that has left. Here
// the poller knows a private epoll(7) instance in the descriptor's place, in which the descriptor is armed for a single
// event whenever a goroutine is about to sleep:
//
//	goroutine ── sleeps on ──► Go's poller ── watches ──► private epoll instance ── EPOLLONESHOT ──► descriptor
//
// It knows nothing of what is read and written, so both worlds may use it.
package quietfd

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FD is a non-blocking descriptor. One goroutine at a time may be in Read; everything else is safe for concurrent use.
type FD struct {
	mu     sync.RWMutex // held for reading while the descriptor is used, so that its number is nobody else's
	fd     int          // -1 once closed
	poll   *os.File     // the epoll instance
	raw    syscall.RawConn
	sleep  func(epfd uintptr) bool // made once for all sleeps
	armed  bool
	failed syscall.Errno // of arming
	event  unix.EpollEvent
}

// New takes a descriptor over, and closes it if it fails.
func New(fd int) (*FD, error) {
	f := &FD{fd: fd}
	f.sleep = f.armOrTake
	if err := f.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch a descriptor: %w", err), unix.Close(fd))
	}
	return f, nil
}

// Take makes an FD of a duplicate of what raw controls, which the caller can close.
func Take(raw syscall.RawConn) (*FD, error) {
	var fd int
	var err error
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return New(fd)
}

func (f *FD) open() error {
	if err := unix.SetNonblock(f.fd, true); err != nil {
		return err
	}
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	// Not armed: no event but an error or hang-up, which ONESHOT reports once.
	err = errors.Join(
		unix.EpollCtl(epfd, unix.EPOLL_CTL_ADD, f.fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT}),
		unix.SetNonblock(epfd, true)) // tells os that it can be polled
	if err != nil {
		return errors.Join(err, unix.Close(epfd))
	}
	f.poll = os.NewFile(uintptr(epfd), "epoll")
	f.raw, err = f.poll.SyscallConn()
	return err
}

// Yield lets another thread have the processor, if one waits for it. Who reads from a busy descriptor yields before it sleeps,
// since the next is ready by then and nobody need wake it.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Control calls f with the descriptor. The error is os.ErrClosed after Close.
func (f *FD) Control(use func(fd uintptr)) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return os.ErrClosed
	}
	use(uintptr(f.fd))
	return nil
}

// try is Control for a function that says whether it is done.
func (f *FD) try(use func(fd uintptr) bool) (bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return false, os.ErrClosed
	}
	return use(uintptr(f.fd)), nil
}

// Read calls f until it reports that it is done, and sleeps in between until the descriptor can be read. The error is
// os.ErrClosed after Close, and os.ErrDeadlineExceeded after the deadline.
func (f *FD) Read(use func(fd uintptr) bool) error {
	for {
		if done, err := f.try(use); done || err != nil {
			return err
		}
		f.armed = false
		if err := f.raw.Read(f.sleep); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			return os.ErrClosed
		}
		if f.failed != 0 {
			return fmt.Errorf("wait for a descriptor: %w", f.failed)
		}
	}
}

// armOrTake is called by the poller: once when it is ready to be told of events, which is the time to ask for one, and
// again after an event.
func (f *FD) armOrTake(epfd uintptr) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return true
	}
	if !f.armed {
		f.armed = true
		f.event = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
		_, _, f.failed = unix.RawSyscall6(unix.SYS_EPOLL_CTL, epfd, unix.EPOLL_CTL_MOD, uintptr(f.fd), uintptr(unsafe.Pointer(&f.event)), 0, 0)
		return f.failed != 0
	}
	n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epfd, uintptr(unsafe.Pointer(&f.event)), 1, 0, 0, 0)
	return n == 1
}

// writeWait is how long a writer sleeps at most before it looks whether the descriptor has been closed.
const writeWait = 50 * time.Millisecond

// Write calls f until it reports that it is done, and sleeps in between until the descriptor can be written: seldom, since
// what is written here is small beside the kernel's buffers. The error is os.ErrClosed after Close.
func (f *FD) Write(use func(fd uintptr) bool) error {
	for {
		if done, err := f.try(use); done || err != nil {
			return err
		}
		if err := f.waitWritable(); err != nil {
			return err
		}
	}
}

func (f *FD) waitWritable() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 {
		return os.ErrClosed
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLOUT}}, int(writeWait/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for a descriptor: %w", err)
	}
	return nil
}

// SetReadDeadline makes a Read that sleeps end at a time; the zero time means never.
func (f *FD) SetReadDeadline(t time.Time) error { return f.poll.SetReadDeadline(t) }

// Close closes the descriptor and ends a Read that sleeps.
func (f *FD) Close() error {
	f.mu.Lock()
	fd := f.fd
	f.fd = -1
	f.mu.Unlock()
	if fd < 0 {
		return os.ErrClosed
	}
	return errors.Join(unix.Close(fd), f.poll.Close())
}

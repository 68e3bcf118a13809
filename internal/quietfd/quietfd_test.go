package quietfd

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the ends of a stream, the first as an FD.
func pair(t *testing.T) (*FD, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.Close()
		_ = unix.Close(fds[1])
	})
	return f, fds[1]
}

// reading returns a function for Read that takes one message into b.
func reading(b []byte, n *int, err *error) func(uintptr) bool {
	return func(fd uintptr) bool {
		*n, *err = unix.Read(int(fd), b)
		return !errors.Is(*err, unix.EAGAIN)
	}
}

// A reader sleeps until there is something, loses nothing whether it is early or late, and allocates nothing.
func TestRead(t *testing.T) {
	f, other := pair(t)
	const count = 20000
	go func() {
		for i := range count {
			if i%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
			for {
				if _, err := unix.Write(other, []byte{byte(i), byte(i >> 8)}); err == nil {
					break
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	var n int
	var err error
	b := make([]byte, 10)
	call := reading(b, &n, &err)
	for i := range count {
		if e := f.Read(call); e != nil || err != nil || n != 2 || b[0] != byte(i) || b[1] != byte(i>>8) {
			t.Fatalf("message %d: %d bytes %v, %v, %v", i, n, b[:2], e, err)
		}
	}
	x := []byte("x")
	if a := testing.AllocsPerRun(100, func() {
		_, _ = unix.Write(other, x)
		_ = f.Read(call)
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// A Read that sleeps ends with Close, and nothing is done with the descriptor afterwards.
func TestClose(t *testing.T) {
	f, _ := pair(t)
	var n int
	var err error
	call := reading(make([]byte, 1), &n, &err)
	time.AfterFunc(20*time.Millisecond, func() { _ = f.Close() })
	if e := f.Read(call); !errors.Is(e, os.ErrClosed) {
		t.Errorf("a Read that slept: %v", e)
	}
	fail := func(uintptr) bool { t.Error("called"); return true }
	if e := f.Read(fail); !errors.Is(e, os.ErrClosed) {
		t.Errorf("Read: %v", e)
	}
	if e := f.Write(fail); !errors.Is(e, os.ErrClosed) {
		t.Errorf("Write: %v", e)
	}
	if e := f.Control(func(uintptr) { t.Error("called") }); !errors.Is(e, os.ErrClosed) {
		t.Errorf("Control: %v", e)
	}
	if e := f.Close(); !errors.Is(e, os.ErrClosed) {
		t.Errorf("Close: %v", e)
	}
}

func TestDeadline(t *testing.T) {
	f, other := pair(t)
	var n int
	var err error
	call := reading(make([]byte, 1), &n, &err)
	if e := f.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); e != nil {
		t.Fatal(e)
	}
	if e := f.Read(call); !errors.Is(e, os.ErrDeadlineExceeded) {
		t.Errorf("%v", e)
	}
	if e := f.SetReadDeadline(time.Time{}); e != nil {
		t.Fatal(e)
	}
	time.AfterFunc(10*time.Millisecond, func() { _, _ = unix.Write(other, []byte("x")) })
	if e := f.Read(call); e != nil || n != 1 {
		t.Errorf("%d, %v", n, e)
	}
}

// A writer waits until there is room, and gives up when the descriptor is closed.
func TestWrite(t *testing.T) {
	f, other := pair(t)
	data := make([]byte, 10000)
	var err error
	call := func(fd uintptr) bool {
		_, err = unix.Write(int(fd), data)
		return !errors.Is(err, unix.EAGAIN)
	}
	const count = 500
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, len(data))
		for got := 0; got < count; {
			if n, err := unix.Read(other, b); err == nil && n == len(data) {
				got++
			} else {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for range count {
		if e := f.Write(call); e != nil || err != nil {
			t.Fatal(e, err)
		}
	}
	wg.Wait()
	time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() })
	for {
		if e := f.Write(call); e != nil {
			if !errors.Is(e, os.ErrClosed) {
				t.Error(e)
			}
			return
		}
	}
}

// While nobody waits, events wake nobody: the private instance reports none.
func TestQuiet(t *testing.T) {
	f, other := pair(t)
	var n int
	var err error
	call := reading(make([]byte, 1), &n, &err)
	time.AfterFunc(10*time.Millisecond, func() { _, _ = unix.Write(other, []byte("x")) })
	if e := f.Read(call); e != nil { // has slept once
		t.Fatal(e)
	}
	for range 10 {
		_, _ = unix.Write(other, []byte("x"))
	}
	if e := f.raw.Control(func(epfd uintptr) {
		if n, _ := unix.EpollWait(int(epfd), make([]unix.EpollEvent, 1), 0); n != 0 {
			t.Error("the poller is told of what nobody waits for")
		}
	}); e != nil {
		t.Fatal(e)
	}
}

package atomicfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantAlone checks that a directory holds one file with this content, and nothing beside it.
func wantAlone(t *testing.T, path, content string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("the file holds %q, %v; want %q", got, err, content)
	}
	list, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(list) != 1 {
		t.Errorf("the directory holds %v, want the file alone", list)
	}
}

func TestWrite(t *testing.T) {
	// The mode is the one asked for, whatever the umask says and the old file had.
	defer unix.Umask(unix.Umask(0o077))
	path := filepath.Join(t.TempDir(), "file")
	for _, c := range []struct {
		content string
		perm    os.FileMode
	}{{"first", 0o600}, {"second, which is longer", 0o644}, {"", 0o640}, {"4", 0o600}} {
		must(t, Write(path, []byte(c.content), c.perm))
		wantAlone(t, path, c.content)
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != c.perm {
			t.Errorf("mode is %04o, want %04o", info.Mode().Perm(), c.perm)
		}
	}
}

// Who has the old file open goes on reading the old one, whole.
func TestOldFileStaysWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, Write(path, []byte("old"), 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, Write(path, []byte("new"), 0o600))
	var b [8]byte
	if n, _ := f.Read(b[:]); string(b[:n]) != "old" {
		t.Errorf("the old file holds %q", b[:n])
	}
}

// Who opens the file while it is being replaced sees the old content or the new, and always a file.
func TestReadersSeeOneOrTheOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	a, b := bytes.Repeat([]byte("a"), 1<<18), bytes.Repeat([]byte("b"), 1<<17)
	must(t, Write(path, a, 0o600))
	done := make(chan error, 1)
	go func() {
		var errs []error
		for range 50 {
			errs = append(errs, Write(path, b, 0o600), Write(path, a, 0o600))
		}
		done <- errors.Join(errs...)
	}()
	for {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, a) && !bytes.Equal(got, b) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		select {
		case err := <-done:
			must(t, err)
			return
		default:
		}
	}
}

// A write that fails says which file, leaves the old one as it was, and nothing beside it.
func TestFailure(t *testing.T) {
	t.Run("a directory in its place", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		must(t, os.Mkdir(path, 0o700))
		wantNamed(t, Write(path, []byte("new"), 0o600), path, nil)
		list, err := os.ReadDir(filepath.Dir(path))
		must(t, err)
		if len(list) != 1 {
			t.Errorf("left %v", list)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "missing", "file")
		wantNamed(t, Write(path, nil, 0o600), path, os.ErrNotExist)
	})
	t.Run("no room", func(t *testing.T) {
		dir := t.TempDir()
		withSmallDisk(t, dir, func() {
			path := filepath.Join(dir, "file")
			must(t, Write(path, []byte("old"), 0o600))
			wantNamed(t, Write(path, make([]byte, 1<<20), 0o600), path, syscall.ENOSPC)
			wantAlone(t, path, "old")
		})
	})
}

func wantNamed(t *testing.T, err error, path string, cause error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "write "+path) || cause != nil && !errors.Is(err, cause) {
		t.Errorf("error is %v, want one that names %s", err, path)
	}
}

// withSmallDisk runs f on a thread for which dir is a disk of 64 KiB. The thread ends with it, and the disk with the thread.
func withSmallDisk(t *testing.T, dir string, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k")
		}
		if err == nil {
			defer close(done)
			f()
			return
		}
		done <- err
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("mounting takes root")
	} else if err != nil {
		t.Fatal(err)
	}
}

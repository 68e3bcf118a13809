package hostdns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk changes files. Each system call that changes one is a step, before which a test may let the daemon die.
type disk struct {
	step func(what string) error // nil outside tests
}

// do takes one step.
func (d disk) do(what string, f func() error) error {
	if d.step != nil {
		if err := d.step(what); err != nil {
			return err
		}
	}
	return f()
}

// owner is who a file belongs to and what they may do.
type owner struct {
	Mode fs.FileMode // permission bits
	UID  int
	GID  int
}

// tempName is the file that becomes path by rename. The name is fixed, so that one that a crash left is found and
// removed; both directories that it is used in belong to root.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".etherloom")
}

// replace makes path a file with this content, or leaves it as it was. Both are on the disk when it returns.
func (d disk) replace(path string, content []byte, o owner) error {
	return d.exchange(path, func(temp string) error { return d.create(temp, content, o) })
}

// replaceLink makes path a symlink, or leaves it as it was.
func (d disk) replaceLink(path, target string) error {
	return d.exchange(path, func(temp string) error {
		return d.do("symlink", func() error { return os.Symlink(target, temp) })
	})
}

func (d disk) exchange(path string, fill func(temp string) error) error {
	temp := tempName(path)
	err := d.removeTemp(path)
	if err == nil {
		err = fill(temp)
	}
	if err == nil {
		err = d.do("rename", func() error { return os.Rename(temp, path) })
	}
	if err != nil {
		return errors.Join(err, d.removeTemp(path))
	}
	return d.syncDir(filepath.Dir(path))
}

// create writes a new file and waits until the disk has it. Nobody else can read it before it has its owner and mode.
func (d disk) create(path string, content []byte, o owner) error {
	var f *os.File
	err := d.do("create", func() (err error) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // synced or given up by then
	for _, s := range []struct {
		what string
		f    func() error
	}{
		{"write", func() error { _, err := f.Write(content); return err }},
		{"chown", func() error { return f.Chown(o.UID, o.GID) }},
		{"chmod", func() error { return f.Chmod(o.Mode) }},
		{"sync", f.Sync},
	} {
		if err := d.do(s.what, s.f); err != nil {
			return err
		}
	}
	return nil
}

// overwrite changes the bytes of a file that cannot be replaced. It writes first and cuts then, so a reader never sees
// an empty file, and a crash leaves a beginning of the new content and the rest of the old.
func (d disk) overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // synced or given up by then
	err = d.do("overwrite", func() error { _, err := f.WriteAt(content, 0); return err })
	if err == nil {
		err = d.do("truncate", func() error { return f.Truncate(int64(len(content))) })
	}
	if err == nil {
		err = d.do("sync", f.Sync)
	}
	return err
}

// remove removes a file, which need not be there.
func (d disk) remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.do("remove", func() error { return os.Remove(path) }); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d disk) removeTemp(path string) error { return d.remove(tempName(path)) }

func (d disk) syncDir(dir string) error {
	return d.do("sync directory", func() error {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close()                                                  //nolint:errcheck // only read
		if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some file systems cannot
			return fmt.Errorf("sync %s: %w", dir, err)
		}
		return nil
	})
}

// isMountPoint reports whether a file is where a file system is mounted, as a bind mount of one file is.
func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

package posture

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// trust decides whether a path leads to a program that nobody but its owner, root, could have put there: every directory
// and every link on the way, and the program itself, must be his, and must not be writable by anybody else.
type trust struct {
	root  string // "/", but in tests
	owner uint32 // 0, but in tests
}

// maxLinks is how many symbolic links a path may lead over, as in the kernel (path_resolution(7)).
const maxLinks = 40

// check follows a path from the root, one name at a time, so that no name is looked up twice.
func (t trust) check(path string) error {
	at, err := unix.Open(t.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", t.root, err)
	}
	defer func() { unix.Close(at) }() //nolint:errcheck // only looked at
	if err := t.judge(at, "/"); err != nil {
		return err
	}
	rest, seen, links := strings.Split(path, "/"), "/", 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(seen, name), err)
		}
		if target, ok := t.link(next); ok {
			// Who may change a link is decided by its directory, which has been judged.
			unix.Close(next) //nolint:errcheck // only looked at
			if links++; links > maxLinks {
				return fmt.Errorf("%s: too many symbolic links", path)
			}
			if filepath.IsAbs(target) {
				if next, err = unix.Open(t.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
					return fmt.Errorf("%s: %w", t.root, err)
				}
				unix.Close(at) //nolint:errcheck // only looked at
				at, seen = next, "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		}
		unix.Close(at) //nolint:errcheck // only looked at
		at, seen = next, filepath.Join(seen, name)
		if err := t.judge(at, seen); err != nil {
			return err
		}
	}
	return t.program(at, seen)
}

// link returns where a symbolic link leads.
func (t trust) link(fd int) (string, bool) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil || n == 0 {
		return "", false
	}
	return string(b[:n]), true
}

// judge judges one directory or file.
func (t trust) judge(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if st.Uid != t.owner {
		return fmt.Errorf("%s belongs to user %d, expected root (0): only root's programs are run", name, st.Uid)
	}
	// With an ACL the group's bits are the most that any entry gives (acl(5)).
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o, so others than root can write to it: chmod go-w %s", name, st.Mode&0o7777, name)
	}
	return nil
}

// program judges what the path ends at.
func (t trust) program(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New(name + " is not a file")
	}
	if st.Mode&0o111 == 0 {
		return fmt.Errorf("%s cannot be executed: chmod +x %s", name, name)
	}
	return nil
}

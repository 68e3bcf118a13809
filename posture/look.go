package posture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxHashed is how large a file may be that is hashed.
const maxHashed = 64 << 20

// hashed is the hash of a file, and what would be another if the file were written to.
type hashed struct {
	is  stamp
	sum string
}

// stamp changes when a file is replaced or written to.
type stamp struct {
	device, inode uint64
	size          int64
	modified      unix.Timespec
	changed       unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp { return stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim} }

// settled reports whether a later write must change the stamp: the clock of file systems has steps of some milliseconds.
func (s stamp) settled(now time.Time) bool {
	return now.Sub(time.Unix(s.changed.Unix())) > time.Second
}

// file looks at a file.
func (l *looker) file(ctx context.Context, path string) File {
	// O_PATH opens nothing but the name: a device is not touched, a pipe does not wait.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return File{}
	}
	if err != nil {
		return File{Fault: clean(err.Error())}
	}
	defer unix.Close(fd) //nolint:errcheck // only looked at
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return File{Fault: clean(err.Error())}
	}
	f := File{
		Exists: true, Regular: st.Mode&unix.S_IFMT == unix.S_IFREG, Mode: fmt.Sprintf("%04o", st.Mode&0o7777), UID: st.Uid, GID: st.Gid,
	}
	if !f.Regular {
		return f
	}
	f.Size = st.Size
	sum, err := l.hash(ctx, path, fd, &st)
	if err != nil {
		f.Fault = clean(err.Error())
	}
	f.SHA256 = sum
	return f
}

// hash returns the SHA-256 of the regular file that fd names.
func (l *looker) hash(ctx context.Context, path string, fd int, st *unix.Stat_t) (string, error) {
	is := stampOf(st)
	if h, ok := l.hashes[path]; ok && h.is == is {
		return h.sum, nil
	}
	delete(l.hashes, path)
	if st.Size > maxHashed {
		return "", fmt.Errorf("it has %d bytes; only files of at most %d are hashed", st.Size, maxHashed)
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	sum := sha256.New()
	// A file of /proc has no size, and may have no end.
	n, err := io.Copy(sum, io.LimitReader(reader{ctx, f}, maxHashed+1))
	if err == nil && n > maxHashed {
		err = fmt.Errorf("it goes on after %d bytes; only files of at most so many are hashed", maxHashed)
	}
	if err != nil {
		return "", err
	}
	text := hex.EncodeToString(sum.Sum(nil))
	if is.settled(time.Now()) {
		l.hashes[path] = hashed{is, text}
	}
	return text, nil
}

// reader stops reading when the context ends.
type reader struct {
	ctx context.Context //nolint:containedctx // that of one call
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// processes looks for processes that run the files at paths.
func (l *looker) processes(ctx context.Context, paths []string) map[string]Process {
	out := map[string]Process{}
	type id struct{ device, inode uint64 }
	wanted := map[id][]string{}
	for _, path := range paths {
		f := l.file(ctx, path)
		p := Process{SHA256: f.SHA256, UID: f.UID, Fault: f.Fault}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err == nil && f.Regular {
			wanted[id{st.Dev, st.Ino}] = append(wanted[id{st.Dev, st.Ino}], path)
		} else if p.Fault == "" {
			p.Fault = "there is no such program"
		}
		out[path] = p
	}
	if len(wanted) == 0 {
		return out
	}
	entries, err := os.ReadDir(l.path("/proc"))
	if err != nil {
		return out
	}
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err != nil || ctx.Err() != nil {
			continue
		}
		// The link leads to the file itself. Its text would be the same for a file of that name in another mount
		// namespace, which any user can make, or for one that has been replaced.
		var st unix.Stat_t
		if unix.Stat(filepath.Join(l.path("/proc"), e.Name(), "exe"), &st) != nil {
			continue // it has ended, or is the kernel's own
		}
		for _, path := range wanted[id{st.Dev, st.Ino}] {
			p := out[path]
			p.Running = true
			out[path] = p
		}
	}
	return out
}

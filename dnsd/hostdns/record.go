package hostdns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// kind is what stands at a path.
type kind string

const (
	kindAbsent  kind = "absent"
	kindFile    kind = "file"
	kindSymlink kind = "symlink"
	kindOther   kind = "neither file nor symlink"
)

// snapshot is what stands at the path of resolv.conf at one moment.
type snapshot struct {
	Kind    kind
	Link    string `json:",omitempty"` // where a symlink points
	Content []byte // of the file, or of the file that a symlink points at, if there is one
	Owner   owner  // of the file
	Mounted bool   // a mount point, which can be overwritten but not replaced
}

func take(path string) (snapshot, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot{Kind: kindAbsent}, nil
	}
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{Kind: kindFile, Mounted: isMountPoint(path)}
	if st.Mode()&fs.ModeSymlink != 0 && !s.Mounted {
		return takeLink(path)
	}
	if st, err = os.Stat(path); err != nil {
		return snapshot{}, err
	}
	if !st.Mode().IsRegular() {
		return snapshot{Kind: kindOther}, nil
	}
	s.Owner.Mode = st.Mode().Perm()
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.Owner.UID, s.Owner.GID = int(sys.Uid), int(sys.Gid)
	}
	s.Content, err = os.ReadFile(path)
	return s, err
}

// takeLink reads a symlink and, if it leads to a file, what is there.
func takeLink(path string) (snapshot, error) {
	link, err := os.Readlink(path)
	if err != nil {
		return snapshot{}, err
	}
	s := snapshot{Kind: kindSymlink, Link: link}
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		s.Content, err = os.ReadFile(path)
		return s, err
	}
	return s, nil
}

// same reports whether two snapshots are of the same thing. What a symlink leads to is not part of it: we do not
// touch that.
func (s snapshot) same(o snapshot) bool {
	if s.Kind != o.Kind {
		return false
	}
	switch s.Kind {
	case kindSymlink:
		return s.Link == o.Link
	case kindFile:
		return bytes.Equal(s.Content, o.Content) && s.Owner == o.Owner
	default:
		return true
	}
}

// record is what the state directory keeps from before the file is touched until it is restored.
type record struct {
	Version int
	Path    string   // of resolv.conf
	Was     snapshot // the original
	Wrote   [][]byte // what we may have put there, the newest last
}

const recordVersion = 1

// target is the file that the original symlink points at.
func (rec *record) target() string {
	if filepath.IsAbs(rec.Was.Link) {
		return rec.Was.Link
	}
	return filepath.Join(filepath.Dir(rec.Path), rec.Was.Link)
}

// records is the place of the record.
type records struct {
	dir  string
	disk disk
}

func (r records) path() string { return filepath.Join(r.dir, "resolv.conf.json") }

// load returns the record, or nil if there is none.
func (r records) load() (*record, error) {
	raw, err := os.ReadFile(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of the host's resolv.conf: %w", err)
	}
	rec, err := parseRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("record %s of the host's resolv.conf: %w; put resolv.conf right and remove it", r.path(), err)
	}
	return rec, nil
}

var errRecord = errors.New("not a record that this version can read")

func parseRecord(raw []byte) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(raw, rec); err != nil {
		return nil, err
	}
	known := rec.Was.Kind == kindAbsent || rec.Was.Kind == kindFile || rec.Was.Kind == kindSymlink && rec.Was.Link != ""
	if rec.Version != recordVersion || !filepath.IsAbs(rec.Path) || !known || rec.Was.Owner.Mode&^fs.ModePerm != 0 {
		return nil, errRecord
	}
	return rec, nil
}

// save puts a record in place of the one that is there.
func (r records) save(rec *record) error {
	raw, err := json.MarshalIndent(rec, "", "  ")
	if err == nil {
		err = r.disk.replace(r.path(), append(raw, '\n'), owner{Mode: 0o600, UID: os.Getuid(), GID: os.Getgid()})
	}
	if err != nil {
		return fmt.Errorf("record the host's resolv.conf: %w", err)
	}
	return nil
}

// drop removes the record, if there is one, and what a crash may have left of one.
func (r records) drop() error {
	if err := errors.Join(r.disk.remove(r.path()), r.disk.removeTemp(r.path())); err != nil {
		return fmt.Errorf("drop the record of the host's resolv.conf: %w", err)
	}
	return nil
}

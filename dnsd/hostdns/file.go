package hostdns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// file is the host's resolv.conf.
type file struct {
	path    string
	records records
}

// standing is what the file is, compared with its record.
type standing int

const (
	untouched standing = iota // the original
	ours                      // what we wrote
	foreign                   // what somebody else has put there since
)

// judge compares a snapshot of the file with the record.
func (rec *record) judge(now snapshot) standing {
	if now.same(rec.Was) {
		return untouched
	}
	if now.Kind != kindFile {
		return foreign
	}
	for _, w := range rec.Wrote {
		if bytes.Equal(now.Content, w) {
			return ours
		}
	}
	if now.Mounted && rec.torn(now.Content) {
		return ours
	}
	return foreign
}

// torn reports whether content is what a crash leaves while one known content is overwritten with another: a
// beginning of the new one and then the old one.
func (rec *record) torn(content []byte) bool {
	known := append([][]byte{rec.Was.Content}, rec.Wrote...)
	for _, after := range known {
		n := commonPrefix(content, after)
		for _, before := range known {
			if bytes.Equal(content[n:], before[min(n, len(before)):]) {
				return true
			}
		}
	}
	return false
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// look compares the file with its record. Without a record, the file is untouched and its own original.
func (f *file) look() (*record, snapshot, standing, error) {
	now, err := take(f.path)
	if err != nil {
		return nil, now, untouched, fmt.Errorf("read the host's resolver: %w", err)
	}
	rec, err := f.records.load()
	if err != nil {
		return nil, now, untouched, err
	}
	if rec == nil || rec.Path != f.path {
		return rec, now, untouched, nil
	}
	return rec, now, rec.judge(now), nil
}

// set writes our file, in place of the original or of an earlier one of ours.
func (f *file) set(t Target) error {
	rec, now, is, err := f.look()
	if err != nil {
		return err
	}
	if rec != nil && is != ours {
		// Left by a daemon that died, or overtaken by a change of somebody else: settle it, then begin anew.
		if _, err := recoverFile(f.records); err != nil {
			return err
		}
		rec = nil
	}
	if now.Kind == kindOther {
		return fmt.Errorf("write the host's resolver: %s is %s", f.path, now.Kind)
	}
	if rec == nil {
		rec = &record{Version: recordVersion, Path: f.path, Was: now}
	} else if err := f.refresh(rec, now); err != nil {
		return err
	}
	content := compose(rec.Was.Content, t, hostDomain())
	if is == ours && bytes.Equal(content, now.Content) {
		return nil
	}
	rec.Wrote = append(rec.Wrote, content)
	if err := f.recordAndWrite(rec, content, now.Mounted); err != nil {
		_, undoErr := f.restore()
		return errors.Join(err, undoErr)
	}
	return nil
}

// recordAndWrite changes the file once the record of how to undo that is on the disk.
func (f *file) recordAndWrite(rec *record, content []byte, mounted bool) error {
	if err := f.records.save(rec); err != nil {
		return err
	}
	o := owner{Mode: 0o644, UID: os.Getuid(), GID: os.Getgid()}
	if rec.Was.Kind == kindFile {
		o = rec.Was.Owner
	}
	if err := f.write(content, o, mounted); err != nil {
		return fmt.Errorf("write the host's resolver: %w", err)
	}
	return nil
}

// refresh brings a record of ours up to date: the contents that are no longer there are forgotten, and the file that a
// symlink led to is read again, since its owner goes on writing it.
func (f *file) refresh(rec *record, now snapshot) error {
	rec.Wrote = [][]byte{now.Content}
	if rec.Was.Kind != kindSymlink {
		return nil
	}
	content, err := os.ReadFile(rec.target())
	if err != nil {
		return nil //nolint:nilerr // gone for the moment: what was read last still stands
	}
	rec.Was.Content = content
	return nil
}

// restore puts the original back if what stands is ours, and drops the record in any case.
func (f *file) restore() (Outcome, error) {
	rec, now, is, err := f.look()
	if err != nil || rec == nil {
		return Nothing, err
	}
	outcome := Nothing
	switch is {
	case ours:
		outcome = Restored
		err = f.putBack(rec.Was, now.Mounted)
	case foreign:
		outcome = LeftAlone
	case untouched:
	}
	if err == nil {
		err = f.records.disk.removeTemp(f.path)
	}
	if err != nil {
		return Nothing, fmt.Errorf("restore the host's resolver: %w", err)
	}
	return outcome, f.records.drop()
}

func (f *file) putBack(was snapshot, mounted bool) error {
	switch was.Kind {
	case kindSymlink:
		return f.records.disk.replaceLink(f.path, was.Link)
	case kindAbsent:
		return f.records.disk.remove(f.path)
	default:
		return f.write(was.Content, was.Owner, mounted)
	}
}

// write gives the file new content. A mount point cannot be replaced: rename says EBUSY, or worse, replaces for all
// the host the symlink that leads to the mount point.
func (f *file) write(content []byte, o owner, mounted bool) error {
	if mounted {
		return f.records.disk.overwrite(f.path, content)
	}
	err := f.records.disk.replace(f.path, content, o)
	if errors.Is(err, unix.EBUSY) { // a kernel before 5.8 does not say what is mounted
		return f.records.disk.overwrite(f.path, content)
	}
	return err
}

// hostDomain is the domain in the host's name, which glibc searches if resolv.conf does not say.
func hostDomain() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	_, domain, _ := strings.Cut(name, ".")
	return domain
}

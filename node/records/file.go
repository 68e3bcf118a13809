package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// File appends records to a file as lines of JSON. When somebody has moved or removed the file, as logrotate does, the next
// records go to a new one.
type File struct {
	path string
	file *os.File
}

// NewFile returns a File that is not open yet.
func NewFile(path string) *File { return &File{path: path} }

// Write appends records. What could not be written is lost.
func (f *File) Write(list []Record) error {
	if err := f.open(); err != nil {
		return fmt.Errorf("records.file: %w", err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return fmt.Errorf("records.file: %w", err)
		}
	}
	if _, err := f.file.Write(b.Bytes()); err != nil {
		return fmt.Errorf("records.file: %w", err)
	}
	return nil
}

// open opens the file, unless the one that is open is still at its place.
func (f *File) open() error {
	there, err := os.Stat(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.file != nil {
		if is, err := f.file.Stat(); err == nil && there != nil && os.SameFile(is, there) {
			return nil
		}
		f.Close()
	}
	f.file, err = os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640) //nolint:gosec // the administrator's group may read it
	if err != nil {
		f.file = nil
	}
	return err
}

// Close closes the file; the next Write opens it again.
func (f *File) Close() {
	if f.file != nil {
		_ = f.file.Close() // nothing was held back
		f.file = nil
	}
}

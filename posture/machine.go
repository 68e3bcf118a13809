package posture

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// looker looks at this machine. It remembers hashes of files that have not changed.
type looker struct {
	root   string // "/", but in tests
	hashes map[string]hashed
}

func newLooker(root string) *looker { return &looker{root: root, hashes: map[string]hashed{}} }

func (l *looker) path(p string) string { return filepath.Join(l.root, p) }

// facts are those for which nothing needs to be configured.
func (l *looker) facts() *Report {
	r := &Report{}
	release, err := readSome(l.path("/etc/os-release"))
	if err != nil { // os-release(5): the other place is for systems that have no /etc yet
		release, _ = readSome(l.path("/usr/lib/os-release")) // without either there is nothing to say
	}
	r.OS, r.OSVersion = parseOSRelease(release)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel, r.Arch = clean(unix.ByteSliceToString(u.Release[:])), clean(unix.ByteSliceToString(u.Machine[:]))
		r.Hostname = clean(unix.ByteSliceToString(u.Nodename[:]))
	}
	mounts, err := readSome(l.path("/proc/self/mountinfo"))
	if err == nil {
		r.DiskEncrypted = l.encrypted(mounts)
	}
	return r
}

// maxSmall is how much of a file of the system is read.
const maxSmall = 1 << 20

func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

// clean makes of a text one that can be shown on a terminal and is not too long.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	s = s[:maxText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// parseOSRelease returns ID and VERSION_ID of os-release(5): lines KEY=VALUE, where a value may be quoted as in a shell.
func parseOSRelease(b []byte) (id, version string) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxSmall+1)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok {
			continue
		}
		switch key {
		case "ID":
			id = clean(unquote(value))
		case "VERSION_ID":
			version = clean(unquote(value))
		}
	}
	if id == "" && len(b) > 0 {
		id = "linux" // os-release(5): the default
	}
	return id, version
}

// unquote takes a shell's quotes off: in single quotes everything stands for itself, in double quotes a backslash
// takes the meaning from $, `, ", \ and from nothing else.
func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return s
	}
	quote, s := s[0], s[1:len(s)-1]
	if quote == '\'' {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\", s[i+1]) >= 0 {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// mount is where the root file system lies.
type mount struct {
	device string // MAJOR:MINOR
	source string
}

// parseRootMount finds the root in /proc/self/mountinfo (proc_pid_mountinfo(5)): the last that is mounted on "/" lies on
// top of the others.
func parseRootMount(b []byte) (m mount, ok bool) {
	for line := range strings.Lines(string(b)) {
		before, after, found := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 6 || len(rest) < 2 || fields[4] != "/" {
			continue
		}
		var major, minor uint32
		if n, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil || n != 2 {
			continue
		}
		m, ok = mount{fmt.Sprintf("%d:%d", major, minor), rest[1]}, true
	}
	return m, ok
}

// encrypted reports whether the root file system lies on dm-crypt, whatever lies between, such as LVM or RAID.
func (l *looker) encrypted(mounts []byte) bool {
	m, ok := parseRootMount(mounts)
	if !ok {
		return false
	}
	if strings.HasPrefix(m.device, "0:") {
		// A file system of several devices, such as Btrfs, has no device number of its own; one without a device, such
		// as an overlay, does not name one.
		var st unix.Stat_t
		if !filepath.IsAbs(m.source) || unix.Stat(l.path(m.source), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return false
		}
		m.device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return cryptBelow(l.path("/sys/dev/block/"+m.device), 0)
}

// maxLayers is how many devices may lie upon each other.
const maxLayers = 16

// cryptBelow reports whether all that is written to a block device, by its directory in /sys, is encrypted.
func cryptBelow(dir string, depth int) bool {
	if depth > maxLayers {
		return false
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	if uuid, err := os.ReadFile(filepath.Join(dir, "dm", "uuid")); err == nil && bytes.HasPrefix(uuid, []byte("CRYPT-")) {
		return true
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return cryptBelow(filepath.Dir(dir), depth+1)
	}
	below, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil || len(below) == 0 {
		return false
	}
	for _, b := range below {
		if !cryptBelow(filepath.Join(dir, "slaves", b.Name()), depth+1) {
			return false
		}
	}
	return true
}

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownerFile, in a lab's directory, says which process made it: its id and, since ids are used again, its start time.
const ownerFile = "owner"

func checkPrefix(prefix string) error {
	if !regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`).MatchString(prefix) {
		return fmt.Errorf("lab prefix %q is not 1 to 16 lower-case letters and digits", prefix)
	}
	return nil
}

// claim makes the directory of a new lab, whose name is then nobody else's.
func claim(prefix string) (name, dir string, err error) {
	pid := os.Getpid()
	name = fmt.Sprintf("%s-%d", prefix, pid)
	for n := 2; ; n++ {
		dir = filepath.Join(os.TempDir(), name)
		if err = os.Mkdir(dir, 0o700); err == nil {
			break
		}
		if !os.IsExist(err) {
			return "", "", err
		}
		name = fmt.Sprintf("%s-%d.%d", prefix, pid, n)
	}
	owner := fmt.Sprintf("%d %s\n", pid, startTime(pid))
	return name, dir, os.WriteFile(filepath.Join(dir, ownerFile), []byte(owner), 0o600)
}

// Sweep removes what labs of this prefix have left whose process was killed: processes in their namespaces, the
// namespaces, the directories. It leaves those of live processes alone. It returns the names of what it removed.
func Sweep(prefix string) ([]string, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	var removed []string
	var errs []error
	for _, dir := range []string{pinDir, os.TempDir()} { // the directories last: they say who the owner was
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return removed, err
		}
		for _, e := range entries {
			name, pid, ok := parseName(prefix, e.Name())
			if !ok || alive(name, pid) {
				continue
			}
			sweep := sweepDir
			if dir == pinDir {
				sweep = sweepNamespace
			}
			if err := sweep(e.Name()); err != nil {
				errs = append(errs, err)
				continue
			}
			removed = append(removed, e.Name())
		}
	}
	return removed, errors.Join(errs...)
}

// parseName takes PREFIX-PID[.N][-HOST] apart into the lab's name and the process's id.
func parseName(prefix, entry string) (lab string, pid int, ok bool) {
	m := regexp.MustCompile(`^(` + prefix + `-(\d+)(?:\.\d+)?)(?:-.*)?$`).FindStringSubmatch(entry)
	if m == nil {
		return "", 0, false
	}
	pid, err := strconv.Atoi(m[2])
	return m[1], pid, err == nil
}

// alive reports whether the process that made a lab still runs. Where nothing tells its start time, any process of
// that id will do.
func alive(lab string, pid int) bool {
	now := startTime(pid)
	if now == "" {
		return false
	}
	owner, err := os.ReadFile(filepath.Join(os.TempDir(), lab, ownerFile))
	return err != nil || len(owner) == 0 || string(owner) == fmt.Sprintf("%d %s\n", pid, now)
}

// startTime returns when a process started, in clock ticks since boot, or "" if it no longer runs.
func startTime(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// proc_pid_stat(5): the name, field 2, is in parentheses and may hold anything; field 3 is the state, 22 the start.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

func sweepNamespace(name string) error {
	ids := make(map[inode]bool)
	if id, err := inodeOf(filepath.Join(pinDir, name)); err == nil {
		ids[id] = true
	}
	if err := killAll(ids); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return unpin(name)
}

func sweepDir(name string) error {
	path := filepath.Join(os.TempDir(), name)
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	// The directory for temporary files is everybody's: remove nothing that is not ours.
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != unix.Geteuid() {
		return fmt.Errorf("%s has the name of a lab but is not a directory of user %d", path, unix.Geteuid())
	}
	return os.RemoveAll(path)
}

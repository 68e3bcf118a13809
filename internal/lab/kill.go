package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience is how long a killed process may take to go.
const killPatience = 10 * time.Second

// inode identifies a namespace.
type inode struct{ dev, ino uint64 }

func inodeOf(path string) (inode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return inode{}, err
	}
	return inodeOfInfo(info), nil
}

func inodeOfInfo(info os.FileInfo) inode {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}
	}
	return inode{stat.Dev, stat.Ino}
}

// inodes returns the namespaces by which a host's processes are known: a process may have left some of them.
func (ns *namespaces) inodes() map[inode]bool {
	ns.mu.RLock()
	defer ns.mu.RUnlock()
	ids := make(map[inode]bool)
	for _, f := range []*os.File{ns.net, ns.mount, ns.uts} {
		if f == nil {
			continue
		}
		if info, err := f.Stat(); err == nil {
			ids[inodeOfInfo(info)] = true
		}
	}
	return ids
}

// killAll kills the processes that are in one of the namespaces until there is none. It never touches this process,
// nor any in the namespaces of this process.
func killAll(ids map[inode]bool) error {
	if len(ids) == 0 {
		return nil
	}
	for deadline := time.Now().Add(killPatience); ; {
		pids, err := processesIn(ids)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // ESRCH: gone by itself
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func processesIn(ids map[inode]bool) ([]int, error) {
	kinds := []string{"net", "mnt", "uts"}
	for _, ns := range kinds {
		own, err := inodeOf("/proc/self/ns/" + ns)
		if err != nil {
			return nil, err
		}
		if ids[own] {
			return nil, fmt.Errorf("refusing to kill all in the %s namespace of this very process", ns)
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range links {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, ns := range kinds { // a process that has ended and is not waited for has none
			if id, err := inodeOf(filepath.Join(dir, ns)); err == nil && ids[id] {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids, nil
}

package lab

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	resolvConf = "/etc/resolv.conf"
	pinDir     = "/run/netns" // where ip-netns(8) looks for names
)

// privateView gives the calling thread, which must have a mount namespace of its own, the file system that the
// package comment promises. All of it lies in memory and goes with the last process in the namespace.
func privateView() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// sysfs shows the network of who mounted it.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"/etc", "/var/lib"} {
		if err := copyOnWrite(dir); err != nil {
			return err
		}
	}
	// A copy, because some systems have a link to /run or a bind mount there.
	if err := os.Remove(resolvConf); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(resolvConf, nil, 0o644)
}

// copyOnWrite lays a private, writable layer over dir.
func copyOnWrite(dir string) error {
	layer := filepath.Join("/run/.lab", filepath.Base(dir))
	for _, sub := range []string{"upper", "work"} {
		if err := os.MkdirAll(filepath.Join(layer, sub), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", dir, layer, layer)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount a private layer on %s: %w", dir, err)
	}
	return nil
}

// pin gives the calling thread's network namespace a name that outlives the thread.
func pin(name string) error {
	if err := os.MkdirAll(pinDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(pinDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("name the namespace %s: %w", path, err)
	}
	return nil
}

// unpin removes a name that pin gave, wholly or in part.
func unpin(name string) error {
	path := filepath.Join(pinDir, name)
	// EINVAL: not a mount point. Copies of the mount in the hosts' own namespaces do not keep the file: the kernel
	// detaches them when it is removed.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

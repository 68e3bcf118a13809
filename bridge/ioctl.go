package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/quietfd"
)

// control runs f on a queue's descriptor.
func control(q *quietfd.FD, f func(fd int) error) error {
	var inner error
	if err := q.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// ifreq is struct ifreq with the flags of TUNSETIFF.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	flags uint16
	_     [22]byte
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func tapFlags(fd int) (uint16, error) {
	var req ifreq
	if err := ioctl(fd, unix.TUNGETIFF, unsafe.Pointer(&req)); err != nil {
		return 0, fmt.Errorf("TUNGETIFF: %w", err)
	}
	return req.flags, nil
}

func tapName(fd int) (string, error) {
	var req ifreq
	if err := ioctl(fd, unix.TUNGETIFF, unsafe.Pointer(&req)); err != nil {
		return "", fmt.Errorf("TUNGETIFF: %w", err)
	}
	return unix.ByteSliceToString(req.name[:]), nil
}

func setCarrier(fd, value int) error {
	v := int32(value)
	if err := ioctl(fd, unix.TUNSETCARRIER, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("TUNSETCARRIER: %w", err)
	}
	return nil
}

// tapNamespace opens the network namespace that the device is in now.
func tapNamespace(fd int) (int, error) {
	ns, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNGETDEVNETNS, 0)
	if errno != 0 {
		return -1, fmt.Errorf("TUNGETDEVNETNS: %w", errno)
	}
	return int(ns), nil
}

func inode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

func currentNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("find the network namespace: %w", err)
	}
	return st.Ino, nil
}

// sysctls are what a TAP needs beside links and addresses. A router across the overlay must never become the host's
// default, so router advertisements are not heard; the link-local address is the one that follows from the MAC, which is
// the one policy allows; and the host speaks ARP on a segment only about addresses that it has there.
var sysctls = []struct{ path, value string }{ //nolint:gochecknoglobals // a constant table
	{"ipv6/conf/%s/accept_ra", "0"},
	{"ipv6/conf/%s/autoconf", "0"},
	{"ipv6/conf/%s/addr_gen_mode", "0"},
	{"ipv6/conf/%s/use_tempaddr", "0"},
	{"ipv4/conf/%s/arp_ignore", "1"},
	{"ipv4/conf/%s/arp_announce", "2"},
}

func setSysctls(name string) error {
	for _, s := range sysctls {
		path := filepath.Join("/proc/sys/net", fmt.Sprintf(s.path, name))
		err := os.WriteFile(path, []byte(s.value), 0)
		if err != nil && !os.IsNotExist(err) { // a kernel without IPv6 has none of its settings
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}

// detachQueue takes a queue out of its TAP, which then has nobody who reads what is sent out of it.
func detachQueue(fd int) error {
	req := ifreq{flags: unix.IFF_DETACH_QUEUE}
	if err := ioctl(fd, unix.TUNSETQUEUE, unsafe.Pointer(&req)); err != nil {
		return fmt.Errorf("TUNSETQUEUE: %w", err)
	}
	return nil
}

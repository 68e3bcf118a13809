package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// GuestKernel is a kernel with its modules, as Debian's linux-image-cloud-amd64 brings them.
type GuestKernel struct {
	Image    string   // vmlinuz-…
	Modules  []string // in the order in which they are loaded
	Programs []string // of this machine, which the guest has in its PATH, too
}

// guestModules returns what a guest needs besides what is built into the kernel, in order of dependence: the NIC, the
// bridge with VLAN filtering, 802.1Q interfaces, bonds, and what a node and a lab need: TAPs, cables, hooks for what passes them, and layers of
// files.
func guestModules() []string {
	return []string{
		"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover", "virtio_net",
		"llc", "stp", "bridge", "garp", "mrp", "8021q", "tun", "veth", "sch_ingress", "cls_matchall", "cls_u32", "act_mirred", "overlay", "tls", "bonding", "macvlan",
	}
}

// FindGuestKernel looks for a cloud kernel below a directory where its package is installed ("/") or unpacked; of several
// it takes the last by name.
func FindGuestKernel(root string) (GuestKernel, error) {
	const advice = "unpack Debian's linux-image-cloud-amd64 with scripts/guest.sh"
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*-cloud-amd64"))
	if err != nil || len(images) == 0 {
		return GuestKernel{}, errors.Join(fmt.Errorf("no boot/vmlinuz-*-cloud-amd64 below %s: %s", root, advice), err)
	}
	k := GuestKernel{Image: slices.Max(images)}
	version := filepath.Base(k.Image)[len("vmlinuz-"):]
	found := map[string]string{}
	err = filepath.WalkDir(filepath.Join(root, "lib/modules", version), func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".ko" {
			found[filepath.Base(path)] = path
		}
		return err
	})
	if err != nil {
		return k, fmt.Errorf("modules of %s: %w: %s", k.Image, err, advice)
	}
	for _, name := range guestModules() {
		path, ok := found[name+".ko"]
		if !ok {
			return k, fmt.Errorf("%s has no module %s.ko below %s: %s", k.Image, name, root, advice)
		}
		k.Modules = append(k.Modules, path)
	}
	return k, nil
}

// guestInit is the guest's first and only program. It runs the scripts that come in by the second serial port, each a
// line of base64, and answers each with a line: exit code, and the output in base64.
const guestInit = `#!/bin/busybox sh
/bin/busybox mkdir -p /etc /var/lib /proc /sys /dev /tmp /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
export PATH=/sbin:/usr/sbin:/bin:/usr/bin:/lab
for m in /modules/*; do insmod "$m"; done
ip link set lo up
exec </dev/ttyS1 >/dev/ttyS1
stty raw -echo
echo ready
while read -r script; do
  echo 'ip() { /lab/ip "$@"; }' >/tmp/script # busybox has one, and prefers it
  echo "$script" | base64 -d >>/tmp/script
  sh -e /tmp/script >/tmp/output 2>&1 </dev/null
  echo "$? $(base64 /tmp/output | tr -d '\n')"
done
poweroff -f
`

// initramfs is an archive of the kind that Linux unpacks at boot: cpio(5), format newc.
type initramfs struct {
	bytes.Buffer
	entries int
}

// add adds a file or, with a mode that says so, a directory.
func (a *initramfs) add(name string, mode uint32, data []byte) {
	a.entries++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.entries, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name + "\x00")
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *initramfs) pad() { a.Write(make([]byte, -a.Len()&3)) }

// The types of files in a mode (inode(7)).
const (
	cpioFile      = 0o100000
	cpioDirectory = 0o040000
)

// addFile adds a file of the machine, and the directories above it that are not there yet.
func (a *initramfs) addFile(made map[string]bool, from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var parents []string
	for dir := filepath.Dir(to); dir != "."; dir = filepath.Dir(dir) {
		parents = append(parents, dir)
	}
	for _, dir := range slices.Backward(parents) {
		if !made[dir] {
			made[dir] = true
			a.add(dir, cpioDirectory|0o755, nil)
		}
	}
	if !made[to] {
		made[to] = true
		a.add(to, cpioFile|0o755, data)
	}
	return nil
}

// guestImage makes a guest's file system: busybox, ip, bridge and further programs with their libraries, and the modules.
func (h *Host) guestImage(ctx context.Context, k GuestKernel) ([]byte, error) {
	var a initramfs
	made := map[string]bool{}
	programs := map[string]string{"busybox": "bin/busybox", "ip": "lab/ip", "bridge": "lab/bridge"}
	for _, path := range k.Programs {
		programs[path] = "lab/" + filepath.Base(path)
	}
	for from, to := range programs {
		path, err := h.lookUp(ctx, from)
		if err != nil {
			return nil, err
		}
		if err := a.addFile(made, path, to); err != nil {
			return nil, err
		}
		// A program without libraries is an error to ldd.
		out, _ := h.Run(ctx, "ldd", path)
		for _, m := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(out, -1) {
			if err := a.addFile(made, m[1], m[1][1:]); err != nil {
				return nil, err
			}
		}
	}
	for i, path := range k.Modules {
		if err := a.addFile(made, path, fmt.Sprintf("modules/%02d-%s", i, filepath.Base(path))); err != nil {
			return nil, err
		}
	}
	a.add("init", cpioFile|0o755, []byte(guestInit))
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), nil
}

// lookUp returns the path of a program on the host.
func (h *Host) lookUp(ctx context.Context, program string) (string, error) {
	out, err := h.Run(ctx, "sh", "-c", "command -v "+program)
	return string(bytes.TrimSpace([]byte(out))), err
}

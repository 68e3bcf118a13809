package lab

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// guestMemory is what a guest has, in MiB.
const guestMemory = "512"

// bootPatience is how long a guest may take until it runs scripts: on a machine with much else to do, many times as long as alone.
const bootPatience = 5 * time.Minute

// Guest is a machine with a kernel of its own, for what this machine's kernel lacks: a bridge that knows VLANs, and
// 802.1Q interfaces. It runs under qemu without any help of the processor, in a few seconds: for function, never for
// timing.
//
//	Host a -- eth0 (TAP) -+                     eth0 +
//	Host b -- eth0 (TAP) -+-- qemu, on a host --eth1 +-- the guest's kernel, busybox, ip, bridge
//	Gateway - lan  (TAP) -+                     eth2 +
type Guest struct {
	host  *Host // where qemu runs
	shell net.Conn
	from  *bufio.Reader
}

// AddGuest boots a guest with a NIC, eth0, eth1, …, for each plug. At the plug's end the cable is a TAP that carries what
// the guest sends and receives, byte for byte. It needs Debian's qemu-system-x86 and busybox. The guest runs until the
// context ends or its host goes. It has no addresses and no bridge before Run makes them.
func (l *Lab) AddGuest(ctx context.Context, name string, k GuestKernel, plugs ...Plug) (*Guest, error) {
	h, err := l.AddHost(name)
	if err != nil {
		return nil, err
	}
	g := &Guest{host: h}
	if err := g.boot(ctx, k, plugs); err != nil {
		if removeErr := h.Remove(); removeErr != nil {
			err = errors.Join(err, removeErr)
		}
		return nil, fmt.Errorf("boot guest %s (Debian: apt-get install qemu-system-x86 busybox): %w", name, err)
	}
	return g, nil
}

func (g *Guest) boot(ctx context.Context, k GuestKernel, plugs []Plug) error {
	image, err := g.host.guestImage(ctx, k)
	if err != nil {
		return err
	}
	initrd, socket := filepath.Join(g.host.dir, "initrd"), filepath.Join(g.host.dir, "shell")
	if err := os.WriteFile(initrd, image, 0o600); err != nil {
		return err
	}
	args := []string{
		"-accel", "tcg", "-machine", "pc", "-m", guestMemory, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-kernel", k.Image, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check",
		"-serial", "stdio", "-serial", "unix:" + socket + ",server=on,wait=off",
	}
	var taps []*os.File // closed here as soon as qemu has them, so that they go with it
	defer func() {
		for _, f := range taps {
			_ = f.Close()
		}
	}()
	for i, p := range plugs {
		tap, err := p.openTAP()
		if err != nil {
			return err
		}
		taps = append(taps, tap)
		args = append(args, "-netdev", fmt.Sprintf("tap,id=n%d,fd=%d", i, 3+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=02:00:5e:00:53:%02x,romfile=", i, i))
	}
	c := g.host.Command(ctx, "qemu-system-x86_64", args...)
	c.ExtraFiles = taps
	qemu, err := c.StartLogged()
	if err != nil {
		return err
	}
	if err := g.connect(ctx, qemu, socket); err != nil {
		log, _ := qemu.Log()
		return fmt.Errorf("%w: %s", err, log)
	}
	return g.host.keep(g)
}

// openTAP makes the plug's end of a cable to a guest.
func (p Plug) openTAP() (tap *os.File, err error) {
	mac, err := hardware(p)
	if err != nil {
		return nil, err
	}
	err = p.On.thread.call(func() (err error) {
		if tap, err = openTAP(p.Name); err != nil {
			return err
		}
		link, err := netlink.LinkByName(p.Name)
		if err != nil {
			return err
		}
		if mac[0] != nil {
			err = netlink.LinkSetHardwareAddr(link, mac[0])
		}
		if p.MTU != 0 {
			err = errors.Join(err, netlink.LinkSetMTU(link, p.MTU))
		}
		return errors.Join(err, addAddrs(link, p.Addrs), netlink.LinkSetUp(link))
	})
	if err != nil && tap != nil {
		_ = tap.Close()
	}
	return tap, err
}

// connect waits until the guest is ready to run scripts.
func (g *Guest) connect(ctx context.Context, qemu *Process, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			g.shell, g.from = conn, bufio.NewReader(conn)
			break
		}
		select {
		case <-qemu.Done():
			return fmt.Errorf("qemu has ended: %w", qemu.Err())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(logPoll):
		}
	}
	line, err := g.ask(ctx, "")
	if err == nil && line != "ready" {
		err = fmt.Errorf("the guest said %q, want ready", line)
	}
	return err
}

// Host returns the host on which qemu runs. To remove it switches the guest off.
func (g *Guest) Host() *Host { return g.host }

// stop hangs up before the host goes.
func (g *Guest) stop() { _ = g.shell.Close() }

// Run runs a script of busybox's shell in the guest, as with set -e, and returns its combined output. The error, if
// any, quotes it. One script runs at a time, and after an error of the context none does.
func (g *Guest) Run(ctx context.Context, script string) (string, error) {
	line, err := g.ask(ctx, base64.StdEncoding.EncodeToString([]byte(script))+"\n")
	if err != nil {
		return "", fmt.Errorf("on guest %s: %s: %w", g.host.name, script, err)
	}
	code, encoded, _ := strings.Cut(line, " ")
	out, err := base64.StdEncoding.DecodeString(encoded)
	if err == nil && code != "0" {
		err = fmt.Errorf("exit code %s", code)
	}
	if err != nil {
		return string(out), fmt.Errorf("on guest %s: %s: %w: %s", g.host.name, script, err, out)
	}
	return string(out), nil
}

// ask writes a line, if it is one, and reads the next.
func (g *Guest) ask(ctx context.Context, line string) (string, error) {
	defer context.AfterFunc(ctx, func() { _ = g.shell.Close() })()
	if _, err := g.shell.Write([]byte(line)); err != nil {
		return "", err
	}
	answer, err := g.from.ReadString('\n')
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return strings.TrimRight(answer, "\r\n"), err
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the name of the bridge inside a host made by AddBridge.
const bridgeName = "br0"

// Host is a machine of the lab: a network namespace, a thread in it, a private view of the file system.
type Host struct {
	lab    *Lab
	name   string
	dir    string
	ns     namespaces
	thread *thread
	bridge bool

	mu     sync.Mutex
	closed bool
	cmds   map[*Cmd]struct{}         // started and not yet waited for
	parts  map[stopper]struct{}      // captures and shaped cables
	routes map[string]*netlink.Route // what AddRoute added, by destination
	serial int                       // numbers log files, captures, rules
}

// stopper is a thing with goroutines that must end before its host does.
type stopper interface{ stop() }

// boot makes the namespaces and gives the host its role.
func (h *Host) boot(role func(*Host) error) error {
	h.cmds, h.parts, h.routes = map[*Cmd]struct{}{}, map[stopper]struct{}{}, map[string]*netlink.Route{}
	if err := os.Mkdir(h.dir, 0o755); err != nil {
		return err
	}
	h.thread = startThread()
	return h.thread.call(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := pin(h.NetNS()); err != nil { // before the thread leaves the machine's mounts
			return err
		}
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := privateView(); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(h.name)); err != nil {
			return fmt.Errorf("set the hostname: %w", err)
		}
		if err := h.ns.open(); err != nil {
			return err
		}
		return role(h)
	})
}

// beHost, beRouter and beBridge run on the host's thread.

func (h *Host) beHost() error {
	for _, s := range []struct{ name, value string }{
		{"net.ipv6.conf.default.accept_dad", "0"}, // addresses can be used at once
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.keep_addr_on_down", "1"}, // as IPv4 does
		{"net.ipv6.conf.all.keep_addr_on_down", "1"},
		{"net.ipv4.conf.default.arp_notify", "1"}, // neighbours learn of a moved address at once
		{"net.ipv6.conf.default.ndisc_notify", "1"},
		{"net.ipv4.conf.all.rp_filter", "0"}, // new namespaces inherit these from the machine
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv4.ip_forward", "0"},
		{"net.ipv4.ping_group_range", "0 2147483647"},
	} {
		if err := writeSysctl(s.name, s.value); err != nil {
			return err
		}
	}
	return setLinkUp("lo")
}

func (h *Host) beRouter() error {
	if err := h.beHost(); err != nil {
		return err
	}
	if err := writeSysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	return writeSysctl("net.ipv6.conf.all.forwarding", "1")
}

func (h *Host) beBridge() error {
	for _, conf := range []string{"all", "default"} { // its ports are to say nothing of their own
		if err := writeSysctl("net.ipv6.conf."+conf+".disable_ipv6", "1"); err != nil {
			return err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	h.bridge = true
	return setLinkUp(bridgeName)
}

// Name returns the host's name within the lab.
func (h *Host) Name() string { return h.name }

// NetNS returns the name of the host's network namespace, as `ip netns` lists it.
func (h *Host) NetNS() string { return h.lab.name + "-" + h.name }

// Dir returns a directory for this host's files, under the same path inside and outside. Close removes it.
func (h *Host) Dir() string { return h.dir }

// Do runs f on a fresh thread in the host's namespaces, files included, and returns what f returns. Sockets that f
// opens stay in the host's network wherever they are used afterwards; the caller closes them, and until then the
// namespace lives on without a name. Goroutines that f starts are not in the host: so f must not look up names.
func (h *Host) Do(f func() error) error {
	if h.isClosed() {
		return ErrClosed
	}
	result := make(chan error, 1)
	onFreshThread(func() {
		err := errors.New("lab: function did not return") // because it ended its goroutine, as testing.T.Fatal does
		defer func() { result <- err }()
		if enterErr := h.ns.enter(); enterErr != nil {
			err = enterErr
			return
		}
		err = f()
	})
	return <-result
}

// Dial connects from the host; the address is numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on the host for streams; the address is numeric.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return ln, err
}

// ListenPacket listens on the host for datagrams; the address is numeric.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// Sysctl sets a kernel setting of the host, named as sysctl(8) names it.
func (h *Host) Sysctl(name, value string) error {
	return h.thread.call(func() error { return writeSysctl(name, value) })
}

// SetResolvConf replaces the host's /etc/resolv.conf, which is empty at first.
func (h *Host) SetResolvConf(text string) error {
	return h.thread.call(func() error { return os.WriteFile(resolvConf, []byte(text), 0o644) })
}

// Remove ends all processes on the host and removes it with its ends of all cables.
func (h *Host) Remove() error {
	if err := h.shutdown(); err != nil {
		return err
	}
	h.lab.forget(h)
	return nil
}

// shutdown undoes boot as far as boot came. It can be repeated.
func (h *Host) shutdown() error {
	h.mu.Lock()
	h.closed = true
	cmds, parts := keys(h.cmds), keys(h.parts)
	h.mu.Unlock()
	for _, p := range parts {
		p.stop()
	}
	if h.thread != nil {
		h.thread.stop() // no command starts after this, and those that run are signalled
	}
	if err := killAll(h.ns.inodes()); err != nil {
		return fmt.Errorf("host %q: %w", h.name, err)
	}
	for _, c := range cmds {
		_ = c.Wait() // killed: what it says is for who started it
	}
	h.ns.close()
	if err := unpin(h.NetNS()); err != nil {
		return err
	}
	return os.RemoveAll(h.dir)
}

func (h *Host) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// keep has p stopped before the host goes.
func (h *Host) keep(p stopper) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	h.parts[p] = struct{}{}
	return nil
}

func (h *Host) release(p stopper) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.parts, p)
}

// next returns 1, 2, 3, ….
func (h *Host) next() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serial++
	return h.serial
}

// newFile creates DIR/NNN-NAME.EXT.
func (h *Host) newFile(name, ext string) (*os.File, error) {
	return os.Create(filepath.Join(h.dir, fmt.Sprintf("%03d-%s.%s", h.next(), filepath.Base(name), ext)))
}

// writeSysctl runs on a thread in the host's network.
func writeSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0o644)
}

func keys[K comparable](set map[K]struct{}) []K {
	out := make([]K, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	return out
}

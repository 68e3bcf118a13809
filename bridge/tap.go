package bridge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
)

// TAPConfig says what a TAP shall be.
type TAPConfig struct {
	Name   string // may hold %d for the first number that is free
	MAC    ether.MAC
	MTU    int // of the payload: 1500 for frames of up to 1514 bytes
	Queues int // 0: one
	// SuperFrame is how long the host should let super-frames be, in bytes; 0: as it likes.
	SuperFrame int
	NoOffload  bool // the host completes checksums and cuts super-frames itself, and gets neither
}

// TAP is a network device of this machine whose other end is the switch.
type TAP struct {
	cfg      TAPConfig
	queues   []*Queue
	offloads ether.Offloads // that the kernel has granted

	mu    sync.Mutex
	name  string
	index int
	home  uint64 // inode of the network namespace it is in
	away  bool   // that is not the daemon's
	addrs []addr // that we have set
}

// NewTAP makes a TAP, down and without addresses. It never adopts a device that exists.
func NewTAP(cfg TAPConfig) (*TAP, error) {
	if cfg.Queues == 0 {
		cfg.Queues = 1
	}
	tuntap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: cfg.Name}, Mode: netlink.TUNTAP_MODE_TAP, Queues: 1, NonPersist: true,
		Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_TUN_EXCL,
	}
	if err := netlink.LinkAdd(tuntap); err != nil {
		return nil, explainTAP(cfg.Name, err)
	}
	// The queue that made the device stays until water's have attached: the flags of a device are those of its first
	// queue, and water cannot ask for the header.
	defer tuntap.Fds[0].Close() //nolint:errcheck // nothing is written to it
	t := &TAP{cfg: cfg, name: tuntap.Name}
	for range cfg.Queues {
		q, err := attach(t.name)
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("attach a queue to TAP %s: %w", t.name, err)
		}
		t.queues = append(t.queues, q)
	}
	if err := t.configure(); err != nil {
		t.Close()
		return nil, fmt.Errorf("configure TAP %s: %w", t.name, err)
	}
	return t, nil
}

// CanMakeTAPs says what this process lacks to make TAPs, before it begins anything.
func CanMakeTAPs() error {
	if _, err := os.Stat("/dev/net/tun"); errors.Is(err, os.ErrNotExist) {
		return errors.New("/dev/net/tun does not exist, so no TAP can be made: load the kernel module with `modprobe tun`, " +
			"or pass the device into the container")
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errors.New("not permitted to make network devices: run as root, or with CAP_NET_ADMIN")
	}
	return nil
}

// explainTAP says what to do about the reasons why a TAP cannot be made.
func explainTAP(name string, err error) error {
	if cannot := CanMakeTAPs(); cannot != nil {
		return fmt.Errorf("make TAP %s: %w", name, cannot)
	}
	if _, e := netlink.LinkByName(name); e == nil {
		return fmt.Errorf("make TAP %s: a network device of that name exists already; remove it, or choose another name, such as loom%%d for the first number that is free", name)
	}
	return fmt.Errorf("make TAP %s: %w", name, err)
}

func (t *TAP) configure() error {
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	if t.home, err = currentNamespace(); err != nil {
		return err
	}
	if err := netlink.LinkSetHardwareAddr(link, net.HardwareAddr(t.cfg.MAC[:])); err != nil {
		return fmt.Errorf("set MAC: %w", err)
	}
	if err := netlink.LinkSetMTU(link, t.cfg.MTU); err != nil {
		return fmt.Errorf("set MTU: %w", err)
	}
	if err := setSysctls(t.name); err != nil {
		return err
	}
	if err := t.setOffloads(link); err != nil {
		return err
	}
	return t.SetCarrier(false)
}

// setOffloads is for the whole device, whichever queue asks.
func (t *TAP) setOffloads(link netlink.Link) error {
	if t.cfg.NoOffload {
		return nil
	}
	err := control(t.queues[0].fd, func(fd int) error {
		t.offloads = setOffload(fd)
		return nil
	})
	if t.offloads.TSO && t.cfg.SuperFrame > 0 {
		// An older kernel gives longer ones, which take two bursts.
		_ = netlink.LinkSetGSOMaxSize(link, t.cfg.SuperFrame)
		_ = netlink.LinkSetGSOIPv4MaxSize(link, t.cfg.SuperFrame)
	}
	return err
}

// Name returns the device's present name.
func (t *TAP) Name() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.name
}

// Index returns the device's index.
func (t *TAP) Index() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.index
}

// Offloads returns what the kernel has granted: what it may leave undone on frames that are read, and what may be left
// undone on those that are written.
func (t *TAP) Offloads() ether.Offloads { return t.offloads }

// Queues returns the device's queues. Each wants a goroutine that reads it.
func (t *TAP) Queues() []*Queue { return t.queues }

// Up brings the device up.
func (t *TAP) Up() error {
	return t.with(func(h *netlink.Handle, link netlink.Link) error { return h.LinkSetUp(link) })
}

// SetCarrier says whether frames can be carried at all, as a cable that is plugged in or not.
func (t *TAP) SetCarrier(on bool) error {
	value := 0
	if on {
		value = 1
	}
	return control(t.queues[0].fd, func(fd int) error { return setCarrier(fd, value) })
}

// Close removes the device, and with it every address and route that hangs on it.
func (t *TAP) Close() {
	for _, q := range t.queues {
		_ = q.fd.Close()
	}
}

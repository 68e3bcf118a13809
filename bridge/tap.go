package bridge

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"github.com/songgao/water"
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
}

// TAP is a network device of this machine whose other end is the switch.
type TAP struct {
	cfg    TAPConfig
	queues []*Queue

	mu    sync.Mutex
	name  string
	index int
	home  uint64 // inode of the network namespace it is in
	away  bool   // that is not the daemon's
	addrs []addr // that we have set
}

// vnetHeader is the length of the header that the kernel puts in front of every frame (struct virtio_net_hdr).
const vnetHeader = 10

// MaxFrame is the room that Queue.Read needs, header included.
const MaxFrame = vnetHeader + 18 + 65535

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

func attach(name string) (*Queue, error) {
	dev, err := water.New(water.Config{
		DeviceType: water.TAP, PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: true},
	})
	if err != nil {
		return nil, err
	}
	file, ok := dev.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, errors.New("water's device is not a file")
	}
	q := &Queue{file: file}
	if q.raw, err = file.SyscallConn(); err != nil {
		_ = file.Close()
		return nil, err
	}
	q.try = func(fd uintptr) bool {
		q.n, q.err = unix.Read(int(fd), q.buf)
		return true // whatever it was: do not wait
	}
	var flags uint16
	err = control(file, func(fd int) error {
		unix.CloseOnExec(fd) // water does not
		var err error
		flags, err = tapFlags(fd)
		return err
	})
	if err == nil && flags&unix.IFF_VNET_HDR == 0 {
		err = errors.New("the queue has no virtio header")
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return q, nil
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
	// Device-wide. A kernel that refuses gives whole frames.
	if control(t.queues[0].file, setOffload) == nil && t.cfg.SuperFrame > 0 {
		// An older kernel gives longer ones, which take two bursts.
		_ = netlink.LinkSetGSOMaxSize(link, t.cfg.SuperFrame)
		_ = netlink.LinkSetGSOIPv4MaxSize(link, t.cfg.SuperFrame)
	}
	return t.SetCarrier(false)
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
	return control(t.queues[0].file, func(fd int) error { return setCarrier(fd, value) })
}

// Close removes the device, and with it every address and route that hangs on it.
func (t *TAP) Close() {
	for _, q := range t.queues {
		_ = q.file.Close()
	}
}

// Queue is one of a TAP's queues. One goroutine may read while others write.
type Queue struct {
	file *os.File
	raw  syscall.RawConn
	try  func(fd uintptr) bool // reads once into buf, made once for all reads

	buf []byte // of the present TryRead
	n   int
	err error
}

// Read waits for a frame from the host and returns it, with what the host has left undone on it; it lies in b, which must
// be MaxFrame long to hold every frame. The error is os.ErrClosed when the TAP has been closed.
func (q *Queue) Read(b []byte) ([]byte, ether.Offload, error) {
	for {
		n, err := q.file.Read(b)
		if err != nil {
			return nil, ether.Offload{}, err
		}
		if n > vnetHeader {
			return b[vnetHeader:n], parseVnet(b[:vnetHeader]), nil
		}
	}
}

// TryRead is Read without waiting: ok is false if the host has nothing to send at the moment, or the TAP has been closed.
func (q *Queue) TryRead(b []byte) (frame []byte, undone ether.Offload, ok bool) {
	q.buf = b
	if err := q.raw.Read(q.try); err != nil || q.err != nil || q.n <= vnetHeader {
		return nil, ether.Offload{}, false
	}
	return b[vnetHeader:q.n], parseVnet(b[:vnetHeader]), true
}

// Writer gives frames to the host. It is for one goroutine.
type Writer struct {
	queue *Queue
	call  func(fd uintptr) bool // made once for all writes
	head  [vnetHeader]byte
	parts [2]unix.Iovec // head and frame
	errno syscall.Errno
}

// NewWriter returns a Writer on the queue.
func (q *Queue) NewWriter() *Writer {
	w := &Writer{queue: q}
	w.parts[0].Base = &w.head[0]
	w.parts[0].SetLen(vnetHeader)
	w.call = func(fd uintptr) bool {
		_, _, w.errno = unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.parts[0])), uintptr(len(w.parts)))
		return w.errno != unix.EAGAIN
	}
	return w
}

// Write gives one frame to the host, as if it had come in on a cable, or a super-frame, as if its card had joined several.
func (w *Writer) Write(frame []byte, undone ether.Offload) error {
	putVnet(w.head[:], frame, undone)
	w.parts[1].Base = unsafe.SliceData(frame)
	w.parts[1].SetLen(len(frame))
	err := w.queue.raw.Write(w.call)
	w.parts[1].Base = nil // the frame was borrowed
	if err == nil && w.errno != 0 {
		err = w.errno
	}
	return err
}

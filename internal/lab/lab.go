// Package lab builds networks out of Linux network namespaces, for `etherloom demo` and for the end-to-end tests.
//
// A Lab is a set of hosts. A Host is a network namespace with one OS thread that lives in it, and a private view of
// the file system. A host becomes a router by forwarding (AddRouter) or a LAN, or "the internet", by holding a Linux
// bridge (AddBridge). Cables join two hosts; each end of a cable is a Link:
//
//	l, err := lab.New("loom")
//	defer l.Close()
//	internet, err := l.AddBridge("internet")
//	gate, err := l.AddRouter("gate")
//	alice, err := l.AddHost("alice")
//	outside, err := gate.Join(internet, "wan", "203.0.113.2/24")
//	_, err = l.Cable(lab.Plug{On: gate, Name: "lan", Addrs: []string{"10.1.0.1/24"}},
//		lab.Plug{On: alice, Name: "eth0", Addrs: []string{"10.1.0.2/24"}})
//	err = alice.AddRoute("default", "10.1.0.1")
//	err = gate.Protect(outside, lab.PortPreserving)
//	out, err := alice.Run(ctx, "ip", "address")
//
// Addresses are written as ip(8) takes them; what cannot be parsed is an error of the call. IPv6 addresses can be
// used at once: duplicate address detection is off.
//
//	                 Lab loom-4711     files in /tmp/loom-4711
//	                      |
//	     +----------------+----------------+
//	Host gate       Host internet      Host alice     network namespace loom-4711-alice
//	  |     |             |                |
//	 Link  Link --Cable-- Link (port)      |
//	  +-----------------Cable------------ Link        a veth pair, or two TAPs with delay and loss between them
//
// What happens on the way is set on links: Drop (partition, loss, black hole, "no UDP here"), Hold (reordering) and
// Count. Hosts record
// (Capture), ask what the far end answers (Ping, ScanTCP, ProbeUDP), and send frames of any kind (SendFrames, and in
// numbers SendTrain, which Capture.Train counts elsewhere). None of it needs a program that a fresh machine lacks.
//
// A site that has VLANs is a VLANSwitch with machines at its ports; it needs Open vSwitch:
//
//	site, err := l.AddVLANSwitch(ctx, "site")
//	eth0, err := site.Access(ctx, lab.Plug{On: camera, Name: "eth0"}, 10)
//	lan, err := site.Trunk(ctx, lab.Plug{On: gateway, Name: "lan"}, 10, 20)
//
// Machines there take a lease (ServeDHCP, TakeLease), resolve names and copy files (CopyFile), with the programs that
// their users would take. What only another kernel can, a bridge with VLANs for one, a Guest does, under qemu.
//
// # What a host's commands see
//
// Command, Run and Start run programs that have, besides their own network, an empty /run, and an /etc and a /var/lib
// whose changes only this host sees and which are gone with it. So each host has its own /etc/resolv.conf, its own
// hostname and its own /var/lib/etherloom. /tmp is the machine's. Nothing is written to /etc/netns.
//
// # Nothing is left
//
// Close ends every process in every namespace, waits for them, and removes namespaces and files. It may be called
// at any time, more than once. If the process that made the lab is killed instead, its children die with it:
// every command is a child of its host's thread, which lives as long as the host, and has that thread's end as its
// parent-death signal (prctl(2), PR_SET_PDEATHSIG, which watches the thread and not the process). The namespaces,
// the files and the children's orphaned children are left; the names tell whose they were, and Sweep removes those
// whose process no longer lives. A process that has left all namespaces of its host is found by neither.
//
// Goroutines: AddHost and its kin start one per host, ended by Close; Start one per process, Capture one, ShapedCable
// two and Hold one for each direction, ended by Stop, Remove or Close.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by everything that is asked of a lab or a host that has been closed.
var ErrClosed = errors.New("lab: closed")

// Lab is a set of hosts and the cables between them. Its methods may be called from several goroutines.
type Lab struct {
	name string
	dir  string

	mu     sync.Mutex // held while hosts are added and while Close works
	closed bool
	hosts  []*Host
}

// New returns an empty lab. Its name is PREFIX-PID, or PREFIX-PID.N for the process's further labs, and all that it
// makes on the machine begins with that name. The prefix is lower-case letters and digits.
func New(prefix string) (*Lab, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	name, dir, err := claim(prefix)
	if err != nil {
		return nil, err
	}
	return &Lab{name: name, dir: dir}, nil
}

// Supported says what this machine or user lacks to run a lab; nil is nothing.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("a network lab needs root: it makes network namespaces")
	}
	result := make(chan error, 1)
	onFreshThread(func() {
		err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
		if err != nil {
			err = fmt.Errorf("a network lab needs CAP_SYS_ADMIN: make namespaces: %w", err)
		}
		result <- err
	})
	return <-result
}

// Name returns the lab's name, for example loom-4711.
func (l *Lab) Name() string { return l.name }

// Dir returns the lab's directory on the machine. Close removes it.
func (l *Lab) Dir() string { return l.dir }

// AddHost adds a host: an empty network with its loopback interface up.
func (l *Lab) AddHost(name string) (*Host, error) { return l.add(name, (*Host).beHost) }

// AddRouter adds a host that forwards IPv4 and IPv6. It filters nothing until Protect is called.
func (l *Lab) AddRouter(name string) (*Host, error) { return l.add(name, (*Host).beRouter) }

// AddBridge adds a LAN, or "the internet": a host that is a bridge, with multicast snooping off, so that every
// frame for a group reaches every port. Cables that end on it become its ports. It has no addresses. A Capture on its
// interface br0 sees everything that it switches.
func (l *Lab) AddBridge(name string) (*Host, error) { return l.add(name, (*Host).beBridge) }

func (l *Lab) add(name string, role func(*Host) error) (*Host, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,31}$`).MatchString(name) {
		return nil, fmt.Errorf("host name %q is not 1 to 32 letters, digits and dashes", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if slices.ContainsFunc(l.hosts, func(h *Host) bool { return h.name == name }) {
		return nil, fmt.Errorf("the lab has a host %q already", name)
	}
	h := &Host{lab: l, name: name, dir: filepath.Join(l.dir, name)}
	if err := h.boot(role); err != nil {
		return nil, errors.Join(fmt.Errorf("add host %q: %w", name, err), h.shutdown())
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// forget takes a host that is shut down off the list.
func (l *Lab) forget(h *Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = slices.DeleteFunc(l.hosts, func(other *Host) bool { return other == h })
}

// Close ends all processes in the lab, waits for them, and removes all that the lab made. What it could not remove
// it returns as an error and tries again when called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	var left []*Host
	for _, h := range l.hosts {
		if err := h.shutdown(); err != nil {
			errs, left = append(errs, err), append(left, h)
		}
	}
	l.hosts = left
	if len(left) == 0 {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

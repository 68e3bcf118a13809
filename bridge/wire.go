package bridge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
)

// WireConfig says which NIC a wire shall take, or which bridge it shall join.
type WireConfig struct {
	NIC    string // by name: it may go, and come back as another device
	Bridge string // in place of NIC, the same
	Name   string // of the TAP; may hold %d; empty: wire%d
	// Move makes a NIC be taken that the host itself needs: a bridge of ours gets what the host has there (move.go).
	Move bool
	// Journal is a file that says what was changed on the NIC for as long as it is, so that it can be changed back after a crash.
	// Its directory exists. Each wire has its own. A bridge needs none.
	Journal   string
	Queues    int  // 0: one
	NoOffload bool // the kernel completes checksums and cuts super-frames itself
}

// Wire is a NIC of this machine, taken from the host: every frame that the NIC receives comes out of the queues, and every frame that is
// written to them is sent by the NIC, whatever its VLAN or its address.
//
//	network ══ NIC ── redirect ──► TAP ──► Queue.Read
//	               ◄── redirect ──     ◄── Writer
//
// The host's own stack receives nothing from the NIC any more; what it sends there still leaves. Packet sockets see both.
//
// The TAP has no addresses, speaks no IPv6, and keeps the kernel's limits of super-frames, so that the kernel need not cut
// here what it has joined at the NIC.
//
// Or it is a port of a bridge that exists, or of one that was made for what the host has on the NIC; then the bridge decides what comes out
// of the queues.
type Wire struct {
	cfg  WireConfig
	tap  *TAP
	h    *netlink.Handle
	raw  *rawSocket
	sock int // a packet socket; that it asks for promiscuity ends with the process

	unwanted uint32 // flags of ethtool's
	up       atomic.Bool

	telling sync.Mutex // held by Tell, before mu, and to close what it speaks by

	mu     sync.Mutex
	held   *changes       // on the NIC; nil while it is gone, or refused
	port   int            // index of the bridge of which the TAP is a port; 0 without
	told   map[place]bool // what the bridge was told by Tell
	active int            // index of the part of a bond that sends; 0 without a bond, or if all do
	closed bool
	gap    time.Duration // for how long the host had no way out when it was moved
}

// NewWire takes a NIC. It refuses one that the host needs: with an address other than IPv6's link-local, or a route; enslaved; or
// with other devices on it. It first restores what a wire that crashed has left.
func NewWire(cfg WireConfig) (*Wire, error) { return newWire(cfg, flagLRO) }

func newWire(cfg WireConfig, unwanted uint32) (*Wire, error) {
	if (cfg.NIC == "") == (cfg.Bridge == "") {
		return nil, fmt.Errorf("a wire needs a NIC or a bridge, one of them: got %q and %q", cfg.NIC, cfg.Bridge)
	}
	if cfg.NIC != "" && cfg.Journal == "" {
		return nil, errors.New("a wire needs a journal, without which its NIC cannot be restored after a crash")
	}
	if cfg.Name == "" {
		cfg.Name = "wire%d"
	}
	h, sock, err := sockets()
	if err != nil {
		return nil, fmt.Errorf("take %s: %w", cfg.NIC+cfg.Bridge, err)
	}
	raw, err := openRaw()
	if err != nil {
		h.Close()
		return nil, errors.Join(err, unix.Close(sock))
	}
	w := &Wire{cfg: cfg, h: h, raw: raw, sock: sock, unwanted: unwanted}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("take %s: %w", cfg.NIC+cfg.Bridge, err), w.Close())
	}
	return w, nil
}

func (w *Wire) open() error {
	if w.cfg.Bridge != "" {
		return w.openPort()
	}
	if err := restore(w.h, w.sock, w.raw, w.cfg.Journal); err != nil {
		return err
	}
	link, err := findNIC(w.h, w.cfg.NIC)
	if err != nil {
		return err
	}
	move, err := w.moves(link)
	if err != nil {
		return err
	}
	if err := w.makeTAP(link.Attrs().MTU); err != nil {
		return err
	}
	if move {
		return w.moveHost(link)
	}
	return w.take(link)
}

// CanTake says why a wire could not be made, and changes nothing. Whether another wire has the NIC already is part of it.
func CanTake(cfg WireConfig) error {
	h, sock, err := sockets()
	if err != nil {
		return err
	}
	raw, err := openRaw()
	if err != nil {
		h.Close()
		return errors.Join(err, unix.Close(sock))
	}
	w := &Wire{cfg: cfg, h: h, raw: raw, sock: sock, closed: true}
	defer func() {
		h.Close()
		raw.close()
		_ = unix.Close(sock) // nothing was written to it
	}()
	if cfg.Bridge != "" {
		_, err = w.findBridge()
		return err
	}
	link, err := findNIC(h, cfg.NIC)
	if err == nil {
		_, err = w.moves(link)
	}
	return err
}

// moves says whether what the host has on a NIC is to be moved, so that it can be taken; an error if it cannot be taken.
func (w *Wire) moves(link netlink.Link) (bool, error) {
	err := refusal(w.h, link)
	if err == nil || !w.cfg.Move || because(w.h, link, carriesAddress, carriesRoute) == nil {
		return false, err
	}
	_, err = w.raw.survey(w.h, link)
	return err == nil, err
}

// makeTAP makes the wire's other end, of which the host's stack shall make no use.
func (w *Wire) makeTAP(mtu int) error {
	tap, link, err := newSilentTAP(w.h, TAPConfig{Name: w.cfg.Name, MTU: mtu, Queues: w.cfg.Queues, NoOffload: w.cfg.NoOffload})
	w.tap = tap
	if err != nil {
		return err
	}
	// With no carrier the kernel would throw away what is for the TAP.
	return errors.Join(w.h.LinkSetARPOff(link), addHook(w.h, link), tap.SetCarrier(true), tap.Up())
}

// newSilentTAP makes a TAP on which the host's stack says nothing by itself. With an error the TAP may be there, and is to be closed.
func newSilentTAP(h *netlink.Handle, cfg TAPConfig) (*TAP, netlink.Link, error) {
	_, _ = rand.Read(cfg.MAC[:])
	cfg.MAC[0] = 0xfe // nobody's registered; and a bridge, which takes the least of its ports' addresses for its own, will not take this
	tap, err := NewTAP(cfg)
	if err != nil {
		return nil, nil, err
	}
	off := filepath.Join("/proc/sys/net/ipv6/conf", tap.Name(), "disable_ipv6")
	if err := os.WriteFile(off, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tap, nil, fmt.Errorf("switch IPv6 off on %s: %w", tap.Name(), err)
	}
	link, err := h.LinkByName(tap.Name())
	return tap, link, err
}

// take joins a NIC, which has passed refusal, to the TAP.
func (w *Wire) take(link netlink.Link) error {
	c, err := look(w.h, w.sock, link, w.unwanted)
	if err != nil {
		return err
	}
	if err := c.write(w.cfg.Journal); err != nil {
		return err
	}
	w.held = &c
	if err := w.join(link); err != nil {
		return errors.Join(err, w.release())
	}
	if link, err = w.h.LinkByIndex(c.Index); err != nil {
		return fmt.Errorf("find %s: %w", c.NIC, err)
	}
	w.up.Store(carries(link))
	return nil
}

// join changes what look has noted.
func (w *Wire) join(link netlink.Link) error {
	a := link.Attrs()
	if w.held.Flags != 0 {
		if err := (ethtoolFlags{w.sock, a.Name}).set(w.held.Flags, false); err != nil {
			return fmt.Errorf("switch large receive offload off (`ethtool -K %s lro off`): %w", a.Name, err)
		}
	}
	// Frames for any address. A card that drops foreign VLANs by itself lets them pass then, too.
	err := unix.SetsockoptPacketMreq(w.sock, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(a.Index), Type: unix.PACKET_MR_PROMISC})
	if err != nil {
		return fmt.Errorf("make it promiscuous: %w", err)
	}
	if w.held.Down {
		if err := w.h.LinkSetUp(link); err != nil {
			return fmt.Errorf("set it up: %w", err)
		}
	}
	if w.held.Clsact {
		if err := addHook(w.h, link); err != nil {
			return err
		}
	}
	return w.connect(link)
}

// connect makes the redirections in both directions be there, and the TAP's MTU be the NIC's.
func (w *Wire) connect(link netlink.Link) error {
	tap, err := w.h.LinkByIndex(w.tap.Index())
	if err != nil {
		return fmt.Errorf("find %s: %w", w.tap.Name(), err)
	}
	if err := w.setMTU(tap, link.Attrs().MTU); err != nil {
		return err
	}
	for _, d := range []struct {
		from netlink.Link
		to   int
	}{{tap, link.Attrs().Index}, {link, tap.Attrs().Index}} {
		if err := only(w.h, d.from, d.to); err != nil {
			return fmt.Errorf("join it to %s: %s: %w", w.tap.Name(), d.from.Attrs().Name, err)
		}
	}
	return nil
}

func (w *Wire) setMTU(tap netlink.Link, mtu int) error {
	if tap.Attrs().MTU == mtu {
		return nil
	}
	if err := w.h.LinkSetMTU(tap, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", w.tap.Name(), mtu, err)
	}
	return nil
}

// only makes a device have one redirection of ours.
func only(h *netlink.Handle, from netlink.Link, to int) error {
	ours, _, err := redirections(h, from)
	if err != nil || len(ours) == 1 && ours[0].RedirIndex == to {
		return err
	}
	if err := stopRedirecting(h, from); err != nil {
		return err
	}
	return redirect(h, from, to)
}

// release gives the NIC back.
func (w *Wire) release() error {
	if w.held == nil {
		return nil
	}
	// A NIC that is gone has left by itself.
	_ = unix.SetsockoptPacketMreq(w.sock, unix.SOL_PACKET, unix.PACKET_DROP_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(w.held.Index), Type: unix.PACKET_MR_PROMISC})
	if err := w.held.undo(w.h, w.sock, w.raw, w.cfg.Journal); err != nil {
		return err // the journal stays for the next start
	}
	w.held, w.port = nil, 0
	w.up.Store(false)
	return os.Remove(w.cfg.Journal)
}

// carries reports whether a device has a carrier.
func carries(link netlink.Link) bool {
	return link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 && link.Attrs().RawFlags&unix.IFF_UP != 0
}

// Queues returns the wire's queues. Each wants a goroutine that reads it.
func (w *Wire) Queues() []*Queue { return w.tap.Queues() }

// Offloads returns what may be left undone on frames that are read, and on those that are written.
func (w *Wire) Offloads() ether.Offloads { return w.tap.Offloads() }

// Name returns the TAP's present name.
func (w *Wire) Name() string { return w.tap.Name() }

// Index returns the TAP's index.
func (w *Wire) Index() int { return w.tap.Index() }

// MTU returns that of the NIC when Follow looked last, or that of the TAP on a bridge; 0 if that cannot be told.
func (w *Wire) MTU() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stateLocked().mtu
}

// Up reports whether the NIC was there, and had a carrier, when Follow looked last; or whether the bridge was there and up. It does not wait:
// who asks may have hellos to send while the NIC's host is being moved.
func (w *Wire) Up() bool { return w.up.Load() }

// Close gives the NIC back as it was, and removes the TAP.
func (w *Wire) Close() error {
	done, err := w.end()
	if done {
		return nil
	}
	w.telling.Lock() // Tell sees that the wire is closed, and ends
	defer w.telling.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.h.Close()
	w.raw.close()
	return errors.Join(err, unix.Close(w.sock))
}

// end takes the wire out of the host; done says that somebody has before.
func (w *Wire) end() (done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return true, nil
	}
	w.closed = true
	err = w.release()
	if w.tap != nil {
		w.tap.Close()
	}
	return false, err
}

// Moved returns the name of the bridge that has what the host had on the NIC, empty if nothing was moved; and for how long the
// host had no way out meanwhile.
func (w *Wire) Moved() (bridge string, gap time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil || w.held.Host == nil {
		return "", 0
	}
	return w.held.Host.Bridge, w.gap
}

// Filters reports whether frames of several VLANs are told apart on the way, as a wire does by itself; a bridge whose kernel cannot
// filter by VLAN has one table of addresses for all.
func (w *Wire) Filters() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil || w.held.Host == nil {
		return true
	}
	bridge, err := ourBridge(w.h, w.held.Host.Bridge, w.held.MAC)
	return err == nil && bridge != nil && bridge.VlanFiltering != nil && *bridge.VlanFiltering
}

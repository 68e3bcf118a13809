package bridge

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// Follow finds where the NIC is now: it may have gone, come back as another device, or changed its MTU or its carrier. A NIC that has
// come back is taken again, if the host does not need it. Follow says whether something has changed since the last call. It
// is to be called after each notice of Monitor, and every so often, for of filters that are removed there is none.
func (w *Wire) Follow() (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false, os.ErrClosed
	}
	before := w.stateLocked()
	err = w.followLocked()
	return w.stateLocked() != before, err
}

// wireState is what Follow may change.
type wireState struct {
	index, mtu int
	up         bool
	name       string
}

func (w *Wire) stateLocked() wireState {
	s := wireState{up: w.up.Load(), name: w.tap.Name()}
	if s.index = w.port; w.held != nil {
		s.index = w.held.Index
	}
	if tap, err := w.h.LinkByIndex(w.tap.Index()); err == nil {
		s.mtu = tap.Attrs().MTU
	}
	return s
}

func (w *Wire) followLocked() error {
	if _, err := w.tap.Follow(); err != nil {
		return fmt.Errorf("follow %s: %w", w.tap.Name(), err)
	}
	if w.cfg.Bridge != "" {
		return w.followBridge()
	}
	link, err := findNIC(w.h, w.cfg.NIC)
	if err != nil && !isGone(err) {
		return err
	}
	w.active = activeOf(link)
	if w.held != nil && (err != nil || link.Attrs().Index != w.held.Index) {
		// It has gone, or has another name: it is not the one that was meant.
		if err := w.release(); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if w.held == nil {
		return w.takeAgain(link)
	}
	if w.held.Host != nil {
		return w.followMoved(link)
	}
	if w.cfg.Move && because(w.h, link, carriesAddress) != nil {
		// The host has got its address only now, as after a boot: it cannot use it there.
		if err := w.release(); err != nil {
			return err
		}
		return w.takeAgain(link)
	}
	w.up.Store(carries(link))
	return w.keep(link)
}

// Active returns the index of the part of a bond that sends now; 0 if the NIC is no bond, or all its parts send.
func (w *Wire) Active() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

func activeOf(link netlink.Link) int {
	if bond, is := link.(*netlink.Bond); is {
		return max(bond.ActiveSlave, 0)
	}
	return 0
}

// followMoved keeps the NIC and the TAP ports of the bridge that has what the host had on the NIC. If somebody has removed the bridge, and
// with it what the host had there, the NIC gets it back, and it is moved anew.
func (w *Wire) followMoved(link netlink.Link) error {
	bridge, err := ourBridge(w.h, w.held.Host.Bridge, w.held.MAC)
	if err != nil {
		return err
	}
	if bridge == nil {
		w.held.Host.Done = false
		if err := w.release(); err != nil {
			return err
		}
		return w.takeAgain(link)
	}
	if err := w.joinBridge(bridge); err != nil {
		w.up.Store(false)
		return fmt.Errorf("join %s again: %w", w.held.Host.Bridge, err)
	}
	w.up.Store(carries(link))
	if link.Attrs().MasterIndex == bridge.Index {
		return nil
	}
	if err := w.h.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("make %s a port of %s again, which has this host's addresses: %w", w.held.NIC, w.held.Host.Bridge, err)
	}
	return w.tag(link, bridge)
}

func (w *Wire) takeAgain(link netlink.Link) error {
	move, err := w.moves(link)
	if err != nil {
		return err
	}
	if move {
		return w.moveHost(link)
	}
	if err := w.take(link); err != nil {
		return fmt.Errorf("take %s again: %w", w.cfg.NIC, err)
	}
	return nil
}

// keep puts back what a wire cannot be without, if somebody has removed it, as a network daemon does that starts again.
func (w *Wire) keep(link netlink.Link) error {
	has, err := hasHook(w.h, link)
	if err == nil && !has {
		w.held.Clsact = true // whoever's the one before was
		if err = w.held.write(w.cfg.Journal); err == nil {
			err = addHook(w.h, link)
		}
	}
	if err == nil {
		err = w.connect(link)
	}
	if err != nil {
		return fmt.Errorf("keep %s joined: %w", w.cfg.NIC, err)
	}
	return nil
}

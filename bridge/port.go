package bridge

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
)

// A wire that is a port of a bridge is nothing but a TAP there: with it, all that was changed goes. On a bridge that filters by VLAN it is
// a trunk: of the bridge's default VLAN without tag, as every new port, and of all others with their tags.

func (w *Wire) openPort() error {
	link, err := w.findBridge()
	if err != nil {
		return err
	}
	if err := w.makeTAP(link.Attrs().MTU); err != nil {
		return err
	}
	if err := w.joinBridge(link); err != nil {
		return err
	}
	w.up.Store(carries(link))
	return nil
}

func (w *Wire) findBridge() (*netlink.Bridge, error) {
	link, err := findNIC(w.h, w.cfg.Bridge)
	if err != nil {
		return nil, err
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("%s is no bridge (it is of type %s): give it as the NIC to take", w.cfg.Bridge, link.Type())
	}
	return bridge, nil
}

// joinBridge makes the TAP a port of the bridge, unless it is. The bridge's MTU is the least of its ports', or what somebody has set: the TAP's is
// never less.
func (w *Wire) joinBridge(bridge *netlink.Bridge) error {
	w.port = 0
	tap, err := w.h.LinkByIndex(w.tap.Index())
	if err != nil {
		return fmt.Errorf("find %s: %w", w.tap.Name(), err)
	}
	a := bridge.Attrs()
	if tap.Attrs().MTU < a.MTU {
		if err := w.setMTU(tap, a.MTU); err != nil {
			return err
		}
	}
	if tap.Attrs().MasterIndex != a.Index {
		if err := w.h.LinkSetMasterByIndex(tap, a.Index); err != nil {
			return fmt.Errorf("make %s a port of it: %w", w.tap.Name(), err)
		}
		w.told = nil // with the port its entries went
		if err := w.tag(tap, bridge); err != nil {
			return err
		}
	}
	w.port = a.Index
	return nil
}

// tag gives the port its VLANs. A bridge that does not filter lets all pass, and may not know VLANs; but it may be told to later.
func (w *Wire) tag(port netlink.Link, bridge *netlink.Bridge) error {
	for _, r := range tagged(bridge.VlanDefaultPVID) {
		err := w.h.BridgeVlanAddRange(port, r[0], r[1], false, false, false, true)
		if err != nil && bridge.VlanFiltering != nil && *bridge.VlanFiltering {
			name := port.Attrs().Name
			return fmt.Errorf("give %s the VLANs %d to %d (if the card can filter but few of them: `ethtool -K %s rx-vlan-filter off`): %w", name, r[0], r[1], name, err)
		}
	}
	return nil
}

// untag takes its tagged VLANs off a port that is to leave its bridge. With the port they would go by themselves, but while it is closed already:
// a card that filters VLANs itself is told of each, which has taken seconds for all, and the host would have no way out for so long.
func untag(h *netlink.Handle, port netlink.Link, bridge *netlink.Bridge) {
	for _, r := range tagged(bridge.VlanDefaultPVID) {
		_ = h.BridgeVlanDelRange(port, r[0], r[1], false, false, false, true) // a bridge that knows no VLANs has none to take off
	}
}

// tagged lists, from and to, all VLANs but the bridge's default, which is 0 if it has none.
func tagged(pvid *uint16) [][2]uint16 {
	if pvid == nil || *pvid == 0 {
		return [][2]uint16{{1, ether.MaxVLAN}}
	}
	var out [][2]uint16
	if *pvid > 1 {
		out = append(out, [2]uint16{1, *pvid - 1})
	}
	if *pvid < ether.MaxVLAN {
		out = append(out, [2]uint16{*pvid + 1, ether.MaxVLAN})
	}
	return out
}

// followBridge is Follow of a port: the bridge may have gone, come back as another, been given another MTU, or lost the port.
func (w *Wire) followBridge() error {
	bridge, err := w.findBridge()
	if err != nil {
		w.port = 0
		w.up.Store(false)
		return err
	}
	if err := w.joinBridge(bridge); err != nil {
		w.up.Store(false)
		return fmt.Errorf("join %s again: %w", w.cfg.Bridge, err)
	}
	w.up.Store(carries(bridge))
	return nil
}

package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A NIC by which the host itself is reached can be taken all the same: by a bridge of ours, which the NIC and the TAP are ports of. The
// bridge has the NIC's MAC, and gets its addresses and routes, so that the host stays what it was to everybody else, connections
// included:
//
//	before:  network ══ eth0 192.0.2.2/24
//	after:   network ══ eth0 ── br-eth0 192.0.2.2/24 ── TAP
//
// The bridge runs, with addresses, before the NIC becomes its port; what the NIC receives until then is the NIC's. So the time in which the
// host has no way out is that of a few netlink calls. It is all in the journal before anything is changed.

// relocation is what the host has on a NIC, and what bridge takes it over.
type relocation struct {
	Bridge    string    `json:"bridge"`
	Addresses []message `json:"addresses"` // in the kernel's order
	Routes    []message `json:"routes"`
	Written   []message `json:"neighbours"` // that somebody has written down
	Read      time.Time `json:"read"`       // when these were: so much of their lifetimes is over
	// Done says that all is on the bridge. From then on what it has is the host's, also what others have changed there.
	Done bool `json:"done"`
}

// bridgeName is what the bridge of a NIC is called: as long a part of its name as fits.
func bridgeName(nic string) string {
	const most = unix.IFNAMSIZ - 1 - len("br-")
	return "br-" + nic[max(len(nic)-most, 0):]
}

// survey notes what the host has on a NIC, or says why that cannot be moved.
func (r *rawSocket) survey(h *netlink.Handle, link netlink.Link) (*relocation, error) {
	a, err := link.Attrs(), because(h, link, wrongKind, enslaved, carriesDevice, joinedAlready, isDown, isRule)
	if err != nil {
		return nil, err
	}
	out := &relocation{Bridge: bridgeName(a.Name), Read: time.Now()}
	if other, err := h.LinkByName(out.Bridge); err == nil {
		return nil, fmt.Errorf("there is a %s %s already, which would take what the host has on %s: remove it, or join it if it is a bridge of the NIC's", other.Type(), out.Bridge, a.Name)
	}
	if out.Addresses, err = r.addresses(a.Index); err != nil {
		return nil, err
	}
	if out.Routes, err = r.routes(a.Index); err != nil {
		return nil, err
	}
	if out.Written, err = r.neighbours(a.Index); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(out.Routes, message.indirect); i >= 0 {
		return nil, fmt.Errorf("%s has the route %s by a nexthop object, which stays at its device: replace it by one that names the gateway (`ip nexthop`, `ip route`)",
			a.Name, out.Routes[i].destination())
	}
	return out, nil
}

func isDown(_ *netlink.Handle, link netlink.Link) (string, error) {
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		return fmt.Sprintf("is down, so that its addresses are of no use: set it up with `ip link set %s up`, or remove them", link.Attrs().Name), nil
	}
	return "", nil
}

// isRule is about what would not hold any more of frames that another device has.
func isRule(h *netlink.Handle, link netlink.Link) (string, error) {
	list, err := h.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return "", fmt.Errorf("list rules: %w", err)
	}
	for _, r := range list {
		if name := link.Attrs().Name; r.IifName == name || r.OifName == name {
			return fmt.Sprintf("is named by the routing rule %d, which would not hold of %s: remove it (`ip rule`)", r.Priority, bridgeName(name)), nil
		}
	}
	return "", nil
}

// moveHost gives a NIC that the host needs to a bridge, of which the TAP is a port as well.
func (w *Wire) moveHost(link netlink.Link) error {
	plan, err := w.raw.survey(w.h, link)
	if err != nil {
		return err
	}
	c, err := look(w.h, w.sock, link, w.unwanted)
	if err != nil {
		return err
	}
	c.Schema, c.Clsact, c.Host = movedSchema, false, plan
	if err := c.write(w.cfg.Journal); err != nil {
		return err
	}
	w.held = &c
	if err := w.swap(link, plan); err != nil {
		return errors.Join(fmt.Errorf("move what the host has on %s: %w", c.NIC, err), w.release())
	}
	plan.Done = true
	if err := c.write(w.cfg.Journal); err != nil {
		return errors.Join(err, w.release())
	}
	w.up.Store(carries(link))
	return nil
}

// swap makes the bridge be in the NIC's place. What is new is there before what is old goes, but for routes of IPv6, of which
// two with one metric would be one with two ways.
func (w *Wire) swap(link netlink.Link, plan *relocation) error {
	bridge, err := w.openBridge(link, plan.Bridge)
	if err != nil {
		return err
	}
	if err := w.raw.addAddresses(plan.Addresses, link, bridge, 0); err != nil {
		return err
	}
	if err := w.raw.addRoutes(plan.Routes, unix.AF_INET, link, bridge); err != nil {
		return err
	}
	if err := w.raw.addNeighbours(plan.Written, bridge); err != nil {
		return err
	}
	if w.held.Flags != 0 {
		if err := (ethtoolFlags{w.sock, link.Attrs().Name}).set(w.held.Flags, false); err != nil {
			return fmt.Errorf("switch large receive offload off (`ethtool -K %s lro off`): %w", link.Attrs().Name, err)
		}
	}
	began := time.Now()
	if err := w.h.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("make %s a port of %s: %w", link.Attrs().Name, plan.Bridge, err)
	}
	if err := w.raw.addRoutes(plan.Routes, unix.AF_INET6, link, bridge); err != nil {
		return err
	}
	if err := w.raw.clear(plan, link); err != nil {
		return err
	}
	w.gap = time.Since(began)
	if err := w.tag(link, bridge); err != nil {
		return err
	}
	return settings(link.Attrs().Name, plan.Bridge, func(name string) bool { return name == addressMode })
}

// openBridge makes the bridge of a NIC, which has the TAP for a port, and runs.
func (w *Wire) openBridge(link netlink.Link, name string) (*netlink.Bridge, error) {
	bridge, err := makeBridge(w.h, link, name)
	if err != nil {
		return nil, err
	}
	if err := w.joinBridge(bridge); err != nil {
		return nil, err
	}
	if err := settings(link.Attrs().Name, name, func(name string) bool { return name != addressMode }); err != nil {
		return nil, err
	}
	// The kernel shall make no address of its own: the NIC's, made of the same MAC, come without the pause in which a new one is no use.
	if err := setAddressMode(name, "1"); err != nil {
		return nil, err
	}
	if err := w.h.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return bridge, awaitCarrier(w.h, bridge)
}

// makeBridge makes a bridge for the host's part of a NIC: it has the NIC's MAC whatever its ports are, floods groups to all,
// and passes on what is sent to reserved addresses as far as the kernel lets it (802.1Q-2018 table 8-1, without 0, 1 and 2). It filters by
// VLAN where the kernel can: that keeps a table of addresses for each.
func makeBridge(h *netlink.Handle, link netlink.Link, name string) (*netlink.Bridge, error) {
	a, off, filter, mask := link.Attrs(), false, true, uint16(0xfff8)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = name, a.HardwareAddr, a.MTU
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off, VlanFiltering: &filter, GroupFwdMask: &mask}
	err := h.LinkAdd(bridge)
	if errors.Is(err, unix.EOPNOTSUPP) {
		bridge.VlanFiltering = nil
		err = h.LinkAdd(bridge)
	}
	if err != nil {
		return nil, fmt.Errorf("make the bridge %s (does the kernel have bridges? `modprobe bridge`): %w", name, err)
	}
	made, err := ourBridge(h, name, a.HardwareAddr.String())
	if err == nil && made == nil {
		err = fmt.Errorf("somebody has removed the bridge %s as it was made: try again", name)
	}
	if err != nil {
		return nil, err
	}
	return made, h.LinkSetAlias(made, "etherloom: what the host has on "+a.Name)
}

// ourBridge finds the bridge that we have made for a NIC, whose MAC it has; nil if it is gone, or another one has its name.
func ourBridge(h *netlink.Handle, name, mac string) (*netlink.Bridge, error) {
	link, err := h.LinkByName(name)
	if isGone(err) {
		return nil, nil //nolint:nilnil // it is no error that there is none
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	bridge, ok := link.(*netlink.Bridge)
	if !ok || bridge.HardwareAddr.String() != mac {
		return nil, nil //nolint:nilnil // the same
	}
	return bridge, nil
}

// awaitCarrier waits until a bridge sends: its TAP has a carrier, of which it hears a moment later.
func awaitCarrier(h *netlink.Handle, link netlink.Link) error {
	for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		now, err := h.LinkByIndex(link.Attrs().Index)
		if err != nil {
			return fmt.Errorf("find %s: %w", link.Attrs().Name, err)
		}
		if carries(now) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s has no carrier after a second, though its TAP has: nothing was changed on the NIC", link.Attrs().Name)
		}
	}
}

const addressMode = "addr_gen_mode"

func setAddressMode(name, mode string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, addressMode), []byte(mode), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("say how %s gets its link-local address: %w", name, err)
	}
	return nil
}

// settings gives one device what is set for another in /proc/sys: whether it forwards, from where it lets come in, whether it hears
// routers. What cannot be set by anybody is left out.
func settings(from, to string, of func(name string) bool) error {
	for _, kind := range []string{"ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"} {
		dir := filepath.Join("/proc/sys/net", kind)
		entries, err := os.ReadDir(filepath.Join(dir, from))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("read the settings of %s: %w", from, err)
		}
		for _, e := range entries {
			i, err := e.Info()
			if err != nil || i.Mode()&0o200 == 0 || e.Name() == "mtu" || !of(e.Name()) {
				continue
			}
			value, err := os.ReadFile(filepath.Join(dir, from, e.Name()))
			if err != nil {
				continue // a secret that is not set
			}
			path := filepath.Join(dir, to, e.Name())
			if now, err := os.ReadFile(path); err == nil && bytes.Equal(now, value) {
				continue
			}
			if err := os.WriteFile(path, value, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("set %s of %s: %w", e.Name(), to, err)
			}
		}
	}
	return nil
}

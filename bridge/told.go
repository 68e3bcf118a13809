package bridge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
)

// A bridge that filters by VLAN is told who is reached through the wire, of each VLAN by itself, so that it need not flood what is for a
// machine that has not spoken yet. The entries are of the kind that a control plane makes (extern_learn of bridge(8)): they do not
// age, and a machine that speaks elsewhere on the bridge takes its own along. They go with the TAP, however the process ends.
//
// A bridge that does not filter has one table for all VLANs, where a machine on two of them would be in one place: it is told nothing.

// Known is the address of a machine on a VLAN, as frames for it are tagged. VLAN 0: they have no tag, so the bridge's default VLAN is theirs.
type Known struct {
	VLAN    uint16
	Service bool // by a tag of 802.1ad
	MAC     ether.MAC
}

// Known is an address behind the wire, as frames for it come out of the bridge.
func (t Tagging) Known(mac ether.MAC) Known {
	if t.Native == NativeUntagged || t.VLAN == 0 {
		return Known{MAC: mac}
	}
	return Known{VLAN: t.VLAN, Service: t.Service, MAC: mac}
}

// mostTold is how many addresses a bridge is told: it floods what is for the others, as it does for whom it does not know.
const mostTold = 8192

// TellsVLANs reports whether the wire is a port of a bridge that can be told of addresses, for it filters by VLAN, or that was told of some.
func (w *Wire) TellsVLANs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	bridge, filters := w.joined()
	return bridge != nil && (filters || len(w.told) > 0)
}

// joined is the bridge of which the wire is a port, nil if it is of none; and whether that filters by VLAN.
func (w *Wire) joined() (bridge *netlink.Bridge, filters bool) {
	if w.closed || w.cfg.Bridge == "" || w.port == 0 {
		return nil, false
	}
	bridge, err := w.findBridge()
	if err != nil || bridge.Index != w.port {
		return nil, false // Follow says what is wrong
	}
	return bridge, bridge.VlanFiltering != nil && *bridge.VlanFiltering
}

// Tell makes a bridge know that these addresses are behind the wire, and forget those that it was told before and that are not among
// them. What it knows otherwise stays as it is: whom it has seen at another port, and what others have written down. It is to be called
// every so often, for others may flush the bridge. The error counts what the kernel has refused; the rest is told.
//
// Nobody else who has to do with the wire waits meanwhile, but Close: to read a large bridge's table, or to fill it, takes a tenth of a second.
func (w *Wire) Tell(want []Known) error {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.mu.Lock()
	bridge, filters := w.joined()
	before := w.told // belongs to who holds telling, once it is there
	w.mu.Unlock()
	if bridge == nil {
		return nil
	}
	if !filters {
		want = nil // it was told to filter no more: what it was told before would be believed when it does again
	}
	at, err := w.raw.vlansOf(bridge, want)
	if err != nil || len(at) == 0 && len(before) == 0 {
		return err // nothing to do, as for most VLANs at most times
	}
	knows, err := w.raw.bridgeTable(bridge.Index)
	if err != nil {
		return fmt.Errorf("ask bridge %s whom it knows: %w", w.cfg.Bridge, err)
	}
	forget, tell := differences(knows, before, at, w.tap.Index())
	told := make(map[place]bool, len(at))
	for _, p := range at {
		told[p] = before[p]
	}
	err = w.tell(forget, tell, told)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = told // if the port has left and come back meanwhile some are not there, and are told again
	return err
}

// ended reports whether the wire is closed.
func (w *Wire) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// tell makes the bridge forget some, and know others, and notes of what it has been told.
func (w *Wire) tell(forget, tell []place, told map[place]bool) error {
	var errs []error
	for _, p := range forget {
		if w.ended() {
			return nil
		}
		if err := w.entry(p, w.h.NeighDel); err != nil && !errors.Is(err, unix.ENOENT) { // it may be elsewhere by now
			told[p] = true
			errs = append(errs, fmt.Errorf("forget %s on VLAN %d: %w", p.mac, p.vlan, err))
		}
	}
	for _, p := range tell {
		if w.ended() {
			return nil
		}
		err := w.entry(p, w.h.NeighSet)
		told[p] = err == nil
		if err != nil {
			errs = append(errs, fmt.Errorf("know %s on VLAN %d: %w", p.mac, p.vlan, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("bridge %s refuses %d of %d changes of who is reached through %s, the first to %w: it floods what is for those (`bridge vlan show dev %s` says "+
			"which VLANs the port has)", w.cfg.Bridge, len(errs), len(forget)+len(tell), w.tap.Name(), errs[0], w.tap.Name())
	}
	return nil
}

// place is an address on one of a bridge's VLANs.
type place struct {
	vlan uint16
	mac  ether.MAC
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.vlan, b.vlan), bytes.Compare(a.mac[:], b.mac[:]))
}

// vlansOf says on which VLANs of a bridge addresses are, of no more than it is told. A bridge knows tags of one kind; frames with others have
// none, to it, so that what is behind them is not told. Nor is what has no tag where there is no default VLAN.
func (r *rawSocket) vlansOf(bridge *netlink.Bridge, want []Known) ([]place, error) {
	protocol, err := r.vlanProtocol(bridge.Index)
	if err != nil {
		return nil, fmt.Errorf("ask bridge %s for its VLAN protocol: %w", bridge.Name, err)
	}
	untagged := uint16(0)
	if bridge.VlanDefaultPVID != nil {
		untagged = *bridge.VlanDefaultPVID
	}
	return vlansIn(protocol == uint16(ether.TypeQinQ), untagged, want), nil
}

func vlansIn(service bool, untagged uint16, want []Known) []place {
	var out []place
	for _, k := range want {
		switch {
		case k.VLAN == 0:
			k.VLAN = untagged
		case k.Service != service:
			continue
		}
		if k.VLAN != 0 {
			out = append(out, place{k.VLAN, k.MAC})
		}
	}
	slices.SortFunc(out, comparePlaces)
	out = slices.Compact(out)
	return out[:min(len(out), mostTold)] // always the same ones, or they would come and go
}

// vlanProtocol is the EtherType of a bridge's tags.
func (r *rawSocket) vlanProtocol(index int) (uint16, error) {
	ask := make(message, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(ask[4:], uint32(index)) //nolint:gosec // an index is positive
	list, err := r.request(unix.RTM_GETLINK, 0, ask).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return 0, err
	}
	for _, b := range list {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		info := message(message(b).attribute(unix.SizeofIfInfomsg, unix.IFLA_LINKINFO))
		data := message(info.attribute(0, unix.IFLA_INFO_DATA))
		if v := data.attribute(0, nl.IFLA_BR_VLAN_PROTOCOL); len(v) == 2 {
			return binary.BigEndian.Uint16(v), nil
		}
	}
	return uint16(ether.TypeVLAN), nil // a kernel before it could be chosen
}

// seenAt is what a bridge knows of an address.
type seenAt struct {
	port    int // index
	told    bool
	written bool // by hand, or it is the bridge's own or a port's
}

// bridgeTable lists whom a bridge knows, as `bridge fdb show br` does. It asks with struct ifinfomsg and IFLA_MASTER, for every kernel understands
// that: family, nothing, type (2), index (4), flags (4), change (4).
func (r *rawSocket) bridgeTable(bridge int) (map[place]seenAt, error) {
	index := binary.NativeEndian.AppendUint32(nil, uint32(bridge)) //nolint:gosec // an index is positive
	ask := make(message, unix.SizeofIfInfomsg).with(unix.IFLA_MASTER, index)
	ask[0] = unix.AF_BRIDGE
	list, err := r.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, ask).Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, err
	}
	out := make(map[place]seenAt, len(list))
	for _, b := range list {
		if p, at, ok := message(b).bridgeEntry(index); ok {
			out[p] = at
		}
	}
	return out, nil
}

// bridgeEntry reads what a message says of an address that a bridge knows; false if it is about something else.
func (m message) bridgeEntry(bridge []byte) (place, seenAt, bool) {
	if len(m) < ndHead || m[0] != unix.AF_BRIDGE || !bytes.Equal(m.attribute(ndHead, netlink.NDA_MASTER), bridge) {
		return place{}, seenAt{}, false
	}
	var p place
	if copy(p.mac[:], m.attribute(ndHead, unix.NDA_LLADDR)) != len(p.mac) {
		return place{}, seenAt{}, false
	}
	if v := m.attribute(ndHead, netlink.NDA_VLAN); len(v) == 2 {
		p.vlan = binary.NativeEndian.Uint16(v)
	}
	state, flags := binary.NativeEndian.Uint16(m[8:]), m[10]
	return p, seenAt{
		port:    int(binary.NativeEndian.Uint32(m[4:])),
		told:    flags&netlink.NTF_EXT_LEARNED != 0,
		written: state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 || flags&netlink.NTF_STICKY != 0,
	}, true
}

// differences says what a bridge is to forget and what it is to be told: it knows some, was told some of them, and these are wanted at a port. An
// address that it has learned at this very port is told all the same, for it would age.
func differences(knows map[place]seenAt, told map[place]bool, want []place, port int) (forget, tell []place) {
	wanted := make(map[place]bool, len(want))
	for _, p := range want {
		wanted[p] = true
		if at, known := knows[p]; !known || at.port == port && !at.told && !at.written {
			tell = append(tell, p)
		}
	}
	for p, is := range told {
		if at := knows[p]; is && !wanted[p] && at.port == port && at.told && !at.written {
			forget = append(forget, p)
		}
	}
	slices.SortFunc(forget, comparePlaces)
	return forget, tell
}

// entry makes an entry of the bridge's, or removes it.
func (w *Wire) entry(p place, do func(*netlink.Neigh) error) error {
	return do(&netlink.Neigh{
		LinkIndex: w.tap.Index(), Family: unix.AF_BRIDGE, State: netlink.NUD_REACHABLE, Flags: netlink.NTF_MASTER | netlink.NTF_EXT_LEARNED,
		HardwareAddr: net.HardwareAddr(p.mac[:]), Vlan: int(p.vlan),
	})
}

package model

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
)

// Seat gives stations to members that have none yet, to at most limit nodes, and returns the nodes' new records. A
// station is kept for as long as the node exists, whatever becomes of the grant.
//
// It is an error if there is no room for a member that had no vacant seat in the Model before: who makes such a one is
// to be told. A member that found no room before just goes on without.
func (m *Model) Seat(limit int, before *Model) ([]*Node, error) {
	changed := map[identity.ID]*Node{}
	taken := map[VNI]occupancy{}
	var out []*Node
	for _, v := range m.vacant {
		if _, ok := taken[v.vni]; !ok {
			taken[v.vni] = m.occupied(v.vni)
		}
		s, err := m.newStation(v.node, m.Segments[v.vni], ModeAuto, taken[v.vni])
		if err != nil {
			if before == nil || !slices.Contains(before.vacant, v) {
				return nil, err
			}
			continue
		}
		n := changed[v.node]
		if n == nil && len(out) == limit {
			continue // another time; but there is room for it
		}
		if n == nil {
			n = m.Nodes[v.node].Clone()
			changed[v.node] = n
			out = append(out, n)
		}
		n.setStation(s)
	}
	return out, nil
}

// WithMode returns a node's record with another address mode on a segment, which the node need not be a member of.
// Addresses are for ModeStatic only.
func (m *Model) WithMode(n *Node, seg *Segment, mode Mode, addresses []netip.Prefix) (*Node, error) {
	taken := m.occupied(seg.VNI)
	taken.release(n.ID)
	if mode == ModeStatic {
		if err := m.checkStatic(n, seg, addresses); err != nil {
			return nil, err
		}
	} else if len(addresses) > 0 {
		return nil, fmt.Errorf("addresses are named in mode %s only, found mode %s", ModeStatic, mode)
	}
	s, err := m.newStation(n.ID, seg, mode, taken)
	if err != nil {
		return nil, err
	}
	s.Addresses = append(s.Addresses, addresses...)
	if old := n.station(seg.VNI); old != nil {
		s.MAC, s.Roles = old.MAC, old.Roles
	}
	c := n.Clone()
	c.setStation(s)
	return c, nil
}

// maxStatic is how many addresses a station may be given.
const maxStatic = 16

func (m *Model) checkStatic(n *Node, seg *Segment, addresses []netip.Prefix) error {
	if len(addresses) == 0 || len(addresses) > maxStatic {
		return fmt.Errorf("mode %s needs 1 to %d addresses, found %d", ModeStatic, maxStatic, len(addresses))
	}
	for _, p := range addresses {
		if err := m.checkAddress(n, seg, p.Addr()); err != nil {
			return err
		}
		if o := m.overlapping(netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), seg); o != nil {
			return fmt.Errorf("address %s lies in the prefix of segment %q, not of %q: choose another", p.Addr(), o.Name, seg.Name)
		}
		if o := m.overlapping(p.Masked(), seg); o != nil {
			return fmt.Errorf("address %s overlaps the prefix of segment %q: choose another, or a greater length", p, o.Name)
		}
	}
	return nil
}

// WithLease returns a node's record after a DHCP server gave it an address on a segment, or (the zero prefix) took it
// away. It is believed only in ModeDHCP, and only for an address of the segment that nobody else has.
func (m *Model) WithLease(n *Node, seg *Segment, lease netip.Prefix) (*Node, error) {
	s := n.station(seg.VNI)
	if s == nil || s.Mode != ModeDHCP {
		return nil, fmt.Errorf("node %q is not in address mode %s on segment %q: `node address` sets it", n.Name, ModeDHCP, seg.Name)
	}
	c := n.Clone()
	next := *s
	next.Addresses = slices.DeleteFunc(slices.Clone(s.Addresses), func(p netip.Prefix) bool { return p.Addr().Is4() })
	if lease.IsValid() {
		if !seg.IPv4.Contains(lease.Addr()) {
			return nil, fmt.Errorf("address %s is outside segment %q's prefix %s: correct the DHCP server's range or the segment's prefix",
				lease.Addr(), seg.Name, seg.IPv4)
		}
		if err := m.checkAddress(n, seg, lease.Addr()); err != nil {
			return nil, err
		}
		next.Addresses = append(next.Addresses, lease)
	}
	c.setStation(next)
	return c, nil
}

// checkAddress holds one address against form, the ends of the segment's prefix, and the nodes that are there.
func (m *Model) checkAddress(n *Node, seg *Segment, a netip.Addr) error {
	if !usable(a) || a == seg.IPv4.Addr() || a == lastOf(seg.IPv4) {
		return fmt.Errorf("address %s is not one that a host can have on segment %q", a, seg.Name)
	}
	if owner := m.occupied(seg.VNI).addresses[a]; owner != n.ID && m.holds(owner) {
		return fmt.Errorf("address %s is in use on segment %q by %s: choose another", a, seg.Name, m.who(owner))
	}
	return m.checkLeased(a, seg)
}

// checkLeased is an error if an address is that of the segment's DHCP service, or is leased.
func (m *Model) checkLeased(a netip.Addr, seg *Segment) error {
	if d := m.DHCP[seg.VNI]; d != nil && a == d.Server {
		return fmt.Errorf("address %s is that of the DHCP service of segment %q: choose another", a, seg.Name)
	}
	if l := m.LeaseAt(seg.VNI, a); l != nil && m.DHCP[seg.VNI] != nil && l.Machine != 0 {
		return fmt.Errorf("address %s is leased on segment %q to %s, MAC %s: choose another", a, seg.Name, m.who(l.Machine), l.MAC)
	}
	return nil
}

// holds reports whether an owner of an address keeps an administrator from giving it to another: any but nobody, and a node that was
// removed.
func (m *Model) holds(owner identity.ID) bool {
	n := m.Nodes[owner]
	return owner != 0 && (n == nil || n.OwnStatus != StatusRemoved)
}

// newStation allocates what a mode allocates.
func (m *Model) newStation(id identity.ID, seg *Segment, mode Mode, taken occupancy) (Station, error) {
	s := Station{VNI: seg.VNI, Mode: mode, MAC: m.newMAC(seg.VNI, id, taken)}
	if mode == ModeAuto {
		a, err := taken.lowestFree(seg)
		if err != nil {
			return Station{}, err
		}
		s.Addresses = append(s.Addresses, netip.PrefixFrom(a, seg.IPv4.Bits()))
		taken.addresses[a] = id
	}
	if mode == ModeAuto || mode == ModeDHCP {
		a := taken.freeIPv6(seg, id)
		s.Addresses = append(s.Addresses, netip.PrefixFrom(a, seg.IPv6.Bits()))
		taken.addresses[a] = id
	}
	taken.macs[s.MAC] = id
	return s, nil
}

// newMAC derives a node's MAC on a segment. Whoever knows network, segment and node can repeat it, so it survives the
// loss of the store.
func (m *Model) newMAC(vni VNI, id identity.ID, taken occupancy) MAC {
	network := m.Network()
	for try := uint32(0); ; try++ {
		h := hmac.New(sha256.New, network[:])
		h.Write(appendUint32s([]byte("etherloom mac v1\x00"), uint32(vni), uint32(id), try))
		mac := MAC(h.Sum(nil)[:6])
		mac[0] = mac[0]&^1 | 2 // IEEE 802-2014 section 8.2: individual, locally administered
		if owner := taken.macs[mac]; owner == 0 || owner == id {
			return mac
		}
	}
}

// occupancy is which node or host has which address and MAC on one segment.
type occupancy struct {
	addresses map[netip.Addr]identity.ID
	macs      map[MAC]identity.ID
	dhcp      *DHCP // the segment's service: nobody is given its address, nor one of its pool
}

// occupied collects what is in use on a segment. Addresses of a removed node stay in use until it is forgotten, so that
// no neighbour's cache leads to a wrong machine. Those of a host are its own while it has its record.
func (m *Model) occupied(vni VNI) occupancy {
	o := occupancy{addresses: map[netip.Addr]identity.ID{}, macs: map[MAC]identity.ID{}, dhcp: m.DHCP[vni]}
	for id, n := range m.Nodes {
		s := n.station(vni)
		if s == nil {
			continue
		}
		o.macs[s.MAC] = id
		for _, p := range s.Addresses {
			if n.OwnStatus != StatusRemoved || o.addresses[p.Addr()] == 0 {
				o.addresses[p.Addr()] = id
			}
		}
	}
	for id, h := range m.Hosts {
		if h.VNI != vni {
			continue
		}
		o.macs[h.MAC] = id
		for _, p := range h.Addresses {
			o.addresses[p.Addr()] = id
		}
	}
	return o
}

// linkLocal returns whose a link-local address is because it is made of a MAC, or 0.
func (o occupancy) linkLocal(a netip.Addr) identity.ID {
	if !a.Is6() || !a.IsLinkLocalUnicast() {
		return 0
	}
	for mac, id := range o.macs {
		if ether.MAC(mac).LinkLocal() == a {
			return id
		}
	}
	return 0
}

func (o occupancy) release(id identity.ID) {
	for a, owner := range o.addresses {
		if owner == id {
			delete(o.addresses, a)
		}
	}
	for mac, owner := range o.macs {
		if owner == id {
			delete(o.macs, mac)
		}
	}
}

// ErrFull means that all addresses of a segment's prefix are in use.
var ErrFull = errors.New("no free address left")

// lowestFree returns the lowest IPv4 address of a segment that nobody has, its first and last excepted.
func (o occupancy) lowestFree(seg *Segment) (netip.Addr, error) {
	last := lastOf(seg.IPv4)
	for a := seg.IPv4.Addr().Next(); a != last; a = a.Next() {
		if o.addresses[a] == 0 && !o.dhcp.reserves(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: segment %q, %s: remove nodes that are gone, or give some another address mode",
		ErrFull, seg.Name, seg.IPv4)
}

// freeIPv6 returns a node's IPv6 address on a segment: PREFIX::ID in hex, unless an administrator has given that to
// another node.
func (o occupancy) freeIPv6(seg *Segment, id identity.ID) netip.Addr {
	b := seg.IPv6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], uint32(id))
	for try := uint32(0); ; try++ {
		binary.BigEndian.PutUint32(b[8:], try)
		if a := netip.AddrFrom16(b); o.addresses[a] == 0 {
			return a
		}
	}
}

// lastOf returns the last address of an IPv4 prefix, to which broadcasts go.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:])
	n |= 1<<(32-p.Bits()) - 1 // in one expression - would come after |
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// Clone returns a record that can be changed without changing n.
func (n *Node) Clone() *Node {
	c := *n
	c.Stations, c.Spoke = slices.Clone(n.Stations), slices.Clone(n.Spoke)
	return &c
}

// Same reports whether two records say the same.
func Same(a, b *Node) bool { return reflect.DeepEqual(a, b) }

// SameRelay reports whether two records say the same.
func SameRelay(a, b *Relay) bool { return reflect.DeepEqual(a, b) }

// Forget returns the record of a locked or removed node for which nothing that was signed can be valid any more. A
// removed one gives up its addresses and its relay slot.
func (n *Node) Forget() *Node {
	c := n.Clone()
	c.Forgotten = true
	if c.OwnStatus == StatusRemoved {
		c.Stations, c.Spoke = nil, nil
	}
	return c
}

func (n *Node) station(vni VNI) *Station {
	for i := range n.Stations {
		if n.Stations[i].VNI == vni {
			return &n.Stations[i]
		}
	}
	return nil
}

func (n *Node) setStation(s Station) {
	if old := n.station(s.VNI); old != nil {
		*old = s
		return
	}
	n.Stations = append(n.Stations, s)
	slices.SortFunc(n.Stations, func(a, b Station) int { return cmp.Compare(a.VNI, b.VNI) })
}

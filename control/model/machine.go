package model

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/etherloom/etherloom/identity"
)

// Machine is what a Profile has of a party behind gateways: a host, or those behind an attachment whom nobody named. It has one
// station, on one segment, from the start.
type Machine struct {
	Gateways    []*Profile    // active nodes that may speak for it, by id; none: it is not active
	Attachments []identity.ID // behind which it may be, sorted; of those whom nobody named, their own
	Secondary   SecondaryVLAN // of these, all together
	Leases      []LeaseTold   // by address
}

// Outlet is an attachment's port as its gateway is told of it: whom it may speak for there, and who else may.
type Outlet struct {
	Segment    *Segment
	Attachment identity.ID
	Port       AttachmentPort
	Redundancy Redundancy
	LACP       bool
	Machines   []*Profile    // by id
	Revoked    []identity.ID // gateways of the attachment that are cut off
}

// SpeaksFor reports whether a profile is the node's own, or that of a machine whose gateway it is.
func (p *Profile) SpeaksFor(o *Profile) bool {
	if o.Machine == nil {
		return o.ID == p.ID
	}
	return slices.ContainsFunc(o.Machine.Gateways, func(g *Profile) bool { return g.ID == p.ID })
}

// OutletsOf returns the ports of attachments that an active node has, by attachment.
func (m *Model) OutletsOf(id identity.ID) []*Outlet { return m.outletsOf[id] }

// indexMachines notes which attachments a node has a port of, and which hosts are behind an attachment.
func (m *Model) indexMachines() {
	for _, id := range slices.Sorted(maps.Keys(m.Attachments)) {
		a := m.Attachments[id]
		seen := map[identity.ID]bool{}
		for _, p := range a.Ports {
			if !seen[p.Node] {
				m.attachmentsOf[p.Node] = append(m.attachmentsOf[p.Node], a)
			}
			seen[p.Node] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Hosts)) {
		h := m.Hosts[id]
		m.hosts[h.Name] = h
		for _, a := range slices.Compact(slices.Clone(h.Attachments)) {
			m.hostsBehind[a] = append(m.hostsBehind[a], h)
		}
	}
}

// deriveMachines makes the profiles of machines. Those of nodes are there already.
func (m *Model) deriveMachines(previous *Model) {
	m.cutGateways = map[identity.ID][]identity.ID{}
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		n := m.Nodes[id]
		if !m.cutOff(n) {
			continue
		}
		for _, a := range m.attachmentsOf[id] {
			m.cutGateways[a.ID] = append(m.cutGateways[a.ID], id)
		}
		for _, a := range n.Spoke {
			if !slices.Contains(m.cutGateways[a], id) {
				m.cutGateways[a] = append(m.cutGateways[a], id)
			}
		}
	}
	for id, a := range m.Attachments {
		m.addMachine(&Profile{ID: id, Name: m.AttachmentName(a), Stations: []Station{{VNI: a.VNI, Mode: ModeStatic}}}, []identity.ID{id}, previous)
	}
	for id, h := range m.Hosts {
		if m.Attachments[id] != nil {
			continue // as little as a node and a machine
		}
		s := Station{VNI: h.VNI, MAC: h.MAC, Mode: ModeStatic, Addresses: h.Addresses, Roles: h.Roles}
		m.addMachine(&Profile{ID: id, Name: h.Name, Stations: []Station{s}}, h.Attachments, previous)
	}
	m.deriveOutlets(previous)
}

// addMachine completes a machine's profile, and keeps the previous Model's if it says the same.
func (m *Model) addMachine(p *Profile, attachments []identity.ID, previous *Model) {
	if m.Nodes[p.ID] != nil {
		return // no store has two of one number; if one had, it would be the one with a certificate
	}
	x := &Machine{Leases: m.told(p.ID, p.Stations[0].VNI)}
	for _, id := range attachments {
		a := m.Attachments[id]
		if a == nil || a.VNI != p.Stations[0].VNI {
			continue
		}
		x.Secondary = x.Secondary.and(a.Secondary)
		x.Attachments = append(x.Attachments, id)
		for _, port := range a.Ports {
			if g := m.Nodes[port.Node]; g != nil && m.mayBridge(g) {
				x.Gateways = append(x.Gateways, m.profiles[g.ID])
			}
		}
	}
	slices.Sort(x.Attachments)
	slices.SortFunc(x.Gateways, byID)
	x.Attachments, x.Gateways = slices.Compact(x.Attachments), slices.Compact(x.Gateways)
	p.Machine = x
	if old := previous.profiles[p.ID]; reflect.DeepEqual(p, old) {
		p = old
	}
	m.profiles[p.ID] = p
}

// mayBridge reports whether a node may speak for machines now.
func (m *Model) mayBridge(n *Node) bool {
	return m.Status(n) == StatusActive && slices.Contains(n.Roles, gatewayRole)
}

// deriveOutlets works out what gateways are told of their ports.
func (m *Model) deriveOutlets(previous *Model) {
	for _, id := range slices.Sorted(maps.Keys(m.Attachments)) {
		a := m.Attachments[id]
		unnamed := m.profiles[id]
		if m.Segments[a.VNI] == nil || unnamed == nil || unnamed.Machine == nil {
			continue
		}
		machines := []*Profile{unnamed}
		for _, h := range m.hostsBehind[id] {
			if p := m.profiles[h.ID]; p != nil && p.Machine != nil && slices.Contains(p.Machine.Attachments, id) {
				machines = append(machines, p)
			}
		}
		slices.SortFunc(machines, byID)
		for _, g := range unnamed.Machine.Gateways {
			o := &Outlet{Segment: m.Segments[a.VNI], Attachment: id, Port: *a.Port(g.ID), Redundancy: a.Redundancy, LACP: a.LACP, Machines: machines, Revoked: m.cutGateways[id]}
			for _, old := range previous.outletsOf[g.ID] {
				if old.equal(o) {
					o = old
				}
			}
			m.outletsOf[g.ID] = append(m.outletsOf[g.ID], o)
		}
	}
}

func (o *Outlet) equal(x *Outlet) bool {
	return *o.Segment == *x.Segment && o.Attachment == x.Attachment && o.Port == x.Port && o.Redundancy == x.Redundancy && o.LACP == x.LACP &&
		slices.Equal(o.Machines, x.Machines) && slices.Equal(o.Revoked, x.Revoked)
}

// Active reports whether an identity is one of an active node, or of a machine that has an active gateway.
func (m *Model) Active(id identity.ID) bool {
	if n := m.Nodes[id]; n != nil {
		return m.Status(n) == StatusActive
	}
	p := m.profiles[id]
	return p != nil && p.Machine != nil && len(p.Machine.Gateways) > 0
}

// listeners are the nodes, by id, that are told what concerns any in a list: nodes themselves, and the gateways of machines.
func listeners(list []*Profile) []identity.ID {
	var out []identity.ID
	for _, p := range list {
		if p.Machine == nil {
			out = append(out, p.ID)
			continue
		}
		for _, g := range p.Machine.Gateways {
			out = append(out, g.ID)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// cutGatewaysOf are the gateways of an identity's attachments that are cut off, if it is that of a machine.
func (m *Model) cutGatewaysOf(id identity.ID) []identity.ID {
	p := m.profiles[id]
	if p == nil || p.Machine == nil {
		return nil
	}
	var out []identity.ID
	for _, a := range p.Machine.Attachments {
		out = append(out, m.cutGateways[a]...)
	}
	return out
}

// StandIns returns for each machine of a segment what one such machine could use: the MAC and the addresses of its record, or,
// where it may use any, some that are nobody's. Policy is asked about the stand-in as about the machine.
func (m *Model) StandIns(vni VNI) map[identity.ID]*Station {
	seg, out := m.Segments[vni], map[identity.ID]*Station{}
	if seg == nil {
		return out
	}
	taken := m.occupied(vni)
	for _, id := range slices.Sorted(maps.Keys(m.profiles)) {
		p := m.profiles[id]
		if p.Machine == nil || p.station(vni) == nil {
			continue
		}
		s := *p.station(vni)
		if s.MAC == (MAC{}) {
			s.MAC = m.newMAC(vni, id, taken)
			taken.macs[s.MAC] = id
		}
		if len(s.Addresses) == 0 {
			s.Addresses = taken.anyAddresses(seg, id)
		}
		out[id] = &s
	}
	return out
}

// anyAddresses takes an address of each family that nobody has; of IPv4 there may be none.
func (o occupancy) anyAddresses(seg *Segment, id identity.ID) []netip.Prefix {
	var out []netip.Prefix
	if a, err := o.lowestFree(seg); err == nil {
		out = append(out, netip.PrefixFrom(a, seg.IPv4.Bits()))
	}
	out = append(out, netip.PrefixFrom(o.freeIPv6(seg, id), seg.IPv6.Bits()))
	for _, p := range out {
		o.addresses[p.Addr()] = id
	}
	return out
}

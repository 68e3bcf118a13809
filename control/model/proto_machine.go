package model

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// MachineProto is a machine's profile as nodes are told it.
func (p *Profile) MachineProto() *controlv1.Machine {
	s := p.Stations[0].Proto()
	out := &controlv1.Machine{
		Id: uint32(p.ID), Name: p.Name, Vni: s.GetVni(), Addresses: s.GetAddresses(), Roles: s.GetRoles(),
		Attachments: uint32s(p.Machine.Attachments), Secondary: p.Machine.Secondary.Proto(),
	}
	if p.Stations[0].MAC != (MAC{}) {
		out.Mac = s.GetMac()
	}
	for _, g := range p.Machine.Gateways {
		out.Gateways = append(out.Gateways, uint32(g.ID))
	}
	return out
}

func uint32s(ids []identity.ID) []uint32 {
	var out []uint32
	for _, id := range ids {
		out = append(out, uint32(id))
	}
	return out
}

// Proto is the port as its gateway is told it.
func (o *Outlet) Proto() *controlv1.Attachment {
	p := &o.Port
	return &controlv1.Attachment{
		Id: uint32(o.Attachment), Vni: uint32(o.Segment.VNI), Port: p.Name, Nic: p.NIC, Bridge: p.Bridge, Vlan: uint32(p.VLAN),
		Native: string(p.Native), Service: p.Service, Priority: string(p.Priority), Preference: uint32(p.Preference),
		MoveHost: p.Move.Host, Confirm: p.Move.confirmProto(), Asked: p.Move.Asked, Confirmed: p.Move.Confirmed, Declared: p.Origin == OriginNode,
		Redundancy: string(o.Redundancy), Lacp: o.LACP,
	}
}

// confirmProto is unset without a move.
func (m Move) confirmProto() *durationpb.Duration {
	if !m.Host {
		return nil
	}
	return durationpb.New(time.Duration(m.Confirm))
}

// AttachmentProto is an attachment as an administrator sees it.
func (m *Model) AttachmentProto(a *Attachment) *controlv1.AttachmentRule {
	out := &controlv1.AttachmentRule{
		Id: uint32(a.ID), Segment: m.segmentName(a.VNI), Active: m.Active(a.ID), Secondary: a.Secondary.Proto(), Redundancy: a.Redundancy.String(),
		Lacp: a.LACP,
	}
	for i := range a.Ports {
		p := &a.Ports[i]
		port := &controlv1.AttachmentPort{
			Name: m.PortName(p), Nic: p.NIC, Bridge: p.Bridge, Vlan: uint32(p.VLAN), Native: string(p.Native), Service: p.Service,
			Priority: string(p.Priority), Preference: uint32(p.Preference),
			Origin: p.Origin.Name(), MoveHost: p.Move.Host, Confirm: p.Move.confirmProto(), Confirmed: p.Move.Confirmed,
		}
		if n := m.Nodes[p.Node]; n != nil {
			port.Status = m.Status(n).Proto()
		}
		out.Ports = append(out.Ports, port)
	}
	for _, h := range m.HostsBehind(a.ID) {
		out.Hosts = append(out.Hosts, h.Name)
	}
	return out
}

// HostProto is a host as an administrator sees it.
func (m *Model) HostProto(h *Host) *controlv1.HostRule {
	out := &controlv1.HostRule{Id: uint32(h.ID), Name: h.Name, Mac: h.MAC.String(), Segment: m.segmentName(h.VNI)}
	for _, id := range h.Attachments {
		if a := m.Attachments[id]; a != nil {
			out.Attachments = append(out.Attachments, m.AttachmentName(a))
		}
	}
	for _, p := range h.Addresses {
		out.Addresses = append(out.Addresses, p.String())
	}
	for _, r := range h.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	if p := m.Profile(h.ID); p != nil && p.Machine != nil {
		for _, g := range p.Machine.Gateways {
			out.Gateways = append(out.Gateways, g.Name)
		}
	}
	return out
}

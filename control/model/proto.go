package model

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
)

// The forms in which facts travel. Secrets have no part in them.

// stamp is an absent timestamp for the zero time.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Proto is the status as it travels.
func (s Status) Proto() controlv1.NodeStatus {
	switch s {
	case StatusPending:
		return controlv1.NodeStatus_NODE_STATUS_PENDING
	case StatusActive:
		return controlv1.NodeStatus_NODE_STATUS_ACTIVE
	case StatusLocked:
		return controlv1.NodeStatus_NODE_STATUS_LOCKED
	case StatusRemoved:
		return controlv1.NodeStatus_NODE_STATUS_REMOVED
	}
	return controlv1.NodeStatus_NODE_STATUS_UNSPECIFIED
}

// Proto is the mode as it travels.
func (m Mode) Proto() controlv1.AddressMode {
	switch m {
	case ModeAuto:
		return controlv1.AddressMode_ADDRESS_MODE_AUTO
	case ModeStatic:
		return controlv1.AddressMode_ADDRESS_MODE_STATIC
	case ModeDHCP:
		return controlv1.AddressMode_ADDRESS_MODE_DHCP
	case ModeNone:
		return controlv1.AddressMode_ADDRESS_MODE_NONE
	}
	return controlv1.AddressMode_ADDRESS_MODE_UNSPECIFIED
}

// ModeOf reads a mode; "" if it is none.
func ModeOf(p controlv1.AddressMode) Mode {
	for _, m := range []Mode{ModeAuto, ModeStatic, ModeDHCP, ModeNone} {
		if m.Proto() == p {
			return m
		}
	}
	return ""
}

// Proto is the station as it travels.
func (s *Station) Proto() *controlv1.Station {
	out := &controlv1.Station{Vni: uint32(s.VNI), Mac: s.MAC[:], Mode: s.Mode.Proto()}
	for _, a := range s.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, r := range s.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	return out
}

// Proto is the segment as it travels.
func (s *Segment) Proto() *controlv1.Segment {
	text := func(p netip.Prefix) string {
		if !p.IsValid() {
			return ""
		}
		return p.String()
	}
	return &controlv1.Segment{
		Vni: uint32(s.VNI), Name: s.Name, Mtu: s.MTU, Ipv4Prefix: text(s.IPv4), Ipv6Prefix: text(s.IPv6),
		Transparent: s.Transparent,
	}
}

// GrantProto is a grant as an administrator sees it.
func (m *Model) GrantProto(g *Grant) *controlv1.GrantRule {
	out := &controlv1.GrantRule{
		Id: uint32(g.ID), Name: g.Name, From: g.From, To: g.To, Allow: g.Allow, Both: g.Both, Observe: g.Observe, When: g.When,
		Created: stamp(g.Created), Expires: stamp(g.Expires),
	}
	if s := m.Segments[g.VNI]; s != nil {
		out.Segment = s.Name
	}
	return out
}

// Proto is the group as an administrator sees it.
func (g *Group) Proto() *controlv1.Group { return &controlv1.Group{Name: g.Name, Members: g.Members} }

// Proto is the token as an administrator sees it.
func (t *Token) Proto() *controlv1.Token {
	return &controlv1.Token{
		Id: t.ID, Role: t.Role, Site: t.Site, Labels: t.Labels, Uses: t.Uses, Used: t.Used, Approve: t.Approve,
		Created: stamp(t.Created), Expires: stamp(t.Expires), Revoked: t.Revoked,
	}
}

// Proto is the relay as an administrator sees it.
func (r *Relay) Proto() *controlv1.RelayDescription {
	return &controlv1.RelayDescription{
		Name: r.Name, Hosts: r.Hosts, Port: r.Port, ProbePort: r.ProbePort,
	}
}

// Proto is the administrator as another one sees it.
func (a *Admin) Proto() *controlv1.Admin {
	return &controlv1.Admin{
		Id: uint32(a.ID), Name: a.Name, SignKey: a.Sign, Created: stamp(a.Created), Expires: stamp(a.Expires), Revoked: a.Revoked,
	}
}

// NodeProto is the node as an administrator sees it. Whether it is online is not a fact.
func (m *Model) NodeProto(n *Node) *controlv1.Node {
	message, until := m.Why(n)
	out := &controlv1.Node{
		Id: uint32(n.ID), Name: n.Name, Site: n.Site, Roles: n.Roles, Labels: n.Labels,
		Status: m.Status(n).Proto(), Message: message, SignKey: n.Sign, StaticKey: n.Static,
		Enrolled: stamp(n.Enrolled), CertificateExpires: stamp(n.Expires), CertificateSerial: n.Serial,
		HandshakeNonce: n.HandshakeNonce, RelaySlot: n.RelaySlot, Agent: n.Agent, MaxWire: n.MaxWire, Aes: n.AES,
		RevokedBefore: stamp(m.CutAt(n)), LockedUntil: stamp(until),
	}
	for _, l := range m.LocksOn(n) {
		out.Locks = append(out.Locks, l.Proto())
	}
	for i := range n.Stations {
		out.Stations = append(out.Stations, n.Stations[i].Proto())
	}
	return out
}

package model

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/identity"
)

// Attachment is a segment's place on a VLAN that exists. Its identity is that of every machine there that nobody named; the machines
// that have a name are Hosts. With ports at two gateways, a machine is the same whichever of them it is seen through.
//
// Node ids and those of attachments and hosts are one sequence, so an id says nothing of what it is the identity of, and none is ever
// given again.
type Attachment struct {
	ID    identity.ID      `json:"id"`
	VNI   VNI              `json:"vni"`
	Ports []AttachmentPort `json:"ports"` // at most one for each gateway; the first one gives the attachment its name

	Secondary  SecondaryVLAN `json:"secondary,omitzero"`
	Redundancy Redundancy    `json:"redundancy,omitempty"`
	LACP       bool          `json:"lacp,omitempty"` // with AllActive alone: the gateways speak it with the site's switch
}

// Key is "attachment/ID".
func (a *Attachment) Key() string { return fmt.Sprintf("attachment/%d", a.ID) }

// AttachmentPort is where frames of an attachment enter and leave one gateway.
type AttachmentPort struct {
	Node identity.ID `json:"node"`
	Name string      `json:"name"` // one DNS label, which no other port of the node has
	// NIC or Bridge is the name of a link of the gateway's: a NIC to take, or a bridge to join.
	NIC    string `json:"nic,omitempty"`
	Bridge string `json:"bridge,omitempty"`

	VLAN     uint16   `json:"vlan,omitempty"`     // 0: untagged frames
	Native   Native   `json:"native,omitempty"`   // with a VLAN: untagged frames are of it, too
	Service  bool     `json:"service,omitempty"`  // the tag is 802.1ad's (EtherType 0x88a8)
	Priority Priority `json:"priority,omitempty"` // of what is sent untagged: whether it has a priority tag (VLAN 0)

	// Preference says which of an attachment's gateways carries its frames: the one with the highest that can.
	Preference uint16 `json:"preference,omitempty"`

	Origin Origin `json:"origin,omitempty"`
	Move   Move   `json:"move,omitzero"`
}

// Native is how frames of a VLAN are sent that is a link's native one.
type Native string

// How they are sent; "" for a VLAN that is not native.
const (
	NativeUntagged Native = "untagged"
	NativeTagged   Native = "tagged"
)

// Priority is when a frame that is sent untagged has a priority tag all the same (IEEE 802.1Q-2018 section 6.9).
type Priority string

// When it has one; "" is never.
const (
	PriorityNonzero Priority = "nonzero"
	PriorityAlways  Priority = "always"
)

// Port returns the port at a gateway, or nil.
func (a *Attachment) Port(node identity.ID) *AttachmentPort {
	for i := range a.Ports {
		if a.Ports[i].Node == node {
			return &a.Ports[i]
		}
	}
	return nil
}

// WithPort is the record with a further port.
func (a *Attachment) WithPort(p AttachmentPort) *Attachment {
	c := *a
	c.Ports = append(slices.Clone(a.Ports), p)
	return &c
}

// WithOther is the record with another port in the place of the one that its gateway has.
func (a *Attachment) WithOther(p AttachmentPort) *Attachment {
	c := *a
	c.Ports = slices.Clone(a.Ports)
	*c.Port(p.Node) = p
	return &c
}

// WithoutPort is the record without the port at a gateway; nil if it was the last.
func (a *Attachment) WithoutPort(node identity.ID) *Attachment {
	c := *a
	c.Ports = slices.DeleteFunc(slices.Clone(a.Ports), func(p AttachmentPort) bool { return p.Node == node })
	if len(c.Ports) == 0 {
		return nil
	}
	return &c
}

// untagged reports whether untagged frames of the link enter by the port.
func (p *AttachmentPort) untagged() bool { return p.VLAN == 0 || p.Native != "" }

// link names what the port takes frames from, in words.
func (p *AttachmentPort) link() string {
	if p.Bridge != "" {
		return "bridge " + p.Bridge
	}
	return "NIC " + p.NIC
}

// frames says in words which frames of the link are the port's.
func (p *AttachmentPort) frames() string {
	switch {
	case p.VLAN == 0:
		return "untagged frames"
	case p.Service:
		return fmt.Sprintf("frames of service VLAN %d", p.VLAN)
	}
	return fmt.Sprintf("frames of VLAN %d", p.VLAN)
}

// maxVLAN is the greatest VLAN id that there is: 4095 is reserved (IEEE 802.1Q-2018 table 9-2).
const maxVLAN = 4094

// check holds a port's own fields against each other.
func (p *AttachmentPort) check() error {
	if err := identity.CheckHostName(p.Name); err != nil {
		return fmt.Errorf("port: %w", err)
	}
	switch {
	case p.NIC == "" && p.Bridge == "":
		return fmt.Errorf("a port is on a NIC of the gateway's or on a bridge: say which with --nic, such as --nic eth1, or with --bridge")
	case p.NIC != "" && p.Bridge != "":
		return fmt.Errorf("a port is on a NIC (--nic) or on a bridge (--bridge), one of the two: found NIC %q, bridge %q", p.NIC, p.Bridge)
	}
	if err := checkLink(p.NIC + p.Bridge); err != nil {
		return err
	}
	if err := p.checkMove(); err != nil {
		return err
	}
	return p.checkTagging()
}

func (p *AttachmentPort) checkTagging() error {
	switch {
	case p.VLAN > maxVLAN:
		return fmt.Errorf("VLAN is %d, expected 1 to %d, or 0 for untagged frames", p.VLAN, maxVLAN)
	case p.Native != "" && p.Native != NativeUntagged && p.Native != NativeTagged:
		return fmt.Errorf("a native VLAN is sent %s or %s, found %q", NativeUntagged, NativeTagged, p.Native)
	case p.Native != "" && p.VLAN == 0:
		return fmt.Errorf("native is said of a VLAN, found none: name it, or leave native out to take untagged frames alone")
	case p.Service && p.VLAN == 0:
		return fmt.Errorf("a service tag is that of a VLAN, found none: name it, or leave service out to take untagged frames alone")
	case p.Priority != "" && p.Priority != PriorityNonzero && p.Priority != PriorityAlways:
		return fmt.Errorf("untagged frames have a priority tag never (leave it out), %s or %s, found %q", PriorityNonzero, PriorityAlways, p.Priority)
	case p.Priority != "" && p.VLAN != 0 && p.Native != NativeUntagged:
		return fmt.Errorf("all frames of VLAN %d are sent with its tag, which has the priority: leave priority out, or make the VLAN native untagged", p.VLAN)
	}
	return nil
}

// checkLink holds the name of a link against what the kernel takes (dev_valid_name in net/core/dev.c).
func checkLink(name string) error {
	const most = 15
	odd := func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }
	if len(name) > most || name == "." || name == ".." || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is not the name of a network interface: `ip link` on the gateway shows those there are", name)
	}
	return nil
}

// gatewayRole is the role without which no node may speak for machines.
const gatewayRole = string(identity.RoleGateway)

// CheckPort holds a port against form, its node, and the node's other ports; old, which it replaces, is nil for a new one.
func (m *Model) CheckPort(p, old *AttachmentPort) error {
	n := m.Nodes[p.Node]
	if n == nil || n.OwnStatus == StatusRemoved {
		return fmt.Errorf("node %d is not in the network: `etherloom node list` shows those there are", p.Node)
	}
	if !slices.Contains(n.Roles, gatewayRole) {
		return fmt.Errorf("node %q has not the role %s in its certificate (it has %s), so nobody would believe it: join it anew with a token of "+
			"`etherloom token create --role %s`", n.Name, gatewayRole, strings.Join(n.Roles, ", "), gatewayRole)
	}
	if err := p.check(); err != nil {
		return err
	}
	for _, a := range m.attachmentsOf[n.ID] {
		o := a.Port(n.ID)
		if old != nil && *o == *old {
			continue
		}
		if err := p.clash(o, n); err != nil {
			return err
		}
	}
	return nil
}

// clash is an error if two ports of a node are one, or take the same frames.
func (p *AttachmentPort) clash(o *AttachmentPort, n *Node) error {
	if p.Name == o.Name {
		return fmt.Errorf("there is an attachment %s/%s: choose another name, or remove it first with `etherloom attachment remove %s/%s`",
			n.Name, o.Name, n.Name, o.Name)
	}
	if p.NIC != o.NIC || p.Bridge != o.Bridge {
		return nil
	}
	if p.VLAN == o.VLAN && p.Service == o.Service {
		return fmt.Errorf("%s of %s are taken by attachment %s/%s already: a frame can be of one segment only", p.frames(), p.link(), n.Name, o.Name)
	}
	if p.untagged() && o.untagged() {
		return fmt.Errorf("untagged frames of %s are taken by attachment %s/%s already: only one can take them, as VLAN 0 or as native VLAN",
			p.link(), n.Name, o.Name)
	}
	return nil
}

// AttachmentAt returns the attachment that has the port NODE/PORT, and that port; nil if there is none.
func (m *Model) AttachmentAt(text string) (*Attachment, *AttachmentPort) {
	name, port, _ := strings.Cut(text, "/")
	n := m.NodeNamed(name)
	if n == nil {
		return nil, nil
	}
	for _, a := range m.attachmentsOf[n.ID] {
		if p := a.Port(n.ID); p.Name == port {
			return a, p
		}
	}
	return nil, nil
}

// FindAttachment is AttachmentAt, with an error for those who named it.
func (m *Model) FindAttachment(text string) (*Attachment, *AttachmentPort, error) {
	if !strings.Contains(text, "/") {
		return nil, nil, fmt.Errorf("an attachment is named NODE/PORT, found %q", text)
	}
	a, p := m.AttachmentAt(text)
	if a == nil {
		return nil, nil, fmt.Errorf("there is no attachment %q: `etherloom attachment list` shows those there are", text)
	}
	return a, p, nil
}

// AttachmentsOf returns the attachments that have a port at a node, by number.
func (m *Model) AttachmentsOf(node identity.ID) []*Attachment { return m.attachmentsOf[node] }

// PortName is the name of an attachment's port: NODE/PORT.
func (m *Model) PortName(p *AttachmentPort) string {
	if n := m.Nodes[p.Node]; n != nil {
		return n.Name + "/" + p.Name
	}
	return fmt.Sprintf("%d/%s", p.Node, p.Name)
}

// AttachmentName is the name of an attachment: that of its first port.
func (m *Model) AttachmentName(a *Attachment) string {
	if len(a.Ports) == 0 {
		return fmt.Sprintf("%d/-", a.ID)
	}
	return m.PortName(&a.Ports[0])
}

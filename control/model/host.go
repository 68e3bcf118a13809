package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
)

// Host is a machine behind a gateway that has a name: nobody else may use its MAC on the segment. It needs no certificate; the
// gateways of its attachments speak for it. Its name is one of the names of nodes.
type Host struct {
	ID          identity.ID    `json:"id"`
	Name        string         `json:"name"`
	MAC         MAC            `json:"mac"`
	VNI         VNI            `json:"vni"`
	Attachments []identity.ID  `json:"attachments"`         // behind which it may be, sorted; all are of the segment
	Addresses   []netip.Prefix `json:"addresses,omitempty"` // that it may use; none: all that are nobody's
	Roles       []Role         `json:"roles,omitempty"`     // sorted
}

// Key is "host/ID".
func (h *Host) Key() string { return fmt.Sprintf("host/%d", h.ID) }

// HostNamed returns the host of that name, or nil.
func (m *Model) HostNamed(name string) *Host { return m.hosts[name] }

// HostsBehind returns the hosts that may be behind an attachment, by number.
func (m *Model) HostsBehind(attachment identity.ID) []*Host { return m.hostsBehind[attachment] }

// NameTaken says whose a name is, among nodes that are not removed and hosts: "node" or "host"; "" if it is free.
func (m *Model) NameTaken(name string) string {
	switch {
	case m.names[name] != nil:
		return "node"
	case m.hosts[name] != nil:
		return "host"
	}
	return ""
}

// CheckHost holds a host against form, and those that are on its segment already. A new one has no identity yet; one that has replaces
// its record.
func (m *Model) CheckHost(h *Host) error {
	if err := identity.CheckHostName(h.Name); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	old := m.Hosts[h.ID]
	if kind := m.NameTaken(h.Name); kind != "" && (old == nil || old.Name != h.Name) {
		return fmt.Errorf("a %s is called %q: choose another name, or remove it first with `etherloom %s remove %s`", kind, h.Name, kind, h.Name)
	}
	seg := m.Segments[h.VNI]
	if seg == nil || len(h.Attachments) == 0 {
		return fmt.Errorf("host %q is behind no attachment: name at least one; `etherloom attachment list` shows those there are", h.Name)
	}
	for _, id := range h.Attachments {
		if a := m.Attachments[id]; a == nil || a.VNI != h.VNI {
			return fmt.Errorf("host %q has one MAC on one segment, and not all of its attachments are of segment %q: make a host for each segment", h.Name, seg.Name)
		}
	}
	if old != nil && old.VNI != h.VNI {
		return fmt.Errorf("host %q is on segment %q, and what names it is said of that segment: name attachments of it, or remove the host and add it anew",
			h.Name, m.segmentName(old.VNI))
	}
	taken := m.occupied(h.VNI)
	taken.release(h.ID)
	if err := m.checkMAC(h.MAC, seg, taken); err != nil {
		return err
	}
	return m.checkHostAddresses(h, seg, taken)
}

// checkMAC holds a host's MAC against form and those of its segment. On another segment the same MAC is another host's, or the
// same machine under another name.
func (m *Model) checkMAC(mac MAC, seg *Segment, taken occupancy) error {
	// IEEE 802-2014 section 8.2: the least significant bit of the first octet marks a group address, which nobody owns.
	if mac == (MAC{}) || mac[0]&1 != 0 {
		return fmt.Errorf("MAC %s is not that of a machine: expected a unicast address that is not zero", mac)
	}
	if taken.dhcp != nil && mac == taken.dhcp.MAC {
		return fmt.Errorf("MAC %s is that of the DHCP service of segment %q", mac, seg.Name)
	}
	if owner := taken.macs[mac]; owner != 0 {
		return fmt.Errorf("MAC %s is that of %s on segment %q: a MAC is pinned to one", mac, m.who(owner), seg.Name)
	}
	own := ether.MAC(mac).LinkLocal()
	if owner := taken.addresses[own]; owner != 0 {
		return fmt.Errorf("MAC %s makes the address %s, which is in use on segment %q by %s: take it from that one first", mac, own, seg.Name, m.who(owner))
	}
	return nil
}

// maxHostAddresses is how many addresses a host may be given.
const maxHostAddresses = 64

func (m *Model) checkHostAddresses(h *Host, seg *Segment, taken occupancy) error {
	if len(h.Addresses) > maxHostAddresses {
		return fmt.Errorf("host %q has %d addresses, expected at most %d: name none to let it use all that are nobody's", h.Name, len(h.Addresses), maxHostAddresses)
	}
	for i, p := range h.Addresses {
		a := p.Addr()
		if err := m.checkHostAddress(p, seg); err != nil {
			return err
		}
		if owner := taken.linkLocal(a); owner != 0 {
			return fmt.Errorf("address %s is made of the MAC of %s on segment %q (RFC 4291 appendix A): choose another", a, m.who(owner), seg.Name)
		}
		if owner := taken.addresses[a]; m.holds(owner) {
			return fmt.Errorf("address %s is in use on segment %q by %s: choose another", a, seg.Name, m.who(owner))
		}
		if slices.ContainsFunc(h.Addresses[:i], func(o netip.Prefix) bool { return o.Addr() == a }) {
			return fmt.Errorf("address %s is named twice", a)
		}
		if l := m.LeaseAt(seg.VNI, a); l == nil || l.MAC != h.MAC { // what it has by a lease may be made its own
			if err := m.checkLeased(a, seg); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkHostAddress holds an address against form and the segments' prefixes. It need not be of the segment's own, since the VLAN was
// there before; a link-local one may be named, since a machine chooses its own (RFC 7217).
func (m *Model) checkHostAddress(p netip.Prefix, seg *Segment) error {
	a := p.Addr()
	ends := seg.IPv4.IsValid() && (a == seg.IPv4.Addr() || a == lastOf(seg.IPv4))
	if !usable(a) && !a.IsLinkLocalUnicast() || a.Is4In6() || a.Zone() != "" || ends {
		return fmt.Errorf("address %s is not one that a host can have on segment %q", a, seg.Name)
	}
	if a.BitLen()-p.Bits() > 1 && p == p.Masked() {
		return fmt.Errorf("%s is a prefix, expected an address: name each one that the host may use, or none to let it use all that are nobody's", p)
	}
	if o := m.overlapping(netip.PrefixFrom(a, a.BitLen()), seg); o != nil {
		return fmt.Errorf("address %s lies in the prefix of segment %q, not of %q: choose another", a, o.Name, seg.Name)
	}
	return nil
}

// Lengthened is an address with the length of the segment's prefix in which it lies, if its text says none.
func (s *Segment) Lengthened(p netip.Prefix, text string) netip.Prefix {
	for _, own := range []netip.Prefix{s.IPv4, s.IPv6} {
		if !strings.Contains(text, "/") && own.Contains(p.Addr()) {
			return netip.PrefixFrom(p.Addr(), own.Bits())
		}
	}
	return p
}

// who names an identity in an error: node "n", host "h" or attachment n/p.
func (m *Model) who(id identity.ID) string {
	switch {
	case m.Nodes[id] != nil:
		return fmt.Sprintf("node %q", m.Nodes[id].Name)
	case m.Hosts[id] != nil:
		return fmt.Sprintf("host %q", m.Hosts[id].Name)
	case m.Attachments[id] != nil:
		return "attachment " + m.AttachmentName(m.Attachments[id])
	}
	return fmt.Sprintf("identity %d", id)
}

// Name is the name of an identity as people read it: a node's, a host's, or NODE/PORT; "" if there is none of that number. A removed
// node has one, which may be another's now.
func (m *Model) Name(id identity.ID) string {
	switch {
	case m.Nodes[id] != nil:
		return m.Nodes[id].Name
	case m.Hosts[id] != nil:
		return m.Hosts[id].Name
	case m.Attachments[id] != nil:
		return m.AttachmentName(m.Attachments[id])
	}
	return ""
}

// Identities lists the identities of all nodes, removed ones too, and of all machines, by number.
func (m *Model) Identities() []identity.ID { return slices.Sorted(maps.Keys(m.profiles)) }

// machineCalled finds the machine, or those whom nobody named, that a selector names: host:NAME or attachment:NODE/PORT.
func (m *Model) machineCalled(kind, name string) (identity.ID, error) {
	if kind == "host" {
		h := m.HostNamed(name)
		if h == nil {
			return 0, fmt.Errorf("no host is called %q: `host list` shows those there are, `host add` names one", name)
		}
		return h.ID, nil
	}
	a, _, err := m.FindAttachment(name)
	if err != nil {
		return 0, err
	}
	return a.ID, nil
}

// Home returns the segment of the machine that a selector names; 0 if it names none.
func (m *Model) Home(s Selector) VNI {
	switch {
	case m.Hosts[s.Node] != nil:
		return m.Hosts[s.Node].VNI
	case m.Attachments[s.Node] != nil:
		return m.Attachments[s.Node].VNI
	}
	return 0
}

// CheckHome is an error if a selector names a machine of another segment: there it can never be.
func (m *Model) CheckHome(s Selector, vni VNI) error {
	home := m.Home(s)
	if home == 0 || home == vni {
		return nil
	}
	return fmt.Errorf("%s is on segment %q, so nothing can be said of it on segment %q", m.who(s.Node), m.segmentName(home), m.segmentName(vni))
}

func (m *Model) segmentName(vni VNI) string {
	if s := m.Segments[vni]; s != nil {
		return s.Name
	}
	return fmt.Sprint(vni)
}

// ParseMAC reads a host's MAC as people write it: 02:00:5e:00:53:01, 02-00-5e-00-53-01 or 0200.5e00.5301.
func ParseMAC(text string) (MAC, error) {
	var mac MAC
	if err := mac.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
		return MAC{}, fmt.Errorf("%w: expected six bytes such as 02:00:5e:00:53:01", err)
	}
	return mac, nil
}

// ParseAddress reads ADDRESS/LENGTH, or one address alone.
func ParseAddress(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address %q is not ADDRESS/LENGTH", text)
	}
	return p, nil
}

package policy

import (
	"net/netip"
	"slices"

	"github.com/etherloom/etherloom/ether"
)

// This file is about machines: parties without a daemon, behind gateways that speak for them. A host has a name and a MAC of its
// own, which is pinned to it. All others behind an attachment are one party, who may use every MAC and address that is
// nobody's.

// NewMachine returns the station of a machine. The MAC is zero for those whom nobody named: they may use all that are nobody's.
// Without addresses it may use every one that is nobody's; link-local ones that are nobody's, of which it chooses one, in any case.
// That which is made of its MAC is its own (RFC 4291 appendix A): nobody else may have it.
func NewMachine(mac ether.MAC, addrs []netip.Addr) *Station {
	s := NewStation(mac, addrs, true)
	s.machine, s.anyAddress = true, len(addrs) == 0
	if mac != (ether.MAC{}) {
		s.v6 = append(s.v6, mac.LinkLocal().As16())
	}
	return s
}

// taken is what the stations of one segment have of their own.
type taken struct {
	macs      map[ether.MAC]Identity
	addresses map[[16]byte]Identity // IPv4 is mapped
	leases    leases
}

func takenBy(r *Rules) *taken {
	t := &taken{macs: make(map[ether.MAC]Identity, len(r.Stations)), addresses: addressesOf(r.Stations), leases: newLeases(r)}
	for id, s := range r.Stations {
		if have := t.macs[s.MAC]; s.MAC != (ether.MAC{}) && (have == 0 || id < have) {
			t.macs[s.MAC] = id
		}
	}
	return t
}

// settle returns the stations with the machines among them told what is taken.
func (t *taken) settle(stations map[Identity]*Station) map[Identity]*Station {
	out := make(map[Identity]*Station, len(stations))
	for id, s := range stations {
		if s.machine {
			one := *s
			one.taken, one.id, s = t, id, &one
		}
		out[id] = s
	}
	return out
}

// uses reports whether a frame from or to a MAC may be the station's.
func (s *Station) uses(mac ether.MAC) bool {
	if s.MAC != (ether.MAC{}) {
		return mac == s.MAC
	}
	return s.machine && mac.IsStation() && s.taken.macs[mac] == 0 && !s.taken.leases.isService(mac)
}

// as is the station of the one machine among many that has a MAC.
func (s *Station) as(mac ether.MAC) Station {
	one := *s
	one.MAC = mac
	return one
}

// free reports whether a machine may use an address because nobody has it: one that a host can have as its own (RFC 6890).
func (s *Station) free(mapped [16]byte) bool {
	if !s.machine {
		return false
	}
	a := netip.AddrFrom16(mapped).Unmap()
	switch s.taken.leases.rule(s.id, s.MAC, a) {
	case leased:
		return true
	case withheld:
		return false
	case unruled:
	}
	switch {
	case !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast(),
		a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240),
		!s.anyAddress && (a.Is4() || !a.IsLinkLocalUnicast()):
		return false
	}
	return s.taken.addresses[mapped] == 0
}

// MaySpeak reports whether frames of source may come over the session of a node: its own, and those of machines for which it is
// a gateway.
func (v *View) MaySpeak(node, source Identity) bool {
	if node == source {
		return true
	}
	s := v.stations[source]
	return s != nil && slices.Contains(s.Gateways, node)
}

// Behind says who sends from a MAC behind an attachment: the host to whom it is pinned, or the party of those whom nobody named.
// A MAC that is pinned to somebody who is not there is refused, and so is that of the segment's own DHCP service.
func (v *View) Behind(attachment Identity, mac ether.MAC) (Identity, Verdict) {
	owner := v.taken.macs[mac]
	switch {
	case v.taken.leases.isService(mac):
		return 0, PinnedMAC
	case owner == 0:
		return attachment, Pass
	case v.IsBehind(owner, attachment):
		return owner, Pass
	}
	return 0, PinnedMAC
}

// MayUse reports whether a party may use a MAC.
func (v *View) MayUse(id Identity, mac ether.MAC) bool {
	s := v.stations[id]
	return s != nil && s.uses(mac)
}

// MayHave reports whether the one of a party that has a MAC may have an IP address as its own; IPv4 is mapped.
func (v *View) MayHave(id Identity, mac ether.MAC, addr [16]byte) bool {
	s := v.stations[id]
	if s == nil || !s.uses(mac) {
		return false
	}
	one := s.as(mac)
	return one.has(addr)
}

// IsBehind reports whether a machine may be behind an attachment.
func (v *View) IsBehind(machine, attachment Identity) bool {
	s := v.stations[machine]
	return s != nil && slices.Contains(s.Attachments, attachment)
}

// Hosts lists the machines with a name that may be behind an attachment, by number.
func (v *View) Hosts(attachment Identity) []Identity { return slices.Clip(v.hosts[attachment]) }

// AddressOwner says whose an IP address is, as the signed state lists it; IPv4 is mapped. 0 if nobody's.
func (v *View) AddressOwner(addr [16]byte) Identity { return v.taken.addresses[addr] }

// Gateways lists the nodes that may speak for a machine; nil for a node, which speaks for itself.
func (v *View) Gateways(id Identity) []Identity {
	if s := v.stations[id]; s != nil {
		return s.Gateways
	}
	return nil
}

// MayCarry reports whether a node may carry an attachment's VLAN, as far as is known: it speaks for everybody who may be there. One host
// is not enough, for that may be behind another attachment of the node's.
func (v *View) MayCarry(node, attachment Identity) bool {
	return slices.Contains(v.carriers[attachment], node)
}

// carriersOf are the nodes that may carry each attachment's VLAN.
func carriersOf(stations map[Identity]*Station) map[Identity][]Identity {
	out := map[Identity][]Identity{}
	for _, s := range stations {
		for _, a := range s.Attachments {
			have, known := out[a]
			if !known {
				out[a] = slices.Clone(s.Gateways)
				continue
			}
			out[a] = slices.DeleteFunc(have, func(node Identity) bool { return !slices.Contains(s.Gateways, node) })
		}
	}
	return out
}

// IsGateway reports whether a node speaks for others.
func (v *View) IsGateway(node Identity) bool {
	_, is := v.gateways[node]
	return is
}

// IsRedundant reports whether a node is one of several that speak for a machine.
func (v *View) IsRedundant(node Identity) bool { return v.gateways[node] }

// Own lists those for whom a node speaks: itself first, and the machines of which it is a gateway, by number.
func (v *View) Own(node Identity) []Identity { return append([]Identity{node}, v.speaks[node]...) }

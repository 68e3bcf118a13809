package policy

import (
	"net/netip"

	"github.com/etherloom/etherloom/ether"
)

// This file is about addresses that a segment's own DHCP service gives machines behind gateways. Of its pool nobody may use what is not
// leased to it, so that none can be taken before it is leased; and a machine that has a lease uses that address in IPv4 and no other that
// is nobody's, apart from a link-local one.

// Service is a segment's own DHCP service.
type Service struct {
	Address  [4]byte
	MAC      ether.MAC
	From, To netip.Addr // first and last of the pool; none if From is not valid
}

// Lease is an address of the pool that a machine has with a MAC.
type Lease struct {
	Address netip.Addr
	MAC     ether.MAC
}

// tenant is who has a lease: one MAC of a machine.
type tenant struct {
	who Identity
	mac ether.MAC
}

// leases is what the service has given, and what it has to give.
type leases struct {
	service *Service // nil: there is none, and nothing is leased
	of      map[netip.Addr]tenant
	to      map[tenant]struct{}
}

func newLeases(r *Rules) leases {
	if r.Service == nil {
		return leases{}
	}
	l := leases{service: r.Service, of: map[netip.Addr]tenant{}, to: map[tenant]struct{}{}}
	for id, list := range r.Leases {
		for _, x := range list {
			t := tenant{id, x.MAC}
			l.of[x.Address], l.to[t] = t, struct{}{}
		}
	}
	return l
}

// InPool reports whether an address is one of the pool. None of IPv6 is: those come after all of IPv4 (netip.Addr.Compare).
func (s *Service) InPool(a netip.Addr) bool {
	return s.From.IsValid() && s.From.Compare(a) <= 0 && a.Compare(s.To) <= 0
}

// leaseRule is what leases say of an address and a machine.
type leaseRule uint8

const (
	unruled  leaseRule = iota // nothing
	leased                    // it is leased to this one
	withheld                  // it is not for this one
)

// rule says what leases make of an IPv4 address for a machine; without a MAC, for any of those that the machine is.
func (l *leases) rule(who Identity, mac ether.MAC, a netip.Addr) leaseRule {
	if l.service == nil || !a.Is4() {
		return unruled
	}
	if t, ok := l.of[a]; ok {
		if t.who == who && (t.mac == mac || mac == ether.MAC{}) {
			return leased
		}
		return withheld
	}
	if l.service.InPool(a) || a == netip.AddrFrom4(l.service.Address) {
		return withheld
	}
	if _, has := l.to[tenant{who, mac}]; has && !a.IsLinkLocalUnicast() {
		return withheld
	}
	return unruled
}

// isService reports whether a MAC is that of the service itself.
func (l *leases) isService(mac ether.MAC) bool { return l.service != nil && mac == l.service.MAC }

// Service is the segment's own DHCP service; nil if it has none.
func (v *View) Service() *Service { return v.taken.leases.service }

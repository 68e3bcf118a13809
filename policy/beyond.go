package policy

import "net/netip"

// beyond is what lies on the other side of a router, as seen from the segment: all addresses but those that are at home on it.
type beyond struct {
	home  []netip.Prefix
	taken map[netip.Addr]struct{}
}

// Route lets a station with the role Router send packets that it forwards: from addresses in none of the segment's own
// prefixes, which are home, and of none of its other stations, whose addresses are taken.
func (s *Station) Route(home []netip.Prefix, taken []netip.Addr) {
	b := &beyond{home: home, taken: make(map[netip.Addr]struct{}, len(taken))}
	for _, a := range taken {
		b.taken[a] = struct{}{}
	}
	s.beyond = b
}

// forwards reports whether the station may send from an address that is not its own. What no router forwards never passes: it is
// of one link or of one host, of nobody or of many (RFC 1812 section 5.3.7, RFC 4291 section 2.5).
func (s *Station) forwards(a netip.Addr) bool {
	if s.beyond == nil || !s.Roles.Has(Router) {
		return false
	}
	if !a.IsGlobalUnicast() || a.Is4In6() {
		return false
	}
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) { // this network, and what is reserved (RFC 6890)
		return false
	}
	for _, p := range s.beyond.home {
		if p.Contains(a) {
			return false
		}
	}
	_, taken := s.beyond.taken[a]
	return !taken
}

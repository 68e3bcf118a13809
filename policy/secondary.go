package policy

// SecondaryVLAN is where in its segment, which is a private VLAN then, a machine is (RFC 5517 section 2). The zero one is that of
// promiscuous ports: they exchange frames with everybody. Machines of a community do so with each other and with promiscuous ones, and
// isolated machines with promiscuous ones alone.
type SecondaryVLAN struct {
	Isolated  bool
	Community string // "" of none
}

// Apart reports whether ports of the two exchange no frames. No grant changes that.
func (s SecondaryVLAN) Apart(o SecondaryVLAN) bool {
	if s == (SecondaryVLAN{}) || o == (SecondaryVLAN{}) {
		return false
	}
	return s.Isolated || o.Isolated || s.Community != o.Community
}

// apart reports whether two parties are kept apart. Both ends of a link ask: each knows by its own signed state where both are.
func (v *View) apart(a, b Identity) bool {
	if !v.private {
		return false
	}
	s, o := v.stations[a], v.stations[b]
	return s != nil && o != nil && s.Secondary.Apart(o.Secondary)
}

// Package reading reads what a node is told of policy, in the words of package policy. The node reads so what it judges frames by, and
// the controller what it answers questions about policy by: there is one reading of it (docs/decisions/0008-one-reading-of-policy.md).
package reading

import (
	"net/netip"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Station says what a station may use: its addresses, and the link-local one that follows from its MAC if it speaks IP at all; nil
// if there is none.
func Station(st *controlv1.Station) *policy.Station {
	if st == nil {
		return nil
	}
	mac := ether.MAC(st.GetMac())
	var addrs []netip.Addr
	for _, p := range Prefixes(st) {
		addrs = append(addrs, p.Addr())
	}
	if st.GetMode() != controlv1.AddressMode_ADDRESS_MODE_NONE {
		addrs = append(addrs, mac.LinkLocal())
	}
	out := policy.NewStation(mac, addrs, st.GetMode() == controlv1.AddressMode_ADDRESS_MODE_DHCP)
	for _, name := range st.GetRoles() {
		out.Roles |= policy.RoleNamed(name)
	}
	return out
}

// Machine says what a machine behind gateways may use, who speaks for it, and where it may be.
func Machine(m *controlv1.Machine) *policy.Station {
	var mac ether.MAC // zero: all that are nobody's
	copy(mac[:], m.GetMac())
	var addrs []netip.Addr
	for _, p := range Prefixes(m) {
		addrs = append(addrs, p.Addr())
	}
	out := policy.NewMachine(mac, addrs)
	for _, name := range m.GetRoles() {
		out.Roles |= policy.RoleNamed(name)
	}
	for _, id := range m.GetGateways() {
		out.Gateways = append(out.Gateways, policy.Identity(id))
	}
	for _, id := range m.GetAttachments() {
		out.Attachments = append(out.Attachments, policy.Identity(id))
	}
	out.Secondary = policy.SecondaryVLAN{Isolated: m.GetSecondary().GetIsolated(), Community: m.GetSecondary().GetCommunity()}
	return out
}

// Prefixes are the addresses of a station or a machine, each with the length of its prefix. What is none is passed over: then the station may do less.
func Prefixes(st interface{ GetAddresses() []string }) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range st.GetAddresses() {
		if p, err := netip.ParsePrefix(a); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Terms reads what a grant allows. A term that this program does not know allows nothing; ok is false if all are such, because a
// grant of none would allow everything.
func Terms(texts []string) (terms []policy.Term, ok bool) {
	for _, text := range texts {
		if t, err := policy.ParseTerm(text); err == nil {
			terms = append(terms, t)
		}
	}
	return terms, len(texts) == 0 || len(terms) > 0
}

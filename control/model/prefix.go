package model

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// DefaultPool is where segments' IPv4 prefixes are chosen from. It is private (RFC 1918 section 3), and unlike
// 100.64.0.0/10 no carrier's NAT uses it (RFC 6598).
func DefaultPool() netip.Prefix { return netip.MustParsePrefix("10.64.0.0/10") }

// segmentBits is the length of a chosen IPv4 prefix: 4094 hosts.
const segmentBits = 20

// ChooseIPv4 picks a prefix at random from the network's pool that overlaps neither another segment's nor any of those
// in avoid, which are the prefixes that the controller's host itself has.
func (m *Model) ChooseIPv4(avoid []netip.Prefix) (netip.Prefix, error) {
	pool := m.Settings.Pool
	bits := max(segmentBits, pool.Bits())
	n := 1 << (bits - pool.Bits())
	start := rand.IntN(n)
	for i := range n {
		p := nthSubnet(pool, bits, (start+i)%n)
		if m.overlapping(p, nil) == nil && !slices.ContainsFunc(avoid, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("no free /%d is left in %s: name the segment's IPv4 prefix yourself", bits, pool)
}

// IPv6For returns a segment's prefix: the low 16 bits of its VNI are the subnet id (RFC 4193 section 3.1).
func (m *Model) IPv6For(vni VNI) (netip.Prefix, error) {
	a := m.Settings.ULA.Addr().As16()
	a[6], a[7] = byte(vni>>8), byte(vni)
	p := netip.PrefixFrom(netip.AddrFrom16(a), 64)
	if s := m.overlapping(p, nil); s != nil {
		return netip.Prefix{}, fmt.Errorf("segment %q has the IPv6 prefix %s already: name one yourself", s.Name, p)
	}
	return p, nil
}

// CheckIPv4 holds a prefix that an administrator chose for a segment against form and the other segments.
func (m *Model) CheckIPv4(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30 {
		return netip.Prefix{}, fmt.Errorf("IPv4 prefix %q: expected ADDRESS/LENGTH with a length of 8 to 30", text)
	}
	return p, m.checkPrefix(p)
}

// CheckIPv6 does the same for IPv6. Addresses within it are formed from node ids, so it is a /64.
func (m *Model) CheckIPv6(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is6() || p.Addr().Is4In6() || p.Bits() != 64 {
		return netip.Prefix{}, fmt.Errorf("IPv6 prefix %q: expected ADDRESS/64", text)
	}
	return p, m.checkPrefix(p)
}

func (m *Model) checkPrefix(p netip.Prefix) error {
	if p != p.Masked() {
		return fmt.Errorf("prefix %s has bits set behind its length: did you mean %s?", p, p.Masked())
	}
	if !usable(p.Addr()) {
		return fmt.Errorf("prefix %s is not one of unicast addresses", p)
	}
	if s := m.overlapping(p, nil); s != nil {
		return fmt.Errorf("prefix %s overlaps that of segment %q: choose another", p, s.Name)
	}
	return nil
}

// overlapping returns a segment, other than one, whose prefix overlaps p, or nil.
func (m *Model) overlapping(p netip.Prefix, other *Segment) *Segment {
	for _, vni := range slices.Sorted(maps.Keys(m.Segments)) {
		s := m.Segments[vni]
		if s != other && (s.IPv4.Overlaps(p) || s.IPv6.Overlaps(p)) {
			return s
		}
	}
	return nil
}

// usable reports whether a host may have the address, or a prefix begin with it.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.IsLinkLocalUnicast() &&
		a.Zone() == "" && !a.Is4In6()
}

// nthSubnet returns subnet i of the given length within an IPv4 prefix.
func nthSubnet(within netip.Prefix, bits, i int) netip.Prefix {
	b := within.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) + uint32(i)<<(32-bits)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.PrefixFrom(netip.AddrFrom4(b), bits)
}

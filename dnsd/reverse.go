package dnsd

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// A reverse name is an address written backwards, one label for each octet of IPv4 (RFC 1035 section 3.5) and for each
// nibble of IPv6 (RFC 3596 section 2.5):
//
//	2.0.77.10.in-addr.arpa.       10.77.0.2
//	0.77.10.in-addr.arpa.         10.77.0.0/24
//	1.0.0. … .8.b.d.0.1.0.0.2.ip6.arpa.
//
// A name with fewer labels stands for all addresses that begin so: a prefix.
type family struct {
	suffix string // of the names
	bits   int    // of one label
	labels int    // of a whole address
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return family{"in-addr.arpa.", 8, 4}
	}
	return family{"ip6.arpa.", 4, 32}
}

// findReverse is find for reverse names.
func (v *View) findReverse(query string) (found, bool) {
	name, below, ok := parseReverse(query)
	if !ok {
		return found{}, false
	}
	// The name is ours if all addresses that it stands for are.
	i := slices.IndexFunc(v.own, func(p netip.Prefix) bool {
		return p.Contains(name.Addr()) && p.Bits() <= name.Bits()
	})
	if i < 0 {
		return found{}, false
	}
	f := found{apex: reverseApex(query, v.own[i])}
	switch {
	case below:
	case name.IsSingleIP():
		f.ptr = v.ptr[name.Addr()]
		f.exists = len(f.ptr) > 0 || f.apex == query
	default:
		f.exists = v.anyIn(name) || f.apex == query
	}
	return f, true
}

// reverseApex cuts from a reverse name the zone of the prefix that it lies in.
func reverseApex(query string, own netip.Prefix) string {
	fam := familyOf(own.Addr())
	keep := (own.Bits()+fam.bits-1)/fam.bits + dns.CountLabel(fam.suffix)
	starts := dns.Split(query)
	return query[starts[len(starts)-keep]:]
}

// anyIn reports whether the view names an address in p.
func (v *View) anyIn(p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(v.addrs, p.Addr(), netip.Addr.Compare)
	return i < len(v.addrs) && p.Contains(v.addrs[i])
}

// parseReverse reads a name from the right for as long as it spells an address. below is true if labels are left that
// do not: the name lies below the prefix but stands for nothing. ok is false if the name is not a reverse name.
func parseReverse(name string) (p netip.Prefix, below, ok bool) {
	addr := netip.IPv4Unspecified()
	if !dns.IsSubDomain(familyOf(addr).suffix, name) {
		addr = netip.IPv6Unspecified()
	}
	fam := familyOf(addr)
	if !dns.IsSubDomain(fam.suffix, name) {
		return netip.Prefix{}, false, false
	}
	labels := dns.SplitDomainName(name)
	labels = labels[:len(labels)-dns.CountLabel(fam.suffix)]
	raw := addr.AsSlice()
	n := 0
	for ; n < len(labels) && n < fam.labels; n++ {
		value, ok := fam.parseLabel(labels[len(labels)-1-n])
		if !ok {
			break
		}
		// A nibble goes to the upper or lower half of its octet, an octet is one.
		bit := n * fam.bits
		raw[bit/8] |= value << (8 - fam.bits - bit%8)
	}
	addr, _ = netip.AddrFromSlice(raw)
	return netip.PrefixFrom(addr, n*fam.bits), n < len(labels), true
}

// parseLabel reads one octet in decimal without leading zeros, or one nibble in hex.
func (f family) parseLabel(label string) (byte, bool) {
	if f.bits == 4 {
		v, err := strconv.ParseUint(label, 16, 4)
		return byte(v), err == nil && len(label) == 1
	}
	v, err := strconv.ParseUint(label, 10, 8)
	return byte(v), err == nil && strconv.FormatUint(v, 10) == label
}

// reverseZones returns the names of the fewest reverse zones that hold all addresses of p and no others.
func reverseZones(p netip.Prefix) []string {
	fam := familyOf(p.Addr())
	keep := (p.Bits() + fam.bits - 1) / fam.bits
	labels := fam.labelsOf(p.Masked().Addr())[:keep]
	if keep == 0 {
		return []string{fam.suffix}
	}
	last := labels[keep-1]
	var out []string
	for i := range 1 << (keep*fam.bits - p.Bits()) {
		labels[keep-1] = last + byte(i)
		out = append(out, fam.name(labels))
	}
	return out
}

// labelsOf returns the value of each label of an address, the most significant first.
func (f family) labelsOf(a netip.Addr) []byte {
	if f.bits == 8 {
		return a.AsSlice()
	}
	out := make([]byte, 0, f.labels)
	for _, b := range a.AsSlice() {
		out = append(out, b>>4, b&15)
	}
	return out
}

func (f family) name(values []byte) string {
	var b strings.Builder
	for _, v := range slices.Backward(values) {
		if f.bits == 8 {
			b.WriteString(strconv.Itoa(int(v)))
		} else {
			b.WriteByte(hex.EncodeToString([]byte{v})[1])
		}
		b.WriteByte('.')
	}
	return b.String() + f.suffix
}

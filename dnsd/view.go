package dnsd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// View is all that a server answers itself, at one moment: it does not change once it is made.
// Its names belong to one host: they are the ones that this host may know.
type View struct {
	zone  string                  // lower case, with the final dot
	nodes map[string][]netip.Addr // every name that exists, lower case, with the final dot; some have no address
	ptr   map[netip.Addr][]string // sorted
	addrs []netip.Addr            // the keys of ptr, sorted
	own   []netip.Prefix          // widest first
}

// NewView makes a view of a zone such as "etherloom.internal.".
//
// names gives each name its addresses, IPv4 and IPv6, in the order in which they will be answered. A name need not
// lie in the zone: a service may keep the name that it has elsewhere, and is then ours in this one name but not in
// the names below it. own are the prefixes whose addresses only this network can name.
//
// Names are made of letters, digits, '-' and '_' in labels of 1 to 63; case and a final dot do not matter. It is an
// error if a name is anything else, or if an address or prefix is not valid.
func NewView(zone string, names map[string][]netip.Addr, own []netip.Prefix) (*View, error) {
	apex, err := parseName(zone)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	v := &View{zone: apex, nodes: map[string][]netip.Addr{apex: nil}, ptr: make(map[netip.Addr][]string)}
	for _, p := range own {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("prefix %v is not an IPv4 or IPv6 prefix", p)
		}
		v.own = append(v.own, p.Masked())
	}
	slices.SortFunc(v.own, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	for s, addrs := range names {
		name, err := parseName(s)
		if err != nil {
			return nil, err
		}
		if err := v.add(name, addrs); err != nil {
			return nil, err
		}
	}
	v.index()
	return v, nil
}

var errLabel = errors.New("use labels of 1 to 63 letters, digits, '-' or '_'")

// parseName returns a name in lower case with its final dot.
func parseName(s string) (string, error) {
	name := strings.TrimSuffix(dns.CanonicalName(s), ".") // ASCII only: a Kelvin sign is not a k
	for label := range strings.SplitSeq(name, ".") {
		if len(label) < 1 || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("name %q: %w", s, errLabel)
		}
	}
	// RFC 1035 section 3.1: 255 octets with the length of each label and the root's.
	if len(name) > 253 {
		return "", fmt.Errorf("name %q is longer than 253 characters", s)
	}
	return name + ".", nil
}

func (v *View) add(name string, addrs []netip.Addr) error {
	for _, a := range addrs {
		if !a.IsValid() || a.Zone() != "" {
			return fmt.Errorf("name %q: address %v cannot be in DNS", name, a)
		}
		a = a.Unmap()
		if slices.Contains(v.nodes[name], a) {
			continue
		}
		v.nodes[name] = append(v.nodes[name], a)
		v.ptr[a] = append(v.ptr[a], name)
	}
	if len(v.nodes[name]) == 0 {
		v.nodes[name] = nil
	}
	// RFC 4592 section 2.2.2: a name exists if one below it does. Outside our zone that is not for us to say.
	for parent := name; v.inZone(parent) && parent != v.zone; {
		_, parent, _ = strings.Cut(parent, ".")
		if _, ok := v.nodes[parent]; !ok {
			v.nodes[parent] = nil
		}
	}
	return nil
}

// index sorts what the constructor gathered in a map's random order.
func (v *View) index() {
	for a, names := range v.ptr {
		slices.Sort(names)
		v.addrs = append(v.addrs, a)
	}
	slices.SortFunc(v.addrs, netip.Addr.Compare)
}

// inZone wants a name in lower case.
func (v *View) inZone(name string) bool { return v.zone != "" && dns.IsSubDomain(v.zone, name) }

// Domains returns the domains whose queries should come to this server, without final dots and sorted: the zone, the
// names outside it, and the reverse zones of the own prefixes. A prefix that does not end at a whole octet (a nibble in
// IPv6) takes up to 128 (8) of them, since none may cover an address that is not ours.
func (v *View) Domains() []string {
	var out []string
	for name := range v.nodes {
		if name == v.zone || !v.inZone(name) {
			out = append(out, strings.TrimSuffix(name, "."))
		}
	}
	for _, p := range v.own {
		for _, zone := range reverseZones(p) {
			out = append(out, strings.TrimSuffix(zone, "."))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// found is what a view knows about a name that is ours.
type found struct {
	apex   string // of the zone that the name lies in, in the letters of the query
	exists bool
	addrs  []netip.Addr
	ptr    []string
}

// find looks a name up, in the letters of the query. It reports false if the name is not ours.
func (v *View) find(query string) (found, bool) {
	name := dns.CanonicalName(query)
	if v.inZone(name) {
		addrs, ok := v.nodes[name]
		return found{apex: query[len(query)-len(v.zone):], exists: ok, addrs: addrs}, true
	}
	if addrs, ok := v.nodes[name]; ok {
		return found{apex: query, exists: true, addrs: addrs}, true
	}
	return v.findReverse(query)
}

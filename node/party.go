package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/reading"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
)

// party is who sends or receives the frame in a question.
type party struct {
	name    string             // of the node; as it was asked for if this node is told of no such
	id      policy.Identity    // 0: nobody that this node is told of
	station *controlv1.Station // on the question's segment; nil if there is none
	addr    netip.Addr         // that was asked for; invalid if a name was
	mac     ether.MAC          // the station's, or a group's
}

// member is a node that this one is told of, itself included.
func (q *question) member(id policy.Identity) party {
	p := party{id: id, name: fmt.Sprintf("identity %d", id)}
	record := memberOf(q.d.contents, id)
	if record == nil {
		return p
	}
	p.name = record.GetName()
	for _, st := range record.GetStations() {
		if policy.VNI(st.GetVni()) == q.on.vni {
			p.station, p.mac = st, ether.MAC(st.GetMac())
		}
	}
	return p
}

// everybody lists the nodes that this one is told of, itself first.
func (q *question) everybody() []party {
	self := q.d.self()
	list := []party{q.member(self)}
	for _, id := range slices.Sorted(maps.Keys(q.d.contents.Peers)) {
		list = append(list, q.member(policy.Identity(id)))
	}
	return list
}

// addresses are those that the party may use on the segment.
func (p party) addresses() []netip.Addr {
	if p.station == nil {
		return nil
	}
	return reading.Station(p.station).Addresses()
}

// find says who is meant by a node's name, with or without the zone, an IP address or a MAC address; nothing means this node.
func (q *question) find(text string) (party, error) {
	if text == "" {
		return q.member(q.d.self()), nil
	}
	var is func(party) bool
	p := party{name: text}
	addr, err := netip.ParseAddr(text)
	if err == nil {
		p.addr = addr.Unmap().WithZone("")
		p.mac = q.groupOf(p.addr)
		is = func(o party) bool { return slices.Contains(o.addresses(), p.addr) }
	} else if mac, err := ether.ParseMAC(text); err == nil {
		p.mac = mac
		is = func(o party) bool { return o.station != nil && o.mac == mac }
	} else {
		zone := strings.Trim(q.d.contents.Settings.GetZone(), ".")
		p.name = strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(text, ".")), "."+zone)
		if err := identity.CheckHostName(p.name); err != nil {
			return party{}, fmt.Errorf("expected a node's name, an IP address or a MAC address, found %q: `etherloom names` and `etherloom peers` "+
				"show those that this node is told of", text)
		}
		is = func(o party) bool { return o.name == p.name }
	}
	for _, o := range q.everybody() {
		if is(o) {
			o.addr = p.addr
			return o, nil
		}
	}
	return p, nil
}

// groupOf is the MAC address by which a group's IP address is sent to on a segment; zero for an address of one.
func (q *question) groupOf(a netip.Addr) ether.MAC {
	switch {
	case a.IsMulticast():
		return ether.GroupMAC(a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return ether.Broadcast
	}
	if p, err := netip.ParsePrefix(q.on.seg.GetIpv4Prefix()); err == nil && p.Contains(a) && !p.Contains(a.Next()) {
		return ether.Broadcast // RFC 919 section 7
	}
	return ether.MAC{}
}

// fits says how well a party fits the segment: as a station, or by its address alone.
func (q *question) fits(p party) int {
	if p.station != nil {
		return 2
	}
	for _, text := range []string{q.on.seg.GetIpv4Prefix(), q.on.seg.GetIpv6Prefix()} {
		if prefix, err := netip.ParsePrefix(text); err == nil && p.addr.IsValid() && prefix.Contains(p.addr) {
			return 1
		}
	}
	return 0
}

// place finds the segment that the question is about, and the two parties on it; false if this node is on none.
func (q *question) place() (bool, error) {
	best, names := -1, []string{}
	var chosen question
	for _, vni := range slices.Sorted(maps.Keys(q.d.contents.Segments)) {
		on := q.placeOf(policy.VNI(vni))
		if q.ask.Segment != "" && on.name != q.ask.Segment {
			continue
		}
		try := *q
		try.on = on
		var err error
		if try.from, err = try.find(q.ask.From); err != nil {
			return false, err
		}
		score := try.fits(try.from)
		if len(q.frame) > 0 {
			try.to = try.owner(q.frame)
		} else {
			if try.to, err = try.find(q.ask.To); err != nil {
				return false, err
			}
			score += try.fits(try.to)
		}
		if score > best {
			best, names, chosen = score, nil, try
		}
		if score == best {
			names = append(names, on.name)
		}
	}
	if len(names) > 1 {
		return false, fmt.Errorf("more than one segment fits: %s: choose with --segment", strings.Join(names, ", "))
	}
	if best >= 0 {
		*q = chosen
	}
	return best >= 0, nil
}

// owner is who has a frame's destination address; nobody if that is a group's, or nobody's.
func (q *question) owner(data []byte) party {
	if f, err := ether.Parse(data); err == nil {
		for _, p := range q.everybody() {
			if p.station != nil && p.mac == f.Dst {
				return p
			}
		}
	}
	return party{}
}

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
	vswitch "github.com/etherloom/etherloom/switch"
)

// party is who sends or receives the frame in a question.
type party struct {
	name    string             // of the node; as it was asked for if this node is told of no such
	id      policy.Identity    // 0: nobody that this node is told of
	station *controlv1.Station // on the question's segment; nil if there is none
	addr    netip.Addr         // that was asked for; invalid if a name was
	mac     ether.MAC          // the station's, or a group's; of one whom nobody named, its own
	machine bool               // behind a gateway
	at      *vswitch.Port      // of this node, where a machine was seen; nil if nowhere
	spoke   []netip.Addr       // addresses that were heard of a machine
	absent  string             // of a name that nobody has: as which it was asked for; node, host, attachment or ""
	guessed bool               // nothing but that it is the only one possible speaks for it
}

// member is a node that this one is told of, itself included.
func (q *question) member(id policy.Identity) party {
	p := party{id: id, name: fmt.Sprintf("identity %d", id)}
	record := memberOf(q.d.contents, id)
	if record == nil {
		return p
	}
	p.name, p.machine = record.GetName(), isMachine(q.d.contents, id)
	for _, st := range record.GetStations() {
		if policy.VNI(st.GetVni()) == q.on.vni {
			p.station, p.mac = st, ether.MAC(st.GetMac())
		}
	}
	return p
}

// everybody lists whom this node is told of: itself first, then nodes, then machines.
func (q *question) everybody() []party {
	self := q.d.self()
	list := []party{q.member(self)}
	for _, id := range slices.Sorted(maps.Keys(q.d.contents.Peers)) {
		list = append(list, q.member(policy.Identity(id)))
	}
	return append(list, q.machines()...)
}

// addresses are those that the party may use on the segment, as far as they are known.
func (p party) addresses() []netip.Addr {
	switch {
	case p.station == nil:
		return nil
	case p.unnamed() && p.mac == (ether.MAC{}):
		return nil
	case p.unnamed():
		return append(slices.Clip(p.spoke), p.mac.LinkLocal())
	}
	return append(reading.Station(p.station).Addresses(), p.spoke...)
}

// find says who is meant by an IP address, a MAC address, or a name; nothing means this node.
func (q *question) find(text string) (party, error) {
	if text == "" {
		return q.member(q.d.self()), nil
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return q.findAddress(text, addr.Unmap().WithZone("")), nil
	}
	if mac, err := ether.ParseMAC(text); err == nil {
		p, _ := q.pick(party{name: text, mac: mac}, func(o party) bool { return o.station != nil && !o.unnamed() && o.mac == mac })
		if seen, ok := q.seen(mac); ok && p.id == 0 {
			p = seen
		}
		return p, nil
	}
	return q.findName(text)
}

// pick chooses the first of whom something is true, or else.
func (q *question) pick(otherwise party, is func(party) bool) (party, bool) {
	for _, o := range q.everybody() {
		if is(o) {
			return q.locate(o), true
		}
	}
	return otherwise, false
}

// findAddress says who has an IP address.
func (q *question) findAddress(text string, addr netip.Addr) party {
	p, ok := q.pick(party{name: text, mac: q.groupOf(addr)}, func(o party) bool { return slices.Contains(o.addresses(), addr) })
	if !ok && !p.group() {
		if heard, is := q.heard(addr); is {
			p = heard
		}
	}
	p.addr = addr
	return p
}

// findName says who is meant by a node's or a host's name, with or without the zone, by NODE/PORT, or as in a grant.
func (q *question) findName(text string) (party, error) {
	kind, name, ok := strings.Cut(text, ":")
	if !ok {
		kind, name = "", text
	}
	if kind == "attachment" || kind == "" && strings.Contains(name, "/") {
		if p, ok := q.attachmentNamed(name); ok {
			return p, nil
		}
		return party{name: name, absent: "attachment"}, nil
	}
	zone := strings.Trim(q.d.contents.Settings.GetZone(), ".")
	name = strings.TrimSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), "."+zone)
	if err := identity.CheckHostName(name); err != nil || kind != "" && kind != "node" && kind != "host" {
		return party{}, fmt.Errorf("expected a node's or host's name, NODE/PORT of an attachment, an IP address or a MAC address, found %q: `etherloom names` and "+
			"`etherloom peers` show those that this node is told of", text)
	}
	p, _ := q.pick(party{name: name, absent: kind}, func(o party) bool {
		return o.name == name && (kind == "" || o.machine == (kind == "host"))
	})
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
	if p.station != nil && !p.guessed {
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
		if err := try.parties(); err != nil {
			return false, err
		}
		// Where the destination is says more: a sender may be on all of them.
		if score := 3*try.fits(try.to) + try.fits(try.from); score > best {
			best, names, chosen = score, []string{on.name}, try
		} else if score == best {
			names = append(names, on.name)
		}
	}
	if p, nobody := chosen.nobody(); nobody && len(names) > 1 {
		return false, fmt.Errorf("%s: `etherloom names` shows whom it may reach. More than one segment fits: %s: choose with --segment to be told more", p.missing(), strings.Join(names, ", "))
	}
	if len(names) > 1 {
		return false, fmt.Errorf("more than one segment fits: %s: choose with --segment", strings.Join(names, ", "))
	}
	if best >= 0 {
		*q = chosen
	}
	return best >= 0, q.lost
}

// parties finds the two on the segment that is tried.
func (q *question) parties() (err error) {
	if q.tuple != nil && q.partiesOfFlow() {
		return nil
	}
	switch {
	case len(q.frame) > 0 && q.ask.From == "":
		q.from, q.lost = q.sender(q.frame)
	default:
		q.from, err = q.find(q.ask.From)
	}
	if err != nil {
		return err
	}
	if len(q.frame) > 0 {
		q.from, q.to = q.speaker(q.from, q.frame), q.owner(q.frame)
		return nil
	}
	if q.to, err = q.find(q.ask.To); err == nil {
		q.from, q.to = q.anybody(q.from, q.to), q.anybody(q.to, q.from)
		q.lost = q.noPort(q.from)
	}
	return err
}

// anybody takes an address that nobody is known to have to be of a machine that may have every one that is nobody's, if there is a grant
// between it and the other end.
func (q *question) anybody(p, other party) party {
	if p.id != 0 || !p.addr.IsValid() || p.group() {
		return p
	}
	for _, m := range q.machines() {
		granted := q.on.view.Between(m.id, other.id, q.now) == policy.Pass || q.on.view.Between(other.id, m.id, q.now) == policy.Pass
		mac := m.mac
		if m.unnamed() {
			mac = madeUp(m.id)
		}
		if granted && q.on.view.MayHave(m.id, mac, p.addr.As16()) {
			m = q.locate(m)
			m.addr, m.mac, m.guessed = p.addr, mac, true
			return m
		}
	}
	return p
}

// nobody is the one of the two of whom this node is told nothing; false if there is none.
func (q *question) nobody() (party, bool) {
	for _, p := range []party{q.to, q.from} {
		if p.id == 0 && p.name != "" && !p.group() && len(q.ask.Frame) == 0 {
			return p, true
		}
	}
	return party{}, false
}

// missing says that nobody is known who was asked for.
func (p party) missing() string {
	switch {
	case p.absent == "attachment":
		return "this node is told of no attachment " + p.name
	case p.addr.IsValid() || p.mac != (ether.MAC{}):
		return "this node is told of nobody who has " + p.name
	}
	return "this node is told of nobody called " + p.name
}

// owner is who has a frame's destination address; nobody if that is a group's, or nobody's.
func (q *question) owner(data []byte) party {
	if f, err := ether.Parse(data); err == nil {
		for _, p := range q.everybody() {
			if p.station != nil && !p.unnamed() && p.mac == f.Dst {
				return q.locate(p)
			}
		}
		if p, ok := q.seen(f.Dst); ok {
			return p
		}
	}
	return party{}
}

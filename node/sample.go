package node

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/sample"
	"github.com/etherloom/etherloom/policy"
)

// sample makes the frame that is asked about. done means that the question is answered without one: this node is told of
// nobody who would send it, or have it.
func (q *question) sample() (done bool, err error) {
	if self := q.member(q.d.self()); q.from.id == 0 && q.from.addr.IsValid() && self.station != nil {
		// Somebody must send from it. What an administrator of this host can have done is to put it on the TAP.
		q.note("this node is told of nobody who may use %s, so this host is taken to send from it", q.from.addr)
		self.addr = q.from.addr
		q.from = self
	}
	if err := q.checkEnds(); err != nil {
		return false, err
	}
	for _, p := range []party{q.from, q.to} {
		if p.station != nil || p.group() {
			continue
		}
		if q.byPolicy() == policy.Pass {
			return false, fmt.Errorf("%s has no place on segment %s, so it has no address to make a frame with: an administrator gives it one with "+
				"`etherloom node address %s --segment %s --mode auto`", p.name, q.on.name, p.name, q.on.name)
		}
		return true, nil
	}
	src, dst, err := q.ends()
	if err == nil {
		q.frame, err = q.build(src, dst)
	}
	if err == nil {
		q.frame = q.vlans.Tag(q.frame)
	}
	return false, err
}

// checkEnds refuses a question about two parties that no frame goes between, and says of whom this node is not told.
func (q *question) checkEnds() error {
	switch {
	case q.from.id == 0 && q.to.id == 0 && !q.to.group():
		return fmt.Errorf("this node is told of neither %s nor %s: ask on one of them, or look at `etherloom names`", q.from.name, q.to.name)
	case q.from.unnamed() && q.from.id == q.to.id && q.from.mac != q.to.mac:
		return fmt.Errorf("both are behind %s, and what machines send each other there stays on its VLAN: name another with --to or --from", q.from.name)
	case q.from.id != 0 && q.from.id == q.to.id:
		return fmt.Errorf("%s is on both ends, and what a machine sends to itself never comes to the switch: name another with --to or --from", q.from.name)
	}
	for _, p := range []party{q.from, q.to} {
		if p.id == 0 && !p.group() {
			q.note("%s: there is none, or nothing is granted between it and this node or machines behind it", p.missing())
		}
	}
	return nil
}

// group reports whether the party is not one machine but all who listen to an address.
func (p party) group() bool { return p.id == 0 && p.mac.IsGroup() }

// ends are the addresses of a sample: those that were asked for, or two of one kind.
func (q *question) ends() (src, dst netip.Addr, err error) {
	v6 := func(a netip.Addr) bool { return a.Is6() && !a.IsLinkLocalUnicast() }
	local6 := func(a netip.Addr) bool { return a.Is6() && (a.IsLinkLocalUnicast() || a.IsMulticast()) }
	kinds := []func(netip.Addr) bool{netip.Addr.Is4, v6, local6}
	if q.ask.Kind == "arp" {
		if kinds = kinds[:1]; q.to.group() {
			return src, dst, errors.New("ARP asks for one host's address, found a group in --to: name a node or an IPv4 address")
		}
	}
	for _, kind := range kinds {
		if src, dst = q.from.address(kind), q.to.address(kind); src.IsValid() && dst.IsValid() {
			return src, dst, nil
		}
	}
	lacks := "`etherloom names` shows what they have, and an administrator changes it with `etherloom node address`"
	for _, p := range []party{q.from, q.to} {
		if !p.addr.IsValid() && len(p.addresses()) == 0 && p.station != nil {
			lacks = fmt.Sprintf("%s speaks no IP there (address mode %s), and `etherloom node address %s --segment %s --mode auto` changes that; "+
				"another frame is asked about with --hex", p.name, modeName(p.station.GetMode()), p.name, q.on.name)
		}
	}
	return src, dst, fmt.Errorf("a frame of kind %s needs two addresses of one family, and %s and %s have none on segment %s: %s",
		q.ask.Kind, q.from.called(), q.to.called(), q.on.name, lacks)
}

// called is the party's name, with the address that was asked for.
func (p party) called() string {
	if !p.addr.IsValid() || p.name == p.addr.String() {
		return p.name
	}
	return p.name + " (" + p.addr.String() + ")"
}

// address is the one that was asked for, or the first that the party has; invalid if that is not of the kind.
func (p party) address(kind func(netip.Addr) bool) netip.Addr {
	list := p.addresses()
	switch {
	case p.addr.IsValid():
		list = []netip.Addr{p.addr}
	case p.mac == ether.Broadcast:
		list = []netip.Addr{netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	}
	for _, a := range list {
		if kind(a) {
			return a
		}
	}
	return netip.Addr{}
}

// build makes the frame as a host would.
func (q *question) build(src, dst netip.Addr) ([]byte, error) {
	if q.ask.Kind == "arp" {
		return sample.ARP(q.from.mac, src, dst)
	}
	p := sample.Packet{
		From: q.from.mac, To: q.to.mac, Src: src, Dst: dst, Protocol: protocolNamed(q.ask.Kind), DstPort: q.ask.Port, Established: q.tuple != nil,
	}
	if p.Protocol == ether.ProtoICMP {
		p.SrcPort, p.Reply = q.echo()
	} else if q.tuple != nil {
		p.SrcPort = q.tuple.src.Port()
	}
	return p.Frame()
}

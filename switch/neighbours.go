package vswitch

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// This file remembers which machine has which IP address, as ARP and neighbour discovery tell, and answers for them on ports with
// neigh_suppress=on, so that questions to everybody need not cross the overlay (RFC 9161 section 3). It answers only what it knows for
// sure: the address was heard with that MAC, and the MAC is known to be somewhere else than where the question comes from.
// These go on their way all the same:
//
//   - what tells everybody something: gratuitous ARP, unsolicited advertisements;
//   - what asks whether an address is free (RFC 5227 section 2.1, RFC 4862 section 5.4): only the owner itself can say;
//   - what is for one alone: so a host verifies a neighbour that it knows;
//   - what asks for an IPv6 router: its answer says that it is one, and who is told of a router otherwise takes it out of its default
//     routers (RFC 4861 section 7.2.5, RFC 9161 section 3.2);
//   - what is on a VLAN inside a transparent segment: on each of them somebody else may have the address. So nothing is remembered of
//     what is said there, either.
//
// Addresses that the signed state lists need not be heard.

// Limits of what is remembered.
const (
	neighbourAge  = 20 * time.Minute
	maxNeighbours = 8192
	maxOfOne      = 1024 // of one identity
)

// neighbours is what was heard.
type neighbours struct {
	mu   sync.RWMutex
	of   map[[16]byte]*neighbour // by IP address; IPv4 is mapped
	each map[policy.Identity]int
}

type neighbour struct {
	mac  ether.MAC
	who  policy.Identity
	seen time.Time
}

// note remembers what an admitted frame says about its sender.
func (n *neighbours) note(c *carriage) {
	addr, mac, ok := saidBy(&c.Frame)
	if !ok || c.Frame.Inner != 0 {
		return
	}
	n.mu.RLock()
	old := n.of[addr]
	fresh := old != nil && old.mac == mac && old.who == c.Source && c.Now.Sub(old.seen) < neighbourAge/8
	n.mu.RUnlock()
	if fresh {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of == nil {
		n.of, n.each = map[[16]byte]*neighbour{}, map[policy.Identity]int{}
	}
	if old := n.of[addr]; old != nil {
		n.forget(addr, old)
	}
	if len(n.of) >= maxNeighbours || n.each[c.Source] >= maxOfOne {
		return // its question crosses, that is all
	}
	n.of[addr] = &neighbour{mac, c.Source, c.Now}
	n.each[c.Source]++
}

func (n *neighbours) forget(addr [16]byte, x *neighbour) {
	delete(n.of, addr)
	if n.each[x.who]--; n.each[x.who] == 0 {
		delete(n.each, x.who)
	}
}

// find returns who has an address; false if that is not known.
func (n *neighbours) find(addr [16]byte, now time.Time) (neighbour, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	x := n.of[addr]
	if x == nil || now.Sub(x.seen) >= neighbourAge {
		return neighbour{}, false
	}
	return *x, true
}

// retain forgets those who do not match, and what is too old.
func (n *neighbours) retain(now time.Time, keep func(policy.Identity) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, x := range n.of {
		if now.Sub(x.seen) >= neighbourAge || !keep(x.who) {
			n.forget(addr, x)
		}
	}
}

// saidBy is which address a frame says that its sender has, and with which MAC.
func saidBy(f *ether.Frame) (addr [16]byte, mac ether.MAC, ok bool) {
	switch f.Type {
	case ether.TypeARP:
		arp, _ := ether.ParseARP(f.Payload) // of what is none there is no sender
		return ether.Mapped(arp.SenderIP), arp.SenderMAC, arp.SenderIP != [4]byte{}
	case ether.TypeIPv6:
		ip, _ := ether.ParseIPv6(f.Payload)
		upper, payload, _, _ := ip.Upper()
		if upper != ether.ProtoICMPv6 {
			return addr, mac, false
		}
		nd, _, whole := ether.ParseND(payload)
		switch {
		case !whole:
			return addr, mac, false
		case nd.Type == ether.NeighborAdvertisement && nd.TargetMAC != ether.MAC{}:
			return nd.Target, nd.TargetMAC, true
		case nd.Type == ether.NeighborSolicitation && nd.SourceMAC != ether.MAC{} && ip.Src != [16]byte{}:
			return ip.Src, nd.SourceMAC, true
		}
	default:
	}
	return addr, mac, false
}

// suppress answers a question to everybody from what is known; false lets it go on.
func (s *Segment) suppress(l *layout, c *carriage, q *question) bool {
	if !c.in.attributes.Load().NeighSuppress || !c.Frame.Dst.IsGroup() || q.announces() || c.Frame.Inner != 0 {
		return false
	}
	mac, who, ok := s.knows(l, q.target, c.Now)
	if !ok || l.policy.Resolves(c.Source, who, c.Now) != policy.OnWire {
		return false
	}
	if !s.goesTo(l, c, mac, who) || q.v6 && l.policy.Station(who).Roles.Has(policy.Router) {
		return false
	}
	if c.asked == nil {
		c.in.send(q.answer(&c.Frame, mac), ether.Offload{}, Tag{}, c.lane)
	}
	return true
}

// goesTo reports whether it is known that somebody's MAC is behind another port, and what the asker sends would go there: otherwise it
// answers itself, or nobody may do it in its name.
func (s *Segment) goesTo(l *layout, c *carriage, mac ether.MAC, who policy.Identity) bool {
	at, ok := s.fdb.Lookup(mac, c.Now)
	if ports := l.behind[who]; !ok && len(ports) == 1 {
		at = Place{ports[0], who}
	}
	if at.Port == c.in || at.Who != who { // who is nowhere is nobody
		return false
	}
	return !at.Port.stopped(c.Now) && !at.Port.isolatedFrom(c.in)
}

// knows says whose an address is, and by which MAC it is reached.
func (s *Segment) knows(l *layout, addr [16]byte, now time.Time) (ether.MAC, policy.Identity, bool) {
	if who := l.policy.AddressOwner(addr); who != 0 {
		if st := l.policy.Station(who); st.MAC != (ether.MAC{}) {
			return st.MAC, who, true
		}
	}
	x, _ := s.neighbours.find(addr, now)
	// Nobody is known nowhere. Since the address was heard it may have become somebody else's, or nobody's to take.
	if _, known := s.fdb.Lookup(x.mac, now); !known || !l.policy.MayHave(x.who, x.mac, addr) {
		return ether.MAC{}, 0, false
	}
	return x.mac, x.who, true
}

// Knows says whose an IP address is, and by which MAC it is reached, as far as this is listed or was heard; IPv4 is mapped.
func (s *Segment) Knows(addr [16]byte, now time.Time) (ether.MAC, policy.Identity, bool) {
	return s.knows(s.layout.Load(), addr, now)
}

// Heard lists the IP addresses that were heard of a MAC, in order.
func (s *Segment) Heard(mac ether.MAC, now time.Time) (out []netip.Addr) {
	s.neighbours.mu.RLock()
	defer s.neighbours.mu.RUnlock()
	for addr, x := range s.neighbours.of {
		if x.mac == mac && now.Sub(x.seen) < neighbourAge {
			out = append(out, netip.AddrFrom16(addr).Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// announces reports whether a question tells everybody something, or asks whether an address is free: nobody is to answer for
// another then.
func (q *question) announces() bool {
	if q.v6 {
		return q.from == [16]byte{}
	}
	return q.arp.SenderIP == [4]byte{} || q.arp.SenderIP == q.arp.TargetIP
}

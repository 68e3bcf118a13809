package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/etherloom/etherloom/ether"
)

// Scope says which frames a Term is about.
type Scope uint8

// The scopes.
const (
	Everything Scope = iota // to a segment: every frame; to a node: every frame to its address alone
	AnyIP                   // every IP packet to one station
	AnyPort                 // IP packets of one protocol to one station
	PortRange               // the same, to a range of ports
	EtherType               // frames of one EtherType that is not ARP or IP, to one station or to a group
	Multicast               // IP packets to a range of multicast addresses
	Broadcast               // IPv4 packets to the broadcast address, and to no host's own
)

// Term is one thing that a grant allows. What allows IP allows ARP and neighbour discovery with it.
type Term struct {
	Scope    Scope
	Type     ether.Type     // of EtherType
	Protocol ether.Protocol // of AnyPort and PortRange; ICMP stands for ICMPv6, too
	From, To uint16         // of PortRange: destination ports, both ends included
	Group    netip.Prefix   // of Multicast
}

// protocolNames are the protocols that have a name in a term. SCTP and UDP-Lite have ports, but Class does not look at them.
var protocolNames = [...]struct { //nolint:gochecknoglobals // a constant table
	name     string
	protocol ether.Protocol
	ports    bool
}{{"tcp", ether.ProtoTCP, true}, {"udp", ether.ProtoUDP, true}, {"icmp", ether.ProtoICMP, false}}

// termForms says how a term may look, for an error.
const termForms = "a term is any, ip, tcp, udp, icmp, tcp:PORT, udp:PORT or with a range FIRST-LAST, proto:NUMBER, ethertype:0xNNNN, " +
	"multicast:ADDRESS[/LENGTH] or broadcast"

// ParseTerms reads terms, each alone or several ports behind one protocol: tcp:22,80,8000-8100.
func ParseTerms(texts []string) ([]Term, error) {
	var out []Term
	for _, text := range texts {
		name, list, has := strings.Cut(text, ":")
		if !has || name != "tcp" && name != "udp" {
			t, err := ParseTerm(text)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
			continue
		}
		for ports := range strings.SplitSeq(list, ",") {
			t, err := ParseTerm(name + ":" + ports)
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// ParseTerm reads what String writes, and the like.
func ParseTerm(text string) (Term, error) {
	switch text {
	case "any":
		return Term{Scope: Everything}, nil
	case "ip":
		return Term{Scope: AnyIP}, nil
	case "broadcast":
		return Term{Scope: Broadcast}, nil
	}
	name, value, has := strings.Cut(text, ":")
	for _, p := range protocolNames {
		switch {
		case p.name != name:
		case !has:
			return Term{Scope: AnyPort, Protocol: p.protocol}, nil
		case p.ports:
			return parsePorts(p.protocol, text, value)
		}
	}
	switch {
	case !has:
	case name == "proto":
		return parseProtocol(text, value)
	case name == "ethertype":
		return parseType(text, value)
	case name == "multicast":
		return parseGroup(text, value)
	}
	return Term{}, fmt.Errorf("%q is nothing that a grant can allow: %s", text, termForms)
}

func parsePorts(p ether.Protocol, text, value string) (Term, error) {
	first, last, isRange := strings.Cut(value, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return Term{}, fmt.Errorf("%q: a port is 1 to 65535, and a range is FIRST-LAST with FIRST not above LAST", text)
	}
	return Term{Scope: PortRange, Protocol: p, From: uint16(from), To: uint16(to)}, nil
}

func parseProtocol(text, value string) (Term, error) {
	n, err := strconv.ParseUint(value, 10, 8)
	p := ether.Protocol(n) //nolint:gosec // 8 bits were asked for
	if err != nil || p.IsExtension() || p == ether.ProtoICMPv6 {
		return Term{}, fmt.Errorf("%q: a protocol is an IP protocol number, 1 to 255, and no IPv6 extension header (0, 43, 44, 60); "+
			"icmp stands for ICMPv6, too", text)
	}
	return Term{Scope: AnyPort, Protocol: p}, nil
}

func parseType(text, value string) (Term, error) {
	n, err := strconv.ParseUint(value, 0, 16)
	t := ether.Type(n) //nolint:gosec // 16 bits were asked for
	if err != nil || !CanName(t) {
		return Term{}, fmt.Errorf("%q: an EtherType is 0x0600 to 0xffff, and none of ARP, RARP, IP and VLAN tags: ip allows IP and what it needs", text)
	}
	return Term{Scope: EtherType, Type: t}, nil
}

// CanName reports whether an EtherType can be allowed by its number. What this package looks into cannot.
func CanName(t ether.Type) bool {
	switch t {
	case ether.TypeARP, ether.TypeRARP, ether.TypeIPv4, ether.TypeIPv6, ether.TypeVLAN, ether.TypeQinQ:
		return false
	}
	return t >= ether.MinType
}

func parseGroup(text, value string) (Term, error) {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		var a netip.Addr
		// A prefix would lose the zone without a word, and an IPv4 address in the form of IPv6 is in no packet.
		if a, err = netip.ParseAddr(value); err == nil && a.Zone() == "" {
			p = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if a := p.Addr(); !a.IsMulticast() || a.Is4In6() || p != p.Masked() || p.Bits() < leastGroup(a) {
		return Term{}, fmt.Errorf("%q: a multicast term names a group, 224.0.0.0 to 239.255.255.255 or ff00:: and above, or a prefix of groups", text)
	}
	return Term{Scope: Multicast, Group: p}, nil
}

// leastGroup is the length of the prefix that all multicast addresses have (RFC 5771 section 3, RFC 4291 section 2.7).
func leastGroup(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 8
}

// TermOf is the narrowest term that covers a frame; false if none but everything does.
func TermOf(f *ether.Frame) (Term, bool) {
	c := Classify(f)
	switch {
	case c.Kind == Opaque:
		return Term{Scope: EtherType, Type: c.Type}, CanName(c.Type)
	case c.Kind != Packet:
		return Term{}, false
	case c.Dst == ether.Broadcast:
		return Term{Scope: Broadcast}, addrOf(c.Tuple.Dst).Is4()
	case c.Dst.IsGroup():
		a := addrOf(c.Tuple.Dst)
		return Term{Scope: Multicast, Group: netip.PrefixFrom(a, a.BitLen())}, a.IsMulticast()
	case c.Tuple.Protocol == ether.ProtoTCP || c.Tuple.Protocol == ether.ProtoUDP:
		return Term{Scope: PortRange, Protocol: c.Tuple.Protocol, From: c.Tuple.DstPort, To: c.Tuple.DstPort}, c.Tuple.DstPort != 0
	}
	return Term{Scope: AnyPort, Protocol: c.Tuple.Protocol}, !c.Tuple.Protocol.IsExtension()
}

// String writes the term as ParseTerm reads it.
func (t Term) String() string {
	switch t.Scope {
	case AnyIP:
		return "ip"
	case Broadcast:
		return "broadcast"
	case EtherType:
		return fmt.Sprintf("ethertype:0x%04x", uint16(t.Type))
	case Multicast:
		if t.Group.IsSingleIP() {
			return "multicast:" + t.Group.Addr().String()
		}
		return "multicast:" + t.Group.String()
	case AnyPort, PortRange:
		return t.protocolString()
	default:
		return "any"
	}
}

func (t Term) protocolString() string {
	name := fmt.Sprintf("proto:%d", t.Protocol)
	for _, p := range protocolNames {
		if p.protocol == t.Protocol {
			name = p.name
		}
	}
	switch {
	case t.Scope == AnyPort:
		return name
	case t.From == t.To:
		return fmt.Sprintf("%s:%d", name, t.From)
	}
	return fmt.Sprintf("%s:%d-%d", name, t.From, t.To)
}

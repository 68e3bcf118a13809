package policy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/ether"
)

func TestParseTerm(t *testing.T) {
	for _, c := range []struct {
		in    string
		want  Term
		print string // if it differs from in
	}{
		{"any", Term{}, ""},
		{"ip", Term{Scope: AnyIP}, ""},
		{"broadcast", Term{Scope: Broadcast}, ""},
		{"tcp", Term{Scope: AnyPort, Protocol: 6}, ""},
		{"udp", Term{Scope: AnyPort, Protocol: 17}, ""},
		{"icmp", Term{Scope: AnyPort, Protocol: 1}, ""},
		{"proto:47", Term{Scope: AnyPort, Protocol: 47}, ""},
		{"proto:255", Term{Scope: AnyPort, Protocol: 255}, ""},
		{"proto:6", Term{Scope: AnyPort, Protocol: 6}, "tcp"},
		{"proto:1", Term{Scope: AnyPort, Protocol: 1}, "icmp"},
		{"tcp:22", Term{Scope: PortRange, Protocol: 6, From: 22, To: 22}, ""},
		{"udp:1-65535", Term{Scope: PortRange, Protocol: 17, From: 1, To: 65535}, ""},
		{"tcp:7-7", Term{Scope: PortRange, Protocol: 6, From: 7, To: 7}, "tcp:7"},
		{"tcp:007", Term{Scope: PortRange, Protocol: 6, From: 7, To: 7}, "tcp:7"},
		{"ethertype:0x88b5", Term{Scope: EtherType, Type: 0x88b5}, ""},
		{"ethertype:0x600", Term{Scope: EtherType, Type: 0x600}, "ethertype:0x0600"},
		{"ethertype:34997", Term{Scope: EtherType, Type: 0x88b5}, "ethertype:0x88b5"},
		{"multicast:239.0.0.1", Term{Scope: Multicast, Group: prefix("239.0.0.1/32")}, ""},
		{"multicast:224.0.0.0/4", Term{Scope: Multicast, Group: prefix("224.0.0.0/4")}, ""},
		{"multicast:ff02::fb", Term{Scope: Multicast, Group: prefix("ff02::fb/128")}, ""},
		{"multicast:ff00::/8", Term{Scope: Multicast, Group: prefix("ff00::/8")}, ""},
		{"multicast:239.0.0.1/32", Term{Scope: Multicast, Group: prefix("239.0.0.1/32")}, "multicast:239.0.0.1"},
	} {
		got, err := ParseTerm(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v", c.in, got, err)
		}
		if c.print == "" {
			c.print = c.in
		}
		if got.String() != c.print {
			t.Errorf("%q is written %q, want %q", c.in, got, c.print)
		}
	}
}

func TestBadTerms(t *testing.T) {
	const forms, port, protocol, etherType, group = "nothing that a grant can allow: a term is any,", "a port is 1 to 65535, and a range is FIRST-LAST",
		"a protocol is an IP protocol number, 1 to 255", "an EtherType is 0x0600 to 0xffff", "a multicast term names a group, 224.0.0.0 to"
	for in, want := range map[string]string{
		"": forms, "all": forms, "any:": forms, "TCP": forms, "icmp:8": forms, "ip:1": forms, "broadcast:1": forms, "sctp:5": forms, " any": forms, "proto": forms,
		"ethertype": forms, "multicast": forms, ":": forms,
		"tcp:": port, "tcp:0": port, "tcp:65536": port, "tcp:65536-65535": port, "tcp:1-65536": port, "udp:2-1": port, "udp:0-1": port, "udp:1-": port, "udp:-1": port, "tcp:1-2-3": port, "tcp:http": port, "tcp:+1": port, "tcp: 1": port,
		"proto:": protocol, "proto:0": protocol, "proto:256": protocol, "proto:43": protocol, "proto:44": protocol, "proto:60": protocol, "proto:58": protocol, "proto:tcp": protocol, "proto:-1": protocol,
		"ethertype:": etherType, "ethertype:0x5ff": etherType, "ethertype:0x0800": etherType, "ethertype:0x86dd": etherType, "ethertype:0x0806": etherType,
		"ethertype:0x8035": etherType, "ethertype:0x8100": etherType, "ethertype:0x88a8": etherType, "ethertype:0x10000": etherType, "ethertype:ipv4": etherType,
		"multicast:": group, "multicast:192.0.2.1": group, "multicast:239.0.0.1/24": group, "multicast:224.0.0.0/3": group, "multicast:ff00::/7": group, "multicast:2001:db8::1": group,
		"multicast:ff02::1%eth0": group, "multicast:239.0.0.1/33": group, "multicast:::ffff:239.0.0.1": group, "multicast:239.0.0.1/": group,
	} {
		got, err := ParseTerm(in)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `"`+in+`"`) {
			t.Errorf("%q: %v, %v; want an error that quotes it and says %q", in, got, err, want)
		}
	}
}

func TestParseTerms(t *testing.T) {
	got, err := ParseTerms([]string{"tcp:22,80-81", "icmp", "udp:53"})
	var texts []string
	for _, term := range got {
		texts = append(texts, term.String())
	}
	if all := strings.Join(texts, " "); err != nil || all != "tcp:22 tcp:80-81 icmp udp:53" {
		t.Errorf("%s, %v", all, err)
	}
	for in, want := range map[string]string{"tcp:22,": `"tcp:"`, "udp:1,x,2": `"udp:x"`, "icmp,tcp": `"icmp,tcp"`, "multicast:239.0.0.1,239.0.0.2": "a multicast term"} {
		if got, err := ParseTerms([]string{"any", in}); err == nil || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("%q: %v, %v; want an error with %s", in, got, err, want)
		}
	}
	if got, err := ParseTerms(nil); err != nil || got != nil {
		t.Errorf("nothing: %v, %v", got, err)
	}
}

// The narrowest term that is said to cover a frame lets it pass, and no frame to another port, type or group.
func TestTermOf(t *testing.T) {
	to := func(mac ether.MAC, f ether.Frame) ether.Frame {
		f.Dst = mac
		return f
	}
	group := ether.MAC{1, 0, 0x5e}
	packet := func(dst [16]byte) ether.Frame {
		return frameOf(ether.TypeIPv4, 1, 2, packetV4(addressOf(1), dst, ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)))
	}
	multicast, limited := ether.Mapped([4]byte{239, 0, 0, 1}), ether.Mapped([4]byte{255, 255, 255, 255})
	for _, c := range []struct {
		name string
		f    ether.Frame
		want string // empty: none
	}{
		{"TCP", ip(1, 2, ether.ProtoTCP, tcp(9, 80, flagSYN, 0)), "tcp:80"},
		{"UDP", ip(1, 2, ether.ProtoUDP, udp(9, 53, 0)), "udp:53"},
		{"UDP to port 0", ip(1, 2, ether.ProtoUDP, udp(9, 0, 0)), ""},
		{"echo", ip(1, 2, ether.ProtoICMP, icmp(echoV4, 3)), "icmp"},
		{"GRE", ip(1, 2, 47, nil), "proto:47"},
		{"an extension header of IPv6 in IPv4", ip(1, 2, ether.ProtoRouting, nil), ""},
		{"multicast", to(group, packet(multicast)), "multicast:239.0.0.1"},
		{"an address that is no group, to a group", to(group, packet(addressOf(2))), ""},
		{"broadcast", to(ether.Broadcast, packet(limited)), "broadcast"},
		{"IPv6 to all", to(ether.Broadcast, frameOf(ether.TypeIPv6, 1, 2, packetV6(addressV6(1), addressV6(2), ether.ProtoUDP, udp(9, 53, 0)))), ""},
		{"another type", frameOf(0x88b5, 1, 2, nil), "ethertype:0x88b5"},
		{"RARP", frameOf(ether.TypeRARP, 1, 2, nil), ""},
		{"802.3", frameOf(0, 1, 2, nil), ""},
		{"ARP", frameOf(ether.TypeARP, 1, 2, nil), ""},
		{"what is cut", ip(1, 2, ether.ProtoTCP, nil), ""},
		{"an error", icmpError(3, 3, addressOf(1), addressOf(2), nil), ""},
	} {
		term, ok := TermOf(&c.f)
		if ok != (c.want != "") || ok && term.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, term, ok, c.want)
		}
		if !ok {
			continue
		}
		for _, allow := range []Term{term, {Scope: EtherType, Type: 0x88b6}} {
			n := newNetwork(t, Grant{ID: 1, Segment: true, Sources: []Identity{1, 2}, Allow: []Term{allow}})
			if got := n.send(1, 2, c.f); (got == Pass) != (allow == term) {
				t.Errorf("%s, by a grant of %s: %q", c.name, allow, got)
			}
		}
	}
}

// What is broadcast is for everybody: a frame to all with one's own address in it reaches a host that RFC 1122 section 3.3.6
// asks not to take it.
func TestBroadcastTerm(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  ether.Type
		in   []byte
		want Verdict
	}{
		{"limited", ether.TypeIPv4, packetV4(addressOf(1), ether.Mapped([4]byte{255, 255, 255, 255}), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)), Pass},
		{"of the subnet", ether.TypeIPv4, packetV4(addressOf(1), ether.Mapped([4]byte{192, 0, 2, 255}), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)), Pass},
		{"the receiver's own address", ether.TypeIPv4, packetV4(addressOf(1), addressOf(2), ether.ProtoUDP, 1, 0, false, udp(9, 53, 0)), NotAllowed},
		{"IPv6", ether.TypeIPv6, packetV6(addressV6(1), [16]byte{0xff, 0x02, 15: 1}, ether.ProtoUDP, udp(9, 53, 0)), NotAllowed},
	} {
		n := newNetwork(t, Grant{ID: 1, Segment: true, Sources: []Identity{1, 2}, Allow: terms(t, "broadcast")})
		f := frameOf(c.typ, 1, 2, c.in)
		f.Dst = ether.Broadcast
		if got := n.send(1, 2, f); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := n.deliver(1, 2, f, 1); got != c.want {
			t.Errorf("%s, from one who is not honest: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzParseTerm(f *testing.F) {
	for _, text := range []string{"any", "tcp:22-80", "proto:47", "ethertype:0x88b5", "multicast:239.0.0.0/24", "multicast:ff02::fb", "udp:1-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		term, err := ParseTerm(text)
		if err != nil {
			return
		}
		if again, err := ParseTerm(term.String()); err != nil || again != term {
			t.Fatalf("%q is %+v, is written %q and read as %+v, %v", text, term, term, again, err)
		}
		if all, err := ParseTerms([]string{text}); err != nil || len(all) != 1 || all[0] != term {
			t.Fatalf("%q among others is %+v, %v", text, all, err)
		}
	})
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

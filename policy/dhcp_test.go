package policy

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// message is what of a DHCP message matters here. kind 0 leaves the options without it.
type message struct {
	op            byte
	client        ether.MAC
	ciaddr, relay netip.Addr
	kind          byte
	requested     netip.Addr
	more          []byte // options
}

func (m message) bytes() []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = m.op, 1, 6
	if m.ciaddr.IsValid() {
		copy(b[12:], m.ciaddr.AsSlice())
	}
	if m.relay.IsValid() {
		copy(b[24:], m.relay.AsSlice())
	}
	copy(b[28:], m.client[:])
	b = append(b, 0x63, 0x82, 0x53, 0x63)
	if m.kind != 0 {
		b = append(b, 53, 1, m.kind)
	}
	if m.requested.IsValid() {
		b = append(append(b, 50, 4), m.requested.AsSlice()...)
	}
	return append(append(b, m.more...), 255)
}

func bootp(t *testing.T, src netip.Addr, sport, dport layers.UDPPort, m message) []byte {
	return build(t, own, layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: net.IP{255, 255, 255, 255}},
		&layers.UDP{SrcPort: sport, DstPort: dport}, gopacket.Payload(m.bytes()))
}

// as checks what a station with an address of each family says, with and without a role.
func as(t *testing.T, roles Roles, super bool, in []byte) (Budget, Verdict) {
	t.Helper()
	f, err := ether.Parse(in)
	if err != nil {
		t.Fatal(err)
	}
	s := NewStation(own, []netip.Addr{ownV4, ownV6, own.LinkLocal()}, false)
	s.Roles = roles
	return s.Check(&f, super)
}

// I08: who is no DHCP server, and for whom a client may speak. What a server may say is passed with its role alone.
func TestDHCP(t *testing.T) {
	honest := message{op: 1, client: own, kind: 3}
	with := func(edit func(*message)) []byte {
		m := honest
		edit(&m)
		return bootp(t, ownV4, 68, 67, m)
	}
	edited := func(f []byte, edit func(f []byte)) []byte {
		edit(f)
		return f
	}
	request := func() []byte { return bootp(t, ownV4, 68, 67, honest) }
	fragmentOf := func(f []byte) []byte { return edited(f, func(f []byte) { f[14+6] = 0x20 }) }
	offer := message{op: 2, client: other, kind: 2}
	optioned := func() []byte { // four bytes of IP options in front of UDP
		f := bootp(t, ownV4, 67, 68, offer)
		f = append(f[:34:34], append([]byte{1, 1, 1, 0}, f[34:]...)...)
		f[14], f[14+3] = 0x46, f[14+3]+4
		return f
	}
	for _, c := range []struct {
		name   string
		in     []byte
		want   Verdict
		server Verdict // of a station with the role
	}{
		{"request", request(), Pass, Pass},
		{"from another port", bootp(t, ownV4, 4000, 67, honest), Pass, Pass},
		{"renewal", with(func(m *message) { m.ciaddr = ownV4 }), Pass, Pass},
		{"BOOTP", with(func(m *message) { m.kind = 0 }), Pass, Pass},
		{"release", with(func(m *message) { m.kind, m.ciaddr = 7, ownV4 }), Pass, Pass},
		{"decline", with(func(m *message) { m.kind, m.requested = 4, ownV4 }), Pass, Pass},
		{"request for any address", with(func(m *message) { m.requested = otherV4 }), Pass, Pass},

		{"offer", bootp(t, ownV4, 67, 68, offer), NotDHCPServer, Pass},
		{"offer from another port", bootp(t, ownV4, 4000, 68, offer), NotDHCPServer, Pass},
		{"request to a client's port", bootp(t, ownV4, 4000, 68, honest), NotDHCPServer, Pass},
		{"offer to another port", bootp(t, ownV4, 67, 4000, offer), NotDHCPServer, Pass},
		{"offer behind IP options", optioned(), NotDHCPServer, Pass},
		{"first fragment of an offer", fragmentOf(bootp(t, ownV4, 67, 68, offer)), NotDHCPServer, Pass},
		{"offer of another", bootp(t, otherV4, 67, 68, offer), IPSource, IPSource},
		{"reply to a relay agent", bootp(t, ownV4, 4000, 67, offer), NotDHCPServer, Pass},
		{"as a relay agent, by port", bootp(t, ownV4, 67, 67, honest), NotDHCPServer, Pass},
		{"as a relay agent, by address", with(func(m *message) { m.relay = ownV4 }), NotDHCPServer, Pass},

		{"in the name of another (starvation)", with(func(m *message) { m.client = other }), DHCPClient, Pass},
		{"renewal of another's address", with(func(m *message) { m.ciaddr = otherV4 }), DHCPClient, Pass},
		{"release of another's address", with(func(m *message) { m.kind, m.ciaddr = 7, otherV4 }), DHCPClient, Pass},
		{"release of no address", with(func(m *message) { m.kind = 7 }), DHCPClient, Pass},
		{"decline of another's address", with(func(m *message) { m.kind, m.requested = 4, otherV4 }), DHCPClient, Pass},
		{"decline of no address", with(func(m *message) { m.kind = 4 }), DHCPClient, Pass},

		{"two kinds at once", with(func(m *message) { m.more = []byte{53, 1, 4} }), Undetermined, Pass},
		{"options elsewhere", with(func(m *message) { m.more = []byte{52, 1, 1} }), Undetermined, Pass},
		{"first fragment of a request", fragmentOf(request()), Undetermined, Pass},
		{"UDP longer than its packet", edited(request(), func(f []byte) { f[34+4] = 9 }), Undetermined, Pass},
		{"UDP without ports", edited(udp4(t, ownV4, 68, 67, 0), func(f []byte) { f[14+3] = 23 }), Undetermined, Undetermined},
	} {
		budget, got := as(t, 0, false, c.in)
		if got != c.want || got == Pass && budget != Control {
			t.Errorf("%s: budget %d, %q, want %q", c.name, budget, got, c.want)
		}
		if budget, got = as(t, DHCPServer, false, c.in); got != c.server || got == Pass && budget != Control {
			t.Errorf("%s, of a server: budget %d, %q, want %q", c.name, budget, got, c.server)
		}
		if _, got = as(t, Router|Querier, false, c.in); got != c.want {
			t.Errorf("%s, with other roles: %q, want %q", c.name, got, c.want)
		}
	}
	// A super-frame stands for messages that nobody has looked into.
	if _, v := as(t, 0, true, request()); v != Undetermined {
		t.Errorf("super-frame: %q", v)
	}
	if _, v := as(t, 0, true, udp4(t, ownV4, 1000, 2000, 0)); v != Pass {
		t.Errorf("super-frame that is no DHCP: %q", v)
	}
}

func TestDHCPv6(t *testing.T) {
	udp6 := func(src netip.Addr, sport, dport uint16, body ...byte) []byte {
		n := 8 + len(body)
		head := []byte{byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport), 0, byte(n), 0, 0}
		return v6(t, src, v6opts{hop: 64, next: 17}, append(head, body...))
	}
	ask := func(kind byte) []byte { return udp6(own.LinkLocal(), 546, 547, kind, 0, 0, 1) }
	fragment := func(sport, dport byte) []byte {
		body := []byte{2, sport, 2, dport, 0, 12, 0, 0, 2, 0, 0, 1}
		return v6(t, own.LinkLocal(), v6opts{hop: 64, next: 44, ext: []byte{17, 0, 0, 1, 0, 0, 0, 9}}, body)
	}
	hopByHop := v6(t, own.LinkLocal(), v6opts{hop: 64, ext: []byte{17, 0, 1, 4, 0, 0, 0, 0}}, []byte{2, 35, 2, 34, 0, 12, 0, 0, 2, 0, 0, 1})
	long := ask(1)
	long[14+40+5] = 200
	const server, client = 547, 546
	for _, c := range []struct {
		name   string
		in     []byte
		want   Verdict
		server Verdict
	}{
		{"solicit", ask(1), Pass, Pass},
		{"request", ask(3), Pass, Pass},
		{"information request", ask(11), Pass, Pass},
		{"from another port", udp6(ownV6, 4000, server, 1, 0, 0, 1), Pass, Pass},

		{"advertise", udp6(own.LinkLocal(), server, client, 2, 0, 0, 1), NotDHCPServer, Pass},
		{"advertise from another port", udp6(own.LinkLocal(), 4000, client, 2, 0, 0, 1), NotDHCPServer, Pass},
		{"solicit from a server's port", udp6(own.LinkLocal(), server, server, 1, 0, 0, 1), NotDHCPServer, Pass},
		{"solicit to a client's port", udp6(own.LinkLocal(), 4000, client, 1, 0, 0, 1), NotDHCPServer, Pass},
		{"advertise behind hop-by-hop options", hopByHop, NotDHCPServer, Pass},
		{"first fragment of an advertise", fragment(35, 34), NotDHCPServer, Pass},
		{"reply to another port", udp6(own.LinkLocal(), server, 4000, 7, 0, 0, 1), NotDHCPServer, Pass},
		{"advertise to a relay agent", udp6(ownV6, 4000, server, 2, 0, 0, 1), NotDHCPServer, Pass},
		{"reply to a relay agent", udp6(ownV6, 4000, server, 7, 0, 0, 1), NotDHCPServer, Pass},
		{"reconfigure to a relay agent", udp6(ownV6, 4000, server, 10, 0, 0, 1), NotDHCPServer, Pass},
		{"relayed question", udp6(ownV6, 4000, server, 12, 0), NotDHCPServer, Pass},
		{"relayed answer", udp6(ownV6, 4000, server, 13, 0), NotDHCPServer, Pass},
		{"of another", udp6(otherV6, server, client, 2, 0, 0, 1), IPSource, IPSource},

		{"release", ask(8), DHCPClient, Pass},
		{"decline", ask(9), DHCPClient, Pass},

		{"no message", udp6(own.LinkLocal(), client, server), Undetermined, Pass},
		{"UDP longer than its packet", long, Undetermined, Pass},
		{"first fragment of a question", fragment(34, 35), Undetermined, Pass},
		{"UDP without ports", v6(t, ownV6, v6opts{hop: 64, next: 17}, []byte{2, 34, 2}), Undetermined, Undetermined},
	} {
		budget, got := as(t, 0, false, c.in)
		if got != c.want || got == Pass && budget != Control {
			t.Errorf("%s: budget %d, %q, want %q", c.name, budget, got, c.want)
		}
		if budget, got = as(t, DHCPServer, false, c.in); got != c.server || got == Pass && budget != Control {
			t.Errorf("%s, of a server: budget %d, %q, want %q", c.name, budget, got, c.server)
		}
	}
	if _, v := as(t, 0, true, ask(1)); v != Undetermined {
		t.Errorf("super-frame: %q", v)
	}
}

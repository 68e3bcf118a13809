package ether

import (
	"bytes"
	"testing"
)

// dhcpMessage is a request of a client with options.
func dhcpMessage(options ...byte) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = 1, 1, 6
	copy(b[12:], []byte{192, 0, 2, 1})
	copy(b[24:], []byte{192, 0, 2, 254})
	copy(b[28:], src)
	return append(append(b, 0x63, 0x82, 0x53, 0x63), options...)
}

func TestDHCP(t *testing.T) {
	want := DHCP{
		Op: BootRequest, ClientIP: [4]byte{192, 0, 2, 1}, Relay: [4]byte{192, 0, 2, 254}, Client: MAC(src),
		Message: DHCPDecline, Requested: [4]byte{192, 0, 2, 9},
	}
	good := []byte{0, 53, 1, 4, 0, 50, 4, 192, 0, 2, 9, 255}
	changed := func(at int, to byte) []byte {
		b := dhcpMessage(good...)
		b[at] = to
		return b
	}
	bare := want
	bare.Message, bare.Requested = 0, [4]byte{}
	for _, c := range []struct {
		name string
		in   []byte
		want DHCP
		ok   bool
	}{
		{"whole", dhcpMessage(good...), want, true},
		{"without an end", dhcpMessage(good[:11]...), want, true},
		{"anything behind the end", dhcpMessage(append(good[:12:12], 53, 1, 1, 52, 1, 1, 9)...), want, true},
		{"other options between", dhcpMessage(append([]byte{12, 0, 61, 3, 1, 2, 3}, good...)...), want, true},
		{"no options", dhcpMessage(), bare, true},
		{"cut", dhcpMessage()[:239], DHCP{}, false},
		{"not Ethernet", changed(1, 6), DHCP{}, false},
		{"addresses of another length", changed(2, 16), DHCP{}, false},
		{"another cookie", changed(236, 0), DHCP{}, false},
		{"option without length", dhcpMessage(append(good[:11:11], 53)...), DHCP{}, false},
		{"option that is cut", dhcpMessage(append(good[:11:11], 12, 3, 'a', 'b')...), DHCP{}, false},
		{"two kinds", dhcpMessage(append(good[:11:11], 53, 1, 1)...), DHCP{}, false},
		{"kind of two bytes", dhcpMessage(53, 2, 1, 1), DHCP{}, false},
		{"kind of no byte", dhcpMessage(53, 0), DHCP{}, false},
		{"two addresses", dhcpMessage(append(good[:11:11], 50, 4, 192, 0, 2, 1)...), DHCP{}, false},
		{"address of three bytes", dhcpMessage(50, 3, 192, 0, 2), DHCP{}, false},
		{"address of five bytes", dhcpMessage(50, 5, 192, 0, 2, 1, 1), DHCP{}, false},
		{"options elsewhere", dhcpMessage(append([]byte{52, 1, 3}, good...)...), DHCP{}, false},
	} {
		got, ok := ParseDHCP(c.in)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %t", c.name, got, ok)
		}
	}
	in := dhcpMessage(good...)
	if n := testing.AllocsPerRun(100, func() { ParseDHCP(in) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUDP(t *testing.T) {
	in := []byte{0, 1, 0, 2, 0, 10, 0, 0, 'a', 'b', 'c'}
	if p, ok := ParseUDP(in); !ok || string(p) != "ab" {
		t.Errorf("%q, %t", p, ok)
	}
	for n := range 10 {
		if _, ok := ParseUDP(in[:n]); ok {
			t.Errorf("%d bytes are a datagram of 10", n)
		}
	}
	for _, n := range []byte{0, 7, 12} {
		if _, ok := ParseUDP([]byte{0, 1, 0, 2, 0, n, 0, 0, 'a', 'b', 'c'}); ok {
			t.Errorf("length %d of 11 bytes", n)
		}
	}
	if p, ok := ParseUDP([]byte{0, 1, 0, 2, 0, 8, 0, 0}); !ok || len(p) != 0 {
		t.Errorf("no payload: %q, %t", p, ok)
	}
}

// DHCP is never joined, by whichever port one knows it: each message is judged alone.
func TestDHCPIsNotJoined(t *testing.T) {
	const l4 = 34
	for _, port := range []byte{PortDHCPServer, PortDHCPClient} {
		for at := range 2 {
			list := datagrams(t, false, 2, 300)
			for _, f := range list {
				f[l4+2*at], f[l4+2*at+1] = 0, port
			}
			if j := (Joiner{Takes: all}); j.Add(list[0]) || j.Pending() {
				t.Errorf("port %d: taken up", port)
			}
		}
	}
	for _, port := range []uint16{PortDHCPv6Client, PortDHCPv6Server} {
		for at := range 2 {
			f := datagrams(t, true, 2, 300)[0]
			f[54+2*at], f[54+2*at+1] = byte(port>>8), byte(port)
			if j := (Joiner{Takes: all}); j.Add(f) || j.Pending() {
				t.Errorf("port %d: taken up", port)
			}
		}
	}
}

func FuzzDHCP(f *testing.F) {
	f.Add(dhcpMessage(53, 1, 4, 50, 4, 192, 0, 2, 9, 255))
	f.Add(dhcpMessage(52, 1, 1))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		d, ok := ParseDHCP(in)
		if !bytes.Equal(in, before) {
			t.Fatal("changed what it looked at")
		}
		// An option that decides is there in plain sight.
		if ok && d.Message != 0 && !bytes.Contains(in[240:], []byte{53, 1, d.Message}) {
			t.Fatalf("kind %d is nowhere in %x", d.Message, in)
		}
		if ok && d.Requested != [4]byte{} && !bytes.Contains(in[240:], append([]byte{50, 4}, d.Requested[:]...)) {
			t.Fatalf("address %v is nowhere in %x", d.Requested, in)
		}
		if p, ok := ParseUDP(in); ok && len(p) > len(in)-8 {
			t.Fatal("a payload longer than its datagram")
		}
	})
}

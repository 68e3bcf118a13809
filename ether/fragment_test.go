package ether

import (
	"bytes"
	"encoding/binary"
	"net"
	"reflect"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// headV6 is an IPv6 header in front of what follows it.
func headV6(next Protocol, rest ...[]byte) []byte {
	body := frame(rest...)
	b := make([]byte, 40, 40+len(body))
	b[0], b[6], b[7], b[23], b[39] = 0x60, byte(next), 64, 1, 2
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	return append(b, body...)
}

func TestParseFragment(t *testing.T) {
	v4 := func(flags layers.IPv4Flag, offset uint16, body string) []byte {
		return packet(t, &layers.IPv4{
			Version: 4, TTL: 64, Id: 0xbeef, Flags: flags, FragOffset: offset, Protocol: layers.IPProtocolUDP, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2},
		}, gopacket.Payload(body))
	}
	options := []byte{byte(ProtoFragment), 0, 1, 4, 0, 0, 0, 0}
	v6 := func(field uint16, body string) []byte {
		return append([]byte{byte(ProtoTCP), 0xff, byte(field >> 8), byte(field), 0xde, 0xad, 0xbe, 0xef}, body...)
	}
	from4, to4 := Mapped([4]byte{192, 0, 2, 1}), Mapped([4]byte{192, 0, 2, 2})
	from6, to6 := [16]byte{15: 1}, [16]byte{15: 2}
	cut := v6(1, "")
	for _, c := range []struct {
		name string
		typ  Type
		in   []byte
		want Fragment // its Src is zero if there is none
	}{
		{"whole IPv4", TypeIPv4, v4(0, 0, "12345678"), Fragment{}},
		{"IPv4 that must not be cut", TypeIPv4, v4(layers.IPv4DontFragment, 0, "12345678"), Fragment{}},
		{"first of IPv4", TypeIPv4, v4(layers.IPv4MoreFragments, 0, "12345678"), Fragment{ID: 0xbeef, Protocol: ProtoUDP, More: true, Src: from4, Dst: to4, Payload: []byte("12345678")}},
		{"middle of IPv4", TypeIPv4, v4(layers.IPv4MoreFragments, 3, "12345678"), Fragment{ID: 0xbeef, Protocol: ProtoUDP, Offset: 24, More: true, Src: from4, Dst: to4, Payload: []byte("12345678")}},
		{"last of IPv4", TypeIPv4, v4(0, 8191, "1"), Fragment{ID: 0xbeef, Protocol: ProtoUDP, Offset: 65528, Src: from4, Dst: to4, Payload: []byte("1")}},
		{"padding behind IPv4", TypeIPv4, append(v4(0, 1, "1"), 0, 0, 0), Fragment{ID: 0xbeef, Protocol: ProtoUDP, Offset: 8, Src: from4, Dst: to4, Payload: []byte("1")}},
		{"cut IPv4", TypeIPv4, v4(0, 1, "12")[:21], Fragment{}},
		{"IPv4 under another type", 0x88b5, v4(0, 1, "12"), Fragment{}},
		{"IPv4 under IPv6's type", TypeIPv6, append(v4(0, 1, "12"), make([]byte, 40)...), Fragment{}},
		{"whole IPv6", TypeIPv6, headV6(ProtoTCP, []byte("1234567890")), Fragment{}},
		{"first of IPv6", TypeIPv6, headV6(ProtoFragment, v6(1, "12345678")), Fragment{ID: 0xdeadbeef, Protocol: ProtoTCP, More: true, Src: from6, Dst: to6, Payload: []byte("12345678")}},
		{"middle of IPv6", TypeIPv6, headV6(ProtoFragment, v6(24|1, "12345678")), Fragment{ID: 0xdeadbeef, Protocol: ProtoTCP, Offset: 24, More: true, Src: from6, Dst: to6, Payload: []byte("12345678")}},
		{"last of IPv6, behind options", TypeIPv6, headV6(ProtoDestOpts, options, v6(0xfff8, "1")), Fragment{ID: 0xdeadbeef, Protocol: ProtoTCP, Offset: 65528, Src: from6, Dst: to6, Payload: []byte("1")}},
		{"reserved bits of a middle one", TypeIPv6, headV6(ProtoFragment, v6(24|7, "12345678")), Fragment{ID: 0xdeadbeef, Protocol: ProtoTCP, Offset: 24, More: true, Src: from6, Dst: to6, Payload: []byte("12345678")}},
		{"atomic (RFC 6946)", TypeIPv6, headV6(ProtoFragment, v6(0, "12345678")), Fragment{}},
		{"atomic, with reserved bits", TypeIPv6, headV6(ProtoFragment, v6(6, "12345678")), Fragment{}},
		{"cut fragment header", TypeIPv6, headV6(ProtoFragment, cut[:7]), Fragment{}},
		{"no fragment header at all", TypeIPv6, headV6(ProtoFragment), Fragment{}},
		{"options longer than the packet", TypeIPv6, headV6(ProtoDestOpts, []byte{byte(ProtoFragment), 2, 1, 4, 0, 0, 0, 0}, v6(1, "")), Fragment{}},
		{"too many headers", TypeIPv6, headV6(ProtoDestOpts, bytes.Repeat([]byte{byte(ProtoDestOpts), 0, 1, 4, 0, 0, 0, 0}, maxExtensions-1), options, v6(1, "12345678")), Fragment{}},
		{"TCP that looks like options and a fragment header", TypeIPv6, headV6(ProtoTCP, options, v6(1, "12345678")), Fragment{}},
		{"cut IPv6", TypeIPv6, headV6(ProtoFragment, v6(1, "12345678"))[:50], Fragment{}},
	} {
		got, is := ParseFragment(&Frame{Type: c.typ, Payload: c.in})
		if is != (c.want.Src != [16]byte{}) {
			t.Errorf("%s: a fragment: %v", c.name, is)
		} else if is && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestRouted(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []byte
		want    bool
	}{
		{"no options", nil, false},
		{"padding", []byte{1, 1, 1, 0}, false},
		{"record route", []byte{7, 7, 4, 0, 0, 0, 0, 0}, false},
		{"router alert, end", []byte{148, 4, 0, 0, 0, 131, 3, 4}, false},
		{"loose source route", []byte{131, 7, 4, 192, 0, 2, 9, 0}, true},
		{"strict source route", []byte{137, 7, 4, 192, 0, 2, 9, 0}, true},
		{"behind others", []byte{1, 148, 4, 0, 0, 1, 131, 2}, true},
		{"length of one byte", []byte{148, 1, 0, 0}, true},
		{"longer than the header", []byte{148, 5, 0, 0}, true},
		{"no length", []byte{1, 1, 1, 148}, true},
	} {
		p := append([]byte{0x45 + byte(len(c.options)/4), 0, 0, byte(20 + len(c.options))}, make([]byte, 16)...)
		p = append(p, c.options...)
		ip, ok := ParseIPv4(p)
		if got := ip.Routed(p); !ok || got != c.want {
			t.Errorf("IPv4 with %s: %v", c.name, got)
		}
	}
	route := func(next Protocol, left byte) []byte { return []byte{byte(next), 0, 4, left, 0, 0, 0, 0} }
	options := []byte{byte(ProtoRouting), 0, 1, 4, 0, 0, 0, 0}
	fragment := []byte{byte(ProtoRouting), 9, 0, 0, 0, 0, 0, 1} // its second byte is no length
	for _, c := range []struct {
		name string
		in   []byte
		want bool
	}{
		{"plain", headV6(ProtoTCP, make([]byte, 20)), false},
		{"what only looks like one", headV6(ProtoTCP, options, route(ProtoTCP, 1)), false},
		{"segments left", headV6(ProtoRouting, route(ProtoTCP, 1)), true},
		{"none left", headV6(ProtoRouting, route(ProtoTCP, 0)), false},
		{"behind options", headV6(ProtoDestOpts, options, route(ProtoTCP, 2)), true},
		{"behind another", headV6(ProtoRouting, route(ProtoRouting, 0), route(ProtoTCP, 2)), true},
		{"behind a fragment header", headV6(ProtoFragment, fragment, route(ProtoTCP, 2)), true},
		{"behind too many", headV6(ProtoDestOpts, bytes.Repeat([]byte{byte(ProtoDestOpts), 0, 1, 4, 0, 0, 0, 0}, maxExtensions), route(ProtoTCP, 1)), false},
		{"cut", headV6(ProtoRouting, route(ProtoTCP, 1)[:7]), false},
		{"behind cut options", headV6(ProtoDestOpts, []byte{byte(ProtoRouting), 1, 1, 4, 0, 0, 0, 0}), false},
	} {
		ip, ok := ParseIPv6(c.in)
		if got := ip.Routed(); !ok || got != c.want {
			t.Errorf("IPv6, %s: %v", c.name, got)
		}
	}
}

// What another decoder takes for a fragment is one here, and says the same.
func FuzzParseFragment(f *testing.F) {
	f.Add(false, append([]byte{0x45, 0, 0, 28, 0, 1, 0x20, 3, 64, 17, 0, 0}, make([]byte, 16)...))
	f.Add(true, headV6(ProtoDestOpts, []byte{byte(ProtoFragment), 0, 1, 4, 0, 0, 0, 0}, []byte{6, 0, 0, 25, 0, 0, 0, 1}, []byte("12345678")))
	f.Fuzz(func(t *testing.T, six bool, p []byte) {
		typ, first := TypeIPv4, layers.LayerTypeIPv4
		if six {
			typ, first = TypeIPv6, layers.LayerTypeIPv6
		}
		got, is := ParseFragment(&Frame{Type: typ, Payload: p})
		if is && (got.Offset%8 != 0 || got.Offset == 0 && !got.More || len(got.Payload) > len(p)-20) {
			t.Fatalf("%+v of %d bytes", got, len(p))
		}
		decoded := gopacket.NewPacket(p, first, gopacket.DecodeOptions{NoCopy: true, DecodeStreamsAsDatagrams: true})
		if ip, ok := decoded.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok && !six && ip.Version == 4 && ip.IHL >= 5 {
			if total := int(binary.BigEndian.Uint16(p[2:])); total < int(ip.IHL)*4 || total > len(p) {
				return // gopacket reads what is cut; hosts do not
			}
			fragment := ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0
			if is != fragment {
				t.Fatalf("a fragment: %v, want %v", is, fragment)
			}
			if is && (int(ip.FragOffset)*8 != got.Offset || uint32(ip.Id) != got.ID || Protocol(ip.Protocol) != got.Protocol || !bytes.Equal(ip.Payload, got.Payload)) {
				t.Fatalf("%+v, want %+v", got, ip)
			}
		}
		ip, ok := decoded.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		head, found := decoded.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
		if !six || !ok || !found || !is || ip.Version != 6 {
			return
		}
		if int(head.FragmentOffset)*8 != got.Offset || head.Identification != got.ID || head.MoreFragments != got.More || Protocol(head.NextHeader) != got.Protocol {
			t.Fatalf("%+v, want %+v", got, head)
		}
	})
}

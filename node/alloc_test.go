package node

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// made serialises layers behind an Ethernet header from the near node to the far one, with every length and checksum right.
func made(t *testing.T, vlan bool, typ layers.EthernetType, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: typ,
	}
	all := []gopacket.SerializableLayer{eth}
	if vlan {
		eth.EthernetType = layers.EthernetTypeDot1Q
		all = append(all, &layers.Dot1Q{Priority: 5, Type: typ})
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(all, rest...)...)
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// undone says of a frame that its checksum is left undone, and cuts it if size is not 0.
func undone(t *testing.T, frame []byte, size uint16) ether.Offload {
	t.Helper()
	o, ok := ether.Partial(frame)
	if !ok {
		t.Fatal("the frame has no checksum to leave undone")
	}
	o.Size = size
	return o
}

// No frame takes anything from the heap, of whatever class, from one host to the other: read, admitted, sealed, sent, received,
// opened, admitted again, given.
func TestFramesDoNotAllocate(t *testing.T) {
	v4 := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: net.IP{192, 0, 2, 1}, DstIP: net.IP{192, 0, 2, 2}, Flags: layers.IPv4DontFragment}
	}
	payload := func(n int) gopacket.Payload { return make([]byte, n) }
	tcp := func(syn bool, n int) []gopacket.SerializableLayer {
		ip := v4(layers.IPProtocolTCP)
		l := &layers.TCP{SrcPort: 1000, DstPort: 2000, Seq: 1, ACK: !syn, SYN: syn, Window: 1000}
		if syn {
			l.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 180}}}
		}
		_ = l.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{ip, l, payload(n)}
	}
	udp := func(n int) []gopacket.SerializableLayer {
		ip := v4(layers.IPProtocolUDP)
		l := &layers.UDP{SrcPort: 1000, DstPort: 2000}
		_ = l.SetNetworkLayerForChecksum(ip)
		return []gopacket.SerializableLayer{ip, l, payload(n)}
	}
	fragment := v4(layers.IPProtocolUDP)
	fragment.Flags, fragment.FragOffset = layers.IPv4MoreFragments, 100
	arp := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
		SourceHwAddress: []byte{2, 0, 0, 0, 0, 1}, SourceProtAddress: []byte{192, 0, 2, 1},
		DstHwAddress: make([]byte, 6), DstProtAddress: []byte{192, 0, 2, 2},
	}
	const ipv4, other = layers.EthernetTypeIPv4, layers.EthernetType(0x88b5)
	flooded := made(t, false, other, payload(50))
	copy(flooded, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	reserved := made(t, false, other, payload(50))
	copy(reserved, []byte{1, 0x80, 0xc2, 0, 0, 0})
	stolen := made(t, false, other, payload(50))
	stolen[11]++
	for _, c := range []struct {
		name    string
		frame   []byte
		partial bool
		size    uint16 // of a super-frame
		drop    bool
	}{
		{"no IP", made(t, false, other, payload(50)), false, 0, false},
		{"full, no IP", made(t, false, other, payload(1500)), false, 0, false},
		{"jumbo", made(t, false, other, payload(9000)), false, 0, false},
		{"VLAN 0", made(t, true, other, payload(50)), false, 0, false},
		{"broadcast", flooded, false, 0, false},
		{"ARP", made(t, false, layers.EthernetTypeARP, arp), false, 0, false},
		{"SYN", made(t, false, ipv4, tcp(true, 0)...), false, 0, false},
		{"SYN, checksum undone", made(t, false, ipv4, tcp(true, 0)...), true, 0, false},
		{"ACK", made(t, false, ipv4, tcp(false, 0)...), true, 0, false},
		{"segment", made(t, false, ipv4, tcp(false, 1400)...), true, 0, false},
		{"TCP super-frame", made(t, false, ipv4, tcp(false, 57000)...), true, 1448, false},
		{"tagged TCP super-frame", made(t, true, ipv4, tcp(false, 57000)...), true, 1448, false},
		{"small datagram", made(t, false, ipv4, udp(64)...), true, 0, false},
		{"full datagram", made(t, false, ipv4, udp(1472)...), true, 0, false},
		{"full datagram, checksummed", made(t, false, ipv4, udp(1472)...), false, 0, false},
		{"UDP super-frame", made(t, false, ipv4, udp(40*1200)...), true, 1200, false},
		{"UDP super-frame that does not fit", made(t, false, ipv4, udp(40*1472)...), true, 1472, false},
		{"fragment", made(t, false, ipv4, fragment, payload(800)), false, 0, false},
		{"reserved address", reserved, false, 0, true},
		{"another's address", stolen, false, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTrial(t)
			var o ether.Offload
			if c.partial {
				o = undone(t, c.frame, c.size)
			}
			frames := [][]byte{c.frame}
			carry := func() {
				if c.name == "fragment" {
					frames[0][14+5]++ // its identification: of each datagram, a part comes once
				}
				tr.Send(frames, o)
				if err := tr.Receive(); err != nil {
					t.Fatal(err)
				}
			}
			for range 10 { // what is made once
				carry()
			}
			if n := testing.AllocsPerRun(200, carry); n != 0 {
				t.Errorf("%v allocations", n)
			}
			frames0, octets := tr.Arrived()
			if c.drop {
				if frames0 != 0 {
					t.Errorf("%d frames arrived", frames0)
				}
				return
			}
			if frames0 == 0 || octets < 211*uint64(len(c.frame)) {
				t.Errorf("%d frames arrived, %d bytes: %v", frames0, octets, tr.Refused())
			}
		})
	}
}

package ether

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

func TestAppendARP(t *testing.T) {
	want := ARP{
		Op: ARPReply, SenderMAC: MAC{2, 0, 0, 0, 0, 1}, SenderIP: [4]byte{192, 0, 2, 1},
		TargetMAC: MAC{2, 0, 0, 0, 0, 2}, TargetIP: [4]byte{192, 0, 2, 2},
	}
	b := AppendARP([]byte("front"), want)
	if got, ok := ParseARP(b[len("front"):]); !ok || got != want || string(b[:5]) != "front" || len(b) != 5+arpLen {
		t.Errorf("%x is %+v, %t", b, got, ok)
	}
}

// An advertisement is what another's code makes of the same facts, checksum included.
func TestAppendAdvertisement(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var target, to [16]byte
		var mac MAC
		for _, b := range [][]byte{target[:], to[:], mac[:]} {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		ip := &layers.IPv6{
			Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6,
			SrcIP: netip.AddrFrom16(target).AsSlice(), DstIP: netip.AddrFrom16(to).AsSlice(),
		}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborAdvertisement, 0)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		want := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(want, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, icmp,
			&layers.ICMPv6NeighborAdvertisement{
				Flags: 0x60, TargetAddress: target[:],
				Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: mac[:]}},
			}); err != nil {
			t.Fatal(err)
		}
		if got := AppendAdvertisement([]byte("front"), target, to, mac); !bytes.Equal(got[5:], want.Bytes()) || string(got[:5]) != "front" {
			t.Fatalf("%x, want %x", got, want.Bytes())
		}
	}
}

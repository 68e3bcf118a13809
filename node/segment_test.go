package node

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/etherloom/etherloom/ether"
)

// given is what a host was given.
type given struct {
	frame  []byte
	undone ether.Offload
}

type fakeHost struct {
	list  []given
	count int
	keep  bool
}

func (h *fakeHost) Write(frame []byte, undone ether.Offload) error {
	h.count++
	if h.keep {
		h.list = append(h.list, given{bytes.Clone(frame), undone})
	}
	return nil
}

// superFrame64 is a super-frame of n times 64 bytes, over TCP or UDP, whose checksum is undone.
func superFrame64(t testing.TB, udp bool, n int) ([]byte, ether.Offload) {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
	var transport gopacket.SerializableLayer = &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 5, ACK: true}
	if udp {
		ip.Protocol = layers.IPProtocolUDP
		transport = &layers.UDP{SrcPort: 1, DstPort: 2}
	}
	body := make([]byte, n*64)
	for i := range body {
		body[i] = byte(i / 64)
	}
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, &layers.Ethernet{
		SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4,
	}, ip, transport, gopacket.Payload(body)))
	frame := bytes.Clone(b.Bytes())
	// Through a Cutter, because that writes the pseudo-header's sum.
	o, ok := ether.Partial(frame)
	o.Size = uint16(len(body))
	c, cuts := ether.Cut(frame, o, len(frame))
	if !ok || !cuts {
		t.Fatal("no super-frame")
	}
	if o.Size = 64; n == 1 {
		o.Size = 0
	}
	return c.Next(nil), o
}

// A host is given what it can take, and what it is given is what it would have made of it itself.
func TestGive(t *testing.T) {
	all := ether.Offloads{Checksum: true, TSO: true, USO: true}
	for _, c := range []struct {
		name     string
		have     ether.Offloads
		tcp, udp int // frames for a super-frame of 40
		checksum bool
	}{
		{"all", all, 1, 1, true},
		{"no USO", ether.Offloads{Checksum: true, TSO: true}, 1, 40, true},
		{"checksums alone", ether.Offloads{Checksum: true}, 40, 40, true},
		{"none", ether.Offloads{}, 40, 40, false},
	} {
		for _, udp := range []bool{false, true} {
			for _, n := range []int{1, 40} {
				frame, undone := superFrame64(t, udp, n)
				before := bytes.Clone(frame)
				want := c.tcp
				if udp {
					want = c.udp
				}
				h := &fakeHost{keep: true}
				give(h, c.have, frame, undone, nil)
				if !bytes.Equal(frame, before) {
					t.Errorf("%s, UDP %t: a borrowed frame was changed", c.name, udp)
				}
				if want = min(want, n); len(h.list) != want {
					t.Fatalf("%s, UDP %t, %d: %d frames, want %d", c.name, udp, n, len(h.list), want)
				}
				var body []byte
				for _, g := range h.list {
					if !c.have.Cover(g.undone) || g.undone.Checksum != c.checksum || (g.undone.Size > 0) != (want < n) {
						t.Fatalf("%s, UDP %t: given %+v", c.name, udp, g.undone)
					}
					ether.Complete(g.frame, g.undone)
					if g.undone.Size == 0 {
						validChecksum(t, g.frame)
					}
					body = append(body, g.frame[len(frame)-n*64:]...)
				}
				if !bytes.Equal(body, frame[len(frame)-n*64:]) {
					t.Errorf("%s, UDP %t: the payload has changed", c.name, udp)
				}
			}
		}
	}
	// Frames on which nothing is undone go as they are.
	frame, _ := superFrame64(t, true, 1)
	h := &fakeHost{keep: true}
	give(h, ether.Offloads{}, frame, ether.Offload{}, nil)
	if len(h.list) != 1 || !bytes.Equal(h.list[0].frame, frame) {
		t.Errorf("a whole frame: %+v", h.list)
	}
}

// validChecksum computes what the transport's checksum should be by another's code.
func validChecksum(t *testing.T, frame []byte) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	ip := p.NetworkLayer().(*layers.IPv4)
	again := gopacket.NewSerializeBuffer()
	var want uint16
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		want = l.Checksum
		_ = l.SetNetworkLayerForChecksum(ip)
		must(t, gopacket.SerializeLayers(again, opts, l, gopacket.Payload(l.Payload)))
		if got := binary.BigEndian.Uint16(again.Bytes()[16:]); got != want {
			t.Errorf("TCP checksum %x, want %x", want, got)
		}
	case *layers.UDP:
		want = l.Checksum
		_ = l.SetNetworkLayerForChecksum(ip)
		must(t, gopacket.SerializeLayers(again, opts, l, gopacket.Payload(l.Payload)))
		if got := binary.BigEndian.Uint16(again.Bytes()[6:]); got != want {
			t.Errorf("UDP checksum %x, want %x", want, got)
		}
	}
}

func TestGiveAllocates(t *testing.T) {
	h := &fakeHost{}
	room := make([]byte, 0, 2000)
	for _, udp := range []bool{false, true} {
		frame, undone := superFrame64(t, udp, 40)
		one, partial := superFrame64(t, udp, 1)
		for _, have := range []ether.Offloads{{}, {Checksum: true}, {Checksum: true, TSO: true, USO: true}} {
			if n := testing.AllocsPerRun(100, func() {
				room = give(h, have, frame, undone, room)
				room = give(h, have, one, partial, room)
			}); n != 0 {
				t.Errorf("%+v: %v allocations", have, n)
			}
		}
	}
	if h.count == 0 {
		t.Error("nothing was given")
	}
}

func TestOffloadProblem(t *testing.T) {
	for _, c := range []struct {
		mode string
		have ether.Offloads
		want string // "": none
	}{
		{"auto", ether.Offloads{Checksum: true, TSO: true, USO: true}, ""},
		{"auto", ether.Offloads{Checksum: true, TSO: true}, "TAPs uso:"},
		{"auto", ether.Offloads{Checksum: true}, "TAPs tso, uso:"},
		{"auto", ether.Offloads{}, "TAPs checksum, tso, uso:"},
		{"off", ether.Offloads{}, ""},
	} {
		if got := offloadProblem(c.mode, c.have); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s, %+v: %q, want ...%s...", c.mode, c.have, got, c.want)
		}
	}
}

package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/lab"
)

// The kernel is asked for less and less, and what it grants is told.
func TestGrant(t *testing.T) {
	const checksum, tso, uso = 0x01, 0x0e, 0x60 // linux/if_tun.h
	for _, c := range []struct {
		knows uintptr
		want  ether.Offloads
		asked int
	}{
		{checksum | tso | uso, ether.Offloads{Checksum: true, TSO: true, USO: true}, 1},
		{checksum | tso, ether.Offloads{Checksum: true, TSO: true}, 2},
		{checksum, ether.Offloads{Checksum: true}, 3},
		{0, ether.Offloads{}, 3},
	} {
		asked := 0
		got := grant(func(flags uintptr) bool {
			asked++
			return flags&^c.knows == 0
		})
		if got != c.want || asked != c.asked {
			t.Errorf("of %#x: %+v after %d questions", c.knows, got, asked)
		}
	}
}

// What is written into the header is read from it again; a kind that was not asked for is refused.
func TestVnetHeader(t *testing.T) {
	udp4 := udpFrame(testMAC, testMAC, "192.0.2.9", "192.0.2.1", 9000, 7000, "long enough to be TCP")
	udp6 := udpFrame(testMAC, testMAC, "fd00::9", "fd00::1", 9000, 7000, "long enough to be TCP")
	tcp4, tcp6 := bytes.Clone(udp4), bytes.Clone(udp6)
	tcp4[23], tcp4[34+12], tcp6[20], tcp6[54+12] = 6, 0x80, 6, 0x60
	for _, c := range []struct {
		name       string
		frame      []byte
		o          ether.Offload
		kind, head int
	}{
		{"whole", udp4, ether.Offload{}, 0, 0},
		{"checksum", udp4, ether.Offload{Checksum: true, Start: 34, Field: 6}, 0, 0},
		{"UDP over IPv4", udp4, ether.Offload{Checksum: true, Start: 34, Field: 6, Size: 64}, 5, 42},
		{"UDP over IPv6", udp6, ether.Offload{Checksum: true, Start: 54, Field: 6, Size: 1400}, 5, 62},
		{"TCP over IPv4", tcp4, ether.Offload{Checksum: true, Start: 34, Field: 16, Size: 1448}, 1, 66},
		{"TCP over IPv6", tcp6, ether.Offload{Checksum: true, Start: 54, Field: 16, Size: 1448}, 4, 78},
		{"TCP over IPv6, QinQ", tags(tcp6, ether.TypeQinQ, ether.TypeVLAN), ether.Offload{Checksum: true, Start: 62, Field: 16, Size: 1448}, 4, 86},
		{"TCP over IPv4, QinQ", tags(tcp4, ether.TypeQinQ, ether.TypeVLAN), ether.Offload{Checksum: true, Start: 42, Field: 16, Size: 1448}, 1, 74},
		{"TCP over IPv6, two of a kind", tags(tcp6, ether.TypeVLAN, ether.TypeVLAN), ether.Offload{Checksum: true, Start: 62, Field: 16, Size: 1448}, 4, 86},
	} {
		h := bytes.Repeat([]byte{0xff}, vnetHeader)
		putVnet(h, c.frame, c.o)
		if int(h[1]) != c.kind || int(binary.NativeEndian.Uint16(h[2:])) != c.head {
			t.Errorf("%s: kind %d, headers of %d bytes; want %d, %d", c.name, h[1], binary.NativeEndian.Uint16(h[2:]), c.kind, c.head)
		}
		if got := parseVnet(h); got != c.o {
			t.Errorf("%s: read %+v, want %+v", c.name, got, c.o)
		}
		for _, kind := range []byte{gsoTCP4, 2, 3, gsoTCP6, gsoUDP} { // 3 is UFO
			tcp := kind == gsoTCP4 || kind == gsoTCP6
			if c.o.Size > 0 && (tcp && !c.o.UDP() || kind == gsoUDP && c.o.UDP()) {
				continue
			}
			h[1] = kind
			if o, ok := ether.Settle(bytes.Clone(c.frame), parseVnet(h)); ok {
				t.Errorf("%s: kind %d is taken as %+v", c.name, kind, o)
			}
		}
	}
}

// tags puts tags of VLAN 10 into a frame.
func tags(frame []byte, types ...ether.Type) []byte {
	out := bytes.Clone(frame[:12])
	for _, typ := range types {
		tag := ether.MakeTag(typ, 10)
		out = append(out, tag[:]...)
	}
	return append(out, frame[12:]...)
}

// FuzzVnet: no header and frame make parsing, settling and writing a header fail, and what is settled can be written.
func FuzzVnet(f *testing.F) {
	frame := udpFrame(testMAC, testMAC, "192.0.2.9", "192.0.2.1", 9000, 7000, "a datagram")
	for _, kind := range []byte{0, 1, 3, 4, 5, 0x81} {
		f.Add([]byte{1, kind, 0, 0, 4, 0, 34, 0, 6, 0}, frame)
		f.Add([]byte{1, kind, 0, 0, 4, 0, 34, 0, 16, 0}, frame)
	}
	f.Fuzz(func(t *testing.T, h, frame []byte) {
		if len(h) < vnetHeader {
			return
		}
		o, ok := ether.Settle(frame, parseVnet(h))
		if !ok {
			return
		}
		out := make([]byte, vnetHeader)
		putVnet(out, frame, o)
		if got := parseVnet(out); got != o {
			t.Fatalf("wrote %+v, read %+v", o, got)
		}
	})
}

// families are what tests of UDP do once for each version of IP.
var families = []struct{ network, own, peer string }{{"udp4", "192.0.2.1", "192.0.2.9"}, {"udp6", "fd00:1::1", "fd00:1::9"}}

var (
	peerMAC = ether.MAC{2, 0, 0, 0, 0, 9}
	every   = ether.Offloads{Checksum: true, TSO: true, USO: true}
)

// segments is a TAP with addresses, on a host that knows its peer.
func segments(t *testing.T, offload bool) (*lab.Host, *TAP) {
	t.Helper()
	_, h := host(t)
	var tap *TAP
	on(t, h, func() (err error) {
		if tap, err = NewTAP(TAPConfig{Name: "loom%d", MAC: testMAC, MTU: 1500, NoOffload: !offload}); err != nil {
			return err
		}
		return errors.Join(tap.SetCarrier(true), tap.Up(),
			tap.SetAddresses([]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fd00:1::1/64")}))
	})
	t.Cleanup(tap.Close)
	for _, f := range families {
		if out, err := h.Run(t.Context(), "ip", "neigh", "replace", f.peer, "lladdr", peerMAC.String(), "dev", tap.Name()); err != nil {
			t.Fatal(err, out)
		}
	}
	return h, tap
}

func open(t *testing.T, h *lab.Host, network, addr string) *net.UDPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := h.ListenPacket(ctx, network, net.JoinHostPort(addr, "7000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// Datagrams that were joined come out of a plain socket one by one, in order, and not one more.
func TestHostTakesUDPSuperFrame(t *testing.T) {
	h, tap := segments(t, true)
	if tap.Offloads() != every {
		t.Skipf("this kernel grants %v alone", tap.Offloads().Names())
	}
	w := tap.Queues()[0].NewWriter()
	for _, f := range families {
		conn := open(t, h, f.network, f.own)
		for k, c := range []struct{ n, size, last int }{{40, 64, 64}, {64, 64, 64}, {44, 1472 - 20, 1}, {2, 1400, 1399}, {2, 1, 1}, {1, 64, 64}} {
			port := uint16(9000 + k) // what the case before has left may still come
			j := ether.Joiner{Takes: tap.Offloads()}
			var want []string
			for i := range c.n {
				size := c.size
				if i == c.n-1 {
					size = c.last
				}
				want = append(want, text(i, size))
				frame := udpFrame(testMAC, peerMAC, f.peer, f.own, int(port), 7000, want[i])
				if o, ok := ether.Partial(frame); !ok || !j.Add(frame[:int(o.Start)+8+size]) { // gopacket pads what is short
					t.Fatalf("%s %+v: datagram %d does not join", f.network, c, i)
				}
			}
			frame, undone := j.Take()
			if c.n > 1 && int(undone.Size) != c.size {
				t.Fatalf("joined: %+v", undone)
			}
			if err := w.Write(frame, undone); err != nil {
				t.Fatalf("%s %+v: %v", f.network, c, err)
			}
			buf := make([]byte, 65536)
			for i := range want {
				if n, err := readFrom(conn, port, buf, 10*time.Second); err != nil || string(buf[:n]) != want[i] {
					t.Fatalf("%s %+v: datagram %d is %d bytes, %v", f.network, c, i, n, err)
				}
			}
			if n, err := readFrom(conn, port, buf, 20*time.Millisecond); err == nil {
				t.Errorf("%s %+v: a datagram too many, of %d bytes", f.network, c, n)
			}
			if n := testing.AllocsPerRun(20, func() { _ = w.Write(frame, undone) }); n != 0 {
				t.Errorf("%v allocations for a super-frame to the host", n)
			}
			readAll(conn)
		}
	}
}

// readFrom reads the next datagram from a port, if it comes soon enough.
func readFrom(conn *net.UDPConn, port uint16, buf []byte, within time.Duration) (int, error) {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil || from.Port() == port {
			return n, err
		}
	}
}

// text is datagram number i.
func text(i, size int) string {
	b := bytes.Repeat([]byte{byte(i)}, size)
	return string(append(fmt.Appendf(nil, "%d ", i), b...)[:size])
}

func readAll(conn *net.UDPConn) {
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for buf := make([]byte, 65536); ; {
		if _, _, err := conn.ReadFromUDPAddrPort(buf); err != nil {
			return
		}
	}
}

// send has a socket send n datagrams in one call (UDP_SEGMENT, udp(7)).
func send(t *testing.T, conn *net.UDPConn, to string, n, size int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), syscall.IPPROTO_UDP, unix.UDP_SEGMENT, size)
	}); err != nil || inner != nil {
		t.Fatal(err, inner)
	}
	var all []byte
	for i := range n {
		all = append(all, text(i, size)...)
	}
	if _, err := conn.WriteToUDPAddrPort(all, netip.AddrPortFrom(netip.MustParseAddr(to), 9000)); err != nil {
		t.Fatal(err)
	}
}

// next reads what the host sends to the peer by UDP, and passes over all else.
func next(t *testing.T, q *Queue, buf []byte) ([]byte, ether.Offload) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		frame, undone, ok := q.TryRead(buf)
		if o, has := ether.Partial(frame); ok && has && o.UDP() && binary.BigEndian.Uint16(frame[o.Start+2:]) == 9000 {
			return frame, undone
		}
		if !ok {
			time.Sleep(time.Millisecond)
		}
	}
	t.Fatal("the host sends nothing")
	return nil, ether.Offload{}
}

// What a socket sends in one call comes as one super-frame, from a host that may leave the cutting undone; from another,
// the same datagrams come whole.
func TestHostGivesUDPSuperFrame(t *testing.T) {
	for _, offload := range []bool{true, false} {
		h, tap := segments(t, offload)
		if offload && tap.Offloads() != every {
			t.Logf("this kernel grants %v alone", tap.Offloads().Names())
			continue
		}
		if !offload && tap.Offloads() != (ether.Offloads{}) {
			t.Errorf("offloads were not asked for, and are %v", tap.Offloads().Names())
		}
		buf := make([]byte, MaxFrame)
		for _, f := range families {
			conn := open(t, h, f.network, f.own)
			const n, size = 40, 64
			send(t, conn, f.peer, n, size)
			var got [][]byte
			if !offload {
				for range n {
					frame, undone := next(t, tap.Queues()[0], buf)
					if undone != (ether.Offload{}) {
						t.Errorf("%s: undone is %+v", f.network, undone)
					}
					got = append(got, bytes.Clone(frame))
				}
			} else {
				frame, undone := next(t, tap.Queues()[0], buf)
				o, ok := ether.Settle(frame, undone)
				cut, cuts := ether.Cut(frame, o, 1400)
				if !ok || !cuts || !o.UDP() || o.Size != size {
					t.Fatalf("%s: undone is %+v: settled %t, cut %t", f.network, undone, ok, cuts)
				}
				for f := cut.Next(nil); f != nil; f = cut.Next(nil) {
					got = append(got, f)
				}
			}
			for i, frame := range got {
				o, ok := ether.Partial(frame)
				if !ok || string(frame[o.Start+8:]) != text(i, size) {
					t.Errorf("%s: datagram %d is %x", f.network, i, frame)
				}
			}
			if len(got) != n {
				t.Errorf("%s: %d datagrams", f.network, len(got))
			}
		}
		tap.Close()
	}
}

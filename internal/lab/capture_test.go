package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

func TestCaptureFindsMarker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ln := must(w.servers[1].Listen(t.Context(), "tcp", server2+":80"))(t, closeAfter[net.Listener])
	to := udp(t, w.servers[1], server2+":5000")
	from := udp(t, w.servers[0], server1+":0")
	c := must(w.internet.Capture("br0"))(t) // all that is switched
	port := must(w.internet.Capture(w.links[1].Peer().Name()))(t)
	contains := func(c *Capture, marker string, want bool) {
		t.Helper()
		if got := must(c.Contains([]byte(marker)))(t); got != want {
			t.Errorf("%q captured: %t, want %t", marker, got, want)
		}
	}
	contains(port, "in clear", false)
	send(t, from, server2+":5000", "datagram in clear")
	if text, _ := receive(t, to, patient); text == "" {
		t.Fatal("nothing arrives")
	}
	contains(port, "datagram in clear", true)

	conn := must(w.servers[0].Dial(t.Context(), "tcp", server2+":80"))(t, closeAfter[net.Conn])
	if _, err := conn.Write([]byte("stream in clear")); err != nil {
		t.Fatal(err)
	}
	peer := must(ln.Accept())(t, closeAfter[net.Conn])
	must(io.ReadFull(peer, make([]byte, 15)))(t)
	contains(port, "stream in clear", true)

	sealed := []byte("never in clear")
	for i := range sealed {
		sealed[i] ^= 0x55
	}
	send(t, from, server2+":5000", string(sealed))
	receive(t, to, patient)
	contains(port, "never in clear", false)
	contains(port, string(sealed), true)
	contains(c, "datagram in clear", true)
	contains(c, "never in clear", false)

	began := time.Now()
	send(t, from, server2+":5000", "datagram in clear")
	receive(t, to, patient)
	if n, last, err := port.Seen([]byte("datagram in clear")); n != 2 || last.Before(began) || last.After(time.Now()) || err != nil {
		t.Errorf("seen %d times, last %v after the second began: %v", n, last.Sub(began), err)
	}
	if n, last, err := port.Seen([]byte("never in clear")); n != 0 || !last.IsZero() || err != nil {
		t.Errorf("what was never sent was seen %d times, last at %v: %v", n, last, err)
	}

	before, lost := port.Frames()
	if before < 4 || lost != 0 {
		t.Errorf("%d frames, %d lost", before, lost)
	}
	check(t, port.Stop(), port.Stop())
	send(t, from, server2+":5000", "after Stop")
	receive(t, to, patient)
	contains(port, "after Stop", false)
	contains(port, "stream in clear", true)
	if after, _ := port.Frames(); after != before {
		t.Errorf("%d frames after Stop, %d before", after, before)
	}
	if _, err := w.internet.Capture("nosuch"); err == nil {
		t.Error("captured on an interface that does not exist")
	}
}

// A capture that lost frames proves no absence.
func TestCaptureLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := must(w.servers[0].Capture("eth0"))(t)
	raw := must(c.sock.SyscallConn())(t)
	check(t, raw.Control(func(fd uintptr) {
		check(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8192))
	}))
	to := udp(t, w.servers[1], server2+":5000")
	from := udp(t, w.servers[0], server1+":0")
	send(t, from, server2+":5000", "seen")
	receive(t, to, patient)
	if found, err := c.Contains([]byte("seen")); !found || err != nil {
		t.Fatalf("found %t, %v", found, err)
	}
	c.mu.Lock() // a reader that is too slow
	for range 100 {
		send(t, from, server2+":5000", strings.Repeat("x", 1000))
	}
	send(t, from, server2+":5000", "unseen")
	c.mu.Unlock()
	if found, err := c.Contains([]byte("unseen")); found || !errors.Is(err, ErrIncomplete) {
		t.Errorf("found %t, %v, want %v", found, err, ErrIncomplete)
	}
	if found, err := c.Contains([]byte("seen")); !found || err != nil {
		t.Errorf("what is there is there: found %t, %v", found, err)
	}
	if _, lost := c.Frames(); lost == 0 {
		t.Error("no frame counted as lost")
	}
}

// The kernel takes VLAN tags out of frames; a capture puts them back. It goes on when the interface was down.
func TestCaptureVLANAndDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := must(w.servers[1].Capture("eth0"))(t)
	check(t, w.links[1].Down(), w.links[1].Up())
	for name, tags := range map[string][]Tag{
		"without a tag": nil, "tagged": {{VLAN: 10, Priority: 5}}, "to be dropped first": {{VLAN: 4095, Eligible: true}},
		"priority 7": {{Priority: 7}}, "priority 0": {{}}, "a service's": {{VLAN: 100, Type: ServiceTag}},
		"in a tunnel": {{VLAN: 100, Type: ServiceTag}, {VLAN: 10, Priority: 1}},
	} {
		frame := append(Ethernet(Broadcast(), mac(9), Experimental, tags...), name+", padded to sixty bytes and some more of them"...)
		check(t, w.servers[0].SendFrames("eth0", frame))
		n := 0
		check(t, c.Each(func(got []byte) bool {
			if bytes.Equal(got, frame) {
				n++
			}
			return true
		}))
		if n != 1 {
			t.Errorf("a frame %s was captured %d times as it was sent", name, n)
		}
	}
	whole := append(Ethernet(Broadcast(), mac(0x77), Experimental, Tag{VLAN: 10}), 1, 2)
	for n := 14; n <= len(whole); n++ {
		check(t, w.servers[0].SendFrames("eth0", whole[:n]))
	}
	n := 0
	check(t, c.Each(func(got []byte) bool {
		if bytes.Equal(got[6:12], mac(0x77)) {
			n++
		}
		return true
	}))
	if n != 1 {
		t.Errorf("of frames cut short in their tag and the whole one, %d were captured, want the whole one", n)
	}
}

// Offload decides what packets on a cable look like, and Drop brings them to real ones.
func TestOffload(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ln := must(w.servers[1].Listen(t.Context(), "tcp", server2+":80"))(t, closeAfter[net.Listener])
	transfer := func() (longest int, sums bool) {
		t.Helper()
		c := must(w.servers[0].Capture("eth0"))(t)
		conn := must(w.servers[0].Dial(t.Context(), "tcp", server2+":80"))(t, closeAfter[net.Conn])
		peer := must(ln.Accept())(t, closeAfter[net.Conn])
		data := make([]byte, 1<<20)
		go func() { _, _ = conn.Write(data) }()
		must(io.ReadFull(peer, make([]byte, len(data))))(t)
		sums = true
		check(t, c.Each(func(frame []byte) bool {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
			ip, isIP := p.NetworkLayer().(*layers.IPv4)
			if isIP && ip.SrcIP.String() == server1 && ip.Protocol == layers.IPProtocolTCP {
				longest = max(longest, len(frame))
				sums = sums && tcpSumIsRight(ip)
			}
			return true
		}))
		check(t, c.Stop())
		return longest, sums
	}
	for _, c := range []struct {
		level    Offload
		real     bool
		checksum bool
	}{{FullOffload, false, false}, {ChecksumOffload, true, false}, {NoOffload, true, true}, {FullOffload, false, false}} {
		check(t, w.links[0].SetOffload(c.level))
		if longest, sums := transfer(); (longest <= 1514) != c.real || sums != c.checksum {
			t.Errorf("offload %d: longest frame %d, checksums right %t", c.level, longest, sums)
		}
	}
	rule := must(w.links[1].Peer().Drop(Match{From: "192.0.2.1"}))(t)
	if longest, _ := transfer(); longest <= 1514 {
		t.Error("a rule on one cable has changed another")
	}
	check(t, rule.Remove())
	check(t, w.links[0].SetOffload(NoOffload))
	must(w.links[0].Drop(Match{From: "192.0.2.1"}))(t)
	if _, sums := transfer(); !sums {
		t.Error("a Drop rule has taken the checksums away")
	}
	check(t, w.links[0].SetOffload(FullOffload))
	must(w.links[0].Drop(Match{From: "192.0.2.1"}))(t)
	if longest, _ := transfer(); longest > 1514 {
		t.Errorf("longest frame on a cable with a Drop rule: %d", longest)
	}
}

// tcpSumIsRight adds up segment and pseudo header (RFC 9293 section 3.1).
func tcpSumIsRight(ip *layers.IPv4) bool {
	data := bytes.Join([][]byte{
		ip.SrcIP.To4(), ip.DstIP.To4(),
		{0, byte(ip.Protocol)},
		binary.BigEndian.AppendUint16(nil, uint16(len(ip.Payload))), ip.Payload, make([]byte, len(ip.Payload)%2),
	}, nil)
	sum := 0
	for i := 0; i < len(data); i += 2 {
		sum += int(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

func TestCaptureAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	to := udp(t, w.servers[1], server2+":5000")
	from := udp(t, w.servers[0], server1+":0")
	c := must(w.servers[1].Capture("eth0"))(t)
	for i := range 200 { // what a program has received is in the capture, without waiting
		marker := time.Now().Format(time.RFC3339Nano)
		send(t, from, server2+":5000", marker)
		if text, _ := receive(t, to, patient); text != marker {
			t.Fatalf("received %q", text)
		}
		if i%10 == 0 && !must(c.Contains([]byte(marker)))(t) {
			t.Fatalf("%q was received and is not captured", marker)
		}
	}
}

package transport

import (
	"bytes"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A batch arrives as the datagrams that it is made of, in order, with and without the kernel's help on either side.
func TestBatch(t *testing.T) {
	for _, c := range []struct {
		name          string
		segment, join bool
		size, length  int
	}{
		{"both", true, true, 1400, 46 * 1400},
		{"last is shorter", true, true, 1400, 45*1400 + 7},
		{"many small", true, true, 100, 6400},
		{"one", true, true, 1400, 900},
		{"segmented, not joined", true, false, 1400, 10 * 1400},
		{"joined, not segmented", false, true, 1400, 10*1400 + 1},
		{"neither", false, false, 1400, 10 * 1400},
	} {
		from, to := openUDP(t), openUDP(t)
		from.segmenting.off.Store(!c.segment)
		collect, err := to.Collect()
		if err != nil {
			t.Fatal(err)
		}
		if !c.join {
			setGRO(t, to, 0)
		}
		data := make([]byte, c.length)
		for i := range data {
			data[i] = byte(i / c.size)
		}
		if err := from.writeRuns(outboxOf(data, c.size), to.LocalAddr()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if from.segmenting.off.Load() == c.segment {
			t.Errorf("%s: segmentation has gone off", c.name)
		}
		_ = to.SetReadDeadline(time.Now().Add(2 * time.Second))
		var got []byte
		most := 0
		for len(got) < len(data) {
			list, err := collect.read()
			if err != nil {
				t.Fatalf("%s: after %d of %d bytes: %v", c.name, len(got), len(data), err)
			}
			for _, m := range list {
				if m.from != from.LocalAddr() || m.size > c.size || m.size != c.size && len(m.data) != len(data)-len(got) {
					t.Fatalf("%s: %d bytes of %d each from %v", c.name, len(m.data), m.size, m.from)
				}
				got = append(got, m.data...)
				most = max(most, len(m.data))
			}
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%s: other bytes have arrived", c.name)
		}
		if !c.join && most > c.size {
			t.Errorf("%s: %d bytes at a time", c.name, most)
		}
		if c.segment && c.join && c.length > c.size && most <= c.size {
			t.Logf("%s: this kernel joins nothing", c.name)
		}
	}
}

func openUDP(t *testing.T) *udpSocket {
	t.Helper()
	s, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(*udpSocket)
}

// outboxOf fills an outbox as a Sender does.
func outboxOf(data []byte, size int) *outbox {
	o := new(outbox)
	for len(data) > 0 {
		n := min(size, len(data))
		o.add(copy(o.room[o.done:], data[:n]))
		data = data[n:]
	}
	return o
}

func setGRO(t *testing.T, s *udpSocket, on int) {
	t.Helper()
	var err error
	if err := s.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, on) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A read waits, takes what has come over IPv6, too, allocates nothing, and ends when the socket is closed.
func TestCollect(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		s, err := ListenUDP(netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		c, err := s.(*udpSocket).Collect()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(20*time.Millisecond, func() { _, _ = s.WriteTo([]byte("late"), s.LocalAddr()) })
		list, err := c.read()
		if err != nil || len(list) != 1 || string(list[0].data) != "late" || list[0].from != s.LocalAddr() {
			t.Errorf("%s: %+v, %v", at, list, err)
		}
		x, local := outboxOf([]byte("x"), 1), s.LocalAddr()
		if n := testing.AllocsPerRun(100, func() {
			_ = s.(*udpSocket).writeRuns(x, local)
			_, _ = c.read()
		}); n != 0 {
			t.Errorf("%s: %v allocations", at, n)
		}
		// More than fit into one call, of different sizes, so that they are not joined.
		for i := range 3 * collected {
			_, _ = s.WriteTo(make([]byte, 1+i), s.LocalAddr())
		}
		for want := 1; want <= 3*collected; {
			list, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range list {
				if len(m.data) != want || m.size != want {
					t.Fatalf("%s: %d bytes, want %d", at, len(m.data), want)
				}
				want++
			}
		}
		time.AfterFunc(20*time.Millisecond, func() { _ = s.Close() })
		if _, err := c.read(); !isClosed(err) {
			t.Errorf("%s: after it was closed: %v", at, err)
		}
	}
}

// A socket has the buffers that it asks for, or says how much less; root is given what it asks for.
func TestSocketBuffers(t *testing.T) {
	a := openUDP(t).abilities()
	if a.receive <= 0 || a.send <= 0 || !a.segments {
		t.Errorf("%+v", a)
	}
	if os.Geteuid() == 0 && (a.receive != socketBuffer || a.send != socketBuffer) {
		t.Errorf("%+v, want %d", a, socketBuffer)
	}
}

// What the kernel refuses as a batch is sent one by one.
func TestBatchRefused(t *testing.T) {
	from, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	// The kernel refuses to cut datagrams whose checksums it shall not compute (udp_send_skb in net/ipv4/udp.c).
	err = from.(*udpSocket).Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 100)
	for i := range data {
		data[i] = byte(i)
	}
	o := outboxOf(data[:90], 3)
	for _, d := range [][]byte{data[90:91], data[91:95], data[95:99], data[99:]} { // shorter and longer ones behind
		o.add(copy(o.room[o.done:], d))
	}
	if err := from.(*udpSocket).writeRuns(o, to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	_ = to.(*udpSocket).SetReadDeadline(time.Now().Add(2 * time.Second))
	var got []byte
	for n := range 34 {
		b := make([]byte, 10)
		length, _, err := to.ReadFrom(b)
		if err != nil || length > 4 {
			t.Fatalf("datagram %d: %d bytes, %v", n, length, err)
		}
		got = append(got, b[:length]...)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes have arrived, or others: %v", len(got), got)
	}
}

// Runs of different sizes leave in one call, and nothing is allocated.
func TestOutbox(t *testing.T) {
	from, to := openUDP(t), openUDP(t)
	collect, err := to.Collect()
	if err != nil {
		t.Fatal(err)
	}
	o := new(outbox)
	sizes := []int{1472, 1472, 1472, 300, 1200, 1200, 900, 1400, 80, 80, 80, 7}
	o.runs = make([]run, 0, maxRuns)
	fill := func() {
		o.reset()
		for i, n := range sizes {
			o.room[o.done] = byte(i)
			o.add(n)
		}
	}
	fill()
	if len(o.runs) != 4 || o.full() {
		t.Fatalf("runs are %v", o.runs)
	}
	if n := testing.AllocsPerRun(100, func() {
		fill()
		if err := from.writeRuns(o, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(sizes); {
			list, err := collect.read()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range list {
				for at := 0; at < len(m.data); at += m.size {
					if n := min(m.size, len(m.data)-at); n != sizes[i] || m.data[at] != byte(i) {
						t.Fatalf("datagram %d has %d bytes and begins with %d", i, n, m.data[at])
					}
					i++
				}
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for !o.full() {
		o.add(maxDatagram)
	}
	if o.done > len(o.room) {
		t.Errorf("%d bytes in %d of room", o.done, len(o.room))
	}
}

// FuzzSegmentSize: whatever a control message says, it is read within its bounds.
func FuzzSegmentSize(f *testing.F) {
	var room [64]byte
	f.Add(putSegmentSize(room[:cmsgLen], 1400))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, oob []byte) { segmentSize(oob) })
}

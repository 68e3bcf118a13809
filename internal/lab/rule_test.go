package lab

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.site(t, "2", PortPreserving)
	for _, at := range []*Link{s.outside, s.outside.Peer()} { // a router's link, a bridge's port
		cut := must(at.Drop(append(Address(server1), Address("2001:db8::10")...)...))(t)
		wantPing(t, s.host, server1, false)
		wantPing(t, s.host, "2001:db8::10", false)
		wantPing(t, s.host, server2, true)
		wantPing(t, w.servers[1], server1, true)
		if n := must(cut.Packets())(t); n < 2 {
			t.Errorf("at %s the rule counts %d packets, want the pings at least", at, n)
		}
		check(t, cut.Remove())
		wantPing(t, s.host, server1, true)
	}
}

// A one-way partition: requests arrive, replies do not.
func TestDirections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := must(w.AddHost("a"))(t)
	eth0 := must(a.Join(w.internet, "eth0", "203.0.113.50/24"))(t)
	arp := must(eth0.Count(Match{EtherType: unix.ETH_P_ARP}))(t)
	icmp := Match{Protocol: unix.IPPROTO_ICMP}
	for _, c := range []struct {
		drop              Direction
		requests, replies uint64 // that pass the server's link
	}{{In, 3, 3}, {Out, 0, 0}} {
		atServer := must(w.links[0].Count(Match{Protocol: unix.IPPROTO_ICMP, To: server1}))(t)
		back := must(w.links[0].Count(Match{Protocol: unix.IPPROTO_ICMP, From: server1 + "/32"}))(t)
		icmp.Direction = c.drop
		rule := must(eth0.Drop(icmp))(t)
		r := must(a.Ping(t.Context(), server1, Echo{Count: 3, Interval: time.Millisecond, Wait: brief}))(t)
		if r.Received != 0 {
			t.Errorf("direction %d: %d replies", c.drop, r.Received)
		}
		if req, rep := must(atServer.Packets())(t), must(back.Packets())(t); req != c.requests || rep != c.replies {
			t.Errorf("direction %d: server has %d requests and sent %d replies, want %d and %d", c.drop, req, rep, c.requests, c.replies)
		}
		check(t, rule.Remove(), atServer.Remove(), back.Remove())
	}
	if n := must(arp.Packets())(t); n < 2 {
		t.Errorf("%d ARP packets, want a request and a reply at least", n)
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := must(w.AddHost("a"))(t)
	eth0 := must(a.Join(w.internet, "eth0", "203.0.113.50/24"))(t)
	for _, c := range []struct {
		match    Match
		min, max int // of 400; six standard deviations around the mean
	}{
		{Match{Direction: In, Protocol: unix.IPPROTO_ICMP, Chance: 0.3}, 225, 335}, // 280
		{Match{Protocol: unix.IPPROTO_ICMP, Chance: 0.3}, 136, 256},                // 196: lost one way or the other
		{Match{Protocol: unix.IPPROTO_UDP, Chance: 0.9}, 400, 400},
	} {
		rule := must(eth0.Drop(c.match))(t)
		r := must(a.Ping(t.Context(), server1, Echo{Count: 400, Interval: time.Millisecond, Wait: brief}))(t)
		if r.Received < c.min || r.Received > c.max || r.Sent != 400 {
			t.Errorf("%+v: %d of %d replies, want %d to %d", c.match, r.Received, r.Sent, c.min, c.max)
		}
		check(t, rule.Remove())
	}
	for _, m := range []Match{{Chance: 1}, {Chance: -0.1}, {FromPort: 1}, {From: "nowhere"}} {
		if _, err := eth0.Drop(m); err == nil {
			t.Errorf("match %+v was accepted", m)
		}
	}
}

func TestBlackHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.site(t, "2", PortPreserving)
	const limit = 1300
	must(s.outside.Drop(Match{LongerThan: limit}))(t)
	for _, c := range []struct {
		to      string
		headers int
	}{{server1, 28}, {"2001:db8::10", 48}} {
		for size, want := range map[int]int{limit - c.headers: 1, limit - c.headers + 1: 0} {
			r := must(s.host.Ping(t.Context(), c.to, Echo{Size: size, DontFragment: true, Wait: brief}))(t)
			if r.Received != want {
				t.Errorf("%d bytes to %s through a hole for more than %d: %d replies, want %d", size+c.headers, c.to, limit, r.Received, want)
			}
		}
	}
	// A stream of small segments passes, although the kernel would rather send super-frames.
	ln := must(w.servers[0].Listen(t.Context(), "tcp", server1+":443"))(t, closeAfter[net.Listener])
	conn := must(s.host.Dial(t.Context(), "tcp", server1+":443"))(t, closeAfter[net.Conn])
	peer := must(ln.Accept())(t, closeAfter[net.Conn])
	check(t, s.eth0.SetMTU(limit))
	text := strings.Repeat("x", 1<<20)
	go func() { _, _ = conn.Write([]byte(text)) }()
	check(t, peer.SetReadDeadline(time.Now().Add(patient)))
	got := 0
	for buf := make([]byte, 1<<16); got < len(text); {
		n, err := peer.Read(buf)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, len(text), err)
		}
		got += n
	}
}

func TestShapedCable(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a, lan, b := must(l.AddHost("a"))(t), must(l.AddBridge("lan"))(t), must(l.AddHost("b"))(t)
	must(b.Join(lan, "eth0", "10.0.0.2/24", "fd00::2/64"))(t)
	const delay = 20 * time.Millisecond
	c := must(l.ShapedCable(Plug{On: a, Name: "eth0", Addrs: []string{"10.0.0.1/24", "fd00::1/64"}, MTU: 1400, MAC: "02:00:00:00:00:01"},
		Plug{On: lan}, Shape{Delay: delay}))(t)
	wantPing(t, a, "fd00::2", true)
	late := 20
	for range 5 { // other tests may keep the processors busy, but not all the time
		r := must(a.Ping(t.Context(), "10.0.0.2", Echo{Count: 20, Interval: time.Millisecond}))(t)
		if r.Received != 20 || r.Extra != 0 {
			t.Errorf("%+v", r)
		}
		now := 0
		for _, rtt := range r.RTT {
			if rtt < 2*delay {
				t.Errorf("a reply after %s, over a cable of %s", rtt, delay)
			}
			if rtt > 4*delay {
				now++
			}
		}
		if late = min(late, now); late <= 10 {
			break
		}
	}
	if late > 10 {
		t.Errorf("%d of 20 replies later than %s", late, 4*delay)
	}
	for size, want := range map[int]int{1372: 1, 1373: 0} { // the MTU is the plug's
		if r := must(a.Ping(t.Context(), "10.0.0.2", Echo{Size: size, DontFragment: true, Wait: brief}))(t); r.Received != want {
			t.Errorf("%d bytes: %d replies, want %d", size, r.Received, want)
		}
	}

	many := Echo{Count: 400, Interval: time.Millisecond, Wait: brief}
	check(t, c.SetShape(Shape{Loss: 0.3}))
	if r := must(a.Ping(t.Context(), "10.0.0.2", many))(t); r.Received < 136 || r.Received > 256 {
		t.Errorf("loss 0.3 each way: %d of 400 replies", r.Received)
	}
	check(t, c.SetShape(Shape{Duplicate: 0.5})) // the request, its copy, and the copies of their replies: 1.25 extra
	if r := must(a.Ping(t.Context(), "10.0.0.2", many))(t); r.Received != 400 || r.Extra < 350 || r.Extra > 650 {
		t.Errorf("duplication: %d of 400 replies and %d more", r.Received, r.Extra)
	}

	for _, c2 := range []struct {
		shape     Shape
		reordered bool
	}{
		{Shape{Delay: 5 * time.Millisecond}, false},
		{Shape{Jitter: 20 * time.Millisecond}, true},
		{Shape{Delay: 10 * time.Millisecond, Reorder: 0.1}, true},
	} {
		check(t, c.SetShape(c2.shape))
		from, to := udp(t, a, "10.0.0.1:0"), udp(t, b, "10.0.0.2:0")
		for i := range 200 {
			send(t, from, to.LocalAddr().String(), fmt.Sprintf("%03d", i))
			time.Sleep(200 * time.Microsecond)
		}
		last, overtaken := "", 0
		for i := range 200 {
			text, _ := receive(t, to, patient)
			if text == "" {
				t.Fatalf("%+v: only %d of 200 datagrams", c2.shape, i)
			}
			if text < last {
				overtaken++
			}
			last = max(last, text)
		}
		if (overtaken > 0) != c2.reordered {
			t.Errorf("%+v: %d of 200 datagrams overtaken", c2.shape, overtaken)
		}
	}
	check(t, c.Remove(), c.Remove())
	if _, err := a.Ping(t.Context(), "10.0.0.2", Echo{Wait: brief}); err == nil {
		t.Error("the cable was removed and the route is still there")
	}
	if err := must(l.Cable(Plug{On: a, Name: "eth1"}, Plug{On: lan}))(t).SetShape(Shape{}); err == nil {
		t.Error("a veth was given a shape")
	}
}

// Frames that are due at once leave in the order in which they came, and those due sooner first.
func TestFrameHeap(t *testing.T) {
	t.Parallel()
	var q frameHeap
	now := time.Now()
	for i := range 20 {
		q.admit([]byte{byte(i)}, now, i, &Shape{Delay: time.Second})
	}
	q.admit([]byte{20}, now, 20, &Shape{})
	for _, want := range []byte{20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19} {
		if f, ok := heap.Pop(&q).(frame); !ok || f.data[0] != want {
			t.Fatalf("frame %d, want %d", f.data[0], want)
		}
	}
	for range delayQueue + 10 {
		q.admit(nil, now, 0, &Shape{Delay: time.Second, Duplicate: 1})
	}
	if len(q) != delayQueue {
		t.Errorf("%d frames wait, want at most %d", len(q), delayQueue)
	}
}

// Of datagrams sent at the rate of a fast link, one in a hundred is overtaken by others, each way; none is lost, doubled
// or damaged.
func TestHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := must(w.AddHost("a"))(t)
	eth0 := must(a.Join(w.internet, "eth0", "203.0.113.50/24"))(t)
	const by = time.Millisecond
	rule := must(eth0.Hold(by, Match{Protocol: unix.IPPROTO_UDP, Chance: 0.01}))(t)
	for _, c := range []struct {
		from, to *Host
		addr     string
	}{{a, w.servers[0], server1}, {w.servers[0], a, "203.0.113.50"}} {
		before := must(rule.Packets())(t)
		got := flood(t, c.from, c.to, c.addr)
		held := must(rule.Packets())(t) - before
		t.Logf("from %s to %s: %d held, %d of %d overtaken, by up to %d", c.from.Name(), c.to.Name(), held, got.overtaken, floodCount, got.furthest)
		if got.received != floodCount || got.wrong != 0 {
			t.Errorf("from %s to %s: %d of %d datagrams, %d of them wrong", c.from.Name(), c.to.Name(), got.received, floodCount, got.wrong)
		}
		// 300 on average; six standard deviations around it, and some that met a pause of the sender.
		if held < 195 || held > 405 || got.overtaken < 150 || got.overtaken > 405 {
			t.Errorf("from %s to %s: %d held and %d overtaken, want about 300", c.from.Name(), c.to.Name(), held, got.overtaken)
		}
	}
	check(t, rule.Remove(), rule.Remove())
	if got := flood(t, a, w.servers[0], server1); got.overtaken != 0 || got.received != floodCount {
		t.Errorf("without the rule: %+v", got)
	}
	if _, err := eth0.Hold(by, Match{}); err == nil {
		t.Error("a match without a chance was accepted")
	}
	if out := must(a.Run(t.Context(), "ip", "-br", "link"))(t); strings.Contains(out, "hold") {
		t.Errorf("left: %s", out)
	}
}

const floodCount = 30_000

// flooded is what arrived of a flood.
type flooded struct{ received, overtaken, furthest, wrong int }

// flood sends numbered datagrams of 1200 bytes, 20 every millisecond, which are 200 Mbit/s.
func flood(t *testing.T, from, to *Host, addr string) (got flooded) {
	t.Helper()
	receiver := udp(t, to, addr+":0")
	check(t, receiver.(*net.UDPConn).SetReadBuffer(4<<20))
	go func() {
		sender, err := from.Dial(t.Context(), "udp", receiver.LocalAddr().String())
		if err != nil {
			return
		}
		defer func() { _ = sender.Close() }()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range floodCount {
			if i%20 == 0 {
				<-tick.C
			}
			_, _ = sender.Write(numbered(i))
		}
	}()
	buf := make([]byte, 2048)
	for last := -1; got.received < floodCount; got.received++ {
		check(t, receiver.SetReadDeadline(time.Now().Add(patient)))
		n, _, err := receiver.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got
		}
		check(t, err)
		i := int(binary.BigEndian.Uint32(buf))
		if !bytes.Equal(buf[:n], numbered(i)) {
			got.wrong++
		}
		if i < last {
			got.overtaken++
			got.furthest = max(got.furthest, last-i)
		}
		last = max(last, i)
	}
	return got
}

func numbered(i int) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), 300)
}

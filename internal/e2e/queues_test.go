package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// With several queues on each TAP, many streams at once arrive whole, and what belongs together stays in order.
func TestQueues(t *testing.T) {
	r := newRig(t)
	_, a := r.unstarted("a", lab.PortPreserving, "--label", "team=x")
	_, b := r.unstarted("b", lab.PortPreserving, "--label", "team=x")
	r.ok(a.Start(r.ctx, "--tap-queues", "4"))
	r.ok(b.Start(r.ctx, "--tap-queues", "4"))
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)
	for _, n := range []*lab.Host{a.Host, b.Host} {
		if out := r.sh(n, "ls -d /sys/class/net/loom0/queues/tx-*"); len(strings.Fields(out)) != 4 {
			t.Errorf("the queues of loom0: %s", out)
		}
	}

	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	pings := r.steady(a, addr[1])
	numbers := r.numbers(ctx, a.Host, b.Host, addr[1])
	start := time.Now()
	var flows []*flow
	const each, size = 12, 16 << 20
	for range each {
		flows = append(flows,
			r.flow(r.ctx, a.Host, b.Host, addr[1], 0, size), r.flow(r.ctx, b.Host, a.Host, addr[0], 0, size))
	}
	for _, f := range flows {
		if err := f.wait(); err != nil {
			t.Error(err)
		}
	}
	took := time.Since(start)
	cancel()
	n, p := numbers(), pings.stop()
	t.Logf("%d streams each way: %.0f Mbit/s both ways together; %d of %d datagrams and %d of %d pings",
		each, float64(8*arrived(flows))/took.Seconds()/1e6, n.received, n.sent, p.Received, p.Sent)
	if n.overtaken > 0 {
		t.Errorf("of %d datagrams of one flow, %d were overtaken", n.received, n.overtaken)
	}
	if n.received < n.sent/2 || n.sent < 100 {
		t.Errorf("%d of %d datagrams arrived", n.received, n.sent)
	}
	if p.Received < p.Sent/2 || p.Extra > 0 {
		t.Errorf("%d of %d pings came back, %d twice", p.Received, p.Sent, p.Extra)
	}
}

// numbered is what became of a flow of numbered datagrams.
type numbered struct{ sent, received, overtaken int }

// numbers sends numbered datagrams, five each millisecond, until ctx ends. The function that it returns
// waits and says what became of them.
func (r *rig) numbers(ctx context.Context, from, to *lab.Host, addr string) func() numbered {
	r.Helper()
	receiver, err := to.ListenPacket(ctx, "udp", net.JoinHostPort(addr, "0"))
	r.ok(err)
	r.ok(receiver.(*net.UDPConn).SetReadBuffer(4 << 20))
	sender, err := from.Dial(ctx, "udp", receiver.LocalAddr().String())
	r.ok(err)
	sent, got := make(chan int, 1), make(chan []uint32, 1)
	go func() {
		defer sender.Close()
		n, payload := 0, make([]byte, 200)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			for range 5 {
				binary.BigEndian.PutUint32(payload, uint32(n))
				if _, err := sender.Write(payload); err == nil {
					n++
				}
			}
		}
		_ = receiver.SetReadDeadline(time.Now().Add(time.Second))
		sent <- n
	}()
	go func() {
		defer receiver.Close()
		var list []uint32
		for buf := make([]byte, 256); ; {
			n, _, err := receiver.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				break
			}
			if err == nil && n == 200 {
				list = append(list, binary.BigEndian.Uint32(buf))
			}
		}
		got <- list
	}()
	return func() numbered {
		list, last := <-got, -1
		out := numbered{sent: <-sent, received: len(list)}
		for _, i := range list {
			if int(i) <= last {
				out.overtaken++
			}
			last = max(last, int(i))
		}
		return out
	}
}

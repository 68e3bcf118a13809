package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	batch "golang.org/x/net/ipv4"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/statedir"
)

const (
	flipRate  = 100_000               // frames a second that the host offers, when the run is judged by it
	flipPorts = 5                     // share it
	flipQuiet = 20 * time.Millisecond // without a frame: what was under way has arrived
	flipCut   = time.Second           // PROTOCOL: from the command's end to the last frame
)

// flips is how often the policy changes: ETHERLOOM_FLIPS.
func flips(t *testing.T) (changes int, full bool) {
	text := os.Getenv("ETHERLOOM_FLIPS")
	if text == "" {
		return 30, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 6 {
		t.Fatalf("ETHERLOOM_FLIPS=%q is not a number of 6 or more", text)
	}
	return n, true
}

// I12: while the policy changes under load, no frame passes that both the old and the new one deny, and what both allow flows on.
func TestPolicyFlips(t *testing.T) {
	changes, full := flips(t)
	r := newRigFor(t, 2*time.Minute+time.Duration(changes)*time.Second)
	a, b := r.public("a", "203.0.113.31/24"), r.public("b", "203.0.113.32/24")
	const always, never = 7003, 7004
	turns := []int{7000, 7001, 7002} // two neighbours of these are allowed at a time, or one
	allow := func(port int) string {
		id, err := r.Grant(r.ctx, "node:a", "node:b", "--allow", fmt.Sprint("udp:", port))
		r.ok(err)
		return id
	}
	allow(always)
	first := allow(turns[0])
	addr := r.addresses(a, b)
	ctx, stop := context.WithCancel(r.ctx)
	defer stop()
	ports := map[int]*port{}
	for _, p := range append(slices.Clone(turns), always, never) {
		ports[p] = r.load(ctx, a.Host, b.Host, addr[1], p)
	}
	r.await("what is allowed arrives", 15*time.Second, func() bool { return ports[turns[0]].got.Load() > 0 && ports[always].got.Load() > 0 })

	began, offered := time.Now(), r.entered(a)
	held := []string{first} // grants of the ports at turns, the older first
	var slowest time.Duration
	for change, at := 0, 0; change < changes; change++ {
		// What is denied now stays so while this change is made, unless the change allows it.
		denied := []int{never, turns[(at+2)%3]}
		if change%2 == 0 {
			held = append(held, r.settle(a, b, func() string { return allow(turns[(at+1)%3]) }))
		} else {
			r.settle(a, b, func() string { _, err := r.Admin(r.ctx, "grant", "remove", held[0]); r.ok(err); return "" })
			held = held[1:]
		}
		done := time.Now()
		passed := ports[always].got.Load()
		for _, p := range denied {
			if n := ports[p].since(); n != 0 {
				t.Errorf("change %d: %d frames to port %d passed, which the policy denied before and after", change, n, p)
			}
		}
		if change%2 == 1 {
			// The older port is denied from here on. What was under way may still arrive.
			slowest = max(slowest, ports[turns[at]].quiet(r, done))
			at = (at + 1) % 3
		}
		r.await("what both policies allow flows on", 5*time.Second, func() bool { return ports[always].got.Load() > passed })
	}
	rate := float64(r.entered(a)-offered) / time.Since(began).Seconds()
	t.Logf("%d changes; the host offered %.0f frames a second; the last frame came %v after a change was known to both nodes", changes, rate, slowest)
	if full && rate < float64(flipRate) {
		t.Errorf("the host offered %.0f frames a second, want %d", rate, flipRate)
	}
	if slowest > flipCut {
		t.Errorf("a frame came %v after the policy that denied it, want %v at most", slowest, flipCut)
	}
	if ports[never].got.Load() != 0 {
		t.Errorf("%d frames came to a port that was never allowed", ports[never].got.Load())
	}
}

// entered is how many frames the node's host has given to its TAP.
func (r *rig) entered(n *world.Node) uint64 {
	r.Helper()
	var out struct {
		Ports []node.Port `json:"ports"`
	}
	r.ok(n.Ask(r.ctx, &out, "ports"))
	for _, p := range out.Ports {
		if p.Kind == "local" {
			return p.Stats.RxFrames
		}
	}
	r.Fatalf("%s has no local port", n.Name)
	return 0
}

// settle makes a change and waits until both nodes have been told.
func (r *rig) settle(a, b *world.Node, change func() string) string {
	r.Helper()
	version := func(n *world.Node) uint64 {
		dir, err := statedir.Open(n.StateDir())
		r.ok(err)
		var s node.Status
		r.ok(node.Dial(dir).Get(r.ctx, "status", &s))
		return s.Policy.Version
	}
	oldA, oldB := version(a), version(b)
	out := change()
	r.await("both nodes are told of the change", 5*time.Second, func() bool { return version(a) > oldA && version(b) > oldB })
	return out
}

// port is a UDP port of one host that another floods.
type port struct {
	got  atomic.Int64
	last atomic.Int64 // Unix time in nanoseconds
	seen int64        // by since
}

// since is how many frames have come since it was asked last.
func (p *port) since() int64 {
	n := p.got.Load() - p.seen
	p.seen += n
	return n
}

// quiet waits until no frame comes any more, and says how long after done the last one came.
func (p *port) quiet(r *rig, done time.Time) time.Duration {
	r.Helper()
	r.await("the port that is denied now is quiet", 10*flipCut, func() bool {
		time.Sleep(flipQuiet / 4)
		return time.Since(time.Unix(0, p.last.Load())) > flipQuiet
	})
	p.since()
	return max(0, time.Unix(0, p.last.Load()).Sub(done))
}

// load floods a port of one host from another, with the smallest of frames, until ctx ends.
func (r *rig) load(ctx context.Context, from, to *lab.Host, addr string, number int) *port {
	r.Helper()
	in, err := to.ListenPacket(ctx, "udp4", net.JoinHostPort(addr, fmt.Sprint(number)))
	r.ok(err)
	out, err := from.Dial(ctx, "udp4", in.LocalAddr().String())
	r.ok(err)
	context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
	const burst, payload = 32, 18 // bytes: with its headers 60, without the checksum of the wire
	const each = burst * time.Second / (flipRate * 3 / 2 / flipPorts)
	p := &port{}
	go func() {
		messages := make([]batch.Message, burst)
		for i := range messages {
			messages[i].Buffers = [][]byte{make([]byte, payload)}
		}
		conn := batch.NewPacketConn(out.(*net.UDPConn))
		tick := time.NewTicker(each)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			if _, err := conn.WriteBatch(messages, 0); err != nil {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	go func() {
		messages := make([]batch.Message, burst)
		for i := range messages {
			messages[i].Buffers = [][]byte{make([]byte, 64)}
		}
		conn := batch.NewPacketConn(in)
		for {
			n, err := conn.ReadBatch(messages, 0)
			if err != nil {
				return
			}
			p.got.Add(int64(n))
			p.last.Store(time.Now().UnixNano())
		}
	}()
	return p
}

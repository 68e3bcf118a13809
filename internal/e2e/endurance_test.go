package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

const (
	enduranceBar   = 200e6 // bits a second that must arrive each way
	enduranceRate  = 220e6 // that are sent
	enduranceFlows = 1     // connections each way that share it
	enduranceHurt  = 0.01  // share of the underlay's packets that is lost, and as many are reordered

	// How much more memory a daemon may have at the end than after the warm-up. A short run is little but warm-up.
	longRun   = 5 * time.Minute
	flatLong  = 0.05
	flatShort = 0.25
)

// enduranceTime is how long the run takes: ETHERLOOM_ENDURANCE.
func enduranceTime(t *testing.T) time.Duration {
	text := os.Getenv("ETHERLOOM_ENDURANCE")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 5*time.Second {
		t.Fatalf("ETHERLOOM_ENDURANCE=%q is not a duration of 5s or more", text)
	}
	return d
}

// Both ways at once, over an underlay that loses one packet in a hundred and reorders as many: not a byte is wrong, the
// rate is kept, and the daemons do not grow.
func TestEndurance(t *testing.T) {
	length := enduranceTime(t)
	r := newRigFor(t, length+3*time.Minute)
	a, b := r.public("a", "203.0.113.31/24"), r.public("b", "203.0.113.32/24")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.awaitPath(a, "b", "direct", 20*time.Second)
	r.awaitPath(b, "a", "direct", 20*time.Second)
	hurts := []*hurt{r.hurt(a), r.hurt(b)}

	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var there, back []*flow
	for range enduranceFlows {
		there = append(there, r.flow(ctx, a.Host, b.Host, addr[1], enduranceRate/enduranceFlows, 0))
		back = append(back, r.flow(ctx, b.Host, a.Host, addr[0], enduranceRate/enduranceFlows, 0))
	}
	s := r.sample(length, a, b, there, back)
	cancel()
	for _, f := range slices.Concat(there, back) {
		if err := f.wait(); err != nil {
			t.Error(err)
		}
	}
	for _, h := range hurts {
		h.check(r)
	}
	s.report(t)
	if raced() {
		t.Log("built with the race detector: rate and memory are not judged")
		return
	}
	s.judge(t, length)
}

// public adds a node on the internet itself, which joins and runs: without routers, their work is not measured.
func (r *rig) public(name, addr string) *world.Node {
	r.Helper()
	n, err := r.PublicNode(name, addr)
	r.ok(err)
	r.ok(n.Join(r.ctx, "--label", "team=x"))
	r.ok(n.Start(r.ctx))
	return n
}

// hurt is what is done to what a node sends.
type hurt struct {
	node                *world.Node
	carried, lost, held *lab.Rule
}

func (r *rig) hurt(n *world.Node) *hurt {
	r.Helper()
	all := lab.Match{Direction: lab.Out, Protocol: unix.IPPROTO_UDP}
	some := all
	some.Chance = enduranceHurt
	h := &hurt{node: n}
	var err error
	h.carried, err = n.Uplink.Count(all)
	r.ok(err)
	h.lost, err = n.Uplink.Drop(some)
	r.ok(err)
	h.held, err = n.Uplink.Hold(time.Millisecond, some)
	r.ok(err)
	return h
}

// check says what was done, and that it was enough.
func (h *hurt) check(r *rig) {
	r.Helper()
	var counts [3]float64
	for i, rule := range []*lab.Rule{h.carried, h.lost, h.held} {
		n, err := rule.Packets()
		r.ok(err)
		counts[i] = float64(n)
	}
	r.Logf("of %.0f packets that %s sent, %.2f %% were lost and %.2f %% overtaken", counts[0], h.node.Name, 100*counts[1]/counts[0], 100*counts[2]/counts[0])
	for _, n := range counts[1:] {
		if share := n / counts[0]; share < 0.8*enduranceHurt || share > 1.2*enduranceHurt {
			r.Errorf("a share of %.4f of the packets was hurt, want %.4f", share, enduranceHurt)
		}
	}
}

// samples is what was seen every second.
type samples struct {
	ways  [2]string
	nodes [2]string
	got   [2][]int64 // bytes so far, each way
	rss   [2][]int64 // bytes of each daemon
	at    []time.Time
}

// sample looks every second, for some time.
func (r *rig) sample(length time.Duration, a, b *world.Node, there, back []*flow) *samples {
	s := &samples{ways: [2]string{there[0].name, back[0].name}, nodes: [2]string{a.Name, b.Name}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case <-r.ctx.Done():
			r.Fatal(r.ctx.Err())
		case now := <-tick.C:
			s.at = append(s.at, now)
		}
		for i, flows := range [][]*flow{there, back} {
			s.got[i] = append(s.got[i], arrived(flows))
		}
		for i, n := range []*world.Node{a, b} {
			rss, err := resident(n.Daemon.PID())
			r.ok(err)
			s.rss[i] = append(s.rss[i], rss)
		}
	}
	return s
}

// resident is how much memory a process has, in bytes: VmRSS (proc_pid_status(5)).
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// goodput is what arrived one way after the warm-up, in bits a second.
func (s *samples) goodput(way int) float64 {
	from, to := len(s.at)/5, len(s.at)-1
	return float64(8*(s.got[way][to]-s.got[way][from])) / s.at[to].Sub(s.at[from]).Seconds()
}

// growth is by what share a daemon's memory at the end is more than after the warm-up.
func (s *samples) growth(node int) (early, late int64, share float64) {
	fifth := max(len(s.at)/5, 1)
	early, late = median(s.rss[node][fifth:2*fifth]), median(s.rss[node][len(s.at)-fifth:])
	return early, late, float64(late)/float64(early) - 1
}

func median(list []int64) int64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func (s *samples) report(t *testing.T) {
	for i := range 2 {
		slowest := 0.0
		for j := len(s.at) / 5; j+1 < len(s.at); j++ {
			rate := float64(8*(s.got[i][j+1]-s.got[i][j])) / s.at[j+1].Sub(s.at[j]).Seconds()
			if slowest == 0 || rate < slowest {
				slowest = rate
			}
		}
		t.Logf("%s: %.0f Mbit/s, in the slowest second %.0f", s.ways[i], s.goodput(i)/1e6, slowest/1e6)
	}
	for i := range 2 {
		early, late, share := s.growth(i)
		t.Logf("%s: %.1f MiB after the warm-up, %.1f at the end: %+.1f %%", s.nodes[i], float64(early)/(1<<20), float64(late)/(1<<20), 100*share)
	}
}

func (s *samples) judge(t *testing.T, length time.Duration) {
	flat := flatShort
	if length >= longRun {
		flat = flatLong
	}
	for i := range 2 {
		if got := s.goodput(i); got < enduranceBar {
			t.Errorf("%s: %.0f Mbit/s arrive, want %.0f", s.ways[i], got/1e6, enduranceBar/1e6)
		}
		if _, _, share := s.growth(i); share > flat || share < -flat {
			t.Errorf("%s: its memory changed by %.1f %%, want %.0f at most", s.nodes[i], 100*share, 100*flat)
		}
	}
}

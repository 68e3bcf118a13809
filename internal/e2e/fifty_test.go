package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
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
	fiftyCrowd = 47 // simulated nodes beside three real ones
	fiftyShort = 5  // rounds
	fiftyLong  = 100
	obeyBar    = 200 * time.Millisecond // from an order's arrival at a node to the last frame there
)

// rounds is how often something is repeated: often if ETHERLOOM_ACCEPT is 1.
func rounds(short, long int) int {
	if os.Getenv("ETHERLOOM_ACCEPT") == "1" {
		return long
	}
	return short
}

// TestRevocationAtFifty: in a network of 50, a node is locked again and again while frames flow between it and another. From
// the command's end to the last frame it is a second at most, at the 99th percentile, either way.
func TestRevocationAtFifty(t *testing.T) {
	n := rounds(fiftyShort, fiftyLong)
	r := newRigFor(t, 4*time.Minute+time.Duration(n)*20*time.Second)
	a := r.site("a", lab.PortPreserving, "--label", "team=x")
	b := r.site("b", lab.PortPreserving, "--label", "team=x")
	c := r.site("c", lab.Symmetric, "--label", "team=x")
	_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
	r.ok(err)
	spectators := r.crowd(fiftyCrowd)
	addr := r.addresses(a, b, c)
	r.pings(a.Host, addr[1], 10*time.Second)
	r.pings(a.Host, addr[2], 10*time.Second)
	// One pair reaches each other directly, one by the relay.
	pairs := [][2]*world.Node{{a, b}, {a, c}}

	var ended, began, heard, obeyed []time.Duration
	for i := range n {
		from, to := pairs[i%2][0], pairs[i%2][1]
		w := r.beating(from, to, r.mac(from), r.mac(to), 60*time.Second)
		orders := [2]*lab.Capture{r.uplink(to), r.uplink(from)} // in the order of the beats' receivers
		start := time.Now()
		_, err := r.Admin(r.ctx, "node", "lock", to.Name)
		r.ok(err)
		exit := time.Now()
		for i, after := range r.silence(w, exit, 2*lockBar) {
			last := exit.Add(after)
			ended, began = append(ended, after), append(began, last.Sub(start))
			obeyed = append(obeyed, last.Sub(r.ordered(orders[i], start)))
		}
		heard = append(heard, spectators.learned(r, start)...)
		_, err = r.Admin(r.ctx, "node", "unlock", to.Name)
		r.ok(err)
		r.await(to.Name+" is back", 20*time.Second, func() bool { return len(r.status(to).Segments) == 1 })
	}
	t.Logf("%d locks, last frame after the command's end: %s", n, spread(ended))
	t.Logf("%d locks, last frame after the command's start: %s", n, spread(began))
	t.Logf("%d locks, the %d others know after the command's start: %s", n, fiftyCrowd, spread(heard))
	t.Logf("%d locks, last frame after the order's arrival at the receiving node: %s", n, spread(obeyed))
	if p := percentile(obeyed, 99); n == fiftyLong && p > obeyBar {
		t.Errorf("the 99th percentile from order to cut is %v, want %v at most", p, obeyBar)
	}
	if p := percentile(ended, 99); p > lockBar {
		t.Errorf("the 99th percentile is %v, want %v at most", p, lockBar)
	}
	if len(ended) != 2*n {
		t.Errorf("%d measurements of %d locks", len(ended), n)
	}
	if want := n * fiftyCrowd; len(heard) != want {
		t.Errorf("of %d spectators that should have heard of a lock %d have", want, len(heard))
	}
}

// uplink captures what a node and the controller say to each other.
func (r *rig) uplink(n *world.Node) *lab.Capture {
	r.Helper()
	c, err := n.Host.Capture(n.Uplink.Name())
	r.ok(err)
	return c
}

// ordered is when the first message of the controller's came to a node after a moment that is long enough for a delta,
// which has a certificate in it. If that was another message, the order came later.
func (r *rig) ordered(c *lab.Capture, since time.Time) (at time.Time) {
	r.Helper()
	controller := netip.MustParseAddr(world.ControllerAddr)
	r.ok(c.EachAt(func(frame []byte, seen time.Time) bool {
		const ip, tcp, least = 14, 34, 300 // RFC 791, RFC 9293
		if len(frame) >= tcp+least && frame[12] == 8 && frame[13] == 0 && frame[ip] == 0x45 && frame[ip+9] == unix.IPPROTO_TCP &&
			netip.AddrFrom4([4]byte(frame[ip+12:])) == controller && binary.BigEndian.Uint16(frame[tcp:]) == 443 && seen.After(since) {
			at = seen
		}
		return at.IsZero()
	}))
	r.ok(c.Stop())
	if at.IsZero() {
		r.Errorf("no order has come from the controller")
	}
	return at
}

// spread sums up durations.
func spread(list []time.Duration) string {
	ms := func(p float64) string { return fmt.Sprintf("%.1f", float64(percentile(list, p).Microseconds())/1000) }
	return fmt.Sprintf("p50 %s ms, p99 %s ms, max %s ms", ms(50), ms(99), ms(100))
}

// percentile returns the least value that p percent of the list do not exceed.
func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	at := int(p/100*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// spectators is the process that simulates nodes.
type spectators struct{ process *lab.Process }

// crowd starts simulated nodes on a host of their own, and waits until each holds a state.
func (r *rig) crowd(count int) *spectators {
	r.Helper()
	token, err := r.Token(r.ctx, "--uses", strconv.Itoa(count), "--label", "team=x")
	r.ok(err)
	h, err := r.Lab.AddHost("crowd")
	r.ok(err)
	_, err = h.Join(r.Internet, "eth0", "203.0.113.60/24")
	r.ok(err)
	program, err := os.Executable()
	r.ok(err)
	p, err := h.Start(r.ctx, "env", fmt.Sprintf("%s=%d %s", crowdEnv, count, token), program)
	r.ok(err)
	r.ok(p.WaitLog(r.ctx, crowdReady))
	return &spectators{p}
}

// learned returns how long after a moment each spectator learned of the revocation that came then.
func (s *spectators) learned(r *rig, since time.Time) (out []time.Duration) {
	r.Helper()
	log, err := s.process.Log()
	r.ok(err)
	for line := range strings.Lines(log) {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "revoked" {
			continue
		}
		nanos, err := strconv.ParseInt(words[1], 10, 64)
		r.ok(err)
		if at := time.Unix(0, nanos); at.After(since) {
			out = append(out, at.Sub(since))
		}
	}
	return out
}

package e2e

import (
	"os"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// F12: of two paths, one direct and one by the relay, the direct one is cut and mended each half second. One flow of numbered frames from one
// node to the other comes in order but for one in a thousand, and no frame twice.
func TestPathFlapF12(t *testing.T) {
	const rate = 500
	lasts := 10 * time.Second
	if os.Getenv("ETHERLOOM_ACCEPT") != "" {
		lasts = time.Minute
	}
	r := newRig(t)
	a, b := r.site("a", lab.PortPreserving), r.site("b", lab.PortPreserving)
	_, err := r.Grant(r.ctx, "node:a", "segment:lan")
	r.ok(err)
	_, err = r.Grant(r.ctx, "node:b", "segment:lan")
	r.ok(err)
	r.pings(a.Host, r.addresses(a, b)[1], 10*time.Second)
	r.await("there is a direct path and one by the relay", 20*time.Second, func() bool {
		kinds := map[string]bool{}
		for _, p := range r.peer(a, "b").Paths {
			kinds[p.Kind] = kinds[p.Kind] || p.Alive
		}
		return kinds["direct"] && kinds["relayed"]
	})

	seen := r.arrivals(b.Host, "loom0")
	head := lab.Ethernet(r.macOn(b.Host, "loom0"), r.macOn(a.Host, "loom0"), lab.Experimental)
	train := lab.NewTrain(head, int(lasts.Seconds())*rate, time.Second/rate)
	sent := make(chan error, 1)
	go func() { _, err := a.Host.SendTrain(r.ctx, "loom0", train); sent <- err }()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		cut, err := a.Uplink.Drop(lab.Address("203.0.113.22")...)
		r.ok(err)
		time.Sleep(500 * time.Millisecond)
		r.ok(cut.Remove())
		time.Sleep(500 * time.Millisecond)
	}
	r.ok(<-sent)
	got, err := seen.AwaitTrain(r.ctx, train, head, quiet)
	r.ok(err)
	t.Logf("of %d frames %d came, %d out of order, %d further copies; nothing for %v at most", train.Count, got.Whole, got.Reordered, got.Extra, got.Gap.Round(time.Millisecond))
	if got.Extra != 0 || got.Changed != 0 || got.Reordered*1000 > got.Whole {
		t.Errorf("%d came twice, %d were changed, %d of %d were out of order", got.Extra, got.Changed, got.Reordered, got.Whole)
	}
	// At first half of the time the path in use is cut, and mended before it is taken for dead; then it is left for the relay.
	if got.Whole < train.Count*7/10 {
		t.Errorf("%d of %d frames came", got.Whole, train.Count)
	}
}

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// on is a node's IPv4 address on a segment; empty if it has none.
func (r *rig) on(n *world.Node, segment string) string {
	var list struct {
		Ports []node.Port `json:"ports"`
	}
	if n.Ask(r.ctx, &list, "ports") != nil {
		return ""
	}
	for _, p := range list.Ports {
		for _, text := range p.Addresses {
			if a, err := netip.ParsePrefix(text); err == nil && a.Addr().Is4() && p.Segment == segment && p.Kind == "local" {
				return a.Addr().String()
			}
		}
	}
	return ""
}

// awaitOn waits until nodes have an address on a segment.
func (r *rig) awaitOn(segment string, nodes ...*world.Node) (out []string) {
	r.Helper()
	for _, n := range nodes {
		r.await(n.Name+" has an address on "+segment, 10*time.Second, func() bool { return r.on(n, segment) != "" })
		out = append(out, r.on(n, segment))
	}
	return out
}

// cutAfter fails if a flow was not running before, or still ran a second after it should have stopped.
func (r *rig) cutAfter(what string, s *stamps, from time.Time, within time.Duration) {
	r.Helper()
	last := s.stop()
	r.Logf("%s: the last answer came %v afterwards", what, last.Sub(from))
	if last.Before(from.Add(-time.Second)) {
		r.Errorf("%s: nothing was answered before", what)
	}
	if last.Sub(from) > within {
		r.Errorf("%s: answered for %v, expected at most %v", what, last.Sub(from), within)
	}
}

// A grant under a condition on a file holds while the file is there: when it goes, the flow is cut at both ends in less
// than a second after the look at it, and no other grant's flow is touched.
func TestPostureFlips(t *testing.T) {
	const interval = 200 * time.Millisecond
	r := newRig(t)
	file := filepath.Join(r.Dir(), "approved")
	_, a := r.unstarted("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	_, err := r.Admin(r.ctx, "segment", "add", "dmz")
	r.ok(err)
	for _, g := range [][]string{
		{"node:b", "segment:lan"},
		{"node:b", "segment:dmz"},
		{"node:a", "segment:dmz"},
		{"node:a", "segment:lan", "--when", fmt.Sprintf("posture.files[%q].exists", file)},
	} {
		_, err := r.Grant(r.ctx, g[0], g[1], g[2:]...)
		r.ok(err)
	}
	r.ok(a.Start(r.ctx, "--log-level", "debug", "--posture-interval", interval.String(), "--posture-files", file))
	dmz := r.awaitOn("dmz", a, b)
	r.pings(a.Host, dmz[1], 10*time.Second)
	if got := r.on(a, "lan"); got != "" {
		t.Errorf("without the file a has %s on lan", got)
	}
	other := r.steady(a, dmz[1])
	for range 2 {
		r.ok(os.WriteFile(file, nil, 0o600))
		lan := r.awaitOn("lan", a, b)
		r.pings(a.Host, lan[1], 10*time.Second)
		there, back := r.stamped(a, lan[1]), r.stamped(b, lan[0])
		time.Sleep(500 * time.Millisecond)
		r.ok(os.Remove(file))
		removed := time.Now()
		time.Sleep(2 * time.Second)
		r.cutAfter("a to b", there, removed, time.Second+interval)
		r.cutAfter("b to a", back, removed, time.Second+interval)
	}
	if got := other.stop(); got.Received+1 < got.Sent || got.Sent < 50 {
		t.Errorf("of the flow of another grant %d of %d pings came back", got.Received, got.Sent)
	}
	out, err := r.Admin(r.ctx, "grant", "list")
	if err != nil || !strings.Contains(out, "nobody") || !strings.Contains(out, "posture.files") {
		t.Errorf("grant list, %v:\n%s", err, out)
	}
	var p node.PostureStatus
	r.ok(a.Ask(r.ctx, &p, "posture"))
	if f, ok := p.Report.Files[file]; !ok || f.Exists || p.Sent.IsZero() || !p.Connected || p.Report.Kernel == "" || p.Interval != interval {
		t.Errorf("posture: %+v", p)
	}
	out, err = r.Admin(r.ctx, "node", "show", "a")
	if err != nil || !strings.Contains(out, "file "+file) || !strings.Contains(out, "posture kernel") {
		t.Errorf("node show, %v:\n%s", err, out)
	}
	_, err = r.Admin(r.ctx, "audit", "verify")
	r.ok(err)
}

// A grant that pins underlay addresses is lost at once when another one is used, not at the next look.
func TestPosturePinsUnderlay(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	_, err := r.Grant(r.ctx, "node:b", "segment:lan")
	r.ok(err)
	_, err = r.Grant(r.ctx, "node:a", "segment:lan", "--when", `posture.underlay.all(x, !inCIDR(x, "192.0.2.64/26"))`)
	r.ok(err)
	lan := r.awaitOn("lan", a, b)
	r.pings(a.Host, lan[1], 10*time.Second)
	there := r.stamped(a, lan[1])
	time.Sleep(500 * time.Millisecond)
	r.sh(a.Host, "ip addr add 192.0.2.77/24 dev eth0")
	added := time.Now()
	time.Sleep(2 * time.Second)
	r.cutAfter("a to b", there, added, time.Second)
	r.sh(a.Host, "ip addr del 192.0.2.77/24 dev eth0")
	r.awaitOn("lan", a)
	r.pings(a.Host, lan[1], 10*time.Second)
}

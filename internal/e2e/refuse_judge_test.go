package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

// dropped asks a node what it has refused on its segment, by reason.
func (r *rig) dropped(n *world.Node) map[string]uint64 {
	r.Helper()
	var list struct {
		Drops []node.Drop `json:"drops"`
	}
	r.ok(n.Ask(r.ctx, &list, "drops"))
	counts := map[string]uint64{}
	for _, d := range list.Drops {
		counts[d.Reason] += d.Count
	}
	return counts
}

// refused checks that victim refuses the attacks: each alone, for its own reason, and then all of them together for a while,
// while victim and bob talk.
func (r *refusal) refused(attacks ...*attack) {
	r.Helper()
	tap, err := r.victim.Host.Capture("loom0")
	r.ok(err)
	for i, a := range attacks {
		if !a.bare {
			a.frame = append(a.frame, fmt.Sprintf("refuse-me-%03d", i)...)
		}
	}
	for _, a := range attacks {
		was := r.dropped(r.victim)
		r.send(attackProbe, a)
		r.counted(was, map[string]int{a.reason: a.sent}, 0.9, a.name)
	}

	was, want := r.dropped(r.victim), map[string]int{}
	pinged := make(chan lab.Replies, 1)
	go func() {
		const every = 20 * time.Millisecond
		replies, _ := r.victim.Host.Ping(r.ctx, r.b.v4.String(), lab.Echo{Count: int(attackTime / every), Interval: every})
		pinged <- replies
	}()
	for _, a := range attacks {
		a.sent = 0
	}
	r.send(attackTime, attacks...)
	for _, a := range attacks {
		want[a.reason] += a.sent
	}
	r.counted(was, want, 0.5, "all together")
	if p := <-pinged; p.Sent == 0 || float64(p.Sent-p.Received) >= 0.01*float64(p.Sent) {
		r.Errorf("meanwhile %d of %d pings from victim to bob were answered", p.Received, p.Sent)
	}
	r.undisturbed()
	r.unseen(tap, attacks)
	r.ok(tap.Stop())
}

// counted checks that victim has counted at least a share of the frames as refused, by reason, since it was asked. A machine
// that is busy loses some on the way.
func (r *refusal) counted(was map[string]uint64, want map[string]int, share float64, what string) {
	r.Helper()
	var now map[string]uint64
	enough := func() bool {
		now = r.dropped(r.victim)
		for reason, n := range want {
			if float64(now[reason]-was[reason]) < share*float64(n) {
				return false
			}
		}
		return true
	}
	err := world.Await(r.ctx, "", 2*time.Second, enough)
	grown := map[string]uint64{}
	for reason, n := range now {
		if n > was[reason] {
			grown[reason] = n - was[reason]
		}
	}
	r.Logf("%-45s sent %v, refused %v", what, want, grown)
	if err != nil {
		r.Errorf("%s: sent %v, refused %v", what, want, grown)
	}
}

// unseen checks that none of the attacks has reached victim's host.
func (r *refusal) unseen(tap *lab.Capture, attacks []*attack) {
	r.Helper()
	seen := map[string]int{}
	r.ok(tap.Each(func(frame []byte) bool {
		for _, a := range attacks {
			if bytes.Equal(frame, a.frame) || !a.bare && bytes.HasSuffix(frame, a.frame[len(a.frame)-13:]) {
				seen[a.name]++
			}
		}
		return true
	}))
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		r.Errorf("%s: %d frames have reached victim", name, seen[name])
	}
}

// undisturbed checks that victim, its daemon and its kernel, still knows everybody at their own address, and nobody else.
func (r *refusal) undisturbed() {
	r.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	r.ok(r.victim.Ask(r.ctx, &list, "fdb"))
	ports := map[string]string{r.m.mac.String(): "mallory", r.b.mac.String(): "bob", r.v.mac.String(): "loom0"}
	for _, e := range list.FDB {
		if ports[e.MAC] != e.Port {
			r.Errorf("victim's FDB has %s at %s", e.MAC, e.Port)
		}
	}
	owners := map[string]string{}
	for _, p := range []party{r.m, r.b} {
		for _, a := range []netip.Addr{p.v4, p.v6, p.own} {
			owners[a.String()] = p.mac.String()
		}
	}
	for line := range strings.Lines(r.sh(r.victim.Host, "ip neigh show dev loom0")) {
		words := strings.Fields(line)
		if i := slices.Index(words, "lladdr"); i > 0 && owners[words[0]] != words[i+1] {
			r.Errorf("victim's neighbour table has %s at %s", words[0], words[i+1])
		}
	}
}

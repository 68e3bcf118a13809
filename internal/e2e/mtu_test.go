package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/transport"
)

const (
	wideMTU   = 1500 // bytes of IP packet on the underlay
	narrowMTU = 1280

	mtuStall = 3 * time.Second // the longest that traffic may stand still
	mtuRaise = 5 * time.Second // between attempts at a larger MTU
)

// narrowing makes the underlay between two nodes narrow, and returns what makes it wide again.
type narrowing struct {
	name string
	how  func(r *rig, a, b *far) (widen func())
}

// far is a node with its site.
type far struct {
	*world.Node
	site *world.Site
}

func narrowings() []narrowing {
	setMTU := func(r *rig, mtu int, links ...*lab.Link) {
		for _, l := range links {
			r.ok(l.SetMTU(mtu))
		}
	}
	return []narrowing{
		// Routers say "fragmentation needed".
		{"router", func(r *rig, a, b *far) func() {
			setMTU(r, narrowMTU, a.site.Public, b.site.Public)
			return func() { setMTU(r, wideMTU, a.site.Public, b.site.Public) }
		}},
		// Nobody says anything.
		{"black hole", func(r *rig, a, _ *far) func() {
			rule, err := a.site.Public.Drop(lab.Match{LongerThan: narrowMTU}, lab.Match{Protocol: unix.IPPROTO_ICMP})
			r.ok(err)
			return func() { r.ok(rule.Remove()) }
		}},
		// One end knows, and what is too long for it is lost on the way there, as a veth has it.
		{"own link", func(r *rig, a, _ *far) func() {
			setMTU(r, narrowMTU, a.Uplink)
			return func() { setMTU(r, wideMTU, a.Uplink) }
		}},
	}
}

// The underlay's path MTU falls from 1500 to 1280 under running streams and rises again: they never stand still for long,
// full-size datagrams pass at any time, and datagrams of the full length are used again when they can be.
func TestPathMTU(t *testing.T) {
	for _, n := range narrowings() {
		t.Run(n.name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.far("a"), r.far("b")
			_, err := r.Grant(r.ctx, "label:team=x", "segment:lan")
			r.ok(err)
			addr := r.addresses(a.Node, b.Node)
			r.pings(a.Host, addr[1], 10*time.Second)
			for _, way := range [][2]*far{{a, b}, {b, a}} {
				r.awaitPath(way[0].Node, way[1].Name, "direct", 20*time.Second)
				r.awaitMTU(way[0].Node, way[1].Name, wideMTU, wideMTU, mtuRaise+5*time.Second)
			}
			const rate = 40e6
			ctx, cancel := context.WithCancel(r.ctx)
			defer cancel()
			flows := []*flow{r.flow(ctx, a.Host, b.Host, addr[1], rate, 0), r.flow(ctx, b.Host, a.Host, addr[0], rate, 0)}
			w := r.watch(flows, rate)
			w.during(r, "wide", 2*time.Second)

			widen := n.how(r, a, b)
			w.during(r, "narrow", mtuStall+2*time.Second)
			r.fullSize("narrow", a, b, addr)
			r.awaitMTU(a.Node, "b", 1200, narrowMTU, time.Second)
			r.awaitMTU(b.Node, "a", 1200, narrowMTU, time.Second)

			widen()
			w.during(r, "wide again", mtuRaise+2*time.Second)
			r.awaitMTU(a.Node, "b", wideMTU, wideMTU, time.Second)
			r.awaitMTU(b.Node, "a", wideMTU, wideMTU, time.Second)
			r.longOnes(w, a)
			r.fullSize("wide again", a, b, addr)
			cancel()
			for _, f := range flows {
				if err := f.wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// far adds a site with a node that looks often for a larger MTU.
func (r *rig) far(name string) *far {
	r.Helper()
	s, n := r.unstarted(name, lab.PortPreserving, "--label", "team=x")
	r.ok(n.Uplink.SetOffload(lab.ChecksumOffload)) // what is longer than the MTU is so on the wire, too
	r.ok(n.Start(r.ctx, "--log-level", "debug", "--timers-path-mtu", mtuRaise.String()))
	return &far{n, s}
}

// sizedPath is a path with its MTU.
type sizedPath struct {
	transport.PathStatus
	MTU int `json:"mtu"` // bytes of IP packet
}

// awaitMTU waits until the path that a node uses to a peer has an MTU within bounds. That it has not is not the end of
// the test: there is more to see.
func (r *rig) awaitMTU(n *world.Node, peer string, least, most int, within time.Duration) {
	r.Helper()
	var seen []sizedPath
	err := world.Await(r.ctx, "", within, func() bool {
		seen = nil
		var list struct {
			Paths []struct {
				Name  string      `json:"name"`
				Paths []sizedPath `json:"paths"`
			} `json:"paths"`
		}
		r.ok(n.Ask(r.ctx, &list, "paths"))
		ok := false
		for _, p := range list.Paths {
			for _, path := range p.Paths {
				if p.Name == peer && path.InUse {
					seen = append(seen, path)
					ok = path.MTU >= least && path.MTU <= most
				}
			}
		}
		return ok
	})
	if err != nil {
		r.Errorf("%s: the MTU to %s is not between %d and %d within %v: %+v", n.Name, peer, least, most, within, seen)
	}
}

// longOnes checks on the wire that datagrams longer than the narrow path took are sent both ways.
func (r *rig) longOnes(w *watcher, a *far) {
	r.Helper()
	for _, d := range []lab.Direction{lab.In, lab.Out} {
		rule, err := a.Uplink.Count(lab.Match{Direction: d, Protocol: unix.IPPROTO_UDP, LongerThan: wideMTU - 60})
		r.ok(err)
		w.during(r, "wide again", time.Second)
		n, err := rule.Packets()
		r.ok(err)
		if n < 100 {
			r.Errorf("in one second %d packets of nearly full length pass a's link, direction %d", n, d)
		}
		r.ok(rule.Remove())
	}
}

// watcher looks ten times a second whether flows go on: whether at least a tenth of what is sent has arrived. Less is what
// TCP gets through a black hole by chance, with its shortest segments.
type watcher struct {
	flows []*flow
	rate  float64 // of each flow, in bits a second

	mu      sync.Mutex
	looked  time.Time
	got     []int64         // bytes, then
	arrived []time.Time     // when enough had arrived the last time
	worst   []time.Duration // gap since the last report
}

// watch watches flows of a rate until the test's end.
func (r *rig) watch(flows []*flow, rate float64) *watcher {
	n, now := len(flows), time.Now()
	w := &watcher{
		flows: flows, rate: rate, looked: now,
		got: make([]int64, n), arrived: slices.Repeat([]time.Time{now}, n), worst: make([]time.Duration, n),
	}
	tick := time.NewTicker(100 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-r.ctx.Done():
				return
			case <-tick.C:
				w.look(time.Now())
			}
		}
	}()
	return w
}

func (w *watcher) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	enough := w.rate / 8 / 10 * now.Sub(w.looked).Seconds()
	for i, f := range w.flows {
		w.worst[i] = max(w.worst[i], now.Sub(w.arrived[i]))
		got := f.got.Load()
		if float64(got-w.got[i]) >= enough {
			w.arrived[i] = now
		}
		w.got[i] = got
	}
	w.looked = now
}

// during lets time pass, and judges it together with what passed since it was called before.
func (w *watcher) during(r *rig, phase string, length time.Duration) {
	r.Helper()
	start, before := time.Now(), make([]int64, len(w.flows))
	for i, f := range w.flows {
		before[i] = f.got.Load()
	}
	time.Sleep(length)
	elapsed := time.Since(start).Seconds()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, f := range w.flows {
		r.Logf("%s, %s: %.1f Mbit/s, longest gap %v", f.name, phase, float64(8*(f.got.Load()-before[i]))/elapsed/1e6, w.worst[i].Round(time.Millisecond))
		if w.worst[i] > mtuStall {
			r.Errorf("%s, %s: next to nothing arrived for %v", f.name, phase, w.worst[i])
		}
		w.worst[i] = 0
	}
}

// fullSize checks that datagrams that fill the overlay's MTU arrive, both ways.
func (r *rig) fullSize(phase string, a, b *far, addr []string) {
	r.Helper()
	const count = 20
	for _, way := range []struct {
		from, to *far
		addr     string
	}{{a, b, addr[1]}, {b, a, addr[0]}} {
		if n := r.datagrams(way.from.Host, way.to.Host, way.addr, count, 1472); n != count {
			r.Errorf("%s: %d of %d datagrams of 1472 bytes arrive at %s", phase, n, count, way.to.Name)
		}
	}
}

// datagrams sends numbered UDP datagrams of a size, in bytes of payload, and returns how many arrive as they were sent.
func (r *rig) datagrams(from, to *lab.Host, addr string, count, size int) int {
	r.Helper()
	receiver, err := to.ListenPacket(r.ctx, "udp", net.JoinHostPort(addr, "0"))
	r.ok(err)
	defer receiver.Close()
	sender, err := from.Dial(r.ctx, "udp", receiver.LocalAddr().String())
	r.ok(err)
	defer sender.Close()
	payload := func(i int) []byte {
		return bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), (size+3)/4)[:size]
	}
	const apart = 10 * time.Millisecond
	r.ok(receiver.SetReadDeadline(time.Now().Add(time.Duration(count)*apart + time.Second)))
	go func() {
		for i := range count {
			_, _ = sender.Write(payload(i)) // what is not sent does not arrive
			time.Sleep(apart)
		}
	}()
	arrived := map[int]bool{}
	for buf := make([]byte, 1<<16); len(arrived) < count; {
		n, _, err := receiver.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		r.ok(err)
		if i := int(binary.BigEndian.Uint32(buf)); bytes.Equal(buf[:n], payload(i)) {
			arrived[i] = true
		}
	}
	return len(arrived)
}

package election

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

const ms = time.Millisecond

// epoch is when every simulation begins.
var epoch = time.Unix(1_000_000, 0)

// world is gateways on one VLAN, in virtual time.
type world struct {
	t     testing.TB
	rnd   *rand.Rand
	now   time.Time
	nodes []*gw
	mail  mailbox
	order int

	fates func() bool          // if not nil: whether the next hello arrives, by both channels
	loss  [2]float64           // by channel
	delay [2]time.Duration     // at most
	cut   map[[3]int]time.Time // from, to, channel: until when nothing passes
	log   []string
	both  int // for how many ms two forwarded who could not hear each other
}

// gw is a gateway of the world.
type gw struct {
	id     int
	e      *Election
	cfg    Config
	cond   Conditions
	next   time.Time
	paused time.Time // until when
	dead   bool
	unread []letter
	heard  map[int]time.Time // by node: when the last hello was read or, if it is not paused, has come
	claims map[int]time.Time // by node: when the last hello of one that claims has come, read or not
	newest map[uint64]uint64 // by run: the highest sequence that has come
	was    bool
}

type letter struct {
	at       time.Time
	order    int
	from, to int
	by       Channel
	body     []byte
	news     bool // nothing newer has come before
}

type mailbox []letter

func (m mailbox) Len() int { return len(m) }
func (m mailbox) Less(i, j int) bool {
	return m[i].at.Before(m[j].at) || m[i].at.Equal(m[j].at) && m[i].order < m[j].order
}
func (m mailbox) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *mailbox) Push(x any)   { *m = append(*m, x.(letter)) }
func (m *mailbox) Pop() any {
	l := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return l
}

func good() Conditions { return Conditions{Carrier: true, Synced: true, Peer: true, Peers: true} }

// newWorld makes n gateways, none of which runs yet.
func newWorld(t testing.TB, n int, seed uint64) *world {
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, uint64(n))), now: epoch, delay: [2]time.Duration{20 * ms, 2 * ms}, cut: make(map[[3]int]time.Time),
	}
	for i := range n {
		g := &gw{id: i, cond: good(), dead: true, cfg: Config{Attachment: 7, Node: uint32(i + 1)}}
		for j := range n {
			if j != i {
				g.cfg.Gateways = append(g.cfg.Gateways, uint32(j+1))
			}
		}
		w.nodes = append(w.nodes, g)
	}
	return w
}

func (w *world) start(g *gw) {
	g.cfg.Boot = w.rnd.Uint64()
	e, err := New(g.cfg, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	g.e, g.dead, g.was, g.unread, g.paused = e, false, false, nil, time.Time{}
	g.heard, g.claims = make(map[int]time.Time), make(map[int]time.Time)
	g.newest = make(map[uint64]uint64)
	g.e.SetConditions(g.cond, w.now)
	g.next = w.now
	w.note("%d starts", g.cfg.Node)
}

func (w *world) kill(g *gw) { g.dead = true; w.note("%d dies", g.cfg.Node) }

func (w *world) pause(g *gw, d time.Duration) {
	g.paused = w.now.Add(d)
	w.note("%d is paused for %v", g.cfg.Node, d)
}

func (w *world) set(g *gw, c Conditions) {
	g.cond = c
	if w.runs(g) {
		g.e.SetConditions(c, w.now)
		g.next = w.now
	}
	w.note("%d: %+v", g.cfg.Node, c)
}

func (w *world) runs(g *gw) bool { return !g.dead && !w.now.Before(g.paused) }

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%6d ms ", w.now.Sub(epoch)/ms)+fmt.Sprintf(format, args...))
}

// send puts a hello on both channels, for each of the others.
func (w *world) send(g *gw, body []byte) {
	if w.fates != nil && !w.fates() {
		return
	}
	for to := range w.nodes {
		for _, by := range []Channel{Overlay, VLAN} {
			if to == g.id || w.now.Before(w.cut[[3]int{g.id, to, int(by)}]) || w.rnd.Float64() < w.loss[by] {
				continue
			}
			w.order++
			at := w.now.Add(time.Duration(w.rnd.Int64N(int64(w.delay[by])/int64(ms)+1)) * ms)
			heap.Push(&w.mail, letter{at: at, order: w.order, from: g.id, to: to, by: by, body: body})
		}
	}
}

// step is one millisecond. A gateway that has just been resumed does first what its timers say, and reads later: the worst order.
func (w *world) step() {
	w.now = w.now.Add(ms)
	for len(w.mail) > 0 && !w.mail[0].at.After(w.now) {
		l := heap.Pop(&w.mail).(letter)
		to := w.nodes[l.to]
		if to.dead {
			continue
		}
		// What was overtaken, by the other channel or on the way, tells nothing.
		if h, err := ParseHello(l.body); err == nil && h.Sequence > to.newest[h.Boot] {
			if to.newest[h.Boot] = h.Sequence; h.Claims {
				to.claims[l.from] = w.now
			}
			l.news = true
		}
		to.unread = append(to.unread, l)
	}
	for _, g := range w.nodes {
		if !w.runs(g) {
			continue
		}
		w.check(g)
		if !w.now.Before(g.next) {
			w.tick(g)
			w.check(g)
		}
		for _, l := range g.unread {
			_ = g.e.Hear(uint32(l.from+1), l.by, l.body, w.now)
			if l.news {
				g.heard[l.from] = w.now
			}
			w.tick(g)
			w.check(g)
		}
		g.unread = g.unread[:0]
	}
	w.judge()
}

func (w *world) tick(g *gw) {
	var hello []byte
	hello, g.next = g.e.Tick(w.now)
	if hello != nil {
		w.send(g, hello)
	}
	for _, e := range g.e.Events() {
		w.note("%d %s: %s (%d)", g.cfg.Node, e.Kind, e.Reason, e.Node)
	}
}

// check looks at one that begins to forward: no claim of one that forwards may have come in the last lease, read or not, but for
// what comes in the moment in which it begins.
func (w *world) check(g *gw) {
	is := g.e.Forwards(w.now)
	if is && !g.was {
		for _, o := range w.nodes {
			if at, ok := g.claims[o.id]; ok && o != g && w.runs(o) && o.e.Forwards(w.now) && w.now.Sub(at) < g.e.cfg.Lease && w.now.Sub(at) > g.e.cfg.Hello/4 {
				w.fail("%d begins to forward, %v after a claim of %d, which forwards, has come", g.cfg.Node, w.now.Sub(at), o.cfg.Node)
			}
		}
	}
	g.was = is
}

// judge fails if two forward who can hear each other.
func (w *world) judge() {
	for i, a := range w.nodes {
		if !w.runs(a) || !a.e.Forwards(w.now) {
			continue
		}
		for _, b := range w.nodes[:i] {
			if !w.runs(b) || !b.e.Forwards(w.now) {
				continue
			}
			w.both++
			if w.hears(a, b) && w.hears(b, a) {
				w.fail("%d and %d both forward; they heard each other %v and %v ago", b.cfg.Node, a.cfg.Node,
					w.now.Sub(a.heard[b.id]), w.now.Sub(b.heard[a.id]))
			}
		}
	}
}

func (w *world) hears(a, b *gw) bool {
	at, ok := a.heard[b.id]
	return ok && w.now.Sub(at) < a.e.cfg.Lease
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.note(format, args...)
	for _, line := range w.log[max(0, len(w.log)-40):] {
		w.t.Log(line)
	}
	w.t.FailNow()
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.step()
	}
}

// forwarder is the one that forwards; nil if none or several do.
func (w *world) forwarder() *gw {
	var found *gw
	for _, g := range w.nodes {
		if w.runs(g) && g.e.Forwards(w.now) {
			if found != nil {
				return nil
			}
			found = g
		}
	}
	return found
}

// until runs until somebody but not forwards, and says how long that took.
func (w *world) until(not *gw, most time.Duration) time.Duration {
	w.t.Helper()
	from := w.now
	for w.now.Sub(from) < most {
		if f := w.forwarder(); f != nil && f != not {
			return w.now.Sub(from)
		}
		w.step()
	}
	w.fail("nobody else forwards after %v", most)
	return 0
}

// best is who should forward in the end.
func (w *world) best() *gw {
	var best *gw
	for _, g := range w.nodes {
		r := rankOf(7, g.cfg.Node, g.cfg.Preference)
		if w.runs(g) && g.e.unable() == "" && (best == nil || r.over(rankOf(7, best.cfg.Node, best.cfg.Preference))) {
			best = g
		}
	}
	return best
}

// settled makes a world in which the best has forwarded for a while.
func settled(t testing.TB, n int, seed uint64) *world {
	t.Helper()
	w := newWorld(t, n, seed)
	for _, g := range w.nodes {
		w.start(g)
		w.run(time.Duration(w.rnd.Int64N(100)) * ms)
	}
	w.run(4 * time.Second)
	if f := w.forwarder(); f == nil || f != w.best() {
		w.fail("after 4 s the forwarder is not the best")
	}
	w.run(time.Duration(w.rnd.Int64N(200)) * ms)
	return w
}

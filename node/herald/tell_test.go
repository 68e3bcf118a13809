package herald

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// hidden is a host behind node 1, with which only the stranger has anything to do.
const hidden policy.Identity = 201

// withHidden adds it, and a grant to it. Both are also of those who are told of each other by no other way.
func withHidden(r policy.Rules, sources ...policy.Identity) policy.Rules {
	m := policy.NewMachine(mac(700), nil)
	m.Gateways, m.Attachments = []policy.Identity{1}, []policy.Identity{lan(1)}
	r.Stations[hidden] = m
	if len(sources) > 0 {
		r.Grants = append(r.Grants, policy.Grant{ID: 2, Sources: sources, Targets: []policy.Identity{hidden}})
	}
	return r
}

// What a peer is told is the same, byte for byte and at the same times, whatever becomes of machines that are none of its business; and
// nothing that it is sent names one.
func TestNothingOfOthers(t *testing.T) {
	run := func(churn bool) (told []string) {
		w := newWorld(t, 1, withHidden(rules(1, 1, everybody(1)), stranger), 1, plain, stranger)
		began := w.now
		names := 0
		w.spied = func(_, to policy.Identity, b []byte) {
			other := binary.BigEndian.AppendUint32(nil, uint32(hidden))
			hiddenMAC := mac(700)
			if to == stranger {
				other, hiddenMAC = binary.BigEndian.AppendUint32(nil, uint32(lan(1))), mac(1)
				names++
			}
			if bytes.Contains(b, other) || bytes.Contains(b, hiddenMAC[:]) {
				t.Errorf("node %d is sent %x", to, b)
			}
			if to == plain {
				told = append(told, fmt.Sprintf("%v %x", w.now.Sub(began), b))
			}
		}
		n := w.nodes[1]
		for i := range 20 {
			if i%5 == 0 {
				n.learn(mac(1 + i/5))
			}
			if churn && i%3 == 0 {
				n.sw.FDB().Learn(mac(700), placeOf(n, hidden), w.now)
			}
			if churn && i%3 == 2 {
				n.lose(mac(700))
			}
			if i == 17 {
				n.lose(mac(2))
			}
			w.pass(150 * time.Millisecond)
		}
		if churn && names == 0 {
			t.Error("the stranger is told nothing")
		}
		return told
	}
	still, busy := run(false), run(true)
	if len(still) < 10 || !slices.Equal(still, busy) {
		t.Errorf("told is\n%v\nand with others about\n%v", still, busy)
	}
}

// An address that a machine which concerns a peer has lost to one that does not is gone for that peer.
func TestChangesHands(t *testing.T) {
	w := newWorld(t, 2, withHidden(rules(1, 1, everybody(1)), stranger), 1, plain, stranger)
	n := w.nodes[1]
	n.learn(mac(1))
	w.pass(300 * time.Millisecond)
	n.sw.FDB().Remove(mac(1))
	n.sw.FDB().Learn(mac(1), placeOf(n, hidden), w.now)
	w.spied = func(_, to policy.Identity, b []byte) {
		if to == plain && bytes.Contains(b, binary.BigEndian.AppendUint32(nil, uint32(hidden))) {
			t.Errorf("node %d is sent %x", to, b)
		}
	}
	w.pass(300 * time.Millisecond)
	if at := w.nodes[plain].where(mac(1)); at != 0 {
		t.Errorf("behind node %d", at)
	}
}

// A policy that makes a machine concern a peer makes the peer hear of it, and the other way round; in whichever order the two are told.
func TestPolicyChanges(t *testing.T) {
	for _, first := range []policy.Identity{1, stranger} {
		without, with := withHidden(rules(1, 1, everybody(1))), withHidden(rules(2, 1, everybody(1)), stranger)
		second := 1 + stranger - first
		w := newWorld(t, 3, without, 1, plain, stranger)
		n := w.nodes[1]
		n.sw.FDB().Learn(mac(700), placeOf(n, hidden), w.now)
		n.learn(mac(1))
		check := func(what string, want policy.Identity) {
			t.Helper()
			w.pass(time.Second)
			if at := w.nodes[stranger].where(mac(700)); at != want {
				t.Errorf("node %d first: %s: behind node %d, want %d", first, what, at, want)
			}
			w.agreedAt("what is granted all the time", mac(1), 1, plain)
		}
		check("not granted", 0)
		for range 2 {
			w.nodes[first].obey(with)
			w.pass(400 * time.Millisecond)
			w.nodes[second].obey(with)
			check("granted", 1)
			w.nodes[first].obey(without)
			w.pass(400 * time.Millisecond)
			w.nodes[second].obey(without)
			check("no more", 0)
		}
	}
}

func (w *world) agreedAt(what string, m ether.MAC, want, id policy.Identity) {
	w.Helper()
	if got := w.nodes[id].where(m); got != want {
		w.Errorf("%s: node %d believes %s to be behind node %d, want %d", what, id, m, got, want)
	}
}

// The link stays, and only what the peer is to know changes: a withdrawal must be told.
func TestUnconcernedWithLink(t *testing.T) {
	reach := policy.Grant{ID: 3, Sources: []policy.Identity{stranger}, Targets: []policy.Identity{1}}
	with, without := withHidden(rules(1, 1, everybody(1), reach), stranger), withHidden(rules(2, 1, everybody(1), reach))
	w := newWorld(t, 4, with, 1, stranger)
	n := w.nodes[1]
	n.sw.FDB().Learn(mac(700), placeOf(n, hidden), w.now)
	w.pass(300 * time.Millisecond)
	w.agreedAt("granted", mac(700), 1, stranger)
	n.obey(without) // and the stranger has not heard of it yet
	w.pass(300 * time.Millisecond)
	w.agreedAt("no more", mac(700), 0, stranger)
	w.pass(time.Second)
	w.sent = 0
	w.pass(2 * time.Second)
	if w.sent != 0 || len(n.herald.to) != 1 { // plain, whose link is down, as no such node is there
		t.Errorf("%d messages, %d peers are remembered", w.sent, len(n.herald.to))
	}
}

// A grant that ends by itself ends what is told, too.
func TestGrantExpires(t *testing.T) {
	r := withHidden(rules(1, 1, everybody(1)), stranger)
	now := time.Now()
	r.Grants[1].Expires = now.Add(3 * time.Second)
	w := newWorld(t, 5, r, 1, stranger)
	n := w.nodes[1]
	n.sw.FDB().Learn(mac(700), placeOf(n, hidden), w.now)
	w.pass(time.Second)
	w.agreedAt("granted", mac(700), 1, stranger)
	w.pass(3 * time.Second)
	if n.herald.concerns(stranger, hidden) {
		t.Error("it is told for ever")
	}
	w.agreedAt("expired", mac(700), 0, stranger)
}

// count counts what each peer is sent in some time.
func (w *world) count(d time.Duration) map[policy.Identity]int {
	out := map[policy.Identity]int{}
	w.spied = func(_, to policy.Identity, _ []byte) { out[to]++ }
	w.pass(d)
	w.spied = nil
	return out
}

// Only those hear that a gateway is there whose link is up and who were told something.
func TestBeats(t *testing.T) {
	w := newWorld(t, 6, withHidden(rules(1, 2, everybody(2)), stranger), 1, 2, plain, stranger)
	if n := w.count(time.Second); len(n) != 0 {
		t.Errorf("before there is anything to tell: %v", n)
	}
	w.nodes[1].learn(mac(1))
	w.setDown(1, plain, true)
	w.pass(time.Second)
	if n := w.count(time.Second); n[2] < 3 || n[2] > 6 || len(n) != 1 {
		t.Errorf("messages in a second: %v, want 5 to node 2", n)
	}
}

// Beats do not keep a link open that carries no frame: who listens on it is told that there is nothing any more, and again what there is when a
// frame passes.
func TestQuietLink(t *testing.T) {
	w := newWorld(t, 7, rules(1, 2, everybody(2)), 1, 2, plain)
	n := w.nodes[1]
	n.learn(mac(1))
	w.pass(time.Second)
	n.idle[plain] = true
	w.pass(5*time.Minute - 2*time.Second)
	w.agreed("still", mac(1), 1)
	w.pass(3 * time.Second)
	w.agreedAt("quiet", mac(1), 0, plain)
	w.agreedAt("not quiet", mac(1), 1, 2)
	w.pass(time.Second)
	if c := w.count(time.Minute); c[plain] != 0 {
		t.Errorf("%d messages in a minute over a quiet link", c[plain])
	}
	n.learn(mac(1))
	n.learn(mac(2))
	w.pass(time.Second)
	w.agreedAt("learned meanwhile", mac(2), 0, plain)
	n.idle[plain] = false
	w.pass(300 * time.Millisecond)
	w.agreed("a frame passes", mac(1), 1)
	w.agreed("learned meanwhile", mac(2), 1)
}

// A gateway whose link is closed hears of an address that was its own and has moved: the link is opened by a question.
func TestMoveWakesGateway(t *testing.T) {
	for _, way := range []string{"closed", "quiet"} {
		w := newWorld(t, 8, rules(1, 2, everybody(2)), 1, 2, plain)
		w.nodes[1].learn(mac(1))
		w.pass(time.Second)
		if way == "closed" {
			w.setDown(1, 2, true)
		} else {
			w.nodes[1].idle[2], w.nodes[2].idle[1] = true, true
			w.pass(6 * time.Minute)
		}
		w.setDown(2, plain, true)
		w.pass(2 * time.Second)
		w.agreedAt(way, mac(1), 0, 2)
		w.nodes[2].learn(mac(1))
		asked := map[policy.Identity]int{}
		w.spied = func(from, to policy.Identity, b []byte) {
			if from == 2 && b[4] == kindAsk {
				asked[to]++
				w.setDown(1, 2, false) // as the transport does when something is sent
			}
		}
		w.pass(500 * time.Millisecond)
		w.agreedAt(way, mac(1), 2, 1)
		w.agreedAt(way, mac(1), 2, 2)
		if asked[plain] != 0 {
			t.Errorf("%s: a link to who is no gateway is opened", way)
		}
	}
}

// More than may be sent at once is sent in turn, and everybody has it in the end.
func TestBurst(t *testing.T) {
	r := rules(1, 1, everybody(1))
	ids := []policy.Identity{1}
	for i := range 32 {
		id := policy.Identity(1000 + i)
		r.Stations[id] = policy.NewStation(ether.MAC{6, 4: byte(i >> 8), 5: byte(0x40 + i)}, nil, false)
		r.Grants[0].Sources = append(r.Grants[0].Sources, id)
		ids = append(ids, id)
	}
	w := newWorld(t, 9, r, ids...)
	for i := range 5000 {
		w.nodes[1].learn(mac(i))
	}
	at, most := time.Time{}, 0
	n := 0
	w.spied = func(from, _ policy.Identity, _ []byte) {
		if from != 1 {
			return
		}
		if at != w.now {
			at, n = w.now, 0
		}
		n++
		most = max(most, n)
	}
	w.pass(time.Second)
	if most > burst+parts(5000) {
		t.Errorf("%d messages at once", most)
	}
	for _, id := range ids[1:] {
		if got := len(w.nodes[id].sw.FDB().Entries(w.now)); got != 5000 {
			t.Errorf("node %d knows %d addresses", id, got)
		}
	}
}

// crowd is a gateway with peers and addresses, and what it sends goes nowhere.
func crowd(gateways, peers, addresses int) (*Herald, *vswitch.Segment, *simulated) {
	r := rules(1, gateways, everybody(gateways))
	for i := range peers {
		id := policy.Identity(1000 + i)
		r.Stations[id] = policy.NewStation(ether.MAC{6, 4: byte(i >> 8), 5: byte(i)}, nil, false)
		r.Grants[0].Sources = append(r.Grants[0].Sources, id)
	}
	w := newWorld(&testing.T{}, 1, r, 1)
	n := w.nodes[1]
	for i := range addresses {
		n.learn(mac(i))
	}
	return n.herald, n.sw, n
}

// A node without gateways pays nothing for a tick.
func TestTicksCostNothing(t *testing.T) {
	for name, n := range map[string]*simulated{
		"no gateways": newWorld(t, 1, rules(1, 0, []policy.Identity{1, plain}), 1).nodes[1],
		"a listener":  newWorld(t, 1, rules(1, 1, everybody(1)), plain).nodes[plain],
	} {
		now := n.w.now
		n.sw.FDB().Learn(mac(1), vswitch.Place{Port: vswitch.NewPort("tap", vswitch.Local, n.id, nil), Who: n.id}, now)
		if allocs := testing.AllocsPerRun(100, func() {
			now = now.Add(Every)
			n.herald.Tick(now)
		}); allocs != 0 {
			t.Errorf("%s: %v allocations in a tick", name, allocs)
		}
	}
	h, _, n := crowd(1, 200, 5000)
	now := n.w.now
	for range 100 {
		now = now.Add(Every)
		h.Tick(now)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		now = now.Add(Every)
		h.Tick(now)
	}); allocs != 0 {
		t.Errorf("a gateway: %v allocations in a tick", allocs)
	}
}

func BenchmarkTick(b *testing.B) {
	for _, c := range []struct {
		name                       string
		gateways, peers, addresses int
		moves                      int // addresses that come or go between two ticks
	}{{"no gateway", 0, 200, 0, 0}, {"still", 1, 200, 5000, 0}, {"10 changes", 1, 200, 5000, 10}} {
		b.Run(c.name, func(b *testing.B) {
			h, sw, n := crowd(c.gateways, c.peers, c.addresses)
			now := n.w.now
			for range 100 {
				now = now.Add(Every)
				h.Tick(now)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				for j := range c.moves {
					if m := mac(100_000 + j); i%2 == 0 {
						n.learn(m)
					} else {
						sw.FDB().Remove(m)
					}
				}
				now = now.Add(Every)
				h.Tick(now)
			}
		})
	}
}

// Ticks and messages come from goroutines of their own.
func TestConcurrently(t *testing.T) {
	w := newWorld(t, 1, rules(1, 2, everybody(2)), 1)
	n := w.nodes[1]
	port, start := n.links[2], w.now
	var group sync.WaitGroup
	group.Go(func() {
		for i := range 200 {
			n.learn(mac(i % 50))
			n.herald.Tick(start.Add(time.Duration(i) * Every))
		}
	})
	for e := range uint64(2) {
		group.Go(func() {
			for i := range 200 {
				now := start.Add(time.Duration(i) * Every)
				n.herald.Hear(port, (&notice{vni: vni, kind: kindAsk}).append(nil), now)
				whole := notice{vni: vni, kind: kindAddresses, full: true, parts: 1, epoch: e, version: uint64(i), entries: list(says(mac(i), lan(2), 1))}
				n.herald.Hear(port, whole.append(nil), now)
			}
		})
	}
	group.Wait()
	if x := n.herald.heard[2]; x == nil || len(x.claims) != 1 {
		t.Errorf("%+v", x)
	}
}

// A gateway that stands by is told although no frame passes: its link is opened, and what it was told stays.
func TestStandbyIsTold(t *testing.T) {
	w := pair(t, 9)
	for _, id := range []policy.Identity{1, 2} {
		w.nodes[id].vlan.SetTogether(false)
		w.nodes[id].shares = nil
	}
	n := w.nodes[3]
	w.setDown(3, 2, true)
	w.setDown(3, plain, true)
	asked := map[policy.Identity][]time.Duration{}
	began := w.now
	w.spied = func(from, to policy.Identity, b []byte) {
		if from == 3 && b[4] == kindAsk {
			asked[to] = append(asked[to], w.now.Sub(began))
		}
	}
	w.pass(10 * time.Second)
	if len(asked) != 0 {
		t.Errorf("asked, although there is nothing to tell: %v", asked)
	}
	n.learn(mac(1))
	w.pass(10 * time.Minute)
	for i, at := range asked[2][1:] {
		if d := at - asked[2][i]; d < min(time.Second<<i, time.Minute) || d > min(time.Second<<(i+1), time.Minute)+time.Second {
			t.Errorf("asked after %v", asked[2])
			break
		}
	}
	if n := len(asked[2]); n < 12 || n > 17 || len(asked[plain]) != 0 {
		t.Errorf("in ten minutes the gateway that stands by is asked %d times, another node %d times", n, len(asked[plain]))
	}
	w.agreedAt("closed", mac(1), 0, 2)

	w.spied = func(from, to policy.Identity, b []byte) {
		if from == 3 && to == 2 && b[4] == kindAsk {
			w.setDown(3, 2, false) // as the transport does when something is sent
		}
	}
	w.pass(time.Minute + 2*time.Second)
	w.agreedAt("opened", mac(1), 3, 2)
	for _, m := range w.nodes {
		for id := range w.nodes {
			m.idle[id] = true
		}
	}
	w.pass(time.Hour)
	w.agreedAt("nothing has passed for an hour", mac(1), 3, 2)
}

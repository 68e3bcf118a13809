package herald

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// The parties of the tests: nodes 1 to 9. Those from 1 on up to a test's number are gateways, each of one VLAN, whose unnamed machines
// are 100 + the node. Node 8 and 9 are none.
const (
	vni      policy.VNI = 77
	plain               = policy.Identity(8)
	stranger            = policy.Identity(9)
)

func lan(node policy.Identity) policy.Identity { return 100 + node }

func mac(n int) ether.MAC { return ether.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

// rules makes nodes up to gateways be gateways; members hold a grant to the segment.
func rules(generation uint64, gateways int, members []policy.Identity, more ...policy.Grant) policy.Rules {
	r := policy.Rules{Generation: generation, Stations: map[policy.Identity]*policy.Station{}}
	for id := policy.Identity(1); id <= stranger; id++ {
		r.Stations[id] = policy.NewStation(ether.MAC{6, 5: byte(id)}, nil, false)
		if id <= policy.Identity(gateways) {
			m := policy.NewMachine(ether.MAC{}, nil)
			m.Gateways, m.Attachments = []policy.Identity{id}, []policy.Identity{lan(id)}
			r.Stations[lan(id)] = m
		}
	}
	r.Grants = append([]policy.Grant{{ID: 1, Sources: members, Segment: true}}, more...)
	return r
}

// everybody is the machines of all gateways, and the plain node.
func everybody(gateways int) []policy.Identity {
	out := []policy.Identity{plain}
	for id := 1; id <= gateways; id++ {
		out = append(out, lan(policy.Identity(id)))
	}
	return out
}

// world is nodes and what is on its way between them. Time is the test's.
type world struct {
	*testing.T
	rand  *rand.Rand
	began time.Time
	now   time.Time
	nodes map[policy.Identity]*simulated
	down  map[[2]policy.Identity]bool // links, by the lower node
	way   []*letter

	loss, twice float64
	delay       func() time.Duration
	spied       func(from, to policy.Identity, message []byte)
	sent, bytes int
	epochs      uint64
}

// letter is a message on its way.
type letter struct {
	from, to policy.Identity
	message  []byte
	due      time.Time
}

// simulated is one node.
type simulated struct {
	w      *world
	id     policy.Identity
	rules  policy.Rules
	sw     *vswitch.Segment
	vlan   *vswitch.Port
	links  map[policy.Identity]*vswitch.Port
	frames map[*vswitch.Port]uint64
	idle   map[policy.Identity]bool // peers to which the link carries no frame
	herald *Herald
	dead   bool
	limits fdb.Limits
	phase  time.Duration
	shares []Carried
	begun  []policy.Identity // peers that have begun to share
}

func newWorld(t *testing.T, seed uint64, r policy.Rules, ids ...policy.Identity) *world {
	t.Helper()
	w := &world{
		T: t, rand: rand.New(rand.NewPCG(seed, 77)), now: time.Now(), began: time.Now(), nodes: map[policy.Identity]*simulated{}, down: map[[2]policy.Identity]bool{},
	}
	w.delay = func() time.Duration { return 10 * time.Millisecond }
	for _, id := range ids {
		n := &simulated{w: w, id: id, rules: r, phase: time.Duration(w.rand.IntN(10)) * 10 * time.Millisecond, limits: fdb.Limits{Moves: -1, PerPort: 1 << 20, Entries: 1 << 20}}
		w.nodes[id] = n
		n.start()
	}
	return w
}

// start makes the node anew, as a process that has just begun.
func (n *simulated) start() {
	n.sw = vswitch.NewSegment(vni, n.id, 1500, n.limits)
	n.links, n.frames, n.idle = map[policy.Identity]*vswitch.Port{}, map[*vswitch.Port]uint64{}, map[policy.Identity]bool{}
	n.dead = false
	n.herald = New(Config{
		VNI: vni, Self: n.id, Table: n.sw.FDB(), Policy: n.sw.Policy, Links: n, Most: n.most(), Quiet: 5 * time.Minute,
		Epoch:  func() uint64 { n.w.epochs++; return n.w.rand.Uint64() },
		Groups: n.sw, Together: func() []Carried { return n.shares },
		Fellow: func(peer *vswitch.Port, _ policy.Identity) { n.begun = append(n.begun, peer.Identity) },
	})
	n.vlan = vswitch.NewPort("lan", vswitch.Attached, lan(n.id), nil)
	n.sw.AddPort(n.vlan)
	n.obey(n.rules)
}

func (n *simulated) most() int {
	if n.limits.Entries > 1<<16 {
		return 10_000
	}
	return n.limits.Entries
}

// obey takes a policy, as a node applies one: first the policy, then the links.
func (n *simulated) obey(r policy.Rules) {
	r.Self = n.id
	n.rules = r
	v := policy.Compile(r)
	n.sw.SetPolicy(v, n.w.now)
	next := map[policy.Identity]*vswitch.Port{}
	for _, id := range v.Links(n.id, n.w.now) {
		if next[id] = n.links[id]; next[id] == nil {
			next[id] = vswitch.NewPort(fmt.Sprint(id), vswitch.Link, id, nil)
			n.sw.AddPort(next[id])
		}
	}
	for id, port := range n.links {
		if next[id] == nil {
			n.sw.RemovePort(port)
		}
	}
	n.links = next
}

func (n *simulated) Ports() map[policy.Identity]*vswitch.Port { return n.links }

func (n *simulated) Live(port *vswitch.Port) bool {
	return !n.w.down[[2]policy.Identity{min(n.id, port.Identity), max(n.id, port.Identity)}]
}

func (n *simulated) Frames(port *vswitch.Port) uint64 {
	if !n.idle[port.Identity] {
		n.frames[port]++ // there is always something
	}
	return n.frames[port]
}

// learn has a frame of a machine come from the node's VLAN.
func (n *simulated) learn(m ether.MAC) { n.sw.FDB().Learn(m, placeOf(n, lan(n.id)), n.w.now) }

func placeOf(n *simulated, who policy.Identity) vswitch.Place {
	return vswitch.Place{Port: n.vlan, Who: who}
}

func (n *simulated) lose(m ether.MAC) {
	n.sw.FDB().Flush(func(e fdb.Entry[vswitch.Place]) bool { return e.MAC == m && e.Port.Port == n.vlan }, n.w.now)
}

// where says behind which node a node believes an address to be; 0 if it does not know.
func (n *simulated) where(m ether.MAC) policy.Identity {
	at, ok := n.sw.FDB().Lookup(m, n.w.now)
	switch {
	case !ok:
		return 0
	case at.Port == n.vlan:
		return n.id
	}
	return at.Port.Identity
}

// step is 10 ms.
func (w *world) step() {
	w.now = w.now.Add(10 * time.Millisecond)
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[id]
		if n.dead || w.now.Sub(w.began)/(10*time.Millisecond)%10 != n.phase/(10*time.Millisecond) {
			continue
		}
		for _, m := range n.herald.Tick(w.now) {
			w.post(id, m.To.Identity, m.Bytes)
		}
	}
	due := w.way
	w.way = nil
	for _, l := range due {
		if l.due.After(w.now) {
			w.way = append(w.way, l)
			continue
		}
		if n := w.nodes[l.to]; n != nil && !n.dead && n.links[l.from] != nil {
			n.herald.Hear(n.links[l.from], l.message, w.now)
		}
	}
}

// post sends a message on its way, by the world's luck.
func (w *world) post(from, to policy.Identity, message []byte) {
	w.sent++
	w.bytes += len(message)
	if w.spied != nil {
		w.spied(from, to, message)
	}
	if w.down[[2]policy.Identity{min(from, to), max(from, to)}] {
		return
	}
	for range 2 {
		if w.rand.Float64() >= w.loss {
			w.way = append(w.way, &letter{from, to, slices.Clone(message), w.now.Add(w.delay())})
		}
		if w.rand.Float64() >= w.twice {
			return
		}
	}
}

func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.step()
	}
}

func (w *world) setDown(a, b policy.Identity, down bool) {
	w.down[[2]policy.Identity{min(a, b), max(a, b)}] = down
}

// agreed fails unless all living nodes believe an address to be behind one node.
func (w *world) agreed(what string, m ether.MAC, want policy.Identity) {
	w.Helper()
	for id, n := range w.nodes {
		if got := n.where(m); !n.dead && got != want {
			w.Errorf("%s: node %d believes %s to be behind node %d, want %d", what, id, m, got, want)
		}
	}
}

// stormy makes the world lose, double and reorder.
func (w *world) stormy() {
	w.loss, w.twice = 0.2, 0.2
	w.delay = func() time.Duration { return time.Duration(w.rand.IntN(80)) * time.Millisecond }
}

func (w *world) calm() {
	w.loss, w.twice = 0, 0
	w.delay = func() time.Duration { return 10 * time.Millisecond }
}

// A machine that moves is found at its new place by all within half a second, and one that is gone is gone.
func TestMove(t *testing.T) {
	w := newWorld(t, 1, rules(1, 3, everybody(3)), 1, 2, 3, plain)
	w.nodes[1].learn(mac(1))
	w.pass(500 * time.Millisecond)
	w.agreed("first", mac(1), 1)
	for i := range 6 {
		id := policy.Identity(1 + (i+1)%3)
		w.nodes[id].learn(mac(1))
		w.pass(500 * time.Millisecond)
		w.agreed(fmt.Sprint("move ", i), mac(1), id)
	}
	w.nodes[1].lose(mac(1))
	w.pass(500 * time.Millisecond)
	w.agreed("gone", mac(1), 0)
}

// G08: of nodes that announce one address with equal numbers, all agree on the lowest.
func TestEqualClaimsG08(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t, seed, rules(1, 5, everybody(5)), 1, 2, 3, 4, 5, plain)
		for _, id := range []policy.Identity{4, 2, 3} {
			w.nodes[id].learn(mac(1))
		}
		w.pass(time.Second)
		w.agreed(fmt.Sprint("seed ", seed), mac(1), 2)
	}
}

// Whatever moves, dies, is cut and restarts, with messages that are lost, doubled and out of order: within a second after the last
// change all agree, if messages get through from then on.
func TestAgreement(t *testing.T) {
	for seed := range uint64(300) {
		w := newWorld(t, seed, rules(1, 4, everybody(4)), 1, 2, 3, 4, plain)
		w.stormy()
		for range 300 {
			n, m := w.nodes[policy.Identity(1+w.rand.IntN(4))], mac(w.rand.IntN(6))
			switch w.rand.IntN(12) {
			case 0, 1, 2:
				n.learn(m)
			case 3:
				n.lose(m)
			case 4:
				w.setDown(n.id, policy.Identity(1+w.rand.IntN(4)), w.rand.IntN(2) == 0)
			case 5:
				if w.rand.IntN(4) == 0 {
					n.start()
				}
			}
			w.pass(time.Duration(w.rand.IntN(3)*20) * time.Millisecond)
		}
		w.calm()
		clear(w.down)
		w.pass(time.Second)
		for a := range 6 {
			owner := w.nodes[plain].where(mac(a))
			w.agreed(fmt.Sprintf("seed %d", seed), mac(a), owner)
			if owner != 0 && w.nodes[owner].where(mac(a)) != owner {
				t.Errorf("seed %d: %s is nobody's", seed, mac(a))
			}
		}
		if t.Failed() {
			return
		}
	}
}

// Of a list of many parts, some are always lost: those that come make one list with those that came before.
func TestLongListUnderLoss(t *testing.T) {
	w := newWorld(t, 3, rules(1, 2, everybody(2)), 1, 2, plain)
	w.loss = 0.3
	w.delay = func() time.Duration { return time.Duration(w.rand.IntN(50)) * time.Millisecond }
	for i := range 5000 {
		w.nodes[1].learn(mac(i))
	}
	w.pass(5 * time.Second)
	for _, id := range []policy.Identity{2, plain} {
		x := w.nodes[id].herald.heard[1]
		if x == nil || !x.known || len(x.claims) != 5000 {
			t.Fatalf("node %d: %+v", id, x)
		}
		if n := len(w.nodes[id].sw.FDB().Entries(w.now)); n != 5000 {
			t.Errorf("node %d knows %d addresses", id, n)
		}
	}
}

// G11: five thousand addresses behind a gateway that dies are withdrawn within a second, by no message at all.
func TestDeadGatewayG11(t *testing.T) {
	w := newWorld(t, 4, rules(1, 2, everybody(2)), 1, 2, plain)
	for i := range 5000 {
		w.nodes[1].learn(mac(i))
	}
	w.nodes[2].learn(mac(6000))
	w.pass(time.Second)
	if n := len(w.nodes[plain].sw.FDB().Entries(w.now)); n != 5001 {
		t.Fatalf("node %d knows %d addresses", plain, n)
	}
	for _, id := range []policy.Identity{2, plain} { // which its administrator has pinned there: that stays
		n := w.nodes[id]
		n.sw.FDB().AddStatic(mac(7000), vswitch.Place{Port: n.links[1], Who: lan(1)})
	}
	w.sent = 0
	w.nodes[1].dead = true
	w.pass(time.Second)
	for _, id := range []policy.Identity{2, plain} {
		if n := len(w.nodes[id].sw.FDB().Entries(w.now)); n != 2 {
			t.Errorf("a second later, node %d knows %d addresses", id, n)
		}
	}
	if w.sent > 10 {
		t.Errorf("%d messages", w.sent)
	}
	w.agreed("another's", mac(6000), 2)
}

// The same at once, while the gateway lives: one message to each, for the list is empty.
func TestEmptiedVLAN(t *testing.T) {
	w := newWorld(t, 5, rules(1, 2, everybody(2)), 1, 2, plain)
	for i := range 5000 {
		w.nodes[1].learn(mac(i))
	}
	w.pass(time.Second)
	w.sent = 0
	w.nodes[1].sw.RemovePort(w.nodes[1].vlan)
	w.pass(300 * time.Millisecond)
	for _, id := range []policy.Identity{2, plain} {
		if n := len(w.nodes[id].sw.FDB().Entries(w.now)); n != 0 {
			t.Errorf("node %d knows %d addresses", id, n)
		}
	}
	if w.sent > 6 {
		t.Errorf("%d messages", w.sent)
	}
	w.pass(time.Second)
	w.sent = 0
	w.pass(5 * time.Second)
	if w.sent != 0 {
		t.Errorf("then %d messages more, though nobody knows of any address", w.sent)
	}
}

// A gateway that starts again has other numbers; what it had and has not seen yet is gone at once, and so is nothing else.
func TestRestart(t *testing.T) {
	w := newWorld(t, 6, rules(1, 2, everybody(2)), 1, 2, plain)
	w.nodes[1].learn(mac(1))
	w.nodes[1].learn(mac(2))
	w.pass(500 * time.Millisecond)
	w.nodes[1].start()
	w.nodes[1].learn(mac(2))
	w.pass(time.Second)
	w.agreed("not seen again", mac(1), 0)
	w.agreed("seen again", mac(2), 1)
	w.nodes[plain].start()
	w.pass(500 * time.Millisecond)
	w.agreed("who listens starts again", mac(2), 1)
}

// A link that is cut takes the addresses with it, and brings them back.
func TestLinkDownAndUp(t *testing.T) {
	w := newWorld(t, 7, rules(1, 2, everybody(2)), 1, 2, plain)
	w.nodes[1].learn(mac(1))
	w.pass(500 * time.Millisecond)
	w.setDown(1, plain, true)
	w.pass(time.Second)
	if at := w.nodes[plain].where(mac(1)); at != 0 {
		t.Errorf("behind node %d", at)
	}
	w.nodes[1].learn(mac(2))
	w.setDown(1, plain, false)
	w.pass(300 * time.Millisecond)
	w.agreed("again", mac(1), 1)
	w.agreed("learned meanwhile", mac(2), 1)
}

// A node that stands still for a while, as a virtual machine may, does not take others for dead.
func TestStandstill(t *testing.T) {
	w := newWorld(t, 8, rules(1, 1, everybody(1)), 1, plain)
	w.nodes[1].learn(mac(1))
	w.pass(500 * time.Millisecond)
	w.now = w.now.Add(time.Minute) // nobody had the time
	w.nodes[plain].herald.Tick(w.now)
	w.agreed("afterwards", mac(1), 1)
	w.pass(2 * time.Second)
	w.agreed("later", mac(1), 1)
	w.nodes[1].dead = true
	w.pass(time.Second)
	w.agreed("dead", mac(1), 0)
}

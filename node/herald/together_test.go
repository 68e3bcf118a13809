package herald

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// pairRules makes nodes 1 and 2 be gateways of one VLAN, whose unnamed machines are 101, and 3 of another.
func pairRules(generation uint64) policy.Rules {
	r := rules(generation, 3, []policy.Identity{plain, lan(1), lan(3)})
	delete(r.Stations, lan(2))
	r.Stations[lan(1)].Gateways = []policy.Identity{1, 2}
	return r
}

// pair is a world in which nodes 1 and 2 carry their VLAN at once.
func pair(t *testing.T, seed uint64) *world {
	t.Helper()
	w := newWorld(t, seed, pairRules(1), 1, 2, 3, plain)
	n := w.nodes[2]
	n.sw.RemovePort(n.vlan)
	n.vlan = vswitch.NewPort("lan", vswitch.Attached, lan(1), nil)
	n.sw.AddPort(n.vlan)
	for _, id := range []policy.Identity{1, 2} {
		w.nodes[id].share(false)
	}
	w.pass(500 * time.Millisecond)
	return w
}

func (n *simulated) share(joins bool) {
	n.vlan.SetTogether(true)
	n.shares = []Carried{{Port: n.vlan, Joins: joins}}
}

// saw has a frame of a machine on the shared VLAN come in.
func (n *simulated) saw(m ether.MAC) {
	n.sw.FDB().Learn(m, placeOf(n, lan(1)), n.w.now)
}

// ways are the gateways of the shared VLAN as a node knows them.
func (n *simulated) ways() (out []policy.Identity) {
	if g := n.sw.Group(lan(1)); g != nil {
		for _, w := range g.Ways() {
			out = append(out, w.Node)
		}
	}
	return out
}

// shared fails unless a machine is on the shared VLAN for all: at their own port for its gateways, by either for others.
func (w *world) shared(what string, m ether.MAC) {
	w.Helper()
	w.placed(what, m)
	for id, n := range w.nodes {
		for _, e := range n.sw.FDB().Entries(w.now) {
			if e.MAC == m && e.Moves != 0 && !n.dead {
				w.Errorf("%s: node %d: it has moved %d times", what, id, e.Moves)
			}
		}
	}
}

// placed is the same, whether it has moved or not.
func (w *world) placed(what string, m ether.MAC) {
	w.Helper()
	for id, n := range w.nodes {
		if n.dead {
			continue
		}
		at, ok := n.sw.FDB().Lookup(m, w.now)
		want := n.vlan
		if id == 3 || id == plain {
			want = n.sw.Group(lan(1)).Bundle()
		}
		if !ok || at.Port != want {
			w.Errorf("%s: node %d: %s is at %+v", what, id, m, at)
		}
	}
}

func (w *world) wantWays(what string, want ...policy.Identity) {
	w.Helper()
	for id, n := range w.nodes {
		if got := n.ways(); !n.dead && !slices.Equal(got, want) {
			w.Errorf("%s: node %d knows the gateways %v, want %v", what, id, got, want)
		}
	}
}

// What one gateway of a shared VLAN sees is there for both, and for all others by either; seen by both it has not moved, and it is gone when
// neither sees it any more.
func TestShared(t *testing.T) {
	w := pair(t, 21)
	w.wantWays("at first", 1, 2)
	w.nodes[1].saw(mac(1))
	w.pass(500 * time.Millisecond)
	w.shared("seen by one", mac(1))
	for range 20 {
		w.nodes[2].saw(mac(1))
		w.nodes[1].saw(mac(1))
		w.pass(100 * time.Millisecond)
	}
	w.shared("seen by both", mac(1))
	w.nodes[1].lose(mac(1))
	w.pass(500 * time.Millisecond)
	w.shared("forgotten by one", mac(1))
	w.nodes[2].lose(mac(1))
	w.pass(500 * time.Millisecond)
	w.agreed("forgotten by both", mac(1), 0)
	if !slices.Contains(w.nodes[1].begun, 2) || !slices.Contains(w.nodes[2].begun, 1) || len(w.nodes[3].begun)+len(w.nodes[plain].begun) != 0 {
		t.Errorf("begun: %v, %v, %v", w.nodes[1].begun, w.nodes[2].begun, w.nodes[3].begun)
	}
}

// A machine that moves to another VLAN is found there by all, and back.
func TestSharedMove(t *testing.T) {
	w := pair(t, 22)
	m := mac(1)
	for i := range 3 {
		w.nodes[1].saw(m)
		w.pass(300 * time.Millisecond)
		w.nodes[2].saw(m)
		w.pass(300 * time.Millisecond)
		for id, n := range w.nodes {
			if at, ok := n.sw.FDB().Lookup(m, w.now); !ok || at.Who != lan(1) {
				t.Errorf("round %d: node %d has it at %+v", i, id, at)
			}
		}
		w.nodes[3].learn(m)
		w.pass(500 * time.Millisecond)
		w.agreed(fmt.Sprint("moved, round ", i), m, 3)
	}
}

// When one gateway dies, all that both have seen stays, by the other; what it alone has seen is gone within a second.
func TestSharedDeath(t *testing.T) {
	w := pair(t, 23)
	w.nodes[1].saw(mac(1))
	w.nodes[2].saw(mac(1))
	w.nodes[1].saw(mac(2))
	w.pass(500 * time.Millisecond)
	w.nodes[1].dead = true
	w.pass(time.Second)
	w.wantWays("one is dead", 2)
	w.shared("seen by both", mac(1))
	w.agreed("seen by the dead one alone", mac(2), 0)
	w.nodes[1].dead = false
	w.pass(time.Second)
	w.wantWays("it is back", 1, 2)
	w.shared("all is as it was", mac(1))
}

// One that joins is no way yet, nor is one that stops; what is there stays there for the others.
func TestSharedJoinAndStop(t *testing.T) {
	w := pair(t, 24)
	w.nodes[1].saw(mac(1))
	w.pass(500 * time.Millisecond)
	n := w.nodes[2]
	n.share(true)
	w.pass(300 * time.Millisecond)
	w.wantWays("it joins", 1)
	w.shared("while one joins", mac(1))
	n.vlan.SetTogether(false)
	n.shares = nil
	w.pass(300 * time.Millisecond)
	w.wantWays("it has stopped", 1)
	if at, ok := n.sw.FDB().Lookup(mac(1), w.now); !ok || at.Port != n.sw.Group(lan(1)).Bundle() {
		t.Errorf("who shares it no more has it at %+v", at)
	}
	w.sent = 0
	w.nodes[1].dead = true
	w.pass(2 * time.Second)
	w.wantWays("nobody is left")
	w.sent = 0
	w.pass(5 * time.Second)
	if w.sent > 0 {
		t.Errorf("%d messages, though there is nothing to tell", w.sent)
	}
}

// Of equal claims all agree on the same, though each gateway of a shared VLAN stands for both.
func TestSharedEqualClaims(t *testing.T) {
	for seed := range uint64(20) {
		w := pair(t, seed)
		w.nodes[2].saw(mac(1))
		w.nodes[3].learn(mac(1))
		w.nodes[1].saw(mac(1))
		w.pass(2 * time.Second)
		w.placed(fmt.Sprint("seed ", seed), mac(1))
	}
}

// Whatever is lost, doubled and late, and whoever dies: in the end all agree who carries the VLAN, and where machines are.
func TestSharedAgreement(t *testing.T) {
	for seed := range uint64(60) {
		w := pair(t, seed)
		w.stormy()
		for range 100 {
			n := w.nodes[policy.Identity(1+w.rand.IntN(2))]
			switch w.rand.IntN(8) {
			case 0, 1, 2:
				n.saw(mac(w.rand.IntN(4)))
			case 3:
				n.lose(mac(w.rand.IntN(4)))
			case 4:
				w.setDown(n.id, policy.Identity(1+w.rand.IntN(3)), w.rand.IntN(2) == 0)
			case 5:
				n.share(w.rand.IntN(2) == 0)
			case 6:
				n.dead = w.rand.IntN(4) == 0
			}
			w.pass(time.Duration(w.rand.IntN(3)*20) * time.Millisecond)
		}
		w.calm()
		clear(w.down)
		for _, id := range []policy.Identity{1, 2} {
			w.nodes[id].dead = false
			w.nodes[id].share(false)
		}
		w.pass(1500 * time.Millisecond)
		w.wantWays(fmt.Sprint("seed ", seed), 1, 2)
		for i := range 4 {
			known := 0
			for _, n := range w.nodes {
				if at, ok := n.sw.FDB().Lookup(mac(i), w.now); ok {
					known++
					if own := n.vlan; n.id <= 2 && at.Port != own || n.id > 2 && at.Port != n.sw.Group(lan(1)).Bundle() {
						t.Errorf("seed %d: node %d has %s at %q", seed, n.id, mac(i), at.Port.Name)
					}
				}
			}
			if known != 0 && known != len(w.nodes) {
				t.Errorf("seed %d: %d of %d nodes know of %s", seed, known, len(w.nodes), mac(i))
			}
		}
		if t.Failed() {
			return
		}
	}
}

// What a node says that it carries is believed if it is a gateway there, as long as it says so, and never what it said before.
func TestCarriesLies(t *testing.T) {
	w := newWorld(t, 25, pairRules(1), 1, 2, 3, plain)
	n := w.nodes[plain]
	say := func(from policy.Identity, epoch, version uint64, carried ...policy.Identity) {
		b := notice{vni: vni, kind: kindCarries, parts: 1, epoch: epoch, version: version}
		for _, a := range carried {
			e := entry{claim: claim{who: a}}
			b.entries = e.append(b.entries)
		}
		n.herald.Hear(n.links[from], b.append(nil), w.now)
	}
	check := func(what string, want ...policy.Identity) {
		t.Helper()
		n.herald.Tick(w.now)
		if got := n.ways(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	for _, id := range []policy.Identity{1, 2, 3} { // they say nothing by themselves
		w.nodes[id].dead = true
	}
	say(1, 5, 7, lan(1))
	check("a gateway", 1)
	say(3, 5, 7, lan(1))
	check("a gateway of another VLAN", 1)
	say(1, 5, 6)
	check("what was said before", 1)
	say(1, 5, 8)
	check("that it has ended")
	say(1, 6, 1, lan(1))
	check("a new run", 1)
	w.now = w.now.Add(lostAfter)
	check("silence")
	if g := n.sw.Group(lan(3)); g != nil {
		t.Errorf("of a VLAN of which nobody has said so: %v", g.Ways())
	}
	// A host may be behind this VLAN and that of node 3, which so may speak for the host, and for nobody else here.
	roaming := pairRules(2)
	host := policy.NewMachine(mac(500), nil)
	host.Gateways, host.Attachments = []policy.Identity{1, 2, 3}, []policy.Identity{lan(1), lan(3)}
	roaming.Stations[named] = host
	n.sw.SetPolicy(policy.Compile(roaming), w.now)
	say(1, 8, 1, lan(1))
	say(3, 6, 1, lan(1))
	check("a gateway that shares a host with it", 1)
	say(3, 6, 2, lan(3))
	check("of its own VLAN", 1)
	if g := n.sw.Group(lan(3)); g == nil || len(g.Ways()) != 1 || g.Ways()[0].Node != 3 {
		t.Errorf("of its own it is not believed: %+v", g)
	}
	many := make([]policy.Identity, maxEntries+10)
	for i := range many {
		many[i] = policy.Identity(1000 + i)
	}
	say(1, 9, 1, many...)
	if got := len(n.herald.heard[1].carries.list); got > maxEntries {
		t.Errorf("%d are remembered", got)
	}
}

// An address that a gateway announces alone, of a machine that may be on two VLANs, is behind that gateway and not behind both.
func TestUnsharedClaim(t *testing.T) {
	w := pair(t, 26)
	n := w.nodes[1]
	alone := vswitch.NewPort("alone", vswitch.Attached, lan(1), nil)
	n.sw.AddPort(alone)
	n.sw.FDB().Learn(mac(1), vswitch.Place{Port: alone, Who: lan(1)}, w.now)
	w.pass(500 * time.Millisecond)
	at, ok := w.nodes[plain].sw.FDB().Lookup(mac(1), w.now)
	if !ok || at.Port != w.nodes[plain].links[1] {
		t.Errorf("it is at %+v", at)
	}
	if e := w.nodes[plain].sw.FDB().Entries(w.now); len(e) != 1 || e[0].Kind != fdb.Announced {
		t.Errorf("%+v", e)
	}
}

// Who has nothing to do with a VLAN hears nothing of who carries it, though it hears of another one of the same gateway.
func TestCarriesIsNoBusinessOfOthers(t *testing.T) {
	r := pairRules(1)
	other := policy.Identity(150) // on another VLAN of node 1
	m := policy.NewMachine(ether.MAC{}, nil)
	m.Gateways, m.Attachments = []policy.Identity{1}, []policy.Identity{other}
	r.Stations[other] = m
	r.Grants = append(r.Grants, policy.Grant{ID: 2, Sources: []policy.Identity{stranger}, Targets: []policy.Identity{other}})
	w := newWorld(t, 27, r, 1, 2, plain, stranger)
	told := map[policy.Identity]map[byte]int{plain: {}, stranger: {}}
	w.spied = func(_, to policy.Identity, b []byte) {
		if n, ok := parseNotice(b); ok && told[to] != nil {
			told[to][n.kind]++
		}
	}
	n := w.nodes[1]
	lab := vswitch.NewPort("lab", vswitch.Attached, other, nil)
	n.sw.AddPort(lab)
	n.sw.FDB().Learn(mac(9), vswitch.Place{Port: lab, Who: other}, w.now)
	for i := range 6 {
		n.share(i%2 == 0)
		w.pass(300 * time.Millisecond)
	}
	n.shares = nil
	w.pass(2 * time.Second)
	if told[stranger][kindCarries] != 0 || told[stranger][kindAddresses] == 0 {
		t.Errorf("the stranger was told %v", told[stranger])
	}
	if told[plain][kindCarries] < 8 || told[plain][kindAddresses] != 0 {
		t.Errorf("who is concerned was told %v", told[plain])
	}
}

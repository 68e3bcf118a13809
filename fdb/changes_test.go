package fdb

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Who asks for changes is told each once, in order, and what is ours alone.
func TestChanges(t *testing.T) {
	tab, now := newAnnounced(Limits{Moves: -1}), time.Now()
	var mark uint64
	check := func(what string, all bool, want ...Change[int]) {
		t.Helper()
		list, next, gotAll := tab.Changes(mark)
		if !slices.Equal(list, want) || gotAll != all {
			t.Errorf("%s: %+v, all %t; want %+v", what, list, gotAll, want)
		}
		mark = next
	}
	check("empty", true)
	tab.Learn(mac(1), 1, now)
	tab.Learn(mac(2), 1, now)
	check("the first time", true, Change[int]{MAC: mac(1), Port: 1}, Change[int]{MAC: mac(2), Port: 1})
	check("nothing since", false)
	tab.Learn(mac(1), 1, now.Add(1))
	tab.Learn(mac(7), 11, now)
	tab.Announce(mac(8), 11, 0, now, lower)
	tab.Retract(mac(8), 11)
	check("younger, and others'", false)
	for i := range 4 {
		tab.Learn(mac(2), 2-i%2, now)
	}
	tab.Learn(mac(3), 1, now)
	check("what moves often is told once", false, Change[int]{MAC: mac(2), Port: 1, Seq: 4}, Change[int]{MAC: mac(3), Port: 1})
	tab.Announce(mac(2), 11, 9, now, lower)
	tab.Remove(mac(3))
	tab.AddStatic(mac(4), 2)
	check("gone", false, Change[int]{MAC: mac(2), Gone: true}, Change[int]{MAC: mac(3), Gone: true}, Change[int]{MAC: mac(4), Port: 2})
	tab.Remove(mac(4))
	tab.Learn(mac(4), 1, now)
	check("gone and back", false, Change[int]{MAC: mac(4), Port: 1})
	mark = 1 << 40
	check("another table's mark", true, Change[int]{MAC: mac(1), Port: 1}, Change[int]{MAC: mac(4), Port: 1})
}

// More are gone than is remembered: that is said, and no room is taken for it.
func TestTooManyChanges(t *testing.T) {
	tab, now := newAnnounced(Limits{}), time.Now()
	tab.Learn(mac(0), 1, now)
	_, mark, _ := tab.Changes(0)
	for i := range graveyard {
		tab.Learn(mac(1+i), 1, now)
		tab.Remove(mac(1 + i))
	}
	if list, _, all := tab.Changes(mark); all || len(list) != graveyard {
		t.Errorf("as many as are remembered: %d, all %t", len(list), all)
	}
	tab.Learn(mac(5000), 1, now)
	tab.Remove(mac(5000))
	list, mark, all := tab.Changes(mark)
	if !all || len(list) != 1 || list[0].MAC != mac(0) {
		t.Errorf("one more: %+v, all %t", list, all)
	}
	for i := range 100_000 {
		tab.Learn(mac(1+i), 1, now)
		tab.Remove(mac(1 + i))
	}
	if cap(tab.log.gone) > 2*graveyard {
		t.Errorf("room for %d that are gone", cap(tab.log.gone))
	}
	tab.Learn(mac(1), 1, now)
	_, mark, _ = tab.Changes(mark)
	tab.Remove(mac(1))
	if list, _, all := tab.Changes(mark); all || len(list) != 1 || !list[0].Gone {
		t.Errorf("afterwards: %+v, all %t", list, all)
	}
}

// mesh is nodes that tell each other of their addresses. What one says is heard by each in order, but by each in its own time.
// A node's place 1 is its own in its table, and 10+n is node n.
type mesh struct {
	nodes []*meshNode
	now   time.Time
}

type meshNode struct {
	tab   *Table[int]
	mark  uint64
	told  map[ether.MAC]bool // what the others were told is here
	inbox map[int][]word     // by who says it
}

type word struct {
	mac  ether.MAC
	gone bool
	seq  uint32
}

func newMesh(n int, l Limits) *mesh {
	m := &mesh{now: time.Now()}
	for range n {
		m.nodes = append(m.nodes, &meshNode{tab: newAnnounced(l), told: map[ether.MAC]bool{}, inbox: map[int][]word{}})
	}
	return m
}

// tell has a node tell all others what has changed.
func (m *mesh) tell(i int) {
	n := m.nodes[i]
	list, next, all := n.tab.Changes(n.mark)
	n.mark = next
	var words []word
	if all {
		left := maps.Clone(n.told)
		for _, c := range list {
			delete(left, c.MAC)
		}
		for mac := range left {
			list = append(list, Change[int]{MAC: mac, Gone: true})
		}
	}
	for _, c := range list {
		if c.Gone {
			delete(n.told, c.MAC)
		} else {
			n.told[c.MAC] = true
		}
		words = append(words, word{c.MAC, c.Gone, c.Seq})
	}
	for j, other := range m.nodes {
		if j != i {
			other.inbox[i] = append(other.inbox[i], words...)
		}
	}
}

// hear has node i hear one word of node j, if there is one.
func (m *mesh) hear(i, j int) bool {
	n := m.nodes[i]
	if len(n.inbox[j]) == 0 {
		return false
	}
	w := n.inbox[j][0]
	n.inbox[j] = n.inbox[j][1:]
	if w.gone {
		n.tab.Retract(w.mac, 10+j)
		return true
	}
	n.tab.Announce(w.mac, 10+j, w.seq, m.now, func(a, b int) bool { return m.node(i, a) < m.node(i, b) })
	return true
}

// node is which node a place of node i stands for.
func (m *mesh) node(i, place int) int {
	if place < 10 {
		return i
	}
	return place - 10
}

// settle goes on until nobody has anything to say.
func (m *mesh) settle() {
	for busy := true; busy; {
		busy = false
		for i := range m.nodes {
			m.tell(i)
		}
		for i := range m.nodes {
			for j := range m.nodes {
				for m.hear(i, j) {
					busy = true
				}
			}
		}
	}
}

// owners says where each node believes an address to be.
func (m *mesh) owners(mac ether.MAC) []int {
	var out []int
	for i, n := range m.nodes {
		owner := -1
		if place, ok := n.tab.Lookup(mac, m.now); ok {
			owner = m.node(i, place)
		}
		out = append(out, owner)
	}
	return out
}

// G08: of nodes that announce an address with equal numbers, all five agree on the lowest.
func TestEqualAnnouncements(t *testing.T) {
	for seed := range uint64(100) {
		r, m := rand.New(rand.NewPCG(seed, 8)), newMesh(5, Limits{})
		for _, i := range []int{4, 2, 3} {
			m.nodes[i].tab.Learn(mac(1), 1, m.now)
			m.tell(i)
		}
		for range 200 {
			m.hear(r.IntN(5), r.IntN(5))
			m.tell(r.IntN(5))
		}
		m.settle()
		if got := m.owners(mac(1)); !slices.Equal(got, []int{2, 2, 2, 2, 2}) {
			t.Errorf("seed %d: owners are %v", seed, got)
		}
	}
}

// Two nodes and an address that goes from one to the other: at each step, both know where it is.
func TestTwoTablesConverge(t *testing.T) {
	m := newMesh(2, Limits{Moves: -1})
	for i := range 20 {
		m.nodes[i%2].tab.Learn(mac(1), 1, m.now)
		m.settle()
		if got := m.owners(mac(1)); !slices.Equal(got, []int{i % 2, i % 2}) {
			t.Errorf("step %d: owners are %v", i, got)
		}
	}
	if e := m.nodes[0].tab.Entries(m.now); e[0].Seq != 19 {
		t.Errorf("after 19 moves: %+v", e)
	}
	m.nodes[1].tab.Remove(mac(1))
	m.settle()
	if got := m.owners(mac(1)); !slices.Equal(got, []int{-1, -1}) {
		t.Errorf("when it is gone: owners are %v", got)
	}
}

// An address in two places at once makes no storm of announcements: it is frozen, and all agree where.
func TestDuplicateAmongNodes(t *testing.T) {
	m := newMesh(5, Limits{})
	words := 0
	for i := range 1000 {
		m.nodes[3-i%2].tab.Learn(mac(1), 1, m.now)
		for j := range m.nodes {
			m.tell(j)
		}
		for _, inbox := range m.nodes[0].inbox {
			words += len(inbox)
		}
		m.settle()
	}
	if words > 20 {
		t.Errorf("node 0 was told %d times", words)
	}
	if got := m.owners(mac(1)); !slices.Equal(got, []int{3, 3, 3, 3, 3}) {
		t.Errorf("owners are %v", got)
	}
}

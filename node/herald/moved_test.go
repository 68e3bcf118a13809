package herald

import (
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// The gateway is told of an address that was on its own VLAN and is behind another now, and of no other: the VLAN's switches have
// to hear of that one alone.
func TestMovedAway(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []policy.Identity // who learns the address, in turn
		want  bool              // whether node 1 is told in the last step
	}{
		{"nowhere before", []policy.Identity{2}, false},
		{"here before", []policy.Identity{1, 2}, true},
		{"from one to another", []policy.Identity{2, 3}, false},
		{"here, and it comes", []policy.Identity{2, 1}, false},
		{"here long before", []policy.Identity{1, 2, 3}, false},
		{"here again and again", []policy.Identity{1, 2, 1, 3}, true},
	} {
		w := newWorld(t, 9, rules(1, 3, everybody(3)), 1, 2, 3)
		var told []string
		w.nodes[1].herald.cfg.Moved = func(m ether.MAC, from vswitch.Place) {
			if from != placeOf(w.nodes[1], lan(1)) {
				t.Errorf("%s: told of %v, from %+v", c.name, m, from)
			}
			told = append(told, m.String())
		}
		for _, id := range c.steps {
			told = nil
			w.nodes[id].learn(mac(1))
			w.pass(time.Second)
		}
		var want []string
		if c.want {
			want = []string{mac(1).String()}
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: told of %q, want %q", c.name, told, want)
		}
	}
}

// A claim that loses moves nothing, so nobody is told of it.
func TestLosingClaimIsNoMove(t *testing.T) {
	w := newWorld(t, 9, rules(1, 3, everybody(3)), 2, 3)
	for _, id := range []policy.Identity{2, 3, 2} {
		w.nodes[id].learn(mac(1))
		w.pass(time.Second)
	}
	w.nodes[2].herald.cfg.Moved = func(m ether.MAC, from vswitch.Place) { t.Errorf("told of %v, from %+v", m, from) }
	l := &liar{n: w.nodes[2], epoch: 1}
	l.whole(says(mac(1), lan(1), 0))
	if at := l.n.where(mac(1)); at != 2 {
		t.Errorf("behind node %d", at)
	}
}

// What is no station's address takes no room.
func TestGroupsTakeNoRoom(t *testing.T) {
	w := newWorld(t, 9, rules(1, 2, everybody(2)), 2)
	l := &liar{n: w.nodes[2], epoch: 1}
	l.whole(says(ether.Broadcast, lan(1), 1), says(ether.MAC{1, 0, 0x5e}, lan(1), 1), says(ether.MAC{}, lan(1), 1), says(mac(1), lan(1), 1))
	if claims := l.n.herald.heard[1].claims; len(claims) != 1 {
		t.Errorf("%d claims are kept", len(claims))
	}
}

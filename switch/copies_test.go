package vswitch

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Of several grants by which a peer may have sent a frame for many, a gateway takes the copy by that which each receiver would be sent
// it by. A node that has no machines is sent one copy, by whatever grant its sender knows; so is what is for one alone.
func TestWhichCopy(t *testing.T) {
	m := newMesh(t, false)
	worse := members(1, 2, 3, siteA)
	worse.ID, worse.Expires = 50, m.now.Add(time.Hour)
	m.grant(members(1, 2, 3, siteA), worse, reaches(51, 1, 31))
	storm := datagram(1, ether.Broadcast, everybody4)
	for _, c := range []struct {
		name  string
		node  policy.Identity
		frame []byte
		grant policy.GrantID
		want  Drop
	}{
		{"the best", 3, storm, grantID, Forwarded},
		{"another", 3, storm, 50, Drop(policy.OtherCopy)},
		{"another, to a plain node", 2, storm, 50, Forwarded},
		{"another, for one alone", 3, datagram(1, macAt(siteA), v4(siteA)), 50, Forwarded},
	} {
		if d := m.forward(c.node, m.ports[c.node]["link 1"], bytes.Clone(c.frame), Tag{1, c.grant}); d != c.want {
			t.Errorf("%s: %q, want %q", c.name, d.Code(), c.want.Code())
		}
	}
	// Where no grant lets it pass there is no other copy.
	m.grant(reaches(51, 1, 31))
	if d := m.forward(3, m.ports[3]["link 1"], storm, Tag{1, 51}); d == Drop(policy.OtherCopy) || d == Forwarded {
		t.Errorf("by none: %q", d.Code())
	}
}

// One who floods uses up what is its own: a neighbour on its VLAN that nobody named does not silence a host, here or at the
// receivers, nor what peers send.
func TestAttachedLimits(t *testing.T) {
	m := newMesh(t, false)
	for _, s := range m.segments {
		s.SetLimits(policy.Limits{Broadcast: 100})
	}
	m.grant(members(1, 2, siteA, 21, 22, siteB))
	node, port := m.door(siteA)
	passed := func(n int, frame []byte) (passed int) {
		for range n {
			switch d := m.segments[node].Forward(port, frame, ether.Offload{}, Tag{}, 0, m.now); d {
			case Forwarded:
				passed++
			case Drop(policy.BroadcastRate):
			default:
				t.Fatalf("%q", d.Code())
			}
		}
		return passed
	}
	if n := passed(1000, datagram(siteA, ether.Broadcast, everybody4)); n != 200 {
		t.Errorf("%d passed at once, want 200", n)
	}
	other := datagram(siteA, ether.Broadcast, everybody4)
	other[11]++ // another one that nobody named
	if n := passed(100, other); n != 0 {
		t.Errorf("of another on its budget %d passed", n)
	}
	for _, host := range []policy.Identity{21, 22} {
		if n := passed(1000, datagram(host, ether.Broadcast, everybody4)); n != 200 {
			t.Errorf("of host %d %d passed, want 200", host, n)
		}
	}
	m.run()
	m.expect("all that passed", sent{1: 600, 2: 600, siteB: 600, 31: 600, roaming: 600})
	if e := m.segments[node].Explain(port, other, Tag{}, m.now); e.Drop != Drop(policy.BroadcastRate) {
		t.Errorf("explained as %q", e.Drop.Code())
	}
}

// A frame that a gateway is sent twice, by two grants, counts once for each who gets it: an honest sender is not held to half of
// what it may send, and one that sends more gets no more through to anybody.
func TestCopiesCountOnce(t *testing.T) {
	broadcast := terms(t, "broadcast")
	m := newMesh(t, false)
	m.grant(members(1, 3), reaches(20, 1, siteA, broadcast...), reaches(21, 1, siteB, broadcast...), reaches(22, 1, siteB))
	g := m.segments[3]
	g.SetLimits(policy.Limits{Broadcast: 100})
	frame := datagram(1, ether.Broadcast, everybody4)
	storm := func(grant policy.GrantID) {
		for range 1000 {
			g.Forward(m.ports[3]["link 1"], frame, ether.Offload{}, Tag{1, grant}, 0, m.now)
		}
	}
	for _, grant := range []policy.GrantID{grantID, 20, 21, 22, grantID, 20, 21, 22} {
		storm(grant)
	}
	m.expect("at once", sent{3: 400, siteA: 400, 21: 400, 22: 400, siteB: 400, 31: 400, roaming: 400})
	for _, d := range g.Drops() {
		if d.Drop.Code() != "broadcast-rate" && d.Drop.Code() != "not-allowed" && d.Drop.Code() != "other-copy" {
			t.Errorf("dropped for %q", d.Drop.Code())
		}
	}
	g.SetPolicy(m.views[3], m.now) // which changes nothing
	storm(20)
	m.expect("after a change", sent{})
	m.now = m.now.Add(time.Second)
	storm(20)
	m.expect("a second later", sent{siteA: 100, 21: 100, 22: 100})
	m.grant(members(1, 3), reaches(23, 1, siteA, broadcast...))
	if have := *g.layout.Load().meters[1].copies.Load(); len(have) != 1 || have[grantID] == nil {
		t.Errorf("it keeps the meters of %d grants", len(have))
	}
}

// Who is sent one copy bears no more from a peer that names one grant and then another.
func TestMoreGrantsAreNoMoreFrames(t *testing.T) {
	m := newMesh(t, false)
	second := members(1, 2)
	second.ID, second.Expires = 50, m.now.Add(time.Hour)
	m.grant(members(1, 2), second)
	m.segments[2].SetLimits(policy.Limits{Broadcast: 100})
	for i := range 2000 {
		grant := [...]policy.GrantID{grantID, 50}[i%2]
		m.segments[2].Forward(m.ports[2]["link 1"], datagram(1, ether.Broadcast, everybody4), ether.Offload{}, Tag{1, grant}, 0, m.now)
	}
	m.expect("by two grants", sent{2: 400})
}

// A copy that another takes by another grant is no refusal, and not told to administrators as one.
func TestOtherCopies(t *testing.T) {
	m := newMesh(t, false)
	broadcast := terms(t, "broadcast")
	m.grant(reaches(20, 1, siteA, broadcast...), reaches(21, 1, 21, broadcast...))
	m.says(1, datagram(1, ether.Broadcast, everybody4))
	m.expect("twice", sent{siteA: 1, 21: 1, 22: 1})
	if list, others := m.segments[3].Denied(); len(list) != 0 || others != 0 {
		t.Errorf("denied: %+v", list)
	}
	if drops := m.segments[3].Drops(); len(drops) != 1 || drops[0] != (DropCount{Drop(policy.OtherCopy), 1}) {
		t.Errorf("dropped: %+v", drops)
	}
}

// A gateway refuses in nobody's name what may be between two on one VLAN; only for who is certainly elsewhere.
func TestRejectOnVLAN(t *testing.T) {
	m := newMesh(t, false)
	ssh := terms(t, "tcp:22")
	m.grant(reaches(8, siteA, 1, ssh...), reaches(9, siteA, roaming, ssh...), reaches(10, siteA, 21, ssh...), reaches(11, siteA, 31, ssh...))
	m.segments[3].SetReject(true)
	for _, c := range []struct {
		name string
		to   policy.Identity
		want int
	}{
		{"a node", 1, 1},
		{"a stranger's node", 2, 1},
		{"a host on another VLAN", 31, 1},
		{"a host that may be here", roaming, 0},
		{"a host here", 21, 0},
		{"one whom nobody named", siteA, 0},
		{"nobody", 99, 0},
	} {
		frame := datagram(siteA, macAt(c.to), v4(c.to))
		if c.to == siteA {
			frame[5]++
		}
		node, port := m.door(siteA)
		before := len(m.out)
		if d := m.segments[node].Forward(port, frame, ether.Offload{}, Tag{}, 0, m.now); d == Forwarded {
			t.Errorf("%s: %q", c.name, d.Code())
		}
		if n := len(m.out) - before; n != c.want {
			t.Errorf("%s: refused in its name %d times, want %d", c.name, n, c.want)
		}
	}
}

// A node's own host is told of whatever was refused, also for a MAC that is nobody's.
func TestRejectAtHome(t *testing.T) {
	m := newMesh(t, false)
	m.grant(reaches(8, 3, 1, terms(t, "tcp:22")...))
	m.segments[3].SetReject(true)
	for _, to := range []policy.Identity{1, 21, 99} {
		m.segments[3].Forward(m.ports[3]["tap"], datagram(3, macAt(to), v4(to)), ether.Offload{}, Tag{}, 0, m.now)
		if got := m.heard(); got[3] != 1 {
			t.Errorf("to %d: told %d times", to, got[3])
		}
	}
}

func TestAttachedDoesNotAllocate(t *testing.T) {
	m := newMesh(t, false)
	broadcast := terms(t, "broadcast")
	m.grant(members(1, 2, 3, 21, 22), reaches(20, 1, siteB, broadcast...), reaches(21, siteA, 1), reaches(22, 1, siteA), reaches(23, siteB, 1, broadcast...))
	for _, p := range m.ports[3] {
		p.out = blackhole{}
	}
	g := m.segments[3]
	g.SetLimits(policy.DefaultLimits())
	vlanA, vlanB, link := m.ports[3]["vlan 20"], m.ports[3]["vlan 30"], m.ports[3]["link 1"]
	for _, c := range []struct {
		name  string
		in    *Port
		frame []byte
		tag   Tag
		want  Drop
	}{
		{"unicast from a host", vlanA, data(macAt(1), macAt(21), experimental, ""), Tag{}, Forwarded},
		{"unicast from one whom nobody named", vlanA, datagram(siteA, macAt(1), v4(1)), Tag{}, Forwarded},
		{"broadcast from a host", vlanA, datagram(21, ether.Broadcast, everybody4), Tag{}, Forwarded},
		{"broadcast from those whom nobody named", vlanB, datagram(siteB, ether.Broadcast, everybody4), Tag{}, Forwarded},
		{"unicast to a host", link, data(macAt(21), macAt(1), experimental, ""), Tag{1, grantID}, Forwarded},
		{"unicast to one whom nobody named", link, datagram(1, macAt(siteA), v4(siteA)), Tag{1, 22}, Forwarded},
		{"copies to hosts", link, datagram(1, ether.Broadcast, everybody4), Tag{1, grantID}, Forwarded},
		{"broadcast to those whom nobody named", link, datagram(1, ether.Broadcast, everybody4), Tag{1, 20}, Forwarded},
		{"from the gateway to all", m.ports[3]["tap"], datagram(3, ether.Broadcast, everybody4), Tag{}, Forwarded},
		{"pinned elsewhere", vlanB, data(macAt(1), macAt(21), experimental, ""), Tag{}, Drop(policy.PinnedMAC)},
	} {
		say := func() Drop { return g.Forward(c.in, c.frame, ether.Offload{}, c.tag, 0, m.now) }
		if d := say(); d != c.want {
			t.Errorf("%s: %q", c.name, d.Code())
			continue
		}
		if c.want != Forwarded {
			continue // what is refused is written down
		}
		m.now = m.now.Add(time.Hour / 100)
		if n := testing.AllocsPerRun(20, func() { say() }); n != 0 {
			t.Errorf("%s: %v allocations for each frame", c.name, n)
		}
	}
}

// FuzzAttached: whatever comes from a VLAN, nothing is sent in a name that is not its sender's, and Explain foretells it.
func FuzzAttached(f *testing.F) {
	for _, frame := range [][]byte{
		datagram(siteA, ether.Broadcast, everybody4), datagram(21, macAt(1), v4(1)), asks(22, v4(1)), tells(21, 1),
		data(macAt(21), macAt(2), experimental, ""), data(ether.Broadcast, macAt(31), experimental, ""),
	} {
		f.Add(uint64(1), frame)
		f.Add(uint64(7), frame)
	}
	f.Fuzz(func(t *testing.T, seed uint64, frame []byte) {
		m := newMesh(t, false)
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // not for secrets
		m.grant(randomMix(t, r, []policy.Identity{1, 2, 3, siteA, 21, 22, siteB, 31, roaming})...)
		m.forward(3, m.ports[3]["vlan 20"], frame, Tag{})
		for _, d := range m.sends[3] {
			src := ether.MAC(d.frame[6:12])
			owner := m.views[3].Owner(src)
			if d.port.Kind == Link && d.tag.Source != siteA && (d.tag.Source != owner || !m.views[3].IsBehind(owner, siteA)) {
				t.Errorf("sent as %d, with the MAC of %d", d.tag.Source, owner)
			}
		}
		m.run()
	})
}

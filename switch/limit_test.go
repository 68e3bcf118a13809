package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// arpOf is an ARP request of a node for the address of another.
func arpOf(id policy.Identity) []byte {
	mac := macOf(id)
	return data(ether.Broadcast, mac, ether.TypeARP, "\x00\x01\x08\x00\x06\x04\x00\x01"+string(mac[:])+
		"\xc0\x00\x02"+string(byte(id))+"\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x09")
}

// times sends a frame n times and says how often it passed; every other time it was refused for this reason.
func (r *rig) times(n int, from policy.Identity, frame []byte, refusal policy.Verdict) (passed int) {
	r.t.Helper()
	for range n {
		switch d := r.enter(from, frame); d {
		case Forwarded:
			passed++
		case Drop(refusal):
		default:
			r.t.Fatalf("%q, want %q", d, refusal)
		}
	}
	return passed
}

// A member that floods is held to its limit, at its own node and at the receivers', and costs nobody else's.
func TestLimits(t *testing.T) {
	r := newRig(t)
	r.seg.SetLimits(policy.Limits{Broadcast: 100, Multicast: 200, Control: 50, Joins: 50})
	storm := func(id policy.Identity) []byte { return data(ether.Broadcast, macOf(id), experimental, "storm") }
	group := func(id policy.Identity) []byte {
		return data(ether.MAC{1, 0, 0x5e, 1, 2, 3}, macOf(id), experimental, "")
	}
	for _, c := range []struct {
		name    string
		frame   func(policy.Identity) []byte
		burst   int // at the sender's own node
		rate    int
		refusal policy.Verdict
	}{
		{"broadcast", storm, 200, 100, policy.BroadcastRate},
		{"multicast", group, 400, 200, policy.MulticastRate},
		{"ARP", arpOf, 100, 50, policy.ControlRate},
	} {
		if n := r.times(1000, 1, c.frame(1), c.refusal); n != c.burst {
			t.Errorf("%s: %d passed at once at its own node, want %d", c.name, n, c.burst)
		}
		if n := r.times(1000, 2, c.frame(2), c.refusal); n != 2*c.burst {
			t.Errorf("%s: %d passed at once at the receiver, want %d", c.name, n, 2*c.burst)
		}
		if n := r.times(10, 3, c.frame(3), c.refusal); n != 10 {
			t.Errorf("%s: of another member only %d passed", c.name, n)
		}
		r.now = r.now.Add(time.Second)
		for _, id := range []policy.Identity{1, 2} {
			if n := r.times(1000, id, c.frame(id), c.refusal); n != c.rate {
				t.Errorf("%s: node %d: %d passed in the next second, want %d", c.name, id, n, c.rate)
			}
		}
	}
	// What goes to one is not limited.
	if n := r.times(5000, 1, data(macOf(2), macOf(1), experimental, ""), policy.BroadcastRate); n != 5000 {
		t.Errorf("to one: %d passed", n)
	}
	r.seg.SetLimits(policy.Limits{})
	if n := r.times(5000, 1, storm(1), policy.BroadcastRate); n != 5000 {
		t.Errorf("without limits: %d passed", n)
	}
}

// What is refused for another reason uses nothing up.
func TestRefusedFramesDoNotCount(t *testing.T) {
	r := newRig(t)
	r.seg.SetLimits(policy.Limits{Broadcast: 100})
	storm := data(ether.Broadcast, macOf(2), experimental, "")
	for range 1000 {
		r.enter(2, data(ether.Broadcast, macOf(3), experimental, ""))
		r.seg.Forward(r.ports[2], storm, ether.Offload{}, Tag{2, 99}, 0, r.now)
	}
	if n := r.times(1000, 2, storm, policy.BroadcastRate); n != 400 {
		t.Errorf("%d passed, want 400", n)
	}
}

// A super-frame to a group counts as what it is cut into.
func TestSuperFramesCount(t *testing.T) {
	r := newRig(t)
	r.seg.SetLimits(policy.Limits{Multicast: 100})
	const size, count = 1000, 20
	payload := size * count
	n := 20 + 8 + payload
	head := "\x45\x00" + string([]byte{byte(n >> 8), byte(n)}) + "\x00\x00\x00\x00\x40\x11\x00\x00" + "\xc0\x00\x02\x01" + "\xe1\x01\x02\x03" +
		"\x13\x88\x13\x89" + string([]byte{byte((n - 20) >> 8), byte(n - 20)}) + "\x00\x00"
	frame := data(ether.MAC{1, 0, 0x5e, 1, 2, 3}, macOf(1), ether.TypeIPv4, head+string(make([]byte, payload)))
	undone := ether.Offload{Checksum: true, Start: 34, Field: 6, Size: size}
	passed := 0
	for range 100 {
		if d := r.seg.Forward(r.ports[1], frame, undone, Tag{}, 0, r.now); d == Forwarded {
			passed++
		} else if d != Drop(policy.MulticastRate) {
			t.Fatalf("%q", d)
		}
	}
	if passed != 200/(count+1) { // headers are taken for payload: it is at most one too many
		t.Errorf("%d super-frames of %d passed, want %d", passed, count, 200/(count+1))
	}
	frame[34+2], frame[34+3] = 0, 67
	if d := r.seg.Forward(r.ports[1], frame, undone, Tag{}, 0, r.now); d != Drop(policy.Undetermined) {
		t.Errorf("a super-frame of DHCP: %q", d)
	}
}

// Asking what becomes of a frame uses nothing up, and tells of a limit that is.
func TestExplainCountsNothing(t *testing.T) {
	r := newRig(t)
	r.seg.SetLimits(policy.Limits{Broadcast: 100})
	storm := data(ether.Broadcast, macOf(1), experimental, "")
	for range 1000 {
		if e := r.seg.Explain(r.ports[1], storm, Tag{}, r.now); e.Drop != Forwarded {
			t.Fatalf("%q", e.Drop)
		}
	}
	for range 201 {
		r.agree("broadcast", 1, storm, Tag{})
	}
	if e := r.seg.Explain(r.ports[1], storm, Tag{}, r.now); e.Drop != Drop(policy.BroadcastRate) {
		t.Errorf("%q", e.Drop)
	}
}

func TestLimitsDoNotAllocate(t *testing.T) {
	r := quietRig(t)
	r.seg.SetLimits(policy.DefaultLimits())
	storm, arp := data(ether.Broadcast, macOf(1), experimental, ""), arpOf(2)
	if n := testing.AllocsPerRun(10_000, func() { r.enter(1, storm); r.enter(2, arp) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// MACs without number of one member (macof): it has one, so none is learned, and nobody's is forgotten.
func TestMACFlood(t *testing.T) {
	r := newRig(t)
	for id := policy.Identity(1); id <= 3; id++ {
		r.enter(id, data(ether.Broadcast, macOf(id), experimental, ""))
	}
	before := len(r.seg.FDB().Entries(r.now))
	frame := data(ether.Broadcast, macOf(2), experimental, "macof")
	for i := range 100_000 {
		frame[7], frame[8], frame[9] = byte(i>>16)+1, byte(i>>8), byte(i)
		if d := r.enter(2, frame); d != Drop(policy.SourceMAC) {
			t.Fatalf("%q", d)
		}
	}
	stats := r.seg.FDB().Stats()
	if after := len(r.seg.FDB().Entries(r.now)); before != 3 || after != 3 || stats.Evicted != 0 || stats.Learned != 3 {
		t.Errorf("%d addresses, then %d: %+v", before, after, stats)
	}
}

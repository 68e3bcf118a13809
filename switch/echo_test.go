package vswitch

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/fdb"
	"github.com/etherloom/etherloom/policy"
)

// echoing is a gateway between a VLAN and a peer, with a loop guard that finds nothing.
type echoing struct {
	*testing.T
	seg      *Segment
	in, link *Port
	vlan     *sink
	now      time.Time
	asked    int
	looped   bool
}

const echoingVLAN, echoingPeer policy.Identity = 50, 2

func newEchoing(t *testing.T) *echoing {
	t.Helper()
	const here = 1
	e := &echoing{T: t, seg: NewSegment(5, here, 1500, fdb.Limits{}), vlan: &sink{}, now: time.Now()}
	e.in, e.link = NewPort("lan", Attached, echoingVLAN, e.vlan), NewPort("there", Link, echoingPeer, &sink{})
	for _, p := range []*Port{e.in, e.link} {
		e.seg.AddPort(p)
	}
	machines := policy.NewMachine(ether.MAC{}, nil)
	machines.Gateways, machines.Attachments = []policy.Identity{here}, []policy.Identity{echoingVLAN}
	e.seg.SetPolicy(policy.Compile(policy.Rules{
		Self:     here,
		Stations: map[policy.Identity]*policy.Station{here: policy.NewStation(macOf(1), nil, false), echoingVLAN: machines, echoingPeer: policy.NewStation(macOf(2), nil, false)},
		Grants: []policy.Grant{
			{ID: grantID, Segment: true, Sources: []policy.Identity{here, echoingPeer, echoingVLAN}},
		},
	}), e.now)
	return e
}

func (e *echoing) look() bool {
	e.asked++
	return e.looped
}

// comes counts how many of a number of the same frame, so far apart, go through.
func (e *echoing) comes(text string, times int, apart time.Duration) (through int) {
	e.Helper()
	for range times {
		e.now = e.now.Add(apart)
		frame := data(ether.Broadcast, macOf(2), experimental, text)
		switch d := e.seg.Forward(e.link, frame, ether.Offload{}, Tag{Source: echoingPeer, Grant: grantID}, 0, e.now); d {
		case Forwarded:
			through++
		case DropEcho:
		default:
			e.Fatalf("a frame is dropped: %q", d.Code())
		}
		if d := e.seg.Explain(e.link, frame, Tag{Source: echoingPeer, Grant: grantID}, e.now).Drop; d != Forwarded {
			e.Fatalf("explained as %q", d.Code())
		}
	}
	return through
}

// A frame that goes round is held after four copies, and the loop guard asked at once; another frame is not held.
func TestEcho(t *testing.T) {
	e := newEchoing(t)
	if n := e.comes("before", 100, time.Millisecond); n != 100 {
		t.Errorf("without a loop guard %d of 100 pass", n)
	}
	e.seg.SetLoopGuard(e.look)
	if n := e.comes("round", 50, time.Millisecond); n != echoes || e.asked != 1 {
		t.Errorf("%d copies pass, and the loop guard is asked %d times", n, e.asked)
	}
	e.looped = true // and the gate is yet to close
	if n := e.comes("round", 1000, time.Millisecond); n != 4*echoes {
		t.Errorf("%d copies pass in the second in which a loop is known", n)
	}
	e.looped = false
	if n := e.comes("other", 1, time.Millisecond); n != 1 {
		t.Error("another frame is held")
	}
	if n := e.vlan.take(); n != 100+5*echoes+1 {
		t.Errorf("%d frames have come out", n)
	}
}

// What a machine sends itself, the same again and again, is held for some tenths of a second, and then ever more seldom.
func TestEchoOfNobody(t *testing.T) {
	for _, apart := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 49 * time.Millisecond} {
		e := newEchoing(t)
		e.seg.SetLoopGuard(e.look)
		times := int(10 * time.Minute / apart)
		held := times - e.comes("heartbeat", times, apart)
		// At first, and about 10, 30, 70, 150 and 310 s later, each time for as long as is held; asked before and after.
		if most := 6 * (int(echoHold/apart) + 1); e.asked != 12 || held < 6 || held > most {
			t.Errorf("each %v: held %d of %d, want at most %d; asked %d times", apart, held, times, most, e.asked)
		}
		e.now = e.now.Add(time.Hour) // it begins anew
		e.asked = 0
		if e.comes("heartbeat", int(31*time.Second/apart), apart); e.asked < 4 || e.asked > 6 {
			t.Errorf("each %v: asked %d times in half a minute", apart, e.asked)
		}
	}
	e := newEchoing(t)
	e.seg.SetLoopGuard(e.look)
	if n := e.comes("clock", 1000, echoWindow/echoes); n != 1000 || e.asked != 0 {
		t.Errorf("%d of 1000 pass that come seldom enough; asked %d times", n, e.asked)
	}
}

// Of a node without a VLAN nothing is held.
func TestEchoWithoutVLAN(t *testing.T) {
	e := newEchoing(t)
	e.seg.SetLoopGuard(e.look)
	e.seg.RemovePort(e.in)
	host := &sink{}
	e.seg.AddPort(NewPort("loom0", Local, 1, host))
	if e.comes("round", 50, time.Millisecond); e.asked != 0 {
		t.Error("the loop guard is asked")
	}
}

func TestEchoCostsNoMemory(t *testing.T) {
	e := newEchoing(t)
	e.seg.SetLoopGuard(e.look)
	frame := data(ether.Broadcast, macOf(2), experimental, "round")
	c := &carriage{in: e.link, grant: grantID}
	c.Frame, c.Now = ether.Frame{Data: frame}, e.now
	l := e.seg.layout.Load()
	if n := testing.AllocsPerRun(100, func() { e.seg.returning(l, c) }); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// What this machine itself sends again and again is not held: it has come by no VLAN.
func TestEchoOfOwnHost(t *testing.T) {
	e := newEchoing(t)
	e.seg.SetLoopGuard(e.look)
	tap := NewPort("loom0", Local, 1, &sink{})
	e.seg.AddPort(tap)
	for range 50 {
		e.now = e.now.Add(time.Millisecond)
		if d := e.seg.Forward(tap, data(ether.Broadcast, macOf(1), experimental, "again"), ether.Offload{}, Tag{}, 0, e.now); d != Forwarded {
			t.Fatalf("dropped: %q", d.Code())
		}
	}
	if e.asked != 0 {
		t.Error("the loop guard is asked")
	}
}

// Frames are told apart, also those that share a slot; and once there was no loop, the very next one passes.
func TestEchoSlots(t *testing.T) {
	asked := 0
	e := echo{slots: make([]echoSlot, echoSlots), look: func() bool { asked++; return false }}
	now := time.Now()
	for i := range 100 {
		if e.holds(uint64(1+i%2*echoSlots), now) {
			t.Fatalf("frame %d is held for another", i)
		}
	}
	held := 0
	for i := range 1000 {
		if e.holds(7, now.Add(time.Duration(i)*time.Millisecond)) {
			held++
		}
	}
	// From the fifth to the end of its window, and from the fifth of the next to the end of the hold, 300 ms after it began.
	if held != 246+50 || asked != 2 {
		t.Errorf("%d of 1000 are held, and the loop guard is asked %d times", held, asked)
	}
}

package probe

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Who blocks, of those whose VLANs become one.
func TestWhoBlocks(t *testing.T) {
	wire := func(a, b string) func(*site) {
		return func(s *site) { s.wires = append(s.wires, [2]string{a, b}) }
	}
	for _, c := range []struct {
		name   string
		ports  []string
		do     func(s *site)
		within time.Duration
		want   []string
		events []string
	}{
		{"nothing happens", []string{"1/5 red 9", "2/6 blue 9"}, func(*site) {}, time.Second, []string{}, nil},
		{"a port is looped", []string{"1/5 red 9"}, func(s *site) { s.loops["red"] = true }, 230 * ms, []string{"1/5"}, []string{"1/5: " + string(Looped)}},
		{"two gateways of one VLAN", []string{"1/5 red 9", "2/5 red 9"}, func(*site) {}, 2 * time.Second, []string{}, nil},
		{"two VLANs of one gateway", []string{"1/6 blue 9", "1/5 red 9"}, wire("red", "blue"), 230 * ms, []string{"1/6"}, []string{"1/6: " + string(Joined)}},
		{
			"two VLANs of one gateway, the greater hears nothing",
			[]string{"1/5 red 9", "1/6 blue 9"},
			func(s *site) { wire("red", "blue")(s); s.deaf[s.at(1, 6)] = true }, 230 * ms,
			[]string{"1/6"},
			[]string{"1/6: " + string(Joined)},
		},
		{
			"two VLANs of one gateway, the lesser hears nothing",
			[]string{"1/5 red 9", "1/6 blue 9"},
			func(s *site) { wire("red", "blue")(s); s.deaf[s.at(1, 5)] = true }, 230 * ms,
			[]string{"1/6"},
			[]string{"1/6: " + string(Joined)},
		},
		{"two VLANs of two gateways", []string{"1/5 red 9", "2/6 blue 9"}, wire("red", "blue"), 230 * ms, []string{"2/6"}, []string{"2/6: " + string(Bridged)}},
		{"the node does not count before the attachment", []string{"2/5 red 9", "1/6 blue 9"}, wire("red", "blue"), 230 * ms, []string{"1/6"}, []string{"1/6: " + string(Bridged)}},
		{
			"two VLANs with two gateways each",
			[]string{"1/5 red 9", "2/5 red 9", "3/6 blue 9", "4/6 blue 9"},
			wire("red", "blue"), 230 * ms,
			[]string{"3/6", "4/6"},
			[]string{"3/6: " + string(Bridged), "4/6: " + string(Bridged)},
		},
		{
			"one gateway on both hears the other's probe first",
			[]string{"1/5 red 9", "1/6 blue 9", "2/5 red 9"},
			wire("red", "blue"), 230 * ms,
			[]string{"1/6"},
			[]string{"1/6: " + string(Bridged)},
		},
		{
			"three VLANs",
			[]string{"1/5 red 9", "2/6 blue 9", "3/7 green 9"},
			func(s *site) { wire("red", "blue")(s); wire("blue", "green")(s) }, 230 * ms,
			[]string{"2/6", "3/7"},
			[]string{"2/6: " + string(Bridged), "3/7: " + string(Bridged)},
		},
		{
			"the greater hears nothing, soon",
			[]string{"1/5 red 9", "2/6 blue 9"},
			func(s *site) { wire("red", "blue")(s); s.deaf[s.at(2, 6)] = true }, 350 * ms,
			[]string{},
			nil,
		},
		{
			"the greater hears nothing, later",
			[]string{"1/5 red 9", "2/6 blue 9"},
			func(s *site) { wire("red", "blue")(s); s.deaf[s.at(2, 6)] = true }, 670 * ms,
			[]string{"1/5"},
			[]string{"1/5: " + string(Unheeded)},
		},
		{"the greater blocks: the lesser never does", []string{"1/5 red 9", "2/6 blue 9"}, wire("red", "blue"), 20 * time.Second, []string{"2/6"}, []string{"2/6: " + string(Bridged)}},
		{
			"two segments of one gateway are cabled",
			[]string{"1/5 red 9", "1/6 blue 8"},
			wire("red", "blue"), 5 * time.Second,
			[]string{},
			[]string{"1/5: " + string(Cabled), "1/6: " + string(Cabled)},
		},
		{
			"two segments are cabled, and one gateway knows both",
			[]string{"1/5 red 9", "1/7 white 8", "2/6 blue 8"},
			wire("red", "blue"), 5 * time.Second,
			[]string{},
			[]string{"1/5: " + string(Cabled)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.ports...)
			s.run(2 * time.Second)
			if got := s.blocked(); len(got) != 0 {
				t.Fatalf("%v blocked before anything happened", got)
			}
			c.do(s)
			s.run(c.within)
			if got := s.blocked(); !slices.Equal(got, c.want) {
				t.Errorf("blocked: %v, want %v", got, c.want)
			}
			if got := s.events(); !slices.Equal(got, c.events) {
				t.Errorf("events %q, want %q", got, c.events)
			}
		})
	}
}

// What is blocked stays so as long as the cable is there, and opens within 1.8 s of its removal; and again.
func TestHeals(t *testing.T) {
	s := newSite(t, "1/5 red 9", "2/6 blue 9")
	for range 3 {
		s.wires = [][2]string{{"red", "blue"}}
		s.run(230 * ms)
		if got := s.blocked(); !slices.Equal(got, []string{"2/6"}) {
			t.Fatalf("blocked: %v", got)
		}
		s.run(5 * time.Second)
		if got := s.blocked(); !slices.Equal(got, []string{"2/6"}) {
			t.Fatalf("blocked after 5 s: %v", got)
		}
		if got := s.guards[2].Causes(6); !slices.Equal(got, []Cause{{5, 1}}) {
			t.Errorf("Causes = %v", got)
		}
		s.wires = nil
		s.run(1370 * ms)
		if len(s.blocked()) != 1 {
			t.Error("it opens before three probes and a second were missed")
		}
		s.run(430 * ms)
		if got := s.blocked(); len(got) != 0 {
			t.Fatalf("blocked 1.8 s after the cable is gone: %v", got)
		}
		want := []string{"2/6: " + string(Bridged), "2/6: " + string(Healed)}
		if got := s.events(); !slices.Equal(got, want) {
			t.Errorf("events %q, want %q", got, want)
		}
	}
}

// The deadline of Tick is kept: who calls by it alone heals in time.
func TestHealsByDeadline(t *testing.T) {
	s := newSite(t, "1/5 red 9")
	s.loops["red"] = true
	s.run(230 * ms)
	g, last := s.guards[1], s.now
	called, next := s.now, s.now
	for s.at(1, 5).port.Blocked() && called.Sub(last) < 3*time.Second {
		called = next
		_, next = g.Tick(called)
	}
	if took := called.Sub(last); took > 1755*ms || took < 1450*ms {
		t.Errorf("it opens after %v", took)
	}
}

// Who was paused does not open a port because it has heard nothing.
func TestPausedDoesNotHeal(t *testing.T) {
	s := newSite(t, "1/5 red 9")
	s.loops["red"] = true
	s.run(time.Second)
	s.now = s.now.Add(10 * time.Second)
	s.run(5 * ms)
	if !s.at(1, 5).port.Blocked() {
		t.Error("the port is open after a pause")
	}
}

// A hello of another gateway of the VLAN is given back, also by a blocked port, and takes the place of a probe.
func TestCarry(t *testing.T) {
	s := newSite(t, "1/5 red 9", "2/5 red 9")
	s.loops["red"] = true
	s.run(time.Second)
	clear(s.hellos)
	for range 20 {
		frame, err := s.guards[1].Carry(5, []byte("hello"), s.now)
		if err != nil {
			t.Fatal(err)
		}
		s.flood(s.at(1, 5), frame)
		if frames, _ := s.guards[1].Tick(s.now); len(frames) != 0 {
			t.Fatal("a probe besides the hello")
		}
		s.now = s.now.Add(100 * ms)
		s.guards[2].Tick(s.now)
	}
	got := s.hellos[s.at(2, 5)]
	if len(got) != 20 || got[0] != "1 hello" {
		t.Errorf("heard %q", got)
	}
	if _, err := s.guards[1].Carry(7, nil, s.now); !errors.Is(err, ErrNoPort) {
		t.Errorf("Carry without a port = %v", err)
	}
	if _, err := s.guards[1].Carry(5, make([]byte, MaxHello+1), s.now); err == nil {
		t.Error("a hello that is too long is carried")
	}
}

// Probes leave each 200 ms, more or less; not all at once.
func TestInterval(t *testing.T) {
	g, err := New(Config{Node: 1, Boot: 77}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Add(Attached{9, 5, ether.MAC{2, 1}, key(9)}, epoch); err != nil {
		t.Fatal(err)
	}
	seen := make(map[time.Duration]bool)
	for now, n := epoch, 0; n < 100; n++ {
		frames, next := g.Tick(now)
		if len(frames) != 1 || frames[0].Attachment != 5 || len(frames[0].Data) < 60 {
			t.Fatalf("%d frames", len(frames))
		}
		d := next.Sub(now)
		if d < 180*ms || d > 220*ms {
			t.Fatalf("the next after %v", d)
		}
		seen[d], now = true, next
	}
	if len(seen) < 50 {
		t.Errorf("%d different intervals in 100", len(seen))
	}
}

// The lesser waits for the greater anew, when that was silent or has blocked for a while.
func TestPatienceBeginsAnew(t *testing.T) {
	g, p, m, src := pair(t)
	s := sealOf(t, 9)
	m.attachment = 7 // greater than 6
	say := func(blocked bool, times int) {
		for range times {
			g.Tick(g.entered.Add(80 * ms))
			m.sequence++
			m.blocked = blocked
			if err := hear(t, g, 6, m.appendFrame(nil, src, s), g.entered); err != nil {
				t.Fatal(err)
			}
		}
	}
	say(false, 4)
	say(true, 1)
	if say(false, 4); p.Blocked() {
		t.Error("it blocks although the greater has blocked just now")
	}
	for range 15 {
		g.Tick(g.entered.Add(80 * ms))
	}
	if say(false, 5); p.Blocked() {
		t.Error("it blocks although the greater was silent")
	}
	if say(false, 1); !p.Blocked() {
		t.Error("it does not block although the greater does not")
	}
}

// Ports come and go.
func TestAddAndRemove(t *testing.T) {
	g, p, m, src := pair(t)
	s := sealOf(t, 9)
	if again, err := g.Add(Attached{9, 6, ether.MAC{2, 9}, key(9)}, epoch); err != nil || again != p || p.MAC != (ether.MAC{2, 9}) {
		t.Errorf("Add again = %v, %v", again, err)
	}
	if moved, err := g.Add(Attached{3, 6, ether.MAC{2, 9}, key(3)}, epoch); err != nil || moved == p {
		t.Errorf("Add in another segment = %v, %v", moved, err)
	}
	if err := hear(t, g, 6, m.appendFrame(nil, src, s), epoch); !errors.Is(err, ErrKey) {
		t.Errorf("a probe of a segment that is gone: %v", err)
	}
	if _, err := g.Add(Attached{3, 7, ether.MAC{2, 8}, key(3)}, epoch); err != nil {
		t.Fatal(err)
	}
	g.Remove(6)
	g.Remove(6)
	if frames, _ := g.Tick(epoch); len(frames) != 1 || frames[0].Attachment != 7 {
		t.Errorf("%d frames", len(frames))
	}
	if g.Causes(6) != nil {
		t.Error("a port that is gone has causes")
	}
	for _, bad := range []Attached{
		{9, 6, ether.MAC{2, 1}, key(9)[1:]},
		{9, 0, ether.MAC{2, 1}, key(9)},
		{1 << 24, 6, ether.MAC{2, 1}, key(9)},
		{9, 6, ether.MAC{0, 1}, key(9)},
		{9, 6, ether.MAC{3, 1}, key(9)},
	} {
		if _, err := g.Add(bad, epoch); err == nil {
			t.Errorf("%+v is a port", bad)
		}
	}
	for _, bad := range []Config{{}, {Node: 1, Interval: 1}, {Node: 1, Interval: time.Second, Patience: ms}} {
		if _, err := New(bad, epoch); err == nil {
			t.Errorf("%+v is a guard", bad)
		}
	}
}

// However many senders there are, what is remembered is bounded, and the newest is kept.
func TestSendersAreBounded(t *testing.T) {
	g, p, m, src := pair(t)
	s := sealOf(t, 9)
	for n := range uint32(2 * maxSenders) {
		m.node = 2 + n
		if err := hear(t, g, 6, m.appendFrame(nil, src, s), epoch.Add(time.Duration(n)*ms)); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.senders) > maxSenders || p.senders[sender{5, m.node}] == nil || p.senders[sender{5, 2}] != nil {
		t.Errorf("%d senders", len(p.senders))
	}
	for range 2 * maxEvents {
		g.report(Event{})
	}
	g.report(Event{Attachment: 1})
	if ev := g.Events(); len(ev) != maxEvents || ev[maxEvents-1].Attachment != 1 {
		t.Errorf("%d events", len(ev))
	}
}

// Who is asked to hurry probes at once, and so does the lesser when it hears the greater: the loop is blocked in some ms, whoever was asked.
func TestHurry(t *testing.T) {
	for _, asked := range []uint32{1, 2} {
		s := newSite(t, "1/5 red 9", "2/6 blue 9")
		s.run(time.Second)
		for s.now.Sub(s.at(1, 5).port.sentLast()) < 50*ms || s.now.Sub(s.at(2, 6).port.sentLast()) < 50*ms {
			s.run(5 * ms)
		}
		s.wires = append(s.wires, [2]string{"red", "blue"})
		s.guards[asked].Hurry(s.now)
		s.run(30 * ms)
		if got := s.blocked(); len(got) != 1 || got[0] != "2/6" {
			t.Errorf("node %d was asked: %v are blocked", asked, got)
		}
	}
}

// Who is asked without end sends a probe each 20 ms and no more.
func TestHurryIsBounded(t *testing.T) {
	s := newSite(t, "1/5 red 9")
	s.run(time.Second)
	began := s.at(1, 5).port.sequence
	for range 200 {
		s.guards[1].Hurry(s.now)
		s.run(5 * ms)
	}
	if n := s.at(1, 5).port.sequence - began; n < 45 || n > 51 {
		t.Errorf("%d probes in a second", n)
	}
}

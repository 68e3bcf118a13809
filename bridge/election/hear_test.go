package election

import (
	"errors"
	"testing"
	"time"
)

// An acknowledgement of an older hello than the claim, of another run, or by one who claims, is none.
func TestWhatAcknowledgesNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s *stage, h *Hello)
	}{
		{"of a hello before the claim", func(s *stage, h *Hello) { h.Acks = []Ack{{1, 11, s.e.claimSeq - 1}} }},
		{"of a hello that was never sent", func(s *stage, h *Hello) { h.Acks = []Ack{{1, 11, s.e.seq + 1}} }},
		{"of number 0", func(s *stage, h *Hello) { h.Acks = []Ack{{1, 11, 0}} }},
		{"of another run", func(s *stage, h *Hello) { h.Acks = []Ack{{1, 12, s.e.seq}} }},
		{"of another gateway", func(s *stage, h *Hello) { h.Acks = []Ack{{3, 11, s.e.seq}} }},
		{"by one who claims", func(s *stage, h *Hello) { h.Claims, h.Acks = true, []Ack{{1, 11, s.e.seq}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := alone(t, 2)
			// It is heard, but for the last.
			for !s.e.claims {
				s.wait(5*ms, standby(2))
			}
			h := standby(2)
			h.Attachment, h.Lease, h.Boot, h.Sequence = 7, 400*ms, 22, 1000
			c.change(s, &h)
			if err := s.e.Hear(2, Overlay, h.AppendTo(nil), s.now); err != nil {
				t.Fatal(err)
			}
			s.tick()
			if s.e.Forwards(s.now) {
				t.Error("it forwards")
			}
		})
	}
}

// Rule 2: who releases, does so at once; but not a new run, which may be an old one played again.
func TestRelease(t *testing.T) {
	s := alone(t, 2)
	s.wait(700*ms, claimant(2))
	h := unable(2)
	h.Acks, h.Boot = []Ack{{}}, 33
	s.hear(h)
	s.wait(100*ms, h)
	s.want(false, false, "after a hello of another run")

	s = alone(t, 2)
	s.wait(700*ms, claimant(2))
	h.Boot = 0
	s.hear(h)
	s.wait(10 * ms)
	s.want(false, true, "after a release")
	s.hear(h)
	s.want(true, true, "after it has acknowledged")
}

// Rule 2: of two claimants, one is acknowledged; the other after the first has released, or is silent.
func TestOnePromise(t *testing.T) {
	acks := func(s *stage) (list []uint32) {
		s.wait(130 * ms)
		for _, a := range s.last.Acks {
			list = append(list, a.Node)
		}
		return list
	}
	s := alone(t, 2, 3)
	s.hear(claimant(2))
	s.hear(claimant(3))
	if got := acks(s); len(got) != 1 || got[0] != 2 {
		t.Errorf("acknowledges %v; want 2, who was first", got)
	}
	s.hear(standby(2))
	s.hear(claimant(3))
	if got := acks(s); len(got) != 2 {
		t.Errorf("acknowledges %v; 2 has released", got)
	}
	s.hear(claimant(2))
	if got := acks(s); len(got) != 1 || got[0] != 3 {
		t.Errorf("acknowledges %v; want 3 alone", got)
	}
	s.wait(600*ms, claimant(2))
	if got := acks(s); len(got) != 1 || got[0] != 2 {
		t.Errorf("acknowledges %v; want 2, for 3 is silent", got)
	}
}

// Rule 9.
func TestMeeting(t *testing.T) {
	for _, c := range []struct {
		name   string
		hello  Hello
		paused bool
	}{
		{"one that starts", unable(2), false},
		{"one that is ready and knows of no claim", deaf(2), true},
		{"one that is ready and has acknowledged", standby(2), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := alone(t, 2)
			s.wait(1200 * ms)
			s.want(true, true, "alone")
			s.hear(c.hello)
			s.want(!c.paused, true, "when it is met")
			h := standby(2)
			s.wait(300*ms, h)
			s.want(true, true, "when it has acknowledged")
		})
	}
	// Nothing is given to one that was there all the time.
	s := forwarding(t, 2)
	s.wait(450*ms, Hello{Node: 2, Able: true})
	s.want(false, false, "when it has acknowledged nothing for a lease")
	// Nothing is taken from one that does not forward.
	s = alone(t, 2)
	s.wait(400 * ms)
	s.hear(deaf(2))
	if ev := s.e.Events(); len(ev) != 0 {
		t.Errorf("events %+v of one that has only listened", ev)
	}
	// One that was not heard for a moment has promised; for longer, it has not.
	for _, c := range []struct {
		silent time.Duration
		paused bool
	}{{260 * ms, false}, {420 * ms, true}} {
		s := forwarding(t, 2)
		s.hear(standby(2))
		until := s.e.until
		s.wait(c.silent)
		s.hear(deaf(2))
		s.want(!c.paused, true, "when it is heard again")
		if !c.paused && s.e.until.After(until.Add(100*ms)) {
			t.Errorf("its promise was taken for a longer one")
		}
	}
	// One that was heard before this claim has promised nothing.
	s = alone(t, 2)
	s.hear(standby(2))
	s.wait(640 * ms)
	s.want(true, true, "alone")
	s.hear(deaf(2))
	s.want(false, true, "when it is heard again")
}

// What is refused, and changes nothing.
func TestRefused(t *testing.T) {
	good := func() Hello {
		h := claimant(2)
		h.Attachment, h.Lease, h.Boot, h.Sequence, h.Acks = 7, 400*ms, 22, 100, nil
		return h
	}
	for _, c := range []struct {
		name   string
		from   uint32
		by     Channel
		change func(h *Hello)
		want   error
	}{
		{"good", 2, VLAN, func(*Hello) {}, nil},
		{"of a stranger", 9, Overlay, func(h *Hello) { h.Node = 9 }, ErrStranger},
		{"of itself", 1, Overlay, func(h *Hello) { h.Node = 1 }, ErrStranger},
		{"in another's name", 3, Overlay, func(*Hello) {}, ErrStranger},
		{"of another attachment", 2, Overlay, func(h *Hello) { h.Attachment = 8 }, ErrStranger},
		{"old", 2, VLAN, func(h *Hello) { h.Sequence = 98 - lag }, ErrOld},
		{"of another run, on the VLAN", 2, VLAN, func(h *Hello) { h.Boot = 33 }, ErrOld},
		{"of another run, on the VLAN, that acknowledges what is long past", 2, VLAN, func(h *Hello) { h.Boot, h.Acks = 33, []Ack{{1, 11, 3}} }, ErrOld},
		{"of another run, on the VLAN, that acknowledges another run", 2, VLAN, func(h *Hello) { h.Boot, h.Acks = 33, []Ack{{1, 12, 8}} }, ErrOld},
		{"of another run, that lives", 2, VLAN, func(h *Hello) { h.Boot, h.Acks = 33, []Ack{{1, 11, 0}} }, nil},
		{"of another run, by the overlay", 2, Overlay, func(h *Hello) { h.Boot = 33 }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := alone(t, 2, 3)
			s.seq[2] = 99 - 18
			s.wait(900*ms, standby(2))
			if s.seq[2] != 99 {
				t.Fatalf("sequence %d", s.seq[2])
			}
			h := good()
			c.change(&h)
			for i := range h.Acks {
				if h.Acks[i].Sequence == 0 {
					h.Acks[i].Sequence = s.last.Sequence
				}
			}
			if err := s.e.Hear(c.from, c.by, h.AppendTo(nil), s.now); !errors.Is(err, c.want) {
				t.Errorf("Hear = %v, want %v", err, c.want)
			}
			if claimed := s.e.gateways[2].bound > 0; claimed != (c.want == nil) {
				t.Errorf("its claim was taken: %v", claimed)
			}
		})
	}
	s := alone(t, 2)
	if err := s.e.Hear(2, VLAN, []byte{version}, s.now); !errors.Is(err, ErrShort) {
		t.Errorf("Hear of one byte = %v", err)
	}
}

// Another run of a gateway is believed on the VLAN when the one that was heard is silent, though it acknowledges nothing yet.
func TestNewRunAfterSilence(t *testing.T) {
	s := alone(t, 2)
	s.hear(standby(2))
	h := standby(2)
	h.Attachment, h.Boot, h.Sequence, h.Acks = 7, 33, 1, nil
	s.wait(240 * ms)
	if err := s.e.Hear(2, VLAN, h.AppendTo(nil), s.now); !errors.Is(err, ErrOld) {
		t.Errorf("while the first is alive: %v", err)
	}
	s.wait(20 * ms)
	if err := s.e.Hear(2, VLAN, h.AppendTo(nil), s.now); err != nil {
		t.Errorf("when the first is silent: %v", err)
	}
}

// The same hello by the other channel, or one that was overtaken, is no error and no news.
func TestBothChannels(t *testing.T) {
	s := alone(t, 2)
	h := claimant(2)
	h.Attachment, h.Lease, h.Boot, h.Sequence = 7, 400*ms, 22, 40
	for i, c := range []struct {
		by  Channel
		seq uint64
	}{{VLAN, 40}, {Overlay, 40}, {Overlay, 39}} {
		h.Sequence = c.seq
		h.Claims = i == 0
		s.now = s.now.Add(ms)
		if err := s.e.Hear(2, c.by, h.AppendTo(nil), s.now); err != nil {
			t.Fatal(err)
		}
	}
	g := s.e.State(s.now).Gateways[0]
	if !g.Claims || !g.Overlay.Equal(s.now) || !g.VLAN.Equal(s.now.Add(-2*ms)) || !g.Alive {
		t.Errorf("State = %+v", g)
	}
}

// A claim is answered at once, and not twice as often as it is said.
func TestReplies(t *testing.T) {
	s := alone(t, 2)
	s.wait(700 * ms)
	s = alone(t, 2)
	sent := 0
	for range 100 {
		for range 20 {
			s.now = s.now.Add(5 * ms)
			s.tick()
		}
		before := s.sent
		s.hear(claimant(2))
		s.now = s.now.Add(10 * ms)
		if s.tick(); s.sent == before {
			t.Fatal("a claim is not answered")
		}
		sent++
	}
	if s.sent > sent+2 {
		t.Errorf("%d hellos for %d claims", s.sent, sent)
	}
}

// A forwarder whom all acknowledge says no more than ten hellos a second; when they do not, more, so that one gets through in
// time.
func TestPace(t *testing.T) {
	s := forwarding(t, 2)
	sent := s.sent
	s.wait(2*time.Second, standby(2))
	if n := s.sent - sent; n < 19 || n > 21 {
		t.Errorf("%d hellos in 2 s", n)
	}
	sent = s.sent
	s.wait(350*ms, deaf(2))
	if n := s.sent - sent; n < 6 || n > 12 {
		t.Errorf("%d hellos in the 350 ms in which none is acknowledged", n)
	}
	if ev := s.e.Events(); len(ev) != 1 || ev[0].Kind != TookOver || ev[0].Reason != Acknowledged {
		t.Errorf("events %+v", ev)
	}
}

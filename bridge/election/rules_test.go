package election

import (
	"testing"
	"time"
)

// Rule 3, with nobody there: one who starts listens for the hold, then forwards.
func TestStart(t *testing.T) {
	s := alone(t, 2)
	s.wait(595 * ms)
	s.want(false, false, "while it listens")
	s.wait(15 * ms)
	s.want(true, true, "after the hold, alone")
}

// Rule 3: a claim that somebody who is heard has not acknowledged is none.
func TestClaimNeedsAcks(t *testing.T) {
	s := alone(t, 2, 3)
	s.wait(700*ms, standby(2), unable(3))
	s.want(false, true, "3 has not acknowledged")
	h := unable(3)
	h.Acks = []Ack{{}}
	s.hear(h)
	s.want(true, true, "all have acknowledged")
}

// Rule 1: the lease ends when it was sent what was acknowledged last, plus Lease; to the millisecond.
func TestLeaseEnds(t *testing.T) {
	s := forwarding(t, 2)
	s.hear(standby(2))
	sent := s.e.at[s.last.Sequence%remembered]
	s.wait(150*ms, deaf(2)) // heard, and it acknowledges nothing more
	if until := sent.Add(400 * ms); !s.e.Forwards(until.Add(-1)) || s.e.Forwards(until) {
		t.Errorf("the lease ends at %v, not at %v", s.e.until.Sub(epoch), until.Sub(epoch))
	}
	s.wait(400*ms, deaf(2))
	s.want(false, false, "after the lease")
	if s.last.Claims {
		t.Error("it still says that it claims")
	}
}

// An acknowledgement of so long ago that it is not known when it was sent extends nothing.
func TestAckOfLongAgo(t *testing.T) {
	s := forwarding(t, 2)
	s.wait(10*time.Second, standby(2))
	until := s.e.until
	for _, back := range []uint64{remembered, remembered + 1, 2*remembered - 1} {
		h := standby(2)
		h.Attachment, h.Lease, h.Boot, h.Sequence, h.Acks = 7, 400*ms, 22, 1000+back, []Ack{{1, 11, s.e.seq - back}}
		if s.e.seq-back < s.e.claimSeq {
			t.Fatalf("only %d hellos", s.e.seq)
		}
		if err := s.e.Hear(2, Overlay, h.AppendTo(nil), s.now); err != nil || s.e.until.After(until) {
			t.Errorf("%d hellos ago: %v, until %v", back, err, s.e.until.Sub(until))
		}
	}
	if g := s.e.gateways[2]; g.acked < s.e.seq-remembered {
		t.Errorf("acknowledged: %d of %d", g.acked, s.e.seq)
	}
}

// Rule 7: what is acknowledged after the lease has run out does not bring it back, however soon it comes.
func TestLeaseIsNotExtended(t *testing.T) {
	s := forwarding(t, 2)
	s.now = s.e.until
	s.hear(standby(2)) // lay unread while it was paused
	s.want(false, false, "after a pause")
	s.wait(590*ms, standby(2))
	s.want(false, false, "while it listens")
	s.wait(60*ms, standby(2))
	s.want(true, true, "after it has listened")
}

// Rule 1, alone: nothing is extended by time alone if the lease has run out first.
func TestPausedAlone(t *testing.T) {
	s := alone(t, 2)
	s.wait(800 * ms)
	s.want(true, true, "alone")
	s.now = s.now.Add(500 * ms)
	if s.e.Forwards(s.now) {
		t.Error("it forwards when it is resumed, before anything else")
	}
	s.tick()
	s.want(false, false, "after a pause")
	s.wait(590 * ms)
	s.want(false, false, "while it listens")
}

// Rule 2: a claim keeps the others off for Lease and Margin, and for the claimant's own Lease if that is longer.
func TestClaimIsRespected(t *testing.T) {
	for _, lease := range []time.Duration{400 * ms, time.Second, 100 * ms} {
		s := alone(t, 2)
		h := claimant(2)
		h.Lease = lease
		s.wait(700*ms, h)
		off := max(lease, 400*ms) + 100*ms
		heard := s.now
		s.wait(off - 5*ms)
		s.want(false, false, "before Lease and Margin have passed")
		s.wait(20 * ms)
		if s.want(true, true, "after it"); s.now.Sub(heard) > off+20*ms {
			t.Errorf("it claims after %v", s.now.Sub(heard))
		}
	}
}

// Rule 5.
func TestContested(t *testing.T) {
	s := forwarding(t, 2)
	sent := s.sent
	s.hear(claimant(2))
	s.want(false, false, "when another claims")
	if s.sent == sent || s.last.Claims {
		t.Error("it does not say so at once")
	}
	ev := s.e.Events()
	if last := ev[len(ev)-1]; last.Kind != Released || last.Reason != Contested || last.Node != 2 {
		t.Errorf("the event is %+v", last)
	}
}

// Rules 4 and 6: a better one goes first, if it is fit; the forwarder makes way after Settle.
func TestBetter(t *testing.T) {
	better := standby(2)
	better.Preference = 6
	s := alone(t, 2)
	s.wait(time.Second, better)
	s.want(false, false, "a better one is there")
	unfit := better
	unfit.Heard = false
	s.wait(100*ms, unfit)
	s.want(true, true, "it is not heard by everybody")
	s.wait(950*ms, better)
	s.want(true, true, "it has not been fit for Settle")
	s.wait(50*ms, unfit)
	s.wait(950*ms, better)
	s.want(true, true, "it has not been fit for Settle without a break")
	s = alone(t, 2)
	starts := unable(2)
	starts.Acks = []Ack{{}}
	s.wait(800*ms, starts)
	s.wait(700*ms, better)
	s.wait(290 * ms)
	s.wait(950*ms, better)
	s.want(true, true, "it was silent for a while")
	s.wait(200*ms, better)
	s.want(false, false, "it has been fit for Settle")
	s.wait(50*ms, better)
	s.wait(240 * ms)
	s.want(false, false, "it may still be alive")
	s.wait(30 * ms)
	s.want(false, true, "it is silent")

	s = alone(t, 2, 3)
	s.wait(700*ms, standby(2), unable(3))
	s.want(false, true, "3 has not acknowledged")
	s.hear(better)
	s.want(false, false, "a better one is there, and nothing was begun")
}

// Of equal preference, the hash decides: the other way round for another attachment.
func TestRank(t *testing.T) {
	first := make(map[uint32]int)
	for a := range uint32(1000) {
		x, y := rankOf(a+1, 1, 0), rankOf(a+1, 2, 0)
		if x.over(y) == y.over(x) {
			t.Fatalf("attachment %d: both or none is better", a)
		}
		if x.over(y) {
			first[1]++
		}
		if !rankOf(a+1, 2, 1).over(x) {
			t.Fatalf("attachment %d: preference does not decide", a)
		}
	}
	if first[1] < 400 || first[1] > 600 {
		t.Errorf("of 1000 attachments, 1 is first of %d", first[1])
	}
}

// Rule 8: time in which it was not called is not time in which it has listened.
func TestGapsDoNotCount(t *testing.T) {
	s := alone(t, 2)
	s.wait(700*ms, claimant(2))
	s.wait(400 * ms)
	s.now = s.now.Add(300 * ms) // paused
	s.tick()
	s.want(false, false, "after a pause, before it has read")
	s.wait(90 * ms)
	s.want(false, false, "less than Lease and Margin were listened")
	s.wait(500 * ms)
	s.want(true, true, "when it has listened")

	s = alone(t, 2)
	s.wait(700*ms, claimant(2))
	s.wait(490 * ms)
	s.now = s.now.Add(90 * ms)
	s.tick()
	s.want(false, false, "at the first call after a while")
	s.now = s.now.Add(4 * ms)
	s.tick()
	s.want(false, false, "at once after it")
	s.now = s.now.Add(2 * ms)
	s.tick()
	s.want(true, true, "when there was time to read")
}

// Nor is a claim granted by silence before what lies unread was read.
func TestSecondLook(t *testing.T) {
	s := alone(t, 2)
	s.wait(550*ms, standby(2))
	s.wait(490 * ms)
	s.want(false, true, "2 was heard in the last Lease and Margin")
	s.now = s.now.Add(90 * ms)
	s.tick()
	s.want(false, true, "at the first call after a while")
	s.now = s.now.Add(6 * ms)
	s.tick()
	s.want(true, true, "when there was time to read")
}

// A forwarder that was paused for less than its lease does not take those for gone who may have sent meanwhile.
func TestPausedForwarderStillAsks(t *testing.T) {
	s := forwarding(t, 2)
	s.hear(standby(2))
	until := s.e.until
	s.now = s.now.Add(300 * ms)
	s.tick()
	if s.e.until.After(until) {
		t.Error("its lease was extended by time alone")
	}
}

// Rule 9: who begins to be able, or has not listened, is not ready at first.
func TestReady(t *testing.T) {
	s := alone(t, 2)
	if s.tick(); s.last.Ready || !s.last.Able || len(s.last.Acks) != 0 {
		t.Errorf("when it starts it says %+v", s.last)
	}
	s.wait(500*ms, claimant(2))
	if !s.last.Ready {
		t.Error("it is not ready although it may claim in less than Lease and Margin")
	}
	s.wait(500*ms, claimant(2))
	s.e.SetConditions(Conditions{}, s.now)
	s.wait(130*ms, claimant(2))
	if s.last.Ready || s.last.Able {
		t.Errorf("without a port it says %+v", s.last)
	}
	s.e.SetConditions(good(), s.now)
	s.hear(unable(2))
	s.wait(490*ms, unable(2))
	s.want(false, false, "it has not been able for Lease and Margin")
	s.hear(claimant(2))
	s.wait(500*ms, claimant(2))
	s.now = s.now.Add(260 * ms)
	s.hear(claimant(2))
	if s.wait(20 * ms); s.last.Ready {
		t.Error("it is ready after a long pause")
	}
}

// Rule 10.
func TestExcused(t *testing.T) {
	s := alone(t, 2, 3)
	s.wait(1050*ms, standby(2), unable(3))
	s.want(false, true, "the claim is too young")
	s.wait(80*ms, standby(2), unable(3))
	s.want(true, true, "3 is not able, and does not answer")
	s.wait(2*time.Second, standby(2), unable(3))
	s.want(true, true, "it goes on")

	s = alone(t, 2)
	s.wait(650*ms, standby(2))
	h := unable(2)
	h.Leaves = true
	s.hear(h)
	s.wait(10 * ms)
	s.want(true, true, "the other one has left")
	h = unable(2)
	h.Attachment, h.Boot, h.Sequence = 7, 33, 1
	if err := s.e.Hear(2, VLAN, h.AppendTo(nil), s.now); err != nil {
		t.Errorf("it is back at once: %v", err)
	}
}

// Nothing is forwarded before the claim has been said.
func TestClaimIsSaidFirst(t *testing.T) {
	s := alone(t, 2)
	for !s.e.claims {
		s.now = s.now.Add(5 * ms)
		s.e.SetPreference(5, s.now)
	}
	s.want(false, true, "before a hello has left")
	s.tick()
	s.want(true, true, "after it")
}

// One to whom nothing gets through neither claims nor keeps its claim.
func TestUnheard(t *testing.T) {
	s := alone(t, 2)
	s.wait(1500*ms, deaf(2))
	s.want(false, false, "2 hears nothing")
	if s.last.Heard {
		t.Error("it says that it is heard by all")
	}
	s.wait(200*ms, standby(2))
	s.want(true, true, "2 hears")
	if !s.last.Heard {
		t.Error("it says that it is not heard by all")
	}

	s = alone(t, 2)
	s.wait(550*ms, standby(2))
	s.wait(200*ms, deaf(2))
	s.want(false, true, "the claim is not acknowledged")
	s.wait(900*ms, deaf(2))
	s.want(false, false, "it never is")
}

// Rule 11.
func TestAble(t *testing.T) {
	for _, c := range []struct {
		name     string
		cond     Conditions
		hears    bool
		gateways []uint32
		after    time.Duration
		want     bool
	}{
		{"all is well", good(), false, []uint32{2}, 0, true},
		{"no port", Conditions{false, true, true, true}, true, []uint32{2}, 0, false},
		{"not synced", Conditions{true, false, true, true}, true, []uint32{2}, 29 * time.Second, false},
		{"not synced for very long", Conditions{true, false, true, true}, true, []uint32{2}, 30*time.Second + 50*ms, true},
		{"no live peer", Conditions{true, true, false, true}, true, []uint32{2}, 0, false},
		{"no peers to have, another gateway is heard", Conditions{true, true, false, false}, true, []uint32{2}, 0, true},
		{"nobody is heard at all", Conditions{true, true, false, false}, false, []uint32{2}, 300 * ms, false},
		{"no peers, no other gateway", Conditions{true, true, false, false}, false, nil, 300 * ms, true},
	} {
		s := alone(t, c.gateways...)
		s.e.SetConditions(c.cond, s.now)
		for end := s.now.Add(c.after); s.now.Before(end); {
			s.now = s.now.Add(50 * ms)
			s.e.Tick(s.now)
		}
		if c.hears {
			s.hear(unable(2))
		}
		if s.e.able != c.want {
			t.Errorf("%s: able is %v", c.name, s.e.able)
		}
	}
}

// A forwarder that is no longer able stops at once and says so; one that leaves never comes back.
func TestUnableAndLeave(t *testing.T) {
	s := forwarding(t, 2)
	s.e.SetConditions(Conditions{}, s.now)
	s.want(false, false, "when it is not able")
	if s.tick(); s.last.Claims || s.last.Able {
		t.Errorf("it says %+v", s.last)
	}
	s = forwarding(t, 2)
	s.e.Leave(s.now)
	s.want(false, false, "when it leaves")
	if s.tick(); s.last.Claims || !s.last.Leaves {
		t.Errorf("it says %+v", s.last)
	}
	s.wait(2 * time.Second)
	s.want(false, false, "after it has left")
}

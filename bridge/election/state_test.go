package election

import (
	"testing"
	"time"
)

// A batch whose clock was read before the release is not forwarded after it.
func TestReleaseHoldsForOldClocks(t *testing.T) {
	s := forwarding(t, 2)
	read := s.now
	s.wait(10*ms, standby(2))
	s.hear(claimant(2))
	if s.e.Forwards(read) {
		t.Error("it forwards by an old clock")
	}
}

// Gateways come and go while the daemon runs.
func TestSetGateways(t *testing.T) {
	s := forwarding(t, 2)
	if err := s.e.SetGateways([]uint32{2, 3}, s.now); err != nil {
		t.Fatal(err)
	}
	s.wait(time.Second, standby(2))
	s.want(true, true, "a gateway was added that is not there")

	s = alone(t, 2, 3)
	s.wait(700*ms, claimant(2))
	if err := s.e.SetGateways([]uint32{3}, s.now); err != nil {
		t.Fatal(err)
	}
	s.wait(490 * ms)
	s.want(false, false, "a forwarder was removed, which may not know it yet")
	s.wait(30 * ms)
	s.want(true, true, "its lease is over")

	s = alone(t)
	s.wait(605 * ms)
	if err := s.e.SetGateways([]uint32{4}, s.now); err != nil {
		t.Fatal(err)
	}
	s.want(true, true, "an only gateway")
	s.wait(300*ms, standby(4))
	s.want(true, true, "no longer the only one")
	for _, bad := range [][]uint32{{1}, {0}, make([]uint32, MaxGateways+1)} {
		if err := s.e.SetGateways(bad, s.now); err == nil {
			t.Errorf("%v are gateways", bad)
		}
	}
}

// A claim that is given up before it was anything is no event.
func TestClaimIsNoEvent(t *testing.T) {
	s := alone(t, 2)
	s.wait(650*ms, unable(2))
	s.want(false, true, "not acknowledged")
	s.e.SetConditions(Conditions{}, s.now)
	if ev := s.e.Events(); len(ev) != 0 {
		t.Errorf("events %+v", ev)
	}
}

// Timers that would be unsafe are refused, by name.
func TestTimers(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		ok     bool
	}{
		{"defaults", func(*Config) {}, true},
		{"all a tenth", func(c *Config) { c.Timers = tenth() }, true},
		{"no hello", func(c *Config) { c.Hello = 1 }, false},
		{"half a millisecond of lease", func(c *Config) { c.Lease = 400*ms + 1 }, false},
		{"endless lease", func(c *Config) { c.Lease, c.Hold = time.Hour, 2*time.Hour }, false},
		{"margin below the ticks", func(c *Config) { c.Margin = 50 * ms }, false},
		{"alive below hello", func(c *Config) { c.Alive = 100 * ms }, false},
		{"alive as long as the lease", func(c *Config) { c.Alive = 400 * ms }, false},
		{"hold too short", func(c *Config) { c.Hold = 499 * ms }, false},
		{"negative settle", func(c *Config) { c.Settle = -1 }, false},
		{"negative patience", func(c *Config) { c.Patience = -1 }, false},
		{"no node", func(c *Config) { c.Node = 0 }, false},
		{"no attachment", func(c *Config) { c.Attachment = 0 }, false},
		{"itself among the others", func(c *Config) { c.Gateways = []uint32{1} }, false},
	} {
		cfg := Config{Attachment: 7, Node: 1, Gateways: []uint32{2}}
		c.change(&cfg)
		if _, err := New(cfg, epoch); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func tenth() Timers {
	return Timers{Hello: 10 * ms, Lease: 40 * ms, Margin: 10 * ms, Alive: 25 * ms, Hold: 60 * ms, Settle: 100 * ms, Patience: time.Second}
}

// Events are bounded, and the newest are kept.
func TestEvents(t *testing.T) {
	s := alone(t)
	for range 3 * maxEvents {
		s.e.report(TookOver, Alone, uint32(s.e.heard))
		s.e.heard++
	}
	ev := s.e.Events()
	if len(ev) != maxEvents || ev[maxEvents-1].Node != 3*maxEvents-1 || len(s.e.Events()) != 0 {
		t.Errorf("%d events, the last %+v", len(ev), ev[len(ev)-1])
	}
}

// State says where a gateway stands, in each of the phases.
func TestState(t *testing.T) {
	phase := func(s *stage, want Phase) {
		t.Helper()
		if got := s.e.State(s.now); got.Phase != want || got.Until.IsZero() == (want == Forwarding) {
			t.Errorf("State = %+v, want %q", got, want)
		}
	}
	s := alone(t, 2)
	phase(s, Waiting)
	s.wait(700*ms, claimant(2))
	phase(s, Standby)
	s.wait(300*ms, unable(2))
	phase(s, Claiming)
	s.wait(700*ms, unable(2))
	phase(s, Forwarding)
	s.e.SetConditions(Conditions{}, s.now)
	phase(s, Blocked)
	if last := s.e.State(s.now).Last; last.Kind != Released || last.Reason != PortDown {
		t.Errorf("the last event is %+v", last)
	}
	for why, c := range map[Reason]Conditions{PortDown: {}, Unsynced: {Carrier: true, Peer: true}, PeersGone: {Carrier: true, Synced: true, Peers: true}} {
		s := alone(t, 2)
		s.e.SetConditions(c, s.now)
		if got := s.e.State(s.now); got.Phase != Blocked || got.Unable != why {
			t.Errorf("with %+v: %q, since %q; want %q", c, got.Phase, got.Unable, why)
		}
	}
}

// Anybody may ask whether it forwards, while another goroutine does everything else.
func TestForwardsIsAskedByAll(t *testing.T) {
	s := alone(t, 2)
	done := make(chan int)
	go func() {
		n := 0
		for i := range 20000 {
			if s.e.Forwards(epoch.Add(time.Duration(i) * ms)) {
				n++
			}
		}
		done <- n
	}()
	s.wait(time.Second)
	if n := <-done; n >= 20000 {
		t.Errorf("it forwards always")
	}
}

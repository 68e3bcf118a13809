package policy

import (
	"sync"
	"testing"
	"time"
)

// Each budget has its limit and its refusal, and uses up no other's.
func TestLimitsAreApart(t *testing.T) {
	l := &Limits{Broadcast: 100, Multicast: 200, Control: 300, Joins: 400}
	for _, c := range []struct {
		budget  Budget
		burst   int // two seconds' worth
		refusal Verdict
	}{{Broadcasts, 200, BroadcastRate}, {Multicasts, 400, MulticastRate}, {Control, 600, ControlRate}, {Join, 800, JoinRate}} {
		var m Meter
		for n := range c.burst {
			if v := m.Take(l, c.budget, 1, time.Hour, 1); v != Pass {
				t.Fatalf("budget %d, frame %d: %q", c.budget, n, v)
			}
		}
		for range 3 {
			if v := m.Take(l, c.budget, 1, time.Hour, 1); v != c.refusal {
				t.Errorf("budget %d, one frame more: %q", c.budget, v)
			}
		}
		for other := Unlimited; other < numClasses; other++ {
			if v := m.Take(l, other, 1, time.Hour, 1); other != c.budget && v != Pass {
				t.Errorf("budget %d after budget %d: %q", other, c.budget, v)
			}
		}
	}
}

// A model keeps tokens in plain arithmetic; the meter agrees with it, whatever is sent when.
func TestMeterGolden(t *testing.T) {
	const rate, burst = 50, 100
	l := &Limits{Control: rate}
	var m Meter
	tokens, last := float64(burst), time.Duration(0)
	passed := 0
	for i := range 20_000 {
		now := last + time.Duration(i*i%37)*time.Millisecond // bursts and pauses
		tokens = min(burst, tokens+now.Seconds()*rate-last.Seconds()*rate)
		last = now
		frames := 1 + i%3
		want := Pass
		switch left := tokens - float64(frames); {
		case left > -1e-6 && left < 1e-6:
			continue // rounding decides
		case left < 0:
			want = ControlRate
		default:
			tokens = left
			passed += frames
		}
		if got := m.Look(l, Control, frames, now, 1); got != want {
			t.Fatalf("look %d at %v: %q, want %q with %v tokens", i, now, got, want, tokens)
		}
		if got := m.Take(l, Control, frames, now, 1); got != want {
			t.Fatalf("frame %d at %v: %q, want %q with %v tokens", i, now, got, want, tokens)
		}
	}
	if most := rate*last.Seconds() + burst; float64(passed) > most || float64(passed) < 0.95*most {
		t.Errorf("%d frames passed in %v, of at most %v", passed, last, most)
	}
}

func TestMeterEdges(t *testing.T) {
	none := &Limits{}
	slow := &Limits{Broadcast: 1}
	var m Meter
	for range 10_000 {
		if v := m.Take(none, Broadcasts, 64, 0, 1); v != Pass {
			t.Fatalf("no limit: %q", v)
		}
	}
	// A super-frame passes even where the limit is low, once.
	if v := m.Take(slow, Broadcasts, 64, 0, 1); v != Pass {
		t.Errorf("the largest super-frame: %q", v)
	}
	if v := m.Take(slow, Broadcasts, 1, 0, 1); v != BroadcastRate {
		t.Errorf("one frame more: %q", v)
	}
	if v := m.Take(slow, Broadcasts, 1, time.Second, 1); v != Pass {
		t.Errorf("a second later: %q", v)
	}
	if v := m.Take(slow, Broadcasts, 65, time.Hour, 1); v != BroadcastRate {
		t.Errorf("more at once than is borne: %q", v)
	}
	// A receiver bears twice as much at once, and no more.
	var late Meter
	passed := 0
	for range 1000 {
		if late.Take(&Limits{Control: 100}, Control, 1, 0, 2) == Pass {
			passed++
		}
	}
	if passed != 400 {
		t.Errorf("a receiver bears %d at once, want 400", passed)
	}
}

// A pace bears what comes within a twentieth of a second, to the frame, and no more than the limit over time, super-frames included.
func TestMeterPaced(t *testing.T) {
	for _, c := range []struct {
		rate, frames int
		every        time.Duration
		want         int // in ten seconds
	}{
		{100, 1, time.Millisecond, 1004},          // those that are due at 9.999 s and 50 ms later
		{100, 44, time.Millisecond, 44 * 23},      // 440 ms each, and the last one is owed
		{1, 1, time.Millisecond, 10},              // one a second, although that is more than a twentieth
		{1000, 1, 100 * time.Microsecond, 10_049}, //
		{1000, 1, time.Millisecond, 10_000},       // just the limit
		{0, 3, 10 * time.Millisecond, 3000},       // any number
	} {
		l, m, passed := &Limits{Broadcast: c.rate}, new(Meter), 0
		for now := time.Duration(0); now < 10*time.Second; now += c.every {
			would := m.LookPaced(l, Broadcasts, c.frames, now)
			v := m.TakePaced(l, Broadcasts, c.frames, now)
			if v != would || v != Pass && v != BroadcastRate {
				t.Fatalf("%+v: looked %q, took %q", c, would, v)
			}
			if v == Pass {
				passed += c.frames
			}
		}
		if passed != c.want {
			t.Errorf("%+v: %d passed", c, passed)
		}
	}
}

// From many goroutines together no more passes than from one.
func TestMeterTogether(t *testing.T) {
	l := &Limits{Multicast: 1000}
	var m Meter
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	for range 8 {
		wg.Go(func() {
			n := 0
			for range 2000 {
				if m.Take(l, Multicasts, 1, time.Minute, 1) == Pass {
					n++
				}
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	if total != 2000 {
		t.Errorf("%d passed, want 2000", total)
	}
	if n := testing.AllocsPerRun(100, func() { m.Take(l, Multicasts, 1, time.Hour, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The defaults let pass, for ever, what an honest host sends.
func TestDefaultLimitsBearHonestHosts(t *testing.T) {
	l := DefaultLimits()
	for _, c := range []struct {
		what      string
		budget    Budget
		perSecond int
		atOnce    int
	}{
		{"a gateway that has lost both neighbour tables", Control, 2 * 1024, 64},
		{"four streams of 50 Mbit/s", Multicasts, 4 * 50_000_000 / 8 / 1316, 44},
		{"joins of 300 groups at start, and each second of 100", Join, 100, 200},
		{"mDNS announcements of 50 services", Multicasts, 200, 200},
		{"discovery", Broadcasts, 200, 200},
	} {
		var m Meter
		for s := range 30 {
			for n := 0; n < c.perSecond; n += c.atOnce {
				now := time.Duration(s)*time.Second + time.Second*time.Duration(n)/time.Duration(c.perSecond)
				if v := m.Take(&l, c.budget, c.atOnce, now, 1); v != Pass {
					t.Fatalf("%s: second %d, frame %d: %q", c.what, s, n, v)
				}
			}
		}
	}
}

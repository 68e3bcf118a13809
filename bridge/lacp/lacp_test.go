package lacp

import (
	"slices"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

const ms = time.Millisecond

var epoch = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

var (
	ours   = System{32768, ether.MAC{2, 0, 0, 0, 0, 1}}
	theirs = System{4096, ether.MAC{0, 0, 0x5e, 0, 0x53, 9}}
)

// cable is a port, and at the other end a switch that the test plays: it answers as Open vSwitch and Linux do, at once if it is told
// something new, and every second.
type cable struct {
	*testing.T

	p    *Port
	now  time.Time
	sent []PDU       // by the port
	at   []time.Time // when

	says     End  // of the switch, but for what follows from what it hears
	silent   bool // the switch says nothing
	deaf     bool // it hears nothing
	refuses  bool // it puts the port into no aggregation
	last     PDU  // that it has said
	heard    End  // by it
	due      time.Time
	anything bool // it has heard something
}

func newCable(t *testing.T) *cable {
	t.Helper()
	p, err := New(Config{System: ours, Key: 1, Port: 7, PortPriority: 32768, MAC: ether.MAC{2, 7}})
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{T: t, p: p, now: epoch, says: End{theirs, 5, 128, 3, Activity | ShortTimeout | Aggregation}}
	p.SetConditions(Conditions{Enabled: true, Ready: true}, epoch)
	return c
}

// run lets time pass in steps of ten milliseconds.
func (c *cable) run(d time.Duration) {
	c.Helper()
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(10 * ms) {
		c.step()
	}
}

// step lets the port say what it has to say, and the switch answer.
func (c *cable) step() {
	c.Helper()
	frames, next := c.p.Tick(c.now)
	if !next.After(c.now) {
		c.Fatalf("the next call is due at %v, it is %v", next, c.now)
	}
	for _, f := range frames {
		pdu := c.parse(f)
		c.sent, c.at = append(c.sent, pdu), append(c.at, c.now)
		if !c.deaf {
			c.heard, c.anything = pdu.Actor, true
		}
	}
	pdu := c.said()
	if !c.silent && (!c.now.Before(c.due) || pdu != c.last) {
		c.due = c.now.Add(time.Second)
		c.hear(pdu)
	}
}

func (c *cable) parse(frame []byte) PDU {
	c.Helper()
	if !Is(frame) || ether.MAC(frame[6:12]) != c.p.cfg.MAC {
		c.Fatalf("sent %x", frame)
	}
	pdu, err := ParsePDU(frame[ether.HeaderLen:])
	if err != nil {
		c.Fatal(err)
	}
	return pdu
}

// said is what the switch has to say: that it is in sync if it has heard the port, and carries if the port is in sync.
func (c *cable) said() PDU {
	d := PDU{c.says, c.heard}
	if c.anything && !c.refuses {
		d.Actor.State |= Sync
		if c.heard.State&Sync != 0 {
			d.Actor.State |= Collecting | Distributing
		}
	}
	return d
}

func (c *cable) hear(pdu PDU) {
	c.Helper()
	c.last = pdu
	if err := c.p.Hear(pdu.AppendFrame(nil, ether.MAC{2, 9}), c.now); err != nil {
		c.Fatal(err)
	}
}

// is checks the state of the mux machine, the reason, and that the port tells the partner the same.
func (c *cable) is(want mux, why Reason) {
	c.Helper()
	s := c.p.Status()
	if c.p.mux != want || s.Why != why {
		c.Errorf("after %v it is %v, %q; want %v, %q", c.now.Sub(epoch), c.p.mux, s.Why, want, why)
	}
	const all = Sync | Collecting | Distributing
	if got := s.Actor.State & all; got != map[mux]State{attached: Sync, collecting: Sync | Collecting, distributing: all}[want] {
		c.Errorf("in state %v it is %v", want, got)
	}
	if c.p.Collects() != (want >= collecting) || c.p.Distributes() != (want == distributing) {
		c.Errorf("in state %v it collects: %v, distributes: %v", want, c.p.Collects(), c.p.Distributes())
	}
	if n := len(c.sent); n > 0 && !c.p.ntt && c.sent[n-1].Actor.State&all != s.Actor.State&all {
		c.Errorf("it has said %v, and is %v", c.sent[n-1].Actor.State, s.Actor.State)
	}
}

// joined is a cable whose port has joined.
func joined(t *testing.T) *cable {
	t.Helper()
	c := newCable(t)
	c.run(2500 * ms)
	c.is(distributing, "")
	if t.Failed() {
		t.FailNow()
	}
	c.sent, c.at = nil, nil
	return c
}

// A port joins 2 s after it has heard the switch, and by what it says on the way.
func TestJoin(t *testing.T) {
	c := newCable(t)
	c.run(1990 * ms)
	c.is(waiting, Waits)
	if first := c.sent[0]; first.Actor != (End{ours, 1, 32768, 7, Activity | ShortTimeout | Aggregation | Defaulted | Expired}) || first.Partner != (End{State: ShortTimeout}) {
		t.Errorf("the first says %+v", first)
	}
	c.run(20 * ms)
	c.step()
	c.is(distributing, "")
	last := c.sent[len(c.sent)-1]
	if last.Partner.System != theirs || last.Partner.Key != 5 || last.Partner.Port != 3 || last.Actor.State&(Defaulted|Expired) != 0 {
		t.Errorf("it says %+v", last)
	}
	if s, key, ok := c.p.Partner(); s != theirs || key != 5 || !ok {
		t.Errorf("partner %v, key %d: %v", s, key, ok)
	}
}

// A switch that never answers is asked every second, and told of as silent after 90 s; the port does not join by itself.
func TestNeverAnswers(t *testing.T) {
	c := newCable(t)
	c.silent = true
	c.run(2990 * ms)
	c.is(detached, NoPartner)
	if c.p.receive != expired {
		t.Errorf("receive machine is %v", c.p.receive)
	}
	c.run(20 * ms)
	if c.p.receive != defaulted || c.p.actor.State&Defaulted == 0 || c.p.actor.State&Expired != 0 {
		t.Errorf("receive machine is %v, state %v", c.p.receive, c.p.actor.State)
	}
	for _, ready := range []bool{false, true} {
		c.p.SetConditions(Conditions{Enabled: true, Ready: ready}, c.now)
		c.run(10 * time.Second)
	}
	c.run(SilentFor - 23020*ms)
	if c.p.Silent(c.now.Add(-time.Nanosecond)) {
		t.Error("it is silent too soon")
	}
	c.run(10 * ms)
	if !c.p.Silent(c.now) {
		t.Error("it is not silent")
	}
	c.is(detached, NoPartner)
	if n := len(c.sent); n != 90 && n != 91 {
		t.Errorf("%d LACPDUs in 90 s", n)
	}
	if _, _, ok := c.p.Partner(); ok {
		t.Error("it has a partner")
	}
	c.silent = false
	c.run(2500 * ms)
	c.is(distributing, "")
	if c.p.Silent(c.now) {
		t.Error("it is silent")
	}
}

// When the switch falls silent, the port is out of use 3 s later. If it is heard again soon, it need not wait to join.
func TestFallsSilent(t *testing.T) {
	for _, c := range []struct {
		away time.Duration
		why  Reason
		late time.Duration
	}{{4 * time.Second, Lost, 50 * ms}, {7 * time.Second, NoPartner, 2050 * ms}} {
		x := joined(t)
		x.due = x.now
		x.run(10 * ms)
		x.silent = true
		x.run(2980 * ms)
		x.is(distributing, "")
		x.run(30 * ms)
		x.is(attached, Lost)
		x.run(c.away - 3010*ms)
		if got := x.p.Status().Why; got != c.why {
			t.Errorf("after %v: %q, want %q", c.away, got, c.why)
		}
		if _, _, ok := x.p.Partner(); ok {
			t.Error("it has a partner")
		}
		x.silent = false
		x.run(c.late - 50*ms)
		if c.late > time.Second && x.p.Collects() {
			t.Error("it joins at once")
		}
		x.run(50 * ms)
		x.is(distributing, "")
	}
}

// Another partner, or another aggregation of it, is left at once, and joined 2 s later, like a first one.
func TestPartnerChanges(t *testing.T) {
	for name, change := range map[string]func(*End){
		"system":        func(e *End) { e.System.MAC[5]++ },
		"priority":      func(e *End) { e.System.Priority++ },
		"key":           func(e *End) { e.Key++ },
		"port":          func(e *End) { e.Port++ },
		"port priority": func(e *End) { e.PortPriority++ },
	} {
		t.Run(name, func(t *testing.T) {
			c := joined(t)
			change(&c.says)
			c.run(20 * ms)
			c.is(waiting, Waits)
			if len(c.sent) == 0 || c.sent[0].Actor.State&Sync != 0 {
				t.Errorf("it says %+v", c.sent)
			}
			c.run(1970 * ms)
			c.is(waiting, Waits)
			c.run(50 * ms)
			c.is(distributing, "")
		})
	}
}

// Two switches that speak by turns on one cable are no partner.
func TestTwoPartners(t *testing.T) {
	c := joined(t)
	for range 100 {
		c.says.System.MAC[5] ^= 1
		c.run(100 * ms)
		if c.p.Collects() {
			t.Fatal("it collects")
		}
	}
}

// What the switch says of its own port is followed within the same call.
func TestPartnerSays(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*PDU)
		want   mux
		why    Reason
	}{
		{"all is well", func(*PDU) {}, distributing, ""},
		{"not in sync", func(d *PDU) { d.Actor.State &^= Sync }, attached, OutOfSync},
		{"not collecting", func(d *PDU) { d.Actor.State &^= Collecting }, collecting, NotTaking},
		{"not distributing", func(d *PDU) { d.Actor.State &^= Distributing }, distributing, ""},
		{"individual", func(d *PDU) { d.Actor.State &^= Aggregation }, detached, Individual},
		{"has not heard the port", func(d *PDU) { d.Partner = End{} }, attached, Unknown},
		{"names another system", func(d *PDU) { d.Partner.System.MAC[5]++ }, attached, Unknown},
		{"names another priority", func(d *PDU) { d.Partner.System.Priority++ }, attached, Unknown},
		{"names another key", func(d *PDU) { d.Partner.Key++ }, attached, Unknown},
		{"names another port", func(d *PDU) { d.Partner.Port++ }, attached, Unknown},
		{"names another port priority", func(d *PDU) { d.Partner.PortPriority++ }, attached, Unknown},
		{"takes the port for an individual one", func(d *PDU) { d.Partner.State &^= Aggregation }, attached, Unknown},
		{"is passive", func(d *PDU) { d.Actor.State &^= Activity }, distributing, ""},
		{"is passive, and takes the port for passive", func(d *PDU) { d.Actor.State &^= Activity; d.Partner.State &^= Activity }, attached, OutOfSync},
		{"another of its ports", func(d *PDU) { d.Actor.Port++ }, waiting, Waits},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := joined(t)
			pdu := x.last
			c.change(&pdu)
			x.hear(pdu)
			x.is(c.want, c.why)
			// It says so, if that is something else than before: also what the switch has wrong.
			frames, _ := x.p.Tick(x.now)
			told := pdu.Partner.under(Activity|ShortTimeout|Aggregation|Sync) != x.last.Partner.under(Activity|ShortTimeout|Aggregation|Sync)
			if pdu.Partner == x.parseLast().Partner {
				told = false
			}
			if changed := c.want != distributing || told; (len(frames) == 1) != changed {
				t.Errorf("it sends %d LACPDUs", len(frames))
			}
		})
	}
}

func (c *cable) parseLast() PDU {
	if len(c.sent) == 0 {
		return PDU{}
	}
	return c.sent[len(c.sent)-1]
}

// What comes twice changes nothing, and is not answered.
func TestDuplicates(t *testing.T) {
	c := joined(t)
	c.run(time.Second)
	n := len(c.sent)
	for range 50 {
		c.hear(c.last)
	}
	c.step()
	c.is(distributing, "")
	if len(c.sent) > n+1 {
		t.Errorf("it sends %d", len(c.sent)-n)
	}
}

// A port that hears itself, or another gateway of the attachment, has no partner, whatever that says.
func TestLoopedBack(t *testing.T) {
	for name, port := range map[string]uint16{"itself": 7, "another gateway": 8} {
		c := newCable(t)
		c.silent = true
		for range 500 {
			for _, f := range c.frames() {
				pdu := c.parse(f)
				pdu.Actor.Port, pdu.Actor.State = port, pdu.Actor.State|Sync|Collecting|Distributing
				pdu.Partner = c.p.actor
				c.hear(pdu)
			}
			c.now = c.now.Add(10 * ms)
		}
		if _, _, ok := c.p.Partner(); ok {
			t.Errorf("%s: it has a partner", name)
		}
		c.is(detached, OwnSystem)
		if !c.p.Status().Heard.IsZero() {
			t.Errorf("%s is taken for a switch", name)
		}
	}
}

func (c *cable) frames() [][]byte {
	frames, _ := c.p.Tick(c.now)
	return frames
}

// A gateway that cannot carry any more says so at once, in one LACPDU; when it can, it joins after 2 s.
func TestReady(t *testing.T) {
	c := joined(t)
	c.p.SetConditions(Conditions{Enabled: true}, c.now)
	frames := c.frames()
	if len(frames) != 1 || c.parse(frames[0]).Actor.State != Activity|ShortTimeout|Aggregation {
		t.Fatalf("it says %x", frames)
	}
	c.is(detached, NotReady)
	c.run(5 * time.Second)
	c.is(detached, NotReady)
	c.p.SetConditions(Conditions{Enabled: true, Ready: true}, c.now)
	c.run(1990 * ms)
	c.is(waiting, Waits)
	c.run(50 * ms)
	c.is(distributing, "")
}

// Without a carrier nothing is said, nothing is heard, and nothing is missed.
func TestNoCarrier(t *testing.T) {
	c := joined(t)
	c.p.SetConditions(Conditions{Ready: true}, c.now)
	c.is(detached, NoCarrier)
	c.hear(c.last)
	if frames := c.frames(); len(frames) != 0 || c.p.receive != disabled {
		t.Errorf("it says %x; receive machine %v", frames, c.p.receive)
	}
	c.silent = true
	c.run(2 * SilentFor)
	if c.p.Silent(c.now) || len(c.sent) != 0 {
		t.Errorf("silent: %v; it has sent %d", c.p.Silent(c.now), len(c.sent))
	}
	c.p.SetConditions(Conditions{Enabled: true, Ready: true}, c.now)
	c.step()
	if len(c.sent) != 1 || c.p.Silent(c.now) {
		t.Errorf("with a carrier it sends %d; silent: %v", len(c.sent), c.p.Silent(c.now))
	}
	c.silent = false
	c.run(2100 * ms)
	c.is(distributing, "")
}

// It speaks as often as the partner asks for: every second or every 30 s, and at once when that becomes short.
func TestPeriodic(t *testing.T) {
	c := joined(t)
	c.run(10 * time.Second)
	if n := len(c.sent); n != 10 {
		t.Errorf("%d LACPDUs in 10 s", n)
	}
	c.says.State &^= ShortTimeout
	c.run(2 * time.Second)
	c.sent = nil
	c.run(90 * time.Second)
	if n := len(c.sent); n != 3 {
		t.Errorf("%d LACPDUs in 90 s", n)
	}
	c.is(distributing, "")
	c.says.State |= ShortTimeout
	c.sent = nil
	c.run(20 * ms)
	if n := len(c.sent); n != 1 {
		t.Errorf("%d LACPDUs when the partner wants more", n)
	}
}

// However often something changes, three LACPDUs are sent in a second at most, and the last says how it is. Who leaves says it at once.
func TestRate(t *testing.T) {
	c := joined(t)
	c.run(3 * time.Second)
	for i := range 300 {
		c.p.SetConditions(Conditions{Enabled: true, Ready: i%2 == 1}, c.now)
		c.says.Port ^= 1
		c.run(10 * ms)
	}
	for i := range c.at {
		if i >= maxSent && c.at[i].Sub(c.at[i-maxSent]) < time.Second {
			t.Errorf("four LACPDUs within %v", c.at[i].Sub(c.at[i-maxSent]))
		}
	}
	c.run(3500 * ms)
	c.is(distributing, "")
	for i := range 4 {
		c.p.SetConditions(Conditions{Enabled: true, Ready: i%2 == 1}, c.now)
		c.frames()
	}
	c.run(2500 * ms)
	for range 3 {
		c.says.Port ^= 1
		c.step()
	}
	c.p.Leave(c.now)
	frames := c.frames()
	if len(frames) != 1 || c.parse(frames[0]).Actor.State&Sync != 0 {
		t.Errorf("who leaves says %x", frames)
	}
	c.p.SetConditions(Conditions{Enabled: true, Ready: true}, c.now)
	c.run(3 * time.Second)
	c.is(detached, NotReady)
}

// A gateway whose process stood still has lost its partner when it goes on, whatever lies unread.
func TestPaused(t *testing.T) {
	c := joined(t)
	c.now = c.now.Add(10 * time.Second)
	c.p.Tick(c.now)
	c.is(attached, Lost)
}

// The time that Tick returns is soon enough: called then alone, the port does the same as if it were called all the time.
func TestDeadlines(t *testing.T) {
	often, seldom := newCable(t), newCable(t)
	often.silent, seldom.silent = true, true
	often.run(40 * time.Second)
	for seldom.now.Before(often.now) {
		frames, next := seldom.p.Tick(seldom.now)
		for range frames {
			seldom.at = append(seldom.at, seldom.now)
		}
		seldom.now = next
	}
	if !slices.Equal(often.at, seldom.at) {
		t.Errorf("at %v and %v", often.at, seldom.at)
	}
}

// An actor without numbers, or with the address of a group, is none.
func TestNew(t *testing.T) {
	good := Config{System: ours, Key: 1, Port: 7, MAC: ether.MAC{2, 7}}
	for name, change := range map[string]func(*Config){
		"key": func(c *Config) { c.Key = 0 }, "port": func(c *Config) { c.Port = 0 },
		"system": func(c *Config) { c.System.MAC[0] = 1 }, "MAC": func(c *Config) { c.MAC = ether.MAC{} },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

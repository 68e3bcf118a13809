package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
)

// TestNotHeard: a node whose stream ends keeps what it has until its report is too old, and a restart of the controller
// cuts nobody who comes back in time.
func TestNotHeard(t *testing.T) {
	edit := func(o *Options) { o.PostureMaxAge, o.PostureGrace = time.Minute, 30*time.Second }
	dir := shortDir(t)
	d := newDeskAt(t, dir, edit)
	a, b := d.join("a", d.token()).sync(), d.join("b", d.token()).sync()
	d.grant("node:b", "segment:lan")
	d.grantWhen("node:a", "segment:lan", fileIsThere)
	a.report(1, true)
	sees := func(m *machine) func() bool { return func() bool { return len(m.contents().Peers) == 1 } }
	eventually(t, "b sees a", sees(b))
	a.leave()
	eventually(t, "the stream has ended", func() bool { got, _ := d.ctl.dossiers.get(a.id); return !got.live() })
	d.clock.advance(40 * time.Second)
	tick(d)
	stays(t, "b sees a", 300*time.Millisecond, sees(b))
	d.clock.advance(20 * time.Second)
	tick(d)
	eventually(t, "b does not see a", func() bool { return len(b.contents().Peers) == 0 })
	// It comes back; its old report gives it nothing, a new one does.
	a.sync()
	stays(t, "b does not see a", 300*time.Millisecond, func() bool { return len(b.contents().Peers) == 0 })
	a.report(2, true)
	eventually(t, "b sees a", sees(b))

	d.stop()
	d = newDeskAt(t, dir, edit)
	holds := func() bool { return d.ctl.store.Model().Verdicts[2].Holds(a.id) }
	stays(t, "a holds its grant after a restart", 300*time.Millisecond, holds)
	d.clock.advance(10 * time.Second)
	tick(d)
	stays(t, "a holds its grant within the grace", 300*time.Millisecond, holds)
	d.clock.advance(20 * time.Second)
	tick(d)
	eventually(t, "a has not come back", func() bool { return !holds() })
}

// TestOlderStream: what counts is the newest report, by whatever stream; a node with two streams is heard while one is
// open that said it.
func TestOlderStream(t *testing.T) {
	d, now := newDossiers(), time.Unix(100, 0)
	one, two := &stream{node: 1}, &stream{node: 1}
	report := func(n uint64) *controlv1.PostureReport { return &controlv1.PostureReport{Sequence: n} }
	check := func(what string, sequence uint64, live bool) {
		t.Helper()
		if got, _ := d.get(1); got.report.GetSequence() != sequence || got.live() != live {
			t.Errorf("%s: sequence %d, live %v; want %d, %v", what, got.report.GetSequence(), got.live(), sequence, live)
		}
	}
	d.take(one, report(5), now)
	check("first", 5, true)
	d.take(two, report(5), now)
	d.ended(one, now)
	check("said by the other, too", 5, true)
	d.take(one, report(4), now)
	check("late", 5, true)
	d.take(one, report(6), now)
	d.ended(two, now)
	check("newer", 6, true)
	d.ended(one, now)
	check("all ended", 6, false)
	d.take(two, report(3), now)
	check("after a restart with its clock set back", 3, true)
	d.take(two, nil, now)
	if got, _ := d.get(1); got.report != nil || !got.live() {
		t.Error("an ill-formed report does not take the place of the last one")
	}
	d.forget(1)
	if _, ok := d.get(1); ok {
		t.Error("forgotten, and there")
	}
}

// TestTwoJudges: of two controllers the one that does not hear a node leaves its verdict alone; when it doubts, the other
// one speaks for the node; when neither hears it, it is lost.
func TestTwoJudges(t *testing.T) {
	edit := func(o *Options) { o.PostureMaxAge, o.PostureGrace = time.Minute, time.Second }
	first := newDesk(t, edit)
	second := beside(t, first, edit)
	token := first.token()
	eventually(t, "the second knows the token", func() bool { return second.ctl.store.Model().Tokens[tokenIDOf(token)] != nil })
	a := second.join("a", token).sync()
	eventually(t, "the first knows the node", func() bool { return first.ctl.store.Model().Nodes[a.id] != nil })
	first.grantWhen("node:a", "segment:lan", fileIsThere)
	a.report(1, true)
	eventually(t, "a has it, by the second", granted(a))
	version := second.ctl.store.Model().Version // the first may not have heard of it yet
	eventually(t, "the first has doubted, and the second answered", func() bool {
		m := first.ctl.store.Model()
		return m.Version > version && len(m.Verdicts[1].Doubts) == 0
	})
	entries, _ := auditEntries(t, first)
	if n := len(entries); !strings.Contains(entries[n-2].Detail, "doubted") || !strings.Contains(entries[n-1].Detail, "heard") {
		t.Errorf("audit: %v", entries[n-2:])
	}
	version = first.ctl.store.Model().Version
	first.clock.advance(30 * time.Second)
	tick(first)
	stays(t, "the first does not doubt again at once", 1200*time.Millisecond, func() bool { return first.ctl.store.Model().Version == version })
	if !granted(a)() {
		t.Error("a was cut by a doubt")
	}

	a.leave()
	eventually(t, "the second does not hear it", func() bool { got, _ := second.ctl.dossiers.get(a.id); return !got.live() })
	second.clock.advance(61 * time.Second)
	tick(second)
	eventually(t, "there is a doubt", func() bool {
		v := second.ctl.store.Model().Verdicts[1]
		return v.Holds(a.id) && v.Doubted(a.id) != nil
	})
	second.clock.advance(doubtTime)
	tick(second)
	eventually(t, "a has lost it", func() bool { return !first.ctl.store.Model().Verdicts[1].Holds(a.id) })
	must(t, auditWhole(t, first))
}

// TestJudgesDisagree: a controller that has an older report does not undo what another found by a newer one, and
// neither does one whose clock differs.
func TestJudgesDisagree(t *testing.T) {
	first := newDesk(t)
	second := beside(t, first)
	token := first.token()
	eventually(t, "the second knows the token", func() bool { return second.ctl.store.Model().Tokens[tokenIDOf(token)] != nil })
	a := first.join("a", token).sync()
	eventually(t, "the second knows the node", func() bool { return second.ctl.store.Model().Nodes[a.id] != nil })
	there := &machine{d: second, name: "a", keys: a.keys, seen: make(chan *controlv1.ControllerMessage, 10)}
	there.use(a.leaf)
	there.sync()
	first.grantWhen("node:a", "segment:lan", fileIsThere)
	a.report(5, true)
	there.report(5, true)
	eventually(t, "both have judged", func() bool {
		got, ok := second.ctl.dossiers.get(a.id)
		return ok && got.live() && second.ctl.store.Model().Verdicts[1].Holds(a.id)
	})
	a.report(6, false) // the second still has number 5
	eventually(t, "a has lost it", func() bool { return !second.ctl.store.Model().Verdicts[1].Holds(a.id) })
	version := second.ctl.store.Model().Version // the first may be behind
	stays(t, "the two agree", 1500*time.Millisecond, func() bool { return second.ctl.store.Model().Version <= version })
	there.report(6, false)
	there.report(7, true)
	eventually(t, "what is newer counts, whoever has it first", func() bool { return second.ctl.store.Model().Verdicts[1].Holds(a.id) })
	a.report(7, true)
	eventually(t, "the first has it, too", func() bool { got, _ := first.ctl.dossiers.get(a.id); return got.report.GetSequence() == 7 })

	// At the edge of a time window one clock is ahead. One opens it, the other does not close it again.
	edge := second.clock.now().Add(time.Hour)
	first.clock.advance(time.Hour + time.Second)
	first.grantWhen("node:a", "segment:lan", fmt.Sprintf("now > timestamp(%q)", edge.Format(time.RFC3339)))
	eventually(t, "the window is open", func() bool { return second.ctl.store.Model().Verdicts[2].Holds(a.id) })
	version = second.ctl.store.Model().Version
	stays(t, "it is open", 1500*time.Millisecond, func() bool { return second.ctl.store.Model().Version <= version })
}

// TestGainsAreLimited: a node that changes its mind all the time may lose at once, but not gain again and again.
func TestGainsAreLimited(t *testing.T) {
	d := newDesk(t, func(o *Options) {
		o.Limits.Changes, o.Limits.ChangeBurst, o.CertificateLifetime = 0.001, 4, 24*time.Hour
	})
	a := d.join("a", d.token()).sync()
	d.grantWhen("node:a", "segment:lan", fileIsThere)
	gained := 0
	for i := range 6 {
		a.report(uint64(2*i+1), true)
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end) && !granted(a)(); time.Sleep(time.Millisecond) {
		}
		if granted(a)() {
			gained++
		}
		a.report(uint64(2*i+2), false)
		eventually(t, "it is lost", withheld(a))
	}
	if gained == 0 || gained > 4 {
		t.Errorf("it gained %d times with four changes", gained)
	}
}

// TestNoRoom: that a newcomer finds no address on the segment does not keep the grant with who has lost it.
func TestNoRoom(t *testing.T) {
	d := newDesk(t)
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "small", Ipv4Prefix: "10.0.0.0/30"})
	must(t, err)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.grantWhen("label:a=b", "segment:small", fileIsThere)
	var all []*machine
	for i := range 3 {
		m := d.join(fmt.Sprint("n", i), token).sync()
		m.report(1, i < 2)
		all = append(all, m)
	}
	eventually(t, "two have the two addresses", func() bool { return granted(all[0])() && granted(all[1])() })
	all[2].report(2, true)
	all[0].report(2, false)
	eventually(t, "the first has lost it", withheld(all[0]))
}

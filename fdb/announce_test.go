package fdb

import (
	"math"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// Places 1 to 9 are our own, as far as these tests go; behind those from 10 on is who announces. Of equal numbers, the lower place wins.
func newAnnounced(l Limits) *Table[int] {
	tab := New[int](l)
	tab.SetAnnouncers(announcing)
	return tab
}

// RFC 7432 sections 7.7 and 15.
func TestMobility(t *testing.T) {
	type step struct {
		port     int
		announce bool
		seq      uint32
		outcome  Outcome
		at       int // where it is then
		number   uint32
	}
	frame := func(port int, outcome Outcome, at int, number uint32) step {
		return step{port, false, 0, outcome, at, number}
	}
	said := func(port int, seq uint32, outcome Outcome, at int, number uint32) step {
		return step{port, true, seq, outcome, at, number}
	}
	for name, steps := range map[string][]step{
		"first here":                  {frame(1, Learned, 1, 0)},
		"each move is one more":       {frame(1, Learned, 1, 0), frame(2, Moved, 2, 1), frame(1, Moved, 1, 2)},
		"known from a peer, now here": {said(11, 4, Learned, 11, 4), frame(1, Moved, 1, 5)},
		"a higher number":             {frame(1, Learned, 1, 0), said(11, 1, Moved, 11, 1), said(12, 2, Moved, 12, 2), said(11, 1, Outdated, 12, 2)},
		"equal numbers":               {said(12, 3, Learned, 12, 3), said(11, 3, Moved, 11, 3), said(12, 3, Outdated, 11, 3)},
		"equal numbers, we are first": {frame(1, Learned, 1, 0), said(11, 0, Outdated, 1, 0)},
		"the same peer, again":        {said(11, 3, Learned, 11, 3), said(11, 3, Known, 11, 3), said(11, 5, Known, 11, 5)},
		"the same peer begins anew":   {said(11, 3, Learned, 11, 3), said(11, 0, Known, 11, 0)},
		"a frame overtakes":           {said(11, 3, Learned, 11, 3), frame(12, Deferred, 11, 3), said(12, 4, Moved, 12, 4), frame(12, Known, 12, 4)},
		"a late frame":                {frame(1, Learned, 1, 0), frame(12, Deferred, 1, 0), frame(1, Known, 1, 0)},
		"frames teach what nobody said": {
			frame(12, Learned, 12, 0), frame(11, Moved, 11, 1), said(12, 0, Moved, 12, 0), frame(11, Deferred, 12, 0),
		},
		"what frames taught is announced": {frame(12, Learned, 12, 0), said(12, 7, Known, 12, 7), frame(11, Deferred, 12, 7)},
		"the last number":                 {said(11, math.MaxUint32, Learned, 11, math.MaxUint32), frame(1, Moved, 1, math.MaxUint32)},
	} {
		tab, now := newAnnounced(Limits{}), time.Now()
		for i, s := range steps {
			var got Outcome
			if s.announce {
				got = tab.Announce(mac(1), s.port, s.seq, now, lower)
			} else {
				got = tab.Learn(mac(1), s.port, now)
			}
			if got != s.outcome {
				t.Errorf("%s: step %d: %d, want %d", name, i, got, s.outcome)
			}
			if e := tab.Entries(now); len(e) != 1 || e[0].Port != s.at || e[0].Seq != s.number {
				t.Errorf("%s: step %d: %+v, want place %d and number %d", name, i, e, s.at, s.number)
			}
		}
	}
}

// What was announced stays until it is withdrawn, pinned over, or moves; the silence of its frames means nothing.
func TestAnnouncedStays(t *testing.T) {
	tab, now := newAnnounced(Limits{}), time.Now()
	for _, m := range []ether.MAC{mac(1), mac(2), mac(3)} {
		tab.Announce(m, 11, 1, now, lower)
	}
	later := now.Add(time.Hour)
	if n := tab.Age(later) + flushDynamic(tab); n != 0 {
		t.Errorf("%d are gone", n)
	}
	want(t, tab, mac(1), later, 11)
	if e := tab.Entries(later)[0]; e.Kind != Announced || e.Kind.String() != "announced" || e.Idle != time.Hour {
		t.Errorf("Entries = %+v", e)
	}
	tab.AddStatic(mac(2), 1)
	if tab.Retract(mac(2), 1) || tab.Retract(mac(2), 11) || tab.Retract(mac(1), 12) || tab.Retract(mac(9), 11) {
		t.Error("somebody withdraws what is not his")
	}
	if !tab.Retract(mac(1), 11) || tab.Retract(mac(1), 11) {
		t.Error("Retract does not say whether there was something")
	}
	want(t, tab, mac(1), later, 0)
	want(t, tab, mac(2), later, 1)
	want(t, tab, mac(3), later, 11)
}

// A peer cannot announce away what is pinned or frozen, nor what no station has.
func TestAnnounceIsRefused(t *testing.T) {
	tab, now := newAnnounced(Limits{}), time.Now()
	tab.AddStatic(mac(2), 1)
	tab.AddSticky(mac(3), 1, now)
	tab.AddStatic(mac(4), 11)
	now = flapping(tab, now)
	for name, c := range map[string]struct {
		mac  ether.MAC
		want Outcome
	}{
		"frozen": {mac(1), Frozen}, "static": {mac(2), Refused}, "sticky": {mac(3), Refused}, "static there": {mac(4), Known},
		"everybody": {ether.Broadcast, Refused}, "nobody": {ether.MAC{}, Refused}, "a group": {ether.MAC{1, 0, 0x5e}, Refused},
	} {
		before := tab.Entries(now)
		if got := tab.Announce(c.mac, 11, 9, now, lower); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		if after := tab.Entries(now); len(after) != len(before) {
			t.Errorf("%s: the table is now %+v", name, after)
		}
	}
	if tab.Entries(now)[3].Kind != Static {
		t.Error("an announcement makes of a static entry something else")
	}
}

// An address that peers announce to and fro is frozen, as one that frames move.
func TestAnnounceFreezes(t *testing.T) {
	tab, now := newAnnounced(Limits{}), time.Now()
	tab.Learn(mac(1), 1, now)
	for i := range uint32(4) {
		if got := tab.Announce(mac(1), 10+int(i%3), i+1, now, lower); got != Moved {
			t.Errorf("move %d: %d", i, got)
		}
	}
	if got := tab.Announce(mac(1), 12, 9, now, lower); got != Frozen {
		t.Errorf("the fifth: %d", got)
	}
	want(t, tab, mac(1), now, 1)
	// It is ours again, with a number above all that was said.
	if list, _, _ := tab.Changes(0); len(list) != 1 || list[0].Seq != 10 {
		t.Errorf("Changes = %+v", list)
	}
}

// Announcements count towards the limit of who makes them, and evict only his.
func TestAnnouncedLimit(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		full  Full
		first int // of those that are there in the end
	}{{Evict, 90}, {Refuse, 0}} {
		tab := newAnnounced(Limits{PerPort: 10, Full: c.full})
		tab.Learn(mac(1000), 1, now)
		for i := range 100 {
			tab.Announce(mac(i), 11, 0, now.Add(time.Duration(i)), lower)
		}
		e := tab.Entries(now)
		if len(e) != 11 || e[0].MAC != mac(c.first) || e[10].MAC != mac(1000) {
			t.Errorf("%+v: %+v", c, e)
		}
	}
}

// G11: five thousand addresses of a peer go by one call; others' stay, and so does what is pinned there.
func TestWithdraw(t *testing.T) {
	tab, now := newAnnounced(Limits{PerPort: 6000}), time.Now()
	for i := range 5000 {
		tab.Announce(mac(i), 11, 0, now, lower)
	}
	tab.Announce(mac(9001), 12, 0, now, lower)
	tab.Learn(mac(9002), 1, now)
	tab.AddStatic(mac(9003), 11)
	tab.Learn(mac(9004), 11, now)
	began := time.Now()
	if n := tab.Withdraw(func(p int) bool { return p == 11 }); n != 5001 {
		t.Errorf("Withdraw = %d", n)
	}
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if e := tab.Entries(now); len(e) != 3 || e[0].MAC != mac(9001) || e[1].MAC != mac(9002) || e[2].MAC != mac(9003) {
		t.Errorf("left are %+v", e)
	}
	if n := tab.Withdraw(func(p int) bool { return p == 11 }); n != 0 {
		t.Errorf("again: %d", n)
	}
	if s := tab.Stats(); s.Entries != 3 || tab.count != 2 {
		t.Errorf("counts are %+v, %d", s, tab.count)
	}
}

// A number outlives its entry, for as many addresses as the table has room for by half, and takes no more room than that.
func TestPast(t *testing.T) {
	tab, now := newAnnounced(Limits{Entries: 8}), time.Now()
	for i := range 100 {
		tab.Announce(mac(i), 11, 5, now, lower)
		tab.Retract(mac(i), 11)
	}
	for i, seq := range map[int]uint32{99: 6, 96: 6, 0: 0} {
		tab.Learn(mac(i), 1, now)
		if list, _, _ := tab.Changes(0); list[len(list)-1].Seq != seq {
			t.Errorf("address %d has %+v, want number %d", i, list, seq)
		}
		flushDynamic(tab)
	}
	if n := len(tab.past.young) + len(tab.past.old); n > 8 {
		t.Errorf("%d numbers are kept", n)
	}
}

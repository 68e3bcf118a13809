package fdb

import (
	"testing"
	"time"
)

// What another announces of a place that is one's own, too, stays there: a frame from there makes it one's own, without a move; all say the
// highest number; and a withdrawal takes only what nobody has seen here.
func TestShared(t *testing.T) {
	tab, now := newAnnounced(Limits{}), time.Now()
	if o := tab.Announce(mac(1), 1, 4, now, lower); o != Learned {
		t.Errorf("announced: %d", o)
	}
	if list, _, _ := tab.Changes(0); len(list) != 0 {
		t.Errorf("it is told as our own: %+v", list)
	}
	check := func(what string, kind Kind, seq uint32, ours int) {
		t.Helper()
		e := tab.Entries(now)
		if len(e) != 1 || e[0].Port != 1 || e[0].Kind != kind || e[0].Seq != seq || e[0].Moves != 0 {
			t.Errorf("%s: %+v", what, e)
		}
		if list, _, _ := tab.Changes(0); len(list) != ours {
			t.Errorf("%s: our own are %+v", what, list)
		}
	}
	if o := tab.Learn(mac(1), 1, now); o != Known {
		t.Errorf("seen: %d", o)
	}
	check("seen here, too", Dynamic, 4, 1)
	tab.Announce(mac(1), 1, 6, now, lower)
	check("announced with a higher number", Dynamic, 6, 1)
	tab.Announce(mac(1), 1, 5, now, lower)
	check("with a lower one", Dynamic, 6, 1)
	if tab.Retract(mac(1), 1) {
		t.Error("what is seen here is withdrawn by another")
	}
	check("withdrawn by the other", Dynamic, 6, 1)

	tab = newAnnounced(Limits{})
	tab.Announce(mac(1), 1, 4, now, lower)
	if !tab.Retract(mac(1), 1) {
		t.Error("what nobody has seen here is not withdrawn")
	}
	want(t, tab, mac(1), now, 0)
	if n := testing.AllocsPerRun(100, func() { tab.Learn(mac(2), 1, now); tab.Learn(mac(2), 1, now) }); n > 1 {
		t.Errorf("Learn allocates %v times", n)
	}
}

// An address whose place is called otherwise has not moved, however often.
func TestRename(t *testing.T) {
	tab, now := newAnnounced(Limits{Moves: 2}), time.Now()
	tab.Announce(mac(1), 11, 4, now, lower)
	for range 10 {
		if !tab.Rename(mac(1), 11, 12, now) || !tab.Rename(mac(1), 12, 11, now) {
			t.Fatal("it is not renamed")
		}
	}
	if e := tab.Entries(now)[0]; e.Moves != 0 || e.Frozen || e.Port != 11 || e.Seq != 4 || e.Kind != Announced {
		t.Errorf("%+v", e)
	}
	tab.Learn(mac(2), 1, now)
	if tab.Rename(mac(1), 12, 13, now) || tab.Rename(mac(2), 1, 2, now) || tab.Rename(mac(3), 11, 12, now) {
		t.Error("what is elsewhere, is our own, or is not there is renamed")
	}
	if n := tab.Withdraw(func(p int) bool { return p == 11 }); n != 1 {
		t.Errorf("%d are behind it", n)
	}
}

// A place that is full takes no more by being renamed, or makes room as it does otherwise.
func TestRenameFull(t *testing.T) {
	for full, wantNew := range map[Full]bool{Refuse: false, Evict: true} {
		tab, now := newAnnounced(Limits{PerPort: 1, Full: full}), time.Now()
		tab.Announce(mac(1), 11, 1, now, lower)
		tab.Announce(mac(2), 12, 1, now, lower)
		if got := tab.Rename(mac(1), 11, 12, now); got != wantNew {
			t.Errorf("full %d: renamed: %v", full, got)
		}
		if n := tab.Stats().Entries; n != 2-boolInt(wantNew) {
			t.Errorf("full %d: %d entries", full, n)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

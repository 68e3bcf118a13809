package model

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// day is a time n days after some day.
func day(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }

// onLAN is a node with a station on segment 1, which enrolled on a day.
func onLAN(id identity.ID, token string, labels ...string) *Node {
	n := node(id, labels...)
	n.Token, n.Enrolled = token, day(1)
	n.Stations = []Station{{VNI: 1, MAC: MAC{2, byte(id)}, Mode: ModeNone}}
	return n
}

// TestLocks: who is locked by what, what that does to the segment, and what they are told.
func TestLocks(t *testing.T) {
	pending, removed, old := onLAN(5, "t2"), onLAN(6, "t1", "lost=yes"), onLAN(7, "t2")
	pending.OwnStatus, removed.OwnStatus, removed.Forgotten = StatusPending, StatusRemoved, true
	old.OwnStatus, old.Message, old.CutAt, old.SlotUntil = StatusLocked, "old", day(2), day(20)
	late := onLAN(8, "t9", "lost=yes")
	late.Enrolled = day(9)
	m := seated(t, facts(
		segment(1, "10.64.0.0/20"), &Grant{ID: 1, Label: "all=1", VNI: 1},
		onLAN(1, "t2", "all=1"), onLAN(2, "t2", "all=1", "lost=yes", "lost=yes"), onLAN(3, "t1", "all=1"), onLAN(4, "t1", "all=1", "lost=yes"),
		pending, removed, old, late, &Token{ID: "t1"}, &Token{ID: "t2"},
		&Lock{ID: 1, Label: "lost=yes", Message: "stolen", Created: day(3), Expires: day(30), SlotUntil: day(15)},
		&Lock{ID: 2, Token: "t1", Message: "leaked", Created: day(4), Expires: day(40), SlotUntil: day(16)},
		&Lock{ID: 3, Node: 4, Message: "stolen", Created: day(5)},
		&Lock{ID: 4, Node: 5, Created: day(5)},
		&Lock{ID: 5, Node: 6, Created: day(5)},
		&Lock{ID: 6, Label: "none=1", Created: day(5)},
	))
	for id, want := range map[identity.ID]struct {
		status  Status
		locks   string
		message string
		until   time.Time
		cut     time.Time
		slot    time.Time
	}{
		1: {status: StatusActive, locks: "[]"},
		2: {StatusLocked, "[1]", "stolen", day(30), day(3), day(15)},
		3: {StatusLocked, "[2]", "leaked", day(40), day(4), day(16)},
		4: {StatusLocked, "[1 2 3]", "stolen; leaked", time.Time{}, day(3), day(16)},
		5: {StatusLocked, "[4]", "", time.Time{}, day(5), time.Time{}},
		6: {status: StatusRemoved, locks: "[]"},
		7: {StatusLocked, "[0]", "old", time.Time{}, day(2), day(20)},
		8: {StatusLocked, "[1]", "stolen", day(30), day(9), day(15)},
	} {
		n := m.Nodes[id]
		var locks []LockID
		for _, l := range m.LocksOn(n) {
			locks = append(locks, l.ID)
		}
		if m.Status(n) != want.status || fmt.Sprint(locks) != want.locks {
			t.Errorf("node %d is %s by locks %v, want %s by %s", id, m.Status(n), locks, want.status, want.locks)
		}
		if message, until := m.Why(n); message != want.message || !until.Equal(want.until) {
			t.Errorf("node %d is told %q until %v, want %q until %v", id, message, until, want.message, want.until)
		}
		if at, slot := m.CutAt(n), m.CredentialUntil(n); !at.Equal(want.cut) || !slot.Equal(want.slot) {
			t.Errorf("node %d was cut at %v, credential until %v, want %v and %v", id, at, slot, want.cut, want.slot)
		}
		if p := m.NodeProto(n); p.GetStatus() != want.status.Proto() || p.GetMessage() != want.message || len(p.GetLocks()) != len(locks) ||
			(p.GetLockedUntil() != nil) != !want.until.IsZero() {
			t.Errorf("node %d travels as %v", id, p)
		}
	}
	lan := m.MemberOf(1)[0]
	if got := members(lan); !slices.Equal(got, []identity.ID{1}) {
		t.Errorf("members: %v", got)
	}
	if want := []identity.ID{2, 3, 4, 5, 7, 8}; !slices.Equal(lan.Revoked, want) {
		t.Errorf("revoked: %v, want %v", lan.Revoked, want)
	}
	if l := m.LockOnToken("t1"); l == nil || l.ID != 2 {
		t.Errorf("token t1 is locked by %v", l)
	}
	if l := m.LockOnToken("t2"); l != nil {
		t.Errorf("token t2 is locked by %v", l)
	}
	if l := m.LockOnToken(""); l != nil {
		t.Errorf("no token at all is locked by %v", l)
	}
}

// TestUnlock: whoever no lock selects any more is back where it was, with its own station.
func TestUnlock(t *testing.T) {
	f := facts(segment(1, "10.64.0.0/20"), &Grant{ID: 1, Label: "all=1", VNI: 1}, onLAN(1, "", "all=1"), onLAN(2, "", "all=1", "lost=yes"))
	free := Derive(f, 1, nil)
	locked := maps.Clone(f)
	locked["lock/1"] = &Lock{ID: 1, Label: "lost=yes", Created: day(2)}
	mid := Derive(locked, 2, free)
	if v := mid.MemberOf(1)[0]; len(v.Members) != 1 || !slices.Equal(v.Revoked, []identity.ID{2}) || len(mid.MemberOf(2)) != 0 {
		t.Fatalf("locked: %+v", v)
	}
	again := Derive(f, 3, mid)
	if v := again.MemberOf(2)[0]; len(v.Members) != 2 || len(v.Revoked) != 0 || again.Vacant() {
		t.Errorf("unlocked: %+v", v)
	}
	if again.Status(again.Nodes[2]) != StatusActive {
		t.Errorf("it is %s", again.Status(again.Nodes[2]))
	}
}

// TestOldLockIsKept: the record of a node that an older program locked is read, and the node is locked.
func TestOldLockIsKept(t *testing.T) {
	key := `"` + strings.Repeat("AAAA", 10) + `AAA="`
	old := `{"id":7,"name":"n","roles":["member"],"status":"locked","message":"lost","sign":` + key + `,"static":` + key +
		`,"token":"","enrolled":"2026-01-01T00:00:00Z","serial":"","expires":"2026-01-01T00:00:00Z","certified_until":"2026-01-01T00:00:00Z",` +
		`"relay_slot":1,"cut_at":"2026-01-02T00:00:00Z","slot_until":"2026-01-03T00:00:00Z"}`
	f, err := Decode("node/7", []byte(old))
	must(t, err)
	m := Derive(facts(f), 1, nil)
	n := m.Nodes[7]
	if message, _ := m.Why(n); m.Status(n) != StatusLocked || message != "lost" || len(m.LocksOn(n)) != 1 || !m.CutAt(n).Equal(day(2)) {
		t.Errorf("it is %s by %v", m.Status(n), m.LocksOn(n))
	}
}

func TestLockTargets(t *testing.T) {
	m := Derive(facts(node(1), &Token{ID: "0123456789ab"}), 1, nil)
	for target, want := range map[string]Lock{
		"node:n1":            {Node: 1},
		"label:a=b":          {Label: "a=b"},
		"token:0123456789ab": {Token: "0123456789ab"},
	} {
		l, err := m.LockOf(target)
		if err != nil || !l.SameTarget(&want) || l.Target != target {
			t.Errorf("%s is %+v, %v", target, l, err)
		}
	}
	for target, want := range map[string]string{
		"node:x":      "`etherloom node list`",
		"token:x":     "`etherloom token list`",
		"label:x":     "label",
		"segment:lan": "node:NAME, label:KEY=VALUE or token:ID, found \"segment:lan\"",
		"":            "node:NAME",
		"node:":       "no node",
		"token:":      "no token",
	} {
		if l, err := m.LockOf(target); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", target, l, err)
		}
	}
}

// TestExtend: to lock again lengthens a lock and never shortens it.
func TestExtend(t *testing.T) {
	for _, c := range []struct {
		have, more, want time.Time
	}{
		{day(5), day(7), day(7)},
		{day(7), day(5), day(7)},
		{time.Time{}, day(5), time.Time{}},
		{day(5), time.Time{}, time.Time{}},
	} {
		l := &Lock{ID: 3, Message: "first", Expires: c.have}
		if got := l.Extend(&Lock{Expires: c.more}); !got.Expires.Equal(c.want) || got.Message != "first" || got.ID != 3 {
			t.Errorf("%v extended by %v is %v, want %v", c.have, c.more, got, c.want)
		}
		if got := l.Extend(&Lock{Expires: c.more, Message: "second"}); got.Message != "second" || l.Message != "first" {
			t.Errorf("message is %q, and was %q", got.Message, l.Message)
		}
	}
}

// TestLockProperty holds the derived locks against the plain rule: for each node, ask each lock.
func TestLockProperty(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	for range 300 {
		f := facts()
		for id := identity.ID(1); id <= 6; id++ {
			n := node(id, pick("a=1", "a=2"), pick("b=1", "b=2"))
			n.Token = pick("", "t1", "t2")
			n.OwnStatus = []Status{StatusActive, StatusActive, StatusPending, StatusRemoved, StatusLocked}[r.IntN(5)]
			f[n.Key()] = n
		}
		for id := LockID(1); id <= LockID(r.IntN(4)); id++ {
			l := &Lock{ID: id}
			switch r.IntN(3) {
			case 0:
				l.Node = identity.ID(1 + r.IntN(7))
			case 1:
				l.Label = pick("a=1", "a=2", "b=1", "c=1")
			case 2:
				l.Token = pick("t1", "t2", "t3")
			}
			f[l.Key()] = l
		}
		m := Derive(f, 1, nil)
		for _, n := range m.Nodes {
			want := n.OwnStatus
			for _, l := range m.Locks {
				if want != StatusRemoved && l.Selects(n) {
					want = StatusLocked
				}
				if got := slices.Contains(m.Selected(l), n); got != (n.OwnStatus != StatusRemoved && l.Selects(n)) {
					t.Fatalf("lock %+v selects %+v: %v", l, n, got)
				}
			}
			if got := m.Status(n); got != want {
				t.Fatalf("%+v is %s, want %s, by %v", n, got, want, m.Locks)
			}
		}
	}
}

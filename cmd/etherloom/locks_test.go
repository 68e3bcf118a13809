package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
)

// TestLockTarget: a lock and its lifting name exactly one thing.
func TestLockTarget(t *testing.T) {
	for _, c := range []struct {
		name, label, token, lock string
		target                   string
		id                       uint32
		err                      string
	}{
		{name: "a", target: "node:a"},
		{label: "site=x", target: "label:site=x"},
		{token: "0123456789ab", target: "token:0123456789ab"},
		{lock: "7", id: 7},
		{lock: "lock/7", id: 7},
		{err: "one of NAME, --label KEY=VALUE and --token ID, found 0, or --lock NUMBER"},
		{name: "a", label: "site=x", err: "found 2"},
		{name: "a", token: "x", label: "y=z", err: "found 3"},
		{name: "a", lock: "7", err: "--lock names a lock by itself"},
		{label: "site=x", lock: "7", err: "--lock names a lock by itself"},
		{lock: "x", err: "`etherloom node locks`"},
		{lock: "0", err: "`etherloom node locks`"},
		{lock: "-1", err: "`etherloom node locks`"},
	} {
		var args []string
		if c.name != "" {
			args = []string{c.name}
		}
		r, err := unlockRequest(&target{c.label, c.token}, c.lock, args)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v", c, err)
		}
		if r.GetTarget() != c.target || r.GetId() != c.id {
			t.Errorf("%+v: %v", c, r)
		}
	}
}

func TestLockSummary(t *testing.T) {
	at := time.Date(2030, 1, 31, 18, 0, 0, 0, time.Local)
	for want, l := range map[string]*v1.Lock{
		"lock 3 on node:a, until it is lifted; locked: a": {Id: 3, Target: "node:a", Nodes: []string{"a"}},
		"lock 4 on label:x=y, until 2030-01-31 18:00:00; locked: a, b": {
			Id: 4, Target: "label:x=y", Nodes: []string{"a", "b"}, Expires: timestamppb.New(at),
		},
		"lock 5 on label:x=y, until it is lifted; it selects no machine now; one that joins and is selected will be locked": {Id: 5, Target: "label:x=y"},
	} {
		if got := lockSummary(l); got != want {
			t.Errorf("%v:\n%s\nwant\n%s", l, got, want)
		}
	}
}

// TestStatusText: the list of machines says by what and until when one is locked.
func TestStatusText(t *testing.T) {
	at := time.Date(2030, 1, 31, 18, 0, 0, 0, time.Local)
	locked := &v1.Node{
		Status: v1.NodeStatus_NODE_STATUS_LOCKED, LockedUntil: timestamppb.New(at),
		Locks: []*v1.Lock{{Id: 0, Target: "node:a"}, {Id: 2, Target: "label:x=y", Expires: timestamppb.New(at)}},
	}
	if got := statusText(locked); got != "locked until 2030-01-31 18:00:00 (node:a, label:x=y)" {
		t.Errorf("locked: %q", got)
	}
	if got := statusText(&v1.Node{Status: v1.NodeStatus_NODE_STATUS_ACTIVE}); got != "active" {
		t.Errorf("active: %q", got)
	}
	if got := lockNames(locked.Locks); got != "the lock on node:a (until it is lifted), lock 2 on label:x=y (until 2030-01-31 18:00:00)" {
		t.Errorf("locks: %q", got)
	}
	if got := adminOf("spiffe://0123/admin/1"); got != "admin/1" {
		t.Errorf("administrator: %q", got)
	}
}

package server

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

func (d *desk) lock(target, message string, ttl time.Duration) *controlv1.Lock {
	d.t.Helper()
	r := &controlv1.AddLockRequest{Target: target, Message: message}
	if ttl != 0 {
		r.Ttl = durationpb.New(ttl)
	}
	resp, err := d.admin.AddLock(d.t.Context(), r)
	must(d.t, err)
	return resp.Lock
}

func (d *desk) unlock(r *controlv1.RemoveLockRequest) *controlv1.RemoveLockResponse {
	d.t.Helper()
	resp, err := d.admin.RemoveLock(d.t.Context(), r)
	must(d.t, err)
	return resp
}

// status is a node's, as an administrator sees it.
func (d *desk) status(name string) *controlv1.Node {
	d.t.Helper()
	r, err := d.admin.ListNodes(d.t.Context(), &controlv1.ListNodesRequest{Name: name})
	must(d.t, err)
	return r.Nodes[len(r.Nodes)-1]
}

// team is two nodes that share a segment by a label, each of a token of its own.
func team(t *testing.T, edit ...func(*Options)) (d *desk, a, b *machine, tokens [2]string) {
	t.Helper()
	d = newDesk(t, edit...)
	label := func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"team=x"} }
	d.grant("label:team=x", "segment:lan")
	first, second := d.token(label), d.token(label, func(r *controlv1.CreateTokenRequest) { r.Labels = append(r.Labels, "lost=yes") })
	a, b = d.join("a", first).sync(), d.join("b", second).sync()
	eventually(t, "they know each other", func() bool { return len(a.contents().Peers) == 1 && len(b.contents().Peers) == 1 })
	return d, a, b, [2]string{tokenIDOf(first), tokenIDOf(second)}
}

// TestLockTargets: whichever way a lock selects a node, its stream ends, its peers hold it revoked, it cannot renew, and it
// is left with a signed state in which it shares nothing; lifted, all is as before.
func TestLockTargets(t *testing.T) {
	d, a, b, tokens := team(t)
	for _, target := range []string{"node:b", "label:lost=yes", "token:" + tokens[1]} {
		before := b.holds()
		began := time.Now()
		l := d.lock(target, "lost laptop", 0)
		if !slices.Equal(l.Nodes, []string{"b"}) || !strings.HasSuffix(l.By, "/admin/1") || l.Expires != nil {
			t.Errorf("%s: lock is %v", target, l)
		}
		eventually(t, "the stream ends", func() bool { return b.failed() != nil })
		if took := time.Since(began); took > promptly {
			t.Errorf("%s: the cut took %v", target, took)
		}
		if r := refusal(t, b.failed()); r.Status != controlv1.NodeStatus_NODE_STATUS_LOCKED || r.Message != "lost laptop" || r.Until != nil {
			t.Errorf("%s: refusal is %v", target, r)
		}
		eventually(t, "its peer holds it revoked", func() bool {
			c := a.contents()
			return len(c.Peers) == 0 && c.Revocations[b.id] != nil
		})
		c := b.contents()
		if len(c.Segments) != 0 || len(c.Peers) != 0 || len(c.Relays) != 0 || c.Self.GetId() != uint32(b.id) {
			t.Errorf("%s: it was left with %v", target, c)
		}
		if now := b.holds(); now.Header.GetVersion() <= before.Header.GetVersion() {
			t.Errorf("%s: its state is of version %d, and was of %d", target, now.Header.GetVersion(), before.Header.GetVersion())
		}
		_, err := b.api.Renew(t.Context(), &controlv1.RenewRequest{})
		wantError(t, err, connect.CodePermissionDenied, "is locked by an administrator: lost laptop")
		if n := d.status("b"); n.Status != controlv1.NodeStatus_NODE_STATUS_LOCKED || n.Locks[0].Target != target || n.Message != "lost laptop" {
			t.Errorf("%s: node is %v", target, n)
		}
		held := b.holds()
		b.sync()
		eventually(t, "the new stream ends", func() bool { return b.failed() != nil })
		if b.holds() != held {
			t.Errorf("%s: what it holds already was sent again", target)
		}
		if r := d.unlock(&controlv1.RemoveLockRequest{Target: target}); len(r.Lifted) != 1 || len(r.Held) != 0 {
			t.Errorf("%s: unlocked: %v", target, r)
		}
		b.sync()
		eventually(t, "all is as before", func() bool {
			x, y := a.contents(), b.contents()
			return len(x.Peers) == 1 && len(x.Revocations) == 0 && len(y.Peers) == 1 && len(y.Segments) == 1
		})
	}
	must(t, auditWhole(t, d))
}

// TestLockedWhileAway: a node that was not connected when it was locked gets the empty state when it comes.
func TestLockedWhileAway(t *testing.T) {
	d, _, b, _ := team(t)
	b.leave()
	d.lock("node:b", "", 0)
	if len(b.contents().Peers) != 1 {
		t.Fatal("it has heard of the lock")
	}
	b.sync()
	eventually(t, "the stream ends", func() bool { return b.failed() != nil })
	if c := b.contents(); len(c.Segments) != 0 || len(c.Peers) != 0 {
		t.Errorf("it holds %v", c)
	}
}

// TestLocksAddUp: a node is locked until the last lock that selects it is gone, and who lifts one is told of the others.
func TestLocksAddUp(t *testing.T) {
	d, _, _, tokens := team(t)
	byName := d.lock("node:b", "one", time.Hour)
	byLabel := d.lock("label:lost=yes", "two", 2*time.Hour)
	byToken := d.lock("token:"+tokens[1], "", 3*time.Hour)
	n := d.status("b")
	if n.Message != "one; two" || !n.LockedUntil.AsTime().Equal(byToken.Expires.AsTime()) || len(n.Locks) != 3 {
		t.Errorf("node is %v", n)
	}
	r := d.unlock(&controlv1.RemoveLockRequest{Target: "node:b"})
	if len(r.Lifted) != 1 || r.Lifted[0].Id != byName.Id || len(r.Held) != 1 || len(r.Held[0].Locks) != 2 {
		t.Errorf("unlocked by name: %v", r)
	}
	r = d.unlock(&controlv1.RemoveLockRequest{Target: "node:b"})
	if len(r.Lifted) != 0 || r.Node.GetStatus() != controlv1.NodeStatus_NODE_STATUS_LOCKED {
		t.Errorf("unlocked by name again: %v", r)
	}
	r = d.unlock(&controlv1.RemoveLockRequest{Id: byLabel.Id})
	if len(r.Held) != 1 || len(r.Held[0].Locks) != 1 || r.Held[0].Locks[0].Id != byToken.Id {
		t.Errorf("unlocked by number: %v", r)
	}
	list, err := d.admin.ListLocks(t.Context(), &controlv1.ListLocksRequest{})
	must(t, err)
	if len(list.Locks) != 1 || list.Locks[0].Id != byToken.Id || !slices.Equal(list.Locks[0].Nodes, []string{"b"}) {
		t.Errorf("locks are %v", list.Locks)
	}
	d.unlock(&controlv1.RemoveLockRequest{Target: "token:" + tokens[1]})
	if got := d.status("b").Status; got != controlv1.NodeStatus_NODE_STATUS_ACTIVE {
		t.Errorf("after the last: %v", got)
	}
	if next := d.lock("node:b", "", 0); next.Id != byToken.Id+1 {
		t.Errorf("the next lock is %d after %d", next.Id, byToken.Id)
	}
}

// TestLockAgain: there is one lock on a target, and to lock again never shortens it.
func TestLockAgain(t *testing.T) {
	d, _, _, _ := team(t)
	first := d.lock("node:b", "stolen", time.Hour)
	if l := d.lock("node:b", "", time.Minute); l.Id != first.Id || !l.Expires.AsTime().Equal(first.Expires.AsTime()) || l.Message != "stolen" {
		t.Errorf("shorter: %v", l)
	}
	if l := d.lock("node:b", "very", 0); l.Id != first.Id || l.Expires != nil || l.Message != "very" {
		t.Errorf("for good: %v", l)
	}
	if l := d.lock("node:b", "", time.Hour); l.Expires != nil {
		t.Errorf("an end was given to a lock without one: %v", l)
	}
	if got := len(d.ctl.store.Model().Locks); got != 1 {
		t.Errorf("%d locks", got)
	}
}

// TestLockBeforeJoin: a lock on a label holds machines that join later, and a locked token cannot be used.
func TestLockBeforeJoin(t *testing.T) {
	d := newDesk(t)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"team=x"} })
	d.grant("label:team=x", "segment:lan")
	if l := d.lock("label:team=x", "not yet", 0); len(l.Nodes) != 0 {
		t.Errorf("it selects %v", l.Nodes)
	}
	resp, err := d.enrol(token.Secret[:], "a", newKeys(t))
	must(t, err)
	if resp.Status != controlv1.NodeStatus_NODE_STATUS_LOCKED {
		t.Errorf("it joined as %v", resp.Status)
	}
	if m := d.ctl.store.Model(); len(m.Nodes[1].Stations) != 0 || len(m.MemberOf(1)) != 0 {
		t.Errorf("it was given %v", m.Nodes[1].Stations)
	}
	d.unlock(&controlv1.RemoveLockRequest{Target: "label:team=x"})
	if m := d.ctl.store.Model(); len(m.Nodes[1].Stations) != 1 || len(m.MemberOf(1)) != 1 {
		t.Errorf("unlocked, it has %v", m.Nodes[1].Stations)
	}

	l := d.lock("token:"+tokenIDOf(token), "leaked", time.Hour)
	_, err = d.enrol(token.Secret[:], "b", newKeys(t))
	wantError(t, err, connect.CodeFailedPrecondition, "is locked by an administrator until "+l.Expires.AsTime().Format(time.RFC3339)+": leaked: wait until it is unlocked, or")
	locked := func() bool {
		list, err := d.admin.ListTokens(t.Context(), &controlv1.ListTokensRequest{})
		must(t, err)
		return list.Tokens[0].Locked
	}
	if !locked() {
		t.Error("the list of tokens does not say that it is locked")
	}
	d.unlock(&controlv1.RemoveLockRequest{Target: "token:" + tokenIDOf(token)})
	_, err = d.enrol(token.Secret[:], "b", newKeys(t))
	must(t, err)
	if locked() {
		t.Error("the list of tokens says that it is locked still")
	}
}

// TestLockExpires: a lock whose time is over is taken away soon, as a change like any other, and not before.
func TestLockExpires(t *testing.T) {
	d, a, b, _ := team(t)
	l := d.lock("label:lost=yes", "for a while", 4*time.Second)
	end := l.Expires.AsTime()
	eventually(t, "the stream ends", func() bool { return b.failed() != nil })
	if r := refusal(t, b.failed()); !r.Until.AsTime().Equal(end) {
		t.Errorf("refusal is %v, want until %v", r, end)
	}
	wantError(t, b.failed(), connect.CodePermissionDenied, "until "+end.Format(time.RFC3339)+": for a while")
	eventually(t, "its peer holds it revoked", func() bool { return a.contents().Revocations[b.id] != nil })
	eventually(t, "the peer is back", func() bool { return len(a.contents().Peers) == 1 && len(a.contents().Revocations) == 0 })
	if late := time.Since(end); late < 0 || late > promptly {
		t.Errorf("it expired %v after its time", late)
	}
	entries, _ := auditEntries(t, d)
	if last := entries[len(entries)-1]; last.Action != "lock.expire" || last.Object != "lock/1" || !strings.Contains(last.Actor, "/controller/") {
		t.Errorf("last entry is %v", last)
	}
	must(t, auditWhole(t, d))
}

// TestLockOfRemovedNode: a lock on a node's name goes with the node; whoever takes the name later is not locked.
func TestLockOfRemovedNode(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	d.join("a", token)
	d.lock("node:a", "", 0)
	cut := d.status("a").RevokedBefore.AsTime()
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_REMOVED, "")
	d.join("a", token)
	if n := d.status("a"); n.Id != 2 || n.Status != controlv1.NodeStatus_NODE_STATUS_ACTIVE {
		t.Errorf("the new node is %v", n)
	}
	eventually(t, "the lock is gone", func() bool { return len(d.ctl.store.Model().Locks) == 0 })
	if n := d.ctl.store.Model().Nodes[1]; !n.CutAt.Equal(cut) || n.SlotUntil.IsZero() {
		t.Errorf("the removed node was cut at %v, and its lock was of %v; its slot is its own until %v", n.CutAt, cut, n.SlotUntil)
	}
}

// TestLockOfPending: a machine that waits for approval and was locked waits again when it is unlocked.
func TestLockOfPending(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token(func(r *controlv1.CreateTokenRequest) { r.Approve = true }))
	d.lock("node:a", "", 0)
	d.unlock(&controlv1.RemoveLockRequest{Target: "node:a"})
	if got := d.status("a").Status; got != controlv1.NodeStatus_NODE_STATUS_PENDING {
		t.Errorf("it is %v", got)
	}
	d.lock("node:a", "", 0)
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
	if got := d.status("a").Status; got != controlv1.NodeStatus_NODE_STATUS_LOCKED {
		t.Errorf("approved while it was locked, it is %v", got)
	}
}

// TestForgetLocked: of a node that stays locked until nothing signed for it can be valid, peers need not know any more; it
// cannot come back by being unlocked, and locks afterwards change nothing of that.
func TestForgetLocked(t *testing.T) {
	d, a, b, _ := team(t, func(o *Options) { o.CertificateLifetime, o.Grace = time.Hour, time.Hour })
	d.lock("label:lost=yes", "", 0)
	eventually(t, "it is revoked", func() bool { return a.contents().Revocations[b.id] != nil })
	m := d.ctl.store.Model()
	end := forgetAt(m, m.Nodes[b.id])
	if end.Before(m.Nodes[b.id].CertifiedUntil.Add(time.Hour)) || end.Before(m.Settings.CredentialsUntil) {
		t.Errorf("it would be forgotten at %v", end)
	}
	d.clock.advance(end.Sub(d.clock.now()) + time.Second)
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		tx.Note("test", "test/1", nil)
		return nil
	}))
	eventually(t, "it is forgotten", func() bool { return d.ctl.store.Model().Nodes[b.id].Forgotten })
	m = d.ctl.store.Model()
	if n := m.Nodes[b.id]; m.Status(n) != model.StatusLocked || n.OwnStatus != model.StatusActive || len(n.Stations) != 1 || len(m.MemberOf(a.id)[0].Revoked) != 0 {
		t.Errorf("forgotten, it is %+v", n)
	}
	// A certificate ends that, however it came about.
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		n := tx.Model.Nodes[b.id].Clone()
		_, err := d.ctl.certifyNode(n, tx)
		tx.Put("test", n)
		return err
	}))
	m = d.ctl.store.Model()
	if got := m.MemberOf(a.id)[0].Revoked; len(got) != 1 {
		t.Errorf("with a new certificate its revocation is %v", got)
	}
}

// TestOldLock: a node that an older controller locked stays locked, is shown as such, and is unlocked by name; or its lock
// gets a number when it is locked again.
func TestOldLock(t *testing.T) {
	d, _, b, _ := team(t)
	old := func() {
		n := d.ctl.store.Model().Nodes[b.id].Clone()
		n.OwnStatus, n.Message, n.CutAt, n.SlotUntil = model.StatusLocked, "long ago", time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		fact, err := model.Encode(n)
		must(t, err)
		etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(d.dir, "etcd", "client.sock")}})
		must(t, err)
		defer etcd.Close()
		_, err = etcd.Put(t.Context(), "/etherloom/v1/default/fact/"+n.Key(), string(fact))
		must(t, err)
		eventually(t, "it is locked", func() bool { return d.status("b").Status == controlv1.NodeStatus_NODE_STATUS_LOCKED })
	}
	old()
	eventually(t, "the stream ends", func() bool { return b.failed() != nil })
	list, err := d.admin.ListLocks(t.Context(), &controlv1.ListLocksRequest{})
	must(t, err)
	if len(list.Locks) != 1 || list.Locks[0].Id != 0 || list.Locks[0].Message != "long ago" || list.Locks[0].Target != "node:b" {
		t.Errorf("locks are %v", list.Locks)
	}
	if r := d.unlock(&controlv1.RemoveLockRequest{Target: "node:b"}); len(r.Lifted) != 1 || r.Node.Status != controlv1.NodeStatus_NODE_STATUS_ACTIVE {
		t.Errorf("unlocked: %v", r)
	}
	old()
	slot := d.ctl.store.Model().Nodes[b.id].SlotUntil
	if l := d.lock("node:b", "", time.Second); l.Id != 1 || l.Expires != nil || l.Message != "long ago" {
		t.Errorf("locked again: %v", l)
	}
	if m := d.ctl.store.Model(); m.Nodes[b.id].OwnStatus != model.StatusActive || !m.CredentialUntil(m.Nodes[b.id]).Equal(slot) {
		t.Errorf("its record is %+v", m.Nodes[b.id])
	}
	d.unlock(&controlv1.RemoveLockRequest{Id: 1})
	if got := d.status("b").Status; got != controlv1.NodeStatus_NODE_STATUS_ACTIVE {
		t.Errorf("it is %v", got)
	}
}

func TestLockRequests(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	add := func(target, message string, ttl time.Duration) error {
		_, err := d.admin.AddLock(t.Context(), &controlv1.AddLockRequest{Target: target, Message: message, Ttl: durationpb.New(ttl)})
		return err
	}
	wantError(t, add("node:x", "", time.Hour), connect.CodeInvalidArgument, "`etherloom node list`")
	wantError(t, add("token:x", "", time.Hour), connect.CodeInvalidArgument, "`etherloom token list`")
	wantError(t, add("label:x", "", time.Hour), connect.CodeInvalidArgument, "label")
	wantError(t, add("segment:lan", "", time.Hour), connect.CodeInvalidArgument, "node:NAME, label:KEY=VALUE or token:ID")
	wantError(t, add("node:a", strings.Repeat("x", 300), time.Hour), connect.CodeInvalidArgument, "at most 256")
	wantError(t, add("node:a", "", time.Millisecond), connect.CodeInvalidArgument, "ttl is 1ms")
	wantError(t, add("node:a", "", -time.Hour), connect.CodeInvalidArgument, "ttl is -1h")
	remove := func(target string, id uint32) error {
		_, err := d.admin.RemoveLock(t.Context(), &controlv1.RemoveLockRequest{Target: target, Id: id})
		return err
	}
	wantError(t, remove("", 0), connect.CodeInvalidArgument, "one of the two")
	wantError(t, remove("node:a", 1), connect.CodeInvalidArgument, "one of the two")
	wantError(t, remove("", 7), connect.CodeNotFound, "`etherloom node locks`")
	wantError(t, remove("label:a=b", 0), connect.CodeNotFound, "`etherloom node locks`")
	wantError(t, remove("node:x", 0), connect.CodeInvalidArgument, "`etherloom node list`")
	version := d.ctl.store.Model().Version
	if err := remove("node:a", 0); err != nil || d.ctl.store.Model().Version != version {
		t.Errorf("unlocking a node that is not locked: %v", err)
	}
}

package server

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// TestGrantExpires: an expired grant takes effect by itself, and is a change like any other.
func TestGrantExpires(t *testing.T) {
	d := newDesk(t)
	a := d.join("a", d.token()).sync()
	end := time.Now().Add(4 * time.Second)
	_, err := d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: "node:a", To: "segment:lan", Expires: timestamppb.New(end)})
	must(t, err)
	eventually(t, "the grant holds", func() bool { return len(a.contents().Segments) == 1 })
	if g := a.contents().Grants[1]; !g.GetExpires().AsTime().Equal(end) {
		t.Errorf("grant is %v", g)
	}
	eventually(t, "the grant has expired", func() bool { return len(a.contents().Segments) == 0 })
	if late := time.Since(end); late < 0 || late > promptly {
		t.Errorf("it expired %v after its time", late)
	}
	entries, _ := auditEntries(t, d)
	if last := entries[len(entries)-1]; last.Action != "grant.expire" || !strings.Contains(last.Actor, "/controller/") {
		t.Errorf("last entry is %v", last)
	}
}

// TestGrantOfRemovedNode: grants to a node go with it, and whoever takes its name later gets nothing by them.
func TestGrantOfRemovedNode(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	d.join("a", token)
	d.grant("node:a", "segment:lan")
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_REMOVED, "")
	again := d.join("a", token).sync()
	eventually(t, "the new node has its state", func() bool { return again.contents().Self.GetName() == "a" })
	eventually(t, "the grant is gone", func() bool { return len(d.ctl.store.Model().Grants) == 0 })
	if again.id != 2 || len(again.contents().Segments) != 0 {
		t.Errorf("the new node %d has %v", again.id, again.contents())
	}
}

// TestForget: a removed node's revocation, address and relay slot are kept for as long as anything signed for it can be
// valid, and no longer.
func TestForget(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.CertificateLifetime, o.Grace = time.Hour, time.Hour })
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.grant("label:a=b", "segment:lan")
	d.join("gone", token)
	a := d.join("a", token).sync()
	d.setStatus("gone", controlv1.NodeStatus_NODE_STATUS_REMOVED, "")
	eventually(t, "the node is revoked", func() bool { return a.contents().Revocations[1] != nil })
	m := d.ctl.store.Model()
	end := forgetAt(m, m.Nodes[1])
	if end.Before(m.Nodes[1].CertifiedUntil.Add(time.Hour)) || end.Before(m.Settings.CredentialsUntil) {
		t.Errorf("it would be forgotten at %v", end)
	}
	if m.FreeSlot() != 3 {
		t.Errorf("slot %d is free", m.FreeSlot())
	}
	d.clock.advance(end.Sub(d.clock.now()) + time.Second)
	// Something happens, so that the steward looks at the clock that was set ahead.
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		tx.Note("test", "test/1", nil)
		return nil
	}))
	eventually(t, "the node is forgotten", func() bool { return d.ctl.store.Model().Nodes[1].Forgotten })
	m = d.ctl.store.Model()
	if m.FreeSlot() != 1 || len(m.Nodes[1].Stations) != 0 || m.KeyOwner(m.Nodes[1].Sign) == "" {
		t.Errorf("after it was forgotten: %+v, free slot %d", m.Nodes[1], m.FreeSlot())
	}
	if len(m.MemberOf(2)[0].Revoked) != 0 {
		t.Error("its revocation is still told")
	}
}

// TestCredentials: TURN credentials are replaced while they still last for a certificate's life, the grace and a day.
func TestCredentials(t *testing.T) {
	d := newDesk(t, func(o *Options) { o.CertificateLifetime, o.Grace = time.Hour, time.Hour })
	const life = 26 * time.Hour
	first := d.ctl.store.Model().Settings.CredentialsUntil
	if left := time.Until(first); left < 2*life-time.Minute || left > 2*life {
		t.Errorf("first credentials last %v", left)
	}
	d.clock.advance(life + time.Minute)
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		tx.Note("test", "test/1", nil)
		return nil
	}))
	eventually(t, "they are replaced", func() bool { return d.ctl.store.Model().Settings.CredentialsUntil.After(first) })
	if left := d.ctl.store.Model().Settings.CredentialsUntil.Sub(d.clock.now()); left < 2*life-time.Minute {
		t.Errorf("the next last %v", left)
	}
	entries, _ := auditOf(t, d)
	if last := entries[len(entries)-1]; last.Action != "credentials.renew" {
		t.Errorf("last entry is %v", last)
	}
}

// TestLostController: a controller that does not come back is no longer named, and enters itself anew if it does.
func TestLostController(t *testing.T) {
	d := newDesk(t)
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		tx.Put("controller.add", &model.Controller{
			ID: tx.NextController(), Sign: make([]byte, 32), URLs: []string{"https://192.0.2.1"}, Expires: tx.Now().Add(time.Hour),
		})
		return nil
	}))
	if got := len(d.ctl.store.Model().Shared.Controllers); got != 2 {
		t.Fatalf("%d controllers", got)
	}
	d.clock.advance(time.Hour + 72*time.Hour + 8*24*time.Hour)
	must(t, d.ctl.store.Update(t.Context(), d.ctl.actor(), func(tx *store.Tx) error {
		tx.Note("test", "test/1", nil)
		return nil
	}))
	eventually(t, "it is forgotten", func() bool { return len(d.ctl.store.Model().Shared.Controllers) == 1 })
	if _, ok := d.ctl.store.Model().Controllers[d.ctl.selfID()]; !ok {
		t.Error("the controller forgot itself")
	}
}

// auditOf reads the log from the store, for tests whose clock is past the administrator's certificate.
func auditOf(t testing.TB, d *desk) ([]*controlv1.AuditEntry, error) {
	t.Helper()
	entries, _, err := d.ctl.store.Audit(t.Context(), 0, 10000)
	must(t, err)
	return entries, err
}

// TestManyBecomeMembers: one grant makes more members than a transaction can seat; the steward seats the rest.
func TestManyBecomeMembers(t *testing.T) {
	d := newDesk(t)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	const n = 90
	for i := range n {
		d.join(fmt.Sprint("n", i), token)
	}
	d.grant("label:a=b", "segment:lan")
	eventually(t, "all have a station", func() bool { return !d.ctl.store.Model().Vacant() })
	if got := len(d.ctl.store.Model().MemberOf(1)[0].Members); got != n {
		t.Errorf("%d members", got)
	}
	must(t, auditWhole(t, d))
}

// TestFullSegment: who would be one too many is told so, by name of the segment, and the rest of the network goes on.
func TestFullSegment(t *testing.T) {
	d := newDesk(t)
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "small", Ipv4Prefix: "10.200.0.0/30"})
	must(t, err)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.grant("label:a=b", "segment:small")
	d.join("a", token)
	d.join("b", token)
	_, err = d.enrol(token.Secret[:], "c", newKeys(t))
	if err == nil || !strings.Contains(err.Error(), `no free address left: segment "small"`) {
		t.Errorf("the third machine on a segment for two: %v", err)
	}
	if tok := d.ctl.store.Model().Tokens[tokenIDOf(token)]; tok.Used != 2 {
		t.Errorf("the token was used %d times", tok.Used)
	}
	_, err = d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: "label:none=0", To: "segment:small"})
	must(t, err)
	// However it came about that there are more members than addresses (here, past the rules), the network goes on: nodes
	// can be locked, and what is due is done.
	fact, err := model.Encode(&model.Node{
		ID: 50, Name: "x", Labels: []string{"a=b"}, OwnStatus: model.StatusActive, Sign: bytes.Repeat([]byte{1}, 32),
		Static: bytes.Repeat([]byte{2}, 32), RelaySlot: 50,
	})
	must(t, err)
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(d.dir, "etcd", "client.sock")}})
	must(t, err)
	defer etcd.Close()
	_, err = etcd.Put(t.Context(), "/etherloom/v1/default/fact/node/50", string(fact))
	must(t, err)
	eventually(t, "there is one too many", func() bool { return d.ctl.store.Model().Vacant() })
	_, err = d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{
		From: "node:a", To: "segment:lan", Expires: timestamppb.New(time.Now().Add(time.Second)),
	})
	must(t, err)
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	eventually(t, "the grant expires in time", func() bool { return d.ctl.store.Model().Grants[3] == nil })
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
	must(t, auditWhole(t, d))
}

// TestFullSegmentAndTime: what time does is done although some find no room on a segment by it: a policy that nobody confirmed is
// taken back, a lock ends.
func TestFullSegmentAndTime(t *testing.T) {
	d := newDesk(t)
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "small", Ipv4Prefix: "10.200.0.0/30"})
	must(t, err)
	token := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b"} })
	d.join("a", token)
	d.join("b", token)
	d.grant("label:a=b", "segment:small")
	fill := func(confirm time.Duration, while func()) {
		t.Helper()
		_, err := d.apply("grants: []\n", anyVersion, within(confirm))
		must(t, err)
		while()
	}
	fill(1500*time.Millisecond, func() { d.join("c", token) })
	eventually(t, "the policy is taken back", func() bool { m := d.ctl.store.Model(); return m.Pending == nil && len(m.Grants) == 1 })
	fill(time.Hour, func() { d.join("d", token) })
	_, err = d.admin.UndoPolicy(t.Context(), &controlv1.UndoPolicyRequest{})
	must(t, err)

	late := d.token(func(r *controlv1.CreateTokenRequest) { r.Labels = []string{"a=b", "late=yes"} })
	_, err = d.admin.AddLock(t.Context(), &controlv1.AddLockRequest{Target: "label:late=yes", Ttl: durationpb.New(1500 * time.Millisecond)})
	must(t, err)
	d.join("e", late)
	eventually(t, "the lock ends", func() bool { return len(d.ctl.store.Model().Locks) == 0 })
	if got := len(d.ctl.store.Model().MemberOf(1)[0].Members); got != 2 {
		t.Errorf("%d members on a segment for two", got)
	}
	must(t, auditWhole(t, d))
}

// TestVerdictOfDocument: the verdict on a grant with a condition goes with it also when a document takes it away.
func TestVerdictOfDocument(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	d.grantWhen("node:a", "segment:lan", "true")
	eventually(t, "a meets it", func() bool { return d.ctl.store.Model().Verdicts[1].Holds(1) })
	_, err := d.apply("grants: []\n", anyVersion)
	must(t, err)
	eventually(t, "the verdict is gone", func() bool { return len(d.ctl.store.Model().Verdicts) == 0 })
	must(t, auditWhole(t, d))
}

package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

// policy is the document of the network, and its version.
func (d *desk) policy() (string, uint64) {
	d.t.Helper()
	r, err := d.admin.GetPolicy(d.t.Context(), &controlv1.GetPolicyRequest{})
	must(d.t, err)
	return r.GetDocument(), r.GetVersion()
}

func (d *desk) apply(text string, edit ...func(*controlv1.ApplyPolicyRequest)) (*controlv1.ApplyPolicyResponse, error) {
	r := &controlv1.ApplyPolicyRequest{Document: text}
	for _, e := range edit {
		e(r)
	}
	return d.admin.ApplyPolicy(d.t.Context(), r)
}

func forced(r *controlv1.ApplyPolicyRequest)     { r.Force = true }
func anyVersion(r *controlv1.ApplyPolicyRequest) { r.AnyVersion = true }
func within(s time.Duration) func(*controlv1.ApplyPolicyRequest) {
	return func(r *controlv1.ApplyPolicyRequest) { r.Confirm = durationpb.New(s) }
}

const someGrants = "grants:\n  - {from: node:a, to: node:b, segment: lan, allow: ['tcp:22']}\n  - {name: all, from: label:k=v, to: segment:lan}\n"

const someTests = "tests:\n  - {from: node:a, to: node:b, segment: lan, what: 'tcp:22', expect: allow}\n" +
	"  - {from: node:a, to: node:b, segment: lan, what: 'tcp:23', expect: deny}\n"

// TestPolicyDocument: a document is applied as a whole, once, from the version that it names.
func TestPolicyDocument(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	d.join("b", d.token())
	if text, version := d.policy(); version != 0 || text != "groups: []\ngrants: []\ntests: []\n" {
		t.Errorf("the policy of a new network is version %d:\n%s", version, text)
	}
	d.grant("node:b", "segment:lan")
	_, err := d.apply(someGrants)
	wantError(t, err, connect.CodeFailedPrecondition, "put `version: 1` at its top")
	_, err = d.apply("version: 7\n" + someGrants)
	wantError(t, err, connect.CodeFailedPrecondition, "made from version 7 of the policy, which is at version 1")
	r, err := d.apply("version: 1\n" + someGrants + someTests)
	must(t, err)
	if r.GetVersion() != 2 || len(r.GetDifference().GetGrants()) != 3 || r.GetPending() != nil {
		t.Errorf("applied is %v", r)
	}
	text, version := d.policy()
	if version != 2 || !strings.Contains(text, "version: 2\n") || !strings.Contains(text, "to: segment:lan") {
		t.Errorf("the policy is version %d:\n%s", version, text)
	}
	ids := slices.Sorted(maps.Keys(d.ctl.store.Model().Grants))
	// The same again changes nothing, whatever version it names.
	again, err := d.apply("version: 1\n" + someGrants + someTests)
	must(t, err)
	if again.GetVersion() != 2 || !again.GetDifference().GetEmpty() || !slices.Equal(ids, slices.Sorted(maps.Keys(d.ctl.store.Model().Grants))) {
		t.Errorf("applied again is %v", again)
	}
	_, err = d.apply(someGrants, anyVersion)
	must(t, err)
	if m := d.ctl.store.Model(); len(m.Tests) != 0 || m.Counters.Policy != 3 {
		t.Errorf("there are %d tests at version %d", len(m.Tests), m.Counters.Policy)
	}
	_, err = d.apply("grants:\n  - form: x\n")
	wantError(t, err, connect.CodeInvalidArgument, `line 2: a grant has no key "form"`)
	_, err = d.apply("")
	wantError(t, err, connect.CodeInvalidArgument, "`etherloom policy show` prints one")
	entries, _ := auditEntries(t, d)
	last := entries[len(entries)-1]
	if last.Action != "policy.apply" || last.Object != "policy" || !strings.Contains(last.Detail, `"version":3`) {
		t.Errorf("the last entry is %v", last)
	}
	must(t, auditWhole(t, d))
}

// TestPolicyTests: neither a document nor a single command makes a test fail, unless somebody insists.
func TestPolicyTests(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.join("a", d.token())
	d.join("b", d.token())
	_, err := d.apply("grants: []\n" + someTests)
	wantError(t, err, connect.CodeFailedPrecondition, "line 3: node:a to node:b on lan: tcp:22: expected allow, found a to b: denied")
	if m := d.ctl.store.Model(); m.Counters.Policy != 0 || len(m.Tests) != 0 {
		t.Errorf("what was refused is at version %d", m.Counters.Policy)
	}
	check, err := d.admin.CheckPolicy(ctx, &controlv1.CheckPolicyRequest{Document: someGrants + someTests})
	must(t, err)
	if len(check.GetTests()) != 2 || check.GetTests()[0].GetOutcome() != controlv1.PolicyOutcome_POLICY_OUTCOME_PASSED || len(d.ctl.store.Model().Grants) != 0 {
		t.Errorf("the check says %v", check)
	}
	_, err = d.apply(someGrants + someTests)
	must(t, err)
	d.admin.SetGroup(ctx, &controlv1.SetGroupRequest{Name: "g", Members: []string{"node:a"}})
	_, err = d.admin.RemoveGrant(ctx, &controlv1.RemoveGrantRequest{Id: 1})
	wantError(t, err, connect.CodeFailedPrecondition, "nothing was changed, because 1 of the policy's tests would fail")
	_, err = d.admin.AddGrant(ctx, &controlv1.AddGrantRequest{From: "group:g", To: "node:b", Segment: "lan"})
	wantError(t, err, connect.CodeFailedPrecondition, "tcp:23: expected deny, found a to b: allowed by grant")
	_, err = d.admin.AddGrant(ctx, &controlv1.AddGrantRequest{From: "label:team=x", To: "node:b", Segment: "lan"})
	must(t, err)
	_, err = d.admin.SetGroup(ctx, &controlv1.SetGroupRequest{Name: "h", Members: []string{"node:b"}})
	must(t, err)

	// A node that is locked makes tests void, and hinders nothing.
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	check, err = d.admin.CheckPolicy(ctx, &controlv1.CheckPolicyRequest{})
	must(t, err)
	for _, x := range check.GetTests() {
		if x.GetOutcome() != controlv1.PolicyOutcome_POLICY_OUTCOME_VOID {
			t.Errorf("a test of a locked node: %v", x)
		}
	}
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")

	_, err = d.admin.RemoveGrant(ctx, &controlv1.RemoveGrantRequest{Id: 1, Force: true})
	must(t, err)
	entries, _ := auditEntries(t, d)
	if last := entries[len(entries)-1]; last.Action != "policy.force" || !strings.Contains(last.Detail, "tcp:22: expected allow") {
		t.Errorf("the last entry is %v", last)
	}
	// What fails already hinders no other change.
	_, err = d.admin.SetGroup(ctx, &controlv1.SetGroupRequest{Name: "h", Members: []string{"node:a"}})
	must(t, err)
	_, err = d.admin.RemoveSegment(ctx, &controlv1.RemoveSegmentRequest{Name: "lan"})
	wantError(t, err, connect.CodeFailedPrecondition, "still named by grant")
}

// TestNamedByTests: what a test names cannot go.
func TestNamedByTests(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	_, err := d.apply("groups:\n  - {name: g, members: [node:a]}\ngrants: []\ntests:\n  - {from: group:g, to: node:a, segment: lan, what: icmp, expect: deny}\n")
	must(t, err)
	_, err = d.admin.RemoveGroup(t.Context(), &controlv1.RemoveGroupRequest{Name: "g"})
	wantError(t, err, connect.CodeFailedPrecondition, `group "g" is still named by test 1`)
	_, err = d.admin.RemoveSegment(t.Context(), &controlv1.RemoveSegmentRequest{Name: "lan"})
	wantError(t, err, connect.CodeFailedPrecondition, `segment "lan" is still named by test 1`)
}

// TestConfirm: what nobody confirms is taken back, with the very grants that there were, by any controller.
func TestConfirm(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	a := d.join("a", d.token()).sync()
	d.join("b", d.token())
	_, err := d.apply("groups:\n  - {name: g, members: [node:a]}\n" + someGrants + someTests)
	must(t, err)
	text, _ := d.policy()
	before := maps.Clone(d.ctl.store.Model().Grants)
	eventually(t, "a has its segment", func() bool { return len(a.contents().Segments) == 1 })

	const confirm = 4 * time.Second
	applied := time.Now()
	r, err := d.apply("grants: []\n", anyVersion, within(confirm))
	must(t, err)
	if r.GetPending() == nil || len(r.GetDifference().GetGrants()) != 2 {
		t.Errorf("applied is %v", r)
	}
	eventually(t, "a is cut", func() bool { return len(a.contents().Segments) == 0 })
	refused := func(err error) {
		t.Helper()
		wantError(t, err, connect.CodeFailedPrecondition, "`etherloom policy confirm` it or `etherloom policy undo` it first")
	}
	_, err = d.apply(someGrants, anyVersion)
	refused(err)
	_, err = d.admin.AddGrant(ctx, &controlv1.AddGrantRequest{From: "node:a", To: "segment:lan"})
	refused(err)
	_, err = d.admin.SetGroup(ctx, &controlv1.SetGroupRequest{Name: "x"})
	refused(err)
	_, err = d.admin.RemoveSegment(ctx, &controlv1.RemoveSegmentRequest{Name: "lan"})
	refused(err)
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_LOCKED, "") // which is no policy
	d.setStatus("b", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")

	eventually(t, "a has its segment again", func() bool { return len(a.contents().Segments) == 1 })
	if late := time.Since(applied); late < confirm || late > confirm+promptly {
		t.Errorf("it was taken back after %v", late)
	}
	m := d.ctl.store.Model()
	if now, version := d.policy(); strings.Replace(now, "version: 3", "version: 1", 1) != text || version != 3 || m.Pending != nil {
		t.Errorf("put back is version %d\n%s\nwant\n%s", version, now, text)
	}
	for id, g := range before {
		if got := m.Grants[id]; got == nil || got.Created != g.Created {
			t.Errorf("grant %d is %v, was %v", id, got, g)
		}
	}
	entries, _ := auditEntries(t, d)
	if i := slices.IndexFunc(entries, func(e *controlv1.AuditEntry) bool { return e.Action == "policy.rollback" }); i < 0 || !strings.Contains(entries[i].Actor, "/controller/") {
		t.Errorf("the log does not say who took it back: %v", entries[len(entries)-1])
	}
	_, err = d.apply("version: 1\ngrants: []\n")
	wantError(t, err, connect.CodeFailedPrecondition, "was taken back, since nobody said `etherloom policy confirm`")
	wantError(t, err, connect.CodeFailedPrecondition, "Write `version: 3` into the document")
	_, err = d.apply("version: 2\ngrants: []\n")
	wantError(t, err, connect.CodeFailedPrecondition, "somebody has changed it since")
	_, err = d.admin.ConfirmPolicy(ctx, &controlv1.ConfirmPolicyRequest{})
	wantError(t, err, connect.CodeFailedPrecondition, "nothing waits to be confirmed")
	_, err = d.admin.UndoPolicy(ctx, &controlv1.UndoPolicyRequest{})
	wantError(t, err, connect.CodeFailedPrecondition, "nothing waits to be confirmed")

	_, err = d.apply("grants: []\n", anyVersion, within(time.Hour))
	must(t, err)
	_, err = d.admin.UndoPolicy(ctx, &controlv1.UndoPolicyRequest{})
	must(t, err)
	if now, _ := d.policy(); strings.Replace(now, "version: 5", "version: 1", 1) != text {
		t.Errorf("undone, it is\n%s", now)
	}
	_, err = d.apply("grants: []\n", anyVersion, within(confirm))
	must(t, err)
	_, err = d.admin.ConfirmPolicy(ctx, &controlv1.ConfirmPolicyRequest{})
	must(t, err)
	time.Sleep(confirm + 500*time.Millisecond)
	if now, _ := d.policy(); !strings.Contains(now, "grants: []") {
		t.Errorf("confirmed, it is\n%s", now)
	}
	_, err = d.apply(someGrants, anyVersion, within(time.Millisecond))
	wantError(t, err, connect.CodeInvalidArgument, "time to confirm is 1ms")
	must(t, auditWhole(t, d))
}

// A cluster that was left as it comes takes little at once, and who applies more is told so.
func TestPolicyTooLargeForACluster(t *testing.T) {
	first := newDesk(t)
	first.join("a", first.token())
	second := beside(t, first)
	second.cred = first.cred
	second.admin = controlv1connect.NewAdminServiceClient(second.client(first.cred.Certificate, first.cred.Key), second.url())
	var text strings.Builder
	text.WriteString("grants:\n")
	for i := range 200 {
		fmt.Fprintf(&text, "  - {from: node:a, to: label:k=v, segment: lan, allow: ['udp:%d']}\n", i+1)
	}
	_, err := second.apply(text.String())
	wantError(t, err, connect.CodeResourceExhausted, "make it in parts")
	_, err = first.apply(text.String())
	must(t, err)
}

// A controller whose stored tests fail starts, and says so.
func TestStartWithFailingTests(t *testing.T) {
	dir := shortDir(t)
	d := newDeskAt(t, dir)
	d.join("a", d.token())
	d.join("b", d.token())
	_, err := d.apply("grants: []\n"+someTests, forced)
	must(t, err)
	d.stop()
	again := newDeskAt(t, dir)
	if m := again.ctl.store.Model(); len(m.Tests) != 2 {
		t.Errorf("there are %d tests", len(m.Tests))
	}
	eventually(t, "the log warns", func() bool { return strings.Contains(again.logs.String(), "tests of the policy fail") })
}

// A change that nobody confirmed is taken back by whatever controller is there when its time is over.
func TestConfirmAcrossRestart(t *testing.T) {
	dir := shortDir(t)
	d := newDeskAt(t, dir)
	d.join("a", d.token())
	d.join("b", d.token())
	_, err := d.apply("groups:\n  - {name: g, members: [node:a]}\n" + someGrants + someTests)
	must(t, err)
	text, _ := d.policy()
	_, err = d.apply("groups:\n  - {name: h, members: [node:b]}\ngrants:\n  - {from: group:h, to: segment:lan}\n", anyVersion, within(time.Second))
	must(t, err)
	d.stop()
	again := newDeskAt(t, dir)
	eventually(t, "it is taken back", func() bool { return again.ctl.store.Model().Pending == nil })
	if now, _ := again.policy(); strings.Replace(now, "version: 3", "version: 1", 1) != text {
		t.Errorf("it is\n%s\nand was\n%s", now, text)
	}
}

// Ten thousand grants are applied, taken back and applied again.
func TestLargePolicy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	d := newDesk(t)
	d.join("a", d.token())
	d.join("b", d.token())
	grants := 10000
	if raced {
		grants = 2000
	}
	document := func(first int) string {
		var b strings.Builder
		b.WriteString("grants:\n")
		for i := range grants {
			fmt.Fprintf(&b, "  - {from: %s, to: %s, segment: lan, allow: ['udp:%d']}\n", []string{"node:a", "label:k=v"}[i%2], []string{"node:b", "label:k=w"}[i/2%2], first+i)
		}
		return b.String()
	}
	timed := func(what string, f func() error) {
		begun := time.Now()
		must(t, f())
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("%s took %v", what, took)
		} else {
			t.Logf("%s took %v", what, took)
		}
	}
	timed("to apply", func() error { _, err := d.apply(document(1)); return err })
	timed("to replace all", func() error { _, err := d.apply(document(20001), anyVersion, within(time.Hour)); return err })
	timed("to undo", func() error {
		_, err := d.admin.UndoPolicy(t.Context(), &controlv1.UndoPolicyRequest{})
		return err
	})
	// An administrator reads the log page by page: none is larger than what his program takes.
	entries := 0
	for after, pages := uint64(0), 0; ; pages++ {
		r, err := d.admin.ListAudit(t.Context(), &controlv1.ListAuditRequest{After: after})
		must(t, err)
		size := 0
		for _, e := range r.GetEntries() {
			size += len(e.GetDetail())
		}
		if size > 5<<20 || pages > 10 {
			t.Fatalf("page %d has %d bytes", pages, size)
		}
		if entries += len(r.GetEntries()); after == r.GetHead().GetSequence() {
			break
		}
		after = r.GetEntries()[len(r.GetEntries())-1].GetSequence()
	}
	if head := d.ctl.store.Model().Head.Sequence; uint64(entries) != head {
		t.Errorf("%d of %d entries were read", entries, head)
	}
	if m := d.ctl.store.Model(); len(m.Grants) != grants || m.Grants[1] == nil || m.Pending != nil {
		t.Errorf("there are %d grants", len(m.Grants))
	}
}

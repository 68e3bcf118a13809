package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
)

// report sends what a node says of itself.
func (m *machine) report(sequence uint64, file bool, edit ...func(*controlv1.PostureReport)) {
	m.d.t.Helper()
	r := &controlv1.PostureReport{
		Sequence: sequence, Os: "debian", Underlay: []string{"192.0.2.7"},
		Files: map[string]*controlv1.PostureFile{"/etc/ok": {Exists: file, Regular: file}},
	}
	for _, f := range edit {
		f(r)
	}
	must(m.d.t, m.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Posture{Posture: r}}))
}

func (d *desk) grantWhen(from, to, when string) uint32 {
	d.t.Helper()
	r, err := d.admin.AddGrant(d.t.Context(), &controlv1.AddGrantRequest{From: from, To: to, When: when})
	must(d.t, err)
	return r.Grant.Id
}

const fileIsThere = `posture.files["/etc/ok"].exists`

func granted(m *machine) func() bool { return func() bool { return len(m.contents().Segments) == 1 } }

func withheld(m *machine) func() bool { return func() bool { return len(m.contents().Segments) == 0 } }

// tick makes the judge look at a clock that was set ahead.
func tick(d *desk) {
	d.t.Helper()
	select {
	case d.ctl.dossiers.news <- struct{}{}:
	default:
	}
}

// stays fails if something becomes false in a while.
func stays(t *testing.T, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if !ok() {
			t.Fatalf("no longer: %s", what)
		}
	}
}

// TestCondition: a grant with a condition gives nothing before its source is seen to meet it, all while it does, and
// nothing afterwards; no other grant is touched; what is judged alike is not written.
func TestCondition(t *testing.T) {
	d := newDesk(t)
	token := d.token()
	a, b := d.join("a", token).sync(), d.join("b", token).sync()
	d.grant("node:b", "segment:lan")
	id := d.grantWhen("node:a", "segment:lan", " "+fileIsThere+"\n")
	eventually(t, "b has its segment", granted(b))
	stays(t, "a has nothing without a report", 300*time.Millisecond, withheld(a))
	a.report(1, false)
	eventually(t, "the report is there", func() bool { got, ok := d.ctl.dossiers.get(a.id); return ok && got.live() })
	stays(t, "a has nothing", 300*time.Millisecond, withheld(a))

	a.report(2, true)
	eventually(t, "a and b see each other", func() bool {
		return len(a.contents().Peers) == 1 && len(b.contents().Peers) == 1 && slices.Contains(a.contents().Grants[id].GetSources(), uint32(a.id))
	})
	list, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
	must(t, err)
	if g := list.Grants[1]; g.When != fileIsThere || !slices.Equal(g.Holders, []string{"a"}) {
		t.Errorf("the list has %v", g)
	}
	entries, _ := auditEntries(t, d)
	last := entries[len(entries)-1]
	if last.Action == "node.seat" { // its first place on the segment comes with the verdict
		last = entries[len(entries)-2]
	}
	if last.Action != "grant.verdict" || last.Object != fmt.Sprint("verdict/", id) || !strings.Contains(last.Detail, `"gained":[{"id":1,"name":"a"}]`) {
		t.Errorf("audit: %v", last)
	}

	// Judged alike: reports that differ, and time, write nothing.
	version := d.ctl.store.Model().Version
	for i := range 10 {
		a.report(uint64(3+i), true, func(r *controlv1.PostureReport) { r.Kernel = fmt.Sprint(i) })
	}
	eventually(t, "all were taken", func() bool { got, _ := d.ctl.dossiers.get(a.id); return got.report.GetSequence() == 12 })
	time.Sleep(2 * judgeEvery)
	if got := d.ctl.store.Model().Version; got != version {
		t.Errorf("the store went from revision %d to %d, although nothing flipped", version, got)
	}
	before := b.contents().Segments

	began := time.Now()
	a.report(13, false)
	eventually(t, "a has lost it, at both ends", func() bool {
		return len(a.contents().Segments) == 0 && len(b.contents().Peers) == 0
	})
	if took := time.Since(began); took > promptly {
		t.Errorf("it took %v", took)
	}
	if after := b.contents().Segments; len(after) != 1 || len(before) != 1 {
		t.Errorf("b's own grant is not what it was: %v", after)
	}
	entries, _ = auditEntries(t, d)
	if last := entries[len(entries)-1]; last.Action != "grant.verdict" || !strings.Contains(last.Detail, `"lost":[{"id":1,"name":"a"}]`) {
		t.Errorf("audit: %v", last)
	}
	a.report(14, true)
	eventually(t, "a has it again", granted(a))

	// The verdict goes with its grant.
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	eventually(t, "a has lost it", withheld(a))
	if n := len(d.ctl.store.Model().Verdicts); n != 0 {
		t.Errorf("%d verdicts are left", n)
	}
	must(t, auditWhole(t, d))
}

// TestConditionMistakes: an expression that is wrong is refused with what is wrong; the same grant under another
// condition is another grant.
func TestConditionMistakes(t *testing.T) {
	d := newDesk(t)
	d.join("a", d.token())
	for when, want := range map[string]string{
		"posture.encrypted":              "line 1, column 8: undefined field 'encrypted'",
		"posture.kernel":                 "of type string",
		" ":                              "line 1, column", // which is not to say that there is none
		strings.Repeat(" true ||", 1000): "at most 2048",
	} {
		_, err := d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: "node:a", To: "segment:lan", When: when})
		wantError(t, err, connect.CodeInvalidArgument, want)
	}
	d.grant("node:a", "segment:lan")
	d.grantWhen("node:a", "segment:lan", "true")
	_, err := d.admin.AddGrant(t.Context(), &controlv1.AddGrantRequest{From: "node:a", To: "segment:lan", When: " true "})
	wantError(t, err, connect.CodeAlreadyExists, "grant 2 says this already")
}

// TestConditionOnNode: what the controllers know needs no report; who comes to be selected is judged.
func TestConditionOnNode(t *testing.T) {
	d := newDesk(t)
	d.grantWhen("label:a=b", "segment:lan", `node.labels["team"] == "net" && node.site == "x" && "member" in node.roles`)
	labels := func(team string) func(*controlv1.CreateTokenRequest) {
		return func(r *controlv1.CreateTokenRequest) { r.Labels, r.Site = []string{"a=b", "team=" + team}, "x" }
	}
	a := d.join("a", d.token(labels("net"))).sync()
	b := d.join("b", d.token(labels("web"))).sync()
	eventually(t, "a meets it", granted(a))
	stays(t, "b does not", 100*time.Millisecond, withheld(b))
	// A locked node is judged anew when it comes back.
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_LOCKED, "")
	eventually(t, "a is no holder", func() bool { return !d.ctl.store.Model().Verdicts[1].Holds(a.id) })
	d.setStatus("a", controlv1.NodeStatus_NODE_STATUS_ACTIVE, "")
	eventually(t, "a is one again", func() bool { return d.ctl.store.Model().Verdicts[1].Holds(a.id) })
}

// TestConditionOnTime: a window opens and closes by itself.
func TestConditionOnTime(t *testing.T) {
	d := newDesk(t)
	a := d.join("a", d.token()).sync()
	begin, end := d.clock.now().Add(time.Hour), d.clock.now().Add(2*time.Hour)
	d.grantWhen("node:a", "segment:lan", fmt.Sprintf("now >= timestamp(%q) && now < timestamp(%q)", begin.Format(time.RFC3339), end.Format(time.RFC3339)))
	stays(t, "it is before the window", 200*time.Millisecond, withheld(a))
	d.clock.advance(time.Hour + time.Second)
	eventually(t, "it is in the window", granted(a))
	d.clock.advance(time.Hour)
	began := time.Now()
	eventually(t, "it is after the window", withheld(a))
	if took := time.Since(began); took > promptly {
		t.Errorf("it took %v", took)
	}
}

// TestConditionOnUnderlay: a grant can be pinned to addresses that a node sends from.
func TestConditionOnUnderlay(t *testing.T) {
	d := newDesk(t)
	a := d.join("a", d.token()).sync()
	d.grantWhen("node:a", "segment:lan", `posture.underlay.size() > 0 && posture.underlay.all(x, inCIDR(x, "192.0.2.0/24"))`)
	for i, tt := range []struct {
		underlay []string
		want     bool
	}{{[]string{"192.0.2.1"}, true}, {[]string{"192.0.2.1", "198.51.100.1"}, false}, {[]string{"192.0.2.9"}, true}, {nil, false}} {
		a.report(uint64(i+1), true, func(r *controlv1.PostureReport) { r.Underlay = tt.underlay })
		eventually(t, fmt.Sprint("judged by ", tt.underlay), func() bool { return granted(a)() == tt.want })
	}
}

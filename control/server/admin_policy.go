package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/document"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// maxConfirm is how long a change may wait to be confirmed.
const maxConfirm = 24 * time.Hour

// GetPolicy writes the policy as a document.
func (s *adminService) GetPolicy(context.Context, *controlv1.GetPolicyRequest) (*controlv1.GetPolicyResponse, error) {
	m := s.c.store.Model()
	text, err := document.Of(m).YAML()
	if err != nil {
		return nil, err
	}
	return &controlv1.GetPolicyResponse{Document: string(text), Version: m.Counters.Policy, Pending: pendingProto(m.Pending)}, nil
}

// CheckPolicy runs the tests, and says what a document would change.
func (s *adminService) CheckPolicy(_ context.Context, r *controlv1.CheckPolicyRequest) (*controlv1.CheckPolicyResponse, error) {
	m := s.c.store.Model()
	if r.GetDocument() == "" {
		results := document.Check(document.Seated(m), m.Tests, s.c.now())
		return &controlv1.CheckPolicyResponse{
			Tests: testProtos(results), Difference: &controlv1.PolicyDifference{Empty: true}, Version: m.Counters.Policy, BasedOn: m.Counters.Policy,
		}, nil
	}
	last := m.Counters.Grant
	c, err := s.consider(m, r.GetDocument(), func() model.GrantID { last++; return last })
	if err != nil {
		return nil, err
	}
	return &controlv1.CheckPolicyResponse{
		Tests: testProtos(c.results), Difference: differenceProto(c.diff), Version: m.Counters.Policy, BasedOn: c.document.Version,
	}, nil
}

// considered is a document and what it would do.
type considered struct {
	document *document.Document
	plan     *document.Plan
	results  []document.Result
	diff     *document.Diff
}

// consider works out what a document would do to a network.
func (s *adminService) consider(m *model.Model, text string, next func() model.GrantID) (*considered, error) {
	d, err := document.Parse([]byte(text))
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	for _, g := range d.Grants {
		if g.When == "" {
			continue
		}
		if _, err := s.c.judge.compiler.Compile(g.When); err != nil {
			return nil, refuse(connect.CodeInvalidArgument, "line %d: %w", g.Line, err)
		}
	}
	now := s.c.now()
	plan, err := d.Plan(m, now, next)
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	after := plan.Preview(m)
	return &considered{
		document: d, plan: plan,
		results: document.Lines(document.Check(after, plan.Tests, now), d),
		diff:    plan.Diff(document.Seated(m), after, now),
	}, nil
}

// ApplyPolicy makes the policy be what a document says.
func (s *adminService) ApplyPolicy(ctx context.Context, r *controlv1.ApplyPolicyRequest) (*controlv1.ApplyPolicyResponse, error) {
	confirm, err := spanOf("time to confirm", r.GetConfirm(), 0, maxConfirm)
	if err != nil {
		return nil, err
	}
	var out *controlv1.ApplyPolicyResponse
	err = s.update(ctx, func(tx *store.Tx) error {
		if err := noPending(tx.Model); err != nil {
			return err
		}
		c, err := s.consider(tx.Model, r.GetDocument(), tx.NextGrant)
		if err != nil {
			return err
		}
		out = &controlv1.ApplyPolicyResponse{Version: tx.PolicyVersion(), Difference: differenceProto(c.diff)}
		if c.plan.Empty() {
			return nil
		}
		if err := checkVersion(c.document.Version, tx.Model.Counters, r.GetAnyVersion()); err != nil {
			return err
		}
		failed := document.Failures(c.results)
		if len(failed) > 0 && !r.GetForce() {
			return testsFail("nothing was changed", failed)
		}
		applyPlan(tx, c.plan)
		note := policyNote{Groups: c.diff.Groups, Grants: c.diff.Grants, Tests: c.diff.Tests, Forced: texts(failed)}
		if confirm > 0 {
			pending := c.plan.Undo(tx.Model)
			pending.Until, pending.Who = tx.Now().Add(confirm), callerOf(ctx).actor().Name
			tx.Keep(pending)
			note.Until = &pending.Until
			out.Pending = pendingProto(pending)
		}
		out.Version, out.Failed = tx.PolicyVersion(), testProtos(failed)
		note.Version = out.Version
		tx.Note("policy.apply", "policy", note)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// policyNote is what the audit log says of a change of the policy as a whole.
type policyNote struct {
	Version uint64     `json:"version,omitempty"`
	Groups  []string   `json:"groups,omitempty"`
	Grants  []string   `json:"grants,omitempty"`
	Tests   []string   `json:"tests,omitempty"`
	Forced  []string   `json:"forced,omitempty"` // tests that fail now
	Until   *time.Time `json:"until,omitempty"`  // taken back then, unless it is confirmed
}

// checkVersion refuses a document that was made from another version: what somebody else has changed since would be lost.
func checkVersion(basedOn uint64, counters model.Counters, anyVersion bool) error {
	version := counters.Policy
	switch {
	case anyVersion || basedOn == version:
		return nil
	case basedOn == 0:
		return refuse(connect.CodeFailedPrecondition, "the document does not say from which version of the policy it was made, and nothing was "+
			"changed: look at `etherloom policy diff`, then put `version: %d` at its top, or apply it with --any-version", version)
	case version == counters.RolledBack && basedOn+2 == version: // one was the change, one its end
		return refuse(connect.CodeFailedPrecondition, "the document was made from version %d of the policy, and the change that was made to that was taken "+
			"back, since nobody said `etherloom policy confirm` in time, or somebody said undo: the policy is as it was, at version %d now, and nothing was "+
			"changed. Write `version: %d` into the document to apply it", basedOn, version, version)
	}
	return refuse(connect.CodeFailedPrecondition, "the document was made from version %d of the policy, which is at version %d: somebody has changed it "+
		"since, and nothing was changed now; look at `etherloom policy diff`, then write `version: %d` into the document", basedOn, version, version)
}

// applyPlan puts and deletes what a plan says. One entry in the audit log tells of all.
func applyPlan(tx *store.Tx, p *document.Plan) {
	for _, g := range p.GoneGroups {
		tx.Drop(g)
	}
	for _, g := range p.Removed {
		tx.Drop(g)
	}
	for _, g := range p.Groups {
		tx.Keep(g)
	}
	for _, g := range p.Added {
		tx.Keep(g)
	}
	if p.NewTests {
		tx.Keep(&model.Tests{List: p.Tests})
	}
}

// ConfirmPolicy lets the change stay that waits for it.
func (s *adminService) ConfirmPolicy(ctx context.Context, _ *controlv1.ConfirmPolicyRequest) (*controlv1.ConfirmPolicyResponse, error) {
	out := &controlv1.ConfirmPolicyResponse{}
	err := s.update(ctx, func(tx *store.Tx) error {
		p := tx.Model.Pending
		if p == nil || !tx.Now().Before(p.Until) {
			return refuse(connect.CodeFailedPrecondition, "nothing waits to be confirmed: it was confirmed, or its time is over and it was taken back; "+
				"`etherloom policy show` prints what holds")
		}
		tx.Drop(p)
		out.Version = tx.PolicyVersion()
		tx.Note("policy.confirm", "policy", policyNote{Version: out.Version})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// UndoPolicy takes the change back that waits to be confirmed.
func (s *adminService) UndoPolicy(ctx context.Context, _ *controlv1.UndoPolicyRequest) (*controlv1.UndoPolicyResponse, error) {
	out := &controlv1.UndoPolicyResponse{}
	err := s.update(ctx, func(tx *store.Tx) error {
		if tx.Model.Pending == nil {
			return refuse(connect.CodeFailedPrecondition, "nothing waits to be confirmed, so nothing can be taken back: apply the document that "+
				"held before")
		}
		rollBack(tx)
		out.Version = tx.PolicyVersion()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// rollBack puts back what was before the change that waits to be confirmed.
func rollBack(tx *store.Tx) {
	tx.SeatWhoFits() // others may have joined meanwhile
	m, p := tx.Model, tx.Model.Pending
	note := policyNote{Grants: document.UndoLines(m, p)}
	for _, id := range p.NewGrants {
		if g := m.Grants[id]; g != nil {
			tx.Drop(g)
		}
	}
	for _, g := range p.Grants {
		tx.Keep(g)
	}
	for _, name := range p.NewGroups {
		if g := m.Groups[name]; g != nil {
			tx.Drop(g)
		}
	}
	for _, g := range p.Groups {
		tx.Keep(g)
		note.Groups = append(note.Groups, "as before: "+g.Name)
	}
	if !slices.Equal(p.Tests, m.Tests) {
		tx.Keep(&model.Tests{List: p.Tests})
		note.Tests = []string{"as before"}
	}
	tx.Drop(p)
	tx.RolledBack()
	note.Version = tx.PolicyVersion()
	tx.Note("policy.rollback", "policy", note)
}

// updatePolicy is a transaction that changes policy by a single command: not while a change waits to be confirmed, and not if a
// test fails by it that held before.
func (s *adminService) updatePolicy(ctx context.Context, force bool, f func(*store.Tx) error) error {
	return s.update(ctx, func(tx *store.Tx) error {
		if err := noPending(tx.Model); err != nil {
			return err
		}
		if err := f(tx); err != nil || len(tx.Model.Tests) == 0 {
			return err
		}
		broken := document.Broken(document.Seated(tx.Model), document.Seated(tx.Preview()), tx.Now())
		switch {
		case len(broken) == 0:
		case force:
			tx.Note("policy.force", "policy", policyNote{Version: tx.PolicyVersion(), Forced: texts(broken)})
		default:
			return testsFail("nothing was changed", broken)
		}
		return nil
	})
}

// noPending refuses while a change waits to be confirmed: what is put back would not be what was there.
func noPending(m *model.Model) error {
	if m.Pending == nil {
		return nil
	}
	return refuse(connect.CodeFailedPrecondition, "a change of the policy waits until %s to be confirmed: `etherloom policy confirm` it or "+
		"`etherloom policy undo` it first", m.Pending.Until.UTC().Format(time.RFC3339))
}

// maxTold is how many failed tests an error tells of.
const maxTold = 20

func testsFail(consequence string, failed []document.Result) error {
	lines := texts(failed)
	if len(lines) > maxTold {
		lines = append(lines[:maxTold], fmt.Sprintf("and %d more", len(failed)-maxTold))
	}
	return refuse(connect.CodeFailedPrecondition, "%s, because %d of the policy's tests would fail:\n  %s\nchange the policy or the tests, or insist "+
		"with --force", consequence, len(failed), strings.Join(lines, "\n  "))
}

func texts(results []document.Result) []string {
	var out []string
	for i := range results {
		out = append(out, results[i].String())
	}
	return out
}

// warnOfTests says at the start which tests fail: the policy holds all the same.
func (c *Controller) warnOfTests() {
	m := c.store.Model()
	failed := document.Failures(document.Check(document.Seated(m), m.Tests, c.now()))
	if len(failed) > 0 {
		c.log.Warn("tests of the policy fail: see `etherloom policy check`", "failed", len(failed), "first", failed[0].String())
	}
}

// testsNaming are the tests that a condition holds for, in words.
func testsNaming(m *model.Model, names func(*model.Test) bool) []string {
	var out []string
	for i := range m.Tests {
		if names(&m.Tests[i]) {
			out = append(out, fmt.Sprintf("%d", i+1))
		}
	}
	return out
}

func pendingProto(p *model.Pending) *controlv1.PendingPolicy {
	if p == nil {
		return nil
	}
	return &controlv1.PendingPolicy{Until: timestamppb.New(p.Until), Who: p.Who}
}

func testProtos(results []document.Result) []*controlv1.PolicyTest {
	outcomes := map[document.Outcome]controlv1.PolicyOutcome{
		document.Passed: controlv1.PolicyOutcome_POLICY_OUTCOME_PASSED,
		document.Failed: controlv1.PolicyOutcome_POLICY_OUTCOME_FAILED,
		document.Void:   controlv1.PolicyOutcome_POLICY_OUTCOME_VOID,
	}
	var out []*controlv1.PolicyTest
	for _, r := range results {
		out = append(out, &controlv1.PolicyTest{
			Line: uint32(r.Line), Test: r.Test.String(), Allow: r.Allow, Outcome: outcomes[r.Outcome], Found: r.Found, //nolint:gosec // of a small file
		})
	}
	return out
}

// maxLines is how many lines each part of a difference has in words.
const maxLines = 100

func differenceProto(d *document.Diff) *controlv1.PolicyDifference {
	out := &controlv1.PolicyDifference{
		Empty: d.Empty(), Text: d.Text(maxLines), Groups: d.Groups, Grants: d.Grants, Tests: d.Tests, Untold: d.Untold,
	}
	for _, a := range d.Access {
		out.Access = append(out.Access, &controlv1.PolicyAccess{From: a.From, To: a.To, Segment: a.Segment, Gains: a.Gains, Loses: a.Loses, Keeps: a.Keeps})
	}
	return out
}

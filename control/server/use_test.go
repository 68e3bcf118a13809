package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
)

// TestUse: what nodes say of their own grants is shown at once, and becomes a fact once a day, which goes with the grant.
func TestUse(t *testing.T) {
	d, a, _ := pair(t)
	var ids []uint32
	list := func() map[uint32]*timestamppb.Timestamp {
		r, err := d.admin.ListGrants(t.Context(), &controlv1.ListGrantsRequest{})
		must(t, err)
		out := map[uint32]*timestamppb.Timestamp{}
		ids = nil
		for _, g := range r.GetGrants() {
			ids = append(ids, g.GetId())
			out[g.GetId()] = g.GetLastUsed()
		}
		return out
	}
	if u := list(); u[ids[0]] != nil {
		t.Errorf("at first %v", u)
	}
	id := ids[0]
	d.join("stranger", d.token())
	_, err := d.admin.AddSegment(t.Context(), &controlv1.AddSegmentRequest{Name: "dmz"})
	must(t, err)
	other := d.grant("node:stranger", "segment:dmz")
	eventually(t, "a has its state", func() bool { return a.holds() != nil })
	say := func(at time.Time, grants ...uint32) {
		t.Helper()
		r := &controlv1.UseReport{}
		for _, g := range grants {
			r.Uses = append(r.Uses, &controlv1.GrantUse{Grant: g, Last: timestamppb.New(at)})
		}
		must(t, a.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Use{Use: r}}))
	}
	now := d.clock.now()
	say(now, id, other, 999)
	eventually(t, "it is stored", func() bool { return d.ctl.store.Model().Used[model.GrantID(id)] != nil })
	if u := list(); !u[id].AsTime().Equal(now) {
		t.Errorf("used %v, want %v", u[id].AsTime(), now)
	}
	m := d.ctl.store.Model()
	if day := m.Used[model.GrantID(id)].Day; !day.Equal(now.UTC().Truncate(day24)) || len(m.Used) != 1 {
		t.Errorf("the fact is %v of %v", day, m.Used)
	}
	// The same day changes nothing in the store, and what is in the future is now.
	say(now.Add(time.Hour*1000), id)
	eventually(t, "the newest is shown", func() bool { at := list()[id].AsTime(); return !at.Before(now) && !at.After(d.clock.now()) })
	if v := d.ctl.store.Model().Version; v != m.Version {
		t.Errorf("version %d after %d on the same day", v, m.Version)
	}
	if u := list(); u[other] != nil {
		t.Errorf("a grant that a was not told of is used: %v", u[other])
	}
	_, err = d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	eventually(t, "the fact is gone", func() bool { return len(d.ctl.store.Model().Used) == 0 })
	if err := a.failed(); err != nil {
		t.Errorf("the stream has ended: %v", err)
	}
}

const day24 = 24 * time.Hour

// TestUseFlood: a node that tells of its use again and again is not heard each time, for each costs a look at all grants.
func TestUseFlood(t *testing.T) {
	d, a, _ := pair(t)
	id := d.grant("node:a", "segment:lan")
	eventually(t, "a has the grant", func() bool { return a.contents().Grants[id] != nil })
	newest := d.clock.now().Add(-time.Hour)
	const many = 200
	for i := range many {
		r := &controlv1.UseReport{Uses: []*controlv1.GrantUse{{Grant: id, Last: timestamppb.New(newest.Add(time.Duration(i-many) * time.Second))}}}
		must(t, a.stream.Send(&controlv1.NodeMessage{Kind: &controlv1.NodeMessage_Use{Use: r}}))
	}
	a.report(1, true)
	eventually(t, "all were read", func() bool { d, ok := d.ctl.dossiers.get(a.id); return ok && d.report.GetSequence() == 1 })
	if at := d.ctl.hub.lastUse(model.GrantID(id)); at.IsZero() || !at.Before(newest.Add(-2*time.Second)) {
		t.Errorf("of %d reports the last was heard: used %v", many, at)
	}
	if err := a.failed(); err != nil {
		t.Errorf("the stream has ended: %v", err)
	}
	_, err := d.admin.RemoveGrant(t.Context(), &controlv1.RemoveGrantRequest{Id: id})
	must(t, err)
	if uses := d.ctl.hub.uses(d.ctl.store.Model()); len(uses) != 0 || !d.ctl.hub.lastUse(model.GrantID(id)).IsZero() {
		t.Errorf("the use of a grant that is gone is kept: %v", uses)
	}
}

package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// This file knows when grants were used last, so that an administrator finds those that nobody needs. The moment is kept in
// memory and shown; the day becomes a fact, at most once for each grant and day: the audit log is kept for ever.

const day = 24 * time.Hour

// maxUsesStored is how many days become facts in one transaction; further ones wait for the next report.
const maxUsesStored = 40

// heedUse takes what a node says of grants that it was told of. Nothing in it is worth ending the stream for.
func (c *Controller) heedUse(ctx context.Context, st *stream, r *controlv1.UseReport) {
	view := st.view.Load()
	if view == nil {
		return
	}
	now := c.now()
	for _, u := range r.GetUses() {
		if last := u.GetLast().AsTime(); u.GetLast().IsValid() && mayUse(view, u.GetGrant()) {
			if last.After(now) {
				last = now // its clock is wrong
			}
			c.hub.use(model.GrantID(u.GetGrant()), last)
		}
	}
	if err := c.storeUses(ctx, st.who); err != nil {
		c.log.Warn("when grants were used was not stored", slog.String("request", st.who.request), slog.Any("err", err))
	}
}

// mayUse reports whether a node was told of a grant.
func mayUse(told *compile.Result, id uint32) bool {
	_, member := told.Get(fmt.Sprintf("grant/%d", id))
	_, reach := told.Get(fmt.Sprintf("reach/%d", id))
	return member || reach
}

// storeUses makes facts of the days that are no facts yet.
func (c *Controller) storeUses(ctx context.Context, who *caller) error {
	news := func(m *model.Model) (out []*model.Used) {
		used := c.hub.uses(m)
		for _, id := range slices.Sorted(maps.Keys(used)) {
			at := used[id].UTC().Truncate(day)
			if old := m.Used[id]; m.Grants[id] != nil && (old == nil || old.Day.Before(at)) && len(out) < maxUsesStored {
				out = append(out, &model.Used{Grant: id, Day: at})
			}
		}
		return out
	}
	if len(news(c.store.Model())) == 0 || !c.mayChange(who.leaf.Name.ID) {
		return nil
	}
	return c.store.Update(ctx, who.actor(), func(tx *store.Tx) error {
		if _, err := checkNode(tx.Model, who.leaf); err != nil {
			return err
		}
		for _, u := range news(tx.Model) {
			tx.Put("grant.used", u)
		}
		return nil
	})
}

// lastUsed is when a grant was used last, as far as this controller knows; nil if never.
func (c *Controller) lastUsed(m *model.Model, id model.GrantID) *timestamppb.Timestamp {
	at := c.hub.lastUse(id)
	if u := m.Used[id]; u != nil && u.Day.After(at) {
		at = u.Day
	}
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

// use notes when a grant was used.
func (h *hub) use(id model.GrantID, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.After(h.used[id]) {
		h.used[id] = at
	}
}

// uses are the times when grants were used last since the controller began. Those that are gone are forgotten.
func (h *hub) uses(m *model.Model) map[model.GrantID]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.used, func(id model.GrantID, _ time.Time) bool { return m.Grants[id] == nil })
	return maps.Clone(h.used)
}

func (h *hub) lastUse(id model.GrantID) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used[id]
}

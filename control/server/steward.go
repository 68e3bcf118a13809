package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
	"github.com/etherloom/etherloom/identity"
)

// tend is the steward: it makes facts of what the passing of time makes true. With several controllers each has one;
// whoever comes first does it, and the others find it done.
func (c *Controller) tend(ctx context.Context) error {
	var full *model.Model // at which the members that have no station could not be given one
	for {
		m, stale := c.store.Current()
		next := c.nextChore(m)
		if m.Vacant() && m != full || !next.After(c.now()) {
			err := c.store.Update(ctx, c.actor(), c.chores)
			if err == nil && c.store.Model() != m {
				continue
			}
			if ctx.Err() == nil {
				c.log.Error("what is due was not done", slog.Any("err", err), slog.Bool("segment_full", m.Vacant()))
			}
			full = m
			if retry := c.now().Add(choreRetry); next.Before(retry) {
				next = retry
			}
		}
		// However far the next chore is, clocks are set.
		wait := time.NewTimer(min(next.Sub(c.now()), time.Minute))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-stale:
		case <-wait.C:
		}
		wait.Stop()
	}
}

// choreRetry is when chores are tried again that could not be done.
const choreRetry = 2 * time.Second

// maxChores is how much one transaction does; the next one does more.
const maxChores = 25

// chores does what is due.
func (c *Controller) chores(tx *store.Tx) error {
	tx.SeatWhoFits() // a lock that ends may make members, and a full segment must not keep up everything else
	m, now := tx.Model, tx.Now()
	if m.Pending != nil && !m.Pending.Until.After(now) {
		rollBack(tx) // nobody confirmed it
		return nil
	}
	left := expire(tx, maxChores)
	left -= forgetGrants(tx, left)
	left = tendLeases(tx, left)
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		n := m.Nodes[id]
		if end := forgetAt(m, n); left > 0 && !end.IsZero() && !end.After(now) {
			tx.Put("node.forget", n.Forget())
			c.hub.forget(id)
			c.dossiers.forget(id)
			left--
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Controllers)) {
		if o := m.Controllers[id]; left > 0 && id != c.selfID() && !controllerEnd(m, o).After(now) {
			tx.Delete("controller.forget", o)
			left--
		}
	}
	if !renewCredentials(m).After(now) {
		s := *m.Settings
		s.CredentialsUntil = nextCredentials(&s, now)
		tx.Put("credentials.renew", &s)
	}
	return nil // members without a station are seated by the store
}

// expire deletes grants and locks whose time is over, up to a number, and returns what is left of that.
func expire(tx *store.Tx, left int) int {
	m, now := tx.Model, tx.Now()
	for _, id := range slices.Sorted(maps.Keys(m.Grants)) {
		if g := m.Grants[id]; left > 0 && !grantEnd(m, g).After(now) {
			tx.Delete("grant.expire", g)
			left--
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Locks)) {
		if l := m.Locks[id]; left > 0 && !lockEnd(m, l).After(now) {
			tx.Delete("lock.expire", l)
			left--
		}
	}
	return left
}

// forgetGrants deletes what was kept of the use of grants that are gone, and the verdicts on those that a document took away, up to so
// many facts, and says how many.
func forgetGrants(tx *store.Tx, most int) (n int) {
	m := tx.Model
	forget := func(id model.GrantID, f model.Fact) {
		if n < most && m.Grants[id] == nil {
			tx.Delete("grant.forget", f)
			n++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.Used)) {
		forget(id, m.Used[id])
	}
	for _, id := range slices.Sorted(maps.Keys(m.Verdicts)) {
		forget(id, m.Verdicts[id])
	}
	return n
}

// never is when nothing is due.
func never() time.Time { return time.Unix(1<<40, 0) }

// nextChore is when something is due, which may be in the past.
func (c *Controller) nextChore(m *model.Model) time.Time {
	next := renewCredentials(m)
	if m.Pending != nil && m.Pending.Until.Before(next) {
		next = m.Pending.Until
	}
	for _, g := range m.Grants {
		if end := grantEnd(m, g); end.Before(next) {
			next = end
		}
	}
	for _, l := range m.Locks {
		if end := lockEnd(m, l); end.Before(next) {
			next = end
		}
	}
	next = nextLease(m, next)
	if gone(m, m.Used) || gone(m, m.Verdicts) {
		next = time.Time{}
	}
	for id, o := range m.Controllers {
		if end := controllerEnd(m, o); id != c.selfID() && end.Before(next) {
			next = end
		}
	}
	for _, n := range m.Nodes {
		if end := forgetAt(m, n); !end.IsZero() && end.Before(next) {
			next = end
		}
	}
	return next
}

// gone reports whether something is kept about a grant that is gone.
func gone[F any](m *model.Model, about map[model.GrantID]F) bool {
	for id := range about {
		if m.Grants[id] == nil {
			return true
		}
	}
	return false
}

// grantEnd is when a grant is to be deleted: when it expires, or at once if a node that it names was removed.
func grantEnd(m *model.Model, g *model.Grant) time.Time {
	target := identity.ID(0)
	if g.Target != nil {
		target = g.Target.Node
	}
	return endOf(m, g.Expires, g.Node, target)
}

// lockEnd is when a lock is to be deleted, by the same rule.
func lockEnd(m *model.Model, l *model.Lock) time.Time { return endOf(m, l.Expires, l.Node) }

// endOf is the end of what an administrator has said about nodes; zero if one of them was removed.
func endOf(m *model.Model, expires time.Time, ids ...identity.ID) time.Time {
	for _, id := range ids {
		if n := m.Nodes[id]; n != nil && n.OwnStatus == model.StatusRemoved {
			return time.Time{}
		}
	}
	if expires.IsZero() {
		return never()
	}
	return expires
}

// forgetAt is when nothing that was signed for a locked or removed node can be valid any more: no certificate, not even
// within the grace, and no TURN credential. It is zero if there is nothing to forget.
func forgetAt(m *model.Model, n *model.Node) time.Time {
	status := m.Status(n)
	if n.Forgotten || status != model.StatusLocked && status != model.StatusRemoved {
		return time.Time{}
	}
	end := n.CertifiedUntil.Add(time.Duration(m.Settings.Grace))
	if slot := m.CredentialUntil(n); slot.After(end) {
		end = slot
	}
	return end
}

// controllerEnd is when a controller that has not renewed its certificate is taken to be gone for good, so that nodes and
// tokens no longer name it. If it comes back after all, it enters itself anew.
func controllerEnd(m *model.Model, o *model.Controller) time.Time {
	return o.Expires.Add(time.Duration(m.Settings.Grace) + 7*24*time.Hour)
}

// renewCredentials is when new TURN credentials are to be minted: while those that nodes hold still last long enough.
func renewCredentials(m *model.Model) time.Time {
	return m.Settings.CredentialsUntil.Add(-credentialLife(m.Settings))
}

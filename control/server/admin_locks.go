package server

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/store"
)

// longestLock is how long a lock may last that ends by itself.
const longestLock = 10 * 366 * 24 * time.Hour

// AddLock cuts nodes off: one, or whoever has a label or enrolled with a token.
func (s *adminService) AddLock(ctx context.Context, r *controlv1.AddLockRequest) (*controlv1.AddLockResponse, error) {
	if err := checkText("message", r.GetMessage()); err != nil {
		return nil, err
	}
	ttl, err := spanOf("ttl", r.GetTtl(), 0, longestLock)
	if err != nil {
		return nil, err
	}
	var lock *model.Lock
	err = s.update(ctx, func(tx *store.Tx) error {
		lock, err = putLock(tx, r.GetTarget(), r.GetMessage(), ttl, callerOf(ctx).actor().Name)
		return err
	})
	if err != nil {
		return nil, err
	}
	m := s.c.store.Model()
	out := &controlv1.AddLockResponse{Lock: lockProto(m, lock)}
	if n := m.Nodes[lock.Node]; n != nil {
		out.Node = s.describe(m, n)
	}
	return out, nil
}

// putLock makes a lock, or extends the one that is there on the same target. The lock in the record of a node, of an older
// program, becomes one with a number.
func putLock(tx *store.Tx, target, message string, ttl time.Duration, by string) (*model.Lock, error) {
	l, err := tx.Model.LockOf(target)
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	l.Message, l.By, l.Created, l.SlotUntil = message, by, tx.Now(), tx.Model.Settings.CredentialsUntil
	if ttl > 0 {
		l.Expires = tx.Now().Add(ttl)
	}
	for _, o := range inOrder(tx.Model.Locks) {
		if !o.SameTarget(l) {
			continue
		}
		extended := o.Extend(l)
		if *extended != *o {
			tx.Put("lock.extend", extended)
		}
		return extended, nil
	}
	if n := tx.Model.Nodes[l.Node]; n != nil && n.OwnStatus == model.StatusLocked {
		if l.Message == "" {
			l.Message = n.Message
		}
		l.Expires = time.Time{}
		l.Created, l.SlotUntil = n.CutAt, n.SlotUntil
		tx.Put("node.unlock", withoutOwnLock(n))
	}
	l.ID = tx.NextLock()
	tx.Put("lock.add", l)
	return l, nil
}

// withoutOwnLock is a node's record without the lock that an older program wrote into it.
func withoutOwnLock(n *model.Node) *model.Node {
	n = n.Clone()
	n.OwnStatus, n.Message, n.CutAt, n.SlotUntil = model.StatusActive, "", time.Time{}, time.Time{}
	return n
}

// lockProto is the lock with those whom it selects.
func lockProto(m *model.Model, l *model.Lock) *controlv1.Lock {
	out := l.Proto()
	for _, n := range m.Selected(l) {
		out.Nodes = append(out.Nodes, n.Name)
	}
	return out
}

// allLocks returns every lock by number, those in the records of nodes first.
func allLocks(m *model.Model) []*model.Lock {
	locks := slices.Collect(maps.Values(m.Locks))
	for _, n := range m.Nodes {
		if on := m.LocksOn(n); len(on) > 0 && on[0].ID == 0 {
			locks = append(locks, on[0])
		}
	}
	slices.SortFunc(locks, func(a, b *model.Lock) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node))
	})
	return locks
}

// ListLocks lists the locks there are.
func (s *adminService) ListLocks(context.Context, *controlv1.ListLocksRequest) (*controlv1.ListLocksResponse, error) {
	m, out := s.c.store.Model(), &controlv1.ListLocksResponse{}
	for _, l := range allLocks(m) {
		out.Locks = append(out.Locks, lockProto(m, l))
	}
	return out, nil
}

// RemoveLock lifts locks, and says which of the nodes that they selected are held by others still.
func (s *adminService) RemoveLock(ctx context.Context, r *controlv1.RemoveLockRequest) (*controlv1.RemoveLockResponse, error) {
	if (r.GetTarget() == "") == (r.GetId() == 0) {
		return nil, refuse(connect.CodeInvalidArgument, "name the lock by its target or by its number, one of the two")
	}
	var lifted []*model.Lock
	err := s.update(ctx, func(tx *store.Tx) (err error) {
		lifted, err = findLocks(tx.Model, r)
		for _, l := range lifted {
			lift(tx, l)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	m, out, seen := s.c.store.Model(), &controlv1.RemoveLockResponse{}, map[*model.Node]bool{}
	if l, err := m.LockOf(r.GetTarget()); err == nil && l.Node != 0 {
		out.Node = s.describe(m, m.Nodes[l.Node])
	}
	for _, l := range lifted {
		out.Lifted = append(out.Lifted, lockProto(m, l))
		for _, n := range m.Selected(l) {
			if m.Status(n) == model.StatusLocked && !seen[n] {
				out.Held = append(out.Held, s.describe(m, n))
			}
			seen[n] = true
		}
	}
	return out, nil
}

// findLocks finds the locks that a request means. There is none on a target that is not locked, which is not an error for
// a node: it is as it was asked for.
func findLocks(m *model.Model, r *controlv1.RemoveLockRequest) ([]*model.Lock, error) {
	const which = "`etherloom node locks` shows those there are"
	if r.GetId() != 0 {
		l := m.Locks[model.LockID(r.GetId())]
		if l == nil {
			return nil, refuse(connect.CodeNotFound, "there is no lock %d: "+which, r.GetId())
		}
		return []*model.Lock{l}, nil
	}
	want, err := m.LockOf(r.GetTarget())
	if err != nil {
		return nil, refuse(connect.CodeInvalidArgument, "%w", err)
	}
	var found []*model.Lock
	for _, l := range allLocks(m) {
		if l.SameTarget(want) {
			found = append(found, l)
		}
	}
	if len(found) == 0 && want.Node == 0 {
		return nil, refuse(connect.CodeNotFound, "there is no lock on %s: "+which, r.GetTarget())
	}
	return found, nil
}

// lift takes a lock away, also one that is in a node's record.
func lift(tx *store.Tx, l *model.Lock) {
	if l.ID == 0 {
		tx.Put("node.unlock", withoutOwnLock(tx.Model.Nodes[l.Node]))
		return
	}
	tx.Delete("lock.remove", l)
}

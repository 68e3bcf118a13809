package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
)

// Actor is who makes a change, for the audit log.
type Actor struct {
	Name    string // SPIFFE id, or "controller"
	Source  string // address that the request came from
	Request string // its id
}

// defaultOps is how many operations a transaction may have in a cluster that was left as it comes: etcd takes 128.
const defaultOps = 120

// ErrTooLarge means that a change has more parts or bytes than the store takes at once. Nothing was changed.
var ErrTooLarge = errors.New("the change is too large for the store, make it in parts")

var errBusy = errors.New("other controllers changed the network again and again at the same time: try again")

// Update changes facts. The function decides on the newest Model what to put and delete; it may run several times and
// must do nothing else. When Update returns nil the change is durable and is in the current Model. An error of the
// function is returned as it is, and nothing was changed.
//
// After the function, members of segments that have no station yet are given one, as many as the transaction has room
// for; Model.Vacant then says whether another Update is needed.
func (s *Store) Update(ctx context.Context, who Actor, f func(*Tx) error) error {
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for range maxUpdateTries {
		tx := newTx(s.Model(), who, s.cfg.Now())
		if err := f(tx); err != nil {
			return err
		}
		if err := tx.seat(); err != nil {
			return err
		}
		if len(tx.changes) == 0 {
			return nil
		}
		done, err := s.commit(ctx, tx)
		if done || err != nil {
			return err
		}
		if err := s.load(ctx); err != nil {
			return err
		}
	}
	return errBusy
}

// commit writes a transaction if the head is still that of its Model, and reports whether it was.
func (s *Store) commit(ctx context.Context, tx *Tx) (bool, error) {
	ops, err := s.ops(tx)
	if err != nil {
		return false, err
	}
	if len(ops) > s.engine.maxOps {
		return false, fmt.Errorf("%w: it needs %d operations, and %d are taken at once", ErrTooLarge, len(ops), s.engine.maxOps)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	resp, err := s.engine.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.factKey("head")), "=", int64(tx.Model.Version)),
			clientv3.Compare(clientv3.CreateRevision(s.entryKey(tx.Model.AuditHead().Sequence+1)), "=", 0)).
		Then(ops...).
		Else(clientv3.OpGet(s.factKey("head"))).
		Commit()
	if err != nil {
		return false, fmt.Errorf("write to the store, whether it happened is unknown: %w", s.engine.explain(err))
	}
	if !resp.Succeeded {
		head := resp.Responses[0].GetResponseRange().GetKvs()
		if len(head) == 1 && uint64(head[0].ModRevision) == tx.Model.Version {
			return false, fmt.Errorf("the audit log has an entry %d beyond its head: somebody wrote to the store past the "+
				"controllers; `audit verify` shows where", tx.Model.AuditHead().Sequence+1)
		}
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publishLocked(tx.facts, resp.Header.GetRevision(), resp.Header.GetRevision())
	return true, nil
}

// ops turns a transaction into etcd's operations: the facts, the audit entries, the head.
func (s *Store) ops(tx *Tx) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	head := tx.Model.AuditHead()
	for _, c := range tx.changes {
		detail, err := c.detail()
		if err != nil {
			return nil, err
		}
		e := &controlv1.AuditEntry{
			Time: timestamppb.New(tx.now), Actor: tx.who.Name, Source: tx.who.Source, Request: tx.who.Request,
			Action: c.action, Object: c.object, Detail: detail,
		}
		head = head.Append(e)
		b, err := proto.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode audit entry: %w", err)
		}
		ops = append(ops, clientv3.OpPut(s.entryKey(e.Sequence), string(b)))
	}
	tx.put(&model.Head{Sequence: head.Sequence, Hash: head.Hash[:]})
	for _, key := range slices.Sorted(maps.Keys(tx.touched)) {
		f, ok := tx.facts[key]
		if !ok {
			ops = append(ops, clientv3.OpDelete(s.factKey(key)))
			continue
		}
		b, err := model.Encode(f)
		if err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(s.factKey(key), string(b)))
	}
	return ops, nil
}

package store

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// rewatch is how long the watch rests after it broke.
	rewatch = 200 * time.Millisecond
	// minConfirmWait is the least time that a confirmation may take.
	minConfirmWait = 300 * time.Millisecond
)

// watch applies what changes in etcd to the Model.
func (s *Store) watch(ctx context.Context) error {
	for {
		from := s.current.Load().revision + 1
		events := s.engine.client.Watch(ctx, s.factKey(""), clientv3.WithPrefix(), clientv3.WithRev(from))
		for resp := range events {
			if err := resp.Err(); err != nil {
				s.cfg.Log.Warn("watch of the store broke", slog.Any("err", err))
				break
			}
			if err := s.apply(resp.Events); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rewatch):
		}
		// What was missed may have been compacted away (etcd: "required revision has been compacted").
		if err := s.load(ctx); err != nil && !errors.Is(err, errNoAnswer) {
			return err
		}
	}
}

// apply brings the Model forward by events, in the order of their revisions.
func (s *Store) apply(events []*clientv3.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.current.Load()
	facts, version, revision := maps.Clone(old.model.Facts), int64(old.model.Version), old.revision
	chained := map[int64]bool{} // revisions that moved the head of the audit log
	for _, ev := range events {
		if ev.Kv.ModRevision <= old.revision {
			continue
		}
		key := strings.TrimPrefix(string(ev.Kv.Key), s.factKey(""))
		revision = max(revision, ev.Kv.ModRevision)
		if key == "head" {
			version, chained[ev.Kv.ModRevision] = ev.Kv.ModRevision, true
		}
		if ev.Type == mvccpb.DELETE {
			delete(facts, key)
		} else if err := set(facts, key, ev.Kv.Value); err != nil {
			return err
		}
	}
	if revision == old.revision {
		return nil // our own Update has published it
	}
	s.publishLocked(facts, version, revision)
	for _, ev := range events {
		if ev.Kv.ModRevision > old.revision && !chained[ev.Kv.ModRevision] {
			s.cfg.Log.Error("fact was changed past the audit log", slog.String("key", string(ev.Kv.Key)),
				slog.Int64("revision", ev.Kv.ModRevision))
		}
	}
	return nil
}

// confirm asks etcd every so often whether the Model is the newest.
func (s *Store) confirm(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Confirm)
	defer tick.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		at := s.cfg.Now()
		err := s.confirmOnce(ctx)
		switch {
		case err == nil:
			s.confirmed.Store(&at)
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, errNoAnswer):
			return err
		case !lost:
			s.cfg.Log.Error("store does not answer: nodes keep what they have until it expires", slog.Any("err", err))
		}
		if lost && err == nil {
			s.cfg.Log.Info("store answers again")
		}
		lost = err != nil
	}
}

// confirmOnce asks for the head, from the cluster's majority. A Model that is behind it for more than a moment is read
// anew.
func (s *Store) confirmOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(s.cfg.Confirm, minConfirmWait))
	defer cancel()
	resp, err := s.engine.get(ctx, s.factKey("head"))
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	late := time.After(minConfirmWait / 2)
	newest := uint64(resp.Kvs[0].ModRevision)
	for {
		m, stale := s.Current()
		if m.Version >= newest {
			return nil
		}
		select {
		case <-stale:
		case <-late:
			return s.load(ctx)
		}
	}
}

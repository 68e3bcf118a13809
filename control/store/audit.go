package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
)

// maxPage is how many bytes of entries are read at once, but for one entry that is longer: a policy document's change may be.
const maxPage = 4 << 20

// Audit reads the log's entries after a sequence number, at most limit of them, and the head at the same moment. It
// returns what is stored and judges nothing: that is audit.Verify's business.
func (s *Store) Audit(ctx context.Context, after uint64, limit int64) ([]*controlv1.AuditEntry, audit.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	resp, err := s.engine.client.Txn(ctx).Then(
		clientv3.OpGet(s.factKey("head")),
		clientv3.OpGet(s.entryKey(after+1), clientv3.WithRange(clientv3.GetPrefixRangeEnd(s.prefix+"audit/")),
			clientv3.WithLimit(limit)),
	).Commit()
	if err != nil {
		return nil, audit.Head{}, fmt.Errorf("read the audit log: %w", s.engine.explain(err))
	}
	var head audit.Head
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		f, err := model.Decode("head", kv.Value)
		if err != nil {
			return nil, audit.Head{}, err
		}
		if h, ok := f.(*model.Head); ok {
			head = audit.Head{Sequence: h.Sequence, Hash: [32]byte(h.Hash)}
		}
	}
	var entries []*controlv1.AuditEntry
	bytes := 0
	for _, kv := range resp.Responses[1].GetResponseRange().GetKvs() {
		if bytes += len(kv.Value); bytes > maxPage && len(entries) > 0 {
			break
		}
		e := new(controlv1.AuditEntry)
		if err := proto.Unmarshal(kv.Value, e); err != nil {
			// What cannot be read is shown as an entry with nothing in it, which no check passes.
			e = &controlv1.AuditEntry{}
		}
		entries = append(entries, e)
	}
	return entries, head, nil
}

// Contains reports whether a head that a node has seen is in the log.
func (s *Store) Contains(ctx context.Context, seen audit.Head) (bool, error) {
	if seen.Sequence == 0 {
		return true, nil
	}
	resp, err := s.engine.get(ctx, s.entryKey(seen.Sequence))
	if err != nil {
		return false, fmt.Errorf("read the audit log: %w", err)
	}
	e := new(controlv1.AuditEntry)
	if len(resp.Kvs) == 0 || proto.Unmarshal(resp.Kvs[0].Value, e) != nil {
		return false, nil
	}
	return e.GetSequence() == seen.Sequence && audit.Hash(e) == seen.Hash, nil
}

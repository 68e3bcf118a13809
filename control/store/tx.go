package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// Tx is one transaction: a Model, and what shall be changed of it.
type Tx struct {
	// Model is as it was before the transaction.
	Model *model.Model

	who      Actor
	now      time.Time
	facts    model.Facts
	touched  map[string]bool
	counters model.Counters
	changes  []change
	policy   bool // the version of the policy was raised
	crowded  bool // who finds no room on a segment goes without
}

// seatsNobody reports whether nothing was changed by which somebody could become a member of a segment.
func (tx *Tx) seatsNobody() bool {
	if len(tx.changes) == 0 {
		return true
	}
	for key := range tx.touched {
		if !strings.HasPrefix(key, "lease/") {
			return false
		}
	}
	return true
}

// change is one entry of the audit log to be.
type change struct {
	action, object string
	before, after  any // nil: there was none, there is none
}

func newTx(m *model.Model, who Actor, now time.Time) *Tx {
	return &Tx{Model: m, who: who, now: now, facts: maps.Clone(m.Facts), touched: map[string]bool{}, counters: m.Counters}
}

// Now is the time of the transaction.
func (tx *Tx) Now() time.Time { return tx.now }

// Preview is the Model as it would be if the transaction ended here.
func (tx *Tx) Preview() *model.Model {
	return model.Derive(maps.Clone(tx.facts), tx.Model.Version, tx.Model)
}

// Put makes or replaces a fact. The action, such as "grant.add", is what the audit log calls it. The fact belongs to
// the store afterwards.
func (tx *Tx) Put(action string, f model.Fact) {
	c := change{action: action, object: f.Key(), after: model.Public(f)}
	if old, ok := tx.facts[f.Key()]; ok {
		c.before = model.Public(old)
	}
	tx.changes = append(tx.changes, c)
	tx.put(f)
}

// PutNoted makes or replaces a fact of which the audit log gets a note in place of the whole record.
func (tx *Tx) PutNoted(action string, f model.Fact, note any) {
	tx.Note(action, f.Key(), note)
	tx.put(f)
}

// Delete removes a fact. The verdict on a grant goes with it.
func (tx *Tx) Delete(action string, f model.Fact) {
	if g, ok := f.(*model.Grant); ok {
		if v := tx.facts[model.VerdictKey(g.ID)]; v != nil {
			tx.touched[v.Key()] = true
			delete(tx.facts, v.Key())
		}
	}
	tx.changes = append(tx.changes, change{action: action, object: f.Key(), before: model.Public(f)})
	tx.Drop(f)
}

// Keep makes or replaces a fact of which another entry in the audit log tells (Note).
func (tx *Tx) Keep(f model.Fact) { tx.put(f) }

// Drop removes a fact of which another entry in the audit log tells.
func (tx *Tx) Drop(f model.Fact) {
	tx.touched[f.Key()] = true
	delete(tx.facts, f.Key())
	tx.raise(f)
}

// Note writes an entry into the audit log that changes nothing else.
func (tx *Tx) Note(action, object string, detail any) {
	tx.changes = append(tx.changes, change{action: action, object: object, after: detail})
}

func (tx *Tx) put(f model.Fact) {
	tx.touched[f.Key()] = true
	tx.facts[f.Key()] = f
	tx.raise(f)
}

// raise raises the version of the policy, once, if a fact is part of it. So no act can forget to.
func (tx *Tx) raise(f model.Fact) {
	switch f.(type) {
	case *model.Grant, *model.Group, *model.Tests:
	default:
		return
	}
	if !tx.policy {
		tx.policy = true
		tx.counters.Policy++
		tx.count()
	}
}

// PolicyVersion is the version of the policy after the transaction.
func (tx *Tx) PolicyVersion() uint64 { return tx.counters.Policy }

// RolledBack keeps that the policy's version after the transaction is what was before a change.
func (tx *Tx) RolledBack() {
	tx.counters.RolledBack = tx.counters.Policy
	tx.count()
}

// count puts the counters after one of them was raised.
func (tx *Tx) count() {
	c := tx.counters
	tx.put(&c)
}

// NextNode returns an id that no node ever had.
func (tx *Tx) NextNode() identity.ID {
	tx.counters.Node++
	tx.count()
	return tx.counters.Node
}

// NextController returns an id that no controller ever had.
func (tx *Tx) NextController() identity.ID {
	tx.counters.Controller++
	tx.count()
	return tx.counters.Controller
}

// NextAdmin returns an id that no administrator ever had.
func (tx *Tx) NextAdmin() identity.ID {
	tx.counters.Admin++
	tx.count()
	return tx.counters.Admin
}

// maxVNI is the greatest VNI.
const maxVNI = 1<<24 - 1

// NextSegment returns a VNI that no segment ever had.
func (tx *Tx) NextSegment() (model.VNI, error) {
	if tx.counters.Segment == maxVNI {
		return 0, fmt.Errorf("the network has used up all %d VNIs", maxVNI)
	}
	tx.counters.Segment++
	tx.count()
	return tx.counters.Segment, nil
}

// NextGrant returns an id that no grant ever had.
func (tx *Tx) NextGrant() model.GrantID {
	tx.counters.Grant++
	tx.count()
	return tx.counters.Grant
}

// NextLock returns an id that no lock ever had.
func (tx *Tx) NextLock() model.LockID {
	tx.counters.Lock++
	tx.count()
	return tx.counters.Lock
}

// SeatWhoFits makes the transaction good also if a segment has no room for some that become members by it. Without it that is
// model.ErrFull, which is for somebody who can choose otherwise.
func (tx *Tx) SeatWhoFits() { tx.crowded = true }

// seat gives stations to the members that the transaction leaves without one, as far as there is room.
func (tx *Tx) seat() error {
	if !tx.Model.Vacant() && tx.seatsNobody() {
		return nil
	}
	m := model.Derive(tx.facts, tx.Model.Version, tx.Model)
	// The head and two comparisons are still to come; a node takes two operations, its record and its entry.
	room := (defaultOps - len(tx.touched) - len(tx.changes) - 3) / 2
	before := tx.Model
	if tx.crowded {
		before = m
	}
	nodes, err := m.Seat(max(room, 0), before)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		tx.Put("node.seat", n)
	}
	return nil
}

// detail is what an audit entry says of a change: {"before": ..., "after": ...}. Of a fact that was there before and is
// there after, only the fields that differ.
func (c change) detail() (string, error) {
	before, err := fields(c.before)
	if err != nil {
		return "", err
	}
	after, err := fields(c.after)
	if err != nil {
		return "", err
	}
	if c.before != nil && c.after != nil {
		for name, value := range before {
			if bytes.Equal(value, after[name]) {
				delete(before, name)
				delete(after, name)
			}
		}
	}
	out := map[string]any{}
	if c.before != nil {
		out["before"] = before
	}
	if c.after != nil {
		out["after"] = after
	}
	b, err := json.Marshal(out)
	return string(b), err
}

// fields splits a record into its fields.
func fields(record any) (map[string]json.RawMessage, error) {
	b, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("encode for the audit log: %w", err)
	}
	var out map[string]json.RawMessage
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("encode for the audit log: %w", err)
	}
	return out, nil
}

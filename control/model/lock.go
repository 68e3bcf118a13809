package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// LockID numbers a lock. It is never given twice.
type LockID uint32

// Lock cuts nodes off for as long as it is there. Target is as the administrator wrote it; Node, Label or Token is what it
// meant then, so that a machine which later takes a freed name is not locked by it. A label selects nodes that join later,
// too; a token selects the nodes that enrolled with it, and cannot be used itself.
//
// Locks add up: a node is locked while any of them selects it.
type Lock struct {
	ID      LockID      `json:"id"`
	Target  string      `json:"target"`
	Node    identity.ID `json:"node,omitempty"` // or
	Label   string      `json:"label,omitempty"`
	Token   string      `json:"token,omitempty"`
	Message string      `json:"message,omitempty"` // the locked are told
	By      string      `json:"by"`                // SPIFFE id of the administrator
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"` // zero: never
	// SlotUntil is when the last TURN credential ends that those may hold who were cut off by it.
	SlotUntil time.Time `json:"slot_until,omitzero"`
}

// Key is "lock/ID".
func (l *Lock) Key() string { return fmt.Sprintf("lock/%d", l.ID) }

// SameTarget reports whether two locks mean the same.
func (l *Lock) SameTarget(o *Lock) bool {
	return l.Node == o.Node && l.Label == o.Label && l.Token == o.Token
}

// Selects reports whether a lock means a node.
func (l *Lock) Selects(n *Node) bool {
	switch {
	case l.Node != 0:
		return l.Node == n.ID
	case l.Label != "":
		return slices.Contains(n.Labels, l.Label)
	}
	return l.Token != "" && l.Token == n.Token
}

// Extend makes a lock last as long as another one, if that is longer, and takes over its message, if it has one. To
// lock again never lets anybody in earlier.
func (l *Lock) Extend(o *Lock) *Lock {
	c := *l
	if o.Message != "" {
		c.Message = o.Message
	}
	if c.Expires.IsZero() || o.Expires.IsZero() {
		c.Expires = time.Time{}
	} else if o.Expires.After(c.Expires) {
		c.Expires = o.Expires
	}
	return &c
}

// LockOf resolves a lock's target: node:NAME, label:KEY=VALUE or token:ID.
func (m *Model) LockOf(target string) (*Lock, error) {
	l := &Lock{Target: target}
	kind, rest, _ := strings.Cut(target, ":")
	switch kind {
	case "node":
		n := m.NodeNamed(rest)
		if n == nil {
			return nil, fmt.Errorf("no node is called %q: `etherloom node list` shows those there are", rest)
		}
		l.Node = n.ID
	case "label":
		label, err := identity.ParseLabel(rest)
		if err != nil {
			return nil, err
		}
		l.Label = label.String()
	case "token":
		t := m.Tokens[rest]
		if t == nil {
			return nil, fmt.Errorf("there is no token %q: `etherloom token list` shows those there are", rest)
		}
		l.Token = t.ID
	default:
		return nil, fmt.Errorf("a lock's target is node:NAME, label:KEY=VALUE or token:ID, found %q", target)
	}
	return l, nil
}

// inherited is the lock that an older program wrote into the node's own record, as a lock without a number; nil if there is
// none.
func (n *Node) inherited() *Lock {
	if n.OwnStatus != StatusLocked {
		return nil
	}
	return &Lock{Target: "node:" + n.Name, Node: n.ID, Message: n.Message, Created: n.CutAt, SlotUntil: n.SlotUntil}
}

// deriveLocks works out which locks hold which nodes.
func (m *Model) deriveLocks() {
	m.lockedBy = map[identity.ID][]*Lock{}
	byLabel, byToken := map[string][]*Lock{}, map[string][]*Lock{}
	for _, l := range m.Locks {
		switch {
		case l.Node != 0:
			m.lockedBy[l.Node] = append(m.lockedBy[l.Node], l)
		case l.Label != "":
			byLabel[l.Label] = append(byLabel[l.Label], l)
		case l.Token != "":
			byToken[l.Token] = append(byToken[l.Token], l)
		}
	}
	for id, n := range m.Nodes {
		all := append(m.lockedBy[id], byToken[n.Token]...)
		for _, label := range n.Labels {
			all = append(all, byLabel[label]...)
		}
		if l := n.inherited(); l != nil {
			all = append(all, l)
		}
		if len(all) > 0 {
			slices.SortFunc(all, func(a, b *Lock) int { return cmp.Compare(a.ID, b.ID) })
			m.lockedBy[id] = slices.Compact(all) // a label may be there twice
		}
	}
}

// Status is where a node is in its life, locks considered: what every decision about it asks.
func (m *Model) Status(n *Node) Status {
	if n.OwnStatus != StatusRemoved && len(m.lockedBy[n.ID]) > 0 {
		return StatusLocked
	}
	return n.OwnStatus
}

// LocksOn returns the locks that hold a node, by number; 0 is one that an older program wrote into its record.
func (m *Model) LocksOn(n *Node) []*Lock {
	if n.OwnStatus == StatusRemoved {
		return nil
	}
	return m.lockedBy[n.ID]
}

// LockOnToken returns the lock that keeps a token from being used, or nil.
func (m *Model) LockOnToken(id string) *Lock {
	var found *Lock
	for _, l := range m.Locks {
		if l.Token == id && id != "" && (found == nil || l.ID < found.ID) {
			found = l
		}
	}
	return found
}

// Selected returns the nodes that a lock selects and that are not removed, by id.
func (m *Model) Selected(l *Lock) []*Node {
	var out []*Node
	for _, n := range m.Nodes {
		if n.OwnStatus != StatusRemoved && l.Selects(n) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *Node) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Why is what a locked or removed node is told: the administrators' messages, and until when it is locked; zero if
// somebody must unlock it.
func (m *Model) Why(n *Node) (message string, until time.Time) {
	if m.Status(n) != StatusLocked {
		return n.Message, time.Time{}
	}
	var texts []string
	forever := false
	for _, l := range m.LocksOn(n) {
		if l.Message != "" && !slices.Contains(texts, l.Message) {
			texts = append(texts, l.Message)
		}
		forever = forever || l.Expires.IsZero()
		if l.Expires.After(until) {
			until = l.Expires
		}
	}
	if forever {
		until = time.Time{}
	}
	return strings.Join(texts, "; "), until
}

// CutAt is when a locked or removed node was cut off; zero if it is not.
func (m *Model) CutAt(n *Node) time.Time {
	at := n.CutAt
	for _, l := range m.LocksOn(n) {
		since := l.Created
		if n.Enrolled.After(since) {
			since = n.Enrolled
		}
		if at.IsZero() || since.Before(at) {
			at = since
		}
	}
	return at
}

// CredentialUntil is when the last TURN credential ends that a locked or removed node may hold.
func (m *Model) CredentialUntil(n *Node) time.Time {
	end := n.SlotUntil
	for _, l := range m.LocksOn(n) {
		if l.SlotUntil.After(end) {
			end = l.SlotUntil
		}
	}
	return end
}

// Proto is the lock as an administrator sees it.
func (l *Lock) Proto() *controlv1.Lock {
	return &controlv1.Lock{
		Id: uint32(l.ID), Target: l.Target, Message: l.Message, By: l.By, Created: stamp(l.Created), Expires: stamp(l.Expires),
	}
}

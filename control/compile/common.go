package compile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/control/state"
)

// This file keeps what many nodes are told alike once. In a large network nearly all that a node is told is told to all members of its segments:
// with a copy for each of a thousand nodes, each change of one machine of ten thousand would be twenty million entries to make, compare and hash.

// common is what all are told who are told of the same segments, by their views: these, who is there, and what was granted to them. It never changes.
type common struct {
	entries state.State
	keys    []string // of entries, sorted
	others  meetings // who is told of, and where they share segments
	marks   []mark
}

// mark is the hash of a state up to a place in keys, for states that do not differ before.
type mark struct {
	at   int
	hash hash.Cloner
}

// markEvery is how many entries are between two marks.
const markEvery = 1024

// Result is what one node is told: what is common, with its own in its place or beside it. It never changes.
type Result struct {
	Hash [32]byte

	common  *common
	own     state.State
	without string // the key of what is common and is not told to this node: of itself as a peer; empty: none
	inputs  inputs
}

// Get returns the resource at a key, serialised; false if the node is told none.
func (r *Result) Get(key string) ([]byte, bool) {
	if value, ok := r.own[key]; ok {
		return value, true
	}
	if key == r.without {
		return nil, false
	}
	value, ok := r.common.entries[key]
	return value, ok
}

// State returns all that the node is told. It is made anew each time, and is the caller's.
func (r *Result) State() state.State {
	s := make(state.State, len(r.common.entries)+len(r.own))
	maps.Copy(s, r.common.entries)
	delete(s, r.without)
	maps.Copy(s, r.own)
	return s
}

// commonOf returns what is common to all who are told of these segments.
func (c *Compiler) commonOf(in inputs) (*common, error) {
	var name strings.Builder
	for _, v := range in.views {
		name.WriteString(vniText(v.Segment.VNI))
	}
	if x := c.commons[name.String()]; x != nil {
		return x, nil
	}
	x := &common{entries: state.State{}, others: meetings{}}
	for _, v := range in.views {
		if err := c.addView(x.entries, v); err != nil {
			return nil, err
		}
		x.others.meet(v.Segment.VNI, v.Members)
	}
	for p, set := range x.others {
		if err := c.addOther(x.entries, p, set.text()); err != nil {
			return nil, err
		}
	}
	services := slices.DeleteFunc(slices.Clone(in.dhcp), func(d *model.DHCP) bool {
		return !slices.ContainsFunc(in.views, func(v *model.View) bool { return v.Segment.VNI == d.VNI })
	})
	if err := c.addServices(x.entries, services); err != nil {
		return nil, err
	}
	x.keys = slices.Sorted(maps.Keys(x.entries))
	if err := x.mark(); err != nil {
		return nil, err
	}
	c.commons[name.String()] = x
	return x, nil
}

// settle leaves out of what a node is told itself what is common anyway, and hashes the whole.
func (r *Result) settle() (err error) {
	for key, value := range r.own {
		if old, ok := r.common.entries[key]; ok && key != r.without && bytes.Equal(old, value) {
			delete(r.own, key)
		}
	}
	r.Hash, err = r.hash()
	return err
}

// hasher writes the form in which a state is hashed (state.State.Hash), many entries at a time.
type hasher struct {
	hash hash.Hash
	buf  []byte
}

const hashDomain = "etherloom state hash v1\x00"

func (h *hasher) add(key string, value []byte) {
	h.buf = binary.BigEndian.AppendUint32(h.buf, uint32(len(key))) //nolint:gosec // short
	h.buf = append(h.buf, key...)
	h.buf = binary.BigEndian.AppendUint32(h.buf, uint32(len(value))) //nolint:gosec // a message
	h.buf = append(h.buf, value...)
	if len(h.buf) > 1<<14 {
		h.flush()
	}
}

func (h *hasher) flush() {
	h.hash.Write(h.buf)
	h.buf = h.buf[:0]
}

// mark hashes what is common, and keeps how far that has come every so often.
func (x *common) mark() error {
	h := hasher{hash: sha256.New(), buf: []byte(hashDomain)}
	for i, key := range x.keys {
		if i%markEvery == 0 {
			h.flush()
			at, err := clone(h.hash)
			if err != nil {
				return err
			}
			x.marks = append(x.marks, mark{i, at})
		}
		h.add(key, x.entries[key])
	}
	return nil
}

func clone(h hash.Hash) (hash.Cloner, error) {
	c, ok := h.(hash.Cloner)
	if !ok {
		return nil, fmt.Errorf("a hash of type %T cannot be copied", h)
	}
	return c.Clone()
}

// hash is State().Hash(), and begins where the state differs from what is common.
func (r *Result) hash() (sum [32]byte, err error) {
	own := slices.Sorted(maps.Keys(r.own))
	first := r.without
	if len(own) > 0 && (first == "" || own[0] < first) {
		first = own[0]
	}
	h, at := hasher{hash: sha256.New(), buf: []byte(hashDomain)}, 0
	for _, m := range r.common.marks {
		if first != "" && first < r.common.keys[m.at] { // the entry in question may come before it
			break
		}
		c, err := m.hash.Clone()
		if err != nil {
			return sum, err
		}
		h, at = hasher{hash: c}, m.at
	}
	for _, key := range r.common.keys[at:] {
		for len(own) > 0 && own[0] < key {
			h.add(own[0], r.own[own[0]])
			own = own[1:]
		}
		if _, other := r.own[key]; !other && key != r.without {
			h.add(key, r.common.entries[key])
		}
	}
	for _, key := range own {
		h.add(key, r.own[key])
	}
	h.flush()
	return [32]byte(h.hash.Sum(nil)), nil
}

// change is what leads from one state to another.
type change struct {
	set     state.State
	removed []string // sorted
}

// pair names a change of what is common.
type pair struct{ from, to *common }

// Delta returns what leads from what a node was told, which may be nil for nothing, to what it is told: entries that are new or different, and the
// keys, sorted, that are gone.
func (c *Compiler) Delta(from, to *Result) (set state.State, removed []string) {
	if from == nil {
		return to.State(), nil
	}
	set = state.State{}
	look := map[string]struct{}{from.without: {}, to.without: {}} // where the two may differ in what is not common
	for key := range from.own {
		look[key] = struct{}{}
	}
	for key := range to.own {
		look[key] = struct{}{}
	}
	for key := range look {
		old, was := from.Get(key)
		value, is := to.Get(key)
		switch {
		case is && (!was || !bytes.Equal(old, value)):
			set[key] = value
		case was && !is:
			removed = append(removed, key)
		}
	}
	if from.common != to.common {
		x := c.between(from.common, to.common)
		for key, value := range x.set {
			if _, looked := look[key]; !looked {
				set[key] = value
			}
		}
		for _, key := range x.removed {
			if _, looked := look[key]; !looked {
				removed = append(removed, key)
			}
		}
	}
	slices.Sort(removed)
	return set, removed
}

// between is what leads from what was common to what is. Many nodes go the same way.
func (c *Compiler) between(from, to *common) change {
	c.mu.Lock()
	x, known := c.changes[pair{from, to}]
	c.mu.Unlock()
	if known {
		return x
	}
	x.set, x.removed = state.Diff(from.entries, to.entries)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != nil && len(c.changes) < maxChanges {
		c.changes[pair{from, to}] = x
	}
	return x
}

// maxChanges is how many such ways are remembered: each keeps what was common before.
const maxChanges = 64

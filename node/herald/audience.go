package herald

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/policy"
)

// addressLocked works out who is to be told of what. Who is concerned by another machine than before is told all anew.
func (h *Herald) addressLocked(now time.Time) {
	before := h.audience
	h.audience = h.view.Audience(h.cfg.Self, now)
	listeners, otherwise := map[policy.Identity]bool{}, map[policy.Identity]bool{}
	for nodes := range distinct(maps.Values(h.audience)) {
		for _, id := range nodes {
			listeners[id] = true
		}
	}
	for who := range h.audience {
		differ(otherwise, before[who], h.audience[who])
	}
	for who := range before {
		differ(otherwise, before[who], h.audience[who])
	}
	for id, t := range h.to {
		t.listens, t.all = listeners[id], t.all || otherwise[id]
	}
	for _, id := range slices.Sorted(maps.Keys(listeners)) {
		if h.to[id] == nil {
			h.to[id] = &telling{epoch: h.cfg.Epoch(), listens: true, all: true}
		}
	}
	h.order = slices.Sorted(maps.Keys(h.to))
	h.addressCarriedLocked()
}

// distinct leaves out lists that are the very same as one before: of thousands of machines, most have one in common.
func distinct(lists iter.Seq[[]policy.Identity]) iter.Seq[[]policy.Identity] {
	type name struct {
		first *policy.Identity
		n     int
	}
	return func(yield func([]policy.Identity) bool) {
		seen := map[name]bool{}
		for list := range lists {
			if len(list) == 0 || seen[name{&list[0], len(list)}] {
				continue
			}
			seen[name{&list[0], len(list)}] = true
			if !yield(list) {
				return
			}
		}
	}
}

// differ notes who is in one of two lists alone.
func differ(in map[policy.Identity]bool, a, b []policy.Identity) {
	if slices.Equal(a, b) {
		return
	}
	for _, lists := range [...][2][]policy.Identity{{a, b}, {b, a}} {
		for _, id := range lists[0] {
			if !isIn(lists[1], id) {
				in[id] = true
			}
		}
	}
}

// concerns reports whether a node is to know where a machine of ours is.
func (h *Herald) concerns(id, who policy.Identity) bool { return isIn(h.audience[who], id) }

func isIn(list []policy.Identity, id policy.Identity) bool {
	_, is := slices.BinarySearch(list, id)
	return is
}

package herald

import (
	"maps"
	"slices"
	"time"

	"github.com/etherloom/etherloom/policy"
)

// addressLocked works out who is to be told of what. Who is concerned by another machine than before is told all anew.
func (h *Herald) addressLocked(now time.Time) {
	before := h.audience
	h.audience = make(map[policy.Identity][]policy.Identity)
	listeners := map[policy.Identity]bool{}
	for _, who := range h.view.Own(h.cfg.Self)[1:] {
		nodes := h.nodesAround(who, now)
		h.audience[who] = nodes
		for _, id := range nodes {
			listeners[id] = true
		}
	}
	for id, t := range h.to {
		t.listens = listeners[id]
		for who := range h.audience {
			t.all = t.all || isIn(before[who], id) != isIn(h.audience[who], id)
		}
		for who := range before {
			t.all = t.all || isIn(before[who], id) != isIn(h.audience[who], id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(listeners)) {
		if h.to[id] == nil {
			h.to[id] = &telling{epoch: h.cfg.Epoch(), listens: true, all: true}
		}
	}
	h.order = slices.Sorted(maps.Keys(h.to))
	h.addressCarriedLocked()
}

// nodesAround lists the nodes that have anything to do with a machine, or a machine behind which has: by number, without this one.
func (h *Herald) nodesAround(who policy.Identity, now time.Time) []policy.Identity {
	var nodes []policy.Identity
	for _, id := range append(h.view.Neighbours(who, now), who) {
		if gateways := h.view.Gateways(id); len(gateways) > 0 {
			nodes = append(nodes, gateways...)
		} else {
			nodes = append(nodes, id)
		}
	}
	slices.Sort(nodes)
	return slices.DeleteFunc(slices.Compact(nodes), func(id policy.Identity) bool { return id == h.cfg.Self })
}

// concerns reports whether a node is to know where a machine of ours is.
func (h *Herald) concerns(id, who policy.Identity) bool { return isIn(h.audience[who], id) }

func isIn(list []policy.Identity, id policy.Identity) bool {
	_, is := slices.BinarySearch(list, id)
	return is
}

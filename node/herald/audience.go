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
	for _, alike := range h.view.Alike(h.view.Own(h.cfg.Self)[1:], now) {
		h.addressAlikeLocked(alike, listeners, now)
	}
	var others []policy.Identity // machines that concern others than before
	for who := range h.audience {
		if !slices.Equal(before[who], h.audience[who]) {
			others = append(others, who)
		}
	}
	for who := range before {
		if _, is := h.audience[who]; !is {
			others = append(others, who)
		}
	}
	for id, t := range h.to {
		t.listens = listeners[id]
		for _, who := range others {
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

// addressAlikeLocked works out which nodes are to know where machines are that have to do with the same others: those that have anything to do with
// them, or a machine behind which has, and their other gateways. By number, without this node.
func (h *Herald) addressAlikeLocked(alike []policy.Identity, listeners map[policy.Identity]bool, now time.Time) {
	others := h.view.Neighbours(alike[0], now)
	if len(alike) == 1 || !isIn(others, alike[1]) { // they have nothing to do with each other
		others = slices.DeleteFunc(others, func(id policy.Identity) bool { return id == alike[0] })
	}
	common := h.nodesOf(others)
	for _, id := range common {
		listeners[id] = true
	}
	for _, who := range alike {
		h.audience[who] = common
		for _, id := range h.nodesOf([]policy.Identity{who}) {
			if i, is := slices.BinarySearch(h.audience[who], id); !is {
				h.audience[who] = slices.Insert(slices.Clone(h.audience[who]), i, id)
				listeners[id] = true
			}
		}
	}
}

// nodesOf lists the nodes that speak for any in a list, by number, without this one.
func (h *Herald) nodesOf(list []policy.Identity) []policy.Identity {
	var nodes []policy.Identity
	for _, id := range list {
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

package server

import (
	"slices"
	"sync"
	"time"

	"github.com/etherloom/etherloom/control/audit"
	"github.com/etherloom/etherloom/control/compile"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/model"
	"github.com/etherloom/etherloom/identity"
)

// hub knows the streams that are open, and takes signals from one to another. What it knows is nobody's fact: it ends
// with the process.
type hub struct {
	mu      sync.Mutex
	streams map[identity.ID][]*stream // newest last
	told    map[identity.ID]*compile.Result
	alarms  map[audit.Head]bool
	used    map[model.GrantID]time.Time
}

func newHub() *hub {
	return &hub{
		streams: map[identity.ID][]*stream{}, told: map[identity.ID]*compile.Result{}, alarms: map[audit.Head]bool{},
		used: map[model.GrantID]time.Time{},
	}
}

// maxStreams is how many streams one node may have. It needs one; a second is there for a while when the first died
// unnoticed.
const maxStreams = 3

// add enters a stream. If its node has too many, the oldest must go.
func (h *hub) add(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := append(h.streams[s.node], s)
	if len(all) > maxStreams {
		all[0].evict()
		all = all[1:]
	}
	h.streams[s.node] = slices.Clone(all)
}

func (h *hub) remove(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rest := slices.DeleteFunc(h.streams[s.node], func(o *stream) bool { return o == s })
	if len(rest) == 0 {
		delete(h.streams, s.node)
	} else {
		h.streams[s.node] = rest
	}
}

// pass puts a signal into the queue of the receiver's newest stream, and reports whether there was one with room.
func (h *hub) pass(to identity.ID, sig *controlv1.Signal) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.streams[to]
	if len(all) == 0 {
		return false
	}
	select {
	case all[len(all)-1].signals <- sig:
		return true
	default:
		return false
	}
}

// online reports whether a node has a stream.
func (h *hub) online(id identity.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams[id]) > 0
}

// remember keeps what a node was told last, for when its stream breaks and it comes back.
func (h *hub) remember(id identity.ID, r *compile.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told[id] = r
}

// recall returns what a node was told last, if that has the hash that the node says it holds.
func (h *hub) recall(id identity.ID, hash []byte) *compile.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.told[id]; r != nil && slices.Equal(r.Hash[:], hash) {
		return r
	}
	return nil
}

// forget drops what was kept of a node that is gone.
func (h *hub) forget(id identity.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.told, id)
}

// maxAlarms is how many different heads of the audit log, seen by nodes and not in the log, are written down. A node
// can make up as many as it likes.
const maxAlarms = 32

// alarm reports whether a missing head is new, and worth writing down.
func (h *hub) alarm(head audit.Head) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.alarms[head] || len(h.alarms) >= maxAlarms {
		return false
	}
	h.alarms[head] = true
	return true
}
